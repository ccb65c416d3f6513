//! From our tree to bhyve's: every device gets a slot, and what bhyve needs to start is there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use parador_config::{Origin, Setting, Tree, keys};

use super::leaves::{Leaves, place};
use super::names::{self, Spelt};
use super::options::Reading;
use crate::fates::Fate;
use crate::format::Loss;
use crate::keys::Keys;
use crate::words::Word;

/// What bhyve is told.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) leaves: Leaves,
    /// Words of its command line that set nothing in its tree, in pairs of option and value.
    pub(super) arguments: Vec<String>,
    pub(super) losses: Vec<Loss>,
}

type Place = (u8, u8, u8);

/// Writes `tree` in bhyve's words.
pub(super) fn write(tree: &Tree) -> Written {
    let mut export = Export {
        tree,
        keys: Keys::new(tree, super::FATES),
        leaves: Leaves::default(),
        of: BTreeMap::new(),
        taken: BTreeSet::new(),
        next: (0, 1),
    };
    for (key, setting) in tree.in_order() {
        if let Some((id, _)) = key.strip_prefix("device.").and_then(|rest| rest.split_once('.')) {
            export.of.entry(id).or_default().push((key, setting));
        }
    }
    export.machine();
    export.devices();
    let arguments = export.arguments();
    export.bridges();
    Written { leaves: export.leaves, arguments, losses: export.keys.finish() }
}

struct Export<'a> {
    tree: &'a Tree,
    keys: Keys<'a>,
    leaves: Leaves,
    /// The settings of each device, by its name.
    of: BTreeMap<&'a str, Vec<(&'a str, &'a Setting)>>,
    /// Functions of the buses that have a device.
    taken: BTreeSet<Place>,
    /// No slot before this one is free for any device: bus and slot.
    next: (u8, u8),
}

impl Export<'_> {
    /// Writes the value of `key` at `path`, or says why it cannot be written.
    fn put(&mut self, key: &str, path: &str, value: &str) {
        let origin = self.tree.setting(key).map_or(Origin::Argument(0), |setting| setting.origin.clone());
        if value.contains(['\n', '\0']) {
            self.keys.lose(key, "bhyve's values are one line of text");
        } else if let Err(wrong) = self.leaves.set(path, &names::text_out(value), &origin) {
            self.keys.lose(key, format!("bhyve cannot take it: {}", wrong.message));
        } else {
            self.keys.take(key);
        }
    }

    /// Writes what is not of a device, the name first.
    fn machine(&mut self) {
        match self.keys.peek("name") {
            Some(name) => self.put("name", "name", name),
            None => self.add("name", default("name")),
        }
        for (key, setting) in self.tree.in_order() {
            let of_device = key.starts_with("device.") || key.starts_with("engine.");
            let said = match super::FATES.of(key) {
                Some(fate) => fate == Fate::Mapped,
                // A name of the user's own, which bhyve ignores unless a value refers to it.
                None => !key.starts_with("var."),
            };
            if of_device || key == "name" || !said {
                continue;
            }
            let value = size(key, &setting.value);
            if key != "console" && !(key.starts_with("lpc.com") && key.ends_with(".path")) {
                self.put(key, key, value);
            } else if value == "none" {
                self.keys.take(key);
            } else if value == "pty" || value.starts_with("file:") || value.starts_with("unix:") {
                self.keys.lose(
                    key,
                    "a serial port of bhyve is stdio, a device such as /dev/nmdm0A, or tcp=IP:PORT",
                );
            } else {
                self.put(key, if key == "console" { "lpc.com1.path" } else { key }, value);
            }
        }
        if self.keys.peek("console").is_none() {
            self.add("lpc.com1.path", default("console"));
        }
    }

    /// Writes what the tree leaves to its default, and bhyve has to be told.
    fn add(&mut self, path: &str, value: &str) {
        let _ = self.leaves.set(path, value, &Origin::Argument(0));
    }

    /// Reads the words that were kept for bhyve as it would read them behind all the rest. Returns
    /// those that set nothing in its tree.
    fn arguments(&mut self) -> Vec<String> {
        const PREFIX: &str = "engine.bhyve.arg.";
        let tree = self.tree;
        let mut kept: Vec<(u64, &str, Word)> = Vec::new();
        for (key, setting) in tree.in_order() {
            if let Some(number) = key.strip_prefix(PREFIX).and_then(|number| number.parse().ok()) {
                let word = Word { text: setting.value.clone(), origin: setting.origin.clone() };
                kept.push((number, key, word));
            }
        }
        kept.sort_unstable_by_key(|(number, ..)| *number);
        let words: Vec<Word> = kept.iter().map(|(.., word)| word.clone()).collect();
        let mut reading = Reading { leaves: self.leaves.clone(), ..Reading::default() };
        reading
            .arguments(&words, &|_| Err(io::Error::new(io::ErrorKind::Unsupported, "nothing is read here")));
        let named = reading.leaves.value("name") != self.leaves.value("name");
        let wrong = reading.diagnostics.shown().first().map(|(_, wrong)| wrong.message().to_owned());
        let wrong = wrong.or_else(|| named.then(|| "a word that is no option".to_owned()));
        let wrong = wrong.or_else(|| reading.losses.first().map(|loss| loss.why.clone()));
        for (_, key, _) in kept {
            match &wrong {
                Some(wrong) => self.keys.lose(key, format!("bhyve would not take these words: {wrong}")),
                None => drop(self.keys.take(key)),
            }
        }
        if wrong.is_some() {
            return Vec::new();
        }
        self.leaves = reading.leaves;
        for (path, _) in self.leaves.below("pci") {
            let mut parts = path.split('.');
            let mut part = || parts.next().unwrap_or_default();
            self.taken.extend(place(part(), part(), part()));
        }
        reading.rest.into_iter().map(|(word, _)| word).collect()
    }

    /// Writes the devices: first those that say where they sit.
    fn devices(&mut self) {
        let mut placed = Vec::new();
        let mut free = Vec::new();
        for id in self.keys.devices() {
            match self.keys.peek(&format!("device.{id}.model")) {
                None => self.lose_device(id, "the device has no model"),
                Some(model) if !names::has_model(model) => {
                    self.lose_device(id, &format!("bhyve has no {model}"));
                }
                Some(model) => match self.keys.peek(&format!("device.{id}.addr")) {
                    Some(text) => match address(text).filter(|place| self.taken.insert(*place)) {
                        Some(place) => placed.push((id, model, place)),
                        None => self.lose_device(id, "there is no such slot, or another device is in it"),
                    },
                    None => free.push((id, model)),
                },
            }
        }
        for (id, model, place) in placed {
            self.device(id, model, place);
        }
        for (id, model) in free {
            match self.free(model) {
                Some(place) => self.device(id, model, place),
                None => self.lose_device(id, "there is no free slot"),
            }
        }
    }

    fn lose_device(&mut self, id: &str, why: &str) {
        for (key, _) in self.of.get(id).into_iter().flatten() {
            if !matches!(super::FATES.of(key), Some(Fate::Refused(_))) {
                self.keys.lose(key, why);
            }
        }
    }

    /// The first slot that has nothing in it; a bridge has its own.
    fn free(&mut self, model: &str) -> Option<Place> {
        let own = match model {
            "hostbridge" => Some((0, 0)),
            "lpc" => Some((0, 31)),
            _ => None,
        };
        let place = match own.filter(|(bus, slot)| self.is_free(*bus, *slot)) {
            Some((bus, slot)) => (bus, slot, 0),
            None => self.next_free().filter(|(bus, ..)| model != "lpc" || *bus == 0)?,
        };
        self.taken.insert(place);
        Some(place)
    }

    fn is_free(&self, bus: u8, slot: u8) -> bool {
        self.taken.range((bus, slot, 0)..=(bus, slot, u8::MAX)).next().is_none()
    }

    /// The first and the last slot of the first bus are left to the bridges.
    fn next_free(&mut self) -> Option<Place> {
        loop {
            let (bus, slot) = self.next;
            let usable = if bus == 0 { 1..31 } else { 0..32 };
            if usable.contains(&slot) && self.is_free(bus, slot) {
                return Some((bus, slot, 0));
            }
            self.next = if slot < 31 { (bus, slot + 1) } else { (bus.checked_add(1)?, 0) };
        }
    }

    fn device(&mut self, id: &str, model: &str, (bus, slot, function): Place) {
        let node = format!("pci.{bus}.{slot}.{function}");
        let prefix = format!("device.{id}.");
        self.put(&format!("{prefix}model"), &format!("{node}.device"), model);
        self.keys.take(&format!("{prefix}addr"));
        let tree = self.tree;
        let sibling =
            |field: &str| tree.setting(&format!("{prefix}{field}")).map(|setting| setting.value.as_str());
        for (key, setting) in self.of.remove(id).unwrap_or_default() {
            let Some(field) = key.strip_prefix(&prefix).filter(|field| !["model", "addr"].contains(field))
            else {
                continue;
            };
            if let Some(Fate::Refused(_)) = super::FATES.of(key) {
                continue;
            }
            match names::field_out(model, field, &setting.value, sibling) {
                Ok(Spelt::Same) => self.put(key, &format!("{node}.{field}"), &setting.value),
                Ok(Spelt::Other(settings)) => {
                    self.keys.take(key);
                    for (field, value) in settings {
                        self.put(key, &format!("{node}.{field}"), &value);
                    }
                }
                Ok(Spelt::Unknown) => {}
                Err(why) => self.keys.lose(key, why),
            }
        }
    }

    /// Adds the bridges that a guest of bhyve needs.
    fn bridges(&mut self) {
        let has = |leaves: &Leaves, model: &str| {
            leaves.below("pci").any(|(path, leaf)| path.ends_with(".device") && leaf.value == model)
        };
        if !has(&self.leaves, "hostbridge") && self.taken.insert((0, 0, 0)) {
            self.add("pci.0.0.0.device", "hostbridge");
        }
        let behind = ["lpc", "bootrom", "tpm"]
            .iter()
            .any(|path| self.leaves.is_node(path) || self.leaves.leaf(path).is_some());
        if behind
            && !has(&self.leaves, "lpc")
            && let Some((bus, slot, function)) = self.free("lpc")
        {
            self.add(&format!("pci.{bus}.{slot}.{function}.device"), "lpc");
        }
    }
}

/// What the table has for a key that is not set.
fn default(key: &str) -> &'static str {
    keys::all().find(|known| known.pattern == key).and_then(|known| known.default).unwrap_or("parador")
}

/// A size as bhyve reads it: `2G` for `2GiB`.
fn size<'a>(key: &str, value: &'a str) -> &'a str {
    if key == "memory.size" || key.ends_with(".size") {
        value.trim_end_matches(['i', 'B', 'b'])
    } else {
        value
    }
}

/// `BUS:SLOT.FUNCTION`, of which bus and function may be left out.
fn address(text: &str) -> Option<Place> {
    let (bus, rest) = text.split_once(':').unwrap_or(("0", text));
    let (slot, function) = rest.split_once('.').unwrap_or((rest, "0"));
    place(bus, slot, function)
}
