//! The terminal at standard input: raw while a machine has it, as it was on every way out.

#![expect(unsafe_code, reason = "terminal modes and signal handlers are system calls")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Modes of the terminal before it was touched.
static BEFORE: OnceLock<libc::termios> = OnceLock::new();
/// Whether the terminal is raw now, or may be.
static RAW: AtomicBool = AtomicBool::new(false);

/// Signals that end the process because of a mistake of ours. The terminal is set back first.
const FATAL: [libc::c_int; 6] =
    [libc::SIGABRT, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGSEGV, libc::SIGSYS];

/// Makes the terminal at standard input raw: each key is there at once, none is a signal. Output
/// stays as it is, so that our own lines end well. `false`, with nothing done, when standard input
/// is not a terminal in our hands.
pub(crate) fn enter() -> bool {
    let Some(before) = modes().filter(|_| is_ours()) else { return false };
    let before = BEFORE.get_or_init(|| before);
    if !RAW.swap(true, Ordering::SeqCst) {
        set_back_when_we_fail();
    }
    let mut raw = *before;
    // SAFETY: changes the plain data behind the pointer.
    unsafe { libc::cfmakeraw(&raw mut raw) };
    raw.c_oflag = before.c_oflag;
    set(&raw)
}

/// Sets the terminal back to what it was before [`enter`]. May be called from a signal handler, and
/// again.
pub(crate) fn leave() {
    if let Some(before) = BEFORE.get()
        && RAW.swap(false, Ordering::SeqCst)
    {
        set(before);
    }
}

/// Size of the terminal at standard output, in columns and rows, if there is one.
pub(crate) fn size() -> Option<(u16, u16)> {
    // SAFETY: all zeroes is a value of this plain data.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills the structure, which outlives the call.
    let result = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col > 0).then_some((size.ws_col, size.ws_row))
}

/// Whether standard input is a terminal that somebody else works at: to read from it would stop us.
pub(crate) fn belongs_to_others() -> bool {
    modes().is_some() && !is_ours()
}

/// The modes of standard input, unless it is no terminal.
fn modes() -> Option<libc::termios> {
    // SAFETY: all zeroes is a value of this plain data.
    let mut modes: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills the structure, which outlives the call.
    let result = unsafe { libc::tcgetattr(libc::STDIN_FILENO, &raw mut modes) };
    (result == 0).then_some(modes)
}

/// Whether we are in the foreground of the terminal at standard input.
fn is_ours() -> bool {
    // SAFETY: no pointers.
    let foreground = unsafe { libc::tcgetpgrp(libc::STDIN_FILENO) };
    // SAFETY: no pointers.
    foreground == unsafe { libc::getpgrp() }
}

fn set(modes: &libc::termios) -> bool {
    // SAFETY: the kernel reads the structure, which outlives the call.
    unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, modes) == 0 }
}

fn set_back_when_we_fail() {
    // To set the terminal back from the background is what we want, rather than to be stopped for it.
    // SAFETY: ignoring a signal runs no code.
    unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        leave();
        before(panic);
    }));
    for signal in FATAL {
        // SAFETY: all zeroes is a value of this plain data: an empty mask, no flags.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = fatal as *const () as usize;
        action.sa_flags = libc::SA_RESETHAND | libc::SA_NODEFER;
        // SAFETY: the handler makes system calls and atomic accesses only.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    }
}

extern "C" fn fatal(signal: libc::c_int) {
    leave();
    // SAFETY: SA_RESETHAND has put the default action back: this ends the process, with its core.
    unsafe { libc::raise(signal) };
}
