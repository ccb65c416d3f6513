//! Guest memory a model driver allocates from.

#![expect(unsafe_code, reason = "a file in memory is made by a system call that nothing here wraps")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::sync::{Arc, Mutex};

use vm_memory::{Address, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::GuestMemory;

/// Bytes in a page of a file.
const PAGE: u64 = 4096;

/// Guest memory with an allocator: clones share both.
///
/// A block may span two regions that meet, as a real driver's buffers do.
#[derive(Clone)]
pub struct Arena {
    memory: Arc<GuestMemory>,
    /// Free blocks: start to length, never adjacent.
    free: Arc<Mutex<BTreeMap<u64, u64>>>,
}

impl Arena {
    /// One region of `len` bytes at address zero.
    ///
    /// # Panics
    /// The host has no memory to map.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self::of_regions(&[(0, len)])
    }

    /// Several regions: addresses and lengths in bytes, ascending. All of them are in one
    /// file, so that another process can map them.
    ///
    /// # Panics
    /// They overlap, or the host has no memory to map.
    #[must_use]
    pub fn of_regions(regions: &[(u64, usize)]) -> Self {
        let len = regions.iter().map(|(_, len)| (*len as u64).next_multiple_of(PAGE)).sum();
        let file = Arc::new(memory_file(len).expect("the host has memory"));
        let mut offset = 0;
        let region = |&(start, len): &(u64, usize)| {
            let place = FileOffset::from_arc(Arc::clone(&file), offset);
            offset += (len as u64).next_multiple_of(PAGE);
            (GuestAddress(start), len, Some(place))
        };
        let regions: Vec<_> = regions.iter().map(region).collect();
        let memory = GuestMemory::from_ranges_with_files(&regions).expect("regions can be mapped");
        Self::of_memory(Arc::new(memory))
    }

    /// All of a memory made elsewhere.
    #[must_use]
    pub fn of_memory(memory: Arc<GuestMemory>) -> Self {
        let arena = Self { memory, free: Arc::default() };
        for region in arena.memory.iter() {
            arena.release(region.start_addr().raw_value(), region.len());
        }
        arena
    }

    /// The memory itself.
    #[must_use]
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Address of a block of `len` bytes, a multiple of `align` (a power of two); the lowest there is.
    ///
    /// # Panics
    /// There is no such block: the test wants more memory.
    #[must_use]
    pub fn alloc(&self, len: u64, align: u64) -> u64 {
        self.find(len, align, |_| true)
    }

    /// As [`Arena::alloc`], and inside one region: for the areas of a ring.
    ///
    /// # Panics
    /// There is no such block.
    #[must_use]
    pub fn alloc_in_one_region(&self, len: u64, align: u64) -> u64 {
        self.find(len, align, |start| {
            let region = self.memory.find_region(GuestAddress(start));
            region.is_some_and(|region| region.last_addr().raw_value() - start >= len - 1)
        })
    }

    /// Gives a block back.
    ///
    /// # Panics
    /// Another thread panicked in here.
    pub fn release(&self, mut start: u64, mut len: u64) {
        let mut free = self.free.lock().expect("no panic while it is held");
        if let Some((&before, &before_len)) = free.range(..start).next_back()
            && before + before_len == start
        {
            free.remove(&before);
            (start, len) = (before, before_len + len);
        }
        if let Some(after_len) = free.remove(&(start + len)) {
            len += after_len;
        }
        free.insert(start, len);
    }

    fn find(&self, len: u64, align: u64, fits: impl Fn(u64) -> bool) -> u64 {
        let mut free = self.free.lock().expect("no panic while it is held");
        let block = free.iter().find_map(|(&start, &room)| {
            // The first place in the block, or the first one in a later page of it.
            let mut at = start.next_multiple_of(align);
            while at + len <= start + room {
                if fits(at) {
                    return Some((start, room, at));
                }
                at = (at + 1).next_multiple_of(align.max(4096));
            }
            None
        });
        let (start, room, at) = block.expect("the arena has room");
        free.remove(&start);
        if at > start {
            free.insert(start, at - start);
        }
        if at + len < start + room {
            free.insert(at + len, start + room - at - len);
        }
        at
    }
}

/// A file of `len` zero bytes that is only in memory.
fn memory_file(len: u64) -> io::Result<File> {
    // SAFETY: the name is a C string; the call touches nothing else of ours.
    let fd = unsafe { libc::memfd_create(c"test memory".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(len)?;
    Ok(file)
}
