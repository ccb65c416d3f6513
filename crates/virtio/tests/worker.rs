//! Workers under a driver on another thread: nothing is lost, whatever stops and starts.

#![expect(unsafe_code, reason = "a driver's raw access to its ring, and descriptors made of others")]
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use parador_virtio::ids::{VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC};
use parador_virtio::testing::hostile::{HostileRing, Source};
use parador_virtio::testing::{Driver, PATIENCE, seeds};
use parador_virtio::{
    Chain, EventFd, GuestAddress, Interrupt, Lane, Queue, QueueHandler, QueueLayout, QueueSetup, QueueState,
    RingError,
};

const FEATURES: [u64; 2] = [VIRTIO_F_INDIRECT_DESC, VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX];

/// Echoes at once.
#[derive(Default)]
struct Echo {
    turns: u64,
}

fn echo(queue: &mut Queue, chain: Chain) {
    let mut data = [0; 8];
    chain.reader().read_exact(&mut data).unwrap();
    chain.writer().write_all(&data).unwrap();
    queue.push(chain, 8);
}

impl QueueHandler for Echo {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        self.turns += 1;
        while let Some(chain) = queue.pop()? {
            echo(queue, chain);
        }
        Ok(())
    }
}

/// Holds chains back and answers them late and in another order.
struct Slow {
    held: Vec<Chain>,
    wake: EventFd,
}

impl Slow {
    fn new() -> Self {
        Self { held: Vec::new(), wake: EventFd::new(0).unwrap() }
    }
}

impl QueueHandler for Slow {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        let before = self.held.len();
        while let Some(chain) = queue.pop()? {
            self.held.push(chain);
        }
        // One of those from an earlier turn; the others in later ones.
        if before > 0 {
            let chain = self.held.swap_remove(before / 2);
            echo(queue, chain);
        }
        if !self.held.is_empty() {
            self.wake.write(1).unwrap();
        }
        Ok(())
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: the descriptor is open as long as `self.wake`.
        Some(unsafe { BorrowedFd::borrow_raw(self.wake.as_raw_fd()) })
    }

    fn drain(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        while let Some(chain) = self.held.pop() {
            echo(queue, chain);
        }
        Ok(())
    }
}

/// Sends `count` numbered requests, as many at once as fit, and takes the answers; every now and
/// then calls `disturb`.
fn send(driver: &mut Driver, count: u64, mut disturb: impl FnMut(&Driver, u64)) {
    let (mut sent, mut answered) = (0_u64, 0);
    let mut expected = std::collections::HashMap::new();
    while answered < count {
        while sent < count {
            let request = sent.to_le_bytes();
            let head = match sent % 3 {
                0 => driver.add_indirect(&[&request], &[8]),
                1 => driver.add(&[&request], &[8]),
                _ => driver.add(&[&request[..3], &request[3..]], &[4, 4]),
            };
            let Some(head) = head else { break };
            expected.insert(head, sent);
            sent += 1;
            if sent.is_multiple_of(5) {
                driver.kick();
            }
        }
        driver.kick();
        disturb(driver, answered);
        let used = driver.wait_used(PATIENCE).expect("an answer comes");
        let number = expected.remove(&used.head).expect("an answer to a request");
        assert_eq!(used.data, number.to_le_bytes());
        answered += 1;
    }
    assert_eq!(driver.in_flight(), 0);
}

#[test]
fn no_kick_is_lost() {
    for features in FEATURES {
        for size in [4, 8, 64] {
            let mut driver = Driver::new(1 << 20, size, features);
            driver.begin_at(0xff80);
            let mut lane = Lane::new(Echo::default());
            lane.start("echo", driver.setup(0, driver.state())).unwrap();
            send(&mut driver, 5_000, |_, _| {});
            assert_eq!(lane.stop(), Some(driver.state()));
        }
    }
}

/// One chain at a time, made available about when the device asks for a kick, now a little before
/// and now a little after.
#[test]
fn no_kick_is_lost_while_the_device_asks_for_it() {
    use std::hint::spin_loop;
    use std::sync::atomic::{AtomicU16, Ordering::*, fence};
    for features in FEATURES {
        let driver = Driver::new(1 << 16, 1, features);
        driver.refuse_interrupts();
        let QueueLayout { available, used, .. } = driver.layout();
        driver.write_descriptor(0, 0, 1, 0, 0);
        // The guest's own accesses, as plain as they can be: an allocation per step would be slow.
        let field = |addr| -> &AtomicU16 {
            let host = vm_memory::GuestMemoryBackend::get_host_address(driver.memory(), GuestAddress(addr));
            // SAFETY: aligned, in memory that `driver` keeps mapped, and only accessed atomically.
            unsafe { AtomicU16::from_ptr(host.unwrap().cast()) }
        };
        let (index, flags, used_index) = (field(available + 2), field(used), field(used + 2));
        let event = field(used + 4 + 8);
        let mut lane = Lane::new(Patient);
        lane.start("patient", driver.setup(0, QueueState::default())).unwrap();
        for round in (1..30_000_u32).map(|round| round as u16) {
            let end = Instant::now() + PATIENCE;
            for _ in 0..round % 64 {
                spin_loop();
            }
            index.store(round, Release);
            fence(SeqCst);
            let wanted = match features & VIRTIO_F_EVENT_IDX {
                0 => flags.load(Relaxed) == 0,
                _ => event.load(Relaxed) == round.wrapping_sub(1),
            };
            if wanted {
                driver.force_kick();
            }
            while used_index.load(Acquire) != round {
                spin_loop();
                assert!(Instant::now() < end, "a kick was lost");
            }
        }
        lane.stop().unwrap();
    }
}

#[test]
fn stopping_and_starting_loses_nothing() {
    for features in FEATURES {
        let mut driver = Driver::new(1 << 20, 16, features);
        driver.begin_at(0xfff0);
        let mut lane = Lane::new(Slow::new());
        lane.start("slow", driver.setup(0, driver.state())).unwrap();
        let mut random = 1_u32;
        send(&mut driver, 20_000, |driver, _| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if random >> 24 < 8 {
                let state = lane.stop().unwrap();
                assert!(lane.handler().unwrap().held.is_empty(), "a stopped queue is drained");
                lane.start("slow", driver.setup(0, state)).unwrap();
            }
        });
        assert_eq!(lane.stop(), Some(driver.state()));
        assert_eq!(lane.stop(), None);
    }
}

#[test]
fn a_kick_before_the_start_counts_whatever_the_descriptor_is() {
    for features in FEATURES {
        let mut driver = Driver::new(1 << 16, 4, features);
        driver.add(&[&[7; 8]], &[8]).unwrap();
        driver.kick();
        driver.force_kick();
        let mut lane = Lane::new(Echo::default());
        lane.start("echo", driver.setup(0, QueueState::default())).unwrap();
        assert_eq!(driver.wait_used(PATIENCE).unwrap().data, [7; 8]);
        // The counter is never read and still every kick counts.
        for _ in 0..10 {
            driver.add(&[&[8; 8]], &[8]).unwrap();
            driver.publish();
            driver.force_kick();
            assert_eq!(driver.wait_used(PATIENCE).unwrap().data, [8; 8]);
        }
        lane.stop().unwrap();
    }
}

#[test]
fn a_blocking_kick_descriptor_is_as_good() {
    let mut driver = Driver::new(1 << 16, 4, 0);
    let kick = EventFd::new(0).unwrap();
    let mut lane = Lane::new(Echo::default());
    let mut setup = driver.setup(0, QueueState::default());
    setup.kick = Some(kick.try_clone().unwrap());
    lane.start("echo", setup).unwrap();
    for _ in 0..3 {
        driver.add(&[&[9; 8]], &[8]).unwrap();
        driver.publish();
        kick.write(1).unwrap();
        assert!(driver.wait_used(PATIENCE).is_some());
    }
    lane.stop().unwrap();
}

/// Leaves every chain in the ring.
struct Miser {
    turns: u64,
}

impl QueueHandler for Miser {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        self.turns += 1;
        if let Some(chain) = queue.pop()? {
            queue.undo_pop(chain);
        }
        Ok(())
    }
}

#[test]
fn a_handler_that_leaves_chains_does_not_spin() {
    for features in FEATURES {
        let mut driver = Driver::new(1 << 16, 4, features);
        driver.add(&[&[7; 8]], &[8]).unwrap();
        driver.kick();
        let mut lane = Lane::new(Miser { turns: 0 });
        lane.start("miser", driver.setup(0, QueueState::default())).unwrap();
        assert!(driver.wait_used(Duration::from_millis(100)).is_none());
        assert_eq!(lane.stop(), Some(QueueState { next_available: 0 }));
        let turns = lane.handler().unwrap().turns;
        assert!(turns <= 2, "{turns} turns for one kick");
    }
}

/// Wants three chains for an answer and undoes fewer.
struct Three;

impl QueueHandler for Three {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        let mut chains = Vec::new();
        while let Some(chain) = queue.pop()? {
            chains.push(chain);
            if chains.len() == 3 {
                chains.drain(..).for_each(|chain| echo(queue, chain));
            }
        }
        while let Some(chain) = chains.pop() {
            queue.undo_pop(chain);
        }
        Ok(())
    }
}

#[test]
fn a_handler_that_needs_more_chains_is_told_when_they_come() {
    for features in FEATURES {
        let mut driver = Driver::new(1 << 16, 8, features);
        let mut lane = Lane::new(Three);
        lane.start("three", driver.setup(0, QueueState::default())).unwrap();
        for round in 0..50_u8 {
            for part in 0..3 {
                assert!(driver.take_used().is_none());
                driver.add(&[&[round + part; 8]], &[8]).unwrap();
                driver.kick();
                std::thread::sleep(Duration::from_millis(1));
            }
            for part in 0..3 {
                assert_eq!(driver.wait_used(PATIENCE).unwrap().data, [round + part; 8]);
            }
        }
        lane.stop().unwrap();
    }
}

#[test]
fn a_broken_ring_is_announced_once_and_still_stops() {
    let mut driver = Driver::new(1 << 16, 4, 0);
    let mut lane = Lane::new(Slow::new());
    // One good chain, then a head beyond the table.
    driver.add(&[&[7; 8]], &[8]).unwrap();
    driver.offer(4);
    driver.publish();
    lane.start("slow", driver.setup(0, QueueState::default())).unwrap();
    // What was taken before the fault is completed.
    assert_eq!(driver.wait_used(PATIENCE).unwrap().data, [7; 8]);
    let end = Instant::now() + PATIENCE;
    while !driver.is_broken() {
        assert!(Instant::now() < end, "a broken ring is announced");
        std::thread::yield_now();
    }
    for _ in 0..100 {
        driver.force_kick();
    }
    assert!(!driver.is_broken(), "once");
    assert!(lane.is_running());
    assert_eq!(lane.stop(), Some(QueueState { next_available: 1 }));
    // After a reset, the ring set up anew, the same lane serves again.
    let mut driver = Driver::new(1 << 16, 4, VIRTIO_F_INDIRECT_DESC);
    lane.start("slow", driver.setup(0, QueueState::default())).unwrap();
    send(&mut driver, 10, |_, _| {});
}

#[test]
fn a_lane_starts_once_and_refuses_a_ring_outside_memory() {
    let driver = Driver::new(1 << 16, 4, 0);
    let mut lane = Lane::new(Echo::default());
    assert!(!lane.is_running() && lane.stop().is_none());
    let mut setup = driver.setup(0, QueueState::default());
    setup.layout.used = 1 << 40;
    assert_eq!(lane.start("echo", setup).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    assert!(lane.handler().is_some(), "a refused start leaves the handler at rest");
    lane.start("echo\0of a name with a NUL", driver.setup(0, QueueState::default())).unwrap();
    let again = lane.start("echo", driver.setup(0, QueueState::default()));
    assert_eq!(again.unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    assert!(lane.is_running() && lane.handler().is_none());
    assert!(lane.stop().is_some());
}

#[test]
fn a_kick_descriptor_that_cannot_be_waited_for_is_refused() {
    use std::os::fd::{FromRawFd, IntoRawFd};
    let driver = Driver::new(1 << 16, 4, 0);
    let mut setup = driver.setup(0, QueueState::default());
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    setup.kick = Some(duplicate(file));
    let mut lane = Lane::new(Echo::default());
    assert!(lane.start("echo", setup).is_err());
    assert!(!lane.is_running());

    fn duplicate(file: std::fs::File) -> EventFd {
        // SAFETY: the descriptor is open and given away.
        unsafe { EventFd::from_raw_fd(file.into_raw_fd()) }
    }
}

/// Panics in its first turn.
struct Clumsy(std::sync::mpsc::Sender<()>);

impl QueueHandler for Clumsy {
    #[expect(clippy::panic, reason = "that is what it is for")]
    fn run(&mut self, _queue: &mut Queue) -> Result<(), RingError> {
        self.0.send(()).unwrap();
        panic!("clumsy");
    }
}

#[test]
fn a_panic_comes_out_of_stop_and_not_out_of_drop() {
    for stop in [true, false] {
        let driver = Driver::new(1 << 16, 4, 0);
        let (send, receive) = std::sync::mpsc::channel();
        let mut lane = Lane::new(Clumsy(send));
        lane.start("clumsy", driver.setup(0, QueueState::default())).unwrap();
        receive.recv().unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match stop {
            true => drop(lane.stop()),
            false => drop(lane),
        }));
        match result {
            Ok(()) => assert!(!stop),
            Err(payload) => assert_eq!((stop, payload.downcast_ref()), (true, Some(&"clumsy"))),
        }
    }
}

/// Says what it is running on.
struct WhereAmI {
    status: String,
}

impl QueueHandler for WhereAmI {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        self.status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        while let Some(chain) = queue.pop()? {
            queue.push(chain, 0);
        }
        Ok(())
    }
}

#[test]
fn a_queues_thread_has_its_name_and_takes_no_signals() {
    let mut driver = Driver::new(1 << 16, 4, 0);
    let mut lane = Lane::new(WhereAmI { status: String::new() });
    driver.add(&[], &[1]).unwrap();
    driver.publish();
    lane.start("disk0 queue 1", driver.setup(0, QueueState::default())).unwrap();
    driver.wait_used(PATIENCE).unwrap();
    lane.stop().unwrap();
    let status = &lane.handler().unwrap().status;
    let field = |status: &str, name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_once('\t').unwrap().1.to_owned()
    };
    assert_eq!(field(status, "Name:"), "disk0 queue 1");
    let blocked = |status: &str| u64::from_str_radix(&field(status, "SigBlk:"), 16).unwrap();
    let signal = |number: libc::c_int| 1_u64 << (number - 1);
    for number in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGCHLD, libc::SIGPIPE] {
        assert_ne!(blocked(status) & signal(number), 0, "signal {number}");
    }
    for number in [libc::SIGSEGV, libc::SIGBUS, libc::SIGSYS] {
        assert_eq!(blocked(status) & signal(number), 0, "signal {number}");
    }
    // The thread that started it is as it was.
    let own = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    assert_eq!(blocked(&own) & signal(libc::SIGTERM), 0);
}

/// Reads and writes what it is given, whatever that is.
struct Patient;

impl QueueHandler for Patient {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        while let Some(chain) = queue.pop()? {
            let mut data = [0; 256];
            let (mut reader, mut writer) = (chain.reader(), chain.writer());
            loop {
                let got = reader.read(&mut data);
                if got == 0 || writer.write(&data[..got]) == 0 {
                    break;
                }
            }
            let written = u32::try_from(writer.written()).unwrap();
            queue.push(chain, written);
        }
        Ok(())
    }
}

/// A driver that rewrites its ring at any moment gets a broken ring, and nobody else gets anything.
#[test]
fn a_ring_scribbled_over_while_it_is_used() {
    for seed in seeds(30, 4000) {
        let mut source = Source::new(&seed);
        let ring = HostileRing::new(&mut source);
        let mut lane = Lane::new(Patient);
        let HostileRing { setup } = &ring;
        let kick = setup.kick.as_ref().unwrap().try_clone().unwrap();
        let started = lane.start(
            "patient",
            QueueSetup {
                index: 0,
                features: setup.features,
                layout: setup.layout,
                resume: setup.resume,
                memory: setup.memory.clone(),
                kick: Some(kick.try_clone().unwrap()),
                call: Interrupt::nobody(),
                error: Interrupt::nobody(),
                inflight: None,
                dirty: None,
            },
        );
        if started.is_err() {
            continue;
        }
        while !source.is_empty() {
            ring.mutate(&mut source);
            kick.write(1).unwrap();
        }
        assert!(lane.stop().is_some());
    }
}
