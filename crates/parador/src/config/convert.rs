//! `parador config convert`: a machine in another system's words.

use std::ffi::OsStr;
use std::path::Path;

use parador_config::{Diagnostic, Diagnostics, Severity, Tree};
use parador_translate::{Format, Input, Loss, Output, export, import_with};

use crate::messages::Messages;
use crate::print;
use crate::sources;
use crate::status::Status;

/// Words before those that are handed to this command: the program's name, `config`, `convert`.
const BEFORE: usize = 3;

/// What is converted, and how.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    from: Option<Format>,
    to: Option<Format>,
    strict: bool,
    messages: Messages,
    file: Option<String>,
    /// The number of the first argument after `--`, and those arguments.
    words: Option<(usize, Vec<String>)>,
}

/// Converts what `words` name. What is lost is told; with `--strict` it is an error, and nothing is written.
pub(super) fn run(words: &[&str]) -> Status {
    let request = match parse(words) {
        Ok(request) => request,
        Err(message) => return super::wrong(&message),
    };
    match converted(&request) {
        Ok((output, losses)) => {
            // All of them: what is lost is what the reader has to know.
            for losses in losses.chunks(10) {
                let mut diagnostics = Diagnostics::default();
                let severity = if request.strict { Severity::Error } else { Severity::Warning };
                for loss in losses {
                    diagnostics.add(severity, || loss.clone());
                }
                request.messages.show(&diagnostics);
            }
            if request.strict && !losses.is_empty() { Status::Usage } else { print(&output.to_string()) }
        }
        Err(diagnostics) => {
            request.messages.show(&diagnostics);
            Status::Usage
        }
    }
}

fn parse(words: &[&str]) -> Result<Request, String> {
    let mut request = Request::default();
    let mut rest = words.iter().enumerate();
    while let Some((number, word)) = rest.next() {
        let (name, attached) =
            word.split_once('=').map_or((*word, None), |(name, value)| (name, Some(value)));
        match name {
            "--from" | "--to" | "--message-format" => {
                let value = attached.or_else(|| rest.next().map(|(_, value)| *value)).unwrap_or_default();
                match (name, value) {
                    ("--from", value) => request.from = Some(format(value)?),
                    ("--to", value) => request.to = Some(format(value)?),
                    (_, "text") => request.messages = Messages::Text,
                    (_, "json") => request.messages = Messages::Json,
                    _ => return Err(format!("{name} cannot be `{}`", value.escape_debug())),
                }
            }
            "--strict" if attached.is_none() => request.strict = true,
            "--" if attached.is_none() => {
                let words = words[number + 1..].iter().map(|word| (*word).to_owned()).collect();
                request.words = Some((BEFORE + number + 1, words));
                break;
            }
            _ if word.starts_with('-') && *word != "-" => {
                return Err(format!("there is no option {}", name.escape_debug()));
            }
            _ if request.file.is_some() => return Err("one file at a time".to_owned()),
            _ => request.file = Some((*word).to_owned()),
        }
    }
    match (&request.file, &request.words, request.to) {
        (_, _, None) => Err("no `--to FORMAT`".to_owned()),
        (None, None, _) => Err("no FILE, and no words after `--`".to_owned()),
        (Some(_), Some(_), _) => Err("either a FILE, or words after `--`".to_owned()),
        (_, _, Some(_)) => Ok(request),
    }
}

fn format(name: &str) -> Result<Format, String> {
    Format::named(name).ok_or_else(|| {
        let names: Vec<&str> = Format::ALL.iter().map(|format| format.name()).collect();
        format!("there is no format `{}`, only {}", name.escape_debug(), names.join(", "))
    })
}

/// What is written, and a finding for everything that is not in it.
fn converted(request: &Request) -> Result<(Output, Vec<Diagnostic>), Diagnostics> {
    let bytes;
    let input = match (&request.file, &request.words) {
        (Some(file), _) => {
            let name = if file == "-" { "<stdin>" } else { file };
            let read = if file == "-" { sources::stdin() } else { sources::open(OsStr::new(file)) };
            bytes = read.map_err(|e| one(sources::unreadable(name, &e)))?;
            Input::Text { name, bytes: &bytes }
        }
        (None, Some((first, words))) => Input::Arguments { first: *first, words },
        (None, None) => Input::Arguments { first: 0, words: &[] },
    };
    let to = request.to.unwrap_or(Format::Flat);
    let from = match request.from {
        Some(from) => from,
        None => guessed(request, input)?,
    };
    let load = |path: &Path| sources::open(path.as_os_str());
    let imported = import_with(from, input, &load)?;
    let tree = if to.has_references() { imported.tree } else { expanded(&imported.tree)? };
    let exported = export(to, &tree)?;
    let mut losses: Vec<Diagnostic> =
        imported.losses.into_iter().map(|loss| lost(from, "from", loss)).collect();
    losses.extend(exported.losses.into_iter().map(|loss| lost(to, "to", loss)));
    Ok((exported.output, losses))
}

/// The format that `input` says it has; which that is, is told.
fn guessed(request: &Request, input: Input<'_>) -> Result<Format, Diagnostics> {
    let Some(format) = Format::guess(input) else {
        let names: Vec<&str> = Format::ALL.iter().map(|format| format.name()).collect();
        let message = "what is to be converted does not say what format it has";
        return Err(one(Diagnostic::new(message).hint(format!("add --from, one of {}", names.join(", ")))));
    };
    if request.messages == Messages::Text {
        let what = request.file.as_deref().unwrap_or("the command line");
        eprintln!("note: {} is taken as {}", what.escape_debug(), format.name());
    }
    Ok(format)
}

fn expanded(tree: &Tree) -> Result<Tree, Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let tree = tree.expand(&mut diagnostics);
    if diagnostics.errors() > 0 { Err(diagnostics) } else { Ok(tree) }
}

fn lost(format: Format, way: &str, Loss { what, why, origin }: Loss) -> Diagnostic {
    let what: String = what.chars().take(200).collect();
    let message = format!("lost on the way {way} {}: `{}`", format.name(), what.escape_debug());
    let diagnostic = Diagnostic::new(message).note(why);
    match origin {
        Some(origin) => diagnostic.at(origin),
        None => diagnostic,
    }
}

fn one(diagnostic: Diagnostic) -> Diagnostics {
    let mut diagnostics = Diagnostics::default();
    diagnostics.add(Severity::Error, || diagnostic);
    diagnostics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_two_dashes_is_not_ours() {
        let words = ["--from=toml", "--to", "flat", "--strict", "--", "bhyve", "--to", "x"];
        let request = parse(&words).expect("it is right");
        let expected = Request {
            from: Some(Format::Toml),
            to: Some(Format::Flat),
            strict: true,
            words: Some((8, vec!["bhyve".to_owned(), "--to".to_owned(), "x".to_owned()])),
            ..Request::default()
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn a_command_line_that_says_too_little_or_too_much_is_refused() {
        for wrong in [
            &["--to", "flat"] as &[&str],
            &["a.toml"],
            &["--to", "flat", "a", "b"],
            &["--to", "flat", "a", "--", "b"],
            &["--to", "rubbish", "a"],
            &["--to"],
            &["--strict=yes", "--to=flat", "a"],
            &["-x", "--to=flat", "a"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
