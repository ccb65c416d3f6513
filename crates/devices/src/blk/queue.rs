//! A request queue at work.
#![expect(unsafe_code, reason = "says that the memory of a chain lives as long as its request")]

use std::io;
use std::mem;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parador_block::{Buffer, Disk, Fault, Op, Outcome, SECTOR, Submitted, Tag, zoned};
use parador_virtio::{Chain, LogLimit, Queue, QueueHandler, RingError};
use virtio_bindings::virtio_blk as v;

use super::config::{bit, is_writethrough};
use super::request::{self, Limits, MAX_RANGES, Range, Refusal, Request, SERIAL_LEN, Status, Zones};
use super::{Shared, config, report};

/// The most bytes between where an append went and its status that are filled with zeroes: those
/// that a compiler puts there.
const MAX_PADDING: usize = 7;

/// One queue's handler. Nothing in it allocates once each slot has been used.
///
/// A request waits in a slot; its index is the tag of all the operations it takes.
pub(super) struct BlkQueue {
    /// Before `slots`: dropping it ends the operations that use the slots' memory.
    disk: Box<dyn Disk>,
    slots: Vec<Slot>,
    free: Vec<Tag>,
    shared: Arc<Shared>,
    /// The most bytes of one append, of a disk with zones.
    max_append: Option<u64>,
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
    /// Bytes from the start on that a success writes, the status not counted.
    written: usize,
    /// Whether the operation says where the data is, which the driver wants to know.
    append: bool,
    /// Whether a flush follows once the operations are over.
    then_flush: bool,
}

impl Slot {
    /// A request of one operation and no data for the driver.
    fn of(chain: Chain) -> Self {
        Self { chain: Some(chain), pending: 1, ..Self::default() }
    }
}

impl BlkQueue {
    pub(super) fn new(disk: Box<dyn Disk>, shared: Arc<Shared>, depth: u16) -> Self {
        let depth = usize::from(depth);
        let max_append =
            shared.image.zoned().map(|zoned| config::max_append(zoned.geometry(), shared.segments));
        Self {
            disk,
            slots: Vec::with_capacity(depth),
            free: Vec::with_capacity(depth),
            shared,
            max_append,
            giving_up: false,
            buffers: Vec::with_capacity(depth),
            ranges: Vec::with_capacity(MAX_RANGES),
        }
    }

    /// Parses a chain and starts what it asks for.
    fn take(&mut self, queue: &mut Queue, chain: Chain) {
        let features = queue.features() & self.shared.features;
        let request = match request::parse(&chain, &self.limits(features), &mut self.ranges) {
            Ok(request) => request,
            Err(Refusal::NoStatus) => return queue.push(chain, 0),
            Err(Refusal::Status(status)) => return refuse(queue, chain, status),
        };
        let then_flush = is_writethrough(&self.shared, features);
        let (again, place) = (chain.is_recovered(), noted_place(&chain));
        match request {
            Request::SerialNumber => self.tell_serial(queue, chain),
            Request::Report { offset, zones } => self.tell_zones(queue, chain, offset, zones),
            Request::Read { offset, len } => {
                self.name_buffers(chain.writable(), 0, len);
                let tag = self.occupy(Slot { written: len, ..Slot::of(chain) });
                let submitted = self.disk.submit(Op::Read { offset, buffers: &self.buffers }, tag);
                self.submitted(queue, tag, submitted);
            }
            Request::Write { offset, len } => {
                self.name_data(&chain, len);
                let tag = self.occupy(Slot { then_flush, ..Slot::of(chain) });
                let op = Op::Write { offset, buffers: &self.buffers };
                let submitted =
                    if again { self.disk.resubmit(op, tag, None) } else { self.disk.submit(op, tag) };
                self.submitted(queue, tag, submitted);
            }
            Request::Append { zone, len } => {
                self.name_data(&chain, len);
                let tag = self.occupy(Slot { then_flush, append: true, ..Slot::of(chain) });
                let op = Op::Append { zone, buffers: &self.buffers };
                let submitted =
                    if again { self.disk.resubmit(op, tag, place) } else { self.disk.submit(op, tag) };
                self.note_places(queue);
                self.submitted(queue, tag, submitted);
            }
            Request::Flush => self.submit_alone(queue, chain, Op::Flush),
            Request::Zone { action, zone } => self.submit_alone(queue, chain, Op::Zone { action, zone }),
            Request::Discard | Request::WriteZeroes => {
                let pending = self.ranges.len();
                let tag = self.occupy(Slot { pending, then_flush, ..Slot::of(chain) });
                self.submit_ranges(queue, tag, request == Request::Discard);
            }
        }
    }

    /// What requests are judged by, of a driver that accepted `features`.
    fn limits(&self, features: u64) -> Limits {
        let Shared { image, capacity, .. } = &*self.shared;
        let has = |number| features & bit(number) != 0;
        Limits {
            capacity: capacity.load(Ordering::Relaxed),
            read_only: image.is_read_only(),
            discard: has(v::VIRTIO_BLK_F_DISCARD),
            write_zeroes: has(v::VIRTIO_BLK_F_WRITE_ZEROES),
            zones: match self.max_append {
                None => Zones::None,
                Some(_) if !has(v::VIRTIO_BLK_F_ZONED) => Zones::Unknown,
                Some(max_append) => Zones::HostManaged { max_append },
            },
        }
    }

    fn tell_serial(&self, queue: &mut Queue, chain: Chain) {
        let room = chain.writable_len() - 1;
        let len = room.min(SERIAL_LEN);
        let _ = chain.writer().write_all(&self.shared.serial[..len]);
        answer(queue, chain, Status::Ok, len);
    }

    fn tell_zones(&self, queue: &mut Queue, chain: Chain, offset: u64, zones: usize) {
        let zoned = self.shared.image.zoned().expect("the parser lets it through for a disk with zones");
        match report::write(zoned, &chain, offset, zones) {
            Ok(written) => answer(queue, chain, Status::Ok, written),
            Err(error) => {
                self.shared.report(&error);
                refuse(queue, chain, Status::IoErr);
            }
        }
    }

    /// Lists the last `len` bytes that the device reads in `self.buffers`.
    fn name_data(&mut self, chain: &Chain, len: usize) {
        self.name_buffers(chain.readable(), chain.readable_len() - len, len);
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

    /// Puts a request into a slot.
    fn occupy(&mut self, request: Slot) -> Tag {
        let tag = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            // No more slots than chains in flight, so than descriptors in a queue.
            (self.slots.len() - 1) as Tag
        });
        self.slots[tag as usize] = request;
        tag
    }

    /// Starts a request without data.
    fn submit_alone(&mut self, queue: &mut Queue, chain: Chain, op: Op<'_>) {
        let tag = self.occupy(Slot::of(chain));
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
    fn finish(&mut self, queue: &mut Queue, tag: Tag, outcome: Outcome) {
        let slot = &mut self.slots[tag as usize];
        slot.pending -= 1;
        match outcome {
            Ok(offset) if mem::take(&mut slot.append) => {
                if let Some(chain) = &slot.chain {
                    note_place(queue, chain, offset);
                    slot.written = tell_place(chain, offset);
                }
            }
            Ok(_) => {}
            Err(fault) => {
                slot.status = Some(status_of(&fault));
                if let Fault::Host(error) = &fault
                    && !self.giving_up
                {
                    self.shared.report(error);
                }
            }
        }
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
        let written = slot.written;
        let chain = slot.chain.take().expect("an operation belongs to a request");
        let undone = status != Status::Ok || slot.then_flush;
        self.free.push(tag);
        if self.giving_up && undone {
            return;
        }
        match status {
            Status::Ok => answer(queue, chain, status, written),
            failed => refuse(queue, chain, failed),
        }
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

    /// Writes down where appends go, for whoever goes on should this process end: done twice, they
    /// would fill the zone with what nobody asked for.
    fn note_places(&mut self, queue: &mut Queue) {
        while let Some((tag, place)) = self.disk.placed() {
            if let Some(chain) = self.slots.get(tag as usize).and_then(|slot| slot.chain.as_ref()) {
                note_place(queue, chain, place);
            }
        }
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
        loop {
            self.note_places(queue);
            self.disk.kick();
            // What is over already, and the flushes that follow writes.
            if !self.reap(queue) {
                return Ok(());
            }
        }
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        self.disk.wake()
    }

    fn drain(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        while self.in_flight() > 0 {
            self.note_places(queue);
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
    /// Tells the host's log that the driver will see a disk that can nothing.
    pub(super) fn warn_of_zones(&self) {
        static LIMIT: LogLimit = LogLimit::new();
        if let Some(dropped) = LIMIT.pass() {
            tracing::warn!(
                dropped,
                "disk image {} has zones, and the driver or the virtual machine monitor does not know them \
                 (VIRTIO_BLK_F_ZONED): every request fails",
                self.image.path().display(),
            );
        }
    }

    /// Tells the host's log about a fault of the host.
    fn report(&self, error: &io::Error) {
        static LIMIT: LogLimit = LogLimit::new();
        if let Some(dropped) = LIMIT.pass() {
            tracing::warn!(dropped, "disk image {}: a request failed: {error}", self.image.path().display());
        }
    }
}

/// What a driver is told of a request that failed.
fn status_of(fault: &Fault) -> Status {
    match fault {
        Fault::Refused(zoned::Refusal::InvalidCommand) => Status::ZoneInvalidCmd,
        Fault::Refused(zoned::Refusal::UnalignedWrite) => Status::ZoneUnalignedWp,
        Fault::Refused(zoned::Refusal::OpenResource) => Status::ZoneOpenResource,
        Fault::Refused(zoned::Refusal::ActiveResource) => Status::ZoneActiveResource,
        // The disk waits for zones that are busy, and reads and writes beyond its end are as of any disk.
        Fault::Host(_) | Fault::Refused(zoned::Refusal::Busy | zoned::Refusal::OutOfRange) => Status::IoErr,
    }
}

/// Writes where on the disk an append went to the start of what the device writes, and says how
/// many bytes that was: the driver may have padding between it and the status.
fn tell_place(chain: &Chain, offset: u64) -> usize {
    let mut writer = chain.writer();
    let _ = writer.write_all(&(offset / u64::from(SECTOR)).to_le_bytes());
    let padding = (writer.remaining() - 1).min(MAX_PADDING);
    writer.write_zeroes(padding);
    writer.written()
}

/// For [`noted_place`] of another process: 0 would be no note.
fn note_place(queue: &mut Queue, chain: &Chain, place: u64) {
    queue.note(chain.head(), place / u64::from(SECTOR) + 1);
}

/// Where an append went before another process ended, if it said so.
fn noted_place(chain: &Chain) -> Option<u64> {
    chain.note().map(|note| (note - 1) * u64::from(SECTOR))
}

/// Gives a chain back with its status, in the last byte the device writes; `written` are the bytes
/// from the start on, the status not counted.
fn answer(queue: &mut Queue, chain: Chain, status: Status, written: usize) {
    let last = chain.writable_len() - 1;
    let _ = chain.writer().patch(last, &[status as u8]);
    // The status counts if there is nothing unwritten before it (virtio 1.3 §2.7.8.2).
    let written = if written == last { written + 1 } else { written };
    // A queue has no chains of 2^32 bytes.
    queue.push(chain, u32::try_from(written).unwrap_or(u32::MAX));
}

/// Gives a chain back for which nothing was done, or not all: data that was not read does not count.
fn refuse(queue: &mut Queue, chain: Chain, status: Status) {
    answer(queue, chain, status, 0);
}

#[cfg(test)]
mod tests;
