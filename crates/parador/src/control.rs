//! Who may end a machine from outside: signals to the process that is the machine.

use std::io;
use std::sync::{Arc, OnceLock};

use parador_engine::Running;

use crate::signals::Signals;
use crate::status::Status;
use crate::{process, terminal};

/// What a machine listens to.
const SIGNALS: [libc::c_int; 7] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGPWR, libc::SIGWINCH, libc::SIGCONT];

/// Takes the signals away from this thread and those it starts. Call it while there is one thread.
pub(crate) fn take() -> io::Result<Signals> {
    Signals::take(&SIGNALS)
}

/// A machine that is there as soon as it has all it needs, for which it may wait.
pub(crate) type Watched = Arc<OnceLock<Running>>;

/// Acts on a machine as signals say, on a thread of its own that ends with the process. Until there is
/// one, they end the process.
pub(crate) fn watch(signals: Signals) -> io::Result<Watched> {
    let watched = Watched::default();
    let running = Arc::clone(&watched);
    std::thread::Builder::new()
        .name("control".to_owned())
        .stack_size(64 << 10)
        .spawn(move || watch_until_the_end(signals, &running))?;
    Ok(watched)
}

fn watch_until_the_end(mut signals: Signals, running: &OnceLock<Running>) {
    let mut asked = false;
    loop {
        let signal = signals.next();
        let Some(running) = running.get() else {
            match signal {
                libc::SIGWINCH | libc::SIGCONT => continue,
                _ => process::exit(Status::Stopped as u8),
            }
        };
        match signal {
            libc::SIGWINCH => {
                if let Some((columns, rows)) = terminal::size() {
                    running.resize(columns, rows);
                }
            }
            libc::SIGCONT => {}
            libc::SIGPWR => running.power_button(),
            libc::SIGTERM if !std::mem::replace(&mut asked, true) => running.power_button(),
            _ => running.stop(),
        }
    }
}
