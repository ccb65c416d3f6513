//! A model driver of one split ring (virtio 1.3 §2.7.13 and §2.7.14).

use std::collections::HashMap;
use std::fmt;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Arena, UNTOUCHED};
use crate::ids::VIRTIO_F_EVENT_IDX;
use crate::{GuestMemory, Interrupt, QueueLayout, QueueSetup, QueueState};

/// Descriptor flag: the chain goes on at `next`.
pub const NEXT: u16 = 1;
/// Descriptor flag: the device writes the buffer.
pub const WRITE: u16 = 2;
/// Descriptor flag: the buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;

impl fmt::Debug for Driver {
    /// Both sides of the ring, as the driver sees them now.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let QueueLayout { size, available, used, .. } = self.layout;
        f.debug_struct("Driver")
            .field("size", &size)
            .field("in_flight", &self.in_flight.len())
            .field("available_index", &self.load(available + 2))
            .field("available_flags", &self.load(available))
            .field("used_event", &self.load(self.used_event()))
            .field("used_index", &self.load(used + 2))
            .field("used_flags", &self.load(used))
            .field("available_event", &self.load(used + 4 + 8 * u64::from(size)))
            .field("taken", &self.next_used)
            .finish_non_exhaustive()
    }
}

/// How long after a used chain its signal may come.
const GRACE: Duration = Duration::from_secs(5);

/// The driver's side of one ring.
///
/// It knows what it gave the device and panics when the device gives back something else: a head
/// that is not in flight, more bytes than there was room for, an index that runs ahead.
pub struct Driver {
    arena: Arena,
    layout: QueueLayout,
    features: u64,
    kick: EventFd,
    call: EventFd,
    error: EventFd,
    wait: Epoll,
    /// Descriptors not in use.
    free: Vec<u16>,
    in_flight: HashMap<u16, InFlight>,
    /// Free-running indices: what was put in the available ring, what of it is published, what
    /// was taken from the used ring.
    next_available: u16,
    published: u16,
    next_used: u16,
}

/// A chain the device gave back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// The chain's head, as [`Driver::add`] returned it.
    pub head: u16,
    /// Bytes the device says it wrote.
    pub written: u32,
    /// All of the writable part, in order; what the device did not touch is [`UNTOUCHED`].
    pub data: Vec<u8>,
}

struct InFlight {
    descriptors: Vec<u16>,
    /// Buffers for the device to write, and all blocks to release.
    writable: Vec<(u64, u64)>,
    blocks: Vec<(u64, u64)>,
}

impl Driver {
    /// A driver of an empty ring of `size` descriptors, in a memory of its own of `memory_len` bytes.
    #[must_use]
    pub fn new(memory_len: usize, size: u16, features: u64) -> Self {
        Self::on(&Arena::new(memory_len), size, features)
    }

    /// A driver of an empty ring somewhere in `arena`.
    ///
    /// # Panics
    /// The arena has no room, or the host no descriptors.
    #[must_use]
    pub fn on(arena: &Arena, size: u16, features: u64) -> Self {
        let entries = u64::from(size);
        let area = |len: u64, align| {
            let addr = arena.alloc_in_one_region(len, align);
            let zeroes = vec![0; usize::try_from(len).expect("a ring is small")];
            arena.memory().write_slice(&zeroes, GuestAddress(addr)).expect("the arena is memory");
            addr
        };
        let layout = QueueLayout {
            size,
            descriptors: area(16 * entries, 16),
            available: area(6 + 2 * entries, 2),
            used: area(6 + 8 * entries, 4),
        };
        let event_fd = || EventFd::new(EFD_NONBLOCK).expect("the host has descriptors");
        let (call, wait) = (event_fd(), Epoll::new().expect("the host has descriptors"));
        let readable = EpollEvent::new(EventSet::IN, 0);
        wait.ctl(ControlOperation::Add, call.as_raw_fd(), readable).expect("an eventfd can be waited for");
        Self {
            arena: arena.clone(),
            layout,
            features,
            kick: event_fd(),
            call,
            error: event_fd(),
            wait,
            free: (0..size).rev().collect(),
            in_flight: HashMap::new(),
            next_available: 0,
            published: 0,
            next_used: 0,
        }
    }

    /// Begins at `index` instead of zero in both rings, to bring wrap-around near. Only before the
    /// ring is used; the device has to resume at [`Driver::state`].
    ///
    /// # Panics
    /// The ring is in use.
    pub fn begin_at(&mut self, index: u16) {
        assert!(self.in_flight.is_empty() && self.next_available == self.next_used, "the ring is at rest");
        (self.next_available, self.published, self.next_used) = (index, index, index);
        self.store(self.layout.available + 2, index);
        self.store(self.layout.used + 2, index);
    }

    /// Where a device that has done everything is in the ring.
    #[must_use]
    pub fn state(&self) -> QueueState {
        QueueState { next_available: self.next_used }
    }

    /// What the device needs to run this ring as its queue `index`, going on at `resume`.
    ///
    /// # Panics
    /// The host has no descriptors.
    #[must_use]
    pub fn setup(&self, index: u16, resume: QueueState) -> QueueSetup {
        let clone = |fd: &EventFd| fd.try_clone().expect("the host has descriptors");
        QueueSetup {
            index,
            features: self.features,
            layout: self.layout,
            resume,
            memory: Arc::clone(self.arena.memory()),
            kick: Some(clone(&self.kick)),
            call: Interrupt::from_eventfd(clone(&self.call)),
            error: Interrupt::from_eventfd(clone(&self.error)),
            inflight: None,
            dirty: None,
        }
    }

    /// Puts a chain in the ring: `readable` buffers with their contents, then room of the lengths
    /// in `writable`. Its head, or `None` when there are too few free descriptors.
    ///
    /// The device does not see it before [`Driver::publish`] or [`Driver::kick`].
    pub fn add(&mut self, readable: &[&[u8]], writable: &[usize]) -> Option<u16> {
        let count = readable.len() + writable.len();
        if count == 0 || count > self.free.len() {
            return None;
        }
        let buffers = self.buffers(readable, writable);
        let descriptors = self.free.split_off(self.free.len() - count);
        for (at, &(addr, len, flags)) in buffers.iter().enumerate() {
            let next = descriptors.get(at + 1).copied();
            let flags = flags | if next.is_some() { NEXT } else { 0 };
            self.write_descriptor(descriptors[at], addr, len, flags, next.unwrap_or(0));
        }
        Some(self.admit(descriptors, &buffers, None))
    }

    /// As [`Driver::add`], with all buffers in an indirect table: one descriptor of the ring.
    pub fn add_indirect(&mut self, readable: &[&[u8]], writable: &[usize]) -> Option<u16> {
        let count = readable.len() + writable.len();
        if count == 0 || self.free.is_empty() {
            return None;
        }
        let buffers = self.buffers(readable, writable);
        let table_len = 16 * count as u64;
        let table = self.arena.alloc(table_len, 16);
        for (at, &(addr, len, flags)) in buffers.iter().enumerate() {
            let more = at + 1 < count;
            let next = u16::try_from(at + 1).expect("a table is short");
            let flags = flags | if more { NEXT } else { 0 };
            self.write_descriptor_at(table + 16 * at as u64, addr, len, flags, if more { next } else { 0 });
        }
        let head = self.free.pop()?;
        self.write_descriptor(head, table, u32::try_from(table_len).expect("a table is short"), INDIRECT, 0);
        Some(self.admit(vec![head], &buffers, Some((table, table_len))))
    }

    /// Lets the device see what was added.
    pub fn publish(&mut self) {
        self.memory()
            .store(self.next_available.to_le(), GuestAddress(self.layout.available + 2), Ordering::Release)
            .expect("the ring is memory");
    }

    /// Publishes what was added and kicks if the device asked for it. Says whether it did.
    pub fn kick(&mut self) -> bool {
        let (old, new) = (self.published, self.next_available);
        self.publish();
        self.published = new;
        fence(Ordering::SeqCst);
        let wanted = if self.features & VIRTIO_F_EVENT_IDX != 0 {
            let event = self.load(self.layout.used + 4 + 8 * u64::from(self.layout.size));
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            self.load(self.layout.used) & 1 == 0
        };
        if wanted {
            self.force_kick();
        }
        wanted
    }

    /// Kicks, whatever the device asked for.
    ///
    /// # Panics
    /// The descriptor refuses.
    pub fn force_kick(&self) {
        self.kick.write(1).expect("an eventfd takes a count");
    }

    /// Takes the next chain the device gave back, without waiting.
    ///
    /// # Panics
    /// The device broke the rules.
    pub fn take_used(&mut self) -> Option<Used> {
        let index =
            self.memory().load(GuestAddress(self.layout.used + 2), Ordering::Acquire).map(u16::from_le);
        let ahead = index.expect("the ring is memory").wrapping_sub(self.next_used);
        assert!(usize::from(ahead) <= self.in_flight.len(), "the used index is ahead of what is in flight");
        if ahead == 0 {
            return None;
        }
        let entry = self.layout.used + 4 + 8 * u64::from(self.next_used % self.layout.size);
        let [id, written] = [entry, entry + 4].map(|addr| self.read_u32(addr));
        self.next_used = self.next_used.wrapping_add(1);
        let head = u16::try_from(id).expect("a used id is a head");
        let chain = self.in_flight.remove(&head).expect("a used id is in flight");
        let mut data = Vec::new();
        for (addr, len) in chain.writable {
            let from = data.len();
            data.resize(from + usize::try_from(len).expect("a buffer is small"), 0);
            self.memory().read_slice(&mut data[from..], GuestAddress(addr)).expect("a buffer is memory");
        }
        assert!(written as usize <= data.len(), "the device says it wrote more than there was room for");
        for (addr, len) in chain.blocks {
            self.arena.release(addr, len);
        }
        self.free.extend(chain.descriptors);
        Some(Used { head, written, data })
    }

    /// Waits for the next chain the device gives back, up to `timeout`; `None` when that passes.
    ///
    /// # Panics
    /// The device broke the rules; among them, it used a chain and did not signal it.
    pub fn wait_used(&mut self, timeout: Duration) -> Option<Used> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(used) = self.take_used() {
                return Some(used);
            }
            self.ask_for_interrupt();
            if let Some(used) = self.take_used() {
                return Some(used);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            if !self.wait_call(left)
                && let Some(used) = self.take_used()
            {
                // It may be about to signal what it has just used.
                assert!(self.wait_call(GRACE), "the device used a chain and did not signal it");
                return Some(used);
            }
        }
    }

    /// Waits until the device signals, up to `timeout`, and takes the signal. Says whether one came.
    ///
    /// # Panics
    /// The host refuses to wait.
    #[must_use]
    pub fn wait_call(&self, timeout: Duration) -> bool {
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX).saturating_add(1);
        let fired = self.wait.wait(timeout_ms, &mut [EpollEvent::default()]).is_ok_and(|count| count > 0);
        fired && self.call.read().is_ok()
    }

    /// Whether the device signalled that the ring is broken since this was asked last.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.error.read().is_ok()
    }

    /// Asks the device not to signal used chains; [`Driver::wait_used`] asks for it again.
    pub fn refuse_interrupts(&self) {
        if self.features & VIRTIO_F_EVENT_IDX == 0 {
            self.store(self.layout.available, 1);
        } else {
            // The entry just passed: the last one to be reached again.
            self.store(self.used_event(), self.next_used.wrapping_sub(1));
        }
    }

    /// Asks the device to signal the next used chain.
    pub fn ask_for_interrupt(&self) {
        if self.features & VIRTIO_F_EVENT_IDX == 0 {
            self.store(self.layout.available, 0);
        } else {
            self.store(self.used_event(), self.next_used);
        }
        fence(Ordering::SeqCst);
    }

    /// Chains the device has and has not given back.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Where the ring is: for tests that write to it behind the driver's back.
    #[must_use]
    pub fn layout(&self) -> QueueLayout {
        self.layout
    }

    /// The memory all of it is in.
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        self.arena.memory()
    }

    /// The arena all of it is in.
    #[must_use]
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Writes descriptor `index` of the ring's own table.
    pub fn write_descriptor(&self, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        self.write_descriptor_at(self.layout.descriptors + 16 * u64::from(index), addr, len, flags, next);
    }

    /// Writes a descriptor anywhere.
    ///
    /// # Panics
    /// There is no memory at `at`.
    pub fn write_descriptor_at(&self, at: u64, addr: u64, len: u32, flags: u16, next: u16) {
        let low = u128::from(addr) | u128::from(len) << 64;
        let raw = low | u128::from(flags) << 96 | u128::from(next) << 112;
        self.memory().write_slice(&raw.to_le_bytes(), GuestAddress(at)).expect("a descriptor is in memory");
    }

    /// Puts `head` in the available ring without a look at it; seen after the next publish.
    pub fn offer(&mut self, head: u16) {
        let slot = u64::from(self.next_available % self.layout.size);
        self.store(self.layout.available + 4 + 2 * slot, head);
        self.next_available = self.next_available.wrapping_add(1);
    }

    /// Allocates and fills buffers: address, length, flags of each.
    fn buffers(&self, readable: &[&[u8]], writable: &[usize]) -> Vec<(u64, u32, u16)> {
        let buffer = |data: &[u8], flags| {
            let len = u32::try_from(data.len()).expect("a buffer is small");
            let addr = self.arena.alloc(u64::from(len).max(1), 1);
            self.memory().write_slice(data, GuestAddress(addr)).expect("the arena is memory");
            (addr, len, flags)
        };
        let room = |&len: &usize| buffer(&vec![UNTOUCHED; len], WRITE);
        readable.iter().map(|data| buffer(data, 0)).chain(writable.iter().map(room)).collect()
    }

    /// Remembers a chain whose descriptors are written and offers it.
    fn admit(
        &mut self,
        descriptors: Vec<u16>,
        buffers: &[(u64, u32, u16)],
        table: Option<(u64, u64)>,
    ) -> u16 {
        let head = descriptors[0];
        let block = |&(addr, len, _): &(u64, u32, u16)| (addr, u64::from(len).max(1));
        let writable = buffers.iter().filter(|(.., flags)| flags & WRITE != 0);
        let chain = InFlight {
            descriptors,
            writable: writable.map(|&(addr, len, _)| (addr, u64::from(len))).collect(),
            blocks: buffers.iter().map(block).chain(table).collect(),
        };
        self.in_flight.insert(head, chain);
        self.offer(head);
        head
    }

    fn used_event(&self) -> u64 {
        self.layout.available + 4 + 2 * u64::from(self.layout.size)
    }

    fn load(&self, addr: u64) -> u16 {
        self.memory()
            .load(GuestAddress(addr), Ordering::Relaxed)
            .map(u16::from_le)
            .expect("the ring is memory")
    }

    fn store(&self, addr: u64, value: u16) {
        self.memory()
            .store(value.to_le(), GuestAddress(addr), Ordering::Relaxed)
            .expect("the ring is memory");
    }

    fn read_u32(&self, addr: u64) -> u32 {
        self.memory()
            .load(GuestAddress(addr), Ordering::Relaxed)
            .map(u32::from_le)
            .expect("the ring is memory")
    }
}
