//! One request of the driver: a chain of descriptors, walked and checked once.

use vm_memory::ByteValued;

pub use crate::memory::Segment;
use crate::memory::{Cursor, Map, Segments};

/// A chain of descriptors taken from a ring: first what the device reads, then what it writes.
///
/// It owns its walk (nothing in it is read from guest memory again), keeps guest memory alive, and
/// may move between threads. Give it back with [`crate::Queue::push`]; its storage is reused, so a
/// queue at work allocates nothing. A chain that is dropped instead is lost to the driver until the
/// device is reset.
#[must_use = "a chain goes back to its queue by push or undo_pop"]
pub struct Chain {
    pub(crate) head: u16,
    pub(crate) segments: Segments,
    /// How many of the segments the device reads.
    pub(crate) readable: usize,
    /// Bytes; both together are less than 2^32.
    pub(crate) readable_len: u32,
    pub(crate) writable_len: u32,
    /// Guest addresses and lengths of what the device writes, if writes are logged.
    pub(crate) logged: Vec<(u64, u32)>,
    pub(crate) recovered: bool,
    /// What whoever took it before said of it, or 0.
    pub(crate) note: u64,
}

impl Chain {
    /// Storage for a chain of a queue.
    pub(crate) fn empty(map: &Map) -> Self {
        Self {
            head: 0,
            segments: Segments::new(map),
            readable: 0,
            readable_len: 0,
            writable_len: 0,
            logged: Vec::new(),
            recovered: false,
            note: 0,
        }
    }

    pub(crate) fn clear(&mut self) {
        let Self { head, segments, readable, readable_len, writable_len, logged, recovered, note } = self;
        segments.clear();
        logged.clear();
        (*head, *readable, *recovered, *note) = (0, 0, false, 0);
        (*readable_len, *writable_len) = (0, 0);
    }

    /// Index of the chain's first descriptor; unique among the chains in flight of one queue.
    #[must_use]
    pub fn head(&self) -> u16 {
        self.head
    }

    /// Whether it had been taken before, by whoever ran the queue until then: its work may be done.
    #[must_use]
    pub fn is_recovered(&self) -> bool {
        self.recovered
    }

    /// What was said of it with [`Queue::note`](crate::Queue::note) when it was taken before. Others may
    /// have written there: it is no more than a hint.
    #[must_use]
    pub fn note(&self) -> Option<u64> {
        (self.note != 0).then_some(self.note)
    }

    /// The part the device reads, in order.
    #[must_use]
    pub fn readable(&self) -> &[Segment] {
        &self.segments.as_slice()[..self.readable]
    }

    /// The part the device writes, in order.
    #[must_use]
    pub fn writable(&self) -> &[Segment] {
        &self.segments.as_slice()[self.readable..]
    }

    /// Length of the readable part in bytes. Both parts together are less than 2^32.
    #[must_use]
    pub fn readable_len(&self) -> usize {
        self.readable_len as usize
    }

    /// Length of the writable part in bytes.
    #[must_use]
    pub fn writable_len(&self) -> usize {
        self.writable_len as usize
    }

    /// A cursor over the readable part.
    #[must_use]
    pub fn reader(&self) -> Reader<'_> {
        Reader { at: self.segments.cursor(0, self.readable, self.readable_len()) }
    }

    /// A cursor over the writable part.
    #[must_use]
    pub fn writer(&self) -> Writer<'_> {
        let start = self.segments.cursor(self.readable, self.segments.as_slice().len(), self.writable_len());
        Writer { start, at: start }
    }
}

/// A cursor over what the device may read. Each byte is read once.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    at: Cursor<'a>,
}

impl Reader<'_> {
    /// Bytes left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.at.left()
    }

    /// Copies the next bytes out; `None`, and nothing moved, when fewer than `data.len()` are left.
    pub fn read_exact(&mut self, data: &mut [u8]) -> Option<()> {
        (data.len() <= self.remaining()).then(|| {
            self.at.read(data);
        })
    }

    /// Copies out up to `data.len()` bytes and says how many.
    pub fn read(&mut self, data: &mut [u8]) -> usize {
        self.at.read(data)
    }

    /// Copies out a plain value (little-endian fields are the caller's business).
    pub fn read_obj<T: ByteValued>(&mut self) -> Option<T> {
        let mut value = T::zeroed();
        self.read_exact(value.as_mut_slice())?;
        Some(value)
    }

    /// Skips up to `count` bytes and says how many.
    pub fn skip(&mut self, count: usize) -> usize {
        self.at.skip(count)
    }

    /// The next `count` bytes as pieces for `readv`-like calls, appended to `out`; `None`, with
    /// nothing appended or moved, when fewer are left. Moves past them.
    pub fn take_segments(&mut self, count: usize, out: &mut Vec<Segment>) -> Option<()> {
        self.at.take(count, out)
    }
}

/// A cursor over what the device may write.
#[derive(Debug)]
pub struct Writer<'a> {
    start: Cursor<'a>,
    at: Cursor<'a>,
}

impl Writer<'_> {
    /// Bytes of room left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.at.left()
    }

    /// Bytes written (or skipped, or handed out) so far: what [`crate::Queue::push`] wants.
    #[must_use]
    pub fn written(&self) -> usize {
        self.start.left() - self.at.left()
    }

    /// Copies all of `data` in; `None`, and nothing written, when there is less room.
    pub fn write_all(&mut self, data: &[u8]) -> Option<()> {
        (data.len() <= self.remaining()).then(|| {
            self.at.write(data);
        })
    }

    /// Copies in as much of `data` as there is room for and says how much.
    pub fn write(&mut self, data: &[u8]) -> usize {
        self.at.write(data)
    }

    /// Copies a plain value in.
    pub fn write_obj<T: ByteValued>(&mut self, value: T) -> Option<()> {
        self.write_all(value.as_slice())
    }

    /// Fills up to `count` bytes with zero and says how many.
    pub fn write_zeroes(&mut self, count: usize) -> usize {
        self.at.zero(count)
    }

    /// Skips up to `count` bytes and says how many.
    pub fn skip(&mut self, count: usize) -> usize {
        self.at.skip(count)
    }

    /// The next `count` bytes of room as pieces for `readv`-like calls, appended to `out`; `None`,
    /// with nothing appended or moved, when there is less room. Moves past them.
    pub fn take_segments(&mut self, count: usize, out: &mut Vec<Segment>) -> Option<()> {
        self.at.take(count, out)
    }

    /// Overwrites `data.len()` bytes `offset` bytes from the start of the writable part, without
    /// moving: a header completed after its payload, a status at the very end. `None`, and nothing
    /// written, when they do not fit in the writable part.
    pub fn patch(&mut self, offset: usize, data: &[u8]) -> Option<()> {
        let end = offset.checked_add(data.len())?;
        (end <= self.start.left()).then(|| {
            let mut at = self.start;
            at.skip(offset);
            at.write(data);
        })
    }
}
