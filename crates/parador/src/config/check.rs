//! `parador config check`: what is wrong with a configuration, without a machine.

use std::path::Path;

use parador_config::{Diagnostic, Diagnostics, Severity, Source, Tree};
use parador_engine::Plan;
use parador_translate::{Format, Input, import_with};

use crate::messages::Messages;
use crate::status::Status;

/// Checks the file that `words` name. With `--engine=none` it may be for another system than Parador.
pub(super) fn run(words: &[&str]) -> Status {
    let mut native = true;
    let mut messages = Messages::default();
    let mut file = None;
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let (name, attached) =
            word.split_once('=').map_or((*word, None), |(name, value)| (name, Some(value)));
        match name {
            "--engine" | "--message-format" => {
                let value = attached.or_else(|| rest.next().copied()).unwrap_or_default();
                match (name, value) {
                    ("--engine", "parador") => native = true,
                    ("--engine", "none") => native = false,
                    ("--message-format", "text") => messages = Messages::default(),
                    ("--message-format", "json") => messages = Messages::Json,
                    _ => return super::wrong(&format!("{name} cannot be `{}`", value.escape_debug())),
                }
            }
            _ if word.starts_with("--") => return super::wrong(&format!("there is no option {name}")),
            _ if file.is_some() => return super::wrong("one file at a time"),
            _ => file = Some(*word),
        }
    }
    let Some(file) = file else { return super::wrong("no FILE") };
    let diagnostics = check(file, native);
    messages.show(&diagnostics);
    if diagnostics.errors() > 0 { Status::Usage } else { Status::PoweredOff }
}

fn check(file: &str, native: bool) -> Diagnostics {
    let mut diagnostics = Diagnostics::default();
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(e) => {
            diagnostics.add(Severity::Error, || {
                Diagnostic::new(format!("cannot read {}", file.escape_debug())).cause(&e)
            });
            return diagnostics;
        }
    };
    let format = match Path::new(file).extension().and_then(|extension| extension.to_str()) {
        Some("toml") => Format::Toml,
        Some("json") => Format::Json,
        _ => {
            let (tree, found) = Tree::from_sources(&[Source::File { name: file, bytes: &bytes }]);
            diagnostics = found;
            judge(&tree, native, &mut diagnostics);
            return diagnostics;
        }
    };
    match import_with(format, Input::Text { name: file, bytes: &bytes }, &|path| std::fs::read(path)) {
        Err(found) => return found,
        Ok(imported) => judge(&imported.tree, native, &mut diagnostics),
    }
    diagnostics
}

fn judge(tree: &Tree, native: bool, diagnostics: &mut Diagnostics) {
    let keys = tree.check(diagnostics);
    if native {
        let _ = Plan::new(&keys, diagnostics);
    }
}
