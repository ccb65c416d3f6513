//! The tree: flat keys, their values, and where each came from.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::alias;
use crate::origin::Origin;

/// Flat keys and their values. Nothing in it has been judged yet.
///
/// Two trees are equal if they have the same keys with the same values, whatever their origins.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    pub(crate) settings: BTreeMap<String, Setting>,
    /// Keys that values of others referred to, before they were expanded.
    pub(crate) referred: BTreeSet<String>,
    next: usize,
}

/// A value, and where it was written.
#[derive(Debug, Clone)]
pub struct Setting {
    /// As it was written; in an expanded tree, and if it was set literally, what it means.
    pub value: String,
    /// Where it was written; of several places, the one that counts.
    pub origin: Origin,
    form: Form,
    /// The alias that was written in place of its key.
    spelt: Option<Box<str>>,
    /// Whether `key=value` is what stands at the origin.
    assignment: bool,
    /// When its key was first mentioned.
    order: usize,
}

/// What a value is.
#[derive(Debug, Clone)]
enum Form {
    /// Text that may refer to other keys.
    Written,
    /// Itself.
    Literal,
    /// What was written here, expanded.
    Expanded(String),
    /// As it was written: what is wrong with its references has been said.
    Broken,
    /// The address of a device that is named by it.
    Implied,
}

impl Setting {
    /// The value as a file of keys has it: with references as they were written, unless they have
    /// been expanded, and what is none escaped.
    #[must_use]
    pub fn raw(&self) -> Cow<'_, str> {
        match self.form {
            Form::Written | Form::Broken => Cow::Borrowed(&self.value),
            Form::Literal | Form::Expanded(_) | Form::Implied => escaped(&self.value),
        }
    }

    /// The text in which references may stand, or stood.
    pub(crate) fn reference_text(&self) -> &str {
        match &self.form {
            Form::Written | Form::Broken => &self.value,
            Form::Expanded(written) => written,
            Form::Literal | Form::Implied => "",
        }
    }

    /// The text that stands in the source.
    pub(crate) fn written(&self) -> &str {
        if let Form::Expanded(written) = &self.form { written } else { &self.value }
    }

    /// The key as it was written; `key` is the one it is kept under.
    #[must_use]
    pub fn spelt<'a>(&'a self, key: &'a str) -> &'a str {
        self.spelt.as_deref().unwrap_or(key)
    }

    /// Whether its references are still to be expanded.
    pub(crate) fn may_refer(&self) -> bool {
        matches!(self.form, Form::Written) && self.value.contains('%')
    }

    /// Whether references in it have been expanded.
    pub(crate) fn is_expanded(&self) -> bool {
        matches!(self.form, Form::Expanded(_))
    }

    /// Whether its references could not be expanded.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(self.form, Form::Broken)
    }

    /// Whether it was not written itself, but follows from the spelling of another key.
    pub(crate) fn is_implied(&self) -> bool {
        matches!(self.form, Form::Implied)
    }

    /// Whether `key=value` stands at its origin, rather than the value.
    #[must_use]
    pub fn is_assignment(&self) -> bool {
        self.assignment
    }

    /// Gives it the value that its references make; `None` if they make none.
    pub(crate) fn expand(&mut self, value: Option<String>) {
        self.form = match value {
            Some(value) => Form::Expanded(std::mem::replace(&mut self.value, value)),
            None => Form::Broken,
        };
    }
}

impl Tree {
    /// Sets `key`, or the key it is an alias of, and returns what that replaced. The value is taken
    /// as it is: a `%` in it is no reference. A key keeps the rank of its first mention.
    pub fn set(&mut self, key: &str, value: impl Into<String>, origin: Origin) -> Option<Setting> {
        self.put(key, value.into(), origin, Form::Literal, false)
    }

    /// As [`Tree::set`], but the value may refer to other keys (`%(key)`) and has `%` written `%%`,
    /// as in a file of keys.
    pub fn set_raw(&mut self, key: &str, value: impl Into<String>, origin: Origin) -> Option<Setting> {
        self.put(key, value.into(), origin, Form::Written, false)
    }

    /// As [`Tree::set_raw`], for a `key=value` that stands at `origin`.
    pub(crate) fn assign(&mut self, key: &str, value: &str, origin: Origin) -> Option<Setting> {
        self.put(key, value.to_owned(), origin, Form::Written, true)
    }

    /// Sets `key` as another tree has it, and returns what that replaced.
    pub fn adopt(&mut self, key: &str, setting: Setting) -> Option<Setting> {
        let order = self.next;
        self.next += 1;
        let Some(old) = self.settings.get_mut(key) else {
            return self.settings.insert(key.to_owned(), Setting { order, ..setting });
        };
        let order = old.order;
        Some(std::mem::replace(old, Setting { order, ..setting }))
    }

    /// The tree of a machine that has a device called `id` and nothing else, from one whose keys are
    /// that device's own: what is `path` here is `device.<id>.path` there, and messages still call it
    /// `path` ([`Diagnostics::of_device`](crate::Diagnostics::of_device)). Keys of no machine
    /// (`var.*`, `config.*`, `log.*`) stay what they are.
    #[must_use]
    pub fn of_device(&self, id: &str) -> Self {
        let mut tree = Self::default();
        for (key, setting) in self.in_order() {
            if ["var.", "config.", "log."].iter().any(|prefix| key.starts_with(prefix)) {
                tree.adopt(key, setting.clone());
                continue;
            }
            let spelt = Some(setting.spelt(key).into());
            tree.adopt(&format!("device.{id}.{key}"), Setting { spelt, ..setting.clone() });
        }
        tree
    }

    /// The keys of device `id` as they are without a machine, the other way of [`Tree::of_device`].
    #[must_use]
    pub fn device(&self, id: &str) -> Self {
        let prefix = format!("device.{id}.");
        let mut tree = Self::default();
        for (path, setting) in self.in_order() {
            if let Some(key) = path.strip_prefix(&prefix) {
                let spelt = Some(setting.spelt(path).into());
                tree.adopt(key, Setting { spelt, ..setting.clone() });
            }
        }
        tree
    }

    fn put(
        &mut self,
        written: &str,
        value: String,
        origin: Origin,
        form: Form,
        assignment: bool,
    ) -> Option<Setting> {
        let key = alias::canonical(written);
        let spelt = (key != written).then(|| written.into());
        let setting = Setting { value, origin, form, spelt, assignment, order: self.next };
        if let Some((address, field)) = alias::pci(written)
            && !field.is_empty()
        {
            let addr = format!("device.{}.addr", alias::id(address));
            let implied = || Setting { value: address.to_string(), form: Form::Implied, ..setting.clone() };
            self.settings.entry(addr).or_insert_with(implied);
        }
        self.next += 1;
        if let Some(old) = self.settings.get_mut(&*key) {
            let order = old.order;
            let old = std::mem::replace(old, Setting { order, ..setting });
            return (!old.is_implied()).then_some(old);
        }
        self.settings.insert(key.into_owned(), setting);
        None
    }

    /// Takes `key` and all keys below it away, and returns how many there were.
    pub fn unset(&mut self, key: &str) -> usize {
        let key = alias::canonical(key);
        let below = |path: &str| path.strip_prefix(&*key).is_some_and(|rest| rest.starts_with('.'));
        let before = self.settings.len();
        self.settings.retain(|path, _| *path != *key && !below(path));
        // The address of a device that has nothing else left is not its own.
        if let Some(device) = key.strip_prefix("device.").and_then(|rest| rest.split('.').next()) {
            let prefix = format!("device.{device}.");
            let mut left =
                self.settings.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
            if left.next().is_some_and(|(_, setting)| setting.is_implied()) && left.next().is_none() {
                self.settings.remove(&format!("{prefix}addr"));
            }
        }
        before - self.settings.len()
    }

    /// What `key`, or the key it is an alias of, was set to.
    #[must_use]
    pub fn setting(&self, key: &str) -> Option<&Setting> {
        self.settings.get(&*alias::canonical(key))
    }

    /// All settings, in the order in which their keys were first mentioned.
    #[must_use]
    pub fn in_order(&self) -> Vec<(&str, &Setting)> {
        let mut all: Vec<_> = self.settings.iter().map(|(key, setting)| (key.as_str(), setting)).collect();
        all.sort_by_key(|(_, setting)| setting.order);
        all
    }

    /// The parts that follow `prefix` and a dot in keys that are set, ascending, each once.
    #[must_use]
    pub fn below(&self, prefix: &str) -> Vec<&str> {
        let prefix = format!("{prefix}.");
        let paths = self.settings.range(prefix.clone()..).map(|(path, _)| path);
        let rests = paths.map_while(|path| path.strip_prefix(&prefix));
        let mut parts: Vec<&str> = rests.filter_map(|rest| rest.split('.').next()).collect();
        parts.sort_unstable();
        parts.dedup();
        parts
    }

    /// The names of the devices, in the order in which they were first mentioned.
    #[must_use]
    pub fn devices(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        let ids = self
            .in_order()
            .into_iter()
            .filter_map(|(key, _)| Some(key.strip_prefix("device.")?.split_once('.')?.0));
        ids.filter(|id| seen.insert(*id)).collect()
    }
}

impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        let same = |((key, a), (other, b)): ((&String, &Setting), (&String, &Setting))| {
            key == other && a.raw() == b.raw()
        };
        self.settings.len() == other.settings.len() && self.settings.iter().zip(&other.settings).all(same)
    }
}

impl Eq for Tree {}

/// The text that stands for `value` where references are read.
fn escaped(value: &str) -> Cow<'_, str> {
    if !value.contains('%') {
        return Cow::Borrowed(value);
    }
    let mut out = String::with_capacity(value.len() + 8);
    for c in value.chars() {
        if c == '%' {
            // Before a `%`, a backslash of the value would be taken for the one that escapes it.
            out.push(if out.ends_with('\\') { '\\' } else { '%' });
        }
        out.push(c);
    }
    Cow::Owned(out)
}
