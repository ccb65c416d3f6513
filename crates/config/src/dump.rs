//! A tree as text: sorted, and such that reading it gives the tree again.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::diagnose::Diagnostics;
use crate::expand::references;
use crate::keys::matching;
use crate::tree::{Setting, Tree};

/// How a tree is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dump {
    /// As a file of keys: values as they were written.
    Raw,
    /// As a file of keys: values expanded. Keys that were set only for others to refer to, and are
    /// none of the table, are left out.
    Expanded,
    /// As [`Dump::Raw`], each key below a comment that says where it was set.
    Origin,
    /// As one JSON object: keys, and values as they were written.
    Json,
}

impl Dump {
    /// All of them, each with the word for it on a command line.
    pub const ALL: &[(&str, Self)] =
        &[("raw", Self::Raw), ("expanded", Self::Expanded), ("origin", Self::Origin), ("json", Self::Json)];
}

impl Tree {
    /// The tree in the form `form`, without `config.dump`. In place of the value of a secret key,
    /// and of keys that share it through references, is a comment, or a JSON null, unless `secrets`
    /// are asked for. What is wrong with references is not said; [`Tree::expand`] does.
    #[must_use]
    pub fn dump(&self, form: Dump, secrets: bool) -> String {
        let expanded;
        let tree = if form == Dump::Expanded {
            expanded = self.expand(&mut Diagnostics::default());
            &expanded
        } else {
            self
        };
        let secret = if secrets { BTreeSet::new() } else { secret(tree) };
        let mut out = String::new();
        let settings = tree.settings.iter().filter(|(key, _)| *key != "config.dump");
        for (key, setting) in settings {
            let value = Some(setting.raw()).filter(|_| !secret.contains(key.as_str()));
            // Writing to a string does not fail.
            let _ = match (form, value) {
                (Dump::Json, value) => {
                    let value = value.map_or("null".to_owned(), |value| quoted(&value));
                    write!(out, "{}\n  {}: {value}", if out.is_empty() { '{' } else { ',' }, quoted(key))
                }
                (_, None) => writeln!(out, "# {key} is secret"),
                (_, Some(value)) if value.contains(['\n', '\r']) => {
                    writeln!(out, "# {key} has a line break, which no file of keys can say")
                }
                (Dump::Expanded, Some(_)) if tree.referred.contains(key) && is_own(key) => Ok(()),
                (Dump::Raw | Dump::Expanded, Some(value)) => writeln!(out, "{key}={value}"),
                (Dump::Origin, Some(value)) => writeln!(out, "# {}\n{key}={value}", place(key, setting)),
            };
        }
        match form {
            Dump::Json if out.is_empty() => "{}\n".to_owned(),
            Dump::Json => out + "\n}\n",
            Dump::Raw | Dump::Expanded | Dump::Origin => out,
        }
    }
}

/// Whether `key` is there only for others to refer to.
fn is_own(key: &str) -> bool {
    !key.starts_with("var.") && !key.starts_with("engine.") && matching(key).next().is_none()
}

fn place(key: &str, setting: &Setting) -> String {
    match setting.spelt(key) {
        spelt if spelt == key => setting.origin.to_string(),
        spelt => format!("{}, `{spelt}`", setting.origin),
    }
}

/// The keys whose values are not to be shown: secret ones, those they refer to, and those that
/// refer to these and are expanded.
fn secret(tree: &Tree) -> BTreeSet<&str> {
    let is_secret = |key: &&str| matching(key).any(|key| key.secret);
    let mut found: BTreeSet<&str> = tree.settings.keys().map(String::as_str).filter(is_secret).collect();
    if found.is_empty() {
        return found;
    }
    let (mut down, mut up) = (Vec::new(), Vec::new());
    for (from, setting) in &tree.settings {
        let to = references(from, setting).filter_map(|to| tree.settings.get_key_value(&to));
        let first = down.len();
        down.extend(to.map(|(to, _)| (from.as_str(), to.as_str())));
        if setting.is_expanded() {
            up.extend(down[first..].iter().map(|(from, to)| (*to, *from)));
        }
    }
    follow(&mut found, down);
    follow(&mut found, up);
    found
}

/// Adds to `found` all that `edges` lead to from there.
fn follow<'a>(found: &mut BTreeSet<&'a str>, mut edges: Vec<(&'a str, &'a str)>) {
    edges.sort_unstable();
    let mut next: Vec<&str> = found.iter().copied().collect();
    while let Some(key) = next.pop() {
        let first = edges.partition_point(|(from, _)| *from < key);
        let all = edges[first..].iter().take_while(|(from, _)| *from == key);
        next.extend(all.map(|(_, to)| *to).filter(|to| found.insert(to)));
    }
}

/// `text` as a JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::Origin;
    use crate::parse::Source;

    fn read(text: &str) -> Tree {
        Tree::from_sources(&[Source::File { name: "f", bytes: text.as_bytes() }]).0
    }

    #[test]
    fn keys_are_sorted_and_spelt_one_way() {
        let tree = read(
            "name=web\npci.0.4.0.device=virtio-blk\nconfig.dump=1\nlpc.com1.path=pty\nvar.x=%(name)%%\n",
        );
        assert_eq!(
            tree.dump(Dump::Raw, false),
            "console=pty\ndevice.pci-0-4-0.addr=0:4.0\ndevice.pci-0-4-0.model=virtio-blk\nname=web\nvar.x=%(name)%%\n"
        );
        assert!(tree.dump(Dump::Expanded, false).ends_with("\nvar.x=web%%\n"));
        assert!(tree.dump(Dump::Origin, false).starts_with("# f:4:1, `lpc.com1.path`\nconsole=pty\n"));
        let json = read("name=a\"b\\\u{1}\ncpus=2\n").dump(Dump::Json, false);
        assert_eq!(json, "{\n  \"cpus\": \"2\",\n  \"name\": \"a\\\"b\\\\\\u0001\"\n}\n");
        assert_eq!(Tree::default().dump(Dump::Json, false), "{}\n");
    }

    #[test]
    fn an_expanded_dump_needs_none_of_the_keys_it_was_made_from() {
        let tree = read("folder=/vm\nboot.kernel=%(folder)/k\n");
        let dump = tree.dump(Dump::Expanded, false);
        assert_eq!(dump, "boot.kernel=/vm/k\n");
    }

    #[test]
    fn secrets_stay_secret_on_both_sides_of_a_reference() {
        let text = "boot.cmdline=pw=%(var.a)\ndevice.f.model=fbuf\ndevice.f.password=%(var.a)\n\
                    var.a=%(var.b)\nvar.b=hush\nvar.c=c\n";
        let tree = read(text);
        let raw = tree.dump(Dump::Raw, false);
        assert_eq!(
            raw,
            "boot.cmdline=pw=%(var.a)\ndevice.f.model=fbuf\n# device.f.password is secret\n\
             # var.a is secret\n# var.b is secret\nvar.c=c\n"
        );
        for form in [Dump::Expanded, Dump::Origin, Dump::Json] {
            assert!(!tree.dump(form, false).contains("hush"));
        }
        assert!(tree.expand(&mut Diagnostics::default()).dump(Dump::Expanded, true).contains("pw=hush"));
        assert!(!tree.expand(&mut Diagnostics::default()).dump(Dump::Raw, false).contains("hush"));
        assert_eq!(tree.dump(Dump::Raw, true), text);
    }

    #[test]
    fn a_line_break_cannot_set_another_key() {
        let mut tree = Tree::default();
        tree.set("name", "a\ncpus=9", Origin::Argument(1));
        let dump = tree.dump(Dump::Raw, false);
        assert!(dump.lines().all(|line| line.starts_with('#')), "{dump}");
    }

    proptest::proptest! {
        #[test]
        fn the_dump_of_a_dump_is_itself(
            values in proptest::collection::vec(("[ab]", r"([xy ]|%\(var\.[abc]\)|%\(\.b\)|%%|\\%|\\|%|\(|\)){0,4}", proptest::bool::ANY), 0..5),
        ) {
            let mut tree = Tree::default();
            for (n, (key, value, literal)) in values.into_iter().enumerate() {
                let key = format!("var.{key}");
                if literal {
                    tree.set(&key, value, Origin::Argument(n));
                } else {
                    tree.set_raw(&key, value, Origin::Argument(n));
                }
            }
            for form in [Dump::Raw, Dump::Expanded] {
                let dump = tree.dump(form, false);
                let again = read(&dump);
                proptest::prop_assert_eq!(&again.dump(form, false), &dump);
            }
            let mut before = Diagnostics::default();
            let expanded = tree.expand(&mut before);
            proptest::prop_assert_eq!(read(&tree.dump(Dump::Raw, false)), tree.clone());
            if before.errors() == 0 {
                let mut after = Diagnostics::default();
                let again = read(&tree.dump(Dump::Expanded, false)).expand(&mut after);
                proptest::prop_assert_eq!(after.to_string(), "");
                proptest::prop_assert_eq!(again, expanded);
            }
        }
    }
}
