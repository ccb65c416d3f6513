//! Threads that take no signals.

#![expect(unsafe_code, reason = "the C library's signal sets")]

use std::mem::MaybeUninit;
use std::ptr;

/// Runs `spawn` with signals blocked, so that a thread it makes starts out, and stays, without
/// them: signals are for the threads that expect them. Faults of the thread itself stay deliverable.
pub(crate) fn blocked<T>(spawn: impl FnOnce() -> T) -> T {
    const FAULTS: [libc::c_int; 6] =
        [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS];
    let mut set = MaybeUninit::uninit();
    let mut old = MaybeUninit::uninit();
    // SAFETY: both sets are ours and written by these calls before they are read; the signal
    // numbers are valid, so none of them fails.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        for signal in FAULTS {
            libc::sigdelset(set.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), old.as_mut_ptr());
    }
    let result = spawn();
    // SAFETY: `old` was written above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), ptr::null_mut()) };
    result
}
