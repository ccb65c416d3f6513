//! The end of a machine's descriptor, without anybody waiting for it.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::IoUring;

/// Holds a file open for a process that is about to end.
///
/// A process is not gone before the last use of each of its files is undone, and to undo a machine takes the
/// kernel grace periods: 10 ms and more. What a ring of io_uring holds, it undoes on a thread of its own
/// when the process is gone.
pub(super) struct Closing {
    _ring: IoUring,
}

impl Closing {
    /// Holds `file` until this is dropped or the process has ended, and then for some milliseconds more.
    ///
    /// # Errors
    /// The host has no io_uring, or not for this process.
    pub(super) fn of(file: &impl AsRawFd) -> io::Result<Self> {
        let ring = IoUring::new(1)?;
        ring.submitter().register_files(&[file.as_raw_fd()])?;
        Ok(Self { _ring: ring })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_file_stays_open_until_the_ring_is_gone() {
        let (mut reader, held) = UnixStream::pair().unwrap();
        let Ok(closing) = Closing::of(&held) else {
            eprintln!("skipped: there is no io_uring");
            return;
        };
        drop(held);
        reader.set_nonblocking(true).unwrap();
        assert_eq!(reader.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "open");
        drop(closing);
        reader.set_nonblocking(false).unwrap();
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "closed, sooner or later");
    }
}
