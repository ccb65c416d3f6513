//! A tree in the making, out of options that are made of parts.

use std::collections::{BTreeMap, BTreeSet};

use parador_config::{Diagnostic, Diagnostics, Origin, Severity, Tree};

use crate::format::{Imported, Loss};
use crate::json::json;
use crate::parts::{Group, Part, Row, bad_part};

/// Most devices of a machine.
const MAX_DEVICES: usize = 4096;

/// The tree so far, and what is to be said about it.
#[derive(Debug)]
pub(crate) struct Reading {
    /// Whose options they are: the `<name>` of `engine.<name>.arg.<n>`.
    engine: &'static str,
    rows: &'static [Row],
    tree: Tree,
    losses: Vec<Loss>,
    wrong: Diagnostics,
    kept: usize,
    /// How many devices have been named after each kind.
    named: BTreeMap<&'static str, usize>,
    devices: BTreeSet<String>,
}

impl Reading {
    /// An empty tree for the options of `engine`, whose parts are those of `rows`.
    pub(crate) fn new(engine: &'static str, rows: &'static [Row]) -> Self {
        Self {
            engine,
            rows,
            tree: Tree::default(),
            losses: Vec::new(),
            wrong: Diagnostics::default(),
            kept: 0,
            named: BTreeMap::new(),
            devices: BTreeSet::new(),
        }
    }

    /// Sets `key`.
    pub(crate) fn set(&mut self, key: &str, value: impl Into<String>, origin: &Origin) {
        self.tree.set(key, value.into(), origin.clone());
    }

    /// What `key` has been set to.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.tree.setting(key).map(|setting| setting.value.as_str())
    }

    /// Says that `what` did not come through.
    pub(crate) fn lose(&mut self, what: impl Into<String>, why: impl Into<String>, origin: &Origin) {
        self.losses.push(Loss { what: what.into(), why: why.into(), origin: Some(origin.clone()) });
    }

    /// Says that something is wrong.
    pub(crate) fn wrong(&mut self, finding: Diagnostic) {
        self.wrong.add(Severity::Error, || finding);
    }

    /// Keeps a word that has no key.
    pub(crate) fn keep(&mut self, word: impl Into<String>, origin: &Origin) {
        let key = format!("engine.{}.arg.{}", self.engine, self.kept);
        self.tree.set(&key, word.into(), origin.clone());
        self.kept += 1;
    }

    /// Adds a device of `model`. Its name is the part `part` of `group`, if there is one that can be
    /// a name here, else `kind` with a number.
    pub(crate) fn device(
        &mut self,
        group: &mut Group,
        model: &str,
        kind: &'static str,
        part: &str,
    ) -> String {
        let asked = group.take(part);
        let id = match &asked {
            Some(asked) if is_name(&asked.value.shown()) && !self.devices.contains(&asked.value.shown()) => {
                asked.value.shown()
            }
            _ => self.free(kind),
        };
        if let Some(asked) = asked.filter(|asked| asked.value.shown() != id) {
            let why = format!(
                "it is called {id}: names here have letters, digits, `-` and `_`, and each is one device's"
            );
            self.lose(format!("{part}={}", asked.value.shown()), why, &asked.origin);
        }
        group.id.clone_from(&id);
        self.devices.insert(id.clone());
        if self.devices.len() == MAX_DEVICES + 1 {
            self.wrong(Diagnostic::new(format!("more than {MAX_DEVICES} devices")).at(group.origin.clone()));
        }
        self.set(&format!("device.{id}.model"), model, &group.origin);
        id
    }

    /// The first name of `kind` with a number that no device has.
    fn free(&mut self, kind: &'static str) -> String {
        loop {
            let number = self.named.entry(kind).or_default();
            let id = format!("{kind}{number}");
            *number += 1;
            if !self.devices.contains(&id) {
                return id;
            }
        }
    }

    /// Sets the keys of all parts of `group` that have a row, and of those that are left out where
    /// that means something else there. The rest of the parts stays.
    pub(crate) fn rows(&mut self, group: &mut Group) {
        let rows = self.rows;
        for row in rows {
            if row.option != group.option {
                continue;
            }
            let key = row.key_of(&group.id);
            match group.take(row.part) {
                Some(part) if is_empty(&part) => {}
                Some(part) => match row.how.ours(&part.value) {
                    Ok(value) => self.set(&key, value, &part.origin),
                    Err(expected) => self.wrong(bad_part(&group.option, &part, &expected)),
                },
                None => self.absent(row, &key, &group.origin),
            }
        }
    }

    /// Sets `key` to what it means there that the part of `row` is left out.
    fn absent(&mut self, row: &Row, key: &str, origin: &Origin) {
        if let Some(value) = row.absent
            && self.tree.setting(key).is_none()
        {
            self.set(key, value, origin);
        }
    }

    /// As [`Reading::rows`], for an option that is not there at all.
    pub(crate) fn left_out(&mut self, option: &str, origin: &Origin) {
        for row in self.rows.iter().filter(|row| row.option == option) {
            self.absent(row, row.key, origin);
        }
    }

    /// Keeps the parts that are left of `group`, under `prefix`: `--` of a command line, `/` of JSON.
    pub(crate) fn rest(&mut self, prefix: &str, group: &Group) {
        for part in group.parts.iter().filter(|part| !is_empty(part)) {
            let place = [group.option.as_str(), &group.id, &part.name];
            let place: Vec<&str> = place.into_iter().filter(|part| !part.is_empty()).collect();
            self.keep(format!("{prefix}{}", place.join("/")), &part.origin);
            let value = if prefix == "/" { json(&part.value).to_string() } else { part.value.shown() };
            self.keep(value, &part.origin);
        }
    }

    /// The tree, unless something is wrong.
    pub(crate) fn finish(self) -> Result<Imported, Diagnostics> {
        if self.wrong.errors() > 0 {
            return Err(self.wrong);
        }
        Ok(Imported { tree: self.tree, losses: self.losses })
    }
}

/// Whether it says nothing, as in `tap=,mac=`.
fn is_empty(part: &Part) -> bool {
    part.value.shown().is_empty()
}

/// Whether a device can be called so.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}
