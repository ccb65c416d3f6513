//! Signals, taken from a descriptor rather than by handlers, and sent.

#![expect(unsafe_code, reason = "signal masks, signalfd, poll, fcntl and kill are system calls")]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, RawFd};
use std::time::Instant;

use libc::c_int;

/// Signals on their way to us, which do nothing else. Threads, and processes, that are started after
/// this leave them alone too.
pub(crate) struct Signals(File);

impl Signals {
    /// Takes `signals` away from this thread. Call it while there is one.
    pub(crate) fn take(signals: &[c_int]) -> io::Result<Self> {
        if signals.contains(&libc::SIGCHLD) {
            // Whoever started us may ignore it, and a child of such a process leaves no exit status.
            // SAFETY: the default action runs no code.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        }
        // SAFETY: all zeroes is a value of this plain data.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: fills the plain data behind the pointer.
        unsafe { libc::sigemptyset(&raw mut set) };
        for signal in signals {
            // SAFETY: changes the plain data behind the pointer; the signals are valid.
            unsafe { libc::sigaddset(&raw mut set, *signal) };
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
        Ok(Self(unsafe { File::from_raw_fd(fd) }))
    }

    /// The next signal; waits for one.
    pub(crate) fn next(&mut self) -> c_int {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        // A read of a signalfd that is readable gives one whole structure; its first word is the number.
        let word = self.0.read_exact(&mut info).map(|()| [info[0], info[1], info[2], info[3]]);
        word.map_or(0, c_int::from_ne_bytes)
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Sends `signal` to a process that is our child and has not been waited for.
pub(crate) fn send(process: u32, signal: c_int) {
    if let Ok(process) = libc::pid_t::try_from(process) {
        // SAFETY: no pointers; the number is that of our child, or of its remains.
        unsafe { libc::kill(process, signal) };
    }
}

/// Waits for any of `fds`, until `until` if there is such a time, and says which have something;
/// negative ones never do.
pub(crate) fn poll<const N: usize>(fds: [RawFd; N], until: Option<Instant>) -> [bool; N] {
    // Rounded up: who is woken early would look again and again.
    let left = until.map(|until| until.saturating_duration_since(Instant::now()).as_millis() + 1);
    let timeout = left.map_or(-1, |left| c_int::try_from(left).unwrap_or(c_int::MAX));
    let mut polled = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    // SAFETY: the array and its length; it outlives the call. After a failure (EINTR) nothing is ready.
    unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, timeout) };
    polled.map(|polled| polled.revents != 0)
}

/// Has writes to `fd` fail where they would wait.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
