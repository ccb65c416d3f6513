//! The one table of what may be asked for.
//!
//! Names are those of bhyve_config(5) where it has one. A key that Parador's own engine does not implement
//! is here all the same when another system has it, and says so ([`Support`]): what is translated from
//! one system to another passes through these keys.

mod block;
mod boot;
mod machine;
mod memory;
mod models;
mod net;
mod others;
mod packed;
mod process;
mod row;
mod words;

pub(crate) use models::native_models;
pub use models::{MODELS, Model, model};
pub(crate) use words::{FOREIGN, FOREIGN_VALUES, synonym};

use packed::Packed;
use row::Row;

/// What a key is and what it takes.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The key's path; `*` stands for one part that the user chooses.
    pub pattern: &'static str,
    /// Models of devices that have it; empty for keys that are not of a device, or of all of them.
    pub models: Words,
    /// What its values are.
    pub kind: Kind,
    /// What it is when it is not set.
    pub default: Option<&'static str>,
    /// Whether it may change while the machine runs.
    pub live: bool,
    /// Whether its value is shown only to those who ask for secrets.
    pub secret: bool,
    /// What Parador's own engine makes of it.
    pub support: Support,
    /// What other systems call it.
    pub elsewhere: Elsewhere,
    /// What it does, in one sentence.
    pub doc: &'static str,
}

/// What Parador's own engine makes of a key or a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support<List = Words> {
    /// What it says.
    Native,
    /// What it says if it is one of these values; others are refused, for this reason.
    Only(List, &'static str),
    /// Nothing, as it is so anyway, for this reason.
    Always(&'static str),
    /// Nothing, which the user should know, for this reason.
    NoEffect(&'static str),
    /// Nothing: `parador run` does it before the engine starts, which then has no need of it.
    Runner,
    /// It is refused, for this reason; the text may go on with what to do instead.
    Refused(&'static str),
}

impl Support {
    /// Whether setting it makes a difference to Parador's own engine.
    #[must_use]
    pub fn matters(self) -> bool {
        match self {
            Self::Native | Self::Runner => true,
            Self::Only(values, _) => values.iter().count() > 1,
            Self::Always(_) | Self::NoEffect(_) | Self::Refused(_) => false,
        }
    }
}

/// The words of other systems for a key, for a reader who comes from there; empty where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// bhyve's option, as its keys are ours.
    pub bhyve: &'static str,
    /// QEMU's option or property.
    pub qemu: &'static str,
    /// Cloud Hypervisor's option.
    pub cloud_hypervisor: &'static str,
    /// Firecracker's JSON field.
    pub firecracker: &'static str,
    /// crosvm's option.
    pub crosvm: &'static str,
    /// libvirt's XML element or attribute.
    pub libvirt: &'static str,
}

/// Words of a fixed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Words(&'static str);

impl Words {
    /// The words, in order.
    pub fn iter(self) -> impl Iterator<Item = &'static str> + Clone {
        self.0.split(' ').filter(|word| !word.is_empty())
    }

    /// Whether `word` is one of them.
    #[must_use]
    pub fn contains(self, word: &str) -> bool {
        self.iter().any(|other| other == word)
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// All of them, with `separator` between them.
    #[must_use]
    pub fn join(self, separator: &str) -> String {
        self.0.replace(' ', separator)
    }
}

/// The type of a key's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "min and max are the bounds, inclusive")]
pub enum Kind<List = Words> {
    /// `true`, `on`, `yes`, `1` or `false`, `off`, `no`, `0`, in any case.
    Bool,
    /// A number, decimal or hexadecimal after `0x`.
    Int { min: u64, max: u64 },
    /// A size in bytes, with a unit K, M, G or T (powers of 1024).
    Size { min: u64, max: u64 },
    /// As [`Kind::Size`], but a number below 1048576 without a unit counts MiB.
    Memory { min: u64, max: u64 },
    /// Any text of at most `max` bytes.
    Text { max: usize },
    /// The path of a file.
    Path,
    /// One of these words.
    Word(List),
    /// An Ethernet address of one interface.
    Mac,
    /// A list of processors, such as `0-3,6`.
    Cpus,
    /// A PCI address, `BUS:SLOT.FUNCTION`.
    Address,
    /// A UUID.
    Uuid,
    /// What a console is connected to: `stdio`, `none`, `pty`, `file:PATH`, `unix:PATH`.
    Endpoint,
    /// Descriptors this process was started with: numbers from 3, with commas between them.
    Descriptors,
}

impl Key {
    /// The words it takes, of those that Parador's own engine knows; empty if its values are no words.
    #[must_use]
    pub fn words(&self) -> Vec<&'static str> {
        match (self.kind, self.support) {
            (Kind::Word(_), _) if self.pattern == "device.*.model" => native_models(),
            (Kind::Word(_), Support::Only(words, _)) | (Kind::Word(words), _) => words.iter().collect(),
            (Kind::Bool, _) => vec!["true", "false"],
            _ => Vec::new(),
        }
    }

    /// Whether `path` is a key of this pattern.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let mut parts = path.split('.');
        self.pattern.split('.').all(|want| parts.next().is_some_and(|part| want == "*" || want == part))
            && parts.next().is_none()
    }
}

/// The tables, with their titles, in the order of the documentation.
const TABLES: &[(&str, &[Row])] = &[
    ("The machine", machine::KEYS),
    ("Memory", memory::KEYS),
    ("What it starts", boot::KEYS),
    ("Every device", models::KEYS),
    ("Disks", block::KEYS),
    ("Network interfaces", net::KEYS),
    ("Other devices", others::KEYS),
    ("The process", process::KEYS),
];

/// The titles of the tables, and how many keys each has.
const GROUPS: [(&str, usize); TABLES.len()] = {
    let mut groups = [("", 0); TABLES.len()];
    let mut index = 0;
    while index < TABLES.len() {
        groups[index] = (TABLES[index].0, TABLES[index].1.len());
        index += 1;
    }
    groups
};

/// Every key there is, apart from `var.*`, which are the user's own. Of several patterns that fit a
/// path and a model, the first counts.
pub fn all() -> impl Iterator<Item = Key> + Clone {
    Packed::all().map(Packed::unpack)
}

/// The keys by what they are about: a heading, and those under it.
pub fn groups() -> impl Iterator<Item = (&'static str, Vec<Key>)> {
    let mut all = all();
    GROUPS.into_iter().map(move |(title, count)| (title, all.by_ref().take(count).collect()))
}

/// The keys that `path` may be, one for each group of models.
pub(crate) fn matching(path: &str) -> impl Iterator<Item = Key> {
    // Most patterns end otherwise than the path: that is seen at once.
    let last = path.rsplit('.').next().unwrap_or(path).as_bytes();
    let near = move |row: &Packed| row.pattern().ends_with(last) || row.pattern().ends_with(b"*");
    Packed::all().filter(near).map(Packed::unpack).filter(move |key| key.matches(path))
}

/// `pattern` with the parts of `path` in place of its stars.
pub(crate) fn fill(pattern: &str, path: &str) -> Option<String> {
    let mut parts = path.split('.');
    let filled: Option<Vec<&str>> = pattern
        .split('.')
        .map(|want| {
            let part = parts.next();
            if want == "*" { part } else { Some(want) }
        })
        .collect();
    filled.map(|parts| parts.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;

    #[test]
    fn the_table_is_consistent() {
        let all: Vec<Key> = all().collect();
        for (index, key) in all.iter().enumerate() {
            assert!(key.doc.ends_with('.'), "{}", key.pattern);
            if let Some(default) = key.default {
                assert!(value::parse(key.kind, default).is_ok(), "{}={default}", key.pattern);
            }
            assert!(key.models.iter().all(|name| model(name).is_some()), "{}", key.pattern);
            if let Support::Only(values, _) = key.support {
                for value in values.iter() {
                    assert!(value::parse(key.kind, value).is_ok(), "{}={value}", key.pattern);
                }
            }
            for other in &all[index + 1..] {
                let shared = key.models.iter().any(|model| other.models.contains(model))
                    || key.models.is_empty()
                    || other.models.is_empty();
                assert!(key.pattern != other.pattern || !shared, "{} is there twice", key.pattern);
            }
        }
    }

    #[test]
    fn words_of_other_systems_lead_to_keys_and_are_none_themselves() {
        for (word, key) in FOREIGN.iter().chain(words::SYNONYMS) {
            assert!(all().any(|k| k.pattern == *key), "{key}");
            assert!(!all().any(|k| k.pattern == *word), "{word}");
        }
        let words: Vec<&str> = all()
            .filter_map(|key| match key.kind {
                Kind::Word(words) => Some(words.iter()),
                _ => None,
            })
            .flatten()
            .collect();
        for (_, meant) in FOREIGN_VALUES {
            assert!(words.contains(meant), "{meant}");
        }
    }

    #[test]
    fn a_star_stands_for_exactly_one_part() {
        let key = all().find(|key| key.pattern == "device.*.port.*.path").unwrap();
        assert!(key.matches("device.a.port.0.path"));
        assert!(!key.matches("device.a.port.path"));
        assert!(!key.matches("device.a.port.0.path.x"));
        assert!(!key.matches("device.a.b.port.0.path"));
    }
}
