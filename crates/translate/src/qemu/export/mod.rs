//! A tree, written as a command line.
//!
//! The order is QEMU's: the machine, what was kept, what devices are connected to, devices. Devices
//! whose address is said come first, so that nobody takes it from them.

mod device;
mod machine;
mod memory;
mod special;

use std::collections::{BTreeMap, VecDeque};

use parador_config::{Origin, Tree};

use super::bag::Bag;
use super::form::place;
use super::table::Row;
use super::{FATES, options};
use crate::format::{Exported, Output};
use crate::keys::Keys;
use crate::words::Word;

/// The program.
const PROGRAM: &str = "qemu-system-x86_64";

/// The command line of `tree`.
pub(in crate::qemu) fn export(tree: &Tree) -> Exported {
    let mut export = Export {
        keys: Keys::new(tree, FATES),
        words: vec![PROGRAM.to_owned()],
        sets: BTreeMap::new(),
        plain: false,
        serials: VecDeque::new(),
        microvm: tree.setting("machine.type").is_some_and(|setting| setting.value == "microvm"),
        shared_slots: Vec::new(),
    };
    let (before, after) = export.kept();
    let accelerated = before.iter().any(|word| word == "-accel");
    export.machine(accelerated);
    export.words.extend(before);
    export.serial_ports();
    export.shared_slots = export.shared_slots();
    let (placed, free): (Vec<_>, Vec<_>) = export
        .keys
        .devices()
        .into_iter()
        .partition(|id| export.keys.peek(&format!("device.{id}.addr")).is_some());
    for id in placed.into_iter().chain(free) {
        export.device(id);
    }
    export.words.extend(after);
    for ((group, id), properties) in std::mem::take(&mut export.sets) {
        for (property, value) in properties {
            export.words.extend(["-set".to_owned(), format!("{group}.{id}.{property}={value}")]);
        }
    }
    Exported { output: Output::Arguments(export.words), losses: export.keys.finish() }
}

/// A command line on its way out.
#[derive(Debug)]
struct Export<'a> {
    keys: Keys<'a>,
    words: Vec<String>,
    /// Properties without keys, with their values, of things that have not been written yet.
    sets: BTreeMap<Thing, Vec<(String, String)>>,
    microvm: bool,
    /// Whether devices are written without JSON: QEMU makes all those before any that is JSON, so that
    /// one among them would not find the bus of another.
    plain: bool,
    /// Serial ports that were kept: each takes the place of one that is connected to nothing.
    serials: VecDeque<Vec<String>>,
    /// Slots with several functions.
    shared_slots: Vec<u8>,
}

/// An option, and the name of what it makes.
type Thing = (String, String);

impl Export<'_> {
    /// What was kept: the words that go before the devices, and those that need a device of the
    /// tree to be there. Properties are set aside.
    fn kept(&mut self) -> (Vec<String>, Vec<String>) {
        let mut words = Vec::new();
        while let Some(text) = self.keys.take(&format!("engine.qemu.arg.{}", words.len())) {
            words.push(Word { text: text.to_owned(), origin: Origin::Argument(0) });
        }
        let devices: Vec<String> = self.keys.devices().into_iter().map(str::to_owned).collect();
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let verbatim = words.iter().map(|word| word.text.clone()).collect();
        let Ok(options) = options::split(words) else { return (verbatim, Vec::new()) };
        self.plain = options.iter().any(|option| match option.name.as_str() {
            "device" => !option.value.text.starts_with('{'),
            "set" => option.value.text.starts_with("device."),
            _ => false,
        });
        for option in options {
            if option.name == "set"
                && let Some((thing, property)) = parse_set(&option.value.text)
            {
                self.sets.entry(thing).or_default().push(property);
                continue;
            }
            let bag = Bag::parse(&option.value, Some("driver")).ok().filter(|_| option.name == "device");
            let bus = bag.as_ref().and_then(|bag| bag.peek("bus"));
            let needs = bus.is_some_and(|bus| {
                let name = bus.rsplit_once('.').map_or(bus.as_str(), |(name, _)| name);
                devices.iter().any(|id| id == name)
            });
            let driver = bag.as_ref().and_then(|bag| bag.peek("driver"));
            if option.name == "serial" || driver.as_deref() == Some("isa-serial") {
                self.serials.push_back(option.words.into_iter().map(|word| word.text).collect());
                continue;
            }
            let list = if needs { &mut after } else { &mut before };
            match bag.filter(|_| self.plain) {
                Some(bag) => list.extend(["-device".to_owned(), bag.human("driver")]),
                None => list.extend(option.words.into_iter().map(|word| word.text)),
            }
        }
        (before, after)
    }

    /// Adds an option and its value.
    fn option(&mut self, name: &str, value: impl Into<String>) {
        self.words.extend([format!("-{name}"), value.into()]);
    }

    /// Adds what has a name: as JSON, or as it always was if there is no JSON for this option, or
    /// for a property that came without its type.
    fn named(&mut self, option: &str, first: &str, id: &str, mut bag: Bag) {
        let mine = self.sets.remove(&(option.to_owned(), id.to_owned())).unwrap_or_default();
        let json = mine.is_empty()
            && ["blockdev", "device", "netdev", "object"].contains(&option)
            && !(self.plain && option == "device");
        for (property, value) in mine {
            bag.take(&property);
            bag.put(&property, value.as_str());
        }
        let value = if json { bag.json() } else { bag.human(first) };
        self.option(option, value);
    }

    /// Whether something is said of the thing that will be called `id`.
    fn is_set(&self, group: &str, id: &str) -> bool {
        self.sets.contains_key(&(group.to_owned(), id.to_owned()))
    }

    /// Puts the value of `key` where the row says; what has no word there is lost.
    fn property(&mut self, key: &str, row: &Row, bag: &mut Bag) {
        let Some(ours) = self.keys.take(key) else { return };
        match row.form.export(ours) {
            Some(value) => bag.put(row.property, value),
            None => self.keys.lose(key, "QEMU has no word for this value"),
        }
    }

    /// Adds the chardev `name` for the value of `key`.
    fn endpoint(&mut self, key: &str, name: &str) -> bool {
        let Some(end) = self.keys.take(key) else { return false };
        let bag = match end.split_once(':') {
            None if ["stdio", "pty"].contains(&end) => empty().with("backend", end).with("id", name),
            None if end == "none" => empty().with("backend", "null").with("id", name),
            Some(("file", path)) => empty().with("backend", "file").with("id", name).with("path", path),
            Some(("unix", path)) => {
                let socket = empty().with("backend", "socket").with("id", name).with("path", path);
                socket.with("server", true).with("wait", false)
            }
            _ => {
                self.keys.lose(key, "QEMU has no word for this value");
                return false;
            }
        };
        let bag = if end == "stdio" { bag.with("signal", false) } else { bag };
        self.named("chardev", "backend", name, bag);
        true
    }

    fn shared_slots(&self) -> Vec<u8> {
        let mut slots: Vec<u8> = self
            .keys
            .devices()
            .iter()
            .filter_map(|id| Some(place(self.keys.peek(&format!("device.{id}.addr"))?)?.0))
            .collect();
        slots.sort_unstable();
        slots.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect()
    }
}

/// No properties yet.
fn empty() -> Bag {
    Bag::new(Origin::Argument(0))
}

/// The parts of `GROUP.ID.PROPERTY=VALUE`.
fn parse_set(text: &str) -> Option<(Thing, (String, String))> {
    let (path, value) = text.split_once('=')?;
    let mut parts = path.splitn(3, '.').map(str::to_owned);
    let (group, id, property) = (parts.next()?, parts.next()?, parts.next()?);
    Some(((group, id), (property, value.to_owned())))
}
