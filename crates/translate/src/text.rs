//! A text file, and the places in it.

use std::ops::Range;
use std::sync::Arc;

use parador_config::{Diagnostic, Diagnostics, Origin, Severity};

/// How many bytes are counted at once for a column.
const BLOCK: usize = 1024;
/// Longest line that is shown whole, in bytes; of a longer one a part is.
const SHOWN: usize = 100;
/// Bytes that are shown before the place in a longer line.
const BEFORE: usize = 40;

/// A file's text. Bytes are counted from its start; lines and columns from 1, columns in
/// characters.
#[derive(Debug)]
pub(crate) struct Text {
    /// All of it.
    pub(crate) text: String,
    /// What messages call it.
    pub(crate) name: Arc<str>,
    /// Where each line starts.
    lines: Vec<usize>,
    /// Characters before each block, so that no file takes time that grows with its square.
    characters: Vec<usize>,
}

impl Text {
    /// The text of `bytes`, which messages call `name`, or what is wrong with them.
    pub(crate) fn new(name: &str, bytes: &[u8]) -> Result<Self, Diagnostics> {
        let (text, bad) = match std::str::from_utf8(bytes) {
            Ok(text) => (text, None),
            Err(e) => {
                let good = std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default();
                (good, Some(bytes[e.valid_up_to()]))
            }
        };
        let mut characters = Vec::with_capacity(text.len() / BLOCK + 1);
        let mut seen = 0;
        for block in text.as_bytes().chunks(BLOCK) {
            characters.push(seen);
            seen += starts(block);
        }
        characters.push(seen);
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let this = Self { text: text.to_owned(), name: name.into(), lines, characters };
        match bad {
            None => Ok(this),
            Some(byte) => Err(one(Diagnostic::new(format!("not UTF-8: byte 0x{byte:02x}"))
                .at(this.origin(text.len()))
                .hint("is this a text file?"))),
        }
    }

    /// The place of byte `at`.
    pub(crate) fn origin(&self, at: usize) -> Origin {
        let line = self.line(at);
        let column = self.before(at) - self.before(self.lines[line]) + 1;
        Origin::File { name: Arc::clone(&self.name), line: line + 1, column }
    }

    /// A finding about the bytes `range`, with their line.
    pub(crate) fn finding(&self, range: &Range<usize>, message: impl Into<String>) -> Diagnostic {
        let line = self.line(range.start);
        let end = self.lines.get(line + 1).map_or(self.text.len(), |next| next - 1);
        let mut start = self.lines[line];
        if end - start > SHOWN {
            start = start.max(range.start.saturating_sub(BEFORE));
            start += (0..4).find(|skip| self.text.is_char_boundary(start + skip)).unwrap_or(0);
        }
        let shown = self.text[start..end].trim_end_matches('\r');
        let at = range.start.saturating_sub(start).min(shown.len());
        let len = range.end.saturating_sub(range.start).clamp(1, (shown.len() - at).max(1));
        Diagnostic::new(message).at(self.origin(range.start)).excerpt(shown, at, len)
    }

    /// The line of byte `at`, from 0.
    fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at) - 1
    }

    /// How many characters start before byte `at`.
    fn before(&self, at: usize) -> usize {
        let at = at.min(self.text.len());
        let block = at / BLOCK;
        self.characters[block] + starts(&self.text.as_bytes()[block * BLOCK..at])
    }
}

/// How many characters start in `bytes`.
fn starts(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| (**byte & 0xC0) != 0x80).count()
}

/// One error, as all that is wrong.
pub(crate) fn one(diagnostic: Diagnostic) -> Diagnostics {
    let mut diagnostics = Diagnostics::default();
    diagnostics.add(Severity::Error, || diagnostic);
    diagnostics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_in_any_block() {
        let line = "é".repeat(3 * BLOCK);
        let text = format!("one\n{line}x\n");
        let text = Text::new("f", text.as_bytes()).unwrap();
        let at = text.text.find('x').unwrap();
        assert_eq!(text.origin(at), Origin::File { name: "f".into(), line: 2, column: 3 * BLOCK + 1 });
        assert_eq!(text.origin(text.text.len()), Origin::File { name: "f".into(), line: 3, column: 1 });
        let shown = text.finding(&(at..at + 1), "here").to_string();
        assert!(shown.lines().all(|line| line.chars().count() < 110), "{shown}");
        assert!(shown.contains("éx\n"), "{shown}");
    }

    #[test]
    fn bytes_that_are_no_text_are_named_with_their_place() {
        let wrong = Text::new("f", b"a=1\nb=\xff\n").unwrap_err().to_string();
        assert_eq!(wrong, "error: not UTF-8: byte 0xff\n  --> f:2:3\nhint: is this a text file?\n");
    }

    proptest::proptest! {
        #[test]
        fn every_place_of_every_text_has_a_finding(text in "(?s).{0,300}", at in 0..2000_usize, len in 0..2000_usize) {
            let text = Text::new("f", text.as_bytes()).unwrap();
            let at = at.min(text.text.len());
            let _ = text.finding(&(at..at + len), "here").to_string();
        }
    }
}
