//! A tree on its way out: every key is taken, or it is lost.

use std::collections::BTreeSet;

use parador_config::{Setting, Tree};

use crate::fates::{Fate, Fates};
use crate::format::Loss;

/// The keys of a tree, taken one by one by an exporter; the rest are its losses.
#[derive(Debug)]
pub struct Keys<'a> {
    tree: &'a Tree,
    fates: Fates,
    taken: BTreeSet<String>,
    losses: Vec<Loss>,
}

impl<'a> Keys<'a> {
    /// All keys of `tree`, for an exporter whose lists are `fates`.
    #[must_use]
    pub fn new(tree: &'a Tree, fates: Fates) -> Self {
        Self { tree, fates, taken: BTreeSet::new(), losses: Vec::new() }
    }

    /// The value of `key`, which the exporter now answers for: it writes it, or calls
    /// [`Keys::lose`]. It is mapped, or a name of the user's own that the lists do not have.
    pub fn take(&mut self, key: &str) -> Option<&'a str> {
        let setting = self.tree.setting(key)?;
        debug_assert!(
            !matches!(self.fates.of(key), Some(Fate::Refused(_))),
            "{key} is taken, but listed as refused"
        );
        self.taken.insert(key.to_owned());
        Some(&setting.value)
    }

    /// The tree they are of.
    pub(crate) fn tree(&self) -> &'a Tree {
        self.tree
    }

    /// The value of `key`, left where it is.
    #[must_use]
    pub fn peek(&self, key: &str) -> Option<&'a str> {
        self.tree.setting(key).map(|setting| setting.value.as_str())
    }

    /// The identifiers of the devices, in the order of their first mention.
    #[must_use]
    pub fn devices(&self) -> Vec<&'a str> {
        self.tree.devices()
    }

    /// The parts that follow `prefix` and a dot.
    #[must_use]
    pub fn below(&self, prefix: &str) -> Vec<&'a str> {
        self.tree.below(prefix)
    }

    /// Says that the value of `key` cannot be written, and why.
    pub fn lose(&mut self, key: &str, why: impl Into<String>) {
        if let Some(setting) = self.tree.setting(key) {
            self.taken.insert(key.to_owned());
            self.losses.push(loss(key, setting, why.into()));
        }
    }

    /// What was lost: what the exporter said, and every key that it did not take. Names of the
    /// user's own (`var.*`) are no loss: what referred to them has been expanded.
    #[must_use]
    pub fn finish(mut self) -> Vec<Loss> {
        for (key, setting) in self.tree.in_order() {
            if self.taken.contains(key) || key.starts_with("var.") {
                continue;
            }
            let why = match self.fates.of(key) {
                Some(Fate::Refused(why)) => why,
                Some(Fate::Mapped) => "not in this combination",
                None => "there is no word for it there",
            };
            self.losses.push(loss(key, setting, why.to_owned()));
        }
        self.losses
    }
}

fn loss(key: &str, setting: &Setting, why: String) -> Loss {
    Loss { what: format!("{key}={}", setting.value), why, origin: Some(setting.origin.clone()) }
}
