//! From tables to leaves: tables flatten by path, and some words stand for several keys.

use parador_config::keys::{self, Kind};
use parador_config::{Diagnostic, Diagnostics, Severity};

use crate::structured::layer::Layer;
use crate::structured::node::{Key, Node, Place, Table, Value, entry};

/// Longest key, in bytes; as in a flat file.
const MAX_KEY: usize = 255;
/// Longest value, in bytes; as in a flat file.
pub(crate) const MAX_VALUE: usize = 64 * 1024;
/// Most keys; as in a flat file.
const MAX_KEYS: usize = 65_536;

/// Words at the top of a file that are about the file, not about the machine.
pub(crate) static DIRECTIVES: &[&str] = &["include", "template", "apply"];

/// The leaves of `table`, the top of a file or of a template.
pub(crate) fn flatten(table: &Table, diagnostics: &mut Diagnostics) -> Layer {
    let mut flattener = Flattener { layer: Layer::default(), diagnostics, list: None };
    for (key, node) in table {
        flattener.top(key, node);
    }
    flattener.layer
}

#[derive(Debug)]
struct Flattener<'a> {
    layer: Layer,
    diagnostics: &'a mut Diagnostics,
    /// The list whose elements are being flattened.
    list: Option<String>,
}

impl Flattener<'_> {
    /// An entry at the top.
    fn top(&mut self, key: &Key, node: &Node) {
        let table = matches!(node.value, Value::Table(_));
        match key.name.as_str() {
            name if DIRECTIVES.contains(&name) => {}
            "kernel" | "initrd" | "cmdline" => self.value(&format!("boot.{}", key.name), &key.place, node),
            "memory" if !table => self.value("memory.size", &key.place, node),
            "disk" => self.shortcut("disk", node, Self::disk),
            "net" => self.shortcut("net", node, Self::net),
            "share" => self.shortcut("share", node, Self::shares),
            "device" if !table => self.devices(node),
            "engine" if table => self.engines(node),
            name => self.value(name, &key.place, node),
        }
    }

    /// A list, or what stands for a list of one.
    fn shortcut(&mut self, name: &'static str, node: &Node, one: fn(&mut Self, usize, &Node)) {
        self.begin(name);
        for (index, element) in node.elements().iter().enumerate() {
            one(self, index, element);
        }
        self.list = None;
    }

    fn begin(&mut self, list: &str) {
        self.layer.has_list(list);
        self.list = Some(list.to_owned());
    }

    fn disk(&mut self, index: usize, node: &Node) {
        match &node.value {
            Value::Text(path) => {
                let device = format!("device.disk{index}");
                self.set(format!("{device}.model"), "virtio-blk", &node.place);
                self.set(format!("{device}.path"), path, &node.place);
            }
            Value::Table(table) => {
                if let Some(device) = self.named(table, || format!("disk{index}")) {
                    self.implied(&device, table, node, &[("model", "virtio-blk")]);
                    self.entries(&device, table, &["id"]);
                }
            }
            Value::Bare(_) | Value::List(_) | Value::Odd(_) => {
                self.wrong(|| {
                    let hint = "a disk is the path of an image, or a table: {path=\"a.img\", ro=true}";
                    node.place.finding(format!("{} is no disk", node.what())).hint(hint)
                });
            }
        }
    }

    fn net(&mut self, index: usize, node: &Node) {
        const BRIDGED: &[(&str, &str)] =
            &[("model", "virtio-net"), ("backend", "tap"), ("tap.create", "auto")];
        match &node.value {
            Value::Text(bridge) => {
                let device = format!("device.net{index}");
                for (key, value) in BRIDGED {
                    self.set(format!("{device}.{key}"), value, &node.place);
                }
                self.set(format!("{device}.tap.bridge"), bridge, &node.place);
            }
            Value::Table(table) => {
                let Some(device) = self.named(table, || format!("net{index}")) else { return };
                let bridge = table.iter().find(|(key, _)| key.name == "bridge");
                self.implied(&device, table, node, if bridge.is_some() { BRIDGED } else { &BRIDGED[..1] });
                if let Some((key, bridge)) = bridge {
                    self.value(&format!("{device}.tap.bridge"), &key.place, bridge);
                }
                self.entries(&device, table, &["id", "bridge"]);
            }
            Value::Bare(_) | Value::List(_) | Value::Odd(_) => self.wrong(|| {
                let hint = "an interface is the name of a bridge, or a table: {bridge=\"br0\", mac=\"…\"}";
                node.place.finding(format!("{} is no network interface", node.what())).hint(hint)
            }),
        }
    }

    /// The shares of a table, each called by its tag.
    fn shares(&mut self, _: usize, node: &Node) {
        let Value::Table(table) = &node.value else {
            return self.wrong(|| share(node, "shares are"));
        };
        for (index, (tag, node)) in table.iter().enumerate() {
            match &node.value {
                Value::Text(path) => {
                    let device = format!("device.fs{index}");
                    self.set(format!("{device}.model"), "virtio-9p", &tag.place);
                    self.set(format!("{device}.sharename"), &tag.name, &tag.place);
                    self.set(format!("{device}.path"), path, &tag.place);
                }
                Value::Table(table) => {
                    let Some(device) = self.named(table, || format!("fs{index}")) else { continue };
                    self.implied(&device, table, node, &[("model", "virtio-9p"), ("sharename", &tag.name)]);
                    self.entries(&device, table, &["id"]);
                }
                Value::Bare(_) | Value::List(_) | Value::Odd(_) => self.wrong(|| share(node, "a share is")),
            }
        }
    }

    /// Tables under `[[device]]`.
    fn devices(&mut self, node: &Node) {
        for element in node.elements() {
            let Value::Table(table) = &element.value else {
                self.wrong(|| {
                    let message = format!("{} is no device", element.what());
                    element
                        .place
                        .finding(message)
                        .hint("write `[[device]]`, and its keys on lines of their own")
                });
                continue;
            };
            if entry(table, "id").is_none() {
                self.wrong(|| {
                    let hint = "add `id = \"…\"`: what the device is called, as in `device.<id>.model`";
                    element.place.finding("a device without an `id`").hint(hint)
                });
            } else if let Some(device) = self.named(table, String::new) {
                if table.len() == 1 {
                    self.wrong(|| element.place.finding("a device without a `model`"));
                }
                self.entries(&device, table, &["id"]);
            }
        }
    }

    /// Tables under `[engine]`: `args` of each become numbered.
    fn engines(&mut self, node: &Node) {
        let Value::Table(engines) = &node.value else { return };
        for (engine, node) in engines {
            let path = format!("engine.{}", engine.name);
            let Value::Table(table) = &node.value else {
                self.value(&path, &engine.place, node);
                continue;
            };
            if let Some(args) = entry(table, "args") {
                self.begin(&format!("{path}.args"));
                for (index, word) in args.elements().iter().enumerate() {
                    self.value(&format!("{path}.arg.{index}"), &word.place, word);
                }
                self.list = None;
            }
            self.entries(&path, table, &["args"]);
        }
    }

    /// `device.<id>`: the one the table names, or the default.
    fn named(&mut self, table: &Table, default: impl FnOnce() -> String) -> Option<String> {
        let Some(node) = entry(table, "id") else { return Some(format!("device.{}", default())) };
        let letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        match &node.value {
            Value::Text(id) if !id.is_empty() && id.chars().all(letter) => Some(format!("device.{id}")),
            _ => {
                self.wrong(|| {
                    let hint = "an `id` is a string of letters, digits, `_` and `-`";
                    node.place.finding("a device cannot be called that").hint(hint)
                });
                None
            }
        }
    }

    /// Sets what a shortcut stands for, unless the table says otherwise.
    fn implied(&mut self, device: &str, table: &Table, node: &Node, keys: &[(&str, &str)]) {
        for (key, value) in keys {
            if !says(table, key) {
                self.set(format!("{device}.{key}"), value, &node.place);
            }
        }
    }

    fn entries(&mut self, prefix: &str, table: &Table, except: &[&str]) {
        for (key, node) in table.iter().filter(|(key, _)| !except.contains(&key.name.as_str())) {
            self.value(&format!("{prefix}.{}", key.name), &key.place, node);
        }
    }

    /// What is set under `path`; `place` is that of its key.
    fn value(&mut self, path: &str, place: &Place, node: &Node) {
        match &node.value {
            Value::Text(text) | Value::Bare(text) => self.set(path.to_owned(), text, place),
            Value::Table(table) if table.is_empty() && path.starts_with("device.") => {
                self.wrong(|| place.finding("a device without a `model`"));
            }
            Value::Table(table) => self.entries(path, table, &[]),
            Value::List(elements) => self.list(path, place, elements),
            Value::Odd(what) => self.wrong(|| {
                let hint = if *what == "a null" {
                    "leave it out to have the default"
                } else {
                    "put it in quotes if it is a text"
                };
                node.place.finding(format!("{what} has no meaning for `{path}`")).hint(hint)
            }),
        }
    }

    /// A list, where the key takes one: its elements between commas.
    fn list(&mut self, path: &str, place: &Place, elements: &[Node]) {
        let lists = [Kind::Cpus, Kind::Descriptors];
        let takes_lists = keys::all().any(|key| lists.contains(&key.kind) && key.matches(path));
        let words: Option<Vec<&str>> = elements.iter().map(Node::scalar).collect();
        match words {
            Some(words) if takes_lists && !words.is_empty() => {
                self.set(path.to_owned(), &words.join(","), place);
            }
            _ => self.wrong(|| {
                let diagnostic = place.finding(format!("`{path}` takes no list of this kind"));
                match elements.first().map(|element| &element.value) {
                    Some(Value::Table(_)) => {
                        diagnostic.hint("give each table a name of its own: [a.b] rather than [[a]]")
                    }
                    _ => diagnostic.hint("write one value"),
                }
            }),
        }
    }

    fn set(&mut self, path: String, value: &str, place: &Place) {
        if let Some(diagnostic) = wrong_key(&path, place) {
            return self.wrong(|| diagnostic);
        }
        if value.contains('\n') || value.ends_with('\r') {
            return self.wrong(|| place.finding(format!("the value of `{path}` has more than one line")));
        }
        if value.len() > MAX_VALUE {
            return self.wrong(|| {
                place
                    .finding(format!("the value of `{path}` has {} bytes", value.len()))
                    .hint(format!("the longest a value may be is {MAX_VALUE} bytes"))
            });
        }
        if let Some(first) = self.layer.leaf(&path) {
            let first = first.origin.clone();
            return self.wrong(|| {
                place.finding(format!("`{path}` is set twice")).hint(format!("it is also set at {first}"))
            });
        }
        if self.layer.len() >= MAX_KEYS {
            return self.wrong(|| place.finding(format!("more than {MAX_KEYS} keys")));
        }
        self.layer.add(path, value.to_owned(), place.origin(), self.list.as_deref());
    }

    fn wrong(&mut self, diagnostic: impl FnOnce() -> Diagnostic) {
        self.diagnostics.add(Severity::Error, diagnostic);
    }
}

fn share(node: &Node, subject: &str) -> Diagnostic {
    let hint = format!("{subject} a tag with the path of a folder: share = {{data=\"/srv/data\"}}");
    node.place.finding(format!("{} is no share", node.what())).hint(hint)
}

/// Whether `table` sets `path`, however it is written.
fn says(table: &Table, path: &str) -> bool {
    table.iter().any(|(key, node)| match path.strip_prefix(key.name.as_str()) {
        Some("") => true,
        Some(rest) => match (&node.value, rest.strip_prefix('.')) {
            (Value::Table(table), Some(rest)) => says(table, rest),
            _ => false,
        },
        None => false,
    })
}

/// What is wrong with a key, if anything is.
fn wrong_key(path: &str, place: &Place) -> Option<Diagnostic> {
    let letter = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if path.len() > MAX_KEY {
        let hint = format!("the longest a key may be is {MAX_KEY} bytes");
        Some(place.finding(format!("a key of {} bytes", path.len())).hint(hint))
    } else if let Some(bad) = path.chars().find(|c| !letter(*c)) {
        let hint = "keys are letters, digits, `_` and `-`, separated by `.`";
        Some(place.finding(format!("`{}` in a key", bad.escape_debug())).hint(hint))
    } else if path.split('.').any(str::is_empty) {
        Some(place.finding("an empty part in a key"))
    } else {
        None
    }
}
