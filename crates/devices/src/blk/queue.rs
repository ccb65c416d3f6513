//! A request queue at work.
#![expect(unsafe_code, reason = "says that the memory of a chain lives as long as its request")]

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parador_block::{Buffer, Disk, Fault, Op, Outcome, Submitted, Tag};
use parador_virtio::{Chain, LogLimit, Queue, QueueHandler, RingError};
use virtio_bindings::virtio_blk as v;

use super::Shared;
use super::config::{bit, is_writethrough};
use super::request::{self, Limits, MAX_RANGES, Range, Refusal, Request, SERIAL_LEN, Status};

/// One queue's handler. Nothing in it allocates once each slot has been used.
///
/// A request waits in a slot; its index is the tag of all the operations it takes.
pub(super) struct BlkQueue {
    /// Before `slots`: dropping it ends the operations that use the slots' memory.
    disk: Box<dyn Disk>,
    slots: Vec<Slot>,
    free: Vec<Tag>,
    shared: Arc<Shared>,
    /// Requests that fail, or need more, are left for whoever goes on with the ring.
    giving_up: bool,
    /// Storage for the request at hand.
    buffers: Vec<Buffer>,
    ranges: Vec<Range>,
}

/// A request in flight, or storage for one.
#[derive(Default)]
struct Slot {
    chain: Option<Chain>,
    /// Operations that are not over.
    pending: usize,
    status: Option<Status>,
    /// Bytes that a success writes, the status included.
    written: u32,
    /// Bytes that a failure writes: data that was not read does not count.
    written_on_error: u32,
    /// Whether a flush follows once the operations are over.
    then_flush: bool,
}

impl BlkQueue {
    pub(super) fn new(disk: Box<dyn Disk>, shared: Arc<Shared>, depth: u16) -> Self {
        let depth = usize::from(depth);
        Self {
            disk,
            slots: Vec::with_capacity(depth),
            free: Vec::with_capacity(depth),
            shared,
            giving_up: false,
            buffers: Vec::with_capacity(depth),
            ranges: Vec::with_capacity(MAX_RANGES),
        }
    }

    /// Parses a chain and starts what it asks for.
    fn take(&mut self, queue: &mut Queue, chain: Chain) {
        let features = queue.features();
        let has = |number| features & bit(number) != 0;
        let limits = Limits {
            capacity: self.shared.capacity.load(Ordering::Relaxed),
            read_only: self.shared.image.is_read_only(),
            discard: has(v::VIRTIO_BLK_F_DISCARD),
            write_zeroes: has(v::VIRTIO_BLK_F_WRITE_ZEROES),
        };
        let request = match request::parse(&chain, &limits, &mut self.ranges) {
            Ok(request) => request,
            Err(Refusal::NoStatus) => return queue.push(chain, 0),
            Err(Refusal::Status(status)) => {
                let written = written_on_error(&chain);
                return answer(queue, chain, status, written);
            }
        };
        let room = chain.writable_len() - 1;
        let writethrough = is_writethrough(&self.shared, features);
        match request {
            Request::SerialNumber => {
                let len = room.min(SERIAL_LEN);
                let _ = chain.writer().write_all(&self.shared.serial[..len]);
                let written = if room == len { bytes(&chain) } else { len as u32 };
                answer(queue, chain, Status::Ok, written);
            }
            Request::Read { offset, len } => {
                self.name_buffers(chain.writable(), 0, len);
                let tag = self.occupy(chain, 1, false);
                self.submit_transfer(queue, tag, offset, false);
            }
            Request::Write { offset, len } => {
                let header = chain.readable_len() - len;
                self.name_buffers(chain.readable(), header, len);
                let tag = self.occupy(chain, 1, writethrough);
                self.submit_transfer(queue, tag, offset, true);
            }
            Request::Flush => {
                let tag = self.occupy(chain, 1, false);
                let submitted = self.disk.submit(Op::Flush, tag);
                self.submitted(queue, tag, submitted);
            }
            Request::Discard | Request::WriteZeroes => {
                let tag = self.occupy(chain, self.ranges.len(), writethrough);
                self.submit_ranges(queue, tag, request == Request::Discard);
            }
        }
    }

    /// Lists `len` bytes of `segments`, from `skip` on, in `self.buffers`.
    fn name_buffers(&mut self, segments: &[parador_virtio::Segment], mut skip: usize, mut len: usize) {
        self.buffers.clear();
        for segment in segments {
            let mut iovec = segment.as_iovec();
            let skipped = skip.min(iovec.iov_len);
            skip -= skipped;
            iovec.iov_base = iovec.iov_base.cast::<u8>().wrapping_add(skipped).cast();
            iovec.iov_len = (iovec.iov_len - skipped).min(len);
            len -= iovec.iov_len;
            if iovec.iov_len > 0 {
                // SAFETY: a segment of a chain is mapped while the chain lives, and a writable one
                // writable; nobody makes references into guest memory. The chain stays in its slot
                // until the operation is over, and the disk is dropped before the slots.
                self.buffers.push(unsafe { Buffer::new(iovec) });
            }
            if len == 0 {
                break;
            }
        }
    }

    /// Puts a chain into a slot for a request of `pending` operations.
    fn occupy(&mut self, chain: Chain, pending: usize, then_flush: bool) -> Tag {
        let tag = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            // No more slots than chains in flight, so than descriptors in a queue.
            (self.slots.len() - 1) as Tag
        });
        let (written, written_on_error) = (bytes(&chain), written_on_error(&chain));
        self.slots[tag as usize] =
            Slot { chain: Some(chain), pending, status: None, written, written_on_error, then_flush };
        tag
    }

    fn submit_transfer(&mut self, queue: &mut Queue, tag: Tag, offset: u64, write: bool) {
        let buffers = self.buffers.as_slice();
        let op = if write { Op::Write { offset, buffers } } else { Op::Read { offset, buffers } };
        let submitted = self.disk.submit(op, tag);
        self.submitted(queue, tag, submitted);
    }

    fn submit_ranges(&mut self, queue: &mut Queue, tag: Tag, discard: bool) {
        for index in 0..self.ranges.len() {
            let Range { offset, len, unmap } = self.ranges[index];
            let op =
                if discard { Op::Discard { offset, len } } else { Op::WriteZeroes { offset, len, unmap } };
            let submitted = self.disk.submit(op, tag);
            self.submitted(queue, tag, submitted);
        }
    }

    fn submitted(&mut self, queue: &mut Queue, tag: Tag, submitted: Submitted) {
        match submitted {
            Submitted::Done(result) => self.finish(queue, tag, result),
            Submitted::InFlight => {}
        }
    }

    /// One operation of a request is over.
    fn finish(&mut self, queue: &mut Queue, tag: Tag, result: Outcome) {
        let slot = &mut self.slots[tag as usize];
        slot.pending -= 1;
        if let Err(fault) = result {
            slot.status = Some(Status::IoErr);
            if let Fault::Host(error) = &fault
                && !self.giving_up
            {
                self.shared.report(error);
            }
        }
        let slot = &mut self.slots[tag as usize];
        if slot.pending > 0 {
            return;
        }
        if slot.then_flush && slot.status.is_none() && !self.giving_up {
            slot.then_flush = false;
            slot.pending = 1;
            let submitted = self.disk.submit(Op::Flush, tag);
            return self.submitted(queue, tag, submitted);
        }
        let status = slot.status.unwrap_or(Status::Ok);
        let written = if status == Status::Ok { slot.written } else { slot.written_on_error };
        let chain = slot.chain.take().expect("an operation belongs to a request");
        let undone = status != Status::Ok || slot.then_flush;
        self.free.push(tag);
        if self.giving_up && undone {
            return;
        }
        answer(queue, chain, status, written);
    }

    /// Finishes all that is over; whether there was anything.
    fn reap(&mut self, queue: &mut Queue) -> bool {
        let mut any = false;
        while let Some((tag, result)) = self.disk.reap() {
            self.finish(queue, tag, result);
            any = true;
        }
        any
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

impl QueueHandler for BlkQueue {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        self.reap(queue);
        // In flight are at most as many as the ring has descriptors: it refuses a head twice.
        while let Some(chain) = queue.pop()? {
            self.take(queue, chain);
        }
        self.disk.kick();
        // What is over already, and the flushes that follow writes.
        while self.reap(queue) {
            self.disk.kick();
        }
        Ok(())
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        self.disk.wake()
    }

    fn drain(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        while self.in_flight() > 0 {
            self.disk.wait();
            self.reap(queue);
        }
        Ok(())
    }

    fn abandon(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        self.giving_up = true;
        self.disk.cancel();
        let result = self.drain(queue);
        self.giving_up = false;
        result
    }
}

impl Shared {
    /// Tells the host's log about a fault of the host.
    fn report(&self, error: &io::Error) {
        static LIMIT: LogLimit = LogLimit::new();
        if let Some(dropped) = LIMIT.pass() {
            tracing::warn!(dropped, "disk image {}: a request failed: {error}", self.image.path().display());
        }
    }
}

/// Gives a chain back with its status, in the last byte the device writes.
fn answer(queue: &mut Queue, chain: Chain, status: Status, written: u32) {
    let last = chain.writable_len() - 1;
    let _ = chain.writer().patch(last, &[status as u8]);
    queue.push(chain, written);
}

/// All a device can write to a chain: the queue holds chains below 2^32 bytes.
fn bytes(chain: &Chain) -> u32 {
    u32::try_from(chain.writable_len()).unwrap_or(u32::MAX)
}

/// What a failed request wrote from the start on (virtio 1.3 §2.7.8.2): its status, but only if
/// there is nothing before it.
fn written_on_error(chain: &Chain) -> u32 {
    u32::from(chain.writable_len() == 1)
}

#[cfg(test)]
mod tests;
