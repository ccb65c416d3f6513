//! A network device at work allocates nothing. Alone in its binary, because it counts for the whole
//! process.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod counting;
#[path = "../src/net/tests/wire.rs"]
mod wire;

use parador_devices::net::tap::Tap;
use parador_devices::net::{Mac, Net, NetOptions};
use parador_virtio::testing::{Harness, PATIENCE};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

const OUR_MAC: Mac = [0x52, 0x54, 0, 1, 2, 3];
const OUR_TYPE: [u8; 2] = [0x88, 0xb5];

/// Short and long frames to the guest, and from it.
fn round(harness: &mut Harness, wire: &wire::Wire, frames: &[Vec<u8>]) {
    let driver = harness.driver(0);
    while driver.in_flight() < 60 {
        driver.add(&[], &[700]).unwrap();
    }
    driver.kick();
    for frame in frames {
        wire.send([0; 10], frame);
        let driver = harness.driver(0);
        for _ in 0..(12 + frame.len()).div_ceil(700) {
            driver.wait_used(PATIENCE).unwrap();
        }
        // The same back, from and to where it came.
        harness.request(1, &[&[0; 12], &frame[6..12], &frame[..6], &frame[12..]], &[]);
        assert!(wire.receive(PATIENCE).is_some());
    }
}

#[test]
fn no_frame_allocates() {
    counting::leave_out_this_thread();
    if !wire::enter_namespace() {
        return;
    }
    let taps = Tap::open("test%d", 1).unwrap();
    let wire = wire::Wire::new(taps[0].name());
    let mut harness = Harness::new(Net::new(NetOptions { taps, mac: OUR_MAC, mtu: None }).unwrap());
    let frame = |length| [&OUR_MAC[..], &[2, 0, 0, 0, 0, 9], &OUR_TYPE, &vec![7; length]].concat();
    let frames = [50, 1500, 600, 60, 700, 1400].map(frame);
    (0..20).for_each(|_| round(&mut harness, &wire, &frames));
    let before = counting::allocations();
    (0..100).for_each(|_| round(&mut harness, &wire, &frames));
    assert_eq!(counting::allocations() - before, 0);
    // The count counts: what another thread allocates is seen.
    std::thread::spawn(|| drop(std::hint::black_box(vec![1]))).join().unwrap();
    assert!(counting::allocations() > before);
}
