//! A queue stops when it is told to, whatever its driver does, and sleeps when there is nothing to do.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parador_virtio::ids::VIRTIO_F_EVENT_IDX;
use parador_virtio::testing::{Driver, PATIENCE, shared_file};
use parador_virtio::{
    Chain, GuestAddress, InflightRegion, Lane, Queue, QueueHandler, QueueSetup, QueueState, RingError,
};
use vm_memory::Bytes;

const FEATURES: [u64; 2] = [0, VIRTIO_F_EVENT_IDX];

/// Gives every chain back, and counts turns and chains.
#[derive(Clone, Default)]
struct Count {
    turns: Arc<AtomicU64>,
    chains: Arc<AtomicU64>,
}

impl QueueHandler for Count {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        self.turns.fetch_add(1, Ordering::Relaxed);
        while let Some(chain) = queue.pop()? {
            self.chains.fetch_add(1, Ordering::Relaxed);
            queue.push(chain, 0);
        }
        Ok(())
    }
}

fn wait_until(condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "it takes too long");
        thread::yield_now();
    }
}

/// A driver that never lets the ring run dry: one chain, made available again and again without
/// looking at what the device has done.
#[test]
fn a_driver_that_never_stops_does_not_keep_the_queue_from_it() {
    for features in FEATURES {
        let mut driver = Driver::new(1 << 20, 256, features);
        driver.write_descriptor(0, 0x8_0000, 1, 0, 0);
        (0..256).for_each(|_| driver.offer(0));
        let index = GuestAddress(driver.layout().available + 2);
        let used = GuestAddress(driver.layout().used + 2);
        let memory = driver.memory().clone();
        let kick = driver.setup(0, QueueState::default()).kick.unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let flood = thread::spawn({
            let over = Arc::clone(&over);
            move || {
                while !over.load(Ordering::Relaxed) {
                    // As far ahead as is allowed.
                    let done: u16 = memory.load(used, Ordering::Acquire).unwrap();
                    memory.store(done.wrapping_add(256), index, Ordering::Release).unwrap();
                    kick.write(1).unwrap();
                }
            }
        });
        let count = Count::default();
        let mut lane = Lane::new(count.clone());
        lane.start("flooded", driver.setup(0, QueueState::default())).unwrap();
        wait_until(|| count.chains.load(Ordering::Relaxed) > 10_000);
        let start = Instant::now();
        let state = lane.stop().unwrap();
        assert!(start.elapsed() < PATIENCE);
        over.store(true, Ordering::Relaxed);
        flood.join().unwrap();
        assert!(!driver.is_broken());
        let chains = count.chains.load(Ordering::Relaxed);
        assert_eq!(u64::from(state.next_available), chains % (1 << 16));
    }
}

#[test]
fn a_queue_without_work_sleeps() {
    for features in FEATURES {
        let driver = Driver::new(1 << 16, 4, features);
        let count = Count::default();
        let mut lane = Lane::new(count.clone());
        lane.start("idle", driver.setup(0, QueueState::default())).unwrap();
        wait_until(|| count.turns.load(Ordering::Relaxed) > 0);
        thread::sleep(Duration::from_millis(100));
        assert_eq!(count.turns.load(Ordering::Relaxed), 1);
        // Kicks for nothing cost a turn each, at most.
        driver.force_kick();
        thread::sleep(Duration::from_millis(50));
        assert!(count.turns.load(Ordering::Relaxed) <= 2);
        lane.stop().unwrap();
    }
}

#[test]
fn a_queue_with_a_broken_ring_sleeps_whatever_its_driver_does() {
    let mut driver = Driver::new(1 << 16, 4, 0);
    let count = Count::default();
    let mut lane = Lane::new(count.clone());
    driver.offer(0xffff);
    driver.publish();
    lane.start("broken", driver.setup(0, QueueState::default())).unwrap();
    wait_until(|| driver.is_broken());
    let turns = count.turns.load(Ordering::Relaxed);
    for _ in 0..1000 {
        driver.force_kick();
    }
    thread::sleep(Duration::from_millis(50));
    assert_eq!(count.turns.load(Ordering::Relaxed), turns);
    assert_eq!(lane.stop(), Some(QueueState::default()));
}

/// The driver does not kick: there is nothing to kick with.
#[test]
fn a_ring_without_kicks_is_looked_at() {
    for features in FEATURES {
        let mut driver = Driver::new(1 << 16, 4, features);
        let count = Count::default();
        let mut lane = Lane::new(count.clone());
        let mut state = QueueState::default();
        for _ in 0..3 {
            let setup = driver.setup(0, state);
            lane.start("polled", QueueSetup { kick: None, ..setup }).unwrap();
            for _ in 0..20 {
                driver.add(&[], &[1]).unwrap();
                driver.publish();
                driver.wait_used(PATIENCE).unwrap();
            }
            let before = count.turns.load(Ordering::Relaxed);
            thread::sleep(Duration::from_millis(100));
            // Once a millisecond, not all the time.
            assert!(count.turns.load(Ordering::Relaxed) - before < 200);
            state = lane.stop().unwrap();
        }
        assert_eq!(state, driver.state());
    }
}

/// Takes every chain; gives up half of them if it may.
#[derive(Default)]
struct Half(Vec<Chain>);

impl QueueHandler for Half {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        while let Some(chain) = queue.pop()? {
            self.0.push(chain);
        }
        Ok(())
    }

    fn drain(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        self.0.drain(..).for_each(|chain| queue.push(chain, 0));
        Ok(())
    }

    fn abandon(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        self.0.truncate(self.0.len() / 2);
        self.drain(queue)
    }
}

#[test]
fn what_is_given_up_is_done_by_whoever_goes_on() {
    let mut driver = Driver::new(1 << 16, 16, 0);
    let bytes = InflightRegion::bytes(1, 16);
    let region = InflightRegion::map(shared_file(bytes), 0, bytes, 1, 16).unwrap();
    for _ in 0..10 {
        driver.add(&[], &[1]).unwrap();
    }
    driver.publish();
    let (mut lane, mut state) = (Lane::new(Half::default()), QueueState::default());
    for left in [5, 3, 2] {
        lane.start("half", QueueSetup { inflight: region.queue(0), ..driver.setup(0, state) }).unwrap();
        // The first turn comes before the end, however soon that is.
        state = lane.abandon().unwrap();
        assert_eq!(state, QueueState { next_available: 10 });
        while driver.take_used().is_some() {}
        assert_eq!(driver.in_flight(), left);
    }
    lane.start("half", QueueSetup { inflight: region.queue(0), ..driver.setup(0, state) }).unwrap();
    assert_eq!(lane.stop(), Some(state));
    assert_eq!(std::iter::from_fn(|| driver.take_used()).count(), 2);
}
