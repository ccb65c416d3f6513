//! Rings that no honest driver makes. Any string of bytes is one of them.
//!
//! Property tests feed random bytes, fuzzers evolved ones; both share what is here.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Arena, INDIRECT, NEXT, WRITE, shared_file};
use crate::ids::{VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC};
use crate::{
    Chain, GuestMemory, InflightRegion, Interrupt, Queue, QueueLayout, QueueSetup, QueueState, RingError,
};

/// Bytes taken off an input as numbers; zeroes when it is used up.
#[derive(Debug, Clone)]
pub struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    /// All of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether the input is used up.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        array[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        array
    }

    /// The next byte.
    pub fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// The next two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// The next four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// The next eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A number below `bound`, from one byte; `bound` is 1 to 256.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.u8()) % bound
    }

    /// One of `choices`.
    pub fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// What is left of the input.
    #[must_use]
    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Two regions that meet, a hole, one more: addresses and lengths in bytes.
pub const REGIONS: [(u64, usize); 3] = [(0, 0x4000), (0x4000, 0x4000), (0x10000, 0x4000)];
/// Where indirect tables are, most of the time, and how many descriptors are there.
const TABLE: u64 = 0x2000;
const TABLE_LEN: u16 = 8;
/// Interesting places in and around [`REGIONS`].
const PLACES: [u64; 10] =
    [0, 0x3ff0, 0x4000, 0x7ff8, 0x8000, 0xfff8, 0x10000, 0x13ff0, 1 << 63, u64::MAX - 15];

/// A ring in a memory of [`REGIONS`], filled as an input says: near enough to a valid one to get
/// past the first checks most of the time.
pub struct HostileRing {
    /// Who gets the queue: memory, layout, features and where to resume are set.
    pub setup: QueueSetup,
}

impl HostileRing {
    /// Takes a ring off `source`.
    ///
    /// # Panics
    /// The host has no memory or descriptors.
    pub fn new(source: &mut Source<'_>) -> Self {
        let memory = Arc::clone(Arena::of_regions(&REGIONS).memory());
        let layout = layout(source);
        let features = match source.below(4) {
            0 => 0,
            1 => VIRTIO_F_INDIRECT_DESC,
            2 => VIRTIO_F_EVENT_IDX,
            _ => VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC,
        };
        let resume = QueueState { next_available: source.choose(&[0, 1, 0x7fff, 0xfffe, 0xffff]) };
        let event_fd = || EventFd::new(EFD_NONBLOCK).expect("the host has descriptors");
        let setup = QueueSetup {
            index: 0,
            features,
            layout,
            resume,
            memory,
            kick: Some(event_fd()),
            call: Interrupt::nobody(),
            error: Interrupt::nobody(),
            inflight: None,
            dirty: None,
        };
        let ring = Self { setup };
        for index in 0..layout.size.min(256) {
            ring.write(layout.descriptors.wrapping_add(16 * u64::from(index)), &good_descriptor(index));
        }
        for index in 0..TABLE_LEN {
            ring.write(TABLE + 16 * u64::from(index), &good_descriptor(index));
        }
        ring.store(layout.available.wrapping_add(2), resume.next_available);
        ring.mutate(source);
        ring
    }

    /// Changes the ring, as a driver may at any time: some descriptors, some available entries,
    /// the available index, the event index.
    pub fn mutate(&self, source: &mut Source<'_>) {
        let layout = self.setup.layout;
        let size = layout.size.max(1);
        for _ in 0..source.below(4) {
            let index = u64::from(source.u16() % size);
            let at = layout.descriptors.wrapping_add(16 * index);
            self.write(at, &descriptor(source, size));
        }
        for _ in 0..source.below(3) {
            let at = TABLE + 16 * source.below(usize::from(TABLE_LEN)) as u64;
            self.write(at, &descriptor(source, TABLE_LEN));
        }
        let entries = source.below(8) as u16;
        let start = self.load(layout.available.wrapping_add(2));
        for step in 0..entries {
            let slot = u64::from(start.wrapping_add(step) % size);
            let head = if source.below(64) == 63 { source.u16() } else { source.u16() % size };
            self.store(layout.available.wrapping_add(4 + 2 * slot), head);
        }
        let jump = if source.below(64) == 63 { source.u16() } else { entries };
        self.store(layout.available.wrapping_add(2), start.wrapping_add(jump));
        self.store(layout.available.wrapping_add(4 + 2 * u64::from(size)), source.u16());
        self.store(layout.available, u16::from(source.u8() & 1));
    }

    fn memory(&self) -> &GuestMemory {
        &self.setup.memory
    }

    /// Writes where there is memory; a ring in a hole has no contents.
    fn write(&self, at: u64, data: &[u8]) {
        drop(self.memory().write_slice(data, GuestAddress(at)));
    }

    fn store(&self, at: u64, value: u16) {
        self.write(at, &value.to_le_bytes());
    }

    fn load(&self, at: u64) -> u16 {
        self.memory().read_obj(GuestAddress(at)).map(u16::from_le).unwrap_or(0)
    }
}

/// A region of requests in flight that some other process left, or changes.
struct HostileRegion {
    file: File,
    entries: u16,
}

impl HostileRegion {
    /// Takes a region for `ring` off `source`, and shows it to the ring's queue.
    fn new(ring: &mut HostileRing, source: &mut Source<'_>) -> Self {
        let size = ring.setup.layout.size.min(256);
        let entries = match source.below(16) {
            0 => source.u16() % 256,
            1..4 => size + 7,
            _ => size,
        };
        let len = InflightRegion::bytes(1, entries);
        let region = Self { file: shared_file(len), entries };
        let shown = region.file.try_clone().expect("the host has descriptors");
        let shown = InflightRegion::map(shown, 0, len, 1, entries);
        ring.setup.inflight = shown.ok().and_then(|shown| shown.queue(0));
        // Features, version, entries, last batch, used index.
        let version = if source.below(16) == 15 { source.u16() } else { 1 - u16::from(source.u8() / 224) };
        let known = if source.below(16) == 15 { source.u16() } else { entries };
        let used = ring.load(ring.setup.layout.used.wrapping_add(2));
        let behind = if source.below(16) == 15 { source.u16() } else { source.below(4) as u16 };
        let last = region.head(source);
        for (at, value) in [(8, version), (10, known), (12, last), (14, used.wrapping_sub(behind))] {
            region.write(at, &value.to_le_bytes());
        }
        for _ in 0..source.below(16) {
            region.scribble(source);
        }
        region
    }

    /// Changes an entry: in flight, next, counter.
    fn scribble(&self, source: &mut Source<'_>) {
        let at = 16 + 16 * u64::from(source.u16() % self.entries.max(1));
        self.write(at, &[source.u8() & 1]);
        self.write(at + 6, &self.head(source).to_le_bytes());
        let counter = if source.below(16) == 15 { source.u64() } else { u64::from(source.u8()) };
        self.write(at + 8, &counter.to_le_bytes());
    }

    fn head(&self, source: &mut Source<'_>) -> u16 {
        if source.below(32) == 31 { source.u16() } else { source.u16() % self.entries.max(1) }
    }

    fn write(&self, at: u64, data: &[u8]) {
        self.file.write_all_at(data, at).expect("the host has room");
    }
}

/// Runs a queue over a hostile ring: the body of the fuzz target `queue`. Checks that work is
/// bounded and that what comes out of the ring is in guest memory. Says how many chains came out,
/// and what was wrong with the ring in the end.
///
/// # Panics
/// The queue let something through.
pub fn exercise_queue(bytes: &[u8]) -> (usize, Option<RingError>) {
    let mut source = Source::new(bytes);
    let mut ring = HostileRing::new(&mut source);
    let region = (source.below(8) == 7).then(|| HostileRegion::new(&mut ring, &mut source));
    exercise(source, &ring, region.as_ref())
}

/// As [`exercise_queue`], with a region of requests in flight. Says how many were taken up, if the
/// region and the ring were good.
///
/// # Panics
/// The queue let something through.
pub fn exercise_region(bytes: &[u8]) -> Option<usize> {
    let mut source = Source::new(bytes);
    let mut ring = HostileRing::new(&mut source);
    let region = HostileRegion::new(&mut ring, &mut source);
    let used = ring.load(ring.setup.layout.used.wrapping_add(2));
    // Had it begun where it is, nothing would be in flight.
    ring.setup.resume.next_available = used;
    let queue = Queue::new(&ring.setup).ok()?;
    let recovered = queue.state().next_available.wrapping_sub(used);
    assert!(recovered <= queue.size(), "no more in flight than descriptors");
    drop(queue);
    exercise(source, &ring, Some(&region));
    Some(usize::from(recovered))
}

fn exercise(
    mut source: Source<'_>,
    ring: &HostileRing,
    region: Option<&HostileRegion>,
) -> (usize, Option<RingError>) {
    /// Turns for one input: enough to use up any.
    const TURNS: usize = 64;
    let mut queue = match Queue::new(&ring.setup) {
        Ok(queue) => queue,
        Err(error) => return (0, Some(error)),
    };
    let (mut chains, mut fault) = (0, None);
    let mut held: Vec<Chain> = Vec::new();
    for _ in 0..TURNS {
        queue.begin_turn();
        let mut popped = 0;
        let popped_all = loop {
            match queue.pop() {
                Ok(Some(chain)) => {
                    popped += 1;
                    assert!(popped <= queue.size(), "a turn takes no more than the ring holds");
                    inspect(ring, &queue, &chain, &mut source);
                    match source.below(4) {
                        0 => {
                            queue.undo_pop(chain);
                            break Ok(());
                        }
                        1 => held.push(chain),
                        _ => queue.push(chain, source.u32()),
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => {
                    assert_eq!(queue.pop().err(), Some(error), "a broken ring stays broken");
                    break Err(error);
                }
            }
        };
        assert!(held.len() <= usize::from(queue.size()), "no more chains in flight than descriptors");
        if source.below(2) == 0 && !held.is_empty() {
            let chain = held.swap_remove(source.below(held.len().min(256)));
            queue.push(chain, 0);
        }
        chains += usize::from(popped);
        fault = popped_all.and(queue.end_turn()).err();
        if fault.is_some() || source.is_empty() {
            break;
        }
        ring.mutate(&mut source);
        if let Some(region) = region {
            region.scribble(&mut source);
        }
    }
    for chain in held {
        queue.push(chain, 1);
    }
    queue.flush();
    (chains, fault)
}

/// Checks a chain against the memory map, and reads and writes all of it.
fn inspect(ring: &HostileRing, queue: &Queue, chain: &Chain, source: &mut Source<'_>) {
    let len = |segments: &[crate::Segment]| segments.iter().map(crate::Segment::len).sum::<usize>();
    assert_eq!(len(chain.readable()), chain.readable_len());
    assert_eq!(len(chain.writable()), chain.writable_len());
    assert!(u32::try_from(chain.readable_len() + chain.writable_len()).is_ok());
    // Each buffer may be split where the two regions meet.
    let pieces = chain.readable().len() + chain.writable().len();
    let longest = usize::from(queue.size().max(1024)); // an indirect table's
    assert!(pieces > 0 && pieces <= 2 * longest, "a chain is bounded");
    assert!(chain.head() < queue.size());
    let hosts = REGIONS.map(|(start, len)| {
        let base = vm_memory::GuestMemoryBackend::get_host_address(ring.memory(), GuestAddress(start));
        let base = base.expect("the region is mapped").addr();
        base..=base + len
    });
    for segment in chain.readable().iter().chain(chain.writable()) {
        let iovec = segment.as_iovec();
        let (first, end) = (iovec.iov_base.addr(), iovec.iov_base.addr() + iovec.iov_len);
        assert!(!segment.is_empty());
        assert!(
            hosts.iter().any(|host| host.contains(&first) && host.contains(&end)),
            "a segment is in memory"
        );
    }
    let mut reader = chain.reader();
    let mut buffer = [0; 64];
    while reader.read(&mut buffer) > 0 {}
    assert_eq!(reader.remaining(), 0);
    let mut writer = chain.writer();
    writer.skip(source.below(32));
    while writer.write(&buffer) > 0 {}
    assert_eq!(writer.written(), chain.writable_len());
}

/// A layout, most of the time a good one.
fn layout(source: &mut Source<'_>) -> QueueLayout {
    let size = if source.below(32) == 31 { source.u16() } else { 1 << source.below(8) };
    let mut layout = QueueLayout { size, descriptors: 0, available: 0x1000, used: 0x1800 };
    if source.below(32) == 31 {
        layout.descriptors = place(source);
    }
    if source.below(32) == 31 {
        layout.available = place(source);
    }
    if source.below(32) == 31 {
        layout.used = place(source);
    }
    layout
}

/// An address, most of the time one with memory behind it.
fn place(source: &mut Source<'_>) -> u64 {
    match source.below(8) {
        0 => source.u64(),
        1 | 2 => source.choose(&PLACES).wrapping_add(u64::from(source.u8() % 32)),
        _ => u64::from(source.u16() % 0x8000),
    }
}

/// A descriptor of a table in which every one is the head of a good chain of up to four.
fn good_descriptor(index: u16) -> [u8; 16] {
    let (len, next) = (1 + u32::from(index), index.wrapping_add(1));
    let flags = [NEXT, NEXT, NEXT | WRITE, WRITE][usize::from(index % 4)];
    // The last of each four is in the seam of two regions.
    let addr = if index % 4 == 3 { 0x3fff } else { 0x5000 + 32 * u64::from(index) };
    bytes_of(addr, len, flags, next)
}

/// A descriptor for a table of `size` that may be good or not.
fn descriptor(source: &mut Source<'_>, size: u16) -> [u8; 16] {
    let indirect = source.below(3) == 2;
    let addr =
        if indirect && source.below(8) != 7 { TABLE + 16 * source.below(4) as u64 } else { place(source) };
    let len = match source.below(16) {
        0 => source.u32(),
        _ if indirect => 16 * (1 + source.below(usize::from(TABLE_LEN)) as u32),
        _ => u32::from(source.u16() % 0x1000),
    };
    let flags = match source.below(32) {
        0 => source.u16(),
        _ if indirect => INDIRECT | source.choose(&[0, 0, 0, 0, WRITE, WRITE, WRITE, NEXT]),
        _ => source.choose(&[0, NEXT, WRITE, NEXT | WRITE]),
    };
    let next = if source.below(32) == 31 { source.u16() } else { source.u16() % size };
    bytes_of(addr, len, flags, next)
}

fn bytes_of(addr: u64, len: u32, flags: u16, next: u16) -> [u8; 16] {
    let low = u128::from(addr) | u128::from(len) << 64;
    (low | u128::from(flags) << 96 | u128::from(next) << 112).to_le_bytes()
}
