//! What is wrong, where, and what to do about it.
//!
//! ```text
//! error: unknown key `device.disk0.pth`
//!   --> web.conf:7:14
//!    | device.disk0.pth=/vm/web/d.img
//!    |              ^^^
//! hint: did you mean `device.disk0.path`?
//! ```

use std::fmt;

use crate::origin::Origin;
use crate::printable::printable;

/// How many errors, and how many warnings, are kept whole. The rest are only counted, so that the
/// cost of a file full of nonsense is that of reading it.
const MAX_SHOWN: usize = 20;
/// Longest excerpt of a line, in characters.
const MAX_EXCERPT: usize = 100;

const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The machine cannot be what was asked for.
    Error,
    /// It can, but perhaps it is not what was meant.
    Warning,
}

/// One finding: what, where, why, and what to do.
#[derive(Debug, Clone)]
pub struct Diagnostic(Box<Parts>);

#[derive(Debug, Clone, Default)]
struct Parts {
    code: &'static str,
    message: String,
    origin: Option<Origin>,
    excerpt: Option<Excerpt>,
    causes: Vec<String>,
    notes: Vec<String>,
    hint: Option<String>,
}

impl std::error::Error for Diagnostic {}

#[derive(Debug, Clone)]
struct Excerpt {
    text: String,
    /// Characters before the marked ones.
    skip: usize,
    /// Characters that are marked.
    mark: usize,
}

impl Diagnostic {
    /// A finding that says `message`: lower case, no full stop, names in backquotes.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self(Box::new(Parts { message: message.into(), ..Parts::default() }))
    }

    /// Adds what kind of finding it is, a word for programs, which stays the same when messages change.
    #[must_use]
    pub fn code(mut self, code: &'static str) -> Self {
        self.0.code = code;
        self
    }

    /// Adds where it was found.
    #[must_use]
    pub fn at(mut self, origin: Origin) -> Self {
        self.0.origin = Some(origin);
        self
    }

    /// Adds the line it was found in, marking `len` bytes from `start`.
    #[must_use]
    pub fn excerpt(mut self, line: &str, start: usize, len: usize) -> Self {
        let start = start.min(line.len());
        let end = (start + len).min(line.len());
        let (Some(before), Some(marked)) = (line.get(..start), line.get(start..end)) else {
            return self;
        };
        let text = printable(line, MAX_EXCERPT);
        let skip = printable(before, MAX_EXCERPT).chars().count().min(text.chars().count());
        let mark = printable(marked, MAX_EXCERPT).chars().count().min(text.chars().count() - skip);
        self.0.excerpt = Some(Excerpt { text, skip, mark: mark.max(1) });
        self
    }

    /// Adds what came of it: `error`, and what that came of.
    #[must_use]
    pub fn cause(mut self, error: &dyn std::error::Error) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            self.0.causes.push(printable(&error.to_string(), 1000));
            next = error.source();
        }
        self
    }

    /// Adds something to know about it, such as another place.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.0.notes.push(note.into());
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// What kind of finding it is; empty if it has no name.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.0.code
    }

    /// What it says.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Where it was found.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        self.0.origin.as_ref()
    }

    /// How many characters are marked, from its origin on.
    #[must_use]
    pub fn marked(&self) -> Option<usize> {
        self.0.excerpt.as_ref().map(|excerpt| excerpt.mark)
    }

    /// The line that is shown, and what is marked in it.
    pub(crate) fn shown_line(&self) -> Option<(String, String)> {
        let Excerpt { text, skip, mark } = self.0.excerpt.as_ref()?;
        Some((text.clone(), text.chars().skip(*skip).take(*mark).collect()))
    }

    /// What it came of, the nearest first.
    #[must_use]
    pub fn causes(&self) -> &[String] {
        &self.0.causes
    }

    /// What else there is to know.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.0.notes
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The finding as it is said to somebody who knows of one device, called `id`, and no machine:
    /// what is `device.<id>.path` is `path`.
    #[must_use]
    pub fn of_device(mut self, id: &str) -> Self {
        let prefix = format!("device.{id}.");
        let Parts { code: _, message, origin: _, excerpt, causes: _, notes, hint } = &mut *self.0;
        // Nobody wrote that, or it would not be spelt so.
        excerpt.take_if(|excerpt| excerpt.text.starts_with(&prefix));
        for text in std::iter::once(message).chain(notes).chain(hint) {
            *text = text.replace(&prefix, "");
        }
        self
    }

    /// Writes it with the parts that stand out in `colour`, an escape sequence; plain if that is empty.
    fn write(&self, f: &mut fmt::Formatter<'_>, colour: &str) -> fmt::Result {
        let Parts { code: _, message, origin, excerpt, causes, notes, hint } = &*self.0;
        let (bold, plain) = if colour.is_empty() { ("", "") } else { (BOLD, PLAIN) };
        writeln!(f, "{bold}{message}{plain}")?;
        if let Some(origin) = origin {
            writeln!(f, "  --> {origin}")?;
        }
        if let Some(Excerpt { text, skip, mark }) = excerpt {
            writeln!(f, "   | {text}")?;
            writeln!(f, "   | {}{colour}{}{plain}", " ".repeat(*skip), "^".repeat(*mark))?;
        }
        for cause in causes {
            writeln!(f, "{bold}cause{plain}: {cause}")?;
        }
        for note in notes {
            writeln!(f, "{bold}note{plain}: {note}")?;
        }
        if let Some(hint) = hint {
            writeln!(f, "{bold}hint{plain}: {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, "")
    }
}

/// All findings about one tree, in the order they were made.
#[derive(Debug, Clone, Default)]
pub struct Diagnostics {
    shown: Vec<(Severity, Diagnostic)>,
    errors: usize,
    warnings: usize,
}

impl Diagnostics {
    /// Adds what `diagnostic` makes; it is not called when enough of that severity are kept already.
    pub fn add(&mut self, severity: Severity, diagnostic: impl FnOnce() -> Diagnostic) {
        let count = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count <= MAX_SHOWN {
            self.shown.push((severity, diagnostic()));
        }
    }

    /// Adds all of `others`: those that are kept whole as long as there is room, and the number of the rest.
    pub fn append(&mut self, others: &Self) {
        let Self { shown, errors, warnings } = others;
        let (mut errors, mut warnings) = (*errors, *warnings);
        for (severity, diagnostic) in shown {
            match severity {
                Severity::Error => errors -= 1,
                Severity::Warning => warnings -= 1,
            }
            self.add(*severity, || diagnostic.clone());
        }
        self.errors += errors;
        self.warnings += warnings;
    }

    /// The findings, each as [`Diagnostic::of_device`] says it.
    #[must_use]
    pub fn of_device(mut self, id: &str) -> Self {
        for (_, diagnostic) in &mut self.shown {
            *diagnostic = diagnostic.clone().of_device(id);
        }
        self
    }

    /// How many errors were found.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// How many warnings were found.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.warnings
    }

    /// Those that are kept whole, to be changed.
    pub(crate) fn findings(&mut self) -> impl Iterator<Item = &mut Diagnostic> {
        self.shown.iter_mut().map(|(_, diagnostic)| diagnostic)
    }

    /// Those that are kept whole.
    #[must_use]
    pub fn shown(&self) -> &[(Severity, Diagnostic)] {
        &self.shown
    }
}

impl Severity {
    /// The word for it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::Error => "\x1b[1;31m",
            Self::Warning => "\x1b[1;33m",
        }
    }
}

/// The alternate form, `{:#}`, has colours: it is for terminals.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (severity, diagnostic) in &self.shown {
            let (colour, plain) = if f.alternate() { (severity.colour(), PLAIN) } else { ("", "") };
            write!(f, "{colour}{}{plain}: ", severity.label())?;
            diagnostic.write(f, colour)?;
        }
        for (count, what) in [(self.errors, "errors"), (self.warnings, "warnings")] {
            if count > MAX_SHOWN {
                writeln!(f, "{} more {what} are not shown", count - MAX_SHOWN)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let diagnostic = Diagnostic::new("bad").excerpt("a=\u{1b}[31mred\u{7}", 2, 1);
        let text = diagnostic.to_string();
        assert!(text.contains("\\u{1b}[31mred\\u{7}"), "{text}");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn the_alternate_form_has_colours_and_says_the_same() {
        let mut diagnostics = Diagnostics::default();
        let finding = || Diagnostic::new("bad").at(Origin::Argument(1)).excerpt("a=1", 2, 1).hint("2");
        diagnostics.add(Severity::Error, finding);
        diagnostics.add(Severity::Warning, finding);
        let mut coloured = format!("{diagnostics:#}");
        assert!(coloured.starts_with("\x1b[1;31merror\x1b[0m: \x1b[1mbad\x1b[0m\n"), "{coloured:?}");
        for escape in ["\x1b[1;31m", "\x1b[1;33m", BOLD, PLAIN] {
            assert!(coloured.contains(escape));
            coloured = coloured.replace(escape, "");
        }
        assert_eq!(coloured, diagnostics.to_string());
    }

    #[test]
    fn what_is_appended_is_counted_whether_it_is_kept_or_not() {
        let many = |errors: usize| {
            let mut diagnostics = Diagnostics::default();
            for _ in 0..errors {
                diagnostics.add(Severity::Error, || Diagnostic::new("bad"));
            }
            diagnostics.add(Severity::Warning, || Diagnostic::new("odd"));
            diagnostics
        };
        for (first, second) in [(0, 30), (15, 3), (15, 30), (30, 30)] {
            let mut all = many(first);
            all.append(&many(second));
            assert_eq!((all.errors(), all.warnings()), (first + second, 2));
            let kept = all.shown().iter().filter(|(severity, _)| *severity == Severity::Error).count();
            assert_eq!(kept, (first + second).min(MAX_SHOWN), "{first} and {second}");
        }
    }

    #[test]
    fn an_excerpt_is_short_and_its_mark_stays_inside() {
        let line = "x".repeat(5000);
        let text = Diagnostic::new("bad").excerpt(&line, 3000, 4000).to_string();
        assert!(text.lines().all(|line| line.chars().count() < 110), "{text}");
        let text = Diagnostic::new("bad").excerpt("é=1", 1, 1).to_string();
        assert_eq!(text, "bad\n", "an index inside a character marks nothing");
    }
}
