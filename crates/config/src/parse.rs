//! Reading `key=value`: lines of files, options of a command line.
//!
//! ```text
//! file   = *( blank / "#" any / assign ) NL
//! assign = key "=" value        ; the first "=", the value verbatim to the end of the line
//! key    = seg *( "." seg )
//! seg    = 1*( ALPHA / DIGIT / "_" / "-" )
//! ```

use std::sync::Arc;

use crate::diagnose::{Diagnostic, Diagnostics, Severity, printable};
use crate::tree::{Origin, Tree};

/// Longest key, in bytes.
const MAX_KEY: usize = 255;
/// Longest value, in bytes.
const MAX_VALUE: usize = 64 * 1024;
/// How many keys one tree may hold.
const MAX_KEYS: usize = 65_536;

/// Sets what the file `name` sets.
pub(crate) fn file(tree: &mut Tree, diagnostics: &mut Diagnostics, name: &str, bytes: &[u8]) {
    let name: Arc<str> = name.into();
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => {
            let good = &bytes[..e.valid_up_to()];
            let line = good.iter().filter(|&&b| b == b'\n').count() + 1;
            let start = good.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
            let column = String::from_utf8_lossy(&good[start..]).chars().count() + 1;
            diagnostics.add(Severity::Error, || {
                Diagnostic::new(format!("not UTF-8: byte 0x{:02x}", bytes[e.valid_up_to()]))
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
                .hint("the CR is not taken as part of a value; other readers of this format may differ")
        });
    }
}

/// Sets what one option of the command line sets.
pub(crate) fn option(tree: &mut Tree, diagnostics: &mut Diagnostics, argument: usize, text: &str) {
    assign(tree, diagnostics, text, Origin::Argument(argument));
}

fn assign(tree: &mut Tree, diagnostics: &mut Diagnostics, text: &str, origin: Origin) {
    let Some((written, value)) = text.split_once('=') else {
        diagnostics.add(Severity::Error, || {
            Diagnostic::new("no `=` here").at(origin).excerpt(text, 0, text.len()).hint("write `key=value`")
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
                .at(origin)
                .hint(format!("the longest a value may be is {MAX_VALUE} bytes"))
        });
        return;
    }
    if tree.settings.len() >= MAX_KEYS && tree.setting(written).is_none() {
        diagnostics.add(Severity::Error, || {
            Diagnostic::new(format!("more than {MAX_KEYS} keys")).at(origin.clone())
        });
        return;
    }
    if let Some(old) = tree.set(written, value.to_owned(), origin.clone())
        && same_file(&old.origin, &origin)
    {
        diagnostics.add(Severity::Warning, || {
            Diagnostic::new(format!("`{written}` is already set in this file"))
                .at(origin)
                .excerpt(text, 0, written.len())
                .hint(format!("first set at {}; this one counts", old.origin))
        });
    }
}

/// What is wrong with a key as written, if anything is.
fn wrong_key(key: &str, text: &str, origin: &Origin) -> Option<Diagnostic> {
    if key.len() > MAX_KEY {
        return Some(
            Diagnostic::new(format!("a key of {} bytes", key.len()))
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
                .at(origin.shifted(key[..at].chars().count()))
                .excerpt(text, at, c.len_utf8())
                .hint(hint),
        );
    }
    if key.split('.').any(str::is_empty) {
        return Some(
            Diagnostic::new(if key.is_empty() { "no key before the `=`" } else { "an empty part in a key" })
                .at(origin.clone())
                .excerpt(text, 0, key.len().max(1))
                .hint("write `key=value`, the parts of a key separated by single dots"),
        );
    }
    None
}

fn same_file(a: &Origin, b: &Origin) -> bool {
    match (a, b) {
        (Origin::File { name: a, .. }, Origin::File { name: b, .. }) => Arc::ptr_eq(a, b),
        (Origin::File { .. } | Origin::Argument(_), _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Source;

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
