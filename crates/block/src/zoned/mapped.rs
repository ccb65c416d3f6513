//! Words in a file, in memory that is shared with whoever has the file mapped at the same time, or after us.
#![expect(unsafe_code, reason = "words in a mapped file are reached as atomics")]

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::AtomicU64;

use super::futex::Futex;

/// What can be in such memory.
///
/// # Safety
/// Any bits are one, and everybody reaches them as atomics of this size.
pub(super) unsafe trait Word {}

// SAFETY: any bits are a number, it is an `AtomicU32` (transparently), and no word is ever reached as another size.
unsafe impl Word for Futex {}
// SAFETY: as above.
unsafe impl Word for AtomicU64 {}

/// `count` words that start `skip` bytes into a mapping.
pub(super) struct Mapped<T: Word> {
    start: *mut libc::c_void,
    skip: usize,
    count: usize,
    words: PhantomData<T>,
}

// SAFETY: the memory is only reached as atomics, and mapped until this is dropped.
unsafe impl<T: Word> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T: Word> Sync for Mapped<T> {}

impl<T: Word> Mapped<T> {
    /// Maps `file` from `offset`, a multiple of the page size, to the end of `count` words that start
    /// `skip` bytes, a multiple of eight, further on.
    pub(super) fn new(file: &File, offset: u64, skip: usize, count: usize) -> io::Result<Self> {
        assert!(skip.is_multiple_of(8), "words are aligned");
        let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let (protection, len) = (libc::PROT_READ | libc::PROT_WRITE, skip + size_of::<T>() * count);
        // SAFETY: a new mapping wherever the kernel likes touches no memory of ours.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, file.as_raw_fd(), offset)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start, skip, count, words: PhantomData })
    }
}

impl<T: Word> Deref for Mapped<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let first = self.start.wrapping_byte_add(self.skip).cast::<T>();
        // SAFETY: `new` mapped that much readable and writable memory, aligned, which lives as long as
        // `self`; `Word` promises that any bits are one; and whoever else has the file mapped only touches
        // the words as atomics, too.
        unsafe { std::slice::from_raw_parts(first, self.count) }
    }
}

impl<T: Word> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: it was mapped so, and nobody has a reference into it that outlives it.
        unsafe { libc::munmap(self.start, self.skip + size_of::<T>() * self.count) };
    }
}
