//! The network device against the model driver, on a real TAP in a network namespace of its own.
//!
//! Where that cannot be had (no /dev/net/tun, no privilege) the tests say so and pass.

mod wire;

use std::fs::File;
use std::time::{Duration, Instant};

use parador_virtio::ids::{VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC, VIRTIO_F_VERSION_1};
use parador_virtio::testing::{Arena, Driver, Harness, PATIENCE, Reply, turn};
use parador_virtio::{Queue, QueueHandler};

use super::tap::TapError;
use super::*;
use wire::Wire;

/// For what should not come: no test fails because it is shorter than something takes.
const A_WHILE: Duration = Duration::from_millis(100);
const OUR_MAC: Mac = [0x52, 0x54, 0, 1, 2, 3];
/// An Ethernet type for experiments: whatever else the host sends is not ours.
const OUR_TYPE: [u8; 2] = [0x88, 0xb5];
const RING: u64 = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;
const HEADER: [u8; 12] = [0; 12];
const CONTROL: u16 = 2;

/// A TAP in a new network namespace and the host's end of it. `None`: not on this machine.
fn taps(queues: usize) -> Option<(Vec<Tap>, Wire)> {
    if !wire::enter_namespace() {
        return None;
    }
    let taps = Tap::open("test%d", queues).unwrap();
    let wire = Wire::new(taps[0].name());
    Some((taps, wire))
}

fn options(taps: Vec<Tap>) -> NetOptions {
    NetOptions { taps, mac: OUR_MAC, mtu: Some(1500) }
}

/// A device with one pair of queues, driven with `features` of those it offers.
fn single(features: u64) -> Option<(Harness, Wire)> {
    let (taps, wire) = taps(1)?;
    let net = Net::new(options(taps)).unwrap();
    let features = net.identity().features & features | RING;
    Some((Harness::with(Box::new(net), features, Arena::new(16 << 20)), wire))
}

/// A frame to the guest with `length` bytes of payload that tell `seed`.
fn frame_to(destination: Mac, seed: u8, length: usize) -> Vec<u8> {
    let mut frame = [&destination[..], &[2, 0, 0, 0, 0, 9], &OUR_TYPE].concat();
    frame.extend((0..length).map(|at| (at / 7) as u8 ^ seed));
    frame
}

/// A frame from the guest.
fn frame_from(seed: u8, length: usize) -> Vec<u8> {
    let mut frame = frame_to([2, 0, 0, 0, 0, 9], seed, length);
    frame[6..12].copy_from_slice(&OUR_MAC);
    frame
}

fn give_buffers(harness: &mut Harness, queue: u16, count: usize, length: usize) {
    let driver = harness.driver(queue);
    for _ in 0..count {
        driver.add(&[], &[length]).unwrap();
    }
    driver.kick();
}

/// The next frame the guest gets, without its header, and in how many buffers it is.
fn received(harness: &mut Harness, queue: u16) -> (Vec<u8>, u16) {
    received_within(harness, queue, PATIENCE).expect("a frame comes")
}

fn received_within(harness: &mut Harness, queue: u16, timeout: Duration) -> Option<(Vec<u8>, u16)> {
    let driver = harness.driver(queue);
    let first = driver.wait_used(timeout)?;
    let mut data = first.data[..first.written as usize].to_vec();
    let count = u16::from_le_bytes([data[10], data[11]]);
    for _ in 1..count {
        let used = driver.wait_used(PATIENCE).unwrap();
        data.extend(&used.data[..used.written as usize]);
    }
    Some((data.split_off(12), count))
}

fn command(harness: &mut Harness, queue: u16, class: u8, number: u8, data: &[u8]) -> u8 {
    let head = [class, number];
    let parts: [&[u8]; 2] = [&head, data];
    let parts = if data.is_empty() { &parts[..1] } else { &parts[..] };
    let Reply { written, data } = harness.request(queue, parts, &[1]);
    assert_eq!(written, 1);
    data[0]
}

#[test]
fn frames_go_both_ways() {
    for features in [0, F_MRG_RXBUF] {
        let Some((mut harness, wire)) = single(features) else { return };
        give_buffers(&mut harness, 0, 4, 1526);
        for seed in 0..4 {
            let frame = frame_to(OUR_MAC, seed, 1500);
            wire.send([0; 10], &frame);
            assert_eq!(received(&mut harness, 0), (frame, 1));
        }
        let frame = frame_from(9, 300);
        harness.request(1, &[&HEADER, &frame[..14], &frame[14..]], &[]);
        assert_eq!(&wire.receive(PATIENCE).unwrap()[10..], frame);
    }
}

#[test]
fn long_frames_are_spread_over_small_buffers() {
    let Some((mut harness, wire)) = single(F_MRG_RXBUF) else { return };
    give_buffers(&mut harness, 0, 250, 100);
    // First unexpectedly long, then expected, then short with buffers left over, then long again.
    for (seed, length) in [(1, 1500), (2, 1500), (3, 46), (4, 1500), (5, 1400), (6, 46)] {
        let frame = frame_to(OUR_MAC, seed, length);
        wire.send([0; 10], &frame);
        let count = (12 + frame.len()).div_ceil(100) as u16;
        assert_eq!(received(&mut harness, 0), (frame, count));
    }
    // A header that does not fit one buffer is no reason to stop either.
    let Some((mut harness, wire)) = single(F_MRG_RXBUF) else { return };
    give_buffers(&mut harness, 0, 250, 7);
    let frame = frame_to(OUR_MAC, 7, 200);
    wire.send([0; 10], &frame);
    let driver = harness.driver(0);
    let mut all = Vec::new();
    while all.len() < 12 + frame.len() {
        let used = driver.wait_used(PATIENCE).unwrap();
        all.extend(&used.data[..used.written as usize]);
    }
    assert_eq!(all[12..], frame);
    assert_eq!(usize::from(u16::from_le_bytes([all[10], all[11]])), all.len().div_ceil(7));
}

#[test]
fn a_frame_is_not_dropped_because_a_turn_ends() {
    let Some((mut taps, wire)) = taps(1) else { return };
    let mut receive = Receive::new(Arc::new(taps.remove(0))).unwrap();
    let mut driver = Driver::new(1 << 20, 256, RING | F_MRG_RXBUF);
    let mut queue = Queue::new(&driver.setup(0, driver.state())).unwrap();
    let frame = frame_to(OUR_MAC, 1, 1500);
    wire.send([0; 10], &frame);
    let again = turn(&mut queue, |queue| {
        // All but one of the chains of this turn, which the driver makes available again.
        for _ in 0..255 {
            driver.add(&[], &[100]).unwrap();
            driver.publish();
            let chain = queue.pop()?.unwrap();
            queue.push(chain, 0);
            queue.flush();
            driver.take_used().unwrap();
        }
        for _ in 0..32 {
            driver.add(&[], &[100]).unwrap();
        }
        driver.publish();
        receive.run(queue)
    });
    assert_eq!(again, Ok(true));
    let used: Vec<_> = std::iter::from_fn(|| driver.take_used()).collect();
    let data: Vec<u8> = used.iter().flat_map(|used| &used.data[..used.written as usize]).copied().collect();
    assert_eq!(data[12..], frame);
}

#[test]
fn what_is_too_long_for_the_buffers_is_dropped_whole() {
    let Some((mut harness, wire)) = single(0) else { return };
    give_buffers(&mut harness, 0, 2, 200);
    wire.send([0; 10], &frame_to(OUR_MAC, 1, 1500));
    wire.send([0; 10], &frame_to(OUR_MAC, 2, 100));
    assert_eq!(received(&mut harness, 0), (frame_to(OUR_MAC, 2, 100), 1));
}

#[test]
fn reception_goes_on_after_tap_and_ring_were_both_full() {
    for features in [0, F_MRG_RXBUF] {
        let Some((mut harness, wire)) = single(features) else { return };
        give_buffers(&mut harness, 0, 1, 1526);
        // Far more than the TAP holds (txqueuelen is 1000).
        for _ in 0..3000 {
            wire.send([0; 10], &frame_to(OUR_MAC, 1, 1000));
        }
        received(&mut harness, 0);
        assert!(received_within(&mut harness, 0, A_WHILE).is_none(), "there was one buffer");
        harness.pause();
        // The host has kept some.
        for _ in 0..7 {
            give_buffers(&mut harness, 0, 64, 1526);
            for _ in 0..64 {
                received(&mut harness, 0);
            }
        }
        // And it still runs: there is room again, behind whatever else was kept.
        let last = frame_to(OUR_MAC, 5, 50);
        wire.send([0; 10], &last);
        loop {
            give_buffers(&mut harness, 0, 1, 1526);
            if received(&mut harness, 0) == (last.clone(), 1) {
                break;
            }
        }
    }
}

#[test]
fn a_pause_gives_back_buffers_that_wait() {
    let Some((mut harness, wire)) = single(F_MRG_RXBUF) else { return };
    give_buffers(&mut harness, 0, 64, 200);
    for seed in 0..4 {
        let frame = frame_to(OUR_MAC, seed, 1500);
        wire.send([0; 10], &frame);
        assert_eq!(received(&mut harness, 0).0, frame);
        harness.pause();
    }
}

#[test]
fn hostile_frames_are_dropped_and_the_device_lives() {
    let Some((mut harness, wire)) = single(u64::MAX) else { return };
    let frame = frame_from(1, 100);
    // flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers
    let header = |flags: u8, gso: u8, rest: [u16; 5]| {
        let mut header = vec![flags, gso];
        rest.iter().for_each(|field| header.extend(field.to_le_bytes()));
        header
    };
    let hostile = [
        header(1, 0, [0, 0, 60000, 60000, 0]),
        header(1, 0, [0, 0, u16::MAX, u16::MAX, 0]),
        header(1, 0, [0, 0, 113, 2, 0]),
        header(1, 1, [u16::MAX, 0, 34, 16, 0]),
        header(1, 1, [54, 0, 34, 16, 0]),
        header(0, 0x7f, [54, 1, 34, 16, 0]),
    ];
    for header in hostile {
        harness.request(1, &[&header, &frame], &[]);
    }
    for cut in [1, 9, 11, 12, 13] {
        let packet = [&HEADER[..], &frame].concat();
        harness.request(1, &[&packet[..cut]], &[]);
    }
    harness.request(1, &[&HEADER, &vec![0; 40_000], &vec![0; 40_000]], &[]);
    // One that only has room for an answer nobody gives.
    harness.request(1, &[], &[100]);

    // Of the others some may be on the wire.
    let frame = frame_from(2, 100);
    harness.request(1, &[&HEADER, &frame], &[]);
    while wire.receive(PATIENCE).expect("the last one is sent")[10..] != frame {}
}

#[test]
fn a_buffer_that_cannot_take_a_header_breaks_the_ring_until_a_reset() {
    let Some((mut harness, wire)) = single(0) else { return };
    give_buffers(&mut harness, 0, 1, 11);
    let end = Instant::now() + PATIENCE;
    while !harness.driver(0).is_broken() {
        assert!(Instant::now() < end, "the queue latches");
        std::thread::yield_now();
    }
    harness.reset();
    give_buffers(&mut harness, 0, 1, 1526);
    wire.send([0; 10], &frame_to(OUR_MAC, 1, 100));
    received(&mut harness, 0);
}

#[test]
fn segments_are_left_to_whoever_can() {
    let Some((mut harness, wire)) = single(u64::MAX) else { return };
    give_buffers(&mut harness, 0, 64, 4096);
    // An IPv4 TCP segment of many, its checksum not filled in: an offloaded frame to the guest.
    let mut frame = frame_to(OUR_MAC, 0, 20_000);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..34].copy_from_slice(&[0x45, 0, 0x4e, 0x20, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame[34..54].copy_from_slice(&[0, 9, 0, 9, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    // NEEDS_CSUM, TCPV4, hdr_len 54, gso_size 1448, csum_start 34, csum_offset 16.
    let header = [1, 1, 54, 0, 0xa8, 0x05, 34, 0, 16, 0];
    for _ in 0..2 {
        wire.send(header, &frame);
        let driver = harness.driver(0);
        let used = driver.wait_used(PATIENCE).unwrap();
        assert_eq!(used.data[0] & 1, 1, "the checksum is left to the guest");
        assert_eq!(used.data[1], 1, "the segment is whole");
        let count = u16::from_le_bytes([used.data[10], used.data[11]]);
        assert_eq!(usize::from(count), (12 + frame.len()).div_ceil(4096));
        let mut all = used.data;
        for _ in 1..count {
            let used = driver.wait_used(PATIENCE).unwrap();
            all.extend(&used.data[..used.written as usize]);
        }
        assert!(all[12..] == frame);
    }
    // A driver that takes no segments is sent none.
    harness.reset();
    let Some((mut harness, wire)) = single(F_MRG_RXBUF) else { return };
    give_buffers(&mut harness, 0, 64, 4096);
    wire.send(header, &frame);
    let (first, _) = received(&mut harness, 0);
    assert!(first.len() <= 1514, "{}", first.len());

    // And from the guest to the host.
    let Some((mut harness, wire)) = single(u64::MAX) else { return };
    let mut frame = frame_from(1, 20_000);
    frame[14..54].copy_from_slice(&[0; 40]);
    frame[12..14].copy_from_slice(&OUR_TYPE);
    harness.request(1, &[&HEADER, &frame], &[]);
    assert_eq!(wire.receive(PATIENCE).unwrap()[10..], frame, "as long as virtio allows");
}

#[test]
fn the_driver_chooses_what_it_hears() {
    let Some((mut harness, wire)) = single(u64::MAX) else { return };
    give_buffers(&mut harness, 0, 64, 1526);
    let stranger = [2, 9, 9, 9, 9, 9];
    let group = [0x33, 0x33, 0, 0, 0, 1];
    let hears = |harness: &mut Harness, destination: Mac| {
        let (frame, everybody) = (frame_to(destination, 1, 60), frame_to([0xff; 6], 2, 60));
        wire.send([0; 10], &frame);
        // Which is always heard.
        wire.send([0; 10], &everybody);
        let mut next = || {
            give_buffers(harness, 0, 1, 1526);
            received(harness, 0).0
        };
        let first = next();
        if first == everybody {
            return false;
        }
        assert_eq!((first, next()), (frame, everybody));
        true
    };
    assert!(hears(&mut harness, stranger), "before it has chosen, everything");
    assert_eq!(command(&mut harness, CONTROL, 0, 0, &[0]), 0);
    assert!(hears(&mut harness, OUR_MAC));
    assert!(hears(&mut harness, [0xff; 6]));
    assert!(!hears(&mut harness, stranger));
    assert!(!hears(&mut harness, group));

    assert_eq!(command(&mut harness, CONTROL, 0, 1, &[1]), 0);
    assert!(hears(&mut harness, group));
    assert_eq!(command(&mut harness, CONTROL, 0, 1, &[0]), 0);

    let table = [&[1, 0, 0, 0][..], &stranger, &[1, 0, 0, 0], &group].concat();
    assert_eq!(command(&mut harness, CONTROL, 1, 0, &table), 0);
    assert!(hears(&mut harness, stranger));
    assert!(hears(&mut harness, group));

    // More than are kept: rather too much than too little.
    let long = [&[200, 0, 0, 0][..], &[2; 1200], &[0; 4]].concat();
    assert_eq!(command(&mut harness, CONTROL, 1, 0, &long), 0);
    assert!(hears(&mut harness, [2, 1, 1, 1, 1, 1]));

    assert_eq!(command(&mut harness, CONTROL, 1, 0, &[0; 8]), 0);
    assert_eq!(command(&mut harness, CONTROL, 1, 1, &stranger), 0);
    assert_eq!(harness.config(0, 6), stranger);
    assert!(hears(&mut harness, stranger));
    assert!(!hears(&mut harness, OUR_MAC));

    harness.reset();
    assert_eq!(harness.config(0, 6), OUR_MAC);
    give_buffers(&mut harness, 0, 4, 1526);
    assert!(hears(&mut harness, stranger), "as at the start");
}

#[test]
fn bad_commands_are_refused() {
    let Some((mut harness, _wire)) = single(u64::MAX) else { return };
    let bad: [(u8, u8, &[u8]); 12] = [
        (0, 0, &[]),
        (0, 9, &[1]),
        (1, 0, &[255, 255, 255, 255, 0, 0, 0, 0]),
        (1, 0, &[1, 0, 0, 0, 1, 2, 3]),
        (1, 0, &[0, 0, 0, 0]),
        (1, 1, &[1, 2, 3]),
        (1, 1, &[1, 0, 0, 0, 0, 1]),
        (1, 1, &[0; 6]),
        (4, 0, &[1, 0]),
        (5, 0, &[255; 8]),
        (7, 7, &[]),
        (255, 255, &[0; 100]),
    ];
    for (class, number, data) in bad {
        assert_eq!(command(&mut harness, CONTROL, class, number, data), 1, "{class} {number} {data:?}");
    }
    assert_eq!(harness.request(CONTROL, &[&[0]], &[1]).bytes(), [1]);
    assert_eq!(harness.request(CONTROL, &[&[0, 0, 1]], &[]).written, 0);
    assert_eq!(harness.request(CONTROL, &[], &[1]).bytes(), [1]);
}

#[test]
fn queues_come_in_pairs_and_are_used_when_the_driver_says_so() {
    let Some((taps, wire)) = taps(3) else { return };
    let net = Net::new(options(taps)).unwrap();
    assert_eq!(net.identity().queue_sizes.len(), 7);
    let features = net.identity().features;
    assert_ne!(features & F_MQ, 0);
    let mut harness = Harness::new(net);
    assert_eq!(harness.config(8, 2), [3, 0]);
    let control = 6;
    for queue in [0, 2, 4] {
        give_buffers(&mut harness, queue, 100, 1526);
    }
    let flows = |harness: &mut Harness| {
        for seed in 0..64 {
            // The kernel chooses a queue by a hash over addresses and ports.
            let mut frame = frame_to(OUR_MAC, seed, 60);
            frame[12..34]
                .copy_from_slice(&[8, 0, 0x45, 0, 0, 60, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            frame[34..36].copy_from_slice(&[0, seed]);
            wire.send([0; 10], &frame);
        }
        let (mut counts, end) = ([0; 3], Instant::now() + PATIENCE);
        while counts.iter().sum::<i32>() < 64 {
            assert!(Instant::now() < end, "{counts:?}");
            for (count, queue) in counts.iter_mut().zip([0, 2, 4]) {
                while received_within(harness, queue, Duration::from_millis(1)).is_some() {
                    give_buffers(harness, queue, 1, 1526);
                    *count += 1;
                }
            }
        }
        counts
    };
    assert_eq!(flows(&mut harness), [64, 0, 0]);
    for bad in [0u16, 4, 0xffff] {
        assert_eq!(command(&mut harness, control, 4, 0, &bad.to_le_bytes()), 1);
    }
    assert_eq!(command(&mut harness, control, 4, 0, &[3, 0]), 0);
    let spread = flows(&mut harness);
    assert_eq!(spread.iter().sum::<i32>(), 64);
    assert!(spread.iter().filter(|&&count| count > 0).count() > 1, "{spread:?}");
    harness.request(5, &[&HEADER, &frame_from(1, 80)], &[]);
    assert!(wire.receive(PATIENCE).is_some());
    assert_eq!(command(&mut harness, control, 4, 0, &[1, 0]), 0);
    assert_eq!(flows(&mut harness), [64, 0, 0]);
    // What a queue that rests is given goes nowhere.
    harness.request(5, &[&HEADER, &frame_from(1, 80)], &[]);
    assert_eq!(command(&mut harness, control, 4, 0, &[2, 0]), 0);
    harness.reset();
    give_buffers(&mut harness, 0, 100, 1526);
    give_buffers(&mut harness, 2, 100, 1526);
    give_buffers(&mut harness, 4, 100, 1526);
    assert_eq!(flows(&mut harness), [64, 0, 0]);
}

#[test]
fn without_several_queues_the_control_queue_is_the_third() {
    let Some((taps, _wire)) = taps(2) else { return };
    let net = Net::new(options(taps)).unwrap();
    let features = net.identity().features & !F_MQ | RING;
    let mut harness = Harness::with(Box::new(net), features, Arena::new(16 << 20));
    assert_eq!(command(&mut harness, CONTROL, 0, 0, &[1]), 0);
    assert_eq!(command(&mut harness, CONTROL, 4, 0, &[1, 0]), 1, "it was not negotiated");
}

#[test]
fn the_link_tells_of_itself() {
    let Some((taps, _wire)) = taps(1) else { return };
    let net = Net::new(options(taps)).unwrap();
    let link = net.link();
    let mut harness = Harness::new(net);
    assert_eq!(harness.config(0, 12), [&OUR_MAC[..], &[1, 0, 1, 0, 0xdc, 5]].concat());
    link.set_up(false);
    assert!(harness.config_changed());
    assert_eq!(harness.config(6, 2), [0, 0]);
    link.set_up(true);
    link.announce();
    assert_eq!(harness.config(6, 2), [3, 0]);
    assert_eq!(command(&mut harness, CONTROL, 3, 0, &[]), 0);
    assert_eq!(harness.config(6, 2), [1, 0]);
}

#[test]
fn only_a_usable_tap_is_taken() {
    assert!(matches!(Tap::from_fd(File::open("/dev/null").unwrap().into()), Err(TapError::NotATap(_))));
    for name in ["", "a/b", "sixteen-letters-", "nul\0"] {
        assert!(matches!(Tap::open(name, 1), Err(TapError::Name(_))), "{name:?}");
    }
    let Some((mut one, _wire)) = taps(1) else { return };
    assert!(!one[0].is_multi_queue());
    assert!(matches!(Net::new(options(Vec::new())), Err(NetError::Pairs(0))));
    one.extend(Tap::open("other%d", 1).unwrap());
    assert!(matches!(Net::new(options(one)), Err(NetError::DifferentTaps(..))));
    let bad = |mac, mtu| Net::new(NetOptions { taps: Tap::open("more%d", 1).unwrap(), mac, mtu }).err();
    assert!(matches!(bad([1, 0, 0, 0, 0, 1], None), Some(NetError::Mac(_))));
    assert!(matches!(bad([0; 6], None), Some(NetError::Mac(_))));
    assert!(matches!(bad(OUR_MAC, Some(67)), Some(NetError::Mtu(67))));
    assert!(bad(OUR_MAC, Some(68)).is_none());
}
