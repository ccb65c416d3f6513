//! Eventfds as descriptors to pass and to wait for.
#![expect(unsafe_code, reason = "the event library's type has no borrowed form of its own")]

use std::os::fd::{AsRawFd, BorrowedFd};

use parador_virtio::EventFd;

/// The descriptor of `event`.
pub(super) fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as `event` is, which the result borrows from.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}
