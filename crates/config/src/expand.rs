//! References: `%(key)` in a value stands for the value of `key`.
//!
//! ```text
//! reference = "%(" key ")"        ; from the root
//!           / "%(." key ")"       ; of the same device, or else beside the key whose value this is
//! percent   = "%%" / "\%"         ; a `%`; any other backslash is itself
//! ```
//!
//! Values are expanded when all sources have been read, each once, so that the cost is that of the
//! text that comes out, which is bounded.

use std::collections::{BTreeMap, BTreeSet};

use crate::alias;
use crate::diagnose::{Diagnostic, Diagnostics, Severity};
use crate::keys::{self, Key, fill, matching};
use crate::nearest::nearest;
use crate::place::{at_part, origin_of_part};
use crate::printable::printable;
use crate::tree::{Setting, Tree};

/// How deep references may nest.
const MAX_DEPTH: usize = 16;
/// Longest value that references may make, in bytes.
pub(crate) const MAX_VALUE: usize = 64 << 10;
/// How many references of one value may be wrong before the others are not looked at.
const MAX_WRONG: usize = 20;
/// The most bytes that all values with references may make.
const MAX_TOTAL: usize = 4 << 20;

impl Tree {
    /// The tree with all references replaced by what they stand for, and what is wrong with them.
    ///
    /// A key that is not set stands for its default; `device.<id>.id` stands for `<id>`. What
    /// cannot be replaced stays as it was written. Expanding an expanded tree changes nothing.
    #[must_use]
    pub fn expand(&self, diagnostics: &mut Diagnostics) -> Self {
        let mut expansion = Expansion {
            tree: self,
            done: BTreeMap::new(),
            path: Vec::new(),
            referred: BTreeSet::new(),
            total: 0,
            diagnostics,
        };
        for (key, setting) in self.in_order() {
            if setting.may_refer() {
                expansion.resolve(key, setting);
            }
        }
        let Expansion { done, referred, .. } = expansion;
        let mut tree = self.clone();
        tree.referred.extend(referred.into_iter().map(str::to_owned));
        for (key, made) in done {
            if let Some(setting) = tree.settings.get_mut(key) {
                setting.expand(made.map(|made| made.text));
            }
        }
        tree
    }
}

/// A piece of a value.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    /// The name between `%(` and `)`.
    Reference(&'a str),
    /// A `%` that begins nothing.
    Lone,
    /// A `%(` without its `)`.
    Open,
}

/// The pieces of `value`, each with the byte it begins at.
fn pieces(value: &str) -> impl Iterator<Item = (usize, Piece<'_>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = value.get(at..).filter(|rest| !rest.is_empty())?;
        let begin = at;
        let (length, piece) = if let Some(body) = rest.strip_prefix("%(") {
            match body.find(')') {
                Some(end) => (end + 3, Piece::Reference(&body[..end])),
                None => (rest.len(), Piece::Open),
            }
        } else if rest.starts_with("%%") || rest.starts_with("\\%") {
            (2, Piece::Text("%"))
        } else if rest.starts_with('%') {
            (1, Piece::Lone)
        } else {
            let end = rest.find('%').map_or(rest.len(), |end| end - usize::from(rest[..end].ends_with('\\')));
            (end, Piece::Text(&rest[..end]))
        };
        at += length;
        Some((begin, piece))
    })
}

/// The key that the name in a reference stands for, in the value of a key that was spelt `from`.
fn target(name: &str, from: &str) -> String {
    let Some(beside) = name.strip_prefix('.') else { return alias::canonical(name).into_owned() };
    let device = if from.starts_with("device.") {
        from.match_indices('.').nth(1).map(|(at, _)| at)
    } else {
        alias::pci(from).map(|(_, field)| from.len() - field.len())
    };
    let folder = device.or_else(|| from.rfind('.')).map_or("", |end| &from[..=end]);
    alias::canonical(&format!("{folder}{beside}")).into_owned()
}

/// The keys that the value of `key` refers to, or did before it was expanded.
pub(crate) fn references(key: &str, setting: &Setting) -> impl Iterator<Item = String> {
    pieces(setting.reference_text()).filter_map(move |(_, piece)| match piece {
        Piece::Reference(name) => Some(target(name, setting.spelt(key))),
        Piece::Text(_) | Piece::Lone | Piece::Open => None,
    })
}

/// What a value is when it is expanded.
#[derive(Default)]
struct Made<'a> {
    text: String,
    /// How deep references nest in it: 1 if what it refers to has none.
    depth: usize,
    /// The key that is referred to where they nest deepest.
    deepest: Option<&'a str>,
}

struct Expansion<'a, 'b> {
    tree: &'a Tree,
    /// What was expanded; `None` where that failed, which has been reported.
    done: BTreeMap<&'a str, Option<Made<'a>>>,
    /// The keys that are being expanded, each for the one before it.
    path: Vec<(&'a str, &'a Setting)>,
    /// The keys that are referred to.
    referred: BTreeSet<&'a str>,
    /// Bytes that were made, be it in vain.
    total: usize,
    diagnostics: &'b mut Diagnostics,
}

impl<'a> Expansion<'a, '_> {
    /// Expands the value of `key` into `done`.
    fn resolve(&mut self, key: &'a str, setting: &'a Setting) {
        if self.done.contains_key(key) {
            return;
        }
        self.path.push((key, setting));
        let made = self.make(key, setting);
        self.path.pop();
        // Whoever found a circle, or a chain that is too long, has failed all of it.
        self.done.entry(key).or_insert(made);
    }

    /// The value of `key`, which is the last of `path`.
    fn make(&mut self, key: &'a str, setting: &'a Setting) -> Option<Made<'a>> {
        let mut made = Made::default();
        let mut wrong = 0;
        for (at, piece) in pieces(&setting.value) {
            if wrong == MAX_WRONG || self.total > MAX_TOTAL {
                return None;
            }
            match piece {
                Piece::Text(text) => made.text.push_str(text),
                Piece::Lone => {
                    made.text.push('%');
                    self.diagnostics.add(Severity::Warning, || {
                        let message = format!("a `%` without a key in the value of `{}`", setting.spelt(key));
                        at_part(Diagnostic::new(message).code("reference"), key, setting, at, 1)
                            .hint("it is taken as it is; write `%%` to mean that")
                    });
                }
                Piece::Open => wrong += self.malformed(at, 2, "`%(` without `)`"),
                Piece::Reference("") => wrong += self.malformed(at, 3, "no key between `%(` and `)`"),
                Piece::Reference(name) => wrong += usize::from(self.refer(&mut made, at, name).is_none()),
            }
            let total = self.total + made.text.len();
            if made.text.len() > MAX_VALUE || total > MAX_TOTAL {
                self.too_large(at, made.text.len() > MAX_VALUE);
                self.total = total;
                return None;
            }
        }
        self.total += made.text.len();
        (wrong == 0).then_some(made)
    }

    /// Appends what the reference `name`, at byte `at` of the last of `path`, stands for. `None` if
    /// it stands for nothing, which has been reported.
    fn refer(&mut self, made: &mut Made<'a>, at: usize, name: &str) -> Option<()> {
        let (from, setting) = *self.path.last()?;
        let key = target(name, setting.spelt(from));
        let Some((key, setting)) = self.tree.settings.get_key_value(&key) else {
            let text = self.unset(&key);
            if text.is_none() {
                self.unknown(at, name, &key);
            }
            made.text.push_str(&text?);
            return Some(());
        };
        self.referred.insert(key);
        let (text, depth) = if setting.may_refer() {
            if !self.done.contains_key(key.as_str()) {
                if let Some(first) = self.path.iter().position(|(other, _)| other == key) {
                    self.fail(&format!("`{key}` refers to itself"), first, key, "break the circle");
                    return None;
                }
                if self.path.len() > MAX_DEPTH {
                    self.too_deep(0, key);
                    return None;
                }
                self.resolve(key, setting);
            }
            let found = self.done.get(key.as_str())?.as_ref()?;
            (&found.text, found.depth + 1)
        } else {
            (&setting.value, 1)
        };
        made.text.push_str(text);
        if depth > made.depth {
            (made.depth, made.deepest) = (depth, Some(key.as_str()));
        }
        if depth > MAX_DEPTH {
            let last = self.path.len() - 1;
            self.too_deep(last, key);
            return None;
        }
        (!setting.is_broken()).then_some(())
    }

    fn too_deep(&mut self, first: usize, next: &'a str) {
        let message = format!("references nest deeper than {MAX_DEPTH}, from `{}`", self.path[first].0);
        self.fail(&message, first, next, "refer to the last of them directly");
    }

    /// What stands for a key that is not set.
    fn unset(&self, key: &str) -> Option<String> {
        let device = key.strip_prefix("device.").and_then(|rest| rest.split_once('.'));
        let of = |id: &str| format!("device.{id}.");
        if let Some((id, "id")) = device {
            let prefix = of(id);
            let first = self.tree.settings.range(prefix.clone()..).next();
            return first.is_some_and(|(key, _)| key.starts_with(&prefix)).then(|| id.to_owned());
        }
        let model = device.and_then(|(id, _)| self.tree.settings.get(&(of(id) + "model")));
        let applies = |known: &Key| {
            known.models.is_empty() || model.is_some_and(|model| known.models.contains(&model.value))
        };
        matching(key).find(applies)?.default.map(str::to_owned)
    }

    /// Reports a malformed reference, and counts it.
    fn malformed(&mut self, at: usize, len: usize, message: &str) -> usize {
        let Some((key, setting)) = self.path.last() else { return 0 };
        self.diagnostics.add(Severity::Error, || {
            at_part(Diagnostic::new(message).code("reference"), key, setting, at, len)
                .hint("write `%(key)` for the value of a key, `%%` for a `%`")
        });
        1
    }

    fn unknown(&mut self, at: usize, name: &str, key: &str) {
        let Some((from, setting)) = self.path.last() else { return };
        self.diagnostics.add(Severity::Error, || {
            let known = matching(key).next().is_some();
            let what = if known { "it is not set and has no default" } else { "there is no such key" };
            let set = self.tree.settings.keys().cloned();
            let others = set.chain(keys::all().filter_map(|known| fill(known.pattern, key)));
            let meant = nearest(key, others.filter(|other| other != from && !known));
            let hint = match meant {
                Some(meant) => format!("did you mean `%({meant})`?"),
                None => "set it; names of your own start with `var.`".to_owned(),
            };
            let message = format!("`{}` is referred to, but {what}", printable(key, 80));
            let diagnostic =
                at_part(Diagnostic::new(message).code("reference"), from, setting, at, name.len() + 3);
            chained(diagnostic, &self.path, None).hint(hint)
        });
    }

    fn too_large(&mut self, at: usize, one: bool) {
        let Some((key, setting)) = self.path.last() else { return };
        self.diagnostics.add(Severity::Error, || {
            let message = if one {
                format!("the value of `{}` expands to more than {MAX_VALUE} bytes", setting.spelt(key))
            } else {
                format!("all values together expand to more than {MAX_TOTAL} bytes")
            };
            let diagnostic = at_part(Diagnostic::new(message).code("reference"), key, setting, at, 1);
            chained(diagnostic, &self.path, None).hint("does a value repeat one that repeats others?")
        });
    }

    /// Reports what is wrong with the chain of references that starts at `path[first]` and goes on
    /// to `next`, and fails all of `path` from there on.
    fn fail(&mut self, message: &str, first: usize, next: &'a str, hint: &str) {
        let chain = &self.path[first..];
        self.diagnostics.add(Severity::Error, || {
            let mut chain = chain.to_vec();
            let mut end = next;
            while let Some(Some(made)) = self.done.get(end)
                && let Some(deeper) = made.deepest
            {
                chain.extend(self.tree.settings.get(end).map(|setting| (end, setting)));
                end = deeper;
            }
            let (key, setting) = chain[0];
            let to = chain.get(1).map_or(end, |(key, _)| *key);
            let (at, len) = reference(key, setting, to);
            let diagnostic = at_part(Diagnostic::new(message).code("reference"), key, setting, at, len);
            chained(diagnostic, &chain, Some(end)).hint(hint)
        });
        self.done.extend(self.path[first..].iter().map(|(key, _)| (*key, None)));
    }
}

/// Where in the value of `key` the first reference to `to` is, and its length.
fn reference(key: &str, setting: &Setting, to: &str) -> (usize, usize) {
    pieces(&setting.value)
        .find_map(|(at, piece)| match piece {
            Piece::Reference(name) if target(name, setting.spelt(key)) == to => Some((at, name.len() + 3)),
            Piece::Reference(_) | Piece::Text(_) | Piece::Lone | Piece::Open => None,
        })
        .unwrap_or_default()
}

/// Adds who refers to whom, along `chain` and from its last to `end`.
fn chained(mut diagnostic: Diagnostic, chain: &[(&str, &Setting)], end: Option<&str>) -> Diagnostic {
    let next = chain.iter().skip(1).map(|(key, _)| *key).chain(end);
    for ((key, setting), to) in chain.iter().zip(next) {
        let (at, _) = reference(key, setting, to);
        let origin = origin_of_part(key, setting, at);
        diagnostic = diagnostic.note(format!("`{key}` refers to `{to}` at {origin}"));
    }
    diagnostic
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::Origin;
    use crate::parse::Source;

    fn expanded(text: &str) -> (Tree, String) {
        let (tree, mut diagnostics) =
            Tree::from_sources(&[Source::File { name: "f", bytes: text.as_bytes() }]);
        let tree = tree.expand(&mut diagnostics);
        (tree, diagnostics.to_string())
    }

    #[track_caller]
    fn becomes(text: &str, key: &str, value: &str) {
        let (tree, diagnostics) = expanded(text);
        assert_eq!(diagnostics, "");
        assert_eq!(tree.setting(key).unwrap().value, value);
    }

    #[test]
    fn a_reference_stands_for_a_value_however_deep() {
        becomes("var.c=%(var.b)%(name)\nvar.b=<%(var.a)>\nvar.a=x\nname=web\n", "var.c", "<x>web");
        becomes(
            "device.d.model=virtio-blk\ndevice.d.ser=%(.id)\ndevice.d.path=/%(.ser).img\n",
            "device.d.path",
            "/d.img",
        );
        becomes("device.n.tap.name=%(.id)\n", "device.n.tap.name", "n");
        becomes("pci.0.4.0.port.0.path=%(.device)\npci.0.4.0.device=x\n", "pci.0.4.0.port.0.path", "x");
        becomes("memory.size=1G\nvar.x=%(cpus.x)\ncpus.x=%(.size)\ncpus.size=2\n", "var.x", "2");
    }

    #[test]
    fn what_is_not_set_has_its_default() {
        becomes("var.x=%(name) %(memory.size)", "var.x", "parador 256M");
        becomes("device.d.model=virtio-blk\nvar.x=%(device.d.aio)", "var.x", "io_uring");
        let (_, diagnostics) = expanded("device.d.model=virtio-net\nvar.x=%(device.d.aio)");
        assert!(
            diagnostics
                .starts_with("error: `device.d.aio` is referred to, but it is not set and has no default\n"),
            "{diagnostics}"
        );
    }

    #[test]
    fn references_may_be_spelt_like_keys() {
        becomes(
            "pci.0.4.0.device=virtio-blk\npci.0.4.0.path=/a\nvar.x=%(device.pci-0-4-0.path)",
            "var.x",
            "/a",
        );
        becomes("device.pci-0-4-0.path=/a\nvar.x=%(pci.0.4.0.path)", "var.x", "/a");
        becomes("pci.0.4.0.path=/a\npci.0.4.0.ser=%(.path)", "device.pci-0-4-0.ser", "/a");
        becomes("console=pty\nvar.x=%(lpc.com1.path)", "var.x", "pty");
    }

    #[test]
    fn a_percent_sign_is_written_twice_or_behind_a_backslash() {
        becomes("var.x=100%% \\%(name) %%(name) C:\\ \\\\%", "var.x", "100% %(name) %(name) C:\\ \\%");
        let (tree, diagnostics) = expanded("var.x=%Y\nvar.y=%(var.x)%");
        assert_eq!(tree.setting("var.y").unwrap().value, "%Y%");
        assert_eq!(diagnostics.matches("warning: a `%` without a key").count(), 2, "{diagnostics}");
    }

    #[test]
    fn sixteen_deep_and_no_deeper() {
        let chain = |depth: usize| -> String {
            let links = (0..depth).map(|n| format!("var.k{n}=%(var.k{})\n", n + 1));
            links.chain([format!("var.k{depth}=x\n")]).collect()
        };
        let backwards =
            |text: &str| -> String { text.lines().rev().map(|line| format!("{line}\n")).collect() };
        for text in [chain(16), backwards(&chain(16))] {
            becomes(&text, "var.k0", "x");
        }
        for text in [chain(17), backwards(&chain(17))] {
            let (_, diagnostics) = expanded(&text);
            assert!(
                diagnostics.starts_with("error: references nest deeper than 16, from `var.k0`"),
                "{diagnostics}"
            );
            assert_eq!(diagnostics.matches("note:").count(), 17, "{diagnostics}");
        }
        let (_, diagnostics) = expanded(&chain(10_000));
        assert!(diagnostics.contains("nest deeper"), "{diagnostics}");
    }

    #[test]
    fn what_grows_without_bound_is_an_error() {
        let laughs: String = (0..30)
            .map(|n| format!("var.l{n}={}\n", format!("%(var.l{})", n + 1).repeat(10)))
            .chain(["var.l15=lol\n".to_owned()])
            .collect();
        let laughs: String = laughs
            .lines()
            .filter(|line| !line.starts_with("var.l15=%"))
            .map(|line| format!("{line}\n"))
            .collect();
        let (_, diagnostics) = expanded(&laughs);
        assert!(diagnostics.contains("expands to more than 65536 bytes"), "{diagnostics}");
        let wide: String = (0..1000).map(|n| format!("var.w{n}=%(var.base)\n")).collect();
        let (_, diagnostics) = expanded(&format!("var.base={}\n{wide}", "x".repeat(65_000)));
        assert!(diagnostics.contains("all values together expand to more than"), "{diagnostics}");
    }

    #[test]
    fn a_value_full_of_mistakes_costs_no_more_than_some() {
        let (tree, mut diagnostics) = Tree::from_sources(&[Source::File {
            name: "f",
            bytes: format!("var.x={}", "%(nam)".repeat(9000)).as_bytes(),
        }]);
        let _ = tree.expand(&mut diagnostics);
        assert_eq!(diagnostics.errors(), MAX_WRONG);
    }

    #[test]
    fn an_expanded_tree_stays_as_it_is() {
        let (tree, _) = expanded("var.x=%%(name)");
        let mut diagnostics = Diagnostics::default();
        assert_eq!(tree.expand(&mut diagnostics), tree);
        assert_eq!(tree.setting("var.x").unwrap().raw(), "%%(name)");
    }

    proptest::proptest! {
        #[test]
        fn any_text_can_be_written(text in "[a%\\\\()]{0,12}") {
            let mut tree = Tree::default();
            tree.set("var.x", text.as_str(), Origin::Argument(1));
            becomes(&format!("var.x={}", tree.setting("var.x").unwrap().raw()), "var.x", &text);
        }
    }
}
