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
use crate::engine::{USUAL_PIECES, tidy};
use crate::zoned::{Refusal, Write};
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
    /// Appends in flight whose places nobody asked for yet.
    placed: VecDeque<(Tag, u64)>,
    /// Requests the clerk has.
    at_clerk: usize,
    /// The pieces of a read that are in front of the write pointer.
    written: Vec<Buffer>,
}

/// A request that `inner` has, or storage for one.
#[derive(Default)]
struct Slot {
    tag: Tag,
    /// Of a write: its place, and how long it is.
    write: Option<(Write, u64)>,
    append: bool,
}

/// A request for a zone that is busy.
struct Kept {
    tag: Tag,
    kind: Kind,
    buffers: Vec<Buffer>,
}

/// What may find a zone busy.
#[derive(Clone, Copy)]
enum Kind {
    Write {
        offset: u64,
    },
    /// A write that may have been done before.
    Again {
        offset: u64,
    },
    Append {
        zone: u64,
    },
    /// An append that may have been done before.
    AppendAgain {
        zone: u64,
        at: u64,
    },
    Open {
        zone: u64,
    },
    Close {
        zone: u64,
    },
}

impl Kind {
    /// An offset in the zone it is about.
    fn place(self) -> u64 {
        let (Self::Write { offset: place }
        | Self::Again { offset: place }
        | Self::Append { zone: place }
        | Self::AppendAgain { zone: place, .. }
        | Self::Open { zone: place }
        | Self::Close { zone: place }) = self;
        place
    }
}

impl ZonedDisk {
    pub(super) fn new(inner: Box<dyn Disk>, file: Arc<ZonedFile>, depth: u16) -> io::Result<Self> {
        let depth = usize::from(depth);
        let mailbox = Arc::new(Mailbox::new(depth)?);
        let wake = sys::epoll(inner.wake().into_iter().chain([mailbox.wake()]))?;
        file.core.bells.add(&mailbox);
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
            at_clerk: 0,
            written: Vec::with_capacity(USUAL_PIECES),
        })
    }

    /// Gives `inner` a request; offsets are in the file.
    fn start(&mut self, op: Op<'_>, slot: Slot) -> Submitted {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as Tag // no more than there are requests
        });
        self.slots[index as usize] = slot;
        match self.inner.submit(op, index) {
            Submitted::Done(result) => Submitted::Done(self.over(index, result).1),
            Submitted::InFlight => Submitted::InFlight,
        }
    }

    /// `inner` is done with a request.
    fn over(&mut self, index: Tag, result: Outcome) -> (Tag, Outcome) {
        let Slot { tag, write, append } = mem::take(&mut self.slots[index as usize]);
        self.free.push(index);
        let Some((write, len)) = write else { return (tag, result) };
        let at = write.offset;
        let result = result.map_err(|fault| self.file.core.failed(at, len, fault));
        self.file.core.complete(write);
        (tag, result.map(|_| if append { at } else { 0 }))
    }

    fn read(&mut self, offset: u64, buffers: &[Buffer], tag: Tag) -> Submitted {
        let Some(len) = buffer::total(buffers) else { return refused(Refusal::OutOfRange) };
        let written = match self.file.core.zones().read(offset, len) {
            Ok(written) => written,
            Err(refusal) => return refused(refusal),
        };
        let offset = self.file.core.keeper.data_offset() + offset;
        if written == len {
            return self.start(Op::Read { offset, buffers }, Slot { tag, ..Slot::default() });
        }
        // What is beyond the write pointer may not be gone yet.
        let mut pieces = mem::take(&mut self.written);
        pieces.clear();
        pieces.extend_from_slice(buffers);
        buffer::truncate_and_zero(&mut pieces, usize::try_from(written).unwrap_or(usize::MAX));
        let submitted = self.start(Op::Read { offset, buffers: &pieces }, Slot { tag, ..Slot::default() });
        self.written = pieces;
        submitted
    }

    /// Does what may find a zone busy; `None` if it is.
    fn attempt(&mut self, kind: Kind, buffers: &[Buffer], tag: Tag) -> Option<Submitted> {
        let Some(len) = buffer::total(buffers) else { return Some(refused(Refusal::OutOfRange)) };
        let zones = self.file.core.zones();
        let placed = match kind {
            Kind::Write { offset } => zones.write(offset, len).map(Some),
            Kind::Again { offset } => zones.write_again(offset, len).map(Some),
            Kind::Append { zone } => zones.append(zone, len).map(Some),
            Kind::AppendAgain { zone, at } => zones.append_again(zone, len, at).map(Some),
            Kind::Open { zone } => zones.open(zone).map(|()| None),
            Kind::Close { zone } => zones.close(zone).map(|()| None),
        };
        match placed {
            Ok(Some(write)) => {
                let offset = self.file.core.keeper.data_offset() + write.offset;
                let append = matches!(kind, Kind::Append { .. } | Kind::AppendAgain { .. });
                let place = (tag, write.offset);
                let slot = Slot { tag, write: Some((write, len)), append };
                let submitted = self.start(Op::Write { offset, buffers }, slot);
                if append && matches!(submitted, Submitted::InFlight) {
                    // For whoever never asks, no more than are in flight.
                    if self.placed.len() >= self.slots.len() {
                        self.placed.pop_front();
                    }
                    self.placed.push_back(place);
                }
                Some(submitted)
            }
            Ok(None) => Some(Submitted::Done(Ok(0))),
            Err(Refusal::Busy) => None,
            Err(refusal) => Some(refused(refusal)),
        }
    }

    fn attempt_or_keep(&mut self, kind: Kind, buffers: &[Buffer], tag: Tag) -> Submitted {
        let first = !self.kept.iter().any(|kept| self.same_zone(kept.kind, kind));
        if first && let Some(submitted) = self.attempt(kind, buffers, tag) {
            return submitted;
        }
        let mut storage = self.spare.pop().unwrap_or_default();
        storage.extend_from_slice(buffers);
        self.kept.push_back(Kept { tag, kind, buffers: storage });
        // It has to be tried again after saying that somebody waits.
        self.mailbox.tell();
        Submitted::InFlight
    }

    /// Tries again what was kept, if something happened.
    fn retry(&mut self) {
        if self.kept.is_empty() || !self.mailbox.had_news() {
            return;
        }
        self.file.core.bells.queue_listens(&self.mailbox);
        for left in (0..self.kept.len()).rev() {
            let Some(mut kept) = self.kept.pop_front() else { break };
            // Behind those that are still to be tried are those that found a zone busy again.
            let mut busy = self.kept.range(left..);
            let first = !busy.any(|other| self.same_zone(other.kind, kept.kind));
            match first.then(|| self.attempt(kept.kind, &kept.buffers, kept.tag)).flatten() {
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
        self.inner.kick();
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

    fn is_device(&self) -> bool {
        self.file.core.keeper.is_device()
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
                ZoneAction::Open if self.is_device() => self.ask_clerk(Work::Open(zone), tag),
                ZoneAction::Close if self.is_device() => self.ask_clerk(Work::Close(zone), tag),
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
            (Op::Write { offset, buffers }, _) if self.is_device() => self.write_rest(offset, buffers, tag),
            (Op::Append { buffers, .. }, Some(at)) if self.is_device() && self.is_written(at, buffers) => {
                Submitted::Done(Ok(at))
            }
            (Op::Write { offset, buffers }, _) => self.attempt_or_keep(Kind::Again { offset }, buffers, tag),
            (Op::Append { zone, buffers }, Some(at)) if !self.is_device() => {
                self.attempt_or_keep(Kind::AppendAgain { zone, at }, buffers, tag)
            }
            _ => self.submit(op, tag),
        }
    }

    fn placed(&mut self) -> Option<(Tag, u64)> {
        self.placed.pop_front()
    }

    fn kick(&mut self) {
        self.retry();
        self.inner.kick();
    }

    fn reap(&mut self) -> Option<(Tag, Outcome)> {
        self.retry();
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
        Some(self.over(index, result))
    }

    fn wait(&mut self) {
        loop {
            self.kick();
            if !self.ended.is_empty() || (self.at_clerk > 0 && self.mailbox.has_mail()) {
                return;
            }
            // Whatever `inner` has ends without the clerk, and soon.
            if self.moving() > 0 {
                return self.inner.wait();
            }
            if self.at_clerk == 0 && self.kept.is_empty() {
                return;
            }
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
        while self.moving() > 0 {
            self.inner.wait();
            while let Some((index, result)) = self.inner.reap() {
                let _ = self.over(index, result);
            }
        }
    }
}

fn refused(refusal: Refusal) -> Submitted {
    Submitted::Done(Err(refusal.into()))
}
