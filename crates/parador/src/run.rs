//! `parador run` and `parador vmm`: a machine, from its description to its end.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use parador_config::{Checked, Diagnostic, Diagnostics, Severity, Source, Tree};
use parador_engine::{Outcome, Plan, Stdio};
use tracing::level_filters::LevelFilter;

use crate::args::{Given, Request};
use crate::control::{self, Control};
use crate::status::Status;
use crate::{log, terminal};

/// The most bytes of one file of keys.
const MAX_FILE: u64 = 4 << 20;

/// Runs the machine that `request` describes, and says how it ended.
pub(crate) fn run(request: &Request) -> Status {
    let mut diagnostics = Diagnostics::default();
    let described = describe(request, &mut diagnostics);
    eprint!("{diagnostics}");
    let Some((keys, plan)) = described else { return Status::Usage };
    log::start(level(&keys));
    let status = match launch(&plan, &keys, request.interactive) {
        Ok(outcome) => end(&outcome),
        Err(diagnostic) => {
            terminal::leave();
            eprint!("error: {diagnostic}");
            Status::Failed
        }
    };
    terminal::leave();
    status
}

/// Reads all that describes the machine and decides what it will be.
fn describe(request: &Request, diagnostics: &mut Diagnostics) -> Option<(Checked, Plan)> {
    let mut files = Vec::new();
    for given in &request.given {
        if let Given::File(argument, path) = given {
            let name = if path == "-" { "<stdin>".into() } else { path.to_string_lossy() };
            match read(path) {
                Ok(bytes) => files.push((*argument, name, bytes)),
                Err(e) => diagnostics.add(Severity::Error, || unreadable(&name, &e)),
            }
        }
    }
    if diagnostics.errors() > 0 {
        return None;
    }
    let mut sources = Vec::new();
    for given in &request.given {
        match given {
            Given::File(argument, _) => sources.extend(
                files
                    .iter()
                    .filter(|(number, ..)| number == argument)
                    .map(|(_, name, bytes)| Source::File { name, bytes }),
            ),
            Given::Option(argument, text) => sources.push(Source::Option { argument: *argument, text }),
            Given::Name(argument, text) => sources.push(Source::Name { argument: *argument, text }),
        }
    }
    let (tree, found) = Tree::from_sources(&sources);
    *diagnostics = found;
    let keys = tree.check(diagnostics);
    let plan = Plan::new(&keys, diagnostics)?;
    Some((keys, plan))
}

fn read(path: &std::ffi::OsStr) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if path == "-" {
        std::io::stdin().lock().take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    } else {
        File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > MAX_FILE {
        let message = format!("it has more than {MAX_FILE} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

fn unreadable(name: &str, error: &std::io::Error) -> Diagnostic {
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound => "does it exist? `parador --help` shows a first one",
        std::io::ErrorKind::IsADirectory => "name a file in it",
        std::io::ErrorKind::FileTooLarge => {
            "is it the right one? a disk image is set with `device.<id>.path`"
        }
        _ => "can this user read it?",
    };
    Diagnostic::new(format!("cannot read {}", name.escape_debug())).cause(error).hint(hint)
}

/// The level of what is logged: the machine's description, the environment, `warn`.
fn level(keys: &Checked) -> LevelFilter {
    let set = keys.word("log.level").map(str::to_owned).or_else(|| std::env::var(log::VARIABLE).ok());
    set.and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::WARN)
}

/// Runs the machine until it ends.
fn launch(plan: &Plan, keys: &Checked, interactive: bool) -> Result<Outcome, Diagnostic> {
    // A terminal that no console uses keeps its Ctrl-C.
    let control =
        Control::take(interactive && plan.uses_stdio()).map_err(|e| host("take charge of signals", &e))?;
    let input = match control.input() {
        Some(input) => Some(input),
        None if terminal::belongs_to_others() => None,
        None => duplicate(std::io::stdin()),
    };
    let stdio = Stdio { input, output: duplicate(std::io::stdout()), size: terminal::size() };
    let running = parador_engine::launch(plan, keys, stdio)?;
    for (key, name) in running.terminals() {
        eprintln!("{key} is at {}", name.display());
    }
    let running = control::watch(control, running).map_err(|e| host("start a thread", &e))?;
    Ok(running.wait())
}

fn host(doing: &str, error: &std::io::Error) -> Diagnostic {
    Diagnostic::new(format!("cannot {doing}")).cause(error)
}

/// A descriptor of our own for `stream`; `None` when it was closed before we started.
fn duplicate(stream: impl AsFd) -> Option<OwnedFd> {
    stream.as_fd().try_clone_to_owned().ok()
}

/// Says how the machine ended, where its user would not know.
fn end(outcome: &Outcome) -> Status {
    terminal::leave();
    match outcome {
        Outcome::PoweredOff => Status::PoweredOff,
        Outcome::Reset => Status::Reset,
        Outcome::Panicked => {
            eprintln!("error: the guest panicked\nhint: its console says why; on_panic=ignore lets it go on");
            Status::Panicked
        }
        Outcome::Stopped => Status::Stopped,
        Outcome::Failed(report) => {
            eprintln!("error: the machine could not go on\n{report}");
            Status::Failed
        }
    }
}
