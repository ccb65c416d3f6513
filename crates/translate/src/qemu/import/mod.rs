//! A command line, read into a tree.
//!
//! First all options are sorted: what is understood at once, what a device is, what a device can be
//! connected to, and the rest. Then devices find what they are connected to. Whatever nobody
//! understood is kept, in the order it was written.

mod device;
mod disk;
mod machine;
mod memory;
mod network;
mod serial;
mod sort;
mod special;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use parador_config::{Diagnostics, Origin, Tree};

use super::bag::Bag;
use super::options::{self, Opt};
use crate::format::{Imported, Input, Loss};
use crate::words::{self, Word};

/// How the names of programs begin that take such a command line.
static PROGRAMS: &[&str] = &["qemu", "kvm"];

/// A tree of the command line `input`.
pub(in crate::qemu) fn import(input: Input<'_>) -> Result<Imported, Diagnostics> {
    let options = options::split(words::arguments(input, PROGRAMS)?)?;
    let mut import = Import::default();
    for (index, option) in options.into_iter().enumerate() {
        import.sort(index, option);
    }
    import.set_properties();
    import.pair_legacy_networks();
    import.boot_rom();
    import.memory();
    import.serial_ports();
    let (plugged, free) = import.plugged();
    for front in free.into_iter().chain(plugged) {
        import.device(front);
    }
    import.monitors();
    import.remaining();
    import.left_out();
    import.finish()
}

/// A command line on its way in.
#[derive(Debug, Default)]
struct Import {
    tree: Tree,
    losses: Vec<Loss>,
    diagnostics: Diagnostics,
    /// Options that come back as they are, by their place.
    kept: BTreeMap<usize, Vec<Word>>,
    /// Properties without a key, as values of `-set`.
    sets: Vec<Word>,
    /// Devices.
    fronts: Vec<Front>,
    /// What devices are connected to.
    parts: Vec<Part>,
    /// The same, by kind and name.
    by_name: BTreeMap<(&'static str, String), usize>,
    /// Values of `-serial`, or the chardev of an `isa-serial`.
    serials: Vec<Front>,
    /// Names of devices that are in use.
    names: BTreeSet<String>,
    /// How many names with a prefix have been tried.
    tried: BTreeMap<&'static str, usize>,
    /// What the options say that count for the whole.
    whole: Whole,
}

/// What only makes sense when all options are known.
#[derive(Debug, Default)]
struct Whole {
    /// The `memory-backend` of the machine, with the place of its option.
    memory: Option<(usize, String, Origin)>,
    /// `-mem-path`.
    path: Option<Word>,
    /// Nodes of `-numa`.
    nodes: Vec<Bag>,
    /// `-set`, and those that set nothing that is known.
    sets: Vec<Word>,
    unknown: Vec<Word>,
    /// `-net nic`, and `-net` with anything else.
    nics: Vec<(Front, Opt)>,
    peers: Vec<(Front, Opt)>,
    /// Drives and nodes that hold firmware.
    flash: Vec<Flash>,
    /// The next place at the controller that is always there.
    next_ide: usize,
    /// Controllers with places: QEMU's name, ours, and how many places are taken.
    hosts: Vec<Host>,
    /// `-mon`.
    monitors: Vec<Front>,
    /// `-vnc`, until a screen takes it.
    vnc: VecDeque<(usize, Vec<Word>)>,
    /// `-S`.
    stopped: Option<(usize, Origin)>,
    nodefaults: bool,
    nographic: Option<Origin>,
    /// Whether anything says what the network and the display are.
    networked: bool,
    displayed: bool,
    first: Option<Origin>,
}

/// A device that others are plugged into.
#[derive(Debug)]
struct Host {
    model: &'static str,
    theirs: Option<String>,
    ours: String,
    next: usize,
}

/// Where firmware comes from.
#[derive(Debug)]
struct Flash {
    unit: Option<usize>,
    index: usize,
    node: String,
    kind: &'static str,
    origin: Origin,
}

/// An option that makes a device, or one that says what a device is connected to.
#[derive(Debug)]
struct Front {
    /// Its place.
    index: usize,
    bag: Bag,
    words: Vec<Word>,
}

/// What a device can be connected to.
#[derive(Debug)]
struct Part {
    index: usize,
    bag: Bag,
    words: Vec<Word>,
    used: bool,
}

impl Import {
    fn set(&mut self, key: &str, value: impl Into<String>, origin: &Origin) {
        self.tree.set(key, value.into(), origin.clone());
    }

    fn keep(&mut self, index: usize, words: Vec<Word>) {
        self.kept.entry(index).or_insert(words);
    }

    /// Keeps what is left of the bag of an option that may come several times.
    fn keep_rest(&mut self, index: usize, option: &str, first: &str, bag: &Bag) {
        if !bag.is_empty() {
            let word = |text: String| Word { text, origin: bag.origin.clone() };
            self.keep(index, vec![word(format!("-{option}")), word(bag.human(first))]);
        }
    }

    /// Keeps what is left of the bag of a thing that has a name, as its properties.
    fn keep_properties(&mut self, group: &str, id: &str, bag: &Bag) {
        for (name, value) in bag.rest() {
            let text = format!("{group}.{id}.{name}={value}");
            self.sets.push(Word { text, origin: bag.origin.clone() });
        }
    }

    fn lose(&mut self, what: impl Into<String>, why: impl Into<String>, origin: &Origin) {
        self.losses.push(Loss { what: what.into(), why: why.into(), origin: Some(origin.clone()) });
    }

    /// A name for a device: the first of `wishes` that is free, or a number after `prefix`.
    fn name(&mut self, wishes: &[Option<&str>], prefix: &'static str) -> String {
        for wish in wishes.iter().copied().flatten() {
            let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '-' };
            let name: String = wish.chars().map(plain).collect();
            if !name.is_empty() && self.names.insert(name.clone()) {
                return name;
            }
        }
        let tried = self.tried.entry(prefix).or_default();
        loop {
            let name = format!("{prefix}{tried}");
            *tried += 1;
            if self.names.insert(name.clone()) {
                return name;
            }
        }
    }

    /// The devices that are plugged into others, and those that are not.
    fn plugged(&mut self) -> (Vec<Front>, Vec<Front>) {
        let fronts = std::mem::take(&mut self.fronts);
        let ids: BTreeSet<String> = fronts.iter().filter_map(|front| front.bag.peek("id")).collect();
        fronts.into_iter().partition(|front| {
            let bus = front.bag.peek("bus");
            bus.is_some_and(|bus| bus.rsplit_once('.').is_some_and(|(name, _)| ids.contains(name)))
        })
    }

    fn finish(mut self) -> Result<Imported, Diagnostics> {
        if self.diagnostics.errors() > 0 {
            return Err(self.diagnostics);
        }
        for part in std::mem::take(&mut self.parts) {
            if !part.used {
                self.keep(part.index, part.words);
            }
        }
        let kept = std::mem::take(&mut self.kept).into_values().flatten();
        let sets = std::mem::take(&mut self.sets)
            .into_iter()
            .flat_map(|word| [Word { text: "-set".to_owned(), origin: word.origin.clone() }, word]);
        for (number, word) in kept.chain(sets).enumerate() {
            self.tree.set(&format!("engine.qemu.arg.{number}"), word.text, word.origin);
        }
        Ok(Imported { tree: self.tree, losses: self.losses })
    }
}
