//! The table as the program has it: bytes, without a pointer among them.
//!
//! A pointer in a constant of a position-independent program is written when the program starts, and
//! the page it is in is then memory of that process alone. Two hundred rows have a dozen each, and a
//! machine's process reads few of them.

use super::row::{Listed, Row};
use super::{Elsewhere, Key, Kind, Support, TABLES, Words};

/// The rows of all tables, one after the other, each behind its length.
static PACKED: [u8; SIZE] = {
    let mut packed = [0; SIZE];
    pack(&mut packed);
    packed
};

const SIZE: usize = pack(&mut []);

/// A row.
#[derive(Clone, Copy)]
pub(super) struct Packed(Reader);

impl Packed {
    /// Every row, in the order of the tables.
    pub(super) fn all() -> impl Iterator<Item = Self> + Clone {
        let mut rest = Reader(&PACKED);
        std::iter::from_fn(move || if rest.0.is_empty() { None } else { Some(Self(Reader(rest.bytes()))) })
    }

    /// The bytes of its first column.
    pub(super) fn pattern(mut self) -> &'static [u8] {
        self.0.bytes()
    }

    /// All of it.
    pub(super) fn unpack(self) -> Key {
        let Self(mut row) = self;
        Key {
            pattern: row.text(),
            models: row.words(),
            kind: row.kind(),
            default: if row.flag() { Some(row.text()) } else { None },
            live: row.flag(),
            secret: row.flag(),
            support: row.support(),
            elsewhere: Elsewhere {
                bhyve: row.text(),
                qemu: row.text(),
                cloud_hypervisor: row.text(),
                firecracker: row.text(),
                crosvm: row.text(),
                libvirt: row.text(),
            },
            doc: row.text(),
        }
    }
}

/// Writes all tables into `bytes`, as far as there is room, and returns how much they take.
const fn pack(bytes: &mut [u8]) -> usize {
    let mut out = Writer { bytes, at: 0 };
    let mut table = 0;
    while table < TABLES.len() {
        let mut row = 0;
        while row < TABLES[table].1.len() {
            let start = out.at;
            out.number(0);
            out.row(&TABLES[table].1[row]);
            let end = out.at;
            out.at = start;
            out.number(end - start - 2);
            out.at = end;
            row += 1;
        }
        table += 1;
    }
    out.at
}

struct Writer<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    const fn raw(&mut self, bytes: &[u8]) {
        let end = self.at + bytes.len();
        if end <= self.bytes.len() {
            self.bytes.split_at_mut(self.at).1.split_at_mut(bytes.len()).0.copy_from_slice(bytes);
        }
        self.at = end;
    }

    const fn number(&mut self, number: usize) {
        assert!(number <= 0xffff, "a length in two bytes");
        let [low, high, ..] = number.to_le_bytes();
        self.raw(&[low, high]);
    }

    const fn flag(&mut self, flag: bool) {
        self.raw(&[flag as u8]);
    }

    const fn text(&mut self, text: &str) {
        self.number(text.len());
        self.raw(text.as_bytes());
    }

    const fn words(&mut self, words: Listed) {
        let (mut length, mut index) = (0, 0);
        while index < words.len() {
            length += words[index].len() + 1;
            index += 1;
        }
        self.number(length.saturating_sub(1));
        index = 0;
        while index < words.len() {
            if index > 0 {
                self.raw(b" ");
            }
            self.raw(words[index].as_bytes());
            index += 1;
        }
    }

    const fn bounds(&mut self, tag: u8, min: u64, max: u64) {
        self.raw(&[tag]);
        self.raw(&min.to_le_bytes());
        self.raw(&max.to_le_bytes());
    }

    const fn kind(&mut self, kind: &Kind<Listed>) {
        match kind {
            Kind::Bool => self.raw(&[0]),
            Kind::Int { min, max } => self.bounds(1, *min, *max),
            Kind::Size { min, max } => self.bounds(2, *min, *max),
            Kind::Memory { min, max } => self.bounds(3, *min, *max),
            Kind::Text { max } => self.bounds(4, 0, *max as u64),
            Kind::Path => self.raw(&[5]),
            Kind::Word(words) => {
                self.raw(&[6]);
                self.words(words);
            }
            Kind::Mac => self.raw(&[7]),
            Kind::Cpus => self.raw(&[8]),
            Kind::Address => self.raw(&[9]),
            Kind::Uuid => self.raw(&[10]),
            Kind::Endpoint => self.raw(&[11]),
            Kind::Descriptors => self.raw(&[12]),
        }
    }

    const fn support(&mut self, support: &Support<Listed>) {
        let (tag, why) = match support {
            Support::Native => (0, ""),
            Support::Only(_, why) => (1, *why),
            Support::Always(why) => (2, *why),
            Support::NoEffect(why) => (3, *why),
            Support::Runner => (4, ""),
            Support::Refused(why) => (5, *why),
        };
        self.raw(&[tag]);
        self.words(if let Support::Only(words, _) = support { words } else { &[] });
        self.text(why);
    }

    const fn row(&mut self, row: &Row) {
        let Row { pattern, models, kind, default, live, secret, support, elsewhere, doc } = row;
        let Elsewhere { bhyve, qemu, cloud_hypervisor, firecracker, crosvm, libvirt } = elsewhere;
        self.text(pattern);
        self.words(models);
        self.kind(kind);
        self.flag(default.is_some());
        if let Some(default) = default {
            self.text(default);
        }
        self.flag(*live);
        self.flag(*secret);
        self.support(support);
        self.text(bhyve);
        self.text(qemu);
        self.text(cloud_hypervisor);
        self.text(firecracker);
        self.text(crosvm);
        self.text(libvirt);
        self.text(doc);
    }
}

/// What is left to read of what was written.
#[derive(Clone, Copy)]
struct Reader(&'static [u8]);

impl Reader {
    fn raw<const N: usize>(&mut self) -> [u8; N] {
        let (first, rest) = self.0.split_first_chunk().expect("it is read as it was written");
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> usize {
        u16::from_le_bytes(self.raw()).into()
    }

    fn flag(&mut self) -> bool {
        self.raw() == [1]
    }

    fn bytes(&mut self) -> &'static [u8] {
        let length = self.number();
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    fn text(&mut self) -> &'static str {
        str::from_utf8(self.bytes()).expect("it was written from texts")
    }

    fn words(&mut self) -> Words {
        Words(self.text())
    }

    fn bounds(&mut self) -> (u64, u64) {
        (u64::from_le_bytes(self.raw()), u64::from_le_bytes(self.raw()))
    }

    fn kind(&mut self) -> Kind {
        let [tag] = self.raw();
        let (min, max) = if (1..=4).contains(&tag) { self.bounds() } else { (0, 0) };
        match tag {
            0 => Kind::Bool,
            1 => Kind::Int { min, max },
            2 => Kind::Size { min, max },
            3 => Kind::Memory { min, max },
            4 => Kind::Text { max: usize::try_from(max).unwrap_or(usize::MAX) },
            5 => Kind::Path,
            6 => Kind::Word(self.words()),
            7 => Kind::Mac,
            8 => Kind::Cpus,
            9 => Kind::Address,
            10 => Kind::Uuid,
            11 => Kind::Endpoint,
            12 => Kind::Descriptors,
            _ => unreachable!("no such kind is written"),
        }
    }

    fn support(&mut self) -> Support {
        let [tag] = self.raw();
        let (words, why) = (self.words(), self.text());
        match tag {
            0 => Support::Native,
            1 => Support::Only(words, why),
            2 => Support::Always(why),
            3 => Support::NoEffect(why),
            4 => Support::Runner,
            5 => Support::Refused(why),
            _ => unreachable!("no such support is written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_what_was_written() {
        let written: Vec<&Row> = TABLES.iter().flat_map(|(_, rows)| rows.iter()).collect();
        let read: Vec<Key> = Packed::all().map(Packed::unpack).collect();
        assert_eq!(read.len(), written.len());
        for (key, row) in read.iter().zip(written) {
            let Row { pattern, models, kind, default, live, secret, support, elsewhere, doc } = *row;
            assert_eq!((key.pattern, key.default, key.doc), (pattern, default, doc));
            assert_eq!((key.live, key.secret, key.elsewhere), (live, secret, elsewhere));
            assert_eq!(key.models.iter().collect::<Vec<_>>(), models, "{pattern}");
            // A list of words is the one thing that is not written as it is read.
            let plain = |text: String| text.replace("Words", "").replace(['[', ']', '(', ')', '"', ','], "");
            assert_eq!(plain(format!("{:?}", key.kind)), plain(format!("{kind:?}")), "{pattern}");
            assert_eq!(plain(format!("{:?}", key.support)), plain(format!("{support:?}")), "{pattern}");
        }
    }
}
