//! Holding a tree against the table of keys.

use std::collections::BTreeMap;

use crate::addresses;
use crate::alias;
use crate::diagnose::{Diagnostic, Diagnostics, Severity};
use crate::keys::{self, Key, Kind, fill, matching};
use crate::nearest::{common_parts, nearest};
use crate::place::{at_key, at_value};
use crate::printable::printable;
use crate::tree::{Setting, Tree};
use crate::unknown::Unknown;
use crate::value::{self, Endpoint, PciAddress, Value};

/// Typed values of a tree, and of the defaults of what it leaves out.
///
/// It holds what could be understood; whether that is all is a matter of [`Diagnostics::errors`].
#[derive(Debug, Clone)]
pub struct Checked {
    tree: Tree,
    values: BTreeMap<String, Value>,
    devices: Vec<Device>,
}

/// A device that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// What the user calls it: the `disk0` of `device.disk0.model`.
    pub id: String,
    /// Its model, the name of one of [`keys::MODELS`].
    pub model: &'static str,
}

impl Tree {
    /// Expands the tree, types every value, and adds to `diagnostics` what is unknown, malformed or
    /// out of place.
    #[must_use]
    pub fn check(&self, diagnostics: &mut Diagnostics) -> Checked {
        let tree = self.expand(diagnostics);
        addresses::check(&tree, diagnostics);
        let devices = devices(&tree, diagnostics);
        let unknown = Unknown::of(&tree);
        let mut values = BTreeMap::new();
        for (path, setting) in tree.in_order() {
            if setting.value.contains(['\n', '\r']) {
                diagnostics.add(Severity::Error, || line_break(path, setting));
                continue;
            }
            if path.starts_with("var.") {
                continue;
            }
            let model = model_of(&tree, path);
            let Some(key) = judge_key(path, setting, model, &unknown, diagnostics) else { continue };
            if setting.is_broken() {
                continue;
            }
            blanks(path, setting, &key, diagnostics);
            match value::parse(key.kind, &setting.value) {
                Ok(value) => drop(values.insert(path.to_owned(), value)),
                Err(expected) => {
                    diagnostics.add(Severity::Error, || bad_value(path, setting, &key, &expected));
                }
            }
        }
        Checked { tree, values, devices }
    }
}

impl Checked {
    /// The value of `path`, set or by default.
    #[must_use]
    pub fn value(&self, path: &str) -> Option<Value> {
        if let Some(value) = self.values.get(path) {
            return Some(value.clone());
        }
        let key = self.key(path);
        debug_assert!(key.is_some(), "`{path}` is read, but not in the table");
        let key = key?;
        value::parse(key.kind, key.default?).ok()
    }

    /// The key of the table that `path` is.
    #[must_use]
    pub fn key(&self, path: &str) -> Option<Key> {
        let model = model_of(&self.tree, path);
        matching(path).find(|key| applies(key, model))
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The value of a number or size.
    #[must_use]
    pub fn int(&self, path: &str) -> Option<u64> {
        if let Some(Value::Int(n)) = self.value(path) { Some(n) } else { None }
    }

    /// The value of a switch; one that has no default is off.
    #[must_use]
    pub fn bool(&self, path: &str) -> bool {
        self.value(path) == Some(Value::Bool(true))
    }

    /// The value of a text or path.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        if let Some(Value::Text(text)) = self.value(path) { Some(text) } else { None }
    }

    /// The value of a key that takes one of some words.
    #[must_use]
    pub fn word(&self, path: &str) -> Option<&'static str> {
        if let Some(Value::Word(word)) = self.value(path) { Some(word) } else { None }
    }

    /// The value of a key that takes a PCI address.
    #[must_use]
    pub fn address(&self, path: &str) -> Option<PciAddress> {
        if let Some(Value::Address(address)) = self.value(path) { Some(address) } else { None }
    }

    /// The value of a key that takes the other end of a console.
    #[must_use]
    pub fn endpoint(&self, path: &str) -> Option<Endpoint> {
        if let Some(Value::Endpoint(endpoint)) = self.value(path) { Some(endpoint) } else { None }
    }

    /// Whether `path` was set, rather than left to its default.
    #[must_use]
    pub fn is_set(&self, path: &str) -> bool {
        debug_assert!(matching(path).next().is_some(), "`{path}` is asked for, but not in the table");
        self.tree.setting(path).is_some()
    }

    /// The devices, in the order in which they were first mentioned.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The parts that follow `prefix` and a dot in keys that are set, ascending, numbers by value.
    #[must_use]
    pub fn children(&self, prefix: &str) -> Vec<&str> {
        let below = |path| str::strip_prefix(path, prefix)?.strip_prefix('.')?.split('.').next();
        let mut parts: Vec<&str> = self.tree.settings.keys().filter_map(|path| below(path)).collect();
        parts.sort_by_key(|part| (part.parse::<u64>().unwrap_or(u64::MAX), *part));
        parts.dedup();
        parts
    }

    /// A finding about `path`: with its place and line if it was set.
    #[must_use]
    pub fn about(&self, path: &str, message: impl Into<String>) -> Diagnostic {
        let diagnostic = Diagnostic::new(message);
        match self.tree.setting(path) {
            Some(setting) => at_value(diagnostic, path, setting),
            None => diagnostic,
        }
    }
}

/// The devices that have a model, in order; those that have none are reported.
fn devices(tree: &Tree, diagnostics: &mut Diagnostics) -> Vec<Device> {
    let mut seen = std::collections::BTreeSet::new();
    let mut devices = Vec::new();
    for (path, setting) in tree.in_order() {
        let Some(id) = device_id(path) else { continue };
        if !seen.insert(id) {
            continue;
        }
        if tree.setting(&format!("device.{id}.model")).is_none() {
            diagnostics.add(Severity::Error, || no_model(id, path, setting));
        } else if let Some(model) = model_of(tree, path) {
            devices.push(Device { id: id.to_owned(), model });
        }
    }
    devices
}

fn no_model(id: &str, path: &str, setting: &Setting) -> Diagnostic {
    let wrong = keys::FOREIGN.iter().any(|(word, key)| *key == "device.*.model" && fits(word, path));
    let hint = if wrong {
        format!("`{path}` is spelt `device.{id}.model`")
    } else {
        format!("set `device.{id}.model` to one of {}", keys::native_models().join(", "))
    };
    at_key(
        Diagnostic::new(format!("device `{id}` has no model")).code("no-model"),
        path,
        setting,
        "device.".len(),
        id.len(),
    )
    .hint(hint)
}

/// The key that `path` is, or `None` after saying why it is none.
fn judge_key(
    path: &str,
    setting: &Setting,
    model: Option<&'static str>,
    unknown: &Unknown<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Key> {
    let mut candidates = matching(path).peekable();
    if candidates.peek().is_none() {
        unknown.report(path, diagnostics, || unknown_key(path, setting, model));
        return None;
    }
    let Some(model) = model else {
        // A device without a model has been reported; its keys cannot be judged.
        return candidates.find(|key| key.models.is_empty());
    };
    let found = candidates.find(|key| applies(key, Some(model)));
    if found.is_none() {
        unknown.report(path, diagnostics, || {
            let name = field(path);
            let message = format!("`{name}` is not a key of a {model}");
            at_key(
                Diagnostic::new(message).code("wrong-model"),
                path,
                setting,
                path.len() - name.len(),
                name.len(),
            )
            .hint(keys_of(model))
        });
    }
    found
}

fn line_break(path: &str, setting: &Setting) -> Diagnostic {
    let message = format!("a line break in the value of `{}`", setting.spelt(path));
    at_value(Diagnostic::new(message).code("bad-value"), path, setting).hint("a value is one line of text")
}

fn unknown_key(path: &str, setting: &Setting, model: Option<&'static str>) -> Diagnostic {
    let diagnostic =
        Diagnostic::new(format!("unknown key `{}`", printable(setting.spelt(path), 80))).code("unknown-key");
    let foreign = keys::FOREIGN.iter().find(|(word, _)| fits(word, path)).map(|(_, key)| fill(key, path));
    let usable = || keys::all().filter(|key| device_id(path).is_none() || applies(key, model));
    let meant = foreign.flatten().or_else(|| {
        let same_length = nearest(path, usable().filter_map(|key| fill(key.pattern, path)));
        same_length.or_else(|| nearest(&path.replace('-', "_"), usable().map(|key| key.pattern.to_owned())))
    });
    let (start, hint) = match (meant, model) {
        (Some(meant), _) => {
            let written = alias::respelt(&meant, setting.spelt(path));
            (common_parts(path, &meant) % path.len(), Some(format!("did you mean `{written}`?")))
        }
        (None, Some(model)) => (path.len() - field(path).len(), Some(keys_of(model))),
        (None, None) if path.starts_with("pci.") => {
            let range = "in decimal, up to 255, 31 and 7, such as `pci.0.4.0.device`";
            (0, Some(format!("a device of bhyve is `pci.BUS.SLOT.FUNCTION`, {range}")))
        }
        (None, None) => {
            (0, Some("`parador config keys` lists them; keys of your own start with `var.`".to_owned()))
        }
    };
    let diagnostic = at_key(diagnostic, path, setting, start, path.len() - start);
    match hint {
        Some(hint) => diagnostic.hint(hint),
        None => diagnostic,
    }
}

/// Warns of blanks around a file's name: rarely meant, never seen.
fn blanks(path: &str, setting: &Setting, key: &Key, diagnostics: &mut Diagnostics) {
    let named = matches!(key.kind, Kind::Path | Kind::Endpoint);
    if named && setting.value.trim_matches([' ', '\t']).len() < setting.value.len() {
        diagnostics.add(Severity::Warning, || {
            let message = format!("the value of `{}` starts or ends with a blank", setting.spelt(path));
            at_value(Diagnostic::new(message).code("blanks"), path, setting)
                .hint("a value is everything after the first `=`, blanks included")
        });
    }
}

fn bad_value(path: &str, setting: &Setting, key: &Key, expected: &str) -> Diagnostic {
    let text = &setting.value;
    let message = match text.as_str() {
        "" => format!("`{}` cannot be empty", setting.spelt(path)),
        text => format!("`{}` cannot be `{}`", setting.spelt(path), printable(text, 60)),
    };
    let mut hint = format!("it is {expected}");
    if let Kind::Word(words) = key.kind {
        let foreign = keys::FOREIGN_VALUES.iter().find(|(word, _)| word == text).map(|(_, meant)| *meant);
        let meant = foreign.filter(|meant| words.contains(meant));
        let meant = meant.or_else(|| nearest(text.to_ascii_lowercase().as_str(), words.iter()));
        hint = match key.words().as_slice() {
            [word] => format!("it is {word}"),
            words => format!("it is one of {}", words.join(", ")),
        };
        if let Some(meant) = meant {
            hint = format!("did you mean `{meant}`? {hint}");
        }
    }
    at_value(Diagnostic::new(message).code("bad-value"), path, setting).hint(hint)
}

fn keys_of(model: &str) -> String {
    let native = keys::native_models().contains(&model);
    let fields: Vec<&str> = keys::all()
        .filter(|key| key.models.contains(model) && (key.support.matters() || !native))
        .filter_map(|key| key.pattern.strip_prefix("device.*."))
        .collect();
    format!("a {model} has: {}, addr", fields.join(", "))
}

fn applies(key: &Key, model: Option<&str>) -> bool {
    key.models.is_empty() || model.is_some_and(|model| key.models.contains(model))
}

/// The model of the device that has the key `path`.
fn model_of(tree: &Tree, path: &str) -> Option<&'static str> {
    let setting = tree.setting(&format!("device.{}.model", device_id(path)?))?;
    keys::model(&setting.value).map(|model| model.name)
}

/// The `disk0` of `device.disk0.path`.
fn device_id(path: &str) -> Option<&str> {
    let (id, _) = path.strip_prefix("device.")?.split_once('.')?;
    Some(id)
}

/// The `path` of `device.disk0.path`, or all of a key that is not of a device.
fn field(path: &str) -> &str {
    device_id(path).map_or(path, |id| &path["device..".len() + id.len()..])
}

/// Whether `path` has the form of `pattern`.
fn fits(pattern: &str, path: &str) -> bool {
    let mut parts = path.split('.');
    pattern.split('.').all(|want| parts.next().is_some_and(|part| want == "*" || want == part))
        && parts.next().is_none()
}
