//! Reading `key=value`: lines of files, options of a command line.
//!
//! ```text
//! file   = *( blank / "#" any / assign ) NL
//! assign = key "=" value        ; the first "=", the value verbatim to the end of the line
//! key    = seg *( "." seg )
//! seg    = 1*( ALPHA / DIGIT / "_" / "-" )
//! ```

use std::sync::Arc;

use crate::alias;
use crate::diagnose::{Diagnostic, Diagnostics, Severity};
use crate::expand;
use crate::nearest::nearest;
use crate::origin::Origin;
use crate::printable::printable;
use crate::tree::Tree;

/// Something that sets keys.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// A file of `key=value` lines.
    File {
        /// What messages call it.
        name: &'a str,
        /// All of it.
        bytes: &'a [u8],
    },
    /// A file that has been read already.
    Tree(&'a Tree),
    /// One `key=value` of a command line.
    Option {
        /// Which argument it is, for messages; the program's name is number 0.
        argument: usize,
        /// The text of it.
        text: &'a str,
    },
    /// A key of a command line that is taken away, with all below it.
    Unset {
        /// Which argument it is.
        argument: usize,
        /// The key.
        key: &'a str,
    },
    /// The machine's name, as the one positional argument of a command line.
    Name {
        /// Which argument it is.
        argument: usize,
        /// The name.
        text: &'a str,
    },
}

/// Longest key, in bytes.
const MAX_KEY: usize = 255;
/// Longest value, in bytes: twice what references may make, as all of that may have to be escaped.
const MAX_VALUE: usize = 2 * expand::MAX_VALUE;
/// How many keys one tree may hold.
const MAX_KEYS: usize = 65_536;

impl Tree {
    /// A tree of what `sources` set, and what is wrong with how they are written.
    ///
    /// Files come first, in order, then options and what is unset in order, then the name: whatever
    /// comes later wins, wherever it stands in `sources`.
    #[must_use]
    pub fn from_sources(sources: &[Source<'_>]) -> (Self, Diagnostics) {
        let mut tree = Self::default();
        let mut diagnostics = Diagnostics::default();
        let mut sorted: Vec<&Source<'_>> = sources.iter().collect();
        sorted.sort_by_key(|source| match source {
            Source::File { .. } | Source::Tree(_) => 0,
            Source::Option { .. } | Source::Unset { .. } => 1,
            Source::Name { .. } => 2,
        });
        for source in sorted {
            match *source {
                Source::File { name, bytes } => file(&mut tree, &mut diagnostics, name, bytes),
                Source::Tree(read) => {
                    for (key, setting) in read.in_order() {
                        tree.adopt(key, setting.clone());
                    }
                }
                Source::Option { argument, text } => {
                    assign(&mut tree, &mut diagnostics, text, Origin::Argument(argument));
                }
                Source::Unset { argument, key } => unset(&mut tree, &mut diagnostics, argument, key),
                Source::Name { argument, text } => drop(tree.set("name", text, Origin::Argument(argument))),
            }
        }
        (tree, diagnostics)
    }
}

/// Sets what the file `name` sets.
fn file(tree: &mut Tree, diagnostics: &mut Diagnostics, name: &str, bytes: &[u8]) {
    let name: Arc<str> = name.into();
    let bytes = match bytes.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => {
            diagnostics.add(Severity::Warning, || {
                Diagnostic::new(format!("{} begins with a byte order mark", printable(&name, 200)))
                    .code("syntax")
                    .hint("it is skipped; save the file as UTF-8 without one")
            });
            rest
        }
        None => bytes,
    };
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => {
            let good = &bytes[..e.valid_up_to()];
            let line = good.iter().filter(|&&b| b == b'\n').count() + 1;
            let start = good.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
            let column = String::from_utf8_lossy(&good[start..]).chars().count() + 1;
            diagnostics.add(Severity::Error, || {
                Diagnostic::new(format!("not UTF-8: byte 0x{:02x}", bytes[e.valid_up_to()]))
                    .code("syntax")
                    .at(Origin::File { name: Arc::clone(&name), line, column })
                    .hint("is this a text file of `key=value` lines?")
            });
            return;
        }
    };
    let mut returns = false;
    for (index, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').map_or(line, |line| {
            returns = true;
            line
        });
        let body = line.trim_start_matches([' ', '\t']);
        if body.is_empty() || body.starts_with('#') {
            continue;
        }
        let column = line.len() - body.len() + 1;
        let origin = Origin::File { name: Arc::clone(&name), line: index + 1, column };
        assign(tree, diagnostics, body, origin);
    }
    if returns {
        diagnostics.add(Severity::Warning, || {
            Diagnostic::new(format!("{} has lines that end in CR LF", printable(&name, 200)))
                .code("syntax")
                .hint("the CR is not taken as part of a value; other readers of this format may differ")
        });
    }
}

/// Takes away what `key` of the command line names.
fn unset(tree: &mut Tree, diagnostics: &mut Diagnostics, argument: usize, key: &str) {
    if tree.unset(key) > 0 {
        return;
    }
    diagnostics.add(Severity::Warning, || {
        let message = format!("nothing is set at or below `{}`", printable(key, 80));
        let diagnostic = Diagnostic::new(message).code("syntax").at(Origin::Argument(argument));
        match nearest(&alias::canonical(key), tree.settings.keys()) {
            Some(meant) => diagnostic.hint(format!("did you mean `{meant}`?")),
            None => diagnostic.hint("it takes away what files and the options before it set"),
        }
    });
}

fn assign(tree: &mut Tree, diagnostics: &mut Diagnostics, text: &str, origin: Origin) {
    let Some((written, value)) = text.split_once('=') else {
        diagnostics.add(Severity::Error, || {
            Diagnostic::new("no `=` here")
                .code("syntax")
                .at(origin)
                .excerpt(text, 0, text.len())
                .hint("write `key=value`")
        });
        return;
    };
    if let Some(diagnostic) = wrong_key(written, text, &origin) {
        diagnostics.add(Severity::Error, || diagnostic);
        return;
    }
    if value.len() > MAX_VALUE {
        diagnostics.add(Severity::Error, || {
            Diagnostic::new(format!("the value of `{written}` has {} bytes", value.len()))
                .code("syntax")
                .at(origin)
                .hint(format!("the longest a value may be is {MAX_VALUE} bytes"))
        });
        return;
    }
    if tree.settings.len() >= MAX_KEYS && tree.setting(written).is_none() {
        diagnostics.add(Severity::Error, || {
            Diagnostic::new(format!("more than {MAX_KEYS} keys")).code("syntax").at(origin.clone())
        });
        return;
    }
    if let Some(old) = tree.assign(written, value, origin.clone())
        && old.origin.same_file(&origin)
    {
        diagnostics.add(Severity::Warning, || {
            Diagnostic::new(format!("`{written}` is already set in this file"))
                .code("set-twice")
                .at(origin)
                .excerpt(text, 0, written.len())
                .hint(match old.spelt(&alias::canonical(written)) {
                    other if other == written => format!("first set at {}; this one counts", old.origin),
                    other => format!("first set at {} as `{other}`; this one counts", old.origin),
                })
        });
    }
}

/// What is wrong with a key as written, if anything is.
fn wrong_key(key: &str, text: &str, origin: &Origin) -> Option<Diagnostic> {
    if key.len() > MAX_KEY {
        return Some(
            Diagnostic::new(format!("a key of {} bytes", key.len()))
                .code("syntax")
                .at(origin.clone())
                .excerpt(text, 0, 1)
                .hint(format!("the longest a key may be is {MAX_KEY} bytes")),
        );
    }
    let bad = key.char_indices().find(|(_, c)| !(c.is_ascii_alphanumeric() || "_-.".contains(*c)));
    if let Some((at, c)) = bad {
        let message = if c == ' ' || c == '\t' {
            "a blank in a key".to_owned()
        } else {
            format!("`{}` in a key", c.escape_debug())
        };
        let hint = if key.trim().len() < key.len() {
            "write `key=value` without blanks around the `=`"
        } else {
            "keys are letters, digits, `_` and `-`, separated by `.`"
        };
        return Some(
            Diagnostic::new(message)
                .code("syntax")
                .at(origin.shifted(key[..at].chars().count()))
                .excerpt(text, at, c.len_utf8())
                .hint(hint),
        );
    }
    if key.split('.').any(str::is_empty) {
        return Some(
            Diagnostic::new(if key.is_empty() { "no key before the `=`" } else { "an empty part in a key" })
                .code("syntax")
                .at(origin.clone())
                .excerpt(text, 0, key.len().max(1))
                .hint("write `key=value`, the parts of a key separated by single dots"),
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> (Tree, Diagnostics) {
        Tree::from_sources(&[Source::File { name: "f", bytes }])
    }

    #[test]
    fn a_value_is_verbatim_after_the_first_equals_sign() {
        let (tree, diagnostics) =
            read(b"# a comment\n\n  # another\n\tboot.cmdline=root=/dev/vda # quiet\nvar.x=");
        assert_eq!(diagnostics.to_string(), "");
        let cmdline = tree.setting("boot.cmdline").unwrap();
        assert_eq!(cmdline.value, "root=/dev/vda # quiet");
        assert_eq!(cmdline.origin, Origin::File { name: "f".into(), line: 4, column: 2 });
        assert_eq!(tree.setting("var.x").unwrap().value, "");
    }

    #[test]
    fn a_line_of_a_megabyte_is_an_error_that_does_not_repeat_it() {
        let mut line = b"boot.cmdline=".to_vec();
        line.resize(1 << 20, b'x');
        let (tree, diagnostics) = read(&line);
        assert_eq!((diagnostics.errors(), tree.settings.len()), (1, 0));
        assert!(diagnostics.to_string().len() < 300, "{diagnostics}");
        let key = vec![b'k'; 1 << 20];
        let (_, diagnostics) = read(&key);
        assert_eq!(diagnostics.errors(), 1);
        assert!(diagnostics.to_string().len() < 300, "{diagnostics}");
    }

    #[test]
    fn ten_thousand_unknown_keys_are_counted_and_a_few_are_shown() {
        let text: String = (0..10_000).map(|n| format!("unknown.key{n}=1\n")).collect();
        let (tree, mut diagnostics) = read(text.as_bytes());
        assert_eq!(tree.settings.len(), 10_000);
        let _ = tree.check(&mut diagnostics);
        assert_eq!(diagnostics.errors(), 10_000);
        assert!(diagnostics.shown().len() <= 20, "the cost of a hint is paid for those shown only");
        assert!(diagnostics.to_string().ends_with("9980 more errors are not shown\n"), "{diagnostics}");
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        for bytes in [&b"\xff\xfe\0"[..], b"a=\0\n", b"\n\n=\n", b"a..b=1\n.=1\n", "ключ=1\n".as_bytes()]
        {
            let (tree, mut diagnostics) = read(bytes);
            let _ = tree.check(&mut diagnostics);
            assert!(diagnostics.errors() > 0, "{bytes:?}");
        }
    }

    #[test]
    fn the_command_line_wins_over_files_and_the_name_over_all() {
        let (tree, diagnostics) = Tree::from_sources(&[
            Source::Name { argument: 5, text: "web" },
            Source::Option { argument: 2, text: "cpus=3" },
            Source::Option { argument: 4, text: "name=other" },
            Source::File { name: "a", bytes: b"cpus=1\nname=a\n" },
            Source::File { name: "b", bytes: b"cpus=2\nmemory.size=1G" },
        ]);
        assert_eq!(diagnostics.to_string(), "");
        assert_eq!(tree.setting("cpus").unwrap().value, "3");
        assert_eq!(tree.setting("name").unwrap().value, "web");
        assert_eq!(tree.setting("name").unwrap().origin, Origin::Argument(5));
        assert_eq!(
            tree.setting("memory.size").unwrap().origin,
            Origin::File { name: "b".into(), line: 2, column: 1 }
        );
        assert_eq!(tree.in_order()[0].0, "cpus", "a key keeps the rank of its first mention");
    }

    #[test]
    fn what_is_unset_is_gone_with_all_below_it() {
        let (tree, diagnostics) = Tree::from_sources(&[
            Source::Option { argument: 1, text: "device.disk0.ro=true" },
            Source::Unset { argument: 2, key: "device.disk0" },
            Source::Option { argument: 3, text: "device.disk0.path=/b" },
            Source::Unset { argument: 4, key: "pci.0.4.0.device" },
            Source::File {
                name: "f",
                bytes: b"device.disk0.path=/a\ndevice.disk01.path=/c\npci.0.4.0.device=x\n",
            },
        ]);
        assert_eq!(diagnostics.to_string(), "");
        let left: Vec<&str> = tree.settings.keys().map(String::as_str).collect();
        assert_eq!(left, ["device.disk0.path", "device.disk01.path"]);
        assert_eq!(tree.setting("device.disk0.path").unwrap().value, "/b");
    }

    #[test]
    fn a_byte_order_mark_is_skipped_with_a_warning() {
        let (tree, diagnostics) = read(b"\xef\xbb\xbfcpus=1\n");
        assert_eq!((diagnostics.errors(), diagnostics.warnings()), (0, 1));
        assert_eq!(
            tree.setting("cpus").unwrap().origin,
            Origin::File { name: "f".into(), line: 1, column: 1 }
        );
    }

    proptest::proptest! {
        #[test]
        fn every_line_is_read_or_reported(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let (tree, mut diagnostics) = read(&bytes);
            let _ = tree.check(&mut diagnostics);
            let _ = diagnostics.to_string();
        }

        #[test]
        fn what_was_set_is_found(key in "[a-z0-9_-]{1,8}(\\.[a-z0-9_-]{1,8}){0,3}", value in "[ -~]{0,40}") {
            let (tree, _) = read(format!("var.{key}={value}\n").as_bytes());
            proptest::prop_assert_eq!(&tree.setting(&format!("var.{key}")).unwrap().value, &value);
        }
    }
}
