//! `parador vmm --compat bhyve`: a command line of bhyve's, as it stands, with bhyve's exit status.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::Path;

use parador_config::{Diagnostic, Diagnostics, Origin, Severity, Tree};
use parador_translate::bhyve::CommandLine;
use parador_translate::{Imported, Input, Loss};

use crate::args::Request;
use crate::status::Status;
use crate::{print, run, sources};

const HELP: &str = "\
Usage: parador vmm --compat bhyve [OPTION]... [NAME]
       bhyve [OPTION]... [NAME]

Runs the machine that a command line of bhyve describes, with bhyve's own rules: from
left to right, what comes later replaces what came before, a slot is taken once. The
options are those of bhyve(8). What bhyve starts with a loader or a boot ROM is a key
here: -o boot.kernel=FILE -o boot.initrd=FILE -o boot.cmdline=TEXT

Exit status: 0 the guest reset itself, 1 it powered off, 4 anything else.
";

// How bhyve ends; the numbers are part of its interface, bhyve(8).
const RESET: u8 = 0;
const POWERED_OFF: u8 = 1;
const FAILED: u8 = 4;

/// What bhyve does unless it is told otherwise in our words: it has none for these.
static UNLESS_SET: &[(&str, &str)] =
    &[("on_reset", "stop"), ("on_panic", "ignore"), ("config.unknown", "warn")];

/// Runs the machine that the words from number `first` on describe, and ends as bhyve does.
pub(crate) fn run(arguments: &[OsString], first: usize) -> u8 {
    // A person at a terminal gets it as bhyve gives it; a supervisor gets one process.
    let request = Request { interactive: std::io::stdin().is_terminal(), ..Request::default() };
    match described(arguments, first, &request) {
        Ok((tree, diagnostics)) => match run::machine(tree, &request, diagnostics) {
            // Whoever started it starts it again.
            Status::Reset => RESET,
            Status::PoweredOff => POWERED_OFF,
            Status::Failed | Status::Usage | Status::Panicked | Status::Stopped => FAILED,
        },
        Err(status) => status,
    }
}

/// What is to be run, and what there is to say about it; otherwise how bhyve ends, all having been
/// said.
fn described(arguments: &[OsString], first: usize, request: &Request) -> Result<(Tree, Diagnostics), u8> {
    let refuse = |wrong: Diagnostics| {
        request.messages.show(&wrong);
        FAILED
    };
    let words = words(arguments, first).map_err(refuse)?;
    let load = |path: &Path| sources::open(path.as_os_str());
    let line = CommandLine::read(Input::Arguments { first, words: &words }, &load).map_err(refuse)?;
    if line.asks_for_help() {
        print(HELP);
        return Err(0);
    }
    if let Some(keys) = line.dump() {
        print(&keys);
        return Err(1);
    }
    let Imported { mut tree, losses } = line.machine();
    let mut diagnostics = Diagnostics::default();
    for Loss { what, why, origin } in losses {
        diagnostics.add(Severity::Warning, || {
            let diagnostic = Diagnostic::new(format!("`{what}`: {why}"));
            match origin {
                Some(origin) => diagnostic.at(origin),
                None => diagnostic,
            }
        });
    }
    unknown(&mut tree, &mut diagnostics);
    if tree.setting("name").is_none() {
        let hint = "bhyve takes it as the last word, or from the key `name`";
        diagnostics.add(Severity::Error, || Diagnostic::new("the machine has no name").hint(hint));
        return Err(refuse(diagnostics));
    }
    for (key, value) in UNLESS_SET {
        if tree.setting(key).is_none() {
            tree.set(key, *value, Origin::Argument(0));
        }
    }
    Ok((tree, diagnostics))
}

/// The words from number `first` on, as text.
fn words(arguments: &[OsString], first: usize) -> Result<Vec<String>, Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let mut words = Vec::new();
    for (number, word) in arguments.iter().enumerate().skip(first) {
        match word.to_str() {
            Some(word) => words.push(word.to_owned()),
            None => diagnostics.add(Severity::Error, || {
                Diagnostic::new("not UTF-8")
                    .at(Origin::Argument(number))
                    .hint("names of files have to be, here")
            }),
        }
    }
    if diagnostics.errors() > 0 { Err(diagnostics) } else { Ok(words) }
}

/// Warns of options that bhyve has and this command does not, and takes them out of `tree`.
fn unknown(tree: &mut Tree, diagnostics: &mut Diagnostics) {
    let kept: Vec<(String, Origin)> = tree
        .in_order()
        .into_iter()
        .filter(|(key, _)| key.starts_with("engine.bhyve.arg."))
        .map(|(_, setting)| (setting.value.clone(), setting.origin.clone()))
        .collect();
    for option in kept.chunks(2) {
        let [(letter, _), (value, origin)] = option else { continue };
        diagnostics.add(Severity::Warning, || {
            let message = if letter == "-o" {
                format!("unknown key `{}`", value.split_once('=').map_or(value.as_str(), |(key, _)| key))
            } else {
                format!("option `{letter}` is not known here")
            };
            Diagnostic::new(message).at(origin.clone()).hint("it has no effect")
        });
    }
    tree.unset("engine.bhyve");
}
