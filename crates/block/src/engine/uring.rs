//! io_uring: what was submitted between two kicks enters the kernel with one system call, and
//! completions are read from shared memory.
#![expect(unsafe_code, reason = "the kernel uses the buffers of submitted entries until they complete")]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use io_uring::{IoUring, opcode, squeue, types};

use super::{USUAL_PIECES, tidy};
use crate::disk::{again, outcome};
use crate::raw::{MAX_RETRIES, PUNCH, RawFile, Scratch, is_unsupported};
use crate::{Aio, Buffer, Disk, Op, Outcome, Submitted, Tag, buffer, sys};

/// The image, as the ring's only registered file.
const FILE: types::Fixed = types::Fixed(0);

/// The largest ring; more requests than that wait in it for the next system call.
const MAX_ENTRIES: u32 = 4096;

/// The most that is copied at once from or to a file in memory, in bytes. More is left to the kernel's
/// threads.
const COPY: u64 = 64 << 10;

/// How often the kernel may say it has no memory for our requests before we stop asking.
const MAX_ENTER_RETRIES: u32 = 1000;

pub(crate) struct UringDisk {
    raw: Arc<RawFile>,
    ring: IoUring,
    /// Requests by `user_data`; grows to the most there ever were in flight.
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots whose entries the kernel has not taken yet, in the order of the submission queue.
    staged: VecDeque<u32>,
    /// Requests that ended without the ring.
    ended: VecDeque<(Tag, Outcome)>,
    in_flight: usize,
    /// The kernel refuses the ring: everything goes on here, one by one.
    dead: bool,
    /// What is in flight is given up: nothing is tried again.
    cancelled: bool,
    scratch: Scratch,
}

/// A request the kernel may hold. Its buffer list stays where it is until the completion is reaped.
#[derive(Default)]
struct Slot {
    tag: Tag,
    kind: Kind,
    /// All of them, then what is left of them.
    buffers: Vec<Buffer>,
    /// How many of `buffers`, from the start, have been moved.
    emptied: usize,
    /// Where `buffers[emptied..]` goes on.
    offset: u64,
    retries: u32,
}

#[derive(Clone, Copy, Default)]
enum Kind {
    Read,
    Write,
    #[default]
    Flush,
    Discard {
        len: u64,
    },
    WriteZeroes {
        len: u64,
        unmap: bool,
        mode: i32,
    },
}

impl UringDisk {
    /// # Errors
    /// The host has no io_uring, forbids it, or its io_uring lacks what we need.
    pub(crate) fn new(raw: Arc<RawFile>, depth: u16) -> io::Result<Self> {
        let entries = u32::from(depth.max(1)).next_power_of_two().min(MAX_ENTRIES);
        // Completions may wait until this thread enters the kernel anyway, which it does to sleep.
        // Not DEFER_TASKRUN: its completions do not make the ring's descriptor readable.
        let ring = IoUring::builder()
            .dontfork()
            .setup_clamp()
            .setup_coop_taskrun()
            .build(entries)
            .or_else(|_| IoUring::builder().dontfork().setup_clamp().build(entries))?;
        let mut probe = io_uring::register::Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let needed = [opcode::Read::CODE, opcode::Write::CODE, opcode::Fallocate::CODE, opcode::Fsync::CODE];
        if !ring.params().is_feature_nodrop() || !needed.iter().all(|&code| probe.is_supported(code)) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        ring.submitter().register_files(&[raw.file.as_raw_fd()])?;
        let depth = usize::from(depth);
        Ok(Self {
            raw,
            ring,
            slots: Vec::with_capacity(depth),
            free: Vec::with_capacity(depth),
            staged: VecDeque::with_capacity(depth),
            ended: VecDeque::new(),
            in_flight: 0,
            dead: false,
            cancelled: false,
            scratch: Scratch::default(),
        })
    }

    /// What the ring can do for `op`, which moves `len` bytes; `None` when it is done better, or only,
    /// by system calls.
    fn kind(&self, op: &Op<'_>, len: u64) -> Option<Kind> {
        // io_uring hands every transfer of a tmpfs to another thread.
        let copies = self.raw.in_memory && len <= COPY;
        if self.dead {
            return None;
        }
        match op {
            Op::Read { .. } | Op::Write { .. } if copies => None,
            Op::Read { buffers, .. } => (!self.raw.needs_bounce(buffers)).then_some(Kind::Read),
            Op::Write { buffers, .. } => (!self.raw.needs_bounce(buffers)).then_some(Kind::Write),
            Op::Flush => Some(Kind::Flush),
            Op::Discard { len, .. } => (!self.raw.block_device).then_some(Kind::Discard { len: *len }),
            Op::WriteZeroes { len, unmap, .. } => {
                let mode = self.raw.zeroes_mode(*unmap)?;
                Some(Kind::WriteZeroes { len: *len, unmap: *unmap, mode })
            }
            Op::Append { .. } | Op::Zone { .. } => None,
        }
    }

    /// Puts the slot's entry (for what is left of it) on the submission queue.
    fn push(&mut self, index: u32) {
        let entry = self.slots[index as usize].entry().user_data(u64::from(index));
        let mut queue = self.ring.submission();
        if queue.is_full() {
            drop(queue);
            self.enter(0);
            queue = self.ring.submission();
        }
        if self.dead {
            drop(queue);
            return self.end(index, Err(io::ErrorKind::OutOfMemory.into()));
        }
        // SAFETY: the entry points at the slot's buffer list and, through it, at memory that
        // `Buffer::new` promised until the request is over. Neither is touched before its completion:
        // a slot is reused only after `reap`, and drop waits for what is in flight.
        let pushed = unsafe { queue.push(&entry) };
        drop(queue);
        if pushed.is_ok() {
            self.staged.push_back(index);
        } else {
            self.end(index, Err(io::ErrorKind::OutOfMemory.into()));
        }
    }

    /// Gives the kernel what is on the submission queue, and waits for `want` completions.
    fn enter(&mut self, want: usize) {
        let mut retries = 0;
        while !self.dead {
            let result = if want == 0 { self.ring.submit() } else { self.ring.submit_and_wait(want) };
            let left = self.ring.submission().len();
            while self.staged.len() > left {
                self.staged.pop_front();
            }
            match result {
                Ok(_) if left == 0 => return,
                // The kernel stops at an entry it finds wrong and completes that one with an error.
                Ok(taken) if taken > 0 => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    if left == 0 {
                        return;
                    }
                }
                // Too many completions unread (EBUSY): whoever reaps makes room and enters again.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && self.has_completions() => return,
                _ if retries < MAX_ENTER_RETRIES => {
                    retries += 1;
                    std::thread::yield_now();
                }
                other => self.die(&other.err().unwrap_or_else(|| io::ErrorKind::OutOfMemory.into())),
            }
        }
    }

    fn has_completions(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    /// The kernel does not take entries any more: what it did not take fails, what it has will
    /// complete, and later requests do without it.
    fn die(&mut self, error: &io::Error) {
        tracing::error!("disk image {}: io_uring failed: {error}", self.raw.path.display());
        self.dead = true;
        while let Some(index) = self.staged.pop_front() {
            self.end(index, Err(again(error)));
        }
    }

    /// A request is over without a completion.
    fn end(&mut self, index: u32, result: io::Result<()>) {
        self.free.push(index);
        self.in_flight -= 1;
        let slot = &mut self.slots[index as usize];
        tidy(&mut slot.buffers);
        self.ended.push_back((slot.tag, outcome(result)));
    }

    /// Judges a completion: `None` when the request goes on.
    fn complete(&mut self, index: u32, result: i32) -> Option<io::Result<()>> {
        let slot = &mut self.slots[index as usize];
        if result < 0 {
            let error = io::Error::from_raw_os_error(-result);
            let retries = if self.cancelled { 0 } else { MAX_RETRIES };
            if matches!(-result, libc::EINTR | libc::EAGAIN) && slot.retries < retries {
                slot.retries += 1;
                return self.go_on(index);
            }
            if is_unsupported(&error) {
                return Some(self.refused(index, error));
            }
            return Some(Err(error));
        }
        match slot.kind {
            Kind::Flush | Kind::Discard { .. } | Kind::WriteZeroes { .. } => Some(Ok(())),
            Kind::Read | Kind::Write if result == 0 => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            Kind::Read | Kind::Write => {
                let moved = usize::try_from(result).unwrap_or(0);
                let left = buffer::advance(&mut slot.buffers[slot.emptied..], moved).len();
                slot.emptied = slot.buffers.len() - left;
                slot.offset += moved as u64;
                if left == 0 { Some(Ok(())) } else { self.go_on(index) }
            }
        }
    }

    /// Submits what is left of a request; `None`, as it is not over.
    fn go_on(&mut self, index: u32) -> Option<io::Result<()>> {
        self.push(index);
        None
    }

    /// The host has no such operation: do without it, here and now.
    fn refused(&mut self, index: u32, error: io::Error) -> io::Result<()> {
        let slot = &self.slots[index as usize];
        match slot.kind {
            Kind::Discard { .. } => Ok(()),
            Kind::WriteZeroes { len, unmap, mode } => {
                self.raw.refused(mode);
                self.raw.write_zeroes(slot.offset, len, unmap, &mut self.scratch)
            }
            Kind::Read | Kind::Write | Kind::Flush => Err(error),
        }
    }
}

impl Slot {
    fn entry(&self) -> squeue::Entry {
        let buffers = &self.buffers[self.emptied..];
        let (first, pieces) = (buffers.first(), buffers.len().min(sys::MAX_PIECES) as u32);
        // The plain operations spare the kernel the import of a vector; their length is 32 bits.
        let single =
            first.filter(|_| pieces == 1).and_then(|b| Some((b.as_ptr(), u32::try_from(b.len()).ok()?)));
        match (self.kind, single) {
            (Kind::Read, Some((memory, len))) => {
                opcode::Read::new(FILE, memory, len).offset(self.offset).build()
            }
            (Kind::Write, Some((memory, len))) => {
                opcode::Write::new(FILE, memory, len).offset(self.offset).build()
            }
            (Kind::Read, None) => {
                opcode::Readv::new(FILE, buffers.as_ptr().cast(), pieces).offset(self.offset).build()
            }
            (Kind::Write, None) => {
                opcode::Writev::new(FILE, buffers.as_ptr().cast(), pieces).offset(self.offset).build()
            }
            (Kind::Flush, _) => opcode::Fsync::new(FILE).flags(types::FsyncFlags::DATASYNC).build(),
            (Kind::Discard { len }, _) => {
                opcode::Fallocate::new(FILE, len).offset(self.offset).mode(PUNCH).build()
            }
            (Kind::WriteZeroes { len, mode, .. }, _) => {
                opcode::Fallocate::new(FILE, len).offset(self.offset).mode(mode).build()
            }
        }
    }
}

impl Disk for UringDisk {
    fn submit(&mut self, op: Op<'_>, tag: Tag) -> Submitted {
        let len = match self.raw.admit(&op) {
            Err(error) => return Submitted::Done(Err(error.into())),
            Ok(0) if !matches!(op, Op::Flush) => return Submitted::Done(Ok(0)),
            Ok(len) => len,
        };
        let Some(kind) = self.kind(&op, len) else {
            return Submitted::Done(outcome(self.raw.execute_admitted(op, &mut self.scratch)));
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { buffers: Vec::with_capacity(USUAL_PIECES), ..Slot::default() });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        (slot.tag, slot.kind, slot.emptied, slot.retries) = (tag, kind, 0, 0);
        slot.offset = match op {
            Op::Read { offset, buffers } | Op::Write { offset, buffers } => {
                // An empty piece could come back as a transfer of nothing, which is the end of a file.
                slot.buffers.extend(buffers.iter().filter(|buffer| !buffer.is_empty()));
                offset
            }
            Op::Flush | Op::Append { .. } | Op::Zone { .. } => 0,
            Op::Discard { offset, .. } | Op::WriteZeroes { offset, .. } => offset,
        };
        self.in_flight += 1;
        self.cancelled = false;
        self.push(index);
        Submitted::InFlight
    }

    fn kick(&mut self) {
        if !self.staged.is_empty() {
            self.enter(0);
        }
    }

    fn reap(&mut self) -> Option<(Tag, Outcome)> {
        loop {
            if let Some(ended) = self.ended.pop_front() {
                return Some(ended);
            }
            let completion = self.ring.completion().next();
            let Some(completion) = completion else {
                // More completions than the ring holds wait in the kernel, and nothing tells when it
                // brings them: it does so when it is entered.
                if self.staged.is_empty() && !self.ring.submission().cq_overflow() {
                    return None;
                }
                // What goes on after a short transfer, or did not fit earlier, must not wait for the
                // caller's next request either.
                self.enter(0);
                if self.ended.is_empty() && !self.has_completions() {
                    return None;
                }
                continue;
            };
            // `user_data` is an index we gave; the kernel returns it as it was.
            let index = completion.user_data() as u32;
            if let Some(result) = self.complete(index, completion.result()) {
                self.free.push(index);
                self.in_flight -= 1;
                let slot = &mut self.slots[index as usize];
                tidy(&mut slot.buffers);
                return Some((slot.tag, outcome(result)));
            }
        }
    }

    fn wait(&mut self) {
        if self.in_flight == 0 || !self.ended.is_empty() {
            return;
        }
        if self.dead {
            if !self.has_completions() {
                sys::wait_readable(self.ring_fd());
            }
        } else {
            self.enter(1);
        }
    }

    fn cancel(&mut self) {
        self.cancelled = true;
        // What the kernel cannot stop is waited for; all of it, before Linux 6.0.
        let _ = self.ring.submitter().register_sync_cancel(None, types::CancelBuilder::any());
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ring_fd())
    }

    fn aio(&self) -> Aio {
        Aio::IoUring
    }
}

impl UringDisk {
    fn ring_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring owns this descriptor for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

impl Drop for UringDisk {
    fn drop(&mut self) {
        // The kernel reads and writes the buffers until their requests complete.
        while self.in_flight > 0 {
            self.wait();
            while self.reap().is_some() {}
        }
        // The kernel takes a closed ring apart later; the image, and its lock, are let go of now.
        let _ = self.ring.submitter().unregister_files();
    }
}
