//! `parador config check`: what is wrong with a configuration, without a machine.

use parador_config::Diagnostics;
use parador_engine::Plan;

use crate::args::{Given, Request};
use crate::messages::Messages;
use crate::sources;
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
    let request = Request { given: vec![Given::File(0, file.into())], ..Request::default() };
    if let Some(tree) = sources::read(&request, &mut diagnostics) {
        let keys = tree.check(&mut diagnostics);
        if native {
            let _ = Plan::new(&keys, &mut diagnostics);
        }
    }
    diagnostics
}
