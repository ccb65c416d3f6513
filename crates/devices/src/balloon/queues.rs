//! The balloon's queues: pages that are given up, taken back or free, and what the guest tells.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parador_virtio::{Chain, GuestMemory, LogLimit, Queue, QueueHandler, Reader, RingError};

use super::{PAGE_SIZE, Shared, lock};
use crate::sys;

/// The most page numbers of one chain that are looked at; Linux sends 256.
const MAX_PAGES: usize = 1 << 16;
/// Page numbers that are sorted and joined at a time.
const BATCH: usize = 256;
/// The most statistics of one chain that are looked at; Linux sends 16.
const MAX_STATS: usize = 64;

/// Pages the guest gives up (virtio 1.3 §5.5.6): le32 page numbers.
#[derive(Default)]
pub(super) struct Inflate {
    memory: Option<Arc<GuestMemory>>,
}

impl Inflate {
    /// The memory the queue will run with.
    pub(super) fn set_memory(&mut self, memory: &Arc<GuestMemory>) {
        self.memory = Some(Arc::clone(memory));
    }

    fn give_up(&self, reader: &mut Reader<'_>) {
        let Some(memory) = &self.memory else { return };
        let mut left = MAX_PAGES;
        while left > 0 {
            let mut bytes = [0; 4 * BATCH];
            let count = reader.read(&mut bytes) / 4;
            if count == 0 {
                return;
            }
            left = left.saturating_sub(count);
            let mut numbers = [0; BATCH];
            for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks().0) {
                *number = u32::from_le_bytes(*bytes);
            }
            let numbers = &mut numbers[..count];
            numbers.sort_unstable();
            for run in numbers.chunk_by(|a, b| b - a <= 1) {
                let (first, last) = (u64::from(run[0]), u64::from(run[run.len() - 1]));
                let length = (last - first + 1) * PAGE_SIZE;
                note(sys::discard(memory, first * PAGE_SIZE, length));
            }
        }
    }
}

impl QueueHandler for Inflate {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        while let Some(chain) = queue.pop()? {
            self.give_up(&mut chain.reader());
            queue.push(chain, 0);
        }
        Ok(())
    }
}

/// Pages the guest takes back: they come by themselves when they are touched.
pub(super) struct Deflate;

impl QueueHandler for Deflate {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        while let Some(chain) = queue.pop()? {
            queue.push(chain, 0);
        }
        Ok(())
    }
}

/// Pages that have become free (§5.5.6.7): writable buffers that are the pages themselves.
pub(super) struct Report {
    memory: Option<Arc<GuestMemory>>,
    shared: Arc<Shared>,
}

impl Report {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { memory: None, shared }
    }

    /// The memory the queue will run with.
    pub(super) fn set_memory(&mut self, memory: &Arc<GuestMemory>) {
        self.memory = Some(Arc::clone(memory));
    }
}

impl QueueHandler for Report {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        while let Some(chain) = queue.pop()? {
            // A page must come back filled as the driver said (§5.5.6.7.2); discarded, it is zero.
            let zero = self.shared.poison.load(Ordering::Relaxed) == 0;
            if let Some(memory) = self.memory.as_ref().filter(|_| zero) {
                for segment in chain.writable() {
                    note(sys::discard_segment(memory, segment));
                }
            }
            queue.push(chain, 0);
        }
        Ok(())
    }
}

/// What a guest tells of its memory (§5.5.6.3). `None`: it did not say. All numbers are its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes swapped in and out since it started.
    pub swapped_in: Option<u64>,
    /// Bytes swapped out.
    pub swapped_out: Option<u64>,
    /// Page faults that needed I/O.
    pub major_faults: Option<u64>,
    /// Page faults that needed none.
    pub minor_faults: Option<u64>,
    /// Bytes that are not used for anything.
    pub free: Option<u64>,
    /// Bytes in all.
    pub total: Option<u64>,
    /// Bytes that could be had without swapping.
    pub available: Option<u64>,
    /// Bytes of caches that could be dropped.
    pub caches: Option<u64>,
}

impl Stats {
    /// Reads le16 tag, le64 value pairs.
    fn parse(reader: &mut Reader<'_>) -> Self {
        let mut stats = Self::default();
        let mut pair = [0; 10];
        for _ in 0..MAX_STATS {
            if reader.read_exact(&mut pair).is_none() {
                break;
            }
            let [t0, t1, value @ ..] = pair;
            let value = Some(u64::from_le_bytes(value));
            match u16::from_le_bytes([t0, t1]) {
                0 => stats.swapped_in = value,
                1 => stats.swapped_out = value,
                2 => stats.major_faults = value,
                3 => stats.minor_faults = value,
                4 => stats.free = value,
                5 => stats.total = value,
                6 => stats.available = value,
                7 => stats.caches = value,
                _ => {}
            }
        }
        stats
    }
}

/// The queue of statistics: the device keeps the driver's buffer, and giving it back asks for news.
pub(super) struct StatsQueue {
    shared: Arc<Shared>,
    kept: Option<Chain>,
}

impl StatsQueue {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, kept: None }
    }
}

impl QueueHandler for StatsQueue {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        if self.shared.ask_for_stats.answer()
            && let Some(chain) = self.kept.take()
        {
            queue.push(chain, 0);
        }
        while let Some(chain) = queue.pop()? {
            *lock(&self.shared.stats) = Stats::parse(&mut chain.reader());
            // One is enough; a driver that sends more gets them back.
            if let Some(before) = self.kept.replace(chain) {
                queue.push(before, 0);
            }
        }
        Ok(())
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.shared.ask_for_stats.as_fd())
    }

    fn drain(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        // As if it had not been looked at: whoever goes on looks at it again.
        if let Some(chain) = self.kept.take() {
            queue.undo_pop(chain);
        }
        Ok(())
    }
}

/// Memory that cannot be given back is kept: the guest named none, or part of a huge page.
fn note(result: io::Result<()>) {
    static LIMIT: LogLimit = LogLimit::new();
    if let Err(error) = result
        && let Some(dropped) = LIMIT.pass()
    {
        tracing::warn!(%error, dropped, "memory the guest gave up is not returned to the host");
    }
}
