//! A request queue over a disk that does what a test says, when it says.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use parador_block::{Aio, Image, RawOptions, ZoneAction};
use parador_virtio::testing::{Driver, UNTOUCHED, shared_file, turn};
use parador_virtio::{GuestAddress, InflightRegion, QueueSetup, QueueState, ids};
use vm_memory::Bytes;

use super::*;
use crate::blk::BlkOptions;

mod zoned;

const FLUSH: u64 = bit(v::VIRTIO_BLK_F_FLUSH);
const CONFIG_WCE: u64 = bit(v::VIRTIO_BLK_F_CONFIG_WCE);
const WRITE_ZEROES: u64 = bit(v::VIRTIO_BLK_F_WRITE_ZEROES);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Read(u64),
    Write(u64),
    Again(u64),
    Flush,
    Discard(u64),
    WriteZeroes(u64),
    Append(u64, usize),
    Zone(ZoneAction, u64),
}

/// What the disk was asked, and what it will say.
#[derive(Default)]
struct Script {
    asked: Vec<(Asked, Tag)>,
    /// What the next submissions answer at once; with none left they are in flight.
    at_once: VecDeque<Outcome>,
    over: VecDeque<(Tag, Outcome)>,
    kicks: usize,
}

#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<Script>>);

impl Scripted {
    fn lock(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }

    fn asked(&self) -> Vec<Asked> {
        self.lock().asked.iter().map(|(asked, _)| *asked).collect()
    }

    fn end(&self, index: usize, result: Outcome) {
        let mut script = self.lock();
        let tag = script.asked[index].1;
        script.over.push_back((tag, result));
    }
}

impl Disk for Scripted {
    fn submit(&mut self, op: Op<'_>, tag: Tag) -> Submitted {
        let asked = match op {
            Op::Read { offset, .. } => Asked::Read(offset),
            Op::Write { offset, .. } => Asked::Write(offset),
            Op::Flush => Asked::Flush,
            Op::Discard { offset, .. } => Asked::Discard(offset),
            Op::WriteZeroes { offset, .. } => Asked::WriteZeroes(offset),
            Op::Append { zone, buffers } => Asked::Append(zone, buffers.iter().map(Buffer::len).sum()),
            Op::Zone { action, zone } => Asked::Zone(action, zone),
        };
        let mut script = self.lock();
        script.asked.push((asked, tag));
        script.at_once.pop_front().map_or(Submitted::InFlight, Submitted::Done)
    }

    fn resubmit(&mut self, op: Op<'_>, tag: Tag, _: Option<u64>) -> Submitted {
        let submitted = self.submit(op, tag);
        let mut script = self.lock();
        let (asked, _) = script.asked.last_mut().unwrap();
        if let Asked::Write(offset) = *asked {
            *asked = Asked::Again(offset);
        }
        submitted
    }

    fn kick(&mut self) {
        self.lock().kicks += 1;
    }

    fn reap(&mut self) -> Option<(Tag, Outcome)> {
        self.lock().over.pop_front()
    }

    fn wait(&mut self) {
        // What was waited for longest is over.
        let mut script = self.lock();
        if script.over.is_empty() {
            let tag = script.asked[0].1;
            script.over.push_back((tag, Ok(0)));
            script.asked.remove(0);
        }
    }

    fn cancel(&mut self) {
        // All but what was asked first.
        let mut script = self.lock();
        let given_up: Vec<_> = script.asked.drain(1..).collect();
        let ended = given_up.into_iter().map(|(_, tag)| (tag, Err(io::ErrorKind::Interrupted.into())));
        script.over.extend(ended);
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn aio(&self) -> Aio {
        Aio::Sync
    }
}

struct Fixture {
    script: Scripted,
    handler: BlkQueue,
    driver: Driver,
    queue: Queue,
    shared: Arc<Shared>,
}

impl Fixture {
    fn new(features: u64) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        Self::of(&Image::open(&RawOptions::new(file.path())).unwrap(), features)
    }

    fn of(image: &Image, features: u64) -> Self {
        let shared = Arc::new(Shared::new(&BlkOptions::new(image.clone())).unwrap());
        let script = Scripted::default();
        let handler = BlkQueue::new(Box::new(script.clone()), Arc::clone(&shared), 16);
        let driver = Driver::new(1 << 20, 16, features | ids::VIRTIO_F_VERSION_1);
        let queue = Queue::new(&driver.setup(0, QueueState::default())).unwrap();
        Self { script, handler, driver, queue, shared }
    }

    fn add(&mut self, kind: u32, sector: u64, data: &[u8], room: &[usize]) -> u16 {
        let header = header(kind, sector);
        let readable: Vec<&[u8]> =
            [header.as_slice(), data].into_iter().filter(|part| !part.is_empty()).collect();
        self.driver.add(&readable, room).unwrap()
    }

    fn turn(&mut self) {
        self.driver.publish();
        turn(&mut self.queue, |queue| self.handler.run(queue)).unwrap();
    }
}

fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    header
}

fn range(sector: u64) -> [u8; 16] {
    let mut range = [0; 16];
    range[..8].copy_from_slice(&sector.to_le_bytes());
    range[8] = 8;
    range
}

#[test]
fn requests_of_a_turn_are_kicked_together_and_end_in_any_order() {
    let mut fixture = Fixture::new(FLUSH);
    let heads = [0, 8, 16].map(|sector| fixture.add(v::VIRTIO_BLK_T_IN, sector, &[], &[512, 1]));
    fixture.turn();
    assert_eq!(fixture.script.asked(), [Asked::Read(0), Asked::Read(4096), Asked::Read(8192)]);
    assert_eq!(fixture.script.lock().kicks, 1);
    assert_eq!(fixture.driver.take_used(), None);
    for (index, result) in [(2, Ok(0)), (0, Err(io::Error::from_raw_os_error(libc::EIO).into())), (1, Ok(0))]
    {
        fixture.script.end(index, result);
    }
    fixture.turn();
    let used: Vec<_> = std::iter::from_fn(|| fixture.driver.take_used()).collect();
    let expected = [(heads[2], 513, 0), (heads[0], 0, 1), (heads[1], 513, 0)];
    assert_eq!(used.iter().map(|u| (u.head, u.written, u.data[512])).collect::<Vec<_>>(), expected);
    assert_eq!(fixture.handler.in_flight(), 0);
}

#[test]
fn writethrough_flushes_after_the_write_and_before_the_answer() {
    for (features, byte) in [(0, 1), (CONFIG_WCE, 1), (FLUSH | CONFIG_WCE, 0)] {
        let mut fixture = Fixture::new(features);
        fixture.shared.writeback.store(byte != 0, Ordering::Relaxed);
        fixture.add(v::VIRTIO_BLK_T_OUT, 0, &[1; 512], &[1]);
        fixture.turn();
        assert_eq!(fixture.script.asked(), [Asked::Write(0)]);
        fixture.script.end(0, Ok(0));
        fixture.turn();
        assert_eq!(fixture.script.asked(), [Asked::Write(0), Asked::Flush]);
        assert_eq!(fixture.driver.take_used(), None);
        fixture.script.end(1, Ok(0));
        fixture.turn();
        assert_eq!(fixture.driver.take_used().unwrap().data, [0]);
    }
}

#[test]
fn writeback_leaves_flushing_to_the_driver() {
    for (features, byte) in [(FLUSH, 0), (FLUSH, 1), (FLUSH | CONFIG_WCE, 1)] {
        let mut fixture = Fixture::new(features);
        if features & CONFIG_WCE != 0 {
            fixture.shared.writeback.store(byte != 0, Ordering::Relaxed);
        }
        fixture.script.lock().at_once.push_back(Ok(0));
        fixture.add(v::VIRTIO_BLK_T_OUT, 0, &[1; 512], &[1]);
        fixture.turn();
        assert_eq!(fixture.script.asked(), [Asked::Write(0)]);
        assert_eq!(fixture.driver.take_used().unwrap().data, [0]);
    }
}

#[test]
fn a_write_that_failed_is_not_flushed_and_a_flush_that_failed_is_a_failed_write() {
    let mut fixture = Fixture::new(0);
    let failed = || Err(io::Error::from_raw_os_error(libc::ENOSPC).into());
    fixture.script.lock().at_once.extend([failed(), Ok(0), failed()]);
    fixture.add(v::VIRTIO_BLK_T_OUT, 0, &[1; 512], &[1]);
    fixture.add(v::VIRTIO_BLK_T_OUT, 1, &[1; 512], &[1]);
    fixture.turn();
    assert_eq!(fixture.script.asked(), [Asked::Write(0), Asked::Write(512), Asked::Flush]);
    for _ in 0..2 {
        assert_eq!(fixture.driver.take_used().unwrap().data, [1]);
    }
}

#[test]
fn a_request_of_several_ranges_ends_with_the_last_and_fails_with_any() {
    let mut fixture = Fixture::new(FLUSH | WRITE_ZEROES);
    fixture.script.lock().at_once.push_back(Ok(0));
    let ranges = [range(0), range(16), range(32)].concat();
    fixture.add(v::VIRTIO_BLK_T_WRITE_ZEROES, 0, &ranges, &[1]);
    fixture.turn();
    let asked = [Asked::WriteZeroes(0), Asked::WriteZeroes(8192), Asked::WriteZeroes(16384)];
    assert_eq!(fixture.script.asked(), asked);
    fixture.script.end(2, Err(io::ErrorKind::StorageFull.into()));
    fixture.turn();
    assert_eq!(fixture.driver.take_used(), None);
    fixture.script.end(1, Ok(0));
    fixture.turn();
    assert_eq!(fixture.driver.take_used().unwrap().data, [1]);
}

/// A guest that edits a request in flight must not change what was decided about it.
#[test]
fn a_header_changed_in_flight_is_not_read_again() {
    let mut fixture = Fixture::new(FLUSH);
    let head = fixture.add(v::VIRTIO_BLK_T_IN, 0, &[], &[512, 1]);
    fixture.turn();
    // The driver's first buffer is the header: make it a write beyond the end, and cut the
    // descriptors of the answer short.
    let layout = fixture.driver.layout();
    let memory = fixture.driver.memory();
    let first = layout.descriptors + 16 * u64::from(head);
    let address: u64 = memory.read_obj(GuestAddress(first)).unwrap();
    memory.write_slice(&header(v::VIRTIO_BLK_T_OUT, u64::MAX), GuestAddress(address)).unwrap();
    for index in 0..layout.size {
        memory.write_obj(0u32, GuestAddress(layout.descriptors + 16 * u64::from(index) + 8)).unwrap();
    }
    fixture.script.end(0, Ok(0));
    fixture.turn();
    let used = fixture.driver.take_used().unwrap();
    assert_eq!((used.written, used.data[512], used.data[0]), (513, 0, UNTOUCHED));
}

#[test]
fn drain_waits_for_everything_flushes_included() {
    let mut fixture = Fixture::new(0);
    for sector in 0..4 {
        fixture.add(v::VIRTIO_BLK_T_OUT, sector, &[1; 512], &[1]);
    }
    fixture.turn();
    fixture.handler.drain(&mut fixture.queue).unwrap();
    fixture.queue.flush();
    assert_eq!(std::iter::from_fn(|| fixture.driver.take_used()).count(), 4);
    assert!(fixture.script.lock().asked.is_empty(), "four writes and four flushes");
}

#[test]
fn what_is_given_up_gets_no_answer_and_what_could_not_be_does() {
    let mut fixture = Fixture::new(FLUSH);
    let head = fixture.add(v::VIRTIO_BLK_T_IN, 0, &[], &[512, 1]);
    for sector in 1..4 {
        fixture.add(v::VIRTIO_BLK_T_OUT, sector, &[1; 512], &[1]);
    }
    fixture.turn();
    fixture.handler.abandon(&mut fixture.queue).unwrap();
    fixture.queue.flush();
    let used: Vec<_> = std::iter::from_fn(|| fixture.driver.take_used()).collect();
    assert_eq!(used.iter().map(|used| (used.head, used.data[512])).collect::<Vec<_>>(), [(head, 0)]);
    assert_eq!((fixture.handler.in_flight(), fixture.driver.in_flight()), (0, 3));
}

/// A write that a flush must follow is not durable, so it is not over.
#[test]
fn a_write_through_is_given_up_between_its_write_and_its_flush() {
    let mut fixture = Fixture::new(0);
    fixture.add(v::VIRTIO_BLK_T_OUT, 0, &[1; 512], &[1]);
    fixture.turn();
    fixture.handler.abandon(&mut fixture.queue).unwrap();
    fixture.queue.flush();
    assert_eq!(fixture.driver.take_used(), None);
    assert_eq!((fixture.handler.in_flight(), fixture.driver.in_flight()), (0, 1));
}

#[test]
fn a_write_that_another_process_may_have_done_is_asked_for_as_such() {
    let mut fixture = Fixture::new(0);
    let bytes = InflightRegion::bytes(1, 16);
    let region = InflightRegion::map(shared_file(bytes), 0, bytes, 1, 16).unwrap();
    for asked in [Asked::Write(512), Asked::Again(512)] {
        let resume = fixture.driver.state();
        let setup = QueueSetup { inflight: region.queue(0), ..fixture.driver.setup(0, resume) };
        fixture.queue = Queue::new(&setup).unwrap();
        if asked == Asked::Write(512) {
            fixture.add(v::VIRTIO_BLK_T_OUT, 1, &[5; 512], &[1]);
        }
        fixture.turn();
        assert_eq!(fixture.script.asked(), [asked]);
        // The process is gone, and what it was doing with it.
        fixture.script = Scripted::default();
        let disk = Box::new(fixture.script.clone());
        fixture.handler = BlkQueue::new(disk, Arc::clone(&fixture.shared), 16);
    }
}
