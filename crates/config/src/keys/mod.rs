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
mod process;
mod words;

pub(crate) use models::native_models;
pub use models::{MODELS, Model, model};
pub(crate) use words::{FOREIGN, FOREIGN_VALUES, synonym};

/// What a key is and what it takes.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The key's path; `*` stands for one part that the user chooses.
    pub pattern: &'static str,
    /// Models of devices that have it; empty for keys that are not of a device, or of all of them.
    pub models: &'static [&'static str],
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
pub enum Support {
    /// What it says.
    Native,
    /// What it says if it is one of these values; others are refused, for this reason.
    Only(&'static [&'static str], &'static str),
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
            Self::Only(values, _) => values.len() > 1,
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

/// Keys that belong together.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// What they are about, as a heading.
    pub title: &'static str,
    /// The keys.
    pub keys: &'static [Key],
}

/// The type of a key's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "min and max are the bounds, inclusive")]
pub enum Kind {
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
    Word(&'static [&'static str]),
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

const fn key(pattern: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key {
        pattern,
        models: &[],
        kind,
        default: None,
        live: false,
        secret: false,
        support: Support::Native,
        elsewhere: Elsewhere {
            bhyve: "",
            qemu: "",
            cloud_hypervisor: "",
            firecracker: "",
            crosvm: "",
            libvirt: "",
        },
        doc,
    }
}

impl Key {
    const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    const fn of(mut self, models: &'static [&'static str]) -> Self {
        self.models = models;
        self
    }

    const fn live(mut self) -> Self {
        self.live = true;
        self
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    const fn only(mut self, values: &'static [&'static str], why: &'static str) -> Self {
        self.support = Support::Only(values, why);
        self
    }

    const fn always(mut self, why: &'static str) -> Self {
        self.support = Support::Always(why);
        self
    }

    const fn no_effect(mut self, why: &'static str) -> Self {
        self.support = Support::NoEffect(why);
        self
    }

    const fn runner(mut self) -> Self {
        self.support = Support::Runner;
        self
    }

    const fn refused(mut self, why: &'static str) -> Self {
        self.support = Support::Refused(why);
        self
    }

    const fn bhyve(mut self, option: &'static str) -> Self {
        self.elsewhere.bhyve = option;
        self
    }

    const fn qemu(mut self, option: &'static str) -> Self {
        self.elsewhere.qemu = option;
        self
    }

    const fn cloud_hypervisor(mut self, option: &'static str) -> Self {
        self.elsewhere.cloud_hypervisor = option;
        self
    }

    const fn firecracker(mut self, field: &'static str) -> Self {
        self.elsewhere.firecracker = field;
        self
    }

    const fn crosvm(mut self, option: &'static str) -> Self {
        self.elsewhere.crosvm = option;
        self
    }

    const fn libvirt(mut self, element: &'static str) -> Self {
        self.elsewhere.libvirt = element;
        self
    }

    /// The words it takes, of those that Parador's own engine knows; empty if its values are no words.
    #[must_use]
    pub fn words(&self) -> Vec<&'static str> {
        match (self.kind, self.support) {
            (Kind::Word(_), _) if self.pattern == "device.*.model" => native_models(),
            (Kind::Word(_), Support::Only(words, _)) | (Kind::Word(words), _) => words.to_vec(),
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

/// Every group, in the order of the documentation.
pub const GROUPS: &[Group] = &[
    Group { title: "The machine", keys: machine::KEYS },
    Group { title: "Memory", keys: memory::KEYS },
    Group { title: "What it starts", keys: boot::KEYS },
    Group { title: "Every device", keys: models::KEYS },
    Group { title: "Disks", keys: block::KEYS },
    Group { title: "Network interfaces", keys: net::KEYS },
    Group { title: "Other devices", keys: others::KEYS },
    Group { title: "The process", keys: process::KEYS },
];

/// Every key there is, apart from `var.*`, which are the user's own. Of several patterns that fit a
/// path and a model, the first counts.
pub const ALL: &[Key] = &all();

const fn count() -> usize {
    let (mut count, mut group) = (0, 0);
    while group < GROUPS.len() {
        count += GROUPS[group].keys.len();
        group += 1;
    }
    count
}

const fn all() -> [Key; count()] {
    let mut all = [machine::KEYS[0]; count()];
    let (mut next, mut group) = (0, 0);
    while group < GROUPS.len() {
        let mut index = 0;
        while index < GROUPS[group].keys.len() {
            all[next] = GROUPS[group].keys[index];
            next += 1;
            index += 1;
        }
        group += 1;
    }
    all
}

/// The keys that `path` may be, one for each group of models.
pub(crate) fn matching(path: &str) -> impl Iterator<Item = &'static Key> {
    // Most patterns end otherwise than the path: that is seen at once.
    let last = path.rsplit('.').next().unwrap_or(path);
    let near = move |key: &&Key| key.pattern.ends_with(last) || key.pattern.ends_with('*');
    ALL.iter().filter(near).filter(move |key| key.matches(path))
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

/// A switch, for the tables.
const fn switch(pattern: &'static str, doc: &'static str) -> Key {
    key(pattern, Kind::Bool, doc)
}

/// A text of ordinary length.
const fn text(pattern: &'static str, doc: &'static str) -> Key {
    key(pattern, Kind::Text { max: 255 }, doc)
}

/// A number from `min` to `max`.
const fn number(pattern: &'static str, min: u64, max: u64, doc: &'static str) -> Key {
    key(pattern, Kind::Int { min, max }, doc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;

    #[test]
    fn the_table_is_consistent() {
        for (index, key) in ALL.iter().enumerate() {
            assert!(key.doc.ends_with('.'), "{}", key.pattern);
            if let Some(default) = key.default {
                assert!(value::parse(key.kind, default).is_ok(), "{}={default}", key.pattern);
            }
            assert!(key.models.iter().all(|name| model(name).is_some()), "{}", key.pattern);
            if let Support::Only(values, _) = key.support {
                for value in values {
                    assert!(value::parse(key.kind, value).is_ok(), "{}={value}", key.pattern);
                }
            }
            for other in &ALL[index + 1..] {
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
            assert!(ALL.iter().any(|k| k.pattern == *key), "{key}");
            assert!(!ALL.iter().any(|k| k.pattern == *word), "{word}");
        }
        let words: Vec<&str> = ALL
            .iter()
            .flat_map(|key| match key.kind {
                Kind::Word(words) => words,
                _ => &[],
            })
            .copied()
            .collect();
        for (_, meant) in FOREIGN_VALUES {
            assert!(words.contains(meant), "{meant}");
        }
    }

    #[test]
    fn a_star_stands_for_exactly_one_part() {
        let key = key("device.*.port.*.path", Kind::Path, "");
        assert!(key.matches("device.a.port.0.path"));
        assert!(!key.matches("device.a.port.path"));
        assert!(!key.matches("device.a.port.0.path.x"));
        assert!(!key.matches("device.a.b.port.0.path"));
    }
}
