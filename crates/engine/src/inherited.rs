//! Descriptors that this process was started with.

#![expect(unsafe_code, reason = "takes descriptors by their numbers")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use parador_config::{Checked, Diagnostic};

/// Takes the descriptor `fd`, which `key` gives.
pub(crate) fn take(keys: &Checked, key: &str, fd: i32) -> Result<OwnedFd, Diagnostic> {
    inherited(fd).map_err(|e| {
        let hint = "whoever starts this process opens it and lets it be inherited";
        keys.about(key, format!("descriptor {fd} cannot be taken")).cause(&e).hint(hint)
    })
}

/// A descriptor of our own of what this process was started with at `fd`. That stays open, and is
/// nobody's.
///
/// # Errors
/// Of fcntl(2): `EBADF` if nothing is open there.
pub fn inherited(fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a number that is no descriptor is refused.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor just made, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_no_descriptor_is_refused() {
        assert_eq!(inherited(60_000).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
