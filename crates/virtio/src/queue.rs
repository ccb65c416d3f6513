//! The split ring (virtio 1.3 §2.7), from the device's side.

use std::sync::atomic::{Ordering, fence};

use crate::ids::{VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC};
use crate::memory::{Area, Map};
use crate::{Chain, Interrupt, QueueSetup, QueueState};

/// The largest split ring (virtio 1.3 §2.7).
const MAX_SIZE: u16 = 32768;
/// Bytes of a descriptor (virtio 1.3 §2.7.5).
const DESCRIPTOR: u32 = 16;
/// Descriptor flags (virtio 1.3 §2.7.5).
const DESC_NEXT: u16 = 1;
const DESC_WRITE: u16 = 2;
const DESC_INDIRECT: u16 = 4;
/// Available flag: the driver wants no interrupts (virtio 1.3 §2.7.6).
const AVAIL_NO_INTERRUPT: u16 = 1;
/// Used flag: the device wants no kicks (virtio 1.3 §2.7.8).
const USED_NO_NOTIFY: u16 = 1;
/// Offsets of `flags`, `idx` and `ring` in both the available and the used ring.
const FLAGS: usize = 0;
const INDEX: usize = 2;
const RING: usize = 4;
/// Storage for longer chains than this is not kept for reuse: a driver that sends the longest
/// chains it can must not make a queue hold on to the square of its size.
const POOLED_SEGMENTS: usize = 256;

/// What is wrong with a ring. The first error latches the queue: every later pop repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// Size not a power of two up to 32768, an area not aligned, or one outside guest memory.
    #[error("queue areas are not aligned or not in guest memory")]
    Layout,
    /// The available index is more than the ring's size ahead of what the device took.
    #[error("the available index jumped by more than the queue size")]
    AvailableIndex,
    /// A chain starts at a descriptor beyond the table.
    #[error("a head is not below the queue size")]
    Head,
    /// A chain was made available again before the device gave it back.
    #[error("a head is in flight already")]
    HeadInFlight,
    /// A descriptor continues at one beyond its table.
    #[error("a descriptor's next is not below the size of its table")]
    Next,
    /// A chain has more descriptors than the queue (virtio 1.3 §2.7.5.2): it may be a loop.
    #[error("a chain is longer than the queue size")]
    ChainLength,
    /// An indirect descriptor, but `VIRTIO_F_INDIRECT_DESC` was not accepted.
    #[error("an indirect descriptor without the feature")]
    IndirectFeature,
    /// An indirect table whose length is zero, not a multiple of 16 bytes, or that of more than
    /// 65535 descriptors.
    #[error("an indirect table of a bad length")]
    IndirectLength,
    /// An indirect descriptor inside an indirect table.
    #[error("an indirect table in an indirect table")]
    IndirectNested,
    /// A descriptor both indirect and continued.
    #[error("an indirect descriptor with a next")]
    IndirectNext,
    /// A buffer or an indirect table that is not, or not all, in guest memory.
    #[error("a descriptor points outside guest memory")]
    Address,
    /// A buffer of no bytes. No driver sends one, and QEMU refuses it too.
    #[error("a buffer of no bytes")]
    EmptyBuffer,
    /// A buffer for the device to read after one for it to write (virtio 1.3 §2.7.4.2).
    #[error("a readable buffer after a writable one")]
    ReadableAfterWritable,
    /// A chain of 2^32 bytes or more: its used length could not be told.
    #[error("a chain of 2^32 bytes or more")]
    ChainBytes,
    /// For a handler: a well-formed chain that its device can neither serve nor answer.
    #[error("a request that cannot be answered")]
    Request,
}

/// A ring at work: chains come out of it in order and go back in any order.
///
/// Belongs to one thread. Nothing in it allocates once each descriptor chain's storage has been used.
pub struct Queue {
    map: Map,
    descriptors: Area,
    available: Area,
    used: Area,
    features: u64,
    size: u16,
    /// Free-running index of the next available entry to take.
    next_available: u16,
    /// The driver's available index when it was last looked at.
    seen_available: u16,
    /// Free-running index of the next used entry to write, and up to where they are published.
    next_used: u16,
    published: u16,
    /// One bit per descriptor: it heads a chain that was popped and not pushed.
    in_flight: Box<[u64]>,
    /// Storage of chains given back.
    pool: Vec<Chain>,
    /// Chains this turn may still take; a turn's budget is the ring's size.
    budget: u16,
    last_pop: Pop,
    /// Whether the driver was last asked to kick.
    wants_kicks: bool,
    call: Interrupt,
    latched: Option<RingError>,
}

/// How the last pop of a turn went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pop {
    /// There was none yet, or it found a chain.
    Chain,
    Empty,
    /// It was refused, and only that the ring is empty changes this until the next turn.
    OverBudget,
}

/// What a worker does after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Another turn at once: there is more in the ring.
    Again,
    /// Wait for an event.
    Wait,
}

/// A descriptor, read once.
struct Descriptor {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Queue {
    /// Checks the layout against guest memory and takes the ring at `setup.resume`.
    ///
    /// # Errors
    /// [`RingError::Layout`]: size, alignment or place of an area; each has to lie in one region.
    pub fn new(setup: &QueueSetup) -> Result<Queue, RingError> {
        let layout = &setup.layout;
        let size = layout.size;
        if !size.is_power_of_two() || size > MAX_SIZE {
            return Err(RingError::Layout);
        }
        let map = Map::new(&setup.memory);
        let entries = usize::from(size);
        let area = |addr, len, align| map.area(addr, len, align).ok_or(RingError::Layout);
        // The two rings end in an event index each (virtio 1.3 §2.7.6, §2.7.8), which is there
        // whether or not the feature is.
        let used = area(layout.used, RING + 8 * entries + 2, 4)?;
        let next_used = used.load_u16(INDEX, Ordering::Relaxed);
        Ok(Queue {
            descriptors: area(layout.descriptors, DESCRIPTOR as usize * entries, 16)?,
            available: area(layout.available, RING + 2 * entries + 2, 2)?,
            used,
            features: setup.features,
            size,
            next_available: setup.resume.next_available,
            seen_available: setup.resume.next_available,
            next_used,
            published: next_used,
            in_flight: vec![0; entries.div_ceil(64)].into(),
            pool: Vec::new(),
            budget: size,
            last_pop: Pop::Chain,
            wants_kicks: true,
            call: setup.call.clone(),
            latched: None,
            map,
        })
    }

    /// Takes the next chain; `None` when the ring is empty or this turn's budget is spent
    /// (the worker comes back for the rest).
    ///
    /// # Errors
    /// What is wrong with the ring. It has latched then: nothing comes out of it any more, but
    /// chains in flight can still be pushed.
    pub fn pop(&mut self) -> Result<Option<Chain>, RingError> {
        self.next_chain(true)
    }

    /// As [`Queue::pop`], whatever is left of this turn's budget: for a device that needs one more
    /// chain to finish what it has begun, such as a frame over several receive buffers. Work stays
    /// bounded, as there are never more chains in flight than descriptors.
    ///
    /// # Errors
    /// As [`Queue::pop`].
    pub fn pop_more(&mut self) -> Result<Option<Chain>, RingError> {
        self.next_chain(false)
    }

    /// Gives back the chain popped last, as if it had not been popped: for a device that finds it
    /// has nothing to put in it yet, or not enough of them. Several are undone last one first.
    pub fn undo_pop(&mut self, chain: Chain) {
        self.next_available = self.next_available.wrapping_sub(1);
        self.budget = self.size.min(self.budget + 1);
        self.recycle(chain);
    }

    /// Gives a chain back, with the number of bytes written to its writable part from its start.
    /// The driver sees it, and is interrupted if it asked to be, at the next [`Queue::flush`].
    pub fn push(&mut self, chain: Chain, written: u32) {
        let entry = RING + 8 * usize::from(self.next_used & (self.size - 1));
        self.used.store_u32(entry, u32::from(chain.head));
        self.used.store_u32(entry + 4, written);
        self.next_used = self.next_used.wrapping_add(1);
        self.recycle(chain);
    }

    /// Publishes what was pushed and signals the driver if it asked for it. The worker does so
    /// after each turn; a handler does so earlier only to shorten a wait.
    pub fn flush(&mut self) {
        let (old, new) = (self.published, self.next_used);
        if old == new {
            return;
        }
        self.published = new;
        // Release: whoever sees the index sees the entries, and the data written before them.
        self.used.store_u16(INDEX, new, Ordering::Release);
        // Either the driver sees the new index when it has set its event, or we see its event
        // (virtio 1.3 §2.7.8.2): that takes a full barrier on both sides.
        fence(Ordering::SeqCst);
        let wanted = if self.has(VIRTIO_F_EVENT_IDX) {
            let event = self.available.load_u16(RING + 2 * usize::from(self.size), Ordering::Relaxed);
            needs_event(event, new, old)
        } else {
            self.available.load_u16(FLAGS, Ordering::Relaxed) & AVAIL_NO_INTERRUPT == 0
        };
        if wanted {
            self.call.signal();
        }
    }

    /// The features the driver accepted.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.features
    }

    /// The ring's size in descriptors: the most chains there can be in flight.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Where the ring is.
    #[must_use]
    pub fn state(&self) -> QueueState {
        QueueState { next_available: self.next_available }
    }

    /// Starts a turn: a fresh budget, and no kicks until it is over.
    pub(crate) fn begin_turn(&mut self) {
        self.budget = self.size;
        self.last_pop = Pop::Chain;
        // With event indices the driver stays quiet by itself: it has passed the one it kicked for.
        if self.wants_kicks && !self.has(VIRTIO_F_EVENT_IDX) {
            self.used.store_u16(FLAGS, USED_NO_NOTIFY, Ordering::Relaxed);
        }
        self.wants_kicks = false;
    }

    /// Ends a turn: publishes, and asks for the next kick if the handler saw the ring empty. One
    /// that left chains in it on purpose waits for something else.
    pub(crate) fn end_turn(&mut self) -> Result<Turn, RingError> {
        self.flush();
        if let Some(error) = self.latched {
            return Err(error);
        }
        match self.last_pop {
            Pop::Chain => Ok(Turn::Wait),
            Pop::OverBudget => Ok(Turn::Again),
            Pop::Empty => {
                // The handler has seen all up to here, even if it took less or undid some.
                let seen = self.seen_available;
                self.ask_for_kick(seen);
                // What the driver added before it saw that we want kicks brings none.
                Ok(if self.available_index()? == seen { Turn::Wait } else { Turn::Again })
            }
        }
    }

    /// Marks the ring as broken. The first error stays.
    pub(crate) fn latch(&mut self, error: RingError) {
        self.latched.get_or_insert(error);
    }

    fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    /// Asks for a kick when the driver makes entry `index` available.
    fn ask_for_kick(&mut self, index: u16) {
        if self.has(VIRTIO_F_EVENT_IDX) {
            let event = RING + 8 * usize::from(self.size);
            self.used.store_u16(event, index, Ordering::Relaxed);
        } else {
            self.used.store_u16(FLAGS, 0, Ordering::Relaxed);
        }
        self.wants_kicks = true;
        // Pairs with the driver's barrier between its index and its look at what we just wrote.
        fence(Ordering::SeqCst);
    }

    /// Looks at the driver's index.
    fn available_index(&mut self) -> Result<u16, RingError> {
        // Acquire: the entries and descriptors up to this index are there.
        let index = self.available.load_u16(INDEX, Ordering::Acquire);
        if index.wrapping_sub(self.next_available) > self.size {
            self.latch(RingError::AvailableIndex);
            return Err(RingError::AvailableIndex);
        }
        self.seen_available = index;
        Ok(index)
    }

    fn next_chain(&mut self, within_budget: bool) -> Result<Option<Chain>, RingError> {
        match self.latched {
            Some(error) => Err(error),
            None => self.take_chain(within_budget).inspect_err(|&error| self.latch(error)),
        }
    }

    fn take_chain(&mut self, within_budget: bool) -> Result<Option<Chain>, RingError> {
        if self.seen_available == self.next_available && self.available_index()? == self.next_available {
            self.last_pop = Pop::Empty;
            return Ok(None);
        }
        if within_budget && self.budget == 0 {
            self.last_pop = Pop::OverBudget;
            return Ok(None);
        }
        let slot = usize::from(self.next_available & (self.size - 1));
        let head = self.available.load_u16(RING + 2 * slot, Ordering::Relaxed);
        if head >= self.size {
            return Err(RingError::Head);
        }
        let (word, bit) = (usize::from(head / 64), 1 << (head % 64));
        if self.in_flight[word] & bit != 0 {
            return Err(RingError::HeadInFlight);
        }
        let mut chain = self.pool.pop().unwrap_or_else(|| Chain::empty(&self.map));
        chain.head = head;
        self.walk(&mut chain)?;
        self.in_flight[word] |= bit;
        self.next_available = self.next_available.wrapping_add(1);
        self.budget = self.budget.saturating_sub(1);
        if self.last_pop != Pop::OverBudget {
            self.last_pop = Pop::Chain;
        }
        Ok(Some(chain))
    }

    /// Follows the descriptors from `chain.head` and fills in the rest of `chain`.
    fn walk(&self, chain: &mut Chain) -> Result<(), RingError> {
        let mut next = chain.head;
        let mut left = self.size;
        loop {
            left = left.checked_sub(1).ok_or(RingError::ChainLength)?;
            let descriptor = self.descriptor(next);
            let has_next = descriptor.flags & DESC_NEXT != 0;
            if descriptor.flags & DESC_INDIRECT != 0 {
                if !self.has(VIRTIO_F_INDIRECT_DESC) {
                    return Err(RingError::IndirectFeature);
                }
                if has_next {
                    return Err(RingError::IndirectNext);
                }
                // The descriptor of the table is none of the chain's buffers.
                return self.walk_indirect(chain, &descriptor, left + 1);
            }
            self.add(chain, &descriptor)?;
            if !has_next {
                return Ok(());
            }
            next = descriptor.next;
            if next >= self.size {
                return Err(RingError::Next);
            }
        }
    }

    /// Follows the descriptors of an indirect table, at most `left` of them.
    fn walk_indirect(&self, chain: &mut Chain, table: &Descriptor, mut left: u16) -> Result<(), RingError> {
        let entries = u16::try_from(table.len / DESCRIPTOR).map_err(|_| RingError::IndirectLength)?;
        if entries == 0 || !table.len.is_multiple_of(DESCRIPTOR) {
            return Err(RingError::IndirectLength);
        }
        let table = self.map.table(table.addr, table.len).ok_or(RingError::Address)?;
        let mut next = 0;
        loop {
            left = left.checked_sub(1).ok_or(RingError::ChainLength)?;
            let bytes = table.read(next).ok_or(RingError::Address)?;
            let descriptor = Descriptor::parse(u128::from_le_bytes(bytes));
            if descriptor.flags & DESC_INDIRECT != 0 {
                return Err(RingError::IndirectNested);
            }
            self.add(chain, &descriptor)?;
            if descriptor.flags & DESC_NEXT == 0 {
                return Ok(());
            }
            next = descriptor.next;
            if next >= entries {
                return Err(RingError::Next);
            }
        }
    }

    /// Adds a descriptor's buffer to a chain.
    fn add(&self, chain: &mut Chain, descriptor: &Descriptor) -> Result<(), RingError> {
        let len = descriptor.len;
        if len == 0 {
            return Err(RingError::EmptyBuffer);
        }
        let writable = descriptor.flags & DESC_WRITE != 0;
        if !writable && chain.writable_len > 0 {
            return Err(RingError::ReadableAfterWritable);
        }
        // The sum of the two before was checked here.
        (chain.readable_len + chain.writable_len).checked_add(len).ok_or(RingError::ChainBytes)?;
        self.map.append(&mut chain.segments, descriptor.addr, len).ok_or(RingError::Address)?;
        if writable {
            chain.writable_len += len;
        } else {
            chain.readable_len += len;
            chain.readable = chain.segments.as_slice().len();
        }
        Ok(())
    }

    fn descriptor(&self, index: u16) -> Descriptor {
        let offset = DESCRIPTOR as usize * usize::from(index);
        let (low, high) = (self.descriptors.load_u64(offset), self.descriptors.load_u64(offset + 8));
        Descriptor::parse(u128::from(high) << 64 | u128::from(low))
    }

    /// Takes back the storage of a chain of this queue.
    fn recycle(&mut self, mut chain: Chain) {
        let (word, bit) = (usize::from(chain.head / 64), 1 << (chain.head % 64));
        let flags = self.in_flight.get_mut(word).filter(|flags| **flags & bit != 0);
        *flags.expect("a chain goes back to the queue it came from") &= !bit;
        if chain.segments.capacity() <= POOLED_SEGMENTS {
            chain.clear();
            self.pool.push(chain);
        }
    }
}

impl Descriptor {
    /// Takes a descriptor apart: le64 addr, le32 len, le16 flags, le16 next (virtio 1.3 §2.7.5).
    fn parse(raw: u128) -> Self {
        let [low, high] = [raw as u64, (raw >> 64) as u64];
        Self { addr: low, len: high as u32, flags: (high >> 32) as u16, next: (high >> 48) as u16 }
    }
}

/// Whether moving a free-running index from `old` to `new` passes `event` (virtio 1.3 §2.7.10).
fn needs_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
