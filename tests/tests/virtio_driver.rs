//! A disk of ours behind its socket, used by the virtio-driver crate: the driver inside libblkio, which
//! shares nothing with our front-end.

#![expect(unsafe_code, reason = "virtio-driver reads and writes buffers by address")]
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;

use parador_block::{Aio, Image, RawOptions};
use parador_devices::blk::{Blk, BlkOptions};
use parador_vhost_user::server::Server;
use parador_virtio::{EventFd, GuestMemory};
use virtio_driver::{
    VhostUser, VirtioBlkFeatureFlags, VirtioBlkQueue, VirtioBlkTransport, VirtioFeatureFlags, iovec,
};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend};

const QUEUES: usize = 4;
const DEPTH: usize = 32;
/// The unit of requests, in bytes; each has one to four of them.
const BLOCK: usize = 4096;
const MOST: usize = 4;
/// Blocks of each queue, which uses no others.
const BLOCKS: u64 = 1024;
const REQUESTS: usize = 2000;

/// What is in flight in a slot of a queue.
struct Request {
    first: u64,
    count: usize,
    /// What is written, if it is a write.
    seed: Option<u64>,
}

/// One queue's half of the test: it knows what is on its blocks.
struct Load<'a> {
    queue: VirtioBlkQueue<'static, usize>,
    memory: &'a GuestMemory,
    /// Where this queue's buffers begin.
    buffers: u64,
    /// Where its blocks begin.
    blocks: u64,
    state: u64,
    /// What was last written to each block.
    seeds: HashMap<u64, u64>,
    slots: Vec<Option<Request>>,
}

impl Load<'_> {
    fn random(&mut self, below: u64) -> u64 {
        // xorshift64*
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % below
    }

    /// What a block has in it after `seed` was written; zeroes before anything was.
    fn contents(block: u64, seed: u64) -> Vec<u8> {
        let word = if seed == 0 { 0 } else { seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ block };
        word.to_ne_bytes().repeat(BLOCK / 8)
    }

    fn buffer(&self, slot: usize) -> GuestAddress {
        GuestAddress(self.buffers + (slot * MOST * BLOCK) as u64)
    }

    /// Fills a slot with a request for blocks that no other one is about.
    fn submit(&mut self, slot: usize) {
        let count = 1 + self.random(MOST as u64) as usize;
        let first = loop {
            let first = self.blocks + self.random(BLOCKS - MOST as u64);
            let apart = |other: &Request| {
                first + count as u64 <= other.first || other.first + other.count as u64 <= first
            };
            if self.slots.iter().flatten().all(apart) {
                break first;
            }
        };
        let seed = (self.random(2) == 0).then(|| self.random(u64::MAX >> 16) + 1);
        if let Some(seed) = seed {
            let data: Vec<u8> = (first..).take(count).flat_map(|block| Self::contents(block, seed)).collect();
            self.memory.write_slice(&data, self.buffer(slot)).unwrap();
        }
        let at = self.memory.get_host_address(self.buffer(slot)).unwrap();
        let (offset, len) = (first * BLOCK as u64, count * BLOCK);
        // In two pieces, one of them short.
        let pieces = [(at, 512), (at.wrapping_add(512), len - 512)]
            .map(|(base, len)| iovec { iov_base: base.cast(), iov_len: len });
        // SAFETY: the buffer is this slot's own part of memory that outlives the queue.
        let queued = unsafe {
            match seed {
                Some(_) => self.queue.writev(offset, pieces.as_ptr(), 2, slot),
                None => self.queue.readv(offset, pieces.as_ptr(), 2, slot),
            }
        };
        queued.unwrap();
        self.slots[slot] = Some(Request { first, count, seed });
    }

    /// Checks a request that is complete.
    fn complete(&mut self, slot: usize) {
        let Request { first, count, seed } = self.slots[slot].take().expect("it was in flight");
        if let Some(seed) = seed {
            self.seeds.extend((first..).take(count).map(|block| (block, seed)));
            return;
        }
        for (at, block) in (first..).take(count).enumerate() {
            let mut data = vec![0; BLOCK];
            let from = GuestAddress(self.buffer(slot).0 + (at * BLOCK) as u64);
            self.memory.read_slice(&mut data, from).unwrap();
            let seed = self.seeds.get(&block).copied().unwrap_or(0);
            assert!(data == Self::contents(block, seed), "block {block}");
        }
    }

    /// Keeps the queue full until all is done, sleeping while there is nothing to take.
    fn run(mut self, notify: impl Fn(), wait: impl Fn()) -> HashMap<u64, u64> {
        self.queue.set_used_notif_enabled(true);
        let (mut left, mut free) = (REQUESTS, (0..DEPTH).collect::<Vec<_>>());
        while left > 0 || free.len() < DEPTH {
            while left > 0 && !free.is_empty() {
                self.submit(free.pop().unwrap());
                left -= 1;
            }
            if self.queue.avail_notif_needed() {
                notify();
            }
            wait();
            let done: Vec<_> = self.queue.completions().map(|done| (done.context, done.ret)).collect();
            for (slot, result) in done {
                assert_eq!(result, 0, "a request fails");
                self.complete(slot);
                free.push(slot);
            }
        }
        self.seeds
    }
}

/// Connects, does random I/O on all queues at once, and says what was written.
fn load(socket: &Path, start: u64) -> HashMap<u64, u64> {
    let features = VirtioFeatureFlags::VERSION_1 | VirtioFeatureFlags::RING_EVENT_IDX;
    let features = features.bits() | VirtioBlkFeatureFlags::MQ.bits();
    let mut driver = VhostUser::new(socket.to_str().unwrap(), features).unwrap();
    let transport: &mut VirtioBlkTransport = &mut driver;
    let queues = VirtioBlkQueue::setup_queues(transport, QUEUES, 128).unwrap();
    let part = DEPTH * MOST * BLOCK;
    let len = QUEUES * part;
    let file = tempfile::tempfile().unwrap();
    file.set_len(len as u64).unwrap();
    let shown = Some(FileOffset::new(file.try_clone().unwrap(), 0));
    let memory = GuestMemory::from_ranges_with_files([(GuestAddress(0), len, shown)]).unwrap();
    let at = memory.get_host_address(GuestAddress(0)).unwrap() as usize;
    transport.map_mem_region(at, len, file.as_raw_fd(), 0).unwrap();
    let written = thread::scope(|scope| {
        let loads = queues.into_iter().enumerate().map(|(index, queue)| {
            let notifier = transport.get_submission_notifier(index);
            let fd = transport.get_completion_fd(index);
            let load = Load {
                queue,
                memory: &memory,
                buffers: (index * part) as u64,
                blocks: index as u64 * BLOCKS + start,
                state: start + index as u64 + 1,
                seeds: HashMap::new(),
                slots: (0..DEPTH).map(|_| None).collect(),
            };
            scope.spawn(move || load.run(|| notifier.notify().unwrap(), || assert!(fd.read().is_ok())))
        });
        let loads: Vec<_> = loads.collect();
        loads.into_iter().flat_map(|load| load.join().unwrap()).collect()
    });
    transport.unmap_mem_region(at, len).unwrap();
    written
}

#[test]
fn random_io_at_depth_on_four_queues_is_what_is_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let blocks = 2 * QUEUES as u64 * BLOCKS;
    File::create(&path).unwrap().set_len(blocks * BLOCK as u64).unwrap();
    for aio in [Aio::IoUring, Aio::Threads] {
        File::create(&path).unwrap().set_len(blocks * BLOCK as u64).unwrap();
        let image = Image::open(&RawOptions { aio, ..RawOptions::new(&path) }).unwrap();
        let options = BlkOptions { queues: QUEUES as u16, ..BlkOptions::new(image) };
        let device = Box::new(Blk::new(options).unwrap());
        let socket = folder.path().join(format!("{aio:?}"));
        let listener = UnixListener::bind(&socket).unwrap();
        let stop = EventFd::new(0).unwrap();
        let fired = stop.try_clone().unwrap();
        let server = thread::spawn(move || Server::new(device).accept(&listener, &fired));
        // One front-end after the other, on the two halves of the disk.
        let mut written = load(&socket, 0);
        written.extend(load(&socket, QUEUES as u64 * BLOCKS));
        stop.write(1).unwrap();
        server.join().unwrap().unwrap();
        let disk = File::open(&path).unwrap();
        for block in 0..blocks {
            let mut data = vec![0; BLOCK];
            disk.read_exact_at(&mut data, block * BLOCK as u64).unwrap();
            let seed = written.get(&block).copied().unwrap_or(0);
            assert!(data == Load::contents(block, seed), "block {block} of the disk");
        }
        assert!(written.len() > 1000);
    }
}
