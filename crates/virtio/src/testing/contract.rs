//! What every device owes to whoever drives it, in one check.

use super::{Arena, Driver};
use crate::ids::VIRTIO_F_VERSION_1;
use crate::{Interrupt, QueueState, VirtioDevice};

/// Feature bits that are a device's own (virtio 1.3 §6): 0 to 23, and 50 up.
const OWN_FEATURES: u64 = ((1 << 24) - 1) | !((1 << 50) - 1);

/// Holds a device that nobody drives against [`VirtioDevice`]: what it says of itself, its
/// configuration space, and starting, stopping and resetting its queues without any request.
/// Leaves it as it was after creation.
///
/// # Panics
/// The device breaks the contract.
pub fn check_contract(device: &mut dyn VirtioDevice) {
    check_identity(device);
    device.on_config_change(Interrupt::nobody());
    check_config(device);
    let features = device.identity().features | VIRTIO_F_VERSION_1;
    let arena = Arena::new(16 << 20);
    let sizes = device.identity().queue_sizes.clone();
    let queues: Vec<(u16, Driver)> =
        (0..).zip(sizes.iter().map(|size| Driver::on(&arena, (*size).min(256), features))).collect();
    for (index, driver) in &queues {
        check_queue(device, *index, driver);
    }
    // All at once, in any order, again after a reset.
    for reset in [false, true] {
        for (index, driver) in queues.iter().rev() {
            start(device, *index, driver);
        }
        for (index, _) in &queues {
            assert!(device.stop_queue(*index).is_some(), "queue {index} stops");
        }
        if reset {
            device.reset();
        }
    }
    check_identity(device);
}

fn check_identity(device: &dyn VirtioDevice) {
    let identity = device.identity();
    assert_ne!(identity.kind, 0, "type 0 is reserved");
    assert_eq!(identity.features & !OWN_FEATURES, 0, "ring and transport features are not a device's own");
    assert_eq!(identity.required & !identity.features, 0, "what is required is offered");
    assert!(!identity.queue_sizes.is_empty(), "a device has queues");
    let good = |size: &u16| size.is_power_of_two() && *size <= 32768;
    assert!(identity.queue_sizes.iter().all(good), "sizes are powers of two: {:?}", identity.queue_sizes);
}

/// Reads the configuration space in pieces and beyond its end, and writes rubbish to it.
fn check_config(device: &mut dyn VirtioDevice) {
    let len = device.identity().config_len;
    let mut whole = vec![UNREAD; len + 16];
    device.read_config(0, &mut whole);
    assert!(whole[len..].iter().all(|byte| *byte == 0), "beyond the configuration space are zeroes");
    for width in [1, 2, 4, 8] {
        for offset in 0..len + 8 {
            let mut piece = [UNREAD; 8];
            device.read_config(offset, &mut piece[..width]);
            let end = whole.len().min(offset + width);
            assert_eq!(piece[..end - offset], whole[offset..end], "{width} bytes at {offset}");
        }
    }
    for offset in [len, len + 1, 4096, usize::MAX - 3, usize::MAX] {
        let mut piece = [UNREAD; 8];
        device.read_config(offset, &mut piece);
        assert_eq!(piece, [0; 8], "beyond the configuration space are zeroes, at {offset} too");
        device.write_config(offset, &[0xff; 8]);
    }
    for width in 0..=8 {
        for offset in 0..len + 8 {
            device.write_config(offset, &[0x5a; 8][..width]);
        }
    }
    device.reset();
    let mut after = vec![UNREAD; len];
    device.read_config(0, &mut after);
    assert_eq!(after, whole[..len], "a reset brings the configuration back");
}

/// What a byte that was not filled in looks like.
const UNREAD: u8 = 0xee;

fn check_queue(device: &mut dyn VirtioDevice, index: u16, driver: &Driver) {
    assert_eq!(device.stop_queue(index), None, "queue {index} does not run yet");
    let mut nowhere = driver.setup(index, QueueState::default());
    nowhere.layout.used = 1 << 52;
    assert!(device.start_queue(nowhere).is_err(), "queue {index} does not start outside memory");
    assert_eq!(device.stop_queue(index), None, "a queue that was refused does not run");
    for _ in 0..2 {
        start(device, index, driver);
        assert_eq!(device.stop_queue(index), Some(QueueState::default()), "queue {index} is where it was");
        assert_eq!(device.stop_queue(index), None, "a queue stops once");
    }
}

fn start(device: &mut dyn VirtioDevice, index: u16, driver: &Driver) {
    let started = device.start_queue(driver.setup(index, QueueState::default()));
    started.unwrap_or_else(|error| unreachable!("queue {index} starts: {error}"));
}
