//! Guest memory as raw host memory: the one place where its bytes are touched.
//!
//! The guest (and the kernel, in a vectored call) may change these bytes at any time, so no Rust
//! reference is ever made of them: ring fields are aligned atomics, everything else is copied.
//! Pointers handed around here stay valid because whoever holds one holds the [`GuestMemory`] too.

#![expect(
    unsafe_code,
    reason = "guest memory is shared with the guest, so it is only reached by raw pointer"
)]

use std::any::Any;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress, MmapRegion};

use crate::GuestMemory;

/// A piece of guest memory in a chain, checked against the memory map when the chain was popped.
/// It points at host memory and is valid while its chain lives.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub struct Segment(libc::iovec);

// SAFETY: a segment is an address and a length; using the address is the business of whoever makes
// a system call with it, or of `Cursor`, which copies by raw pointer from any thread.
unsafe impl Send for Segment {}
// SAFETY: as above; nothing can be changed through a shared segment.
unsafe impl Sync for Segment {}

impl Segment {
    /// Host address and length for a vectored system call. The kernel may write there while the
    /// guest does: nobody may make a Rust reference of it.
    #[must_use]
    pub fn as_iovec(&self) -> libc::iovec {
        self.0
    }

    /// Length in bytes, never zero.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iov_len
    }

    /// Whether there is nothing in it; never, for a segment of a chain.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iov_len == 0
    }

    fn host(&self) -> *mut u8 {
        self.0.iov_base.cast()
    }

    /// The part of this segment that starts `offset` bytes in and is at most `len` long.
    fn part(self, offset: usize, len: usize) -> Self {
        debug_assert!(offset <= self.len());
        let base = self.host().wrapping_add(offset);
        Self(libc::iovec { iov_base: base.cast(), iov_len: len.min(self.len() - offset) })
    }
}

/// The memory map of one queue, flattened: guest addresses to host addresses.
pub(crate) struct Map {
    regions: Box<[Region]>,
    memory: Arc<GuestMemory>,
}

#[derive(Clone, Copy)]
struct Region {
    start: u64,
    last: u64,
    host: *mut u8,
}

// SAFETY: the pointers are into `memory`, which the map keeps alive and which is itself Send and Sync.
unsafe impl Send for Map {}

impl Map {
    pub(crate) fn new(memory: &Arc<GuestMemory>) -> Self {
        let regions = memory
            .iter()
            .filter_map(|region| {
                let host = region.get_host_address(MemoryRegionAddress(0)).ok()?;
                Some(Region {
                    start: region.start_addr().raw_value(),
                    last: region.last_addr().raw_value(),
                    host,
                })
            })
            .collect();
        Self { regions, memory: Arc::clone(memory) }
    }

    /// The host memory at `addr`: at most `len` bytes of it, as much as lies in one region.
    fn piece(&self, addr: u64, len: u64) -> Option<(*mut u8, u64)> {
        let after = self.regions.partition_point(|region| region.start <= addr);
        let region = &self.regions[after.checked_sub(1)?];
        let left = region.last.checked_sub(addr)?; // bytes after the first one
        let offset = usize::try_from(addr - region.start).ok()?;
        Some((region.host.wrapping_add(offset), if len - 1 <= left { len } else { left + 1 }))
    }

    /// The `len` bytes at `addr` as one area of host memory; `None` unless they lie in one region
    /// and are aligned to `align` on both sides.
    pub(crate) fn area(&self, addr: u64, len: usize, align: usize) -> Option<Area> {
        let wanted = u64::try_from(len).ok()?;
        let (base, got) = self.piece(addr, wanted)?;
        let aligned = addr.is_multiple_of(align as u64) && base.addr().is_multiple_of(align);
        let owner: Arc<dyn Any + Send + Sync> = Arc::clone(&self.memory) as _;
        (got == wanted && aligned).then_some(Area { base, len, _owner: owner })
    }

    /// Appends the `len` bytes at `addr`, not none, to `segments`, split where regions meet. `None`
    /// when not all of them are in guest memory; `segments` may have grown then.
    pub(crate) fn append(&self, segments: &mut Segments, mut addr: u64, len: u32) -> Option<()> {
        debug_assert!(Arc::ptr_eq(&self.memory, &segments.memory));
        let mut left = u64::from(len);
        loop {
            let (base, got) = self.piece(addr, left)?;
            segments
                .list
                .push(Segment(libc::iovec { iov_base: base.cast(), iov_len: usize::try_from(got).ok()? }));
            left -= got;
            if left == 0 {
                return Some(());
            }
            addr = addr.checked_add(got)?;
        }
    }

    /// The table of indirect descriptors in the `len` bytes at `addr`; `None` when its start is not
    /// in guest memory.
    pub(crate) fn table(&self, addr: u64, len: u32) -> Option<Table<'_>> {
        let (base, got) = self.piece(addr, u64::from(len))?;
        Some(Table { map: self, addr, base, len: got })
    }

    /// Copies out the 16 bytes at `addr`, wherever they lie and however they are aligned.
    fn read_16(&self, mut addr: u64) -> Option<[u8; 16]> {
        let mut bytes = [0; 16];
        let mut done = 0;
        while done < bytes.len() {
            let (base, got) = self.piece(addr, (bytes.len() - done) as u64)?;
            let got = usize::try_from(got).ok()?;
            // SAFETY: `piece` returned `got` bytes of a region that `self.memory` keeps mapped, and
            // `bytes` has room for them: `got` is at most what is left of it.
            unsafe { ptr::copy_nonoverlapping(base.cast_const(), bytes[done..done + got].as_mut_ptr(), got) };
            done += got;
            addr = addr.checked_add(got as u64)?;
        }
        Some(bytes)
    }
}

/// Indirect descriptors, wherever they lie and however they are aligned.
pub(crate) struct Table<'a> {
    map: &'a Map,
    addr: u64,
    /// What of the table lies in the region it starts in: all of it, nearly always.
    base: *mut u8,
    len: u64,
}

impl Table<'_> {
    /// Copies out descriptor `index`; `None` when it is not in guest memory.
    pub(crate) fn read(&self, index: u16) -> Option<[u8; 16]> {
        let offset = 16 * u64::from(index);
        if offset + 16 > self.len {
            return self.map.read_16(self.addr.checked_add(offset)?);
        }
        let at = self.base.wrapping_add(16 * usize::from(index));
        let mut bytes = [0; 16];
        // SAFETY: `piece` returned `len` bytes of a region that `map.memory` keeps mapped, and these
        // are 16 of them.
        unsafe { ptr::copy_nonoverlapping(at.cast_const(), bytes.as_mut_ptr(), 16) };
        Some(bytes)
    }
}

/// Memory whose fields both sides read and write at once: a part of a ring, or what is written down
/// about one for another process.
pub(crate) struct Area {
    base: *mut u8,
    len: usize,
    _owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the memory behind `base` is kept mapped by `_owner` and only reached by atomics.
unsafe impl Send for Area {}

impl Area {
    /// The `len` bytes from `offset` of a mapping; `None` unless they are in it.
    pub(crate) fn of_mapping(mapping: &Arc<MmapRegion>, offset: usize, len: usize) -> Option<Self> {
        (offset.checked_add(len)? <= mapping.size()).then(|| Self {
            base: mapping.as_ptr().wrapping_add(offset),
            len,
            _owner: Arc::clone(mapping) as _,
        })
    }

    /// Host address of the field of `T` at `offset` bytes.
    fn field<T>(&self, offset: usize) -> *mut T {
        let field = self.base.wrapping_add(offset).cast::<T>();
        assert!(offset + size_of::<T>() <= self.len && field.is_aligned(), "a field is inside its area");
        field
    }

    pub(crate) fn load_u8(&self, offset: usize) -> u8 {
        // SAFETY: `field` checked bounds and alignment, and `_owner` keeps the area mapped.
        unsafe { AtomicU8::from_ptr(self.field(offset)) }.load(Ordering::Acquire)
    }

    pub(crate) fn store_u8(&self, offset: usize, value: u8) {
        if !lands() {
            return;
        }
        // SAFETY: as in `load_u8`.
        unsafe { AtomicU8::from_ptr(self.field(offset)) }.store(value, Ordering::Release);
    }

    pub(crate) fn load_u16(&self, offset: usize, order: Ordering) -> u16 {
        // SAFETY: as in `load_u8`.
        u16::from_le(unsafe { AtomicU16::from_ptr(self.field(offset)) }.load(order))
    }

    pub(crate) fn store_u16(&self, offset: usize, value: u16, order: Ordering) {
        if !lands() {
            return;
        }
        // SAFETY: as in `load_u8`.
        unsafe { AtomicU16::from_ptr(self.field(offset)) }.store(value.to_le(), order);
    }

    pub(crate) fn store_u32(&self, offset: usize, value: u32) {
        if !lands() {
            return;
        }
        // SAFETY: as in `load_u8`.
        unsafe { AtomicU32::from_ptr(self.field(offset)) }.store(value.to_le(), Ordering::Relaxed);
    }

    pub(crate) fn load_u64(&self, offset: usize) -> u64 {
        // SAFETY: as in `load_u8`.
        u64::from_le(unsafe { AtomicU64::from_ptr(self.field(offset)) }.load(Ordering::Relaxed))
    }

    pub(crate) fn store_u64(&self, offset: usize, value: u64) {
        if !lands() {
            return;
        }
        // SAFETY: as in `load_u8`.
        unsafe { AtomicU64::from_ptr(self.field(offset)) }.store(value.to_le(), Ordering::Release);
    }
}

/// Whether a write to shared memory takes place. It does, but for tests of what happens when a
/// process ends.
#[cfg(not(feature = "testing"))]
pub(crate) const fn lands() -> bool {
    true
}
#[cfg(feature = "testing")]
pub(crate) use crate::testing::lands;

/// The segments of one chain, with the memory they point into.
pub(crate) struct Segments {
    list: Vec<Segment>,
    memory: Arc<GuestMemory>,
}

impl Segments {
    pub(crate) fn new(map: &Map) -> Self {
        Self { list: Vec::new(), memory: Arc::clone(&map.memory) }
    }

    pub(crate) fn as_slice(&self) -> &[Segment] {
        &self.list
    }

    pub(crate) fn capacity(&self) -> usize {
        self.list.capacity()
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }

    /// A cursor over the segments from `from` up to `to`, which hold `len` bytes together.
    pub(crate) fn cursor(&self, from: usize, to: usize, len: usize) -> Cursor<'_> {
        let list = &self.list[from..to];
        debug_assert_eq!(len, list.iter().map(Segment::len).sum::<usize>());
        Cursor { rest: list, offset: 0, left: len }
    }
}

/// A place in the segments of a living chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    rest: &'a [Segment],
    /// Bytes of `rest[0]` already passed, less than its length.
    offset: usize,
    /// Bytes ahead.
    left: usize,
}

impl Cursor<'_> {
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// The next piece of at most `max` bytes; `None` at the end, or when `max` is zero.
    pub(crate) fn advance(&mut self, max: usize) -> Option<Segment> {
        let first = self.rest.first().filter(|_| max > 0)?;
        let piece = first.part(self.offset, max);
        self.offset += piece.len();
        self.left -= piece.len();
        if self.offset == first.len() {
            self.rest = &self.rest[1..];
            self.offset = 0;
        }
        Some(piece)
    }

    /// Moves up to `count` bytes ahead and says how many.
    pub(crate) fn skip(&mut self, count: usize) -> usize {
        let mut done = 0;
        while let Some(piece) = self.advance(count - done) {
            done += piece.len();
        }
        done
    }

    /// Appends the next `count` bytes to `out` as pieces; `None`, and nothing moved, if fewer are left.
    pub(crate) fn take(&mut self, count: usize, out: &mut Vec<Segment>) -> Option<()> {
        if count > self.left {
            return None;
        }
        let mut done = 0;
        while let Some(piece) = self.advance(count - done) {
            done += piece.len();
            out.push(piece);
        }
        Some(())
    }

    /// Copies out up to `data.len()` bytes and says how many.
    pub(crate) fn read(&mut self, data: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(piece) = self.advance(data.len() - done) {
            let to = &mut data[done..done + piece.len()];
            // SAFETY: the piece is inside guest memory, which the chain this cursor borrows from
            // keeps mapped; `to` is ours, as long as the piece, and never in guest memory.
            unsafe { ptr::copy_nonoverlapping(piece.host().cast_const(), to.as_mut_ptr(), to.len()) };
            done += piece.len();
        }
        done
    }

    /// Copies in up to `data.len()` bytes and says how many.
    pub(crate) fn write(&mut self, data: &[u8]) -> usize {
        let mut done = 0;
        while let Some(piece) = self.advance(data.len() - done) {
            let from = &data[done..done + piece.len()];
            // SAFETY: as in `read`, the other way round.
            unsafe { ptr::copy_nonoverlapping(from.as_ptr(), piece.host(), from.len()) };
            done += piece.len();
        }
        done
    }

    /// Writes up to `count` zero bytes and says how many.
    pub(crate) fn zero(&mut self, count: usize) -> usize {
        let mut done = 0;
        while let Some(piece) = self.advance(count - done) {
            // SAFETY: as in `read`: the piece is mapped guest memory of this length.
            unsafe { ptr::write_bytes(piece.host(), 0, piece.len()) };
            done += piece.len();
        }
        done
    }
}
