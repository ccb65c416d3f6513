//! Who may end a machine from outside: signals, and a person at the terminal.

#![expect(unsafe_code, reason = "signal masks, signalfd and poll are system calls")]

use std::fs::File;
use std::io::{self, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use parador_engine::Running;

use crate::keyboard::{COMMANDS, Keyboard, Typed};
use crate::terminal;

/// Signals that are taken from a descriptor rather than by a handler.
const SIGNALS: [libc::c_int; 6] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGWINCH, libc::SIGCONT];

/// Signals and keys, on their way to us.
pub(crate) struct Control {
    signals: File,
    keys: Option<Keys>,
}

/// The keyboard, and the pipe to the guest.
struct Keys {
    /// Our own descriptor of the terminal, unbuffered.
    terminal: File,
    guest: PipeWriter,
    /// The pipe's other end, until somebody asks for it.
    input: OwnedFd,
    keyboard: Keyboard,
}

impl Control {
    /// Takes signals away from this thread and those it starts; and, if `interactive`, the terminal.
    /// Call it while there is one thread.
    pub(crate) fn take(interactive: bool) -> io::Result<Self> {
        let signals = signals()?;
        let keys = if interactive && terminal::enter() {
            let (read, guest) = io::pipe()?;
            // A guest that does not read must not stop us from reading the commands to us.
            set_nonblocking(&guest)?;
            let terminal = File::from(io::stdin().as_fd().try_clone_to_owned()?);
            Some(Keys { terminal, guest, input: read.into(), keyboard: Keyboard::default() })
        } else {
            None
        };
        Ok(Self { signals, keys })
    }

    /// Where the guest's input comes from, when it is not standard input itself.
    pub(crate) fn input(&self) -> Option<OwnedFd> {
        self.keys.as_ref().and_then(|keys| keys.input.try_clone().ok())
    }
}

/// Acts on `running` as signals and keys say, on a thread of its own that ends with the process.
pub(crate) fn watch(control: Control, running: Running) -> io::Result<Arc<Running>> {
    let running = Arc::new(running);
    let watched = Arc::clone(&running);
    std::thread::Builder::new()
        .name("control".to_owned())
        .stack_size(64 << 10)
        .spawn(move || watch_until_the_end(control, &watched))?;
    Ok(running)
}

fn watch_until_the_end(control: Control, running: &Running) {
    let Control { mut signals, mut keys } = control;
    let mut asked = false;
    loop {
        let typed = keys.as_ref().map_or(-1, |keys| keys.terminal.as_raw_fd());
        let [signalled, readable] = poll([signals.as_raw_fd(), typed]);
        if signalled {
            match next_signal(&mut signals) {
                libc::SIGWINCH => resize(running),
                libc::SIGCONT => drop(keys.is_some() && terminal::enter()),
                libc::SIGTERM if !std::mem::replace(&mut asked, true) => running.power_button(),
                _ => running.stop(),
            }
        }
        if readable && keys.as_mut().is_some_and(|keys| !keys.pass_on(running)) {
            keys = None;
        }
    }
}

impl Keys {
    /// Hands what was typed to the guest, or obeys it. `false` when the terminal is gone.
    fn pass_on(&mut self, running: &Running) -> bool {
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
                Typed::Quit => running.stop(),
                Typed::PowerButton => running.power_button(),
                Typed::Help => eprint!("{COMMANDS}"),
            }
        }
        // What a guest does not read for 64 KiB of typing is lost, as on any serial line.
        let _ = self.guest.write(&passed);
        true
    }
}

fn resize(running: &Running) {
    if let Some((columns, rows)) = terminal::size() {
        running.resize(columns, rows);
    }
}

/// A descriptor that tells of [`SIGNALS`], which then do nothing else.
fn signals() -> io::Result<File> {
    // SAFETY: all zeroes is a value of this plain data.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: fills the plain data behind the pointer.
    unsafe { libc::sigemptyset(&raw mut set) };
    for signal in SIGNALS {
        // SAFETY: changes the plain data behind the pointer; the signals are valid.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    // SAFETY: the set outlives the call.
    let result = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result));
    }
    // SAFETY: the set outlives the call.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor just made, which nobody else has.
    Ok(unsafe { File::from_raw_fd(fd) })
}

fn next_signal(signals: &mut File) -> libc::c_int {
    let mut info = [0; size_of::<libc::signalfd_siginfo>()];
    // A read of a signalfd that is readable gives one whole structure; its first word is the number.
    let word = signals.read_exact(&mut info).map(|()| [info[0], info[1], info[2], info[3]]);
    word.map_or(0, libc::c_int::from_ne_bytes)
}

/// Waits for any of `fds` and says which have something; negative ones never do.
fn poll<const N: usize>(fds: [libc::c_int; N]) -> [bool; N] {
    let mut polled = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    // SAFETY: the array and its length; it outlives the call. After a failure (EINTR) nothing is ready.
    unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, -1) };
    polled.map(|polled| polled.revents != 0)
}

fn set_nonblocking(fd: &PipeWriter) -> io::Result<()> {
    // SAFETY: no pointers.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
