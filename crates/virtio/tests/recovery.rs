//! A process ends between any two of its writes, and another one goes on: what comes out of the ring
//! then is what the driver did not get back, in the order it was sent, and each comes back once.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;

use parador_virtio::ids::VIRTIO_F_EVENT_IDX;
use parador_virtio::testing::hostile::exercise_region;
use parador_virtio::testing::{Driver, end_after, seeds, shared_file, turn};
use parador_virtio::{Chain, InflightRegion, Queue, QueueSetup, QueueState, RingError};
use proptest::prelude::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// The driver sends so many requests.
    Send(usize),
    /// A turn takes up to this many, may put the last one back, and answers one of those it holds.
    Turn {
        take: usize,
        undo: bool,
        answer: usize,
    },
    Push(usize),
    Flush,
}

fn life() -> impl Strategy<Value = Vec<Step>> {
    let turn = (0usize..6, any::<bool>(), 0usize..8);
    let step = prop_oneof![
        2 => (1usize..5).prop_map(Step::Send),
        3 => turn.prop_map(|(take, undo, answer)| Step::Turn { take, undo, answer }),
        3 => (0usize..8).prop_map(Step::Push),
        2 => Just(Step::Flush),
    ];
    prop::collection::vec(step, 1..40)
}

/// What outlives a process.
struct World {
    driver: Driver,
    file: File,
    region: InflightRegion,
    /// Requests that did not come back, by number.
    waiting: BTreeMap<u64, u16>,
    sent: u64,
}

/// The one queue in use among those of the region.
const QUEUE: u16 = 1;

impl World {
    fn new(size: u16, entries: u16, start: u16, features: u64) -> Self {
        let mut driver = Driver::new(1 << 18, size, features);
        driver.begin_at(start);
        let bytes = InflightRegion::bytes(3, entries);
        let file = shared_file(bytes);
        let region = InflightRegion::map(file.try_clone().unwrap(), 0, bytes, 3, entries).unwrap();
        Self { driver, file, region, waiting: BTreeMap::new(), sent: 0 }
    }

    /// What whoever started the processes knows: how far the driver got.
    fn setup(&self) -> QueueSetup {
        let resume = self.driver.state();
        QueueSetup { inflight: self.region.queue(QUEUE), ..self.driver.setup(0, resume) }
    }

    fn send(&mut self, count: usize) {
        for _ in 0..count {
            let Some(head) = self.driver.add(&[&self.sent.to_le_bytes()], &[8]) else { break };
            self.waiting.insert(self.sent, head);
            self.sent += 1;
        }
        self.driver.publish();
    }

    /// Takes what came back: the driver itself sees to it that nothing does twice.
    fn take(&mut self) {
        while let Some(used) = self.driver.take_used() {
            let number = u64::from_le_bytes(used.data.try_into().unwrap());
            assert_eq!(self.waiting.remove(&number), Some(used.head));
        }
    }

    fn live(&mut self, steps: &[Step]) {
        let queue = Queue::new(&self.setup()).unwrap();
        let coming = self.waiting.keys().copied().collect();
        let mut process = Process { queue, coming, held: Vec::new() };
        for &step in steps {
            match step {
                Step::Send(count) => {
                    let before = self.sent;
                    self.send(count);
                    process.coming.extend(before..self.sent);
                }
                Step::Turn { take, undo, answer } => process.turn(take, undo, answer),
                Step::Push(which) => process.push(which),
                Step::Flush => process.queue.flush(),
            }
            self.take();
        }
    }

    /// A process that does not end before all is done.
    fn finish(mut self) {
        let everything = usize::from(u16::MAX);
        let mut steps = vec![Step::Turn { take: everything, undo: false, answer: 0 }];
        steps.extend([Step::Push(0); 64]);
        steps.push(Step::Flush);
        self.live(&steps);
        assert!(self.waiting.is_empty(), "{:?} are lost", self.waiting);
        assert_eq!(self.driver.in_flight(), 0);
        let queue = Queue::new(&self.setup()).unwrap();
        assert_eq!(queue.state(), self.driver.state());
    }
}

struct Process {
    queue: Queue,
    /// Numbers of what comes out of the ring next.
    coming: VecDeque<u64>,
    held: Vec<Chain>,
}

impl Process {
    fn turn(&mut self, take: usize, undo: bool, answer: usize) {
        let (held, coming) = (&mut self.held, &mut self.coming);
        let result = turn(&mut self.queue, |queue| {
            let mut last = None;
            for _ in 0..take {
                let Some(chain) = queue.pop()? else { break };
                assert_eq!(Some(number(&chain)), coming.pop_front());
                held.extend(last.replace(chain));
            }
            match last {
                Some(chain) if undo => {
                    coming.push_front(number(&chain));
                    queue.undo_pop(chain);
                }
                last => held.extend(last),
            }
            Ok(())
        });
        assert_eq!(result, Ok(false));
        self.push(answer);
    }

    fn push(&mut self, which: usize) {
        if !self.held.is_empty() {
            let chain = self.held.swap_remove(which % self.held.len());
            chain.writer().write_obj(number(&chain)).unwrap();
            self.queue.push(chain, 8);
        }
    }
}

fn number(chain: &Chain) -> u64 {
    chain.reader().read_obj().unwrap()
}

proptest! {
    #[test]
    fn nothing_is_lost_or_done_twice(
        lives in prop::collection::vec((life(), 0u64..150), 1..6),
        log_size in 0u32..6, more in 0u16..40, start in any::<u16>(), event_idx in any::<bool>(),
    ) {
        let features = if event_idx { VIRTIO_F_EVENT_IDX } else { 0 };
        let mut world = World::new(1 << log_size, (1 << log_size) + more, start, features);
        for (steps, writes) in lives {
            end_after(writes, || world.live(&steps));
        }
        world.finish();
    }

    #[test]
    fn any_bytes_are_a_region(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
        exercise_region(&bytes);
    }
}

/// One life of a few batches, ended after each of its writes.
#[test]
fn a_process_may_end_at_any_write() {
    let steps = [
        Step::Send(8),
        Step::Turn { take: 6, undo: true, answer: 3 },
        Step::Push(0),
        Step::Push(2),
        Step::Flush,
        Step::Send(2),
        Step::Turn { take: 4, undo: false, answer: 1 },
        Step::Push(1),
        Step::Flush,
    ];
    for writes in 0.. {
        let mut world = World::new(8, 8, 0xfffc, VIRTIO_F_EVENT_IDX);
        let ((), left) = end_after(writes, || world.live(&steps));
        world.finish();
        if left > 0 {
            assert!(writes > 50, "{writes} writes are too few for that");
            break;
        }
    }
}

/// The region as the specification draws it, byte for byte.
#[test]
fn what_is_written_down() {
    let mut world = World::new(4, 5, 7, 0);
    let at = InflightRegion::bytes(1, 5);
    assert_eq!(at, 128, "queues begin at multiples of 64 bytes");
    let read = |world: &World| {
        let mut bytes = [0; 16 * 6];
        world.file.read_exact_at(&mut bytes, at).unwrap();
        bytes.to_vec()
    };
    let header = |last, used| [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 5, 0, last, 0, used, 0];
    let entry = |in_flight, next, counter| [in_flight, 0, 0, 0, 0, 0, next, 0, counter, 0, 0, 0, 0, 0, 0, 0];
    let none = entry(0, 0, 0);
    let queue = Queue::new(&world.setup()).unwrap();
    let mut process = Process { queue, coming: [0, 1].into(), held: Vec::new() };
    assert_eq!(read(&world), [header(0, 7), none, none, none, none, none].concat());
    // Of two descriptors each.
    world.send(2);
    assert_eq!(world.waiting.values().collect::<Vec<_>>(), [&1, &3]);
    process.turn(2, false, 0);
    let (first, second) = (entry(1, 0, 0), entry(1, 0, 1));
    assert_eq!(read(&world), [header(1, 7), none, first, none, second, none].concat());
    let chain = process.held.pop().unwrap();
    process.queue.undo_pop(chain);
    assert_eq!(read(&world), [header(1, 7), none, first, none, entry(0, 0, 1), none].concat());
    process.held.extend(process.queue.pop().unwrap());
    let second = entry(1, 0, 2);
    assert_eq!(read(&world), [header(1, 7), none, first, none, second, none].concat());
    process.push(0);
    let second = entry(1, 1, 2);
    assert_eq!(read(&world), [header(3, 7), none, first, none, second, none].concat());
    process.queue.flush();
    let (first, second) = (entry(0, 0, 0), entry(0, 1, 2));
    assert_eq!(read(&world), [header(3, 9), none, first, none, second, none].concat());
}

#[test]
fn what_is_said_of_a_chain_is_known_to_who_takes_it_next() {
    const MOST: u64 = (1 << 40) - 1;
    let mut world = World::new(8, 8, 0, 0);
    world.send(3);
    let mut queue = Queue::new(&world.setup()).unwrap();
    let heads: Vec<u16> = (0..3).map(|_| queue.pop().unwrap().unwrap().head()).collect();
    queue.note(heads[0], 77);
    queue.note(heads[0], MOST);
    queue.note(heads[1], MOST + 1);
    queue.note(heads[2] + 2, 5);
    queue.note(u16::MAX, 5);
    drop(queue);
    let mut queue = Queue::new(&world.setup()).unwrap();
    let chains: Vec<Chain> = (0..3).map(|_| queue.pop().unwrap().unwrap()).collect();
    assert!(chains.iter().all(Chain::is_recovered));
    assert_eq!(chains.iter().map(Chain::note).collect::<Vec<_>>(), [Some(MOST), None, None]);
    // It goes with the chain, and no further.
    chains.into_iter().for_each(|chain| queue.push(chain, 0));
    queue.flush();
    drop(queue);
    while world.driver.take_used().is_some() {}
    world.send(3);
    let mut queue = Queue::new(&world.setup()).unwrap();
    while let Some(chain) = queue.pop().unwrap() {
        assert!(!chain.is_recovered() && chain.note().is_none());
    }
    drop(queue);
    let mut queue = Queue::new(&world.setup()).unwrap();
    while let Some(chain) = queue.pop().unwrap() {
        assert!(chain.is_recovered() && chain.note().is_none());
    }
}

#[test]
fn a_region_that_began_elsewhere_is_taken_if_nothing_is_in_flight() {
    // As another back-end hands it out: version 1, everything else zero, and a ring that is not new.
    let world = World::new(8, 8, 5000, 0);
    let at = InflightRegion::bytes(1, 8);
    world.file.write_all_at(&[1, 0, 8, 0], at + 8).unwrap();
    let queue = Queue::new(&world.setup()).unwrap();
    assert_eq!(queue.state(), QueueState { next_available: 5000 });
    world.file.write_all_at(&[1], at + 16).unwrap();
    drop(queue);
    let queue = Queue::new(&world.setup()).unwrap();
    assert_eq!(queue.state(), QueueState { next_available: 5001 }, "one is in flight");
    // The same, and the used index where it cannot be.
    world.file.write_all_at(&[0, 0], at + 14).unwrap();
    assert_eq!(Queue::new(&world.setup()).err(), Some(RingError::Inflight));
}

/// The short run of what the fuzz target `queue` does with regions.
#[test]
fn replay_region() {
    let (mut good, mut recovered) = (0, 0);
    for bytes in seeds(4000, 600) {
        if let Some(count) = exercise_region(&bytes) {
            good += 1;
            recovered += count;
        }
    }
    assert!(good > 400 && recovered > 400, "{good} regions were good, with {recovered} in flight");
    assert!(good < 3600, "{good} regions were good");
}
