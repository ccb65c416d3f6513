//! The process: how it begins, and how it ends.

#![expect(unsafe_code, reason = "settings of the allocator, and an exit without destructors")]

use std::io::Write;

/// Has all threads allocate from one heap. A heap for each costs it memory and two system calls, and
/// none allocates where time matters.
pub(crate) fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointers; there is one thread yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives the host back what the heap has free: what a machine was described with is needed no longer.
pub(crate) fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointers; it may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Ends the process at once: the kernel takes down a virtual machine faster than we could, and
/// whoever waits for the status need not wait for that.
pub(crate) fn exit(status: u8) -> ! {
    let _ = std::io::stdout().flush();
    // SAFETY: ends the process; no destructor of ours holds anything a process exit does not release.
    unsafe { libc::_exit(i32::from(status)) }
}
