//! A disk behind a socket, by its rings: `virtio-driver` moves them, but its own disk knows no zones.
#![expect(unsafe_code, reason = "rings and buffers that a back-end fills")]

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use virtio_driver::virtqueue::{Virtqueue, VirtqueueLayout};
use virtio_driver::{
    EventFd, QueueNotifier, VhostUser, VirtioBlkConfig, VirtioBlkFeatureFlags, VirtioFeatureFlags,
    VirtioTransport, iovec,
};
use vm_memory::{FileOffset, MmapRegion};

use super::course::{Course, Kind, Load, Next};
use super::{BLOCK, Done, Result, in_threads};

/// How a disk becomes empty before it is written to.
#[derive(Clone, Copy)]
pub(crate) enum Empty {
    /// All its zones are reset.
    Zones,
    /// All its blocks are discarded.
    Ranges,
}

/// VIRTIO_BLK_F_ZONED (virtio 1.3 §5.2.3).
const ZONED: u64 = 1 << 17;
/// Types of requests (virtio 1.3 §5.2.6).
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const DISCARD: u32 = 11;
const APPEND: u32 = 15;
const RESET_ALL: u32 = 26;
/// The most that our disks discard at once, in sectors.
const MOST_DISCARDED: u64 = 1 << 21;
const SECTORS: u64 = BLOCK as u64 / 512;

/// The part of a request that is not data, in memory that the back-end has.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Request {
    kind: u32,
    reserved: u32,
    sector: u64,
    /// Of a discard: its only range.
    range: Range,
    /// Of an append, as Linux has it: where it went, padding, and the status; of all others the last byte.
    answer: [u8; 16],
}

/// Sectors of a disk.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Range {
    start: u64,
    count: u32,
    flags: u32,
}

pub(crate) type Transport = dyn VirtioTransport<VirtioBlkConfig, Request>;

/// Runs `load` on each queue of a back-end; what was done, and the connection.
pub(crate) fn run(
    socket: &str,
    queues: usize,
    mut load: Load,
    empty: Option<Empty>,
    settled: bool,
) -> Result<(Done, Box<Transport>)> {
    let disk = VirtioBlkFeatureFlags::MQ | VirtioBlkFeatureFlags::FLUSH | VirtioBlkFeatureFlags::DISCARD;
    let features = VirtioFeatureFlags::VERSION_1 | VirtioFeatureFlags::RING_EVENT_IDX;
    let mut transport: Box<Transport> =
        Box::new(VhostUser::new(socket, features.bits() | disk.bits() | ZONED)?);
    load.blocks = u64::from(transport.get_config()?.capacity) / SECTORS;
    let memory = shared_memory(queues * load.depth * BLOCK)?;
    let offset = memory.file_offset().ok_or("the memory has a file")?;
    transport.map_mem_region(memory.as_ptr().addr(), memory.size(), offset.file().as_raw_fd(), 0)?;
    // Three descriptors for each request.
    let rings = rings(&mut *transport, queues, u16::try_from((3 * load.depth).next_power_of_two())?)?;
    let client = |(index, ring): (usize, Virtqueue<'static, Request>)| Client {
        slots: vec![0; ring.queue_size().into()],
        ring,
        notifier: transport.get_submission_notifier(index),
        called: transport.get_completion_fd(index),
        buffers: memory.as_ptr().wrapping_add(index * load.depth * BLOCK).expose_provenance(),
        course: Course::new(load, index),
        load,
    };
    let mut clients: Vec<_> = rings.into_iter().enumerate().map(client).collect();
    if let Some(empty) = empty {
        clients[0].empty(empty)?;
    }
    let done = in_threads(clients.iter_mut().collect(), Client::run)?;
    if settled {
        clients[0].alone(FLUSH, 0, None)?;
    }
    Ok((done, transport))
}

fn rings(transport: &mut Transport, queues: usize, size: u16) -> Result<Vec<Virtqueue<'static, Request>>> {
    let features = VirtioFeatureFlags::from_bits_truncate(transport.get_features());
    let layout = VirtqueueLayout::new::<Request>(queues, size.into(), features)?;
    let translators: Vec<_> = (0..queues).map(|_| transport.iova_translator()).collect();
    let memory = transport.alloc_queue_mem(&layout)?.as_mut_ptr();
    let ring = |(index, translator)| {
        let start = memory.wrapping_add(index * layout.end_offset);
        // SAFETY: each ring has its own part of the memory, which is there as long as the transport;
        // whoever calls this drops the rings first.
        let memory = unsafe { std::slice::from_raw_parts_mut(start, layout.end_offset) };
        Virtqueue::new(translator, memory, size, features)
    };
    let rings: Vec<_> = translators.into_iter().enumerate().map(ring).collect::<io::Result<_>>()?;
    transport.setup_queues(&rings)?;
    Ok(rings)
}

/// One queue of a back-end.
struct Client {
    ring: Virtqueue<'static, Request>,
    /// By its first descriptor, where the data of a request in flight is.
    slots: Vec<usize>,
    notifier: Box<dyn QueueNotifier>,
    called: Arc<EventFd>,
    /// Address of the first of as many blocks as there are requests at once.
    buffers: usize,
    course: Course,
    load: Load,
}

impl Client {
    /// Does what is asked; how many blocks that were.
    fn run(&mut self) -> Result<u64> {
        let end = Instant::now() + self.load.time;
        let mut free: Vec<usize> = (0..self.load.depth).collect();
        loop {
            let before = free.len();
            if Instant::now() < end {
                self.submit(&mut free)?;
            }
            if free.len() == self.load.depth {
                return Ok(self.course.blocks);
            }
            if free.len() < before && self.ring.avail_notif_needed() {
                self.notifier.notify()?;
            }
            self.reap(&mut free)?;
        }
    }

    /// Asks for as much as there is room for.
    fn submit(&mut self, free: &mut Vec<usize>) -> io::Result<()> {
        while let Some(&slot) = free.last()
            && let Some(next) = self.course.next(self.load.depth - free.len())
        {
            free.pop();
            let (kind, sector) = match (next, self.load.kind) {
                (Next::Flush, _) => (FLUSH, 0),
                (Next::Block(block), Kind::Read) => (IN, block * SECTORS),
                (Next::Block(block), Kind::Write | Kind::Sequence) => (OUT, block * SECTORS),
                (Next::Block(block), Kind::Append) => (APPEND, block * SECTORS),
            };
            self.ask(kind, sector, None, slot)?;
        }
        Ok(())
    }

    fn empty(&mut self, how: Empty) -> Result<()> {
        match how {
            Empty::Zones => {
                self.alone(RESET_ALL, 0, None)?;
                // Is over once the data of the zones is gone.
                self.alone(FLUSH, 0, None)
            }
            Empty::Ranges => {
                let sectors = self.load.blocks * SECTORS;
                (0..sectors).step_by(MOST_DISCARDED as usize).try_for_each(|start| {
                    let count = MOST_DISCARDED.min(sectors - start) as u32;
                    let range = Range { start: start.to_le(), count: count.to_le(), flags: 0 };
                    self.alone(DISCARD, 0, Some(range))
                })
            }
        }
    }

    /// Asks for one thing, and waits until it is done.
    fn alone(&mut self, kind: u32, sector: u64, range: Option<Range>) -> Result<()> {
        self.ask(kind, sector, range, 0)?;
        if self.ring.avail_notif_needed() {
            self.notifier.notify()?;
        }
        self.reap(&mut Vec::new())
    }

    fn ask(&mut self, kind: u32, sector: u64, range: Option<Range>, slot: usize) -> io::Result<()> {
        let data = std::ptr::with_exposed_provenance_mut(self.buffers + slot * BLOCK);
        let chain = self.ring.add_request(|request, add| {
            *request = Request {
                kind: kind.to_le(),
                reserved: 0,
                sector: sector.to_le(),
                range: range.unwrap_or_default(),
                answer: [u8::MAX; 16],
            };
            let piece = |start: *mut libc::c_void, len| iovec { iov_base: start, iov_len: len };
            let header = if range.is_some() { 32 } else { 16 };
            add(piece((&raw mut *request).cast(), header), false)?;
            if matches!(kind, IN | OUT | APPEND) {
                add(piece(data, BLOCK), kind == IN)?;
            }
            let answer = if kind == APPEND { &mut request.answer[..] } else { &mut request.answer[15..] };
            add(piece(answer.as_mut_ptr().cast(), answer.len()), true)
        })?;
        self.slots[usize::from(chain)] = slot;
        Ok(())
    }

    /// Waits until something is over; its slots are free.
    fn reap(&mut self, free: &mut Vec<usize>) -> Result<()> {
        let before = free.len();
        loop {
            for completion in self.ring.completions() {
                let Request { kind, answer, .. } = completion.req;
                if answer[15] != 0 {
                    return Err(format!("a request of type {kind} has status {}", answer[15]).into());
                }
                free.push(self.slots[usize::from(completion.id)]);
            }
            if free.len() > before {
                return Ok(());
            }
            self.sleep()?;
        }
    }

    /// Waits until there is something, having asked to be told of it.
    fn sleep(&mut self) -> io::Result<()> {
        self.ring.set_used_notif_enabled(true);
        if !self.ring.completions().has_next() {
            // The descriptor may be one that does not block: the back-end chooses.
            poll(&mut [PollFd::new(&*self.called, PollFlags::IN)], None)?;
            let _ = self.called.read();
        }
        self.ring.set_used_notif_enabled(false);
        Ok(())
    }
}

fn shared_memory(len: usize) -> Result<MmapRegion> {
    let file = tempfile::tempfile_in("/dev/shm")?;
    file.set_len(len as u64)?;
    Ok(MmapRegion::from_file(FileOffset::new(file, 0), len)?)
}
