//! The process that is the machine: started with descriptors, bound to this process's life.

#![expect(unsafe_code, reason = "descriptors are placed between fork and exec")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Descriptors of the child begin here, after the standard streams.
pub(super) const FIRST: RawFd = 3;

/// Starts `program`, or this one, with `arguments` and `descriptors`, which are [`FIRST`] and following
/// there; nothing else that is open here is open there.
///
/// It ends when this thread does, has no terminal of its own, cannot gain privileges, and the signals
/// this thread has blocked wait until it takes them, if it is this program; another has none blocked.
pub(super) fn start(
    program: Option<&Path>,
    arguments: &[&str],
    descriptors: Vec<OwnedFd>,
    input: Stdio,
) -> io::Result<Child> {
    let count = RawFd::try_from(descriptors.len()).map_err(io::Error::other)?;
    let end = FIRST + count;
    // Theirs are copied over these numbers, which therefore must not be needed by what copies.
    let ours: Vec<OwnedFd> =
        descriptors.iter().map(|fd| above(fd.as_fd(), end)).collect::<io::Result<_>>()?;
    drop(descriptors);
    let taken = take_numbers(end)?;
    let places: Vec<(RawFd, RawFd)> = ours.iter().map(AsRawFd::as_raw_fd).zip(FIRST..end).collect();
    let parent = std::process::id();
    let mut command = Command::new(program.map_or_else(itself, Path::to_owned));
    if program.is_none() {
        command.arg0("parador");
    }
    command.args(arguments).stdin(input);
    let unblock = program.is_some();
    // SAFETY: the closure makes system calls and reads memory that was there before the fork.
    unsafe { command.pre_exec(move || prepare(&places, end, parent, unblock)) };
    let child = command.spawn();
    drop((ours, taken));
    child
}

/// This program: by its name where that still is it, so that the process is called so.
fn itself() -> PathBuf {
    let itself = PathBuf::from("/proc/self/exe");
    std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or(itself)
}

/// A copy of `fd` with a number of `lowest` or more.
fn above(fd: BorrowedFd<'_>, lowest: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor just made, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Takes every number below `end` that is free. The standard library opens a pipe to hear of a failed
/// exec by; a disk must not come to be in its place.
fn take_numbers(end: RawFd) -> io::Result<Vec<OwnedFd>> {
    let null = File::open("/dev/null")?;
    let mut taken = Vec::new();
    loop {
        let copy = above(null.as_fd(), FIRST)?;
        if copy.as_raw_fd() >= end {
            return Ok(taken);
        }
        taken.push(copy);
    }
}

/// What the new process does before it becomes this program.
fn prepare(places: &[(RawFd, RawFd)], end: RawFd, parent: u32, unblock: bool) -> io::Result<()> {
    let check = |result: libc::c_int| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    for (from, to) in places {
        // SAFETY: no pointers; nobody in this process uses the numbers.
        check(unsafe { libc::dup2(*from, *to) })?;
    }
    // What was inherited from who knows where stays behind. Before Linux 5.11 it does not.
    // SAFETY: no pointers.
    unsafe { libc::syscall(libc::SYS_close_range, end, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    // SAFETY: no pointers, in all four.
    unsafe {
        check(libc::setsid())?;
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        // Who died before it was asked for sends no signal.
        if u32::try_from(libc::getppid()) != Ok(parent) {
            libc::_exit(1);
        }
    }
    if unblock {
        // SAFETY: all zeroes is a value of this plain data; it is filled, and outlives the call.
        unsafe {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        }
    }
    Ok(())
}

/// A file in memory of `text`, to be read from its beginning.
pub(super) fn text_file(text: &str) -> io::Result<OwnedFd> {
    use std::io::{Seek, Write};
    // SAFETY: a terminated string.
    let fd = unsafe { libc::memfd_create(c"parador keys".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor just made, which nobody else has.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}
