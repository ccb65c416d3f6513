//! Many queues on few zones at once.
#![cfg(not(loom))]
#![expect(unsafe_code, reason = "the memory of a request is named by Buffer::new")]
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::HashSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use parador_block::zoned::image::Metadata;
use parador_block::zoned::{Condition, Geometry, Zone};
use parador_block::{Aio, Buffer, Disk, Fault, Image, Op, Outcome, RawOptions, Submitted, Tag, ZoneAction};

const ENGINES: [Aio; 3] = [Aio::Sync, Aio::Threads, Aio::IoUring];
const BLOCK: u64 = 4096;
const ZONE: u64 = 512 << 10;
const ZONES: u64 = 4;
const QUEUES: u64 = 4;
const DEPTH: usize = 8;
const REQUESTS: u64 = 600;

fn image(aio: Aio) -> (tempfile::NamedTempFile, Image) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let geometry = Geometry { max_open: 2, ..Geometry::new(ZONES * ZONE, ZONE) }.checked().unwrap();
    let len = Metadata::create(file.as_file(), geometry, [3; 16]).unwrap();
    file.as_file().set_len(len).unwrap();
    let image = Image::open_zoned(&RawOptions { aio, ..RawOptions::new(file.path()) }).unwrap();
    (file, image)
}

/// Resets of a zone that were asked for, and that are over.
#[derive(Default)]
struct Resets {
    asked: AtomicU64,
    over: AtomicU64,
}

impl Resets {
    /// How many there were; `None` if one is under way.
    fn settled(&self) -> Option<u64> {
        let over = self.over.load(Ordering::SeqCst);
        (self.asked.load(Ordering::SeqCst) == over).then_some(over)
    }
}

/// What is in flight in a slot.
#[derive(Debug, Clone, Copy)]
enum Doing {
    Put { zone: u64, blocks: u64, stamp: u64, append: bool, resets: Option<u64> },
    Reset(u64),
    Other,
}

/// An append that is over: where, how long, what; and how many resets its zone had seen.
type Appended = (u64, u64, u64, u64);

struct Worker<'a> {
    disk: Box<dyn Disk>,
    image: &'a Image,
    resets: &'a [Resets],
    number: u64,
    random: u64,
    memory: Vec<Vec<u8>>,
    doing: Vec<Option<Doing>>,
    appended: Vec<Appended>,
    changes: bool,
}

impl Worker<'_> {
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) % limit
    }

    fn run(mut self) -> Vec<Appended> {
        for request in 0..REQUESTS {
            let slot = loop {
                if let Some(slot) = self.doing.iter().position(Option::is_none) {
                    break slot;
                }
                self.disk.wait();
                self.reap();
            };
            self.submit(slot, request);
            if self.below(3) == 0 {
                self.disk.kick();
                self.reap();
            }
        }
        while self.doing.iter().any(Option::is_some) {
            self.disk.wait();
            self.reap();
        }
        self.appended
    }

    fn reap(&mut self) {
        while let Some((tag, outcome)) = self.disk.reap() {
            self.over(tag, &outcome);
        }
    }

    fn submit(&mut self, slot: usize, request: u64) {
        let zone = self.below(ZONES);
        let (stamp, blocks) = ((self.number << 32) | (request << 8), 1 + self.below(4));
        let mut memory = std::mem::take(&mut self.memory[slot]);
        for (index, block) in memory.chunks_exact_mut(BLOCK as usize).enumerate() {
            block.copy_from_slice(&(stamp + index as u64 + 1).to_le_bytes().repeat(BLOCK as usize / 8));
        }
        let iovec = libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: (blocks * BLOCK) as usize };
        self.memory[slot] = memory;
        // SAFETY: the memory stays in its slot, and nobody touches it before the request is over.
        let buffers = [unsafe { Buffer::new(iovec) }];
        let put =
            |append| Doing::Put { zone, blocks, stamp, append, resets: self.resets[zone as usize].settled() };
        let act = |action| Op::Zone { action, zone: zone * ZONE };
        let most = if self.changes { 33 } else { 28 };
        let (op, doing) = match self.below(most) {
            0..20 => (Op::Append { zone: zone * ZONE, buffers: &buffers }, put(true)),
            20..25 => (Op::Write { offset: self.pointer(zone), buffers: &buffers }, put(false)),
            25 => (Op::Flush, Doing::Other),
            26 => (act(ZoneAction::Open), Doing::Other),
            27 => (act(ZoneAction::Close), Doing::Other),
            28 => (act(ZoneAction::Finish), Doing::Other),
            _ => {
                self.resets[zone as usize].asked.fetch_add(1, Ordering::SeqCst);
                (act(ZoneAction::Reset), Doing::Reset(zone))
            }
        };
        self.doing[slot] = Some(doing);
        if let Submitted::Done(outcome) = self.disk.submit(op, slot as Tag) {
            self.over(slot as Tag, &outcome);
        }
    }

    /// Where the next write to a zone goes, perhaps.
    fn pointer(&self, zone: u64) -> u64 {
        report(self.image)[zone as usize].write_pointer.unwrap_or(zone * ZONE)
    }

    fn over(&mut self, tag: Tag, outcome: &Outcome) {
        let doing = self.doing[tag as usize].take().expect("a tag comes out once");
        assert!(!matches!(outcome, Err(Fault::Host(_))), "{doing:?}: {outcome:?}");
        match doing {
            Doing::Put { zone, blocks, stamp, append: true, resets } => {
                let Ok(at) = *outcome else { return };
                assert!((zone * ZONE..(zone + 1) * ZONE).contains(&at));
                self.appended.extend(resets.map(|resets| (at, blocks, stamp, resets)));
            }
            Doing::Reset(zone) => {
                self.resets[zone as usize].over.fetch_add(1, Ordering::SeqCst);
            }
            Doing::Put { .. } | Doing::Other => {}
        }
    }
}

fn report(image: &Image) -> Vec<Zone> {
    let nothing = Zone { start: 0, capacity: 0, condition: Condition::Empty, write_pointer: None };
    let mut zones = vec![nothing; ZONES as usize];
    assert_eq!(image.zoned().unwrap().report(0, &mut zones).unwrap(), ZONES as usize);
    zones
}

/// What each block of the disk says.
fn contents(image: &Image) -> Vec<u64> {
    let mut memory = vec![0; ZONE as usize];
    let mut disk = image.queue(1).unwrap();
    let mut blocks = Vec::new();
    for zone in 0..ZONES {
        let iovec = libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: memory.len() };
        // SAFETY: the memory outlives the request, which is over before anybody looks.
        let buffers = [unsafe { Buffer::new(iovec) }];
        if let Submitted::InFlight = disk.submit(Op::Read { offset: zone * ZONE, buffers: &buffers }, 0) {
            disk.wait();
            while disk.reap().is_none() {}
        }
        for block in memory.chunks_exact(BLOCK as usize) {
            let words: HashSet<&[u8]> = block.chunks_exact(8).collect();
            assert_eq!(words.len(), 1, "a block is of one write");
            blocks.push(u64::from_le_bytes(block[..8].try_into().unwrap()));
        }
    }
    blocks
}

fn storm(aio: Aio, changes: bool) {
    let (_file, image) = image(aio);
    let resets: Vec<Resets> = (0..ZONES).map(|_| Resets::default()).collect();
    let start = Barrier::new(QUEUES as usize);
    let appended: Vec<Appended> = thread::scope(|scope| {
        let work = |number| {
            let worker = Worker {
                disk: image.queue(DEPTH as u16).unwrap(),
                image: &image,
                resets: &resets,
                number,
                random: number + 77,
                memory: vec![vec![0; 4 * BLOCK as usize]; DEPTH],
                doing: vec![None; DEPTH],
                appended: Vec::new(),
                changes,
            };
            let start = &start;
            scope.spawn(move || {
                start.wait();
                worker.run()
            })
        };
        let threads: Vec<_> = (0..QUEUES).map(work).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let found = contents(&image);
    let mut held = 0;
    for (at, blocks, stamp, seen) in appended {
        // What was appended before a reset that came later is gone.
        if resets[(at / ZONE) as usize].settled() == Some(seen) {
            let first = (at / BLOCK) as usize;
            let expected: Vec<u64> = (1..=blocks).map(|index| stamp + index).collect();
            assert_eq!(found[first..first + blocks as usize], expected, "{aio:?}: an append at {at}");
            held += blocks;
        }
    }
    assert!(changes || held > ZONES, "{aio:?}: {held} blocks");
    let zones = report(&image);
    let written: Vec<u64> = found.iter().copied().filter(|stamp| *stamp != 0).collect();
    assert_eq!(written.iter().collect::<HashSet<_>>().len(), written.len(), "nothing is there twice");
    for (zone, blocks) in zones.iter().zip(found.chunks((ZONE / BLOCK) as usize)) {
        let written = blocks.iter().take_while(|stamp| **stamp != 0).count();
        assert!(blocks[written..].iter().all(|stamp| *stamp == 0), "{aio:?}: a hole in {zone:?}");
        if let Some(pointer) = zone.write_pointer {
            assert_eq!(pointer, zone.start + written as u64 * BLOCK, "{aio:?}: {zone:?}");
        }
    }
}

#[test]
fn appends_of_many_queues_have_places_of_their_own() {
    ENGINES.into_iter().for_each(|aio| storm(aio, false));
}

#[test]
fn zones_that_are_reset_and_finished_meanwhile_hold_what_came_afterwards() {
    ENGINES.into_iter().for_each(|aio| storm(aio, true));
}
