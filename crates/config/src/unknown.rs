//! What becomes of keys that do not exist: `config.unknown` and `config.optional`.

use std::collections::BTreeSet;

use crate::diagnose::{Diagnostic, Diagnostics, Severity};
use crate::tree::Tree;

/// Longest value of `config.optional`, in bytes: that of a text in the table.
const MAX_OPTIONAL: usize = 255;

/// What a tree asks for.
pub(crate) struct Unknown<'a> {
    severity: Option<Severity>,
    optional: Vec<&'a str>,
    referred: &'a BTreeSet<String>,
}

impl<'a> Unknown<'a> {
    /// What `tree`, which is expanded, asks for.
    pub(crate) fn of(tree: &'a Tree) -> Self {
        let value = |key: &str| tree.settings.get(key).map_or("", |setting| setting.value.as_str());
        let severity = match value("config.unknown") {
            "ignore" => None,
            "warn" => Some(Severity::Warning),
            _ => Some(Severity::Error),
        };
        // One that is too long is an error; every unknown key is held against it.
        let optional = Some(value("config.optional")).filter(|optional| optional.len() <= MAX_OPTIONAL);
        let optional = optional.into_iter().flat_map(|optional| optional.split(','));
        let optional = optional.filter(|glob| !glob.is_empty()).collect();
        Self { severity, optional, referred: &tree.referred }
    }

    /// Reports that there is no key `path`, unless it may be ignored: some value refers to it, or
    /// older versions were foreseen.
    pub(crate) fn report(
        &self,
        path: &str,
        diagnostics: &mut Diagnostics,
        wrong: impl FnOnce() -> Diagnostic,
    ) {
        let Some(severity) = self.severity else { return };
        let other_systems = path.starts_with("engine.");
        if !other_systems && !self.referred.contains(path) && !self.is_optional(path) {
            diagnostics.add(severity, wrong);
        }
    }

    /// Whether the machine may do without `path`.
    pub(crate) fn is_optional(&self, path: &str) -> bool {
        self.optional.iter().any(|glob| fits(glob, path))
    }
}

/// Whether `path` has the form of `glob`, in which `*` is any text.
fn fits(glob: &str, path: &str) -> bool {
    let (glob, path) = (glob.as_bytes(), path.as_bytes());
    let (mut g, mut p) = (0, 0);
    // Behind the last star, and where what it takes may end: the only place worth another try, so
    // that the time is at most the product of the lengths.
    let mut again = None;
    loop {
        if glob.get(g) == Some(&b'*') {
            g += 1;
            again = Some((g, p));
        } else if p < path.len() && glob.get(g) == Some(&path[p]) {
            (g, p) = (g + 1, p + 1);
        } else if p == path.len() && g == glob.len() {
            return true;
        } else if let Some((after, end)) = again
            && end < path.len()
        {
            (g, p) = (after, end + 1);
            again = Some((g, p));
        } else {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        for (glob, path) in [
            ("device.*.new", "device.disk0.new"),
            ("device.*.new", "device.disk0.tap.new"),
            ("device.*.n*w", "device.disk0.now"),
            ("new.*", "new.a.b"),
            ("*.new", "device.new.new"),
            ("*", "a"),
            ("a", "a"),
            ("a*", "a"),
        ] {
            assert!(fits(glob, path), "{glob} {path}");
        }
        for (glob, path) in
            [("new.*", "new"), ("a", "ab"), ("ab", "a"), ("", "a"), ("*x*y", "a.x.y1"), ("*.new", "anew")]
        {
            assert!(!fits(glob, path), "{glob} {path}");
        }
        assert!(!fits(&"*a".repeat(100), &"a".repeat(99)));
    }
}
