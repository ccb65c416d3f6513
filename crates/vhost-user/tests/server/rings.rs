//! Rings: two independent states, any order of messages, changes while they run.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parador_vhost_user::message::{FrontendRequest as R, VringAddr, VringFd, VringState};
use parador_virtio::ids::{VIRTIO_F_VERSION_1, VIRTIO_ID_NET};
use parador_virtio::testing::PATIENCE;

use crate::borrow::borrow;
use crate::device::{Echo, QUEUES};
use crate::front::{Front, MEMORY_LEN, USER, echo};

/// Long enough for a ring that should not run to be caught at it, most of the time.
const A_WHILE: Duration = Duration::from_millis(30);

fn state(index: u32, num: u32) -> VringState {
    VringState { index, num }
}

#[test]
fn a_ring_runs_when_it_is_started_and_enabled() {
    // R1, R2, R3, R4, R7, R11
    let front = Front::new(Echo::new());
    let mut driver = front.driver();
    // Enabled before anything else is known of it; others that nobody will ever set up, too.
    (0..QUEUES as u32).for_each(|ring| front.enable(ring, true));
    let head = driver.add(&[b"early"], &[5]).unwrap();
    driver.kick();
    assert!(driver.wait_used(A_WHILE).is_none(), "it is stopped");
    front.enable(0, false);
    front.set_ring(0, &driver);
    assert!(driver.wait_used(A_WHILE).is_none(), "it is disabled");
    assert_eq!(front.seen.chains.load(Ordering::SeqCst), 0, "no side effects");
    front.enable(0, true);
    assert_eq!(driver.wait_used(PATIENCE).expect("the kick is not lost").head, head);
}

#[test]
fn a_ring_starts_with_its_kick_descriptor_and_needs_no_kick() {
    // R5
    let front = Front::new(Echo::new());
    let mut driver = front.driver();
    front.enable(0, true);
    driver.add(&[b"quiet"], &[5]).unwrap();
    driver.publish();
    front.set_ring(0, &driver);
    assert_eq!(driver.wait_used(PATIENCE).expect("an answer").data, b"quiet");
}

#[test]
fn messages_about_a_ring_may_come_in_any_order() {
    // R10, R12
    let parts = 6;
    // Every part first once, and last once.
    for first in 0..parts {
        let front = Front::new(Echo::new());
        let mut driver = front.driver();
        let setup = driver.setup(0, driver.state());
        let kick = setup.kick.unwrap();
        let ring = VringFd { index: 0, has_fd: true };
        for part in (0..parts).map(|part| (part + first) % parts) {
            match part {
                0 => front.tell(&R::SetVringNum(state(0, u32::from(setup.layout.size)))),
                1 => front.tell(&R::SetVringBase(state(0, 0))),
                2 => front.tell_with(&R::SetVringKick(ring), &[borrow(&kick)]),
                3 => front.tell(&R::SetVringAddr(front.address(0, &driver))),
                4 => (0..2).for_each(|_| front.set_call(0, &driver)),
                _ => front.enable(0, true),
            }
        }
        echo(&mut driver, b"in any order");
    }
}

#[test]
fn features_without_those_of_the_protocol_enable_all_rings() {
    // N11, N12, N13
    let front = Front::new(Echo::new());
    let mut drivers = [front.driver(), front.driver()];
    front.set_ring(0, &drivers[0]);
    front.set_ring(1, &drivers[1]);
    front.tell(&R::SetFeatures(VIRTIO_F_VERSION_1));
    drivers.iter_mut().for_each(|driver| echo(driver, b"enabled"));
    front.enable(0, false);
    for _ in 0..2 {
        front.tell(&R::SetFeatures(crate::front::FEATURES));
        front.tell(&R::SetFeatures(crate::front::FEATURES | 1 << 26));
        drivers[0].add(&[b"x"], &[1]);
        drivers[0].kick();
        assert!(drivers[0].wait_used(A_WHILE).is_none(), "still disabled");
        echo(&mut drivers[1], b"still enabled");
    }
}

#[test]
fn frames_to_a_disabled_card_are_lost_and_none_come_from_it() {
    // R3
    let front = Front::new(Echo::of_kind(VIRTIO_ID_NET));
    let [mut receive, mut send] = [front.driver(), front.driver()];
    front.set_ring(0, &receive);
    front.set_ring(1, &send);
    receive.add(&[], &[64]);
    receive.kick();
    for _ in 0..3 {
        let head = send.add(&[b"lost"], &[]).unwrap();
        send.kick();
        assert_eq!(send.wait_used(PATIENCE).expect("taken").head, head);
    }
    assert!(receive.wait_used(A_WHILE).is_none());
    assert_eq!(front.seen.chains.load(Ordering::SeqCst), 0, "the device saw none");
    front.enable(1, true);
    send.add(&[b"sent"], &[]);
    send.kick();
    send.wait_used(PATIENCE).expect("taken");
    assert_eq!(front.seen.chains.load(Ordering::SeqCst), 1);
    assert_eq!(front.base(1), 4);
}

#[test]
fn a_ring_without_a_kick_is_looked_at() {
    // R13
    let front = Front::new(Echo::new());
    let mut driver = front.driver();
    front.set_ring(0, &driver);
    front.tell(&R::SetVringKick(VringFd { index: 0, has_fd: false }));
    front.enable(0, true);
    for _ in 0..3 {
        driver.add(&[b"look"], &[4]).unwrap();
        driver.publish();
        assert_eq!(driver.wait_used(PATIENCE).expect("an answer").data, b"look");
    }
}

#[test]
fn a_ring_without_a_call_is_used_in_silence() {
    // R14
    let front = Front::new(Echo::new());
    let mut driver = front.start(0);
    echo(&mut driver, b"loud");
    front.tell(&R::SetVringCall(VringFd { index: 0, has_fd: false }));
    while driver.wait_call(Duration::ZERO) {}
    driver.add(&[b"hush"], &[4]).unwrap();
    driver.kick();
    front.wait_taken(2);
    assert_eq!(front.base(0), 2);
    assert_eq!(driver.take_used().expect("used before the ring stopped").data, b"hush");
    assert!(!driver.wait_call(Duration::ZERO));
}

#[test]
fn rings_that_there_are_not_are_refused() {
    // R15
    let front = Front::new(Echo::new());
    let driver = front.driver();
    for index in [QUEUES as u8, 255] {
        let ring = VringFd { index, has_fd: false };
        front.refused(&R::SetVringNum(state(index.into(), 64)), &[]);
        front.refused(&R::SetVringBase(state(index.into(), 0)), &[]);
        front.refused(&R::SetVringAddr(front.address(index.into(), &driver)), &[]);
        front.refused(&R::SetVringEnable(state(index.into(), 1)), &[]);
        front.refused(&R::SetVringKick(ring), &[]);
        front.refused(&R::SetVringCall(ring), &[]);
        front.refused(&R::SetVringErr(ring), &[]);
    }
    front.refused(&R::SetVringNum(state(1 << 16, 64)), &[]);
    front.refused(&R::SetVringEnable(state(0, 2)), &[]);
    front.refused(&R::SetVringBase(state(0, 1 << 16)), &[]);
}

#[test]
fn sizes_that_no_ring_has_are_refused() {
    // R16
    let front = Front::new(Echo::new());
    for size in [0, 3, 255, 512, 65536, u32::MAX] {
        front.refused(&R::SetVringNum(state(0, size)), &[]);
    }
}

#[test]
fn a_ring_that_is_not_all_in_one_region_is_refused() {
    // R17, R18
    let front = Front::new(Echo::new());
    let mut driver = front.driver();
    front.set_ring(0, &driver);
    let good = front.address(0, &driver);
    let end = USER + MEMORY_LEN as u64;
    for bad in [0, good.descriptor - USER, USER - 16, end, end - 16, u64::MAX - 15, good.used + 1] {
        front.refused(&R::SetVringAddr(VringAddr { descriptor: bad, ..good }), &[]);
        front.refused(&R::SetVringAddr(VringAddr { available: bad | 1, ..good }), &[]);
        front.refused(&R::SetVringAddr(VringAddr { used: bad | 2, ..good }), &[]);
    }
    // What was refused changes nothing.
    front.enable(0, true);
    echo(&mut driver, b"where it was");
    // It fits as long as it is small.
    front.tell(&R::SetVringNum(state(1, 1)));
    front.tell(&R::SetVringAddr(VringAddr { index: 1, descriptor: end - 16, ..good }));
    front.refused(&R::SetVringNum(state(1, 2)), &[]);
}

#[test]
fn a_base_is_where_the_device_goes_on() {
    // R19, R21, R25
    let front = Front::new(Echo::new());
    let mut driver = front.driver();
    driver.begin_at(0xfffe);
    front.tell(&R::SetVringBase(state(0, 5)));
    for _ in 0..2 {
        assert_eq!(front.base(0), 5, "the base that was set");
    }
    front.set_ring(0, &driver);
    (0..3).for_each(|_| assert!(driver.add(&[b"x"], &[1]).is_some()));
    driver.kick();
    for _ in 0..2 {
        assert_eq!(front.base(0), 0xfffe, "what would be taken next, not what there is");
    }
    front.set_kick(0, &driver);
    front.enable(0, true);
    (0..3).for_each(|_| assert!(driver.wait_used(PATIENCE).is_some()));
    assert_eq!(front.base(0), 1);
    assert_eq!(driver.state().next_available, 1);
}

#[test]
fn a_ring_that_stops_has_completed_what_it_took() {
    // R8, R23, R24, R28, R29, L15
    let front = Front::new(Echo::new());
    let [mut driver, mut other] = [front.start(0), front.start(1)];
    front.seen.hold.store(true, Ordering::SeqCst);
    (0..5).for_each(|_| assert!(driver.add(&[b"kept"], &[4]).is_some()));
    driver.kick();
    front.wait_taken(5);
    assert!(driver.take_used().is_none());
    assert_eq!(front.base(0), 5);
    (0..5).for_each(|_| assert_eq!(driver.take_used().expect("it is complete").data, b"kept"));
    front.seen.release();
    echo(&mut other, b"goes on");
    // Suspended: nothing changes, whatever the driver does.
    front.base(1);
    while driver.wait_call(Duration::ZERO) {}
    driver.add(&[b"later"], &[5]);
    driver.kick();
    driver.force_kick();
    let memory = || {
        let mut bytes = vec![0; MEMORY_LEN];
        std::os::unix::fs::FileExt::read_exact_at(&front.file, &mut bytes, 0).unwrap();
        bytes
    };
    let before = memory();
    assert!(!driver.wait_call(A_WHILE));
    assert!(memory() == before, "nobody writes");
    assert_eq!(front.number(&R::GetQueueNum), QUEUES as u64);
    front.set_kick(0, &driver);
    assert_eq!(driver.wait_used(PATIENCE).expect("it resumes").data, b"later");
}

#[test]
fn a_running_ring_takes_other_descriptors_and_another_place() {
    // R9
    let front = Front::new(Echo::new());
    let mut driver = front.start(0);
    echo(&mut driver, b"here");
    let mut elsewhere = front.driver();
    front.set_kick(0, &elsewhere);
    front.set_call(0, &elsewhere);
    driver.add(&[b"there"], &[5]);
    driver.publish();
    elsewhere.force_kick();
    // A ring that starts may signal for nothing.
    let used = loop {
        assert!(elsewhere.wait_call(PATIENCE));
        if let Some(used) = driver.take_used() {
            break used;
        }
    };
    assert_eq!(used.data, b"there");
    // Another ring in its place, which begins where this one is.
    elsewhere.begin_at(driver.state().next_available);
    front.tell(&R::SetVringAddr(front.address(0, &elsewhere)));
    echo(&mut elsewhere, b"moved");
}

#[test]
fn a_broken_ring_is_told_of_and_the_others_go_on() {
    // R30
    let front = Front::new(Echo::new());
    let [mut driver, mut other] = [front.start(0), front.start(1)];
    driver.offer(0xffff);
    driver.kick();
    driver.force_kick();
    let end = std::time::Instant::now() + PATIENCE;
    while !driver.is_broken() {
        assert!(std::time::Instant::now() < end, "the error is signalled");
    }
    echo(&mut other, b"whole");
    assert_eq!(front.base(0), 0);
}

#[test]
fn a_driver_of_another_age_is_refused() {
    let front = Front::new(Echo::new());
    front.tell(&R::SetFeatures(1 << 30));
    let driver = front.driver();
    front.enable(0, true);
    front.tell(&R::SetVringNum(state(0, 64)));
    front.tell(&R::SetVringAddr(front.address(0, &driver)));
    front.refused(&R::SetVringKick(VringFd { index: 0, has_fd: false }), &[]);
}

#[test]
fn a_ring_that_was_refused_has_not_started() {
    let front = Front::new(Echo::new());
    let mut driver = front.driver();
    front.enable(0, true);
    front.tell(&R::SetVringNum(state(0, 64)));
    front.tell(&R::SetVringAddr(front.address(0, &driver)));
    // Nobody can wait for a file.
    let ring = VringFd { index: 0, has_fd: true };
    front.refused(&R::SetVringKick(ring), &[front.file.as_fd()]);
    front.set_call(0, &driver);
    front.set_kick(0, &driver);
    echo(&mut driver, b"now");
}
