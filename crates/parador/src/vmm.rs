//! `parador vmm`: the process that is the machine.

use std::os::fd::{AsFd, OwnedFd};

use parador_config::Diagnostic;
use parador_engine::{Outcome, Stdio};

use crate::run::Description;
use crate::status::Status;
use crate::{control, process, terminal};

/// Runs the machine until it ends, and says how that was.
pub(crate) fn run(description: Description) -> Result<Status, Diagnostic> {
    let signals = control::take().map_err(|e| host("take charge of signals", &e))?;
    let watched = control::watch(signals).map_err(|e| host("start a thread", &e))?;
    let running = parador_engine::launch(&description.plan, &description.keys, stdio())?;
    for (key, name) in running.terminals() {
        eprintln!("{key} is at {}", name.display());
    }
    let running = watched.get_or_init(|| running);
    drop(description);
    process::return_free_memory();
    Ok(end(&running.wait()))
}

/// What consoles on `stdio` get. (The standard library's input would have a buffer of 8 KiB.)
pub(crate) fn stdio() -> Stdio {
    let input = if terminal::belongs_to_others() { None } else { duplicate(rustix::stdio::stdin()) };
    Stdio { input, output: duplicate(std::io::stdout()), size: terminal::size() }
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
