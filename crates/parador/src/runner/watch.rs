//! A person and a machine: keys, signals, and how the machine's process ended.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus, Stdio};

use parador_config::Diagnostic;

use super::backends::Backends;
use crate::keyboard::{COMMANDS, Keyboard, Typed};
use crate::signals::{self, Signals};
use crate::status::Status;
use crate::terminal;

/// What is passed on to the machine's process; and what tells that it has ended.
const SIGNALS: [libc::c_int; 7] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGWINCH, libc::SIGCONT, libc::SIGCHLD];

/// Signals and keys, on their way to us.
pub(super) struct Watch {
    signals: Signals,
    keys: Option<Keys>,
}

/// The keyboard, and the pipe to the guest.
struct Keys {
    /// Our own descriptor of the terminal, unbuffered.
    terminal: File,
    guest: PipeWriter,
    keyboard: Keyboard,
}

impl Watch {
    /// Takes signals away from this thread and the processes it starts; and, if a console of the
    /// machine is on standard input, the terminal. The second part is the machine's standard input.
    pub(super) fn take(uses_stdio: bool) -> io::Result<(Self, Stdio)> {
        let signals = Signals::take(&SIGNALS)?;
        // A terminal that no console uses keeps its Ctrl-C, and is none of the machine's business.
        if !uses_stdio || terminal::belongs_to_others() {
            return Ok((Self { signals, keys: None }, Stdio::null()));
        }
        if !terminal::enter() {
            return Ok((Self { signals, keys: None }, Stdio::inherit()));
        }
        let (input, guest): (PipeReader, PipeWriter) = io::pipe()?;
        // A guest that does not read must not stop us from reading the commands to us.
        signals::set_nonblocking(guest.as_fd())?;
        let terminal = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let keys = Keys { terminal, guest, keyboard: Keyboard::default() };
        Ok((Self { signals, keys: Some(keys) }, OwnedFd::from(input).into()))
    }

    /// Passes on what comes until `child` has ended, and says how it did. Sees to `backends` meanwhile;
    /// if one cannot do its work, that is an error, and the child is ended.
    pub(super) fn until_the_end(
        mut self,
        child: &mut Child,
        backends: &mut Backends,
    ) -> Result<ExitStatus, Diagnostic> {
        let host = |e: io::Error| Diagnostic::new("cannot wait for the machine's process").cause(&e);
        loop {
            if let Err(gave_up) = backends.look() {
                child.kill().and_then(|()| child.wait()).map_err(host)?;
                return Err(gave_up);
            }
            let typed = self.keys.as_ref().map_or(-1, |keys| keys.terminal.as_raw_fd());
            let [signalled, readable] = signals::poll([self.signals.as_raw_fd(), typed], backends.due());
            if signalled {
                match self.signals.next() {
                    libc::SIGCHLD => {
                        if let Some(status) = child.try_wait().map_err(host)? {
                            return Ok(status);
                        }
                    }
                    libc::SIGCONT => drop(self.keys.is_some() && terminal::enter()),
                    signal => signals::send(child.id(), signal),
                }
            }
            if readable && self.keys.as_mut().is_some_and(|keys| !keys.pass_on(child.id())) {
                self.keys = None;
            }
        }
    }
}

impl Keys {
    /// Hands what was typed to the guest, or obeys it. `false` when the terminal is gone.
    fn pass_on(&mut self, machine: u32) -> bool {
        let mut typed = [0; 256];
        let count = match self.terminal.read(&mut typed) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(e) => return e.kind() == io::ErrorKind::Interrupted,
        };
        let mut passed = Vec::with_capacity(count);
        for key in &typed[..count] {
            match self.keyboard.typed(*key) {
                Typed::Guest(key) => passed.push(key),
                Typed::Nothing => {}
                Typed::Quit => signals::send(machine, libc::SIGINT),
                Typed::PowerButton => signals::send(machine, libc::SIGPWR),
                Typed::Help => eprint!("{COMMANDS}"),
            }
        }
        // What a guest does not read for 64 KiB of typing is lost, as on any serial line.
        let _ = self.guest.write(&passed);
        true
    }
}

/// The machine's exit status is ours. A process that was killed has none, and said nothing.
pub(super) fn end(status: ExitStatus) -> Status {
    if let Some(status) = status.code().and_then(Status::of) {
        return status;
    }
    let signal = status.signal().unwrap_or_default();
    eprintln!("error: the machine's process was ended by signal {signal}");
    if signal == libc::SIGKILL {
        eprintln!("hint: somebody killed it; `dmesg` says whether the host ran out of memory");
    }
    Status::Failed
}
