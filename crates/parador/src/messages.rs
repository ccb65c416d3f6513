//! How findings are told: to people, or to editors.

use std::ffi::OsStr;
use std::io::IsTerminal;

use parador_config::{Diagnostic, Diagnostics, Origin, Severity};
use serde_json::json;

use crate::sources;

/// A way to write findings to standard error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Messages {
    /// Text, in colour on a terminal unless `NO_COLOR` is set.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Messages {
    /// Writes `diagnostics`, with lines of the files they are about.
    pub(crate) fn show(self, diagnostics: &Diagnostics) {
        let mut diagnostics = diagnostics.clone();
        diagnostics.quote(text_of);
        match self {
            Self::Text if colour(&std::io::stderr()) => eprint!("{diagnostics:#}"),
            Self::Text => eprint!("{diagnostics}"),
            Self::Json => {
                for (severity, diagnostic) in diagnostics.shown() {
                    eprintln!("{}", object(*severity, diagnostic));
                }
            }
        }
    }

    /// Writes one error.
    pub(crate) fn show_error(self, diagnostic: Diagnostic) {
        let mut diagnostics = Diagnostics::default();
        diagnostics.add(Severity::Error, || diagnostic);
        self.show(&diagnostics);
    }
}

/// What the file called `name` has now. A pipe has been read, and to open it again may take for ever.
fn text_of(name: &str) -> Option<String> {
    if !std::fs::metadata(name).ok()?.is_file() {
        return None;
    }
    String::from_utf8(sources::open(OsStr::new(name)).ok()?).ok()
}

/// Whether what is written to `stream` is in colour.
pub(crate) fn colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// `diagnostic` for a program. Lines and columns count from 1, columns and lengths are in characters.
fn object(severity: Severity, diagnostic: &Diagnostic) -> serde_json::Value {
    let mut object = json!({
        "severity": severity.label(),
        "message": diagnostic.message(),
    });
    if !diagnostic.kind().is_empty() {
        object["code"] = json!(diagnostic.kind());
    }
    match diagnostic.origin() {
        Some(Origin::File { name, line, column }) => {
            object["file"] = json!(**name);
            object["line"] = json!(line);
            object["column"] = json!(column);
        }
        Some(Origin::Argument(number)) => object["argument"] = json!(number),
        None => {}
    }
    if let Some(length) = diagnostic.marked() {
        object["length"] = json!(length);
    }
    if !diagnostic.causes().is_empty() {
        object["causes"] = json!(diagnostic.causes());
    }
    if !diagnostic.notes().is_empty() {
        object["notes"] = json!(diagnostic.notes());
    }
    if let Some(hint) = diagnostic.advice() {
        object["hint"] = json!(hint);
    }
    object
}

#[cfg(test)]
mod tests {
    use parador_config::{Source, Tree};

    use super::*;

    #[test]
    fn a_pipe_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let pipe = path.to_str().unwrap();
        let made = std::process::Command::new("mkfifo").arg(pipe).status().unwrap();
        assert!(made.success());
        assert_eq!(text_of(pipe), None);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "cpus=1\n").unwrap();
        assert_eq!(text_of(pipe).as_deref(), Some("cpus=1\n"));
    }

    #[test]
    fn an_editor_gets_the_place_and_the_way_out() {
        let source = Source::File { name: "a \"b\".conf", bytes: b"cpus=1\nmemory.size=l\xc3\xb6ts\n" };
        let (tree, mut diagnostics) = Tree::from_sources(&[source]);
        let _ = tree.check(&mut diagnostics);
        let (severity, diagnostic) = &diagnostics.shown()[0];
        let object = object(*severity, diagnostic);
        assert_eq!(object["severity"], "error");
        assert_eq!(object["code"], "bad-value");
        assert_eq!(object["message"], "`memory.size` cannot be `löts`");
        assert_eq!(object["file"], "a \"b\".conf");
        assert_eq!(
            (&object["line"], &object["column"], &object["length"]),
            (&json!(2), &json!(13), &json!(4))
        );
        assert!(object["hint"].as_str().is_some_and(|hint| hint.starts_with("it is a size")));
    }
}
