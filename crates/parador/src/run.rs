//! `parador run` and `parador vmm`: a machine, from its description to its end.

use std::os::fd::{AsFd, OwnedFd};

use parador_config::{Checked, Diagnostic, Diagnostics, Dump, Tree};
use parador_engine::{Outcome, Plan, Stdio};
use tracing::level_filters::LevelFilter;

use crate::args::Request;
use crate::control::{self, Control};
use crate::print;
use crate::sources;
use crate::status::Status;
use crate::{log, terminal};

/// Runs the machine that `request` describes, and says how it ended.
pub(crate) fn run(request: &Request) -> Status {
    let mut diagnostics = Diagnostics::default();
    let Some(tree) = sources::read(request, &mut diagnostics) else {
        request.messages.show(&diagnostics);
        return Status::Usage;
    };
    if let Some(form) = request.dump.or_else(|| asks_for_dump(&tree)) {
        return dump(&tree, form, request, diagnostics);
    }
    let keys = tree.check(&mut diagnostics);
    let plan = Plan::new(&keys, &mut diagnostics);
    request.messages.show(&diagnostics);
    let Some(plan) = plan else { return Status::Usage };
    log::start(level(&keys));
    let status = match launch(&plan, &keys, request.interactive) {
        Ok(outcome) => end(&outcome),
        Err(diagnostic) => {
            terminal::leave();
            request.messages.show_error(diagnostic);
            Status::Failed
        }
    };
    terminal::leave();
    status
}

/// What the key `config.dump` asks for.
fn asks_for_dump(tree: &Tree) -> Option<Dump> {
    tree.setting("config.dump")?;
    tree.check(&mut Diagnostics::default()).bool("config.dump").then_some(Dump::Raw)
}

/// Prints `tree` as it is: nothing has been held against the table of keys.
fn dump(tree: &Tree, form: Dump, request: &Request, mut diagnostics: Diagnostics) -> Status {
    if form == Dump::Expanded {
        let _ = tree.expand(&mut diagnostics);
    }
    request.messages.show(&diagnostics);
    if diagnostics.errors() > 0 { Status::Usage } else { print(&tree.dump(form, request.dump_secrets)) }
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
