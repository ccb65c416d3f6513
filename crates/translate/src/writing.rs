//! A tree on its way into options that are made of parts.

use parador_config::{Checked, Diagnostics, Origin, Tree};

use crate::fates::Fates;
use crate::format::Loss;
use crate::keys::Keys;
use crate::parts::{Group, Row, Value};

/// The groups so far, and the keys that are left.
#[derive(Debug)]
pub(crate) struct Writing<'a> {
    pub(crate) keys: Keys<'a>,
    checked: Checked,
    rows: &'static [Row],
    pub(crate) groups: Vec<Group>,
    losses: Vec<Loss>,
}

impl<'a> Writing<'a> {
    /// Nothing of `tree` yet. What is not valid in it, such as a word of another system, is lost.
    pub(crate) fn new(tree: &'a Tree, fates: Fates, rows: &'static [Row]) -> Self {
        let mut keys = Keys::new(tree, fates);
        let mut wrong = Diagnostics::default();
        let mut checked = tree.check(&mut wrong);
        if wrong.errors() > 0 {
            let mut valid = tree.clone();
            for (key, _) in tree.in_order() {
                if !is_valid(tree, key) {
                    keys.lose(key, "it is no valid value, so there is nothing to translate");
                    valid.unset(key);
                }
            }
            checked = valid.check(&mut Diagnostics::default());
        }
        Self { keys, checked, rows, groups: Vec::new(), losses: Vec::new() }
    }

    /// The value of `key`, set or by default, left where it is.
    pub(crate) fn value(&self, key: &str) -> Option<parador_config::Value> {
        self.checked.value(key)
    }

    /// The value of a number or size, left where it is.
    pub(crate) fn int(&self, key: &str) -> Option<u64> {
        self.checked.int(key)
    }

    /// The value of a number that was set, which is taken.
    pub(crate) fn take_int(&mut self, key: &str) -> Option<u64> {
        self.take(key)?;
        self.checked.int(key)
    }

    /// The value of `key` as it was written, which is taken.
    pub(crate) fn take(&mut self, key: &str) -> Option<&'a str> {
        if self.checked.is_set(key) { self.keys.take(key) } else { None }
    }

    /// Says that something of the target is not as the tree has it.
    pub(crate) fn lose(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.losses.push(Loss { what: what.into(), why: why.into(), origin: None });
    }

    /// The devices of `model`, in order, whose model is taken.
    pub(crate) fn devices(&mut self, model: &str) -> Vec<&'a str> {
        let of_model = |key: &str, keys: &Keys<'_>| keys.peek(key) == Some(model);
        let mut found = Vec::new();
        for id in self.keys.devices() {
            let key = format!("device.{id}.model");
            if of_model(&key, &self.keys) {
                self.keys.take(&key);
                found.push(id);
            }
        }
        found
    }

    /// The host's PCI device that `id` is, as the host names it.
    pub(crate) fn host(&mut self, id: &str) -> Option<String> {
        let key = |field: &str| format!("device.{id}.{field}");
        if let Some(host) = self.take(&key("host")) {
            return Some(host.to_owned());
        }
        let [bus, slot, func] = ["bus", "slot", "func"].map(|field| self.take_int(&key(field)));
        Some(format!("0000:{:02x}:{:02x}.{:x}", bus.unwrap_or(0), slot?, func.unwrap_or(0)))
    }

    /// The parts of `option` that its rows make of the keys; `id` is the device, if it is one.
    pub(crate) fn group(&mut self, option: &str, id: &str) -> Group {
        let mut group = Group::new(option, id);
        for row in self.rows.iter().filter(|row| row.option == option) {
            let key = row.key_of(id);
            let set = self.checked.is_set(&key);
            let Some(value) = self.checked.value(&key) else {
                // Nothing there, too, must be said where silence means something.
                if row.absent.is_some_and(|absent| !absent.is_empty()) && !row.key.contains('*') {
                    group.push(row.part, Value::text(""));
                }
                continue;
            };
            let said = set || row.absent.is_some_and(|absent| !self.is_default(&key, absent));
            if !said {
                continue;
            }
            match row.how.theirs(&value) {
                Ok(theirs) => {
                    self.keys.take(&key);
                    group.push(row.part, theirs);
                }
                Err(why) => self.keys.lose(&key, why),
            }
        }
        group
    }

    /// Whether `value` is what `key` is by default.
    fn is_default(&self, key: &str, value: &str) -> bool {
        let mut tree = of_its_model(self.keys.tree(), key);
        tree.set(key, value, Origin::Argument(0));
        tree.check(&mut Diagnostics::default()).value(key) == self.checked.value(key)
    }

    /// Adds the kept words of `engine` to the groups they belong to, whose dialect writes `prefix`
    /// before an option, and returns those that stand for themselves.
    pub(crate) fn kept(&mut self, engine: &str, prefix: &str) -> Vec<String> {
        let mut words = Vec::new();
        for number in 0.. {
            let key = format!("engine.{engine}.arg.{number}");
            let Some(word) = self.keys.take(&key) else { break };
            words.push((key, word.to_owned()));
        }
        if words.first().is_some_and(|(_, word)| !word.starts_with(&prefix[..1])) {
            for (key, _) in words {
                self.keys.lose(&key, "it is of another form of this system's configuration");
            }
            return Vec::new();
        }
        let written: Vec<usize> = self.groups.iter().map(|group| group.parts.len()).collect();
        let mut whole = Vec::new();
        let mut words = words.into_iter();
        while let Some((key, word)) = words.next() {
            let Some(place) = place(&word, prefix) else {
                whole.push(word);
                continue;
            };
            let value = words.next();
            if !value.as_ref().is_some_and(|(_, value)| self.insert(&written, place, value.clone(), prefix)) {
                let keys = std::iter::once(key).chain(value.map(|(key, _)| key));
                keys.for_each(|key| self.keys.lose(&key, "what it belongs to is not there"));
            }
        }
        whole
    }

    /// Adds a kept part to its group, of whose parts the first `written[..]` are made of keys;
    /// whether there is such a group.
    fn insert(&mut self, written: &[usize], place: [&str; 3], value: String, prefix: &str) -> bool {
        let [option, id, name] = place;
        let is_it = |group: &Group| group.option == option && group.id == id;
        let Some(index) = self.groups.iter().position(is_it) else { return false };
        let group = &mut self.groups[index];
        let value = if prefix == "/" { Value::Json(value) } else { Value::Text(value) };
        match group.parts[..written[index]].iter_mut().find(|part| part.name == name) {
            Some(part) => part.value = value,
            None => group.push(name, value),
        }
        true
    }

    /// Says that the name of a device which has none there goes, unless it is `default`.
    pub(crate) fn unnamed(&mut self, id: &str, default: &str) {
        if id != default {
            self.lose(format!("the name {id}"), "this device has no name there");
        }
    }

    /// What was lost.
    pub(crate) fn finish(self) -> (Vec<Group>, Vec<Loss>) {
        let mut losses = self.losses;
        losses.extend(self.keys.finish());
        (self.groups, losses)
    }
}

/// Whether `key` and its value are valid, whatever else is in `tree`.
fn is_valid(tree: &Tree, key: &str) -> bool {
    let mut alone = of_its_model(tree, key);
    if let Some(setting) = tree.setting(key) {
        alone.set(key, setting.value.clone(), Origin::Argument(0));
    }
    let mut wrong = Diagnostics::default();
    let _ = alone.check(&mut wrong);
    wrong.errors() == 0
}

/// A tree with only the model of the device that `key` is of.
fn of_its_model(tree: &Tree, key: &str) -> Tree {
    let mut alone = Tree::default();
    let device = key.strip_prefix("device.").and_then(|rest| rest.split_once('.'));
    if let Some((id, _)) = device
        && let Some(model) = tree.setting(&format!("device.{id}.model"))
    {
        alone.set(&format!("device.{id}.model"), model.value.clone(), Origin::Argument(0));
    }
    alone
}

/// The option, device and name of the part that `word` is the place of.
fn place<'a>(word: &'a str, prefix: &str) -> Option<[&'a str; 3]> {
    let place = word.strip_prefix(prefix)?;
    if place.split('/').next()?.contains('=') {
        return None;
    }
    let (option, rest) = place.split_once('/')?;
    Some(match rest.split_once('/') {
        Some((id, name)) => [option, id, name],
        None => [option, "", rest],
    })
}
