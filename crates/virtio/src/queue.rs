//! The split ring (virtio 1.3 §2.7), from the device's side.

use std::sync::atomic::{Ordering, fence};

use crate::descriptors::{DESCRIPTOR, Descriptors};
use crate::ids::{VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC};
use crate::inflight::{Journal, MAX_NOTE};
use crate::memory::{Area, Map};
use crate::{Chain, Dirty, Interrupt, QueueSetup, QueueState, RingError};

/// The largest split ring (virtio 1.3 §2.7).
const MAX_SIZE: u16 = 32768;
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

/// A ring at work: chains come out of it in order and go back in any order.
///
/// Belongs to one thread. Nothing in it allocates once each descriptor chain's storage has been used.
pub struct Queue {
    descriptors: Descriptors,
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
    /// Where requests in flight are written down.
    journal: Option<Journal>,
    /// Heads that were in flight when another process ended: the last one comes out first, and all
    /// of them before anything new.
    recovered: Vec<u16>,
    dirty: Option<Dirty>,
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

impl Queue {
    /// Checks the layout against guest memory and takes the ring at `setup.resume`, or where the
    /// requests left off that `setup.inflight` has.
    ///
    /// # Errors
    /// [`RingError::Layout`]: size, alignment or place of an area; each has to lie in one region.
    /// [`RingError::Inflight`]: the region is unfit or inconsistent.
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
        let available = area(layout.available, RING + 2 * entries + 2, 2)?;
        let table = area(layout.descriptors, DESCRIPTOR as usize * entries, 16)?;
        let next_used = used.load_u16(INDEX, Ordering::Relaxed);
        let open = |inflight| Journal::open(inflight, size, next_used);
        let (journal, recovered) = setup.inflight.as_ref().map(open).transpose()?.unzip();
        let recovered: Vec<u16> = recovered.unwrap_or_default();
        let next_available = match recovered.len() {
            0 => setup.resume.next_available,
            // What was taken is what was given back and what was not: there are no more than `size`.
            count => next_used.wrapping_add(count as u16),
        };
        let has = |feature| setup.features & feature != 0;
        let (indirect, logs) = (has(VIRTIO_F_INDIRECT_DESC), setup.dirty.is_some());
        let queue = Queue {
            descriptors: Descriptors { map, table, size, indirect, logs },
            available,
            used,
            features: setup.features,
            size,
            next_available,
            seen_available: next_available,
            next_used,
            published: next_used,
            in_flight: vec![0; entries.div_ceil(64)].into(),
            pool: Vec::new(),
            budget: size,
            last_pop: Pop::Chain,
            wants_kicks: true,
            call: setup.call.clone(),
            latched: None,
            journal,
            recovered,
            dirty: setup.dirty.clone(),
        };
        // Somebody before us may have ended between a write and its mark.
        queue.mark_used(0, RING + 8 * entries + 2);
        Ok(queue)
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
        if chain.recovered {
            self.recovered.push(chain.head);
        } else {
            self.next_available = self.next_available.wrapping_sub(1);
            if let Some(journal) = &mut self.journal {
                journal.undone(chain.head);
            }
        }
        self.budget = self.size.min(self.budget + 1);
        self.recycle(chain);
    }

    /// Says something of a chain in flight, by its head, for whoever takes it should this process end
    /// before the chain comes back: a number of at most 40 bits, which replaces the one before. Larger
    /// ones, and where requests in flight are not written down, are forgotten.
    pub fn note(&mut self, head: u16, note: u64) {
        let (word, bit) = (usize::from(head / 64), 1 << (head % 64));
        let in_flight = self.in_flight.get(word).is_some_and(|bits| bits & bit != 0);
        if in_flight
            && note <= MAX_NOTE
            && let Some(journal) = &mut self.journal
        {
            journal.note(head, note);
        }
    }

    /// Gives a chain back, with the number of bytes written to its writable part from its start.
    /// The driver sees it, and is interrupted if it asked to be, at the next [`Queue::flush`].
    pub fn push(&mut self, chain: Chain, written: u32) {
        let entry = RING + 8 * usize::from(self.next_used & (self.size - 1));
        self.used.store_u32(entry, u32::from(chain.head));
        self.used.store_u32(entry + 4, written);
        self.next_used = self.next_used.wrapping_add(1);
        if let Some(journal) = &mut self.journal {
            journal.pushed(chain.head);
        }
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
        self.mark_entries(old, new);
        // Release: whoever sees the index sees the entries, and the data written before them.
        self.used.store_u16(INDEX, new, Ordering::Release);
        self.mark_used(INDEX, 2);
        if let Some(journal) = &mut self.journal {
            journal.published(new);
        }
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

    /// Something that changes whenever chains were taken or given back.
    pub(crate) fn progress(&self) -> (u16, u16) {
        (self.next_available, self.next_used)
    }

    /// Whether this turn took all there was.
    pub(crate) fn was_emptied(&self) -> bool {
        self.latched.is_none() && self.last_pop == Pop::Empty
    }

    /// Whether the driver has made something available since it was looked at.
    pub(crate) fn has_news(&self) -> bool {
        self.available.load_u16(INDEX, Ordering::Relaxed) != self.seen_available
    }

    /// Starts a turn: a fresh budget, and no kicks until it is over.
    pub(crate) fn begin_turn(&mut self) {
        self.budget = self.size;
        self.last_pop = Pop::Chain;
        // With event indices the driver stays quiet by itself: it has passed the one it kicked for.
        if self.wants_kicks && !self.has(VIRTIO_F_EVENT_IDX) {
            self.used.store_u16(FLAGS, USED_NO_NOTIFY, Ordering::Relaxed);
            self.mark_used(FLAGS, 2);
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
        let (field, value) = match self.has(VIRTIO_F_EVENT_IDX) {
            true => (RING + 8 * usize::from(self.size), index),
            false => (FLAGS, 0),
        };
        self.used.store_u16(field, value, Ordering::Relaxed);
        self.mark_used(field, 2);
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
        let recovered = self.recovered.last().copied();
        if recovered.is_none() && !self.has_available()? {
            self.last_pop = Pop::Empty;
            return Ok(None);
        }
        if within_budget && self.budget == 0 {
            self.last_pop = Pop::OverBudget;
            return Ok(None);
        }
        let slot = usize::from(self.next_available & (self.size - 1));
        let head = recovered.unwrap_or_else(|| self.available.load_u16(RING + 2 * slot, Ordering::Relaxed));
        if head >= self.size {
            return Err(RingError::Head);
        }
        let (word, bit) = (usize::from(head / 64), 1 << (head % 64));
        if self.in_flight[word] & bit != 0 {
            return Err(RingError::HeadInFlight);
        }
        let mut chain = self.pool.pop().unwrap_or_else(|| Chain::empty(&self.descriptors.map));
        chain.head = head;
        chain.recovered = recovered.is_some();
        self.descriptors.follow(&mut chain)?;
        self.in_flight[word] |= bit;
        if chain.recovered {
            chain.note = self.journal.as_ref().map_or(0, |journal| journal.noted(head));
            self.recovered.pop();
        } else {
            if let Some(journal) = &mut self.journal {
                journal.taken(head);
            }
            self.next_available = self.next_available.wrapping_add(1);
        }
        self.budget = self.budget.saturating_sub(1);
        if self.last_pop != Pop::OverBudget {
            self.last_pop = Pop::Chain;
        }
        Ok(Some(chain))
    }

    fn has_available(&mut self) -> Result<bool, RingError> {
        Ok(self.seen_available != self.next_available || self.available_index()? != self.next_available)
    }

    /// Marks the pages of used entries `from` up to `to`, which are written.
    fn mark_entries(&self, from: u16, to: u16) {
        if self.dirty.is_none() {
            return;
        }
        let (count, slot) = (to.wrapping_sub(from), from & (self.size - 1));
        match self.size - slot >= count {
            true => self.mark_used(RING + 8 * usize::from(slot), 8 * usize::from(count)),
            false => self.mark_used(RING, 8 * usize::from(self.size)),
        }
    }

    /// Marks the pages of `len` bytes, `offset` bytes into the used ring. After they were written:
    /// whoever copies the pages takes the mark first.
    fn mark_used(&self, offset: usize, len: usize) {
        if let Some(Dirty { log, used_ring: Some(start) }) = &self.dirty
            && let Some(start) = start.checked_add(offset as u64)
        {
            log.mark(start, len as u64);
        }
    }

    /// Takes back the storage of a chain of this queue.
    fn recycle(&mut self, mut chain: Chain) {
        let (word, bit) = (usize::from(chain.head / 64), 1 << (chain.head % 64));
        let flags = self.in_flight.get_mut(word).filter(|flags| **flags & bit != 0);
        *flags.expect("a chain goes back to the queue it came from") &= !bit;
        if let Some(dirty) = &self.dirty {
            for &(addr, len) in &chain.logged {
                dirty.log.mark(addr, u64::from(len));
            }
        }
        if chain.segments.capacity() <= POOLED_SEGMENTS {
            chain.clear();
            self.pool.push(chain);
        }
    }
}

/// Whether moving a free-running index from `old` to `new` passes `event` (virtio 1.3 §2.7.10).
fn needs_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
