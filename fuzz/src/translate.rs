//! Files and command lines of every format that nobody meant.
//!
//! Shared by the fuzz target and by a replay among the tests of the crate.

use parador_config::Diagnostics;
use parador_translate::{Format, Input, Output, export, import};

/// What is read in one input, in bytes; more only repeats itself.
const MAX: usize = 64 << 10;

/// Reads the bytes after the first two, which say the format and whether they are words, and writes
/// what comes of them in every format; says whether they could be read.
///
/// # Panics
///
/// The translation does, or it cannot read what it has written itself.
pub fn exercise(bytes: &[u8]) -> bool {
    let [format, words, bytes @ ..] = bytes else { return false };
    let format = Format::ALL[usize::from(*format) % Format::ALL.len()];
    let bytes = &bytes[..bytes.len().min(MAX)];
    let read = if words % 2 == 0 {
        import(format, Input::Text { name: "input", bytes })
    } else {
        let text = String::from_utf8_lossy(bytes);
        let words: Vec<String> = text.split('\n').map(str::to_owned).collect();
        import(format, Input::Arguments { first: 1, words: &words })
    };
    let tree = match read {
        Ok(imported) => imported.tree,
        Err(wrong) => {
            assert!(wrong.errors() > 0, "refused without a reason");
            return false;
        }
    };
    let mut wrong = Diagnostics::default();
    let tree = tree.expand(&mut wrong);
    let _ = tree.check(&mut wrong);
    for other in Format::ALL {
        let Ok(exported) = export(*other, &tree) else { continue };
        if *other != format || wrong.errors() > 0 {
            continue;
        }
        let again = match &exported.output {
            Output::Text(text) => import(format, Input::Text { name: "again", bytes: text.as_bytes() }),
            Output::Arguments(words) => import(format, Input::Arguments { first: 1, words: &words[1..] }),
        };
        assert!(
            again.is_ok(),
            "{}\n{}",
            exported.output,
            again.map_or_else(|e| e.to_string(), |_| String::new())
        );
    }
    true
}
