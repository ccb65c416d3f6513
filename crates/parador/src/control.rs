//! Who may end a machine from outside: signals to the process that is the machine.

use std::io;
use std::sync::Arc;

use parador_engine::Running;

use crate::signals::Signals;
use crate::terminal;

/// What a machine listens to.
const SIGNALS: [libc::c_int; 7] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGPWR, libc::SIGWINCH, libc::SIGCONT];

/// Takes the signals away from this thread and those it starts. Call it while there is one thread.
pub(crate) fn take() -> io::Result<Signals> {
    Signals::take(&SIGNALS)
}

/// Acts on `running` as signals say, on a thread of its own that ends with the process.
pub(crate) fn watch(signals: Signals, running: Running) -> io::Result<Arc<Running>> {
    let running = Arc::new(running);
    let watched = Arc::clone(&running);
    std::thread::Builder::new()
        .name("control".to_owned())
        .stack_size(64 << 10)
        .spawn(move || watch_until_the_end(signals, &watched))?;
    Ok(running)
}

fn watch_until_the_end(mut signals: Signals, running: &Running) {
    let mut asked = false;
    loop {
        match signals.next() {
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
