//! The one promise about memory in this crate: a [`Buffer`] stays mapped until its request is over.
#![expect(
    unsafe_code,
    reason = "buffers are guest memory, which is shared with the guest and has no Rust owner"
)]

use std::fmt;

/// A piece of memory that a disk reads into or writes from.
///
/// It is an address and a length, as `struct iovec` is, not a reference: the memory may be a guest's,
/// which changes while we look. Only the kernel and volatile copies ever touch it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Buffer(libc::iovec);

// SAFETY: it is an address; what makes it usable from another thread is the promise of `Buffer::new`,
// which names no thread.
unsafe impl Send for Buffer {}
// SAFETY: as above; a shared `Buffer` can only be copied.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Names `iovec` as memory for a request.
    ///
    /// # Safety
    /// From the call of [`crate::Disk::submit`] it is given to until that request is over (`submit`
    /// said `Done`, [`crate::Disk::reap`] returned its tag, or the disk was dropped), the whole range
    /// is mapped, writable if the request is a read, and nobody holds a Rust reference into it. The
    /// contents may change at any time.
    #[must_use]
    pub const unsafe fn new(iovec: libc::iovec) -> Self {
        Self(iovec)
    }

    /// Memory of a test, which it does not touch while a request has it.
    #[cfg(test)]
    pub(crate) fn of(memory: &mut [u8]) -> Self {
        Self(libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: memory.len() })
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iov_len
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iov_len == 0
    }

    pub(crate) fn address(&self) -> usize {
        self.0.iov_base.addr()
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.0.iov_base.cast()
    }

    /// Drops the first `count` bytes, at most all of them.
    pub(crate) fn advance(&mut self, count: usize) {
        let count = count.min(self.0.iov_len);
        self.0.iov_base = self.as_ptr().wrapping_add(count).cast();
        self.0.iov_len -= count;
    }

    /// Fills all of it with zeroes.
    fn zero(&self) {
        let mut rest = *self;
        while !rest.is_empty() {
            let words = rest.address().is_multiple_of(align_of::<u64>()) && rest.len() >= size_of::<u64>();
            if words {
                // SAFETY: that much is left of the range that `new` promised, and it is aligned.
                unsafe { rest.as_ptr().cast::<u64>().write_volatile(0) };
            } else {
                // SAFETY: a byte is left of the range that `new` promised.
                unsafe { rest.as_ptr().write_volatile(0) };
            }
            rest.advance(if words { size_of::<u64>() } else { 1 });
        }
    }

    /// Copies up to `data.len()` bytes of `data` in and says how many.
    pub(crate) fn fill_from(&self, data: &[u8]) -> usize {
        let count = data.len().min(self.len());
        for (index, byte) in data.iter().take(count).enumerate() {
            // SAFETY: `index < self.len()`, so the byte is inside the range that `new` promised.
            unsafe { self.as_ptr().wrapping_add(index).write_volatile(*byte) };
        }
        count
    }

    /// Copies up to `data.len()` bytes out and says how many.
    pub(crate) fn copy_to(&self, data: &mut [u8]) -> usize {
        let count = data.len().min(self.len());
        for (index, byte) in data.iter_mut().take(count).enumerate() {
            // SAFETY: `index < self.len()`, so the byte is inside the range that `new` promised.
            *byte = unsafe { self.as_ptr().wrapping_add(index).read_volatile() };
        }
        count
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({:p}, {})", self.0.iov_base, self.0.iov_len)
    }
}

/// Drops the first `count` bytes of `buffers`, emptied ones included, and returns the rest.
pub(crate) fn advance(buffers: &mut [Buffer], mut count: usize) -> &mut [Buffer] {
    let mut emptied = 0;
    for buffer in buffers.iter_mut() {
        if buffer.len() > count {
            buffer.advance(count);
            break;
        }
        count -= buffer.len();
        emptied += 1;
    }
    &mut buffers[emptied..]
}

/// Leaves the first `count` bytes in `buffers` and fills all behind them with zeroes.
pub(crate) fn truncate_and_zero(buffers: &mut Vec<Buffer>, mut count: usize) {
    for buffer in buffers.iter_mut() {
        let mut rest = *buffer;
        rest.advance(count);
        rest.zero();
        buffer.0.iov_len -= rest.len();
        count -= buffer.len();
    }
    buffers.retain(|buffer| !buffer.is_empty());
}

/// Bytes in all of `buffers`; `None` when that does not fit.
pub(crate) fn total(buffers: &[Buffer]) -> Option<u64> {
    buffers.iter().try_fold(0u64, |sum, buffer| sum.checked_add(u64::try_from(buffer.len()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(len: usize) -> Buffer {
        // SAFETY: never submitted, never dereferenced.
        unsafe { Buffer::new(libc::iovec { iov_base: std::ptr::without_provenance_mut(4096), iov_len: len }) }
    }

    #[test]
    fn advance_skips_whole_and_empty_buffers() {
        let mut buffers = [buffer(3), buffer(0), buffer(5), buffer(0), buffer(1)];
        let rest = advance(&mut buffers, 3);
        assert_eq!(rest.iter().map(Buffer::len).collect::<Vec<_>>(), [5, 0, 1]);
        let rest = advance(rest, 2);
        assert_eq!(rest[0].len(), 3);
        assert_eq!(rest[0].address(), 4098);
        assert!(advance(rest, 4).is_empty());
    }

    #[test]
    fn what_is_cut_off_is_zeroes() {
        let mut memory = [0xee_u8; 64];
        let base = memory.as_mut_ptr();
        let pieces = [(1, 9), (10, 0), (10, 20), (30, 30)];
        for count in 0..=59 {
            // SAFETY: the memory is ours until the end of the test, and reached through `base` alone.
            let piece = |(at, iov_len)| unsafe {
                Buffer::new(libc::iovec { iov_base: base.add(at).cast(), iov_len })
            };
            // SAFETY: as above.
            unsafe { base.write_bytes(0xee, 64) };
            let mut buffers: Vec<_> = pieces.into_iter().map(piece).collect();
            truncate_and_zero(&mut buffers, count);
            assert_eq!(total(&buffers), Some(count as u64));
            assert!(buffers.iter().all(|buffer| !buffer.is_empty()));
            // SAFETY: as above.
            let byte = |at| unsafe { base.add(at).read() };
            let expected = |at: usize| if (1 + count..60).contains(&at) { 0 } else { 0xee };
            (0..64).for_each(|at| assert_eq!(byte(at), expected(at), "{count} {at}"));
        }
    }

    #[test]
    fn a_total_that_wraps_is_none() {
        assert_eq!(total(&[buffer(usize::MAX), buffer(1)]), None);
        assert_eq!(total(&[buffer(1), buffer(2)]), Some(3));
    }
}
