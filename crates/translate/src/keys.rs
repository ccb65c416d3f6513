//! A tree on its way out: every key is taken, or it is lost.

use std::collections::BTreeSet;

use parador_config::{Setting, Tree};

use crate::format::Loss;

/// What becomes of a key in a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The format can say it, at least for some values.
    Mapped,
    /// It cannot, for this reason.
    Refused(&'static str),
}

/// The keys of a tree, taken one by one by an exporter; the rest are its losses.
#[derive(Debug)]
pub struct Keys<'a> {
    tree: &'a Tree,
    fates: &'static [(&'static str, Fate)],
    taken: BTreeSet<String>,
    losses: Vec<Loss>,
}

impl<'a> Keys<'a> {
    /// All keys of `tree`, for an exporter whose lists are `fates`.
    #[must_use]
    pub fn new(tree: &'a Tree, fates: &'static [(&'static str, Fate)]) -> Self {
        Self { tree, fates, taken: BTreeSet::new(), losses: Vec::new() }
    }

    /// The value of `key`, which the exporter now answers for: it writes it, or calls
    /// [`Keys::lose`]. It is mapped, or a name of the user's own that the lists do not have.
    pub fn take(&mut self, key: &str) -> Option<&'a str> {
        let setting = self.tree.setting(key)?;
        debug_assert!(
            !matches!(fate(self.fates, key), Some(Fate::Refused(_))),
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
            let why = match fate(self.fates, key) {
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

/// What `fates` say of `key`.
pub(crate) fn fate(fates: &[(&str, Fate)], key: &str) -> Option<Fate> {
    fates.iter().find(|(pattern, _)| fits(pattern, key)).map(|(_, fate)| *fate)
}

/// Whether `key` has the form of `pattern`: `*` is one part, `**` at the end one part or more.
fn fits(pattern: &str, key: &str) -> bool {
    let mut parts = key.split('.');
    for want in pattern.split('.') {
        match (want, parts.next()) {
            ("**", Some(_)) => return true,
            (_, None) => return false,
            ("*", Some(_)) => {}
            (want, Some(part)) if want == part => {}
            (_, Some(_)) => return false,
        }
    }
    parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Format;

    /// Keys of the table that no format needs to list: they are about this program.
    const OURS: &[&str] = &["log.level", "kvm.fd", "boot.kernel_fd", "boot.initrd_fd"];

    #[test]
    fn every_format_maps_or_refuses_every_key() {
        for format in Format::ALL {
            for key in parador_config::keys::all() {
                let known = fate(format.fates(), key.pattern).is_some() || OURS.contains(&key.pattern);
                assert!(known, "{}: `{}` is neither mapped nor refused", format.name(), key.pattern);
            }
        }
    }

    #[test]
    fn two_stars_stand_for_the_rest() {
        assert!(fits("**", "a.b"));
        assert!(fits("device.*.tap.**", "device.net0.tap.name"));
        assert!(!fits("device.*.tap.**", "device.net0.tap"));
        assert!(!fits("device.*", "device.net0.mac"));
    }
}
