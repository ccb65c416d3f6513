//! Words in a file, in memory that is shared with whoever has the file mapped after us.
#![expect(unsafe_code, reason = "words in a mapped file are reached as atomics")]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::AtomicU64;

/// `count` words that start `skip` bytes into a mapping.
pub(super) struct Mapped {
    start: *mut libc::c_void,
    skip: usize,
    count: usize,
}

// SAFETY: the memory is only reached as atomics, and mapped until this is dropped.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps `file` from `offset`, a multiple of the page size, to the end of `count` words that start
    /// `skip` bytes, a multiple of eight, further on.
    pub(super) fn new(file: &File, offset: u64, skip: usize, count: usize) -> io::Result<Self> {
        assert!(skip.is_multiple_of(8), "words are aligned");
        let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let (protection, len) = (libc::PROT_READ | libc::PROT_WRITE, skip + 8 * count);
        // SAFETY: a new mapping wherever the kernel likes touches no memory of ours.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, file.as_raw_fd(), offset)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start, skip, count })
    }
}

impl Deref for Mapped {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        let first = self.start.wrapping_byte_add(self.skip).cast::<AtomicU64>();
        // SAFETY: `new` mapped that much readable and writable memory, aligned, which lives as long as
        // `self`; any bits are a u64; and whoever else has the file mapped only touches the words as
        // atomics, too.
        unsafe { std::slice::from_raw_parts(first, self.count) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: it was mapped so, and nobody has a reference into it that outlives it.
        unsafe { libc::munmap(self.start, self.skip + 8 * self.count) };
    }
}
