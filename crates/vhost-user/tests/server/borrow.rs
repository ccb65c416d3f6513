//! Eventfds as descriptors that can be sent and waited for.

#![expect(unsafe_code, reason = "an eventfd of vmm-sys-util cannot be borrowed otherwise")]

use std::os::fd::{AsRawFd, BorrowedFd};

use parador_virtio::EventFd;

/// The descriptor of an eventfd.
pub(crate) fn borrow(fd: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: it is open while it is borrowed.
    unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) }
}
