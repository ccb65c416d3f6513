//! From bhyve's tree to ours: devices get names, some values another spelling.

use std::collections::{BTreeMap, BTreeSet};

use parador_config::{Origin, Tree, keys};

use super::leaves::{Leaf, Leaves, place};
use super::names::{self, Spelt};
use super::options::Reading;
use crate::format::{Imported, Loss};

/// The tree of what was read. `ids` are the names of devices, by their nodes; others are called
/// after where they sit.
pub(super) fn tree(reading: Reading, ids: &BTreeMap<String, String>) -> Imported {
    let Reading { mut leaves, rest, mut losses, .. } = reading;
    move_aliases(&mut leaves, &mut losses);
    let referred = references(&leaves);
    let mut hub = Hub { tree: Tree::default(), ids, arguments: 0 };
    for (path, leaf) in leaves.in_order() {
        match path.strip_prefix("pci.") {
            Some(rest) => hub.device(&leaves, path, rest, leaf, &mut losses),
            None => hub.machine(path, leaf, &referred),
        }
    }
    if leaves.value("console").or(leaves.value("lpc.com1.path")).is_none() {
        // A serial port that bhyve is told nothing of goes nowhere; ours would be the terminal.
        hub.set("console", "none", &first(&leaves));
    }
    for (word, origin) in rest {
        hub.argument(word, &origin);
    }
    Imported { tree: hub.tree, losses }
}

/// The place of the first thing that was said.
fn first(leaves: &Leaves) -> Origin {
    leaves.in_order().first().map_or(Origin::Argument(0), |(_, leaf)| leaf.origin.clone())
}

/// Moves what has an old name to its new one, and takes out what is about bhyve's own process.
fn move_aliases(leaves: &mut Leaves, losses: &mut Vec<Loss>) {
    for new in ["bootrom", "bootvars"] {
        let old = format!("lpc.{new}");
        let Some(leaf) = leaves.remove(&old) else { continue };
        if leaves.leaf(new).is_some() {
            losses.push(lost(&old, &leaf, "the newer key counts, which is set too"));
        } else if leaves.set(new, &leaf.value, &leaf.origin).is_err() {
            losses.push(lost(&old, &leaf, "there are keys below its newer name"));
        }
    }
    if let Some(leaf) = leaves.remove("config.dump") {
        losses.push(lost("config.dump", &leaf, "it asks bhyve to print its keys and start nothing"));
    }
}

fn lost(path: &str, leaf: &Leaf, why: &str) -> Loss {
    Loss { what: format!("{path}={}", leaf.value), why: why.to_owned(), origin: Some(leaf.origin.clone()) }
}

/// What values refer to.
fn references(leaves: &Leaves) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (_, leaf) in leaves.in_order() {
        all.extend(names::references(&leaf.value).map(str::to_owned));
    }
    all
}

/// Whether the table has a setting for a model.
fn ours(model: &str, field: &str) -> bool {
    if ["model", "addr"].contains(&field) {
        return false;
    }
    let key = format!("device.x.{field}");
    keys::all().any(|known| known.matches(&key) && (known.models.is_empty() || known.models.contains(model)))
}

struct Hub<'a> {
    tree: Tree,
    ids: &'a BTreeMap<String, String>,
    /// Options of bhyve that are kept as they are.
    arguments: usize,
}

impl Hub<'_> {
    /// Sets a key to what `value`, which bhyve would expand, means.
    fn set(&mut self, key: &str, value: &str, origin: &Origin) {
        self.tree.set_raw(key, self.value(value), origin.clone());
    }

    /// Keeps a word of bhyve's command line.
    fn argument(&mut self, word: String, origin: &Origin) {
        self.tree.set(&format!("engine.bhyve.arg.{}", self.arguments), word, origin.clone());
        self.arguments += 1;
    }

    fn option(&mut self, path: &str, leaf: &Leaf) {
        self.argument("-o".to_owned(), &leaf.origin);
        self.argument(format!("{path}={}", leaf.value), &leaf.origin);
    }

    fn machine(&mut self, path: &str, leaf: &Leaf, referred: &BTreeSet<String>) {
        let known = path == "lpc.com1.path"
            || keys::all().any(|known| known.matches(path))
            || referred.contains(path)
            || path.starts_with("var.");
        if known {
            self.set(path, &leaf.value, &leaf.origin);
        } else {
            self.option(path, leaf);
        }
    }

    fn device(&mut self, leaves: &Leaves, path: &str, rest: &str, leaf: &Leaf, losses: &mut Vec<Loss>) {
        let mut parts = rest.splitn(4, '.');
        let mut part = || parts.next().unwrap_or_default();
        let Some((bus, slot, function)) = place(part(), part(), part()) else {
            losses.push(lost(path, leaf, "bhyve looks at no such slot"));
            return;
        };
        let field = part();
        let node = format!("pci.{bus}.{slot}.{function}");
        // A device without a name is spelt as bhyve does; the tree knows what that means.
        let (prefix, kind) = match self.ids.get(&node) {
            Some(id) => (format!("device.{id}"), "model"),
            None => (node.clone(), "device"),
        };
        let device = leaves.leaf(&format!("{node}.device"));
        let model = device.map(|device| device.value.as_str());
        if let Some(device) = device
            && self.tree.setting(&format!("{prefix}.{kind}")).is_none()
        {
            self.set(&format!("{prefix}.{kind}"), &device.value, &device.origin);
            if kind == "model" {
                let place = format!("{bus}:{slot}.{function}");
                self.set(&format!("{prefix}.addr"), &place, &device.origin);
            }
        }
        let named = |field: &str| leaves.value(&format!("{node}.{field}"));
        match names::field_in(model.unwrap_or_default(), field, &leaf.value, named) {
            Spelt::Same => self.set(&format!("{prefix}.{field}"), &leaf.value, &leaf.origin),
            Spelt::Other(settings) => {
                for (field, value) in settings {
                    self.set(&format!("{prefix}.{field}"), &value, &leaf.origin);
                }
            }
            Spelt::Unknown if ours(model.unwrap_or_default(), field) => {
                self.set(&format!("{prefix}.{field}"), &leaf.value, &leaf.origin);
            }
            Spelt::Unknown => self.option(path, leaf),
        }
    }

    /// `value` with bhyve's escapes and references in our spelling.
    fn value(&self, value: &str) -> String {
        names::text_in(value, |path| {
            let mut parts = path.strip_prefix("pci.")?.splitn(4, '.');
            let (bus, slot, function) = place(parts.next()?, parts.next()?, parts.next()?)?;
            let id = self.ids.get(&format!("pci.{bus}.{slot}.{function}"))?;
            let field = parts.next().map(|field| if field == "device" { "model" } else { field })?;
            Some(format!("device.{id}.{field}"))
        })
    }
}
