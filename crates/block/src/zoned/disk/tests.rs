//! Requests that find a zone busy.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::ZonedFile;
use crate::zoned::image::Metadata;
use crate::zoned::{Condition, Geometry, Refusal};
use crate::{Aio, Buffer, Disk, Fault, Image, Op, RawOptions, Submitted, Tag, ZoneAction, sys};

const ZONE: u64 = 64 << 10;
const BLOCK: usize = 4096;
const ENGINES: [Aio; 3] = [Aio::Sync, Aio::Threads, Aio::IoUring];

struct Fixture {
    file: Arc<ZonedFile>,
    disk: Box<dyn Disk>,
    /// What is written, and read into: for ever.
    memory: &'static mut [u8],
    path: tempfile::NamedTempFile,
}

impl Fixture {
    fn new(aio: Aio) -> Self {
        let path = tempfile::NamedTempFile::new().unwrap();
        let geometry = Geometry { conventional: 1, ..Geometry::new(8 * ZONE, ZONE) };
        let len = Metadata::create(path.as_file(), geometry.checked().unwrap(), [7; 16]).unwrap();
        path.as_file().set_len(len).unwrap();
        let image = Image::open_zoned(&RawOptions { aio, ..RawOptions::new(path.path()) }).unwrap();
        let memory = Box::leak(vec![0x5a; ZONE as usize].into_boxed_slice());
        Self { file: Arc::clone(image.zones().unwrap()), disk: image.queue(8).unwrap(), memory, path }
    }

    fn buffer(&mut self, len: usize) -> Buffer {
        Buffer::of(&mut self.memory[..len])
    }

    /// Submits a write of a block; whether it is in flight.
    fn write(&mut self, offset: u64, tag: Tag) -> bool {
        let buffers = [self.buffer(BLOCK)];
        in_flight(self.disk.submit(Op::Write { offset, buffers: &buffers }, tag))
    }

    fn act(&mut self, action: ZoneAction, zone: u64, tag: Tag) -> bool {
        in_flight(self.disk.submit(Op::Zone { action, zone }, tag))
    }

    /// The tags of the next `count` requests that are over, all of them well.
    fn over(&mut self, count: usize) -> Vec<Tag> {
        let mut tags = Vec::new();
        while tags.len() < count {
            self.disk.wait();
            while let Some((tag, outcome)) = self.disk.reap() {
                assert_eq!(outcome.unwrap(), 0);
                tags.push(tag);
            }
        }
        tags
    }

    fn condition(&self, zone: u32) -> Condition {
        self.file.core.zones().zone(zone).condition
    }

    /// Waits until the clerk has looked at all it was given: a flush comes after the rest.
    fn settle(&mut self) {
        assert!(in_flight(self.disk.submit(Op::Flush, 99)));
        assert_eq!(self.over(1), [99]);
    }
}

fn in_flight(submitted: Submitted) -> bool {
    match submitted {
        Submitted::Done(outcome) => {
            assert_eq!(outcome.unwrap(), 0);
            false
        }
        Submitted::InFlight => true,
    }
}

#[test]
fn writes_to_a_busy_zone_wait_in_order_and_nothing_else_does() {
    for aio in ENGINES {
        let mut it = Fixture::new(aio);
        let file = Arc::clone(&it.file);
        let held = file.core.zones().hold(ZONE).unwrap();
        assert!(it.write(ZONE, 1));
        assert!(it.write(ZONE + BLOCK as u64, 2));
        assert!(it.act(ZoneAction::Close, ZONE, 3));
        it.disk.kick();
        assert!(it.disk.reap().is_none());
        if it.write(2 * ZONE, 4) {
            assert_eq!(it.over(1), [4]);
        }
        assert!(it.disk.reap().is_none());
        drop(held);
        file.core.bells.ring_queues();
        let mut over = it.over(3);
        over.sort_unstable();
        assert_eq!(over, [1, 2, 3]);
        // In any other order the second would not have been at the write pointer.
        assert_eq!(file.core.zones().zone(1).write_pointer, Some(ZONE + 2 * BLOCK as u64));
        assert_eq!(it.condition(1), Condition::Closed);
    }
}

/// A process that is killed in between would leave data in a place that nobody knows of: whoever goes on would
/// append it once more, and the zone would be full before its driver thinks so.
#[test]
fn nothing_is_appended_before_its_place_was_asked_for() {
    for aio in ENGINES {
        let mut it = Fixture::new(aio);
        let file = Arc::clone(&it.file);
        let buffers = [it.buffer(BLOCK)];
        let append = Op::Append { zone: ZONE, buffers: &buffers };
        let at = file.core.keeper.data_offset() + ZONE;
        let written = |it: &Fixture, from: u64| {
            let mut data = [0; BLOCK];
            it.path.as_file().read_exact_at(&mut data, at + from).unwrap();
            data.iter().all(|byte| *byte == 0x5a)
        };
        assert!(matches!(it.disk.submit(append, 1), Submitted::InFlight));
        thread::sleep(Duration::from_millis(2));
        assert!(!written(&it, 0), "{aio:?}");
        assert_eq!(it.disk.placed(), Some((1, ZONE)));
        // One that finds the zone busy gets its place while places are asked for.
        let held = file.core.zones().hold(2 * ZONE).unwrap();
        let busy = Op::Append { zone: 2 * ZONE, buffers: &buffers };
        assert!(matches!(it.disk.submit(busy, 2), Submitted::InFlight));
        assert_eq!(it.disk.placed(), None);
        drop(held);
        file.core.bells.ring_queues();
        it.disk.kick();
        let mut ended = Vec::new();
        while ended.len() < 2 {
            if it.disk.placed().is_some() {
                thread::sleep(Duration::from_millis(2));
                assert!(!written(&it, ZONE), "{aio:?}");
            }
            it.disk.wait();
            ended.extend(std::iter::from_fn(|| it.disk.reap()).map(|(tag, outcome)| (tag, outcome.unwrap())));
        }
        assert_eq!(ended, [(1, ZONE), (2, 2 * ZONE)]);
        assert!(written(&it, 0) && written(&it, ZONE));
        // One that has its place and is given up leaves zeroes there.
        assert!(matches!(it.disk.submit(append, 3), Submitted::InFlight));
        assert_eq!(it.disk.placed(), Some((3, ZONE + BLOCK as u64)));
        it.disk.cancel();
        let (tag, outcome) = it.disk.reap().unwrap();
        assert_eq!((tag, outcome.is_err()), (3, true));
        assert!(!written(&it, BLOCK as u64));
        assert!(file.core.zones().hold(ZONE).is_ok(), "and no zone busy");
    }
}

#[test]
fn who_sleeps_over_a_busy_zone_is_woken() {
    for aio in ENGINES {
        let mut it = Fixture::new(aio);
        let file = Arc::clone(&it.file);
        let held = file.core.zones().hold(ZONE).unwrap();
        assert!(it.write(ZONE, 1));
        it.disk.kick();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(20));
                drop(held);
                file.core.bells.ring_queues();
            });
            assert_eq!(it.over(1), [1]);
        });
        assert!(!file.core.zones().zone(1).write_pointer.unwrap().is_multiple_of(ZONE));
    }
}

#[test]
fn the_descriptor_says_when_to_look_again() {
    for aio in ENGINES {
        let mut it = Fixture::new(aio);
        let file = Arc::clone(&it.file);
        // A reset is over.
        assert!(it.act(ZoneAction::Reset, ZONE, 1));
        it.disk.kick();
        let done = loop {
            sys::wait_readable(it.disk.wake().unwrap());
            it.disk.kick();
            if let Some((tag, _)) = it.disk.reap() {
                break tag;
            }
        };
        assert_eq!(done, 1);
        // A zone is free again.
        let held = file.core.zones().hold(2 * ZONE).unwrap();
        assert!(it.write(2 * ZONE, 2));
        it.disk.kick();
        drop(held);
        file.core.bells.ring_queues();
        let done = loop {
            sys::wait_readable(it.disk.wake().unwrap());
            it.disk.kick();
            if let Some((tag, _)) = it.disk.reap() {
                break tag;
            }
        };
        assert_eq!(done, 2);
    }
}

#[test]
fn a_reset_waits_for_writes_of_other_queues_and_holds_nobody_up() {
    for aio in ENGINES {
        let mut it = Fixture::new(aio);
        let file = Arc::clone(&it.file);
        let elsewhere = file.core.zones().append(ZONE, BLOCK as u64).unwrap();
        assert!(it.act(ZoneAction::Reset, ZONE, 1));
        assert!(it.act(ZoneAction::ResetAll, 0, 2));
        assert!(it.act(ZoneAction::Finish, ZONE, 3));
        assert!(it.act(ZoneAction::Finish, 2 * ZONE, 4));
        assert_eq!(it.over(1), [4]);
        it.settle();
        assert!(it.disk.reap().is_none());
        assert_eq!(it.condition(1), Condition::ImplicitlyOpen);
        file.core.complete(elsewhere);
        let mut over = it.over(3);
        over.sort_unstable();
        assert_eq!(over, [1, 2, 3]);
    }
}

#[test]
fn what_waits_can_be_given_up() {
    for aio in ENGINES {
        let mut it = Fixture::new(aio);
        let file = Arc::clone(&it.file);
        let elsewhere = file.core.zones().append(2 * ZONE, BLOCK as u64).unwrap();
        assert!(it.act(ZoneAction::Reset, 2 * ZONE, 1));
        it.settle();
        let held = file.core.zones().hold(ZONE).unwrap();
        assert!(it.write(ZONE, 2));
        it.disk.kick();
        it.disk.cancel();
        let mut given_up = Vec::new();
        while given_up.len() < 2 {
            it.disk.wait();
            while let Some((tag, outcome)) = it.disk.reap() {
                assert!(matches!(outcome, Err(Fault::Host(_))));
                given_up.push(tag);
            }
        }
        given_up.sort_unstable();
        assert_eq!(given_up, [1, 2]);
        // Nothing came of them, and the queue works.
        drop(held);
        file.core.complete(elsewhere);
        it.settle();
        assert_eq!((it.condition(1), it.condition(2)), (Condition::Empty, Condition::ImplicitlyOpen));
        if it.write(ZONE, 5) {
            assert_eq!(it.over(1), [5]);
        }
    }
}

#[test]
fn a_queue_may_go_whatever_waits_in_it() {
    for aio in ENGINES {
        let mut it = Fixture::new(aio);
        let zones = Arc::clone(&it.file);
        let held = zones.core.zones().hold(ZONE).unwrap();
        let elsewhere = zones.core.zones().append(2 * ZONE, BLOCK as u64).unwrap();
        it.write(ZONE, 1);
        it.act(ZoneAction::Reset, 2 * ZONE, 2);
        it.act(ZoneAction::Reset, 4 * ZONE, 3);
        it.write(3 * ZONE, 4);
        drop(it.disk);
        drop(held);
        zones.core.complete(elsewhere);
        // What it moved is over, and its zone can be held.
        assert!(!matches!(zones.core.zones().hold(3 * ZONE), Err(Refusal::Busy)));
        // So does the image with the last of its users.
        drop((it.file, zones));
        Image::open_zoned(&RawOptions::new(it.path.path())).unwrap();
    }
}

#[test]
fn what_was_never_written_reads_as_zeroes_even_where_the_file_has_something_else() {
    for aio in ENGINES {
        let mut it = Fixture::new(aio);
        let data = it.file.core.keeper.data_offset();
        FileExt::write_all_at(it.path.as_file(), &[9; 3 * BLOCK], data + ZONE).unwrap();
        it.write(ZONE, 1);
        it.settle_writes();
        let buffers = [it.buffer(3 * BLOCK)];
        if in_flight(it.disk.submit(Op::Read { offset: ZONE, buffers: &buffers }, 2)) {
            assert_eq!(it.over(1), [2]);
        }
        assert!(it.memory[..BLOCK].iter().all(|byte| *byte == 0x5a));
        assert!(it.memory[BLOCK..3 * BLOCK].iter().all(|byte| *byte == 0));
    }
}

impl Fixture {
    fn settle_writes(&mut self) {
        if self.disk.aio() != Aio::Sync {
            assert_eq!(self.over(1), [1]);
        }
    }
}
