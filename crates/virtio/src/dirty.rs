//! Pages of guest memory that were written to (vhost-user, "Migration").
#![expect(unsafe_code, reason = "the log is shared with another process, so it is only reached by atomics")]

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use vm_memory::{FileOffset, MmapRegion};

use crate::memory::lands;

/// Bytes of guest memory that one bit stands for.
const PAGE: u64 = 4096;

/// What a queue marks, and where.
#[derive(Clone)]
pub struct Dirty {
    /// Pages of buffers, by guest-physical address.
    pub log: Arc<DirtyLog>,
    /// Address under which writes to the used ring are marked, from its start; `None` marks none.
    pub used_ring: Option<u64>,
}

/// One bit for each page of guest memory, shared with whoever copies it: page `n` is bit `n % 8` of
/// byte `n / 8`. May be marked from any thread.
pub struct DirtyLog {
    mapping: MmapRegion,
}

impl DirtyLog {
    /// Maps `len` bytes of `file` from `offset`.
    ///
    /// # Errors
    /// The file is shorter (`InvalidInput`), or the host refuses.
    pub fn map(file: File, offset: u64, len: u64) -> io::Result<Self> {
        Ok(Self { mapping: map(file, offset, len)? })
    }

    /// The file it is in, where in that it begins, and its bytes: to pass it to another process.
    #[must_use]
    pub fn file(&self) -> Option<(&File, u64, u64)> {
        let file = self.mapping.file_offset()?;
        Some((file.file(), file.start(), self.mapping.size() as u64))
    }

    /// Marks the pages of the `len` bytes at `start`. What lies beyond the log is not marked, and
    /// the answer is no.
    pub fn mark(&self, start: u64, len: u64) -> bool {
        let Some(last) = start.checked_add(len.max(1) - 1) else { return false };
        let (first, last) = (start / PAGE, last / PAGE);
        let known = self.mapping.size() as u64 * 8;
        if !lands() {
            return true;
        }
        for page in first..(last + 1).min(known) {
            let byte = self.mapping.as_ptr().wrapping_add((page / 8) as usize);
            // SAFETY: `page` is below `known`, so the byte is inside the mapping, which lives as long
            // as `self`; bytes are always aligned.
            unsafe { AtomicU8::from_ptr(byte) }.fetch_or(1 << (page % 8), Ordering::Release);
        }
        last < known
    }
}

/// Maps `len` bytes of `file` from `offset` (of any alignment the host takes), shared.
pub(crate) fn map(file: File, offset: u64, len: u64) -> io::Result<MmapRegion> {
    let end = offset.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
    if len == 0 || file.metadata()?.len() < end {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let size = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
    MmapRegion::from_file(FileOffset::new(file, offset), size).map_err(io::Error::other)
}
