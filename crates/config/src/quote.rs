//! The line that somebody wrote, in place of the key that was made of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::diagnose::{Diagnostic, Diagnostics};
use crate::origin::Origin;

impl Diagnostics {
    /// Shows what stands in the files, in findings about keys that other words were read as: TOML, or
    /// another system's. What was made of the words becomes a note. `read` gives the text of a file by
    /// the name it has in messages, or nothing.
    pub fn quote(&mut self, read: impl Fn(&str) -> Option<String>) {
        let mut texts: BTreeMap<Arc<str>, Option<String>> = BTreeMap::new();
        for diagnostic in self.findings() {
            let Some(Origin::File { name, .. }) = diagnostic.origin() else { continue };
            let name = Arc::clone(name);
            let text = texts.entry(Arc::clone(&name)).or_insert_with(|| read(&name));
            if let Some(text) = text {
                quote(diagnostic, text);
            }
        }
    }
}

fn quote(diagnostic: &mut Diagnostic, text: &str) {
    let Some(Origin::File { name, line, column }) = diagnostic.origin().cloned() else { return };
    let Some((made, marked)) = diagnostic.shown_line() else { return };
    let Some(written) = line.checked_sub(1).and_then(|index| text.lines().nth(index)) else { return };
    if written.contains(made.trim_end_matches('…')) {
        return;
    }
    let Some((start, _)) = written.char_indices().nth(column.saturating_sub(1)) else { return };
    let (start, length) = match written[start..].find(&marked) {
        Some(at) if !marked.is_empty() => (start + at, marked.len()),
        _ => (start, word(&written[start..])),
    };
    let note = format!("this is `{made}`");
    let column = written[..start].chars().count() + 1;
    let found = std::mem::replace(diagnostic, Diagnostic::new(""));
    *diagnostic = found.at(Origin::File { name, line, column }).excerpt(written, start, length).note(note);
}

/// The length of the word or the quoted text that `text` begins with, in bytes.
fn word(text: &str) -> usize {
    let quote = text.chars().next().filter(|c| "\"'".contains(*c));
    match quote {
        Some(quote) => text[1..].find(quote).map_or(text.len(), |end| end + 2),
        None => text.find(|c: char| " \t=,:[]{}<>\"'".contains(c)).unwrap_or(text.len()).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::Severity;

    fn quoted(column: usize, made: &str, start: usize, length: usize, text: &str) -> String {
        let origin = Origin::File { name: "web.toml".into(), line: 2, column };
        let mut diagnostics = Diagnostics::default();
        diagnostics.add(Severity::Error, || Diagnostic::new("bad").at(origin).excerpt(made, start, length));
        diagnostics.quote(|name| (name == "web.toml").then(|| text.to_owned()));
        diagnostics.to_string()
    }

    #[test]
    fn the_words_of_the_file_are_marked() {
        let text = "cpus = 2\ndisk = [{path = \"é\", zoned = \"yes\"}]\n";
        let shown = quoted(22, "device.disk0.zoned=yes", 19, 3, text);
        let expected = "error: bad\n  --> web.toml:2:31\n   | disk = [{path = \"é\", zoned = \"yes\"}]\n   |                               \
                        ^^^\nnote: this is `device.disk0.zoned=yes`\n";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_word_is_marked_where_what_was_made_of_it_is_not_there() {
        let shown = quoted(1, "memory.size=2G", 0, 11, "\nmemory = \"2G\"\n");
        assert!(shown.contains("   | memory = \"2G\"\n   | ^^^^^^\n"), "{shown}");
        let shown = quoted(10, "device.disk0.path=a b", 18, 3, "\ndisk = [ \"a \\u0062\" ]\n");
        assert!(shown.contains("   |          ^^^^^^^^^^\n"), "{shown}");
    }

    #[test]
    fn a_line_that_is_shown_already_stays() {
        let shown = quoted(6, "cpus=x", 5, 1, "\ncpus=x\n");
        assert_eq!(shown, "error: bad\n  --> web.toml:2:6\n   | cpus=x\n   |      ^\n");
    }

    #[test]
    fn a_file_that_has_changed_since_is_not_quoted() {
        for text in ["", "\n", "\n\n", "\nab\n"] {
            let shown = quoted(6, "cpus=x", 5, 1, text);
            assert!(shown.contains("   | cpus=x\n"), "{text:?}: {shown}");
        }
    }
}
