//! The queue against the model driver: random rings and hostile ones.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::{HashMap, VecDeque};

use parador_virtio::ids::{VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC};
use parador_virtio::testing::hostile::exercise_queue;
use parador_virtio::testing::{Arena, Driver, UNTOUCHED, seeds, turn};
use parador_virtio::{Chain, Queue, RingError};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Add {
        readable: Vec<Vec<u8>>,
        writable: Vec<usize>,
        indirect: bool,
    },
    Publish,
    /// A turn that pops up to this many.
    Turn(usize),
    Undo,
    /// Push one that is held, counted from the oldest.
    Push(usize),
    Flush,
    Take,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let readable = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..4);
    let writable = prop::collection::vec(1usize..40, 0..4);
    let step = prop_oneof![
        4 => (readable, writable, any::<bool>())
            .prop_map(|(readable, writable, indirect)| Step::Add { readable, writable, indirect }),
        3 => Just(Step::Publish),
        3 => (1usize..5).prop_map(Step::Turn),
        1 => Just(Step::Undo),
        4 => (0usize..8).prop_map(Step::Push),
        2 => Just(Step::Flush),
        3 => Just(Step::Take),
    ];
    prop::collection::vec(step, 1..200)
}

/// A queue, its driver, and what each chain's place is: lists of heads in the order of the ring.
struct Model {
    driver: Driver,
    queue: Queue,
    /// What each chain in use asked, and how much room it has for the answer.
    requests: HashMap<u16, (Vec<u8>, usize)>,
    added: VecDeque<u16>,
    visible: VecDeque<u16>,
    held: VecDeque<Chain>,
    /// Heads in the order they were popped, as far as not undone.
    popped: Vec<u16>,
    pushed: VecDeque<u16>,
    back: VecDeque<u16>,
}

impl Model {
    fn new(size: u16, start: u16, features: u64) -> Self {
        // Regions so small that many buffers span two.
        let regions: Vec<_> = (0..64).map(|at| (at * 0x800, 0x800)).collect();
        let mut driver = Driver::on(&Arena::of_regions(&regions), size, features);
        driver.begin_at(start);
        let queue = Queue::new(&driver.setup(0, driver.state())).unwrap();
        Self {
            driver,
            queue,
            requests: HashMap::new(),
            added: VecDeque::new(),
            visible: VecDeque::new(),
            held: VecDeque::new(),
            popped: Vec::new(),
            pushed: VecDeque::new(),
            back: VecDeque::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Add { readable, writable, indirect } => self.add(&readable, &writable, indirect),
            Step::Publish => {
                self.driver.publish();
                self.visible.append(&mut self.added);
            }
            Step::Turn(limit) => self.turn(limit),
            Step::Undo => self.undo(),
            Step::Push(at) => self.push(at),
            Step::Flush => {
                self.queue.flush();
                self.back.append(&mut self.pushed);
            }
            Step::Take => self.take(),
        }
    }

    fn add(&mut self, readable: &[Vec<u8>], writable: &[usize], indirect: bool) {
        let parts: Vec<&[u8]> = readable.iter().map(Vec::as_slice).collect();
        // A chain is never longer than the ring, in a table neither.
        if parts.len() + writable.len() > usize::from(self.queue.size()) {
            return;
        }
        let head = match indirect {
            true => self.driver.add_indirect(&parts, writable),
            false => self.driver.add(&parts, writable),
        };
        if let Some(head) = head {
            self.added.push_back(head);
            self.requests.insert(head, (readable.concat(), writable.iter().sum()));
        }
    }

    fn turn(&mut self, limit: usize) {
        let held = &mut self.held;
        let before = held.len();
        let mut empty = false;
        let again = turn(&mut self.queue, |queue| {
            while held.len() - before < limit {
                let Some(chain) = queue.pop()? else {
                    empty = true;
                    break;
                };
                held.push_back(chain);
            }
            Ok(())
        });
        assert_eq!(again, Ok(false), "nobody adds while this turn runs");
        assert_eq!(empty, self.held.len() - before < limit);
        for chain in self.held.range(before..) {
            assert_eq!(Some(chain.head()), self.visible.pop_front(), "chains come in order");
            let (request, room) = &self.requests[&chain.head()];
            assert_eq!((chain.readable_len(), chain.writable_len()), (request.len(), *room));
            self.popped.push(chain.head());
        }
        assert!(!empty || self.visible.is_empty());
        self.back.append(&mut self.pushed);
    }

    fn undo(&mut self) {
        // Only the chain popped last, and only while it is held.
        if self.held.back().is_some_and(|chain| Some(&chain.head()) == self.popped.last()) {
            let chain = self.held.pop_back().unwrap();
            self.popped.pop();
            self.visible.push_front(chain.head());
            self.queue.undo_pop(chain);
        }
    }

    /// Answers a chain with what it holds, each byte plus one, as far as there is room.
    fn push(&mut self, at: usize) {
        if self.held.is_empty() {
            return;
        }
        let chain = self.held.remove(at % self.held.len()).unwrap();
        self.pushed.push_back(chain.head());
        let (mut reader, mut writer) = (chain.reader(), chain.writer());
        let mut byte = [0];
        while writer.remaining() > 0 && reader.read_exact(&mut byte).is_some() {
            writer.write_all(&[byte[0].wrapping_add(1)]).unwrap();
        }
        let written = u32::try_from(writer.written()).unwrap();
        self.queue.push(chain, written);
    }

    fn take(&mut self) {
        let used = self.driver.take_used();
        assert_eq!(used.as_ref().map(|used| used.head), self.back.pop_front());
        if let Some(used) = used {
            let (request, room) = self.requests.remove(&used.head).unwrap();
            let mut data: Vec<u8> = request.iter().take(room).map(|byte| byte.wrapping_add(1)).collect();
            assert_eq!(used.written as usize, data.len());
            data.resize(room, UNTOUCHED);
            assert_eq!(used.data, data);
        }
    }

    /// Lets everything come back.
    fn finish(mut self) {
        self.step(Step::Publish);
        while !self.visible.is_empty() {
            self.turn(usize::MAX);
        }
        while !self.held.is_empty() {
            self.push(0);
        }
        self.step(Step::Flush);
        while !self.back.is_empty() {
            self.take();
        }
        assert_eq!(self.driver.in_flight(), 0);
        assert_eq!(self.queue.state(), self.driver.state());
    }
}

proptest! {
    /// What goes in comes out, in order and once, with the bytes that were sent, whatever the
    /// ring's size, place in its indices and features.
    #[test]
    fn a_ring_is_a_queue(
        steps in steps(), log_size in 0u32..7, start in any::<u16>(), event_idx in any::<bool>(),
    ) {
        let event_idx = if event_idx { VIRTIO_F_EVENT_IDX } else { 0 };
        let mut model = Model::new(1 << log_size, start, VIRTIO_F_INDIRECT_DESC | event_idx);
        for step in steps {
            model.step(step);
        }
        model.finish();
    }

    #[test]
    fn any_bytes_are_a_ring(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        exercise_queue(&bytes);
    }
}

/// The short run of the fuzz target `queue`. It gets somewhere: chains come out, and everything that
/// can be wrong with a ring was wrong with one of them.
#[test]
fn replay_queue() {
    use RingError::*;
    let (mut chains, mut faults) = (0, HashMap::new());
    for bytes in seeds(4000, 1500) {
        let (count, fault) = exercise_queue(&bytes);
        chains += count;
        *faults.entry(format!("{fault:?}")).or_insert(0) += 1;
    }
    assert!(chains > 10_000, "{chains}");
    // All but those that take more memory than these rings have, or a device.
    let all = [
        Layout,
        AvailableIndex,
        Head,
        HeadInFlight,
        Next,
        ChainLength,
        IndirectFeature,
        IndirectLength,
        IndirectNested,
        IndirectNext,
        Address,
        EmptyBuffer,
        ReadableAfterWritable,
        Inflight,
    ];
    for fault in all {
        assert!(faults.contains_key(&format!("{:?}", Some(fault))), "{fault:?} is not among {faults:?}");
    }
}
