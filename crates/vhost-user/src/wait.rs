//! Waiting for descriptors, eventfds among them.
#![expect(unsafe_code, reason = "the event library's type has no borrowed form of its own")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Instant;

use parador_virtio::EventFd;
use rustix::event::{PollFd, Timespec, poll};

/// The descriptor of `event`, to wait for or to pass.
pub(crate) fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as `event` is, which the result borrows from.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

/// Waits until one of `fds` is ready, or `deadline`, and says how many are. Signals make no difference.
pub(crate) fn wait(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<usize> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left| Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(fds, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}
