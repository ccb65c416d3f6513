//! From a tree to the tables that a person would write.
//!
//! What the words of [`flatten`](super::flatten) stand for is written with them where it fits; the
//! order of the devices, which decides where they sit, stays.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use parador_config::Tree;
use parador_config::keys::{self, Kind};

use crate::format::Loss;

/// Most keys of a device that is written on one line.
const SHORT: usize = 4;

/// Words at the top that stand for other keys, or are about the file.
static WORDS: &[&str] = &[
    "apply", "cmdline", "device", "disk", "include", "initrd", "kernel", "memory", "net", "share", "template",
];

/// What is written for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// In quotes.
    Text(String),
    /// A number or a truth value.
    Bare(String),
    List(Vec<Self>),
    Table(Rows),
}

/// Keys and what is written for them. A key with dots in it is written in quotes.
pub(crate) type Rows = IndexMap<String, Item>;

/// A whole file.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// What comes first, on lines of its own.
    pub(crate) top: Rows,
    /// Tables.
    pub(crate) blocks: Rows,
    /// The devices that no shortcut fits.
    pub(crate) devices: Vec<Rows>,
    /// What cannot be written.
    pub(crate) losses: Vec<Loss>,
}

/// A device: its name, and its keys without `device.<id>.`.
#[derive(Debug)]
struct Device<'a> {
    id: &'a str,
    keys: Vec<(&'a str, Cow<'a, str>)>,
}

/// The file that says what `tree` says.
pub(crate) fn page(tree: &Tree) -> Page {
    let mut page = Page::default();
    let args = args(tree);
    let mut keys: Vec<&str> = tree.in_order().into_iter().map(|(key, _)| key).collect();
    keys.sort_by_cached_key(|key| (rank(key), *key));
    for key in keys {
        page.key(tree, key, &args);
    }
    let devices = devices(tree);
    let mut rest = devices.as_slice();
    let mut used = BTreeSet::new();
    while let Some((name, item, after)) = shortcut(tree, rest)
        && used.insert(name)
    {
        page.top.insert(name.to_owned(), item);
        rest = after;
    }
    page.devices = rest
        .iter()
        .map(|device| {
            let mut rows = Rows::from([("id".to_owned(), Item::Text(device.id.to_owned()))]);
            let model = |key: &str| key == "model";
            let (first, others): (Vec<_>, Vec<_>) = device.keys.iter().partition(|(key, _)| model(key));
            for (key, value) in first.into_iter().chain(others) {
                put(&mut rows, tree, &format!("device.{}", device.id), key, word(device.id, key, value));
            }
            rows
        })
        .collect();
    page
}

impl Page {
    /// Writes `key`, if it is not one of a device's that are written with it.
    fn key(&mut self, tree: &Tree, key: &str, args: &BTreeMap<&str, usize>) {
        let Some(setting) = tree.setting(key) else { return };
        let item = typed(key, &setting.raw());
        let parts: Vec<&str> = key.split('.').collect();
        match parts.as_slice() {
            ["device", _, rest, ..] if *rest != "id" => {}
            ["boot", name @ ("kernel" | "initrd" | "cmdline")] => {
                drop(self.top.insert((*name).to_owned(), item));
            }
            ["memory", "size"] if !children(tree, "memory").any(|other| other != key) => {
                self.top.insert("memory".to_owned(), item);
            }
            [name] if WORDS.contains(name) => self.losses.push(Loss {
                what: format!("{key}={}", setting.raw()),
                why: format!("`{key}` at the top of a file stands for other keys"),
                origin: Some(setting.origin.clone()),
            }),
            [_] => drop(self.top.insert(key.to_owned(), item)),
            ["engine", engine, "arg", number] if listed(args, engine, number) => {
                if *number == "0" {
                    let words =
                        (0..args[engine]).filter_map(|n| tree.setting(&format!("engine.{engine}.arg.{n}")));
                    let words = words.map(|word| Item::Text(word.raw().into_owned())).collect();
                    put(&mut self.blocks, tree, "", &format!("engine.{engine}.args"), Item::List(words));
                }
            }
            ["engine", _, "args", ..] => drop(self.top.insert(key.to_owned(), item)),
            [head, ..] if tree.setting(head).is_some() || (*head != "memory" && WORDS.contains(head)) => {
                self.top.insert(key.to_owned(), item);
            }
            _ => put(&mut self.blocks, tree, "", key, item),
        }
    }
}

/// Where `key` comes among those that are not of devices: in the order of the table.
fn rank(key: &str) -> usize {
    keys::all().position(|known| known.matches(key)).unwrap_or(usize::MAX)
}

fn children<'a>(tree: &'a Tree, head: &'a str) -> impl Iterator<Item = &'a str> {
    let below =
        move |key: &str| key.strip_prefix(head).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    tree.in_order().into_iter().map(|(key, _)| key).filter(move |key| below(key))
}

/// How many numbered words each engine has, from 0 without a gap.
fn args(tree: &Tree) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for key in children(tree, "engine") {
        if let ["engine", engine, "arg", "0"] = key.split('.').collect::<Vec<_>>().as_slice()
            && tree.setting("engine").is_none()
            && tree.setting(&format!("engine.{engine}")).is_none()
        {
            let there = |n: &usize| tree.setting(&format!("engine.{engine}.arg.{n}")).is_some();
            counts.insert(*engine, (0..).take_while(there).count());
        }
    }
    counts
}

/// Whether a numbered word is one of the list.
fn listed(args: &BTreeMap<&str, usize>, engine: &str, number: &str) -> bool {
    let canonical = number.parse::<usize>().ok().filter(|n| n.to_string() == number);
    canonical.is_some_and(|n| args.get(engine).is_some_and(|count| n < *count))
}

/// The devices in the order of their first mention.
fn devices(tree: &Tree) -> Vec<Device<'_>> {
    let mut devices: Vec<Device<'_>> = Vec::new();
    let mut index = BTreeMap::new();
    for (key, setting) in tree.in_order() {
        let Some((id, rest)) = key.strip_prefix("device.").and_then(|rest| rest.split_once('.')) else {
            continue;
        };
        if rest.split('.').next() == Some("id") {
            continue;
        }
        let at = *index.entry(id).or_insert(devices.len());
        if at == devices.len() {
            devices.push(Device { id, keys: Vec::new() });
        }
        devices[at].keys.push((rest, setting.raw()));
    }
    devices
}

/// The shortcut that the first of `devices` fit, what is written after it, and the rest of them.
fn shortcut<'d, 'a>(
    tree: &Tree,
    devices: &'d [Device<'a>],
) -> Option<(&'static str, Item, &'d [Device<'a>])> {
    for (name, one) in [("disk", disk as fn(&Tree, usize, &Device<'_>) -> Option<Item>), ("net", net)] {
        let items: Vec<Item> =
            devices.iter().enumerate().map_while(|(index, device)| one(tree, index, device)).collect();
        if !items.is_empty() {
            let rest = &devices[items.len()..];
            let mut items = items;
            let item = if items.len() == 1 { items.remove(0) } else { Item::List(items) };
            return Some((name, item, rest));
        }
    }
    let mut tags = BTreeSet::new();
    let shares: Rows = devices
        .iter()
        .enumerate()
        .map_while(|(index, device)| share(index, device).filter(|(tag, _)| tags.insert(tag.clone())))
        .collect();
    let rest = &devices[shares.len()..];
    (!shares.is_empty()).then_some(("share", Item::Table(shares), rest))
}

impl Device<'_> {
    /// Whether it is called `word` and a number, and of this model.
    fn is(&self, word: &str, index: usize, model: &str) -> bool {
        self.id == format!("{word}{index}") && self.value("model") == Some(model)
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.keys.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_ref())
    }

    /// A table of its keys, after `first`, without those in `except`.
    fn table(&self, tree: &Tree, first: Option<(&str, Item)>, except: &[&str]) -> Option<Item> {
        let mut rows: Rows = first.into_iter().map(|(key, item)| (key.to_owned(), item)).collect();
        let others = self.keys.iter().filter(|(key, _)| !except.contains(key));
        if others.clone().count() + rows.len() > SHORT {
            return None;
        }
        for (key, value) in others {
            put(&mut rows, tree, &format!("device.{}", self.id), key, word(self.id, key, value));
        }
        Some(Item::Table(rows))
    }
}

fn disk(tree: &Tree, index: usize, device: &Device<'_>) -> Option<Item> {
    let path = device.value("path").filter(|_| device.is("disk", index, "virtio-blk"))?;
    let item = Item::Text(path.to_owned());
    if device.keys.len() == 2 {
        Some(item)
    } else {
        device.table(tree, Some(("path", item)), &["model", "path"])
    }
}

fn net(tree: &Tree, index: usize, device: &Device<'_>) -> Option<Item> {
    const BRIDGED: &[&str] = &["model", "backend", "tap.create", "tap.bridge"];
    let automatic = device.value("backend") == Some("tap") && device.value("tap.create") == Some("auto");
    let bridge = device.value("tap.bridge").filter(|_| automatic && device.is("net", index, "virtio-net"))?;
    let item = Item::Text(bridge.to_owned());
    if device.keys.iter().any(|(key, _)| key.split('.').next() == Some("bridge")) {
        None
    } else if device.keys.len() == BRIDGED.len() {
        Some(item)
    } else {
        device.table(tree, Some(("bridge", item)), BRIDGED)
    }
}

fn share(index: usize, device: &Device<'_>) -> Option<(String, Item)> {
    let (tag, path) = (device.value("sharename")?, device.value("path")?);
    let fits = device.is("fs", index, "virtio-9p") && device.keys.len() == 3;
    fits.then(|| (tag.to_owned(), Item::Text(path.to_owned())))
}

/// Adds `path`, which is below `above` in the tree. Where a part of it is a key itself, the rest is
/// one row.
fn put(rows: &mut Rows, tree: &Tree, above: &str, path: &str, item: Item) {
    if let Some((head, rest)) = path.split_once('.') {
        let full = if above.is_empty() { head.to_owned() } else { format!("{above}.{head}") };
        if tree.setting(&full).is_none()
            && let Item::Table(inner) =
                rows.entry(head.to_owned()).or_insert_with(|| Item::Table(Rows::new()))
        {
            return put(inner, tree, &full, rest, item);
        }
    }
    rows.insert(path.to_owned(), item);
}

fn word(id: &str, key: &str, value: &str) -> Item {
    typed(&format!("device.{id}.{key}"), value)
}

/// `value`, bare where the key takes numbers or truth values and it is written as one.
fn typed(key: &str, value: &str) -> Item {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit()) && (1..=18).contains(&value.len());
    let number = digits && (value == "0" || !value.starts_with('0'));
    let truth = value == "true" || value == "false";
    let fits = |kind| match kind {
        Kind::Int { .. } | Kind::Size { .. } | Kind::Memory { .. } => number,
        kind => truth && kind == Kind::Bool,
    };
    if (number || truth) && keys::all().any(|known| fits(known.kind) && known.matches(key)) {
        Item::Bare(value.to_owned())
    } else {
        Item::Text(value.to_owned())
    }
}
