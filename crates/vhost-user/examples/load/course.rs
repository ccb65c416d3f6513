//! What is asked of a queue, in which order.

use std::time::Duration;

/// What is asked, of each queue.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) kind: Kind,
    pub(crate) depth: usize,
    /// Blocks in the disk.
    pub(crate) blocks: u64,
    pub(crate) time: Duration,
    /// Zones that are written by turns, and blocks in each.
    pub(crate) streams: u64,
    pub(crate) zone: u64,
    /// Writes between two flushes.
    pub(crate) flush: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Anywhere.
    Read,
    Write,
    /// From the start of each zone to its end.
    Sequence,
    Append,
}

/// The requests of one queue.
pub(crate) struct Course {
    load: Load,
    random: Random,
    /// Blocks asked for so far.
    pub(crate) blocks: u64,
    /// Of them, since the last flush.
    unflushed: u64,
    flushing: bool,
}

/// What to ask next.
pub(crate) enum Next {
    /// A block; for an append, the first one of its zone.
    Block(u64),
    Flush,
}

impl Course {
    pub(crate) fn new(load: Load, queue: usize) -> Self {
        Self { load, random: Random(queue as u64 + 1), blocks: 0, unflushed: 0, flushing: false }
    }

    /// The next request while `in_flight` are; `None` when it has to wait for them, or there is no other.
    pub(crate) fn next(&mut self, in_flight: usize) -> Option<Next> {
        let flush = self.load.flush.is_some_and(|writes| self.unflushed == writes);
        if (flush || self.flushing) && in_flight > 0 {
            return None;
        }
        self.flushing = flush;
        if flush {
            self.unflushed = 0;
            return Some(Next::Flush);
        }
        let Load { kind, streams, zone, blocks, .. } = self.load;
        let (stream, at) = (self.blocks % streams, self.blocks / streams);
        let block = match kind {
            Kind::Read | Kind::Write => self.random.below(blocks),
            Kind::Sequence | Kind::Append if at == zone => return None,
            Kind::Sequence => stream * zone + at,
            Kind::Append => stream * zone,
        };
        self.blocks += 1;
        self.unflushed += 1;
        Some(Next::Block(block))
    }
}

/// xorshift64*.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound
    }
}
