//! What becomes of keys in a format: tables that the program has as bytes, without a pointer among them
//! (docs/decisions/0017). Seven hundred rows would have two each, and a machine's process reads none.

/// What becomes of a key in a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The format can say it, at least for some values.
    Mapped,
    /// It cannot, for this reason.
    Refused(&'static str),
}

/// Patterns of keys, and what becomes of those that fit.
#[derive(Debug, Clone, Copy)]
pub struct Fates(&'static [u8]);

impl Fates {
    /// What becomes of `key`, of which the first pattern that fits decides; `None` if none does.
    #[must_use]
    pub fn of(self, key: &str) -> Option<Fate> {
        self.rows().find(|(pattern, _)| fits(pattern, key)).map(|(_, fate)| fate)
    }

    /// The patterns, in order, and what each decides.
    pub fn rows(self) -> impl Iterator<Item = (&'static str, Fate)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let pattern = text(&mut rest)?;
            let why = text(&mut rest)?;
            Some((pattern, if why.is_empty() { Fate::Mapped } else { Fate::Refused(why) }))
        })
    }

    pub(crate) const fn packed(bytes: &'static [u8]) -> Self {
        Self(bytes)
    }
}

/// `fates![(PATTERN, FATE), …]`: a constant of type [`Fates`].
macro_rules! fates {
    ($($row:expr),* $(,)?) => {{
        const ROWS: &[(&str, $crate::fates::Fate)] = &[$($row),*];
        static PACKED: [u8; $crate::fates::pack::<0>(ROWS).1] = $crate::fates::pack(ROWS).0;
        $crate::fates::Fates::packed(&PACKED)
    }};
}
pub(crate) use fates;

/// The first `N` bytes of the packed `rows`, and how many they are in all.
pub(crate) const fn pack<const N: usize>(rows: &[(&str, Fate)]) -> ([u8; N], usize) {
    let (mut packed, mut at, mut row) = ([0; N], 0, 0);
    while row < rows.len() {
        let (pattern, fate) = &rows[row];
        let why = match fate {
            Fate::Mapped => "",
            Fate::Refused(why) => {
                assert!(!why.is_empty(), "there is a reason");
                why
            }
        };
        at = put(&mut packed, at, pattern);
        at = put(&mut packed, at, why);
        row += 1;
    }
    (packed, at)
}

/// Writes the length of `text` and its bytes at `at`, as far as there is room, and returns where they end.
const fn put(packed: &mut [u8], at: usize, text: &str) -> usize {
    assert!(text.len() < 256, "a length in one byte");
    let end = at + 1 + text.len();
    if end <= packed.len() {
        packed[at] = text.len().to_le_bytes()[0];
        packed.split_at_mut(at + 1).1.split_at_mut(text.len()).0.copy_from_slice(text.as_bytes());
    }
    end
}

/// The next text of `rest`.
fn text(rest: &mut &'static [u8]) -> Option<&'static str> {
    let (length, bytes) = rest.split_first()?;
    let (text, after) = bytes.split_at_checked(usize::from(*length))?;
    *rest = after;
    str::from_utf8(text).ok()
}

/// Whether `key` has the form of `pattern`: `*` is one part, `**` at the end one part or more.
fn fits(pattern: &str, key: &str) -> bool {
    let mut parts = key.split('.');
    for want in pattern.split('.') {
        match (want, parts.next()) {
            ("**", Some(_)) => return true,
            (_, None) => return false,
            ("*", Some(_)) => {}
            (want, Some(part)) if want == part => {}
            (_, Some(_)) => return false,
        }
    }
    parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Format;

    /// Keys of the table that no format needs to list: they are about this program.
    const OURS: &[&str] = &["log.level", "kvm.fd", "boot.kernel_fd", "boot.initrd_fd"];

    #[test]
    fn every_format_maps_or_refuses_every_key() {
        for format in Format::ALL {
            for key in parador_config::keys::all() {
                let known = format.fates().of(key.pattern).is_some() || OURS.contains(&key.pattern);
                assert!(known, "{}: `{}` is neither mapped nor refused", format.name(), key.pattern);
            }
        }
    }

    #[test]
    fn what_was_packed_is_what_was_written() {
        const TABLE: Fates = fates![("name", Fate::Mapped), ("x86.**", Fate::Refused("ö: it has none"))];
        let rows: Vec<_> = TABLE.rows().collect();
        assert_eq!(rows, [("name", Fate::Mapped), ("x86.**", Fate::Refused("ö: it has none"))]);
    }

    #[test]
    fn two_stars_stand_for_the_rest() {
        assert!(fits("**", "a.b"));
        assert!(fits("device.*.tap.**", "device.net0.tap.name"));
        assert!(!fits("device.*.tap.**", "device.net0.tap"));
        assert!(!fits("device.*", "device.net0.mac"));
    }
}
