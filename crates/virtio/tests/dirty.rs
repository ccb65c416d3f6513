//! Pages that were written to: all of them are marked, and no others.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parador_virtio::ids::VIRTIO_F_EVENT_IDX;
use parador_virtio::testing::{Driver, NEXT, WRITE, end_after, shared_file, turn};
use parador_virtio::{
    Dirty, DirtyLog, GuestAddress, InflightRegion, Queue, QueueLayout, QueueSetup, QueueState, RingError,
};
use proptest::prelude::*;
use vm_memory::Bytes;

const MEMORY: u64 = 1 << 20;
const PAGE: u64 = 4096;

/// A driver whose device's writes are logged.
struct World {
    driver: Driver,
    log: File,
    region: InflightRegion,
    used_ring: Option<u64>,
}

impl World {
    fn new(size: u16, start: u16, features: u64, used_ring: impl Fn(QueueLayout) -> Option<u64>) -> Self {
        let mut driver = Driver::new(MEMORY as usize, size, features);
        driver.begin_at(start);
        let bytes = InflightRegion::bytes(1, size);
        let region = InflightRegion::map(shared_file(bytes), 0, bytes, 1, size).unwrap();
        let used_ring = used_ring(driver.layout());
        Self { driver, log: shared_file(MEMORY / PAGE / 8), region, used_ring }
    }

    fn setup(&self) -> QueueSetup {
        let log = DirtyLog::map(self.log.try_clone().unwrap(), 0, MEMORY / PAGE / 8).unwrap();
        let dirty = Dirty { log: Arc::new(log), used_ring: self.used_ring };
        let inflight = self.region.queue(0);
        // As far as its driver could have got.
        let used = GuestAddress(self.driver.layout().used + 2);
        let resume = QueueState { next_available: self.driver.memory().read_obj(used).unwrap() };
        QueueSetup { dirty: Some(dirty), inflight, ..self.driver.setup(0, resume) }
    }

    /// Answers everything in two batches, each chain with as many bytes as it has room for.
    fn live(&self) {
        let mut queue = Queue::new(&self.setup()).unwrap();
        let answer = |queue: &mut Queue| -> Result<(), RingError> {
            while let Some(chain) = queue.pop()? {
                let written = chain.writer().write_zeroes(usize::MAX);
                queue.push(chain, u32::try_from(written).unwrap());
                if queue.state().next_available.is_multiple_of(3) {
                    queue.flush();
                }
            }
            Ok(())
        };
        assert!(turn(&mut queue, answer).is_ok());
    }

    fn marked(&self) -> BTreeSet<u64> {
        let mut bytes = vec![0; (MEMORY / PAGE / 8) as usize];
        self.log.read_exact_at(&mut bytes, 0).unwrap();
        let set = |&page: &u64| bytes[(page / 8) as usize] & 1 << (page % 8) != 0;
        (0..MEMORY / PAGE).filter(set).collect()
    }

    fn memory(&self) -> Vec<u8> {
        let mut bytes = vec![0; MEMORY as usize];
        self.driver.memory().read_slice(&mut bytes, GuestAddress(0)).unwrap();
        bytes
    }

    /// Pages of the writable buffers of the chain at `head`, as its descriptors say.
    fn buffers(&self, head: u16) -> BTreeSet<u64> {
        let mut pages = BTreeSet::new();
        let mut next = head;
        loop {
            let at = GuestAddress(self.driver.layout().descriptors + 16 * u64::from(next));
            let raw: u128 = self.driver.memory().read_obj(at).unwrap();
            let (addr, len) = (raw as u64, u64::from((raw >> 64) as u32));
            let flags = (raw >> 96) as u16;
            if flags & WRITE != 0 {
                pages.extend(addr / PAGE..=(addr + len - 1) / PAGE);
            }
            if flags & NEXT == 0 {
                return pages;
            }
            next = (raw >> 112) as u16;
        }
    }
}

fn used_pages(layout: QueueLayout, at: u64) -> BTreeSet<u64> {
    (at / PAGE..=(at + 6 + 8 * u64::from(layout.size) - 1) / PAGE).collect()
}

fn changed(before: &[u8], after: &[u8]) -> BTreeSet<u64> {
    let pages = before.chunks(PAGE as usize).zip(after.chunks(PAGE as usize)).enumerate();
    pages.filter(|(_, (before, after))| before != after).map(|(page, _)| page as u64).collect()
}

proptest! {
    /// Over processes that end at any write, too.
    #[test]
    fn every_page_that_changed_is_marked_and_none_outside_buffers(
        chains in prop::collection::vec((1usize..3, prop::collection::vec(1usize..9000, 0..3)), 1..12),
        ends in prop::collection::vec(0u64..120, 0..3),
        size in prop::sample::select(vec![4u16, 16, 512]), start in any::<u16>(), event_idx in any::<bool>(),
    ) {
        let features = if event_idx { VIRTIO_F_EVENT_IDX } else { 0 };
        let mut world = World::new(size, start, features, |layout| Some(layout.used));
        let layout = world.driver.layout();
        let mut allowed = used_pages(layout, layout.used);
        for (readable, writable) in chains {
            let Some(head) = world.driver.add(&vec![&[7; 5][..]; readable], &writable) else { break };
            allowed.append(&mut world.buffers(head));
        }
        world.driver.publish();
        let before = world.memory();
        for writes in ends {
            end_after(writes, || world.live());
        }
        world.live();
        let marked = world.marked();
        prop_assert!(changed(&before, &world.memory()).is_subset(&marked));
        prop_assert!(marked.is_subset(&allowed));
    }
}

#[test]
fn the_used_ring_is_marked_where_it_is_said_to_be_or_not_at_all() {
    for at in [None, Some(0x4_2000)] {
        let mut world = World::new(16, 0xfffe, 0, |_| at);
        let head = world.driver.add(&[], &[10_000]).unwrap();
        let mut expected = world.buffers(head);
        world.driver.add(&[&[1]], &[]).unwrap();
        world.driver.publish();
        assert!(expected.len() > 2);
        world.live();
        expected.extend(at.into_iter().flat_map(|at| used_pages(world.driver.layout(), at)));
        assert_eq!(world.marked(), expected);
    }
}

/// Index and flags are in the first page, entries in all three, the event index in the last.
#[test]
fn each_write_to_the_used_ring_marks_its_page() {
    for (features, start, expected) in [
        (0, 10, vec![0]),
        (0, 600, vec![0, 1]),
        (0, 510, vec![0, 1]),
        (0, 1022, vec![0, 1, 2]),
        (0, 1023, vec![0, 1, 2]),
        (VIRTIO_F_EVENT_IDX, 600, vec![0, 1, 2]),
    ] {
        let used_ring = 0x4_0000;
        let mut world = World::new(1024, start, features, |_| Some(used_ring));
        world.driver.add(&[&[1]], &[]).unwrap();
        world.driver.add(&[&[1]], &[]).unwrap();
        world.driver.publish();
        let mut queue = Queue::new(&world.setup()).unwrap();
        world.log.write_all_at(&[0; (MEMORY / PAGE / 8) as usize], 0).unwrap();
        let done = turn(&mut queue, |queue| {
            while let Some(chain) = queue.pop()? {
                queue.push(chain, 0);
            }
            Ok(())
        });
        assert_eq!(done, Ok(false));
        let pages: Vec<_> = world.marked().into_iter().map(|page| page - used_ring / PAGE).collect();
        assert_eq!(pages, expected, "from {start} on");
    }
}

/// Marks beyond the log, or beyond all addresses, go nowhere.
#[test]
fn a_short_log_is_no_fault() {
    let mut world = World::new(16, 0, 0, |_| Some(u64::MAX - 8));
    world.driver.add(&[], &[10_000]).unwrap();
    world.driver.publish();
    let mut setup = world.setup();
    let log = shared_file(1);
    let short = DirtyLog::map(log, 0, 1).unwrap();
    assert!(short.mark(7 * PAGE, PAGE));
    assert!(!short.mark(7 * PAGE, PAGE + 1));
    assert!(!short.mark(u64::MAX, 2));
    setup.dirty = Some(Dirty { log: Arc::new(short), used_ring: Some(u64::MAX - 8) });
    let mut queue = Queue::new(&setup).unwrap();
    let done = turn(&mut queue, |queue| {
        let chain = queue.pop()?.unwrap();
        queue.push(chain, 0);
        Ok(())
    });
    assert_eq!(done, Ok(false));
}
