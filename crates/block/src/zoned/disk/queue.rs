//! One queue of requests to a disk with zones: zones say where data goes, a disk without zones over the
//! same file moves it.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::ZonedFile;
use super::bells::Mailbox;
use super::clerk::{Job, Work};
use super::kept::{Kept, Kind, Part, Ready};
use crate::engine::{USUAL_PIECES, tidy};
use crate::zoned::Refusal;
use crate::{Aio, Buffer, Disk, Op, Outcome, Submitted, Tag, ZoneAction, buffer, sys};

/// Reads, writes and appends take no lock here, unless a zone is busy: then they are kept, in order,
/// until it may not be any more.
pub(super) struct ZonedDisk {
    /// Over the whole file. Its tags are indices of `slots`.
    inner: Box<dyn Disk>,
    file: Arc<ZonedFile>,
    mailbox: Arc<Mailbox>,
    /// Watches `inner` and `mailbox`.
    wake: OwnedFd,
    slots: Vec<Slot>,
    free: Vec<Tag>,
    kept: VecDeque<Kept>,
    /// Storage of buffer lists that are not in use.
    spare: Vec<Vec<Buffer>>,
    /// Requests that ended while nobody asked.
    ended: VecDeque<(Tag, Outcome)>,
    /// Appends whose places nobody asked for yet.
    placed: VecDeque<(Tag, u64)>,
    /// Requests that have their places, of which those of appends are asked for before anything is written.
    ready: VecDeque<Ready>,
    /// Whether anybody asks for places.
    asked: bool,
    /// Storage of lists of joined requests that are not in use.
    spare_joined: Vec<Vec<(Tag, Part)>>,
    /// Requests the clerk has.
    at_clerk: usize,
    /// The pieces of a read that are in front of the write pointer.
    pieces: Vec<Buffer>,
    /// What is about to be written with another one, or was.
    joined: Vec<(Tag, Part)>,
    depth: usize,
    /// What the keeper says of itself.
    is_device: bool,
    data_offset: u64,
}

/// What `inner` has, or storage for it.
#[derive(Default)]
struct Slot {
    tag: Tag,
    /// Of a write.
    part: Option<Part>,
    /// Requests that are done with it, each right behind the one before.
    joined: Vec<(Tag, Part)>,
}

/// The most bytes that are written at once for several requests: more would not be quicker.
const MOST_JOINED: u64 = 1 << 20;

impl ZonedDisk {
    pub(super) fn new(inner: Box<dyn Disk>, file: Arc<ZonedFile>, depth: u16) -> io::Result<Self> {
        let depth = usize::from(depth);
        let mailbox = Arc::new(Mailbox::new(depth)?);
        let wake = sys::epoll(inner.wake().into_iter().chain([mailbox.wake()]))?;
        file.core.bells.add(&mailbox);
        let (is_device, data_offset) = (file.core.keeper.is_device(), file.core.keeper.data_offset());
        Ok(Self {
            inner,
            file,
            mailbox,
            wake,
            slots: Vec::with_capacity(depth),
            free: Vec::with_capacity(depth),
            kept: VecDeque::new(),
            spare: Vec::new(),
            ended: VecDeque::with_capacity(depth),
            placed: VecDeque::with_capacity(depth),
            ready: VecDeque::with_capacity(depth),
            asked: false,
            spare_joined: Vec::new(),
            at_clerk: 0,
            pieces: Vec::with_capacity(USUAL_PIECES),
            joined: Vec::new(),
            depth,
            is_device,
            data_offset,
        })
    }

    /// Gives `inner` a request, and all of `joined` with it; offsets are in the file.
    // Inlined, as three others on this path: a part that goes from one function to the next goes through memory, and
    // a write to an image in memory takes 3 % longer.
    #[inline(always)]
    fn start(&mut self, op: Op<'_>, tag: Tag, part: Option<Part>) -> Submitted {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as Tag // no more than there are requests
        });
        match self.inner.submit(op, index) {
            Submitted::Done(result) => {
                self.free.push(index);
                Submitted::Done(self.over(part, result))
            }
            Submitted::InFlight => {
                let slot = &mut self.slots[index as usize];
                (slot.tag, slot.part) = (tag, part);
                mem::swap(&mut slot.joined, &mut self.joined);
                Submitted::InFlight
            }
        }
    }

    /// `inner` is done with a request that it had in flight.
    fn landed(&mut self, index: Tag, result: Outcome) -> (Tag, Outcome) {
        self.free.push(index);
        let slot = &mut self.slots[index as usize];
        let (tag, part) = (slot.tag, slot.part.take());
        mem::swap(&mut slot.joined, &mut self.joined);
        (tag, self.over(part, result))
    }

    /// `inner` is done with a request, and all of `joined` with it.
    #[inline(always)]
    fn over(&mut self, part: Option<Part>, result: Outcome) -> Outcome {
        let Some(part) = part else { return result };
        if !self.joined.is_empty() {
            return self.all_over(part, result);
        }
        let core = &self.file.core;
        let result = result.map_err(|fault| core.failed(part.write.offset, part.len, fault));
        let outcome = result.map(|_| part.done());
        core.complete(part.write);
        outcome
    }

    /// A write of several requests is over. If it failed, those in front of the zone's write pointer are
    /// done all the same; the others, as in one that the kernel has put together, share the error.
    fn all_over(&mut self, first: Part, result: Outcome) -> Outcome {
        let core = &self.file.core;
        let (start, end) =
            (first.write.offset, self.joined.last().map_or(first.end(), |(_, last)| last.end()));
        let (fault, done) = match result {
            Ok(_) => (None, end),
            Err(fault) => {
                let fault = core.failed(start, end - start, fault);
                // If all of it seems to be there, nobody knows what the error is about.
                (Some(fault), core.written_to(start).filter(|done| *done < end).unwrap_or(start))
            }
        };
        let over = |part: Part| {
            let outcome = match &fault {
                Some(fault) if part.end() > done => Err(fault.again()),
                _ => Ok(part.done()),
            };
            core.complete(part.write);
            outcome
        };
        let outcome = over(first);
        self.ended.extend(self.joined.drain(..).map(|(tag, part)| (tag, over(part))));
        outcome
    }

    fn read(&mut self, offset: u64, buffers: &[Buffer], tag: Tag) -> Submitted {
        let Some(len) = buffer::total(buffers) else { return refused(Refusal::OutOfRange) };
        let written = match self.file.core.zones().read(offset, len) {
            Ok(written) => written,
            Err(refusal) => return refused(refusal),
        };
        let offset = self.data_offset + offset;
        if written == len {
            return self.start(Op::Read { offset, buffers }, tag, None);
        }
        // What is beyond the write pointer may not be gone yet.
        let mut pieces = mem::take(&mut self.pieces);
        pieces.extend_from_slice(buffers);
        buffer::truncate_and_zero(&mut pieces, usize::try_from(written).unwrap_or(usize::MAX));
        let submitted = self.start(Op::Read { offset, buffers: &pieces }, tag, None);
        pieces.clear();
        self.pieces = pieces;
        submitted
    }

    /// Does what may find a zone busy; `None` if it is. Of the next `behind` that are kept, those go with
    /// it that can.
    fn attempt(&mut self, kind: Kind, buffers: &[Buffer], tag: Tag, behind: &mut usize) -> Option<Submitted> {
        let Some(len) = buffer::total(buffers) else { return Some(refused(Refusal::OutOfRange)) };
        let write = match kind.reserve(self.file.core.zones(), len) {
            Ok(Some(write)) => write,
            Ok(None) => return Some(Submitted::Done(Ok(0))),
            Err(Refusal::Busy) => return None,
            Err(refusal) => return Some(refused(refusal)),
        };
        let part = Part { write, len, append: kind.is_append() };
        // A device has all in the order of its zones' places, and a write may take appends along.
        if !part.append && !self.is_device {
            let offset = self.data_offset + part.write.offset;
            return Some(self.start(Op::Write { offset, buffers }, tag, Some(part)));
        }
        let mut pieces = self.spare.pop().unwrap_or_default();
        pieces.extend_from_slice(buffers);
        if self.is_device {
            self.join(kind, &part, &mut pieces, behind);
        }
        if part.append {
            self.note((tag, part.write.offset));
        }
        let mut joined = self.spare_joined.pop().unwrap_or_default();
        mem::swap(&mut joined, &mut self.joined);
        self.ready.push_back(Ready { tag, part, buffers: pieces, joined });
        Some(Submitted::InFlight)
    }

    /// Starts all that has its place.
    fn start_ready(&mut self) {
        self.each_ready(|disk, buffers, tag, part| {
            let offset = disk.data_offset + part.write.offset;
            disk.start(Op::Write { offset, buffers }, tag, Some(part))
        });
    }

    /// Ends all that has its place and was not started.
    fn drop_ready(&mut self) {
        let interrupted = || Err(io::ErrorKind::Interrupted.into());
        self.each_ready(|disk, _, _, part| Submitted::Done(disk.over(Some(part), interrupted())));
    }

    /// Has `go` do what becomes of each that is ready, and of all that is joined with it.
    fn each_ready(&mut self, go: impl Fn(&mut Self, &[Buffer], Tag, Part) -> Submitted) {
        while let Some(Ready { tag, part, mut buffers, mut joined }) = self.ready.pop_front() {
            mem::swap(&mut joined, &mut self.joined);
            self.spare_joined.push(joined);
            if let Submitted::Done(outcome) = go(self, &buffers, tag, part) {
                self.ended.push_back((tag, outcome));
            }
            tidy(&mut buffers);
            self.spare.push(buffers);
        }
    }

    /// Takes those of the next `behind` that are kept which go on where `first` ends, one after the other.
    fn join(&mut self, kind: Kind, first: &Part, pieces: &mut Vec<Buffer>, behind: &mut usize) {
        let (mut room, mut at) = (MOST_JOINED.saturating_sub(first.len), 0);
        while at < *behind {
            let next = &self.kept[at];
            if !self.same_zone(kind, next.kind) {
                at += 1;
                continue;
            }
            let len = buffer::total(&next.buffers).filter(|len| *len <= room);
            let fits = pieces.len() + next.buffers.len() <= sys::MAX_PIECES;
            let Some(len) = len.filter(|_| fits) else { break };
            let Ok(write) = next.kind.join(self.file.core.zones(), &first.write, len) else { break };
            let Some(mut kept) = self.kept.remove(at) else { break };
            let part = Part { write, len, append: kept.kind.is_append() };
            if part.append {
                self.note((kept.tag, part.write.offset));
            }
            pieces.extend_from_slice(&kept.buffers);
            self.joined.push((kept.tag, part));
            tidy(&mut kept.buffers);
            self.spare.push(kept.buffers);
            (room, *behind) = (room - len, *behind - 1);
        }
    }

    /// An append has got its place.
    fn note(&mut self, place: (Tag, u64)) {
        // For whoever never asks, no more than are in flight.
        if self.placed.len() >= self.depth.max(self.slots.len() + self.ready.len()) {
            self.placed.pop_front();
        }
        self.placed.push_back(place);
    }

    #[inline(always)]
    fn attempt_or_keep(&mut self, kind: Kind, buffers: &[Buffer], tag: Tag) -> Submitted {
        // A device has one write in each zone: those of one turn are one.
        let first = !self.is_device && !self.kept.iter().any(|kept| self.same_zone(kept.kind, kind));
        if first && let Some(submitted) = self.attempt(kind, buffers, tag, &mut 0) {
            return submitted;
        }
        let mut storage = self.spare.pop().unwrap_or_default();
        storage.extend_from_slice(buffers);
        self.kept.push_back(Kept { tag, kind, buffers: storage });
        // It has to be tried again after saying that somebody waits.
        self.mailbox.remember();
        Submitted::InFlight
    }

    /// Tries again what was kept, if something happened.
    fn retry(&mut self) {
        if self.kept.is_empty() || !self.mailbox.had_news() {
            return;
        }
        self.file.core.bells.queue_listens(&self.mailbox);
        let mut left = self.kept.len();
        while left > 0
            && let Some(mut kept) = self.kept.pop_front()
        {
            left -= 1;
            // Behind those that are still to be tried are those that found a zone busy again.
            let first = !self.kept.range(left..).any(|other| self.same_zone(other.kind, kept.kind));
            let tried = first.then(|| self.attempt(kept.kind, &kept.buffers, kept.tag, &mut left));
            match tried.flatten() {
                None => {
                    self.kept.push_back(kept);
                    continue;
                }
                Some(Submitted::Done(outcome)) => self.ended.push_back((kept.tag, outcome)),
                Some(Submitted::InFlight) => {}
            }
            tidy(&mut kept.buffers);
            self.spare.push(kept.buffers);
        }
        if self.kept.is_empty() {
            self.mailbox.rests();
        }
    }

    fn same_zone(&self, one: Kind, other: Kind) -> bool {
        let size = self.file.core.zones().geometry().zone_size;
        one.place() / size == other.place() / size
    }

    /// Writes what is not written already.
    fn write_rest(&mut self, offset: u64, buffers: &[Buffer], tag: Tag) -> Submitted {
        let written = self.already(offset, buffers);
        let mut rest = buffers.to_vec();
        let rest = buffer::advance(&mut rest, usize::try_from(written).unwrap_or(usize::MAX));
        if written > 0 && rest.is_empty() {
            return Submitted::Done(Ok(0));
        }
        self.attempt_or_keep(Kind::Write { offset: offset + written }, rest, tag)
    }

    fn is_written(&self, offset: u64, buffers: &[Buffer]) -> bool {
        buffer::total(buffers) == Some(self.already(offset, buffers))
    }

    /// How much of a write to a sequential zone is there already.
    fn already(&self, offset: u64, buffers: &[Buffer]) -> u64 {
        let zones = self.file.core.zones();
        let zone = zones.geometry().zone_at(offset);
        if zone.is_none_or(|zone| zones.geometry().is_conventional(zone)) {
            return 0;
        }
        buffer::total(buffers).and_then(|len| zones.read(offset, len).ok()).unwrap_or(0)
    }

    fn ask_clerk(&mut self, work: Work, tag: Tag) -> Submitted {
        let job = Job::new(work, tag, Arc::clone(&self.mailbox));
        match self.file.core.desk.put(&self.file.core, job) {
            Ok(()) => {
                self.at_clerk += 1;
                Submitted::InFlight
            }
            Err(error) => Submitted::Done(Err(error.into())),
        }
    }

    /// How many requests `inner` has.
    fn moving(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

impl Disk for ZonedDisk {
    fn submit(&mut self, op: Op<'_>, tag: Tag) -> Submitted {
        match op {
            Op::Read { offset, buffers } => self.read(offset, buffers, tag),
            Op::Write { offset, buffers } => self.attempt_or_keep(Kind::Write { offset }, buffers, tag),
            Op::Append { zone, buffers } => self.attempt_or_keep(Kind::Append { zone }, buffers, tag),
            Op::Flush => self.ask_clerk(Work::Flush, tag),
            Op::Zone { action, zone } => match action {
                ZoneAction::Open if self.is_device => self.ask_clerk(Work::Open(zone), tag),
                ZoneAction::Close if self.is_device => self.ask_clerk(Work::Close(zone), tag),
                ZoneAction::Open => self.attempt_or_keep(Kind::Open { zone }, &[], tag),
                ZoneAction::Close => self.attempt_or_keep(Kind::Close { zone }, &[], tag),
                ZoneAction::Finish => self.ask_clerk(Work::Finish(zone), tag),
                ZoneAction::Reset => self.ask_clerk(Work::Reset(zone), tag),
                ZoneAction::ResetAll => self.ask_clerk(Work::ResetAll, tag),
            },
            Op::Discard { .. } | Op::WriteZeroes { .. } => {
                Submitted::Done(Err(io::ErrorKind::Unsupported.into()))
            }
        }
    }

    fn resubmit(&mut self, op: Op<'_>, tag: Tag, place: Option<u64>) -> Submitted {
        match (op, place) {
            (Op::Write { offset, buffers }, _) if self.is_device => self.write_rest(offset, buffers, tag),
            (Op::Append { buffers, .. }, Some(at)) if self.is_device && self.is_written(at, buffers) => {
                Submitted::Done(Ok(at))
            }
            (Op::Write { offset, buffers }, _) => self.attempt_or_keep(Kind::Again { offset }, buffers, tag),
            (Op::Append { zone, buffers }, Some(at)) if !self.is_device => {
                self.attempt_or_keep(Kind::AppendAgain { zone, at }, buffers, tag)
            }
            _ => self.submit(op, tag),
        }
    }

    fn placed(&mut self) -> Option<(Tag, u64)> {
        // What gets its place now is not on its way before somebody could write that down.
        self.asked = true;
        self.retry();
        self.placed.pop_front()
    }

    fn kick(&mut self) {
        self.start_ready();
        self.retry();
        if !self.asked {
            self.start_ready();
        } else if !self.ready.is_empty() {
            // They start with the next kick, once somebody could ask for their places.
            sys::signal(self.mailbox.wake());
        }
        self.inner.kick();
    }

    fn reap(&mut self) -> Option<(Tag, Outcome)> {
        if let Some(ended) = self.ended.pop_front() {
            return Some(ended);
        }
        if self.at_clerk > 0
            && let Some(done) = self.mailbox.take()
        {
            self.at_clerk -= 1;
            return Some(done);
        }
        let (index, result) = self.inner.reap()?;
        Some(self.landed(index, result))
    }

    fn wait(&mut self) {
        self.kick();
        let now = !self.ended.is_empty() || !self.ready.is_empty();
        if now || (self.at_clerk > 0 && self.mailbox.has_mail()) {
            return;
        }
        if self.moving() > 0 {
            // Whatever `inner` has ends without the clerk, and soon.
            self.inner.wait();
        } else if self.at_clerk > 0 || !self.kept.is_empty() {
            // News may be for what is kept: whoever called asks for places before it comes back.
            self.mailbox.wait();
        }
    }

    fn cancel(&mut self) {
        self.inner.cancel();
        for mut kept in self.kept.drain(..) {
            self.ended.push_back((kept.tag, Err(io::ErrorKind::Interrupted.into())));
            tidy(&mut kept.buffers);
            self.spare.push(kept.buffers);
        }
        self.drop_ready();
        self.mailbox.rests();
        self.file.core.desk.give_up(&self.mailbox);
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wake.as_fd())
    }

    fn aio(&self) -> Aio {
        self.inner.aio()
    }
}

impl Drop for ZonedDisk {
    fn drop(&mut self) {
        // A zone waits for its writes, whoever else has it.
        self.drop_ready();
        while self.moving() > 0 {
            self.inner.wait();
            while let Some((index, result)) = self.inner.reap() {
                let _ = self.landed(index, result);
            }
        }
    }
}

fn refused(refusal: Refusal) -> Submitted {
    Submitted::Done(Err(refusal.into()))
}
