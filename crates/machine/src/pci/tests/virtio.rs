//! A virtio function driven register by register.

use parador_virtio::{QueueLayout, ids};

use crate::pci::MsiMessage;
use crate::pci::testing::{
    Guest, PciDriver, STATUS_DRIVER_OK, STATUS_FEATURES_OK, STATUS_NEEDS_RESET, Strict, Watch,
};

const RING_RESET: u64 = 1 << 40;
pub(super) const LAYOUT: QueueLayout =
    QueueLayout { size: 16, descriptors: 0, available: 0x1000, used: 0x2000 };

pub(super) fn strict() -> (Guest, PciDriver, Watch) {
    let mut guest = Guest::new();
    let (device, watch) = Strict::new();
    let address = guest.root.attach_virtio(Box::new(device), None).unwrap();
    let driver = PciDriver::probe(&mut guest, address);
    (guest, driver, watch)
}

/// With queue 1 running and `features` agreed.
pub(super) fn started(features: u64) -> (Guest, PciDriver, Watch) {
    let (mut guest, driver, watch) = strict();
    assert!(driver.negotiate(&mut guest, features));
    driver.enable_queue(&mut guest, 1, &LAYOUT, 0xFFFF);
    driver.driver_ok(&mut guest);
    assert_eq!(watch.running(), [1]);
    (guest, driver, watch)
}

pub(super) const NEEDED: u64 = ids::VIRTIO_F_VERSION_1 | 1;

#[test]
fn the_transport_adds_its_features() {
    let (mut guest, driver, _) = strict();
    let transport = ids::VIRTIO_F_INDIRECT_DESC | ids::VIRTIO_F_EVENT_IDX | ids::VIRTIO_F_VERSION_1;
    assert_eq!(driver.offered(&mut guest), 0xF | transport | RING_RESET);
    for select in [2u32, 3, 0xFFFF_FFFF] {
        driver.write(&mut guest, 0, &select.to_le_bytes());
        assert_eq!(driver.read::<4>(&mut guest, 4), [0; 4]);
    }
}

#[test]
fn features_are_agreed_or_refused() {
    let (mut guest, driver, _) = strict();
    assert!(driver.negotiate(&mut guest, NEEDED));
    assert!(driver.negotiate(&mut guest, NEEDED | 0xE | RING_RESET));
    assert!(!driver.negotiate(&mut guest, 1), "VERSION_1 is needed");
    assert!(!driver.negotiate(&mut guest, ids::VIRTIO_F_VERSION_1), "the device needs bit 0");
    assert!(!driver.negotiate(&mut guest, NEEDED | 1 << 4), "bit 4 is not offered");
    assert!(!driver.negotiate(&mut guest, NEEDED | 1 << 63));
    assert!(!driver.negotiate(&mut guest, NEEDED | 1 << 33), "ACCESS_PLATFORM is not offered");

    // A refused driver cannot go on, and one that corrects itself can.
    driver.driver_ok(&mut guest);
    assert_eq!(driver.status(&mut guest), 3);
    driver.write(&mut guest, 8, &[1, 0, 0, 0]);
    driver.write(&mut guest, 12, &[1, 0, 0, 0]);
    driver.write(&mut guest, 0x14, &[3 | STATUS_FEATURES_OK]);
    assert_eq!(driver.status(&mut guest), 3 | STATUS_FEATURES_OK);
    // What is agreed stays agreed.
    driver.write(&mut guest, 12, &[0, 0, 0, 0]);
    assert_eq!(driver.read::<4>(&mut guest, 12), [1, 0, 0, 0]);
}

#[test]
fn a_bit_beyond_all_that_is_known_is_refused() {
    let (mut guest, driver, _) = strict();
    driver.negotiate(&mut guest, 0);
    for (select, value) in [(0u8, 1u8), (1, 1), (2, 4)] {
        driver.write(&mut guest, 8, &[select, 0, 0, 0]);
        driver.write(&mut guest, 12, &[value, 0, 0, 0]);
    }
    driver.write(&mut guest, 0x14, &[11]);
    assert_eq!(driver.status(&mut guest), 3);
    driver.write(&mut guest, 12, &[0; 4]);
    driver.write(&mut guest, 0x14, &[11]);
    assert_eq!(driver.status(&mut guest), 11);
}

#[test]
fn status_bits_come_in_order_and_only_a_reset_takes_them_away() {
    let (mut guest, driver, _) = strict();
    driver.write(&mut guest, 0x14, &[STATUS_DRIVER_OK]);
    assert_eq!(driver.status(&mut guest), 0, "not before FEATURES_OK");
    driver.write(&mut guest, 0x14, &[STATUS_FEATURES_OK]);
    assert_eq!(driver.status(&mut guest), 0, "not before DRIVER");
    driver.write(&mut guest, 0x14, &[0x30 | STATUS_NEEDS_RESET]);
    assert_eq!(driver.status(&mut guest), 0, "not the driver's bits");
    let (mut guest, driver, watch) = started(NEEDED);
    driver.write(&mut guest, 0x14, &[1]);
    assert_eq!(driver.status(&mut guest), 15);
    driver.write(&mut guest, 0x14, &[0x80]);
    assert_eq!(driver.status(&mut guest), 0x8F);
    driver.write(&mut guest, 0x14, &[0]);
    assert_eq!(driver.status(&mut guest), 0);
    assert_eq!((watch.running(), watch.starts_and_resets()), (vec![], (1, 2)));
}

// CVE-2026-5747: the size of a queue changed after the device had checked it.
#[test]
fn registers_of_a_queue_in_use_do_not_change() {
    let (mut guest, driver, watch) = started(NEEDED);
    for queue in [0u16, 1, 2] {
        driver.write(&mut guest, 0x16, &queue.to_le_bytes());
        let before = driver.read::<38>(&mut guest, 0x16);
        for (offset, width) in [(0x18, 2), (0x1C, 2), (0x1E, 2), (0x20, 8), (0x28, 8), (0x30, 8), (0x3A, 2)] {
            for value in [0u64, 1, 2, 0xFFFF, u64::MAX] {
                driver.write(&mut guest, offset, &value.to_le_bytes()[..width]);
            }
        }
        assert_eq!(driver.read::<38>(&mut guest, 0x16), before);
    }
    assert_eq!((watch.running(), watch.starts_and_resets().0), (vec![1], 1));
}

#[test]
fn a_queue_is_fixed_once_it_is_enabled() {
    let (mut guest, driver, watch) = strict();
    assert!(driver.negotiate(&mut guest, NEEDED));
    driver.enable_queue(&mut guest, 1, &LAYOUT, 0xFFFF);
    driver.write(&mut guest, 0x18, &[4, 0]);
    driver.write(&mut guest, 0x20, &[0xFF; 8]);
    driver.write(&mut guest, 0x1C, &[0, 0]);
    driver.driver_ok(&mut guest);
    watch.setup(1, |setup| assert_eq!(setup.layout, LAYOUT));
}

#[test]
fn sizes_that_cannot_be_are_not_taken() {
    let (mut guest, driver, _) = strict();
    driver.write(&mut guest, 0x16, &[1, 0]);
    for size in [0u16, 3, 17, 32, 0xFFFF] {
        driver.write(&mut guest, 0x18, &size.to_le_bytes());
        assert_eq!(driver.read::<2>(&mut guest, 0x18), [16, 0]);
    }
    driver.write(&mut guest, 0x18, &[8, 0]);
    assert_eq!(driver.read::<2>(&mut guest, 0x18), [8, 0]);
}

#[test]
fn a_queue_that_is_not_there_reads_zero_and_takes_nothing() {
    let (mut guest, driver, watch) = strict();
    assert!(driver.negotiate(&mut guest, NEEDED | RING_RESET));
    driver.driver_ok(&mut guest);
    for queue in [3u16, 4, 0x7FFF, 0x8000, 0xFFFF] {
        driver.write(&mut guest, 0x16, &queue.to_le_bytes());
        for offset in 0x18..0x40 {
            driver.write(&mut guest, offset, &[1]);
            assert_eq!(driver.read::<1>(&mut guest, offset), [0], "queue {queue}, offset {offset:#x}");
        }
        driver.notify(&mut guest, queue);
        guest.write(driver.notify + u64::from(queue % 1024) * 4, &[1, 0]);
    }
    assert!(watch.running().is_empty());
}

#[test]
fn registers_take_any_width_at_any_offset() {
    let (mut guest, driver, _) = strict();
    assert!(driver.negotiate(&mut guest, NEEDED));
    let mut select_and_size = [0; 8];
    select_and_size[2] = 2; // queue_select, behind status and generation
    select_and_size[0] = 11;
    select_and_size[4..6].copy_from_slice(&512u16.to_le_bytes());
    select_and_size[6..].copy_from_slice(&0xFFFFu16.to_le_bytes());
    driver.write(&mut guest, 0x14, &select_and_size);
    assert_eq!(driver.read::<2>(&mut guest, 0x16), [2, 0]);
    assert_eq!(driver.read::<2>(&mut guest, 0x18), 512u16.to_le_bytes());
    driver.write(&mut guest, 0x20, &0x1122_3344_5566_7788u64.to_le_bytes());
    driver.write(&mut guest, 0x23, &[0xAA, 0xBB]);
    assert_eq!(driver.read::<8>(&mut guest, 0x20), 0x1122_33BB_AA66_7788u64.to_le_bytes());
    assert_eq!(driver.read::<4>(&mut guest, 0x26), [0x22, 0x11, 0, 0]);
    driver.write(&mut guest, 0x26, &[1, 2, 3, 4]);
    assert_eq!(driver.read::<4>(&mut guest, 0x26), [1, 2, 3, 4]);
    assert_eq!(driver.read::<8>(&mut guest, 0x3C), [0; 8], "beyond the end there is nothing");
}

#[test]
fn a_ring_outside_memory_stops_the_start() {
    let (mut guest, driver, watch) = strict();
    assert!(driver.negotiate(&mut guest, NEEDED));
    driver.enable_queue(&mut guest, 0, &LAYOUT, 0xFFFF);
    for outside in [
        QueueLayout { descriptors: 1 << 30, ..LAYOUT },
        QueueLayout { available: u64::MAX - 1, ..LAYOUT },
        QueueLayout { used: (4 << 20) - 4, ..LAYOUT },
        QueueLayout { descriptors: 8, ..LAYOUT },
    ] {
        assert!(driver.negotiate(&mut guest, NEEDED));
        driver.enable_queue(&mut guest, 0, &LAYOUT, 0xFFFF);
        driver.enable_queue(&mut guest, 1, &outside, 0xFFFF);
        driver.driver_ok(&mut guest);
        assert_eq!(driver.status(&mut guest), 15 | STATUS_NEEDS_RESET);
        assert!(watch.running().is_empty(), "none runs if one cannot");
    }
    assert!(driver.negotiate(&mut guest, NEEDED));
    driver.enable_queue(&mut guest, 1, &LAYOUT, 0xFFFF);
    driver.driver_ok(&mut guest);
    assert_eq!((driver.status(&mut guest), watch.running()), (15, vec![1]));
}

#[test]
fn a_broken_ring_is_announced_and_a_reset_helps() {
    let (mut guest, driver, watch) = strict();
    driver.set_msix(&mut guest, true, false);
    let message = MsiMessage { address: 0xFEE0_0000, data: 0x40 };
    driver.set_vector(&mut guest, 0, message, false);
    assert!(driver.negotiate(&mut guest, NEEDED));
    driver.write(&mut guest, 0x10, &[0, 0]);
    driver.enable_queue(&mut guest, 1, &LAYOUT, 1);
    driver.driver_ok(&mut guest);
    watch.break_rings();
    assert_eq!(driver.status(&mut guest), 15 | STATUS_NEEDS_RESET);
    assert_eq!(guest.host.take_interrupts(), [message]);
    watch.break_rings();
    assert_eq!(guest.host.take_interrupts(), [], "said once");
    assert!(driver.negotiate(&mut guest, NEEDED));
    assert_eq!(driver.read::<2>(&mut guest, 0x10), [0xFF; 2], "vectors are unmapped by a reset");
    assert_eq!(driver.status(&mut guest), 11);
}

#[test]
fn one_queue_is_reset_and_set_up_again() {
    let (mut guest, driver, watch) = started(NEEDED | RING_RESET);
    driver.write(&mut guest, 0x16, &[1, 0]);
    driver.write(&mut guest, 0x3A, &[1, 0]);
    assert!(watch.running().is_empty());
    assert_eq!(driver.read::<2>(&mut guest, 0x3A), [0, 0]);
    assert_eq!(driver.read::<2>(&mut guest, 0x1C), [0, 0]);
    let layout = QueueLayout { size: 4, descriptors: 0x4000, available: 0x5000, used: 0x6000 };
    driver.enable_queue(&mut guest, 1, &layout, 0xFFFF);
    watch.setup(1, |setup| assert_eq!(setup.layout, layout));
    assert_eq!(guest.host.kicks(), [driver.notify + 4]);
    // Queue 0 was not enabled before DRIVER_OK, nor reset: it stays as it is.
    driver.enable_queue(&mut guest, 0, &layout, 0xFFFF);
    assert_eq!(watch.running(), [1]);
}

#[test]
fn the_device_configuration_is_read_and_written_within_its_length() {
    let (mut guest, driver, _) = strict();
    assert_eq!(guest.load::<4>(driver.device + 16), [17, 18, 19, 20]);
    assert_eq!(guest.load::<8>(driver.device + 16), [17, 18, 19, 20, 0, 0, 0, 0]);
    guest.write(driver.device + 18, &[7; 8]);
    assert_eq!(guest.load::<8>(driver.device + 16), [17, 18, 7, 7, 0, 0, 0, 0]);
    guest.write(driver.device + 20, &[7; 8]);
    assert_eq!(guest.load::<8>(driver.device + 20), [0; 8]);
    driver.write(&mut guest, 0x14, &[0]);
    assert_eq!(guest.load::<4>(driver.device + 16), [17, 18, 19, 20], "a reset is the device's too");
}

#[test]
fn the_window_in_configuration_space_reaches_the_bar() {
    let (mut guest, driver, _) = strict();
    let (address, cap) = (driver.address(), driver.pci_cfg);
    guest.set_config(address, 4, &[0, 0]); // it works before BARs do
    let point = |guest: &mut Guest, bar: u8, offset: u32, length: u32| {
        guest.set_config(address, cap + 4, &[bar]);
        guest.set_config(address, cap + 8, &offset.to_le_bytes());
        guest.set_config(address, cap + 12, &length.to_le_bytes());
    };
    point(&mut guest, 0, 0x12, 2);
    assert_eq!(guest.config::<4>(address, cap + 16), [3, 0, 0, 0]);
    point(&mut guest, 0, 0x14, 1);
    guest.set_config(address, cap + 16, &[3]);
    assert_eq!(guest.config::<1>(address, cap + 16), [3]);
    guest.set_config(address, 4, &[2, 0]);
    assert_eq!(driver.status(&mut guest), 3);
    for (bar, offset, length) in
        [(1, 0, 4), (0, 2, 4), (0, 0x8000, 1), (0, 0xFFFF_FFFC, 4), (0, 0, 3), (0, 0, 8)]
    {
        point(&mut guest, bar, offset, length);
        guest.set_config(address, cap + 16, &[0xEE; 4]);
        assert_eq!(guest.config::<4>(address, cap + 16), [0xEE; 4], "no access, just a register");
    }
    assert_eq!(driver.status(&mut guest), 3);
}

#[test]
fn kicks_follow_the_bar() {
    let (mut guest, driver, watch) = started(NEEDED);
    let kicked = |watch: &Watch| watch.setup(1, |setup| setup.kick.as_ref().unwrap().read().is_ok());
    assert_eq!(guest.host.kicks(), [driver.notify + 4]);
    driver.notify(&mut guest, 1);
    assert!(kicked(&watch));
    guest.set_config(driver.address(), 0x10, &0xC010_0000u32.to_le_bytes());
    let moved = 0xC010_0000 + (driver.notify - driver.bar) + 4;
    assert_eq!(guest.host.kicks(), [moved]);
    guest.write(moved, &[1, 0]);
    assert!(kicked(&watch));
    for outside in [0x1000u32, 0xFEE0_0000] {
        guest.set_config(driver.address(), 0x10, &outside.to_le_bytes());
        assert!(guest.host.kicks().is_empty(), "not over somebody else's registers");
    }
    guest.set_config(driver.address(), 0x10, &(driver.bar as u32).to_le_bytes());
    guest.set_config(driver.address(), 4, &[0, 0]);
    assert!(guest.host.kicks().is_empty());
    guest.set_config(driver.address(), 4, &[2, 0]);
    assert_eq!(guest.host.kicks(), [driver.notify + 4]);
}

#[test]
fn a_driver_that_resets_costs_the_host_little() {
    let (mut guest, driver, watch) = started(NEEDED);
    let _ = guest.host.take_calls();
    for _ in 0..3 {
        driver.write(&mut guest, 0x14, &[0]);
        driver.notify(&mut guest, 1); // nobody is there
        assert!(driver.negotiate(&mut guest, NEEDED));
        driver.enable_queue(&mut guest, 1, &LAYOUT, 0xFFFF);
        driver.driver_ok(&mut guest);
        assert_eq!(watch.running(), [1]);
    }
    assert_eq!((guest.host.take_calls(), guest.host.kicks()), (0, vec![driver.notify + 4]));
    // As a kernel that was started by another one: it measures BARs of a device that is decoding.
    driver.write(&mut guest, 0x14, &[0]);
    for _ in 0..7 {
        guest.set_config(driver.address(), 4, &[0, 0]);
        guest.set_config(driver.address(), 4, &[2, 0]);
    }
    assert_eq!((guest.host.take_calls(), guest.host.kicks()), (1, vec![]));
    assert!(driver.negotiate(&mut guest, NEEDED));
    driver.enable_queue(&mut guest, 1, &LAYOUT, 0xFFFF);
    driver.driver_ok(&mut guest);
    assert_eq!(guest.host.kicks(), [driver.notify + 4]);
    guest.root.reset();
    assert!(guest.host.kicks().is_empty());
}

#[test]
fn without_ioeventfds_kicks_come_by_hand() {
    let (mut guest, driver, watch) = strict();
    guest.host.refuse_kicks(true);
    assert!(driver.negotiate(&mut guest, NEEDED));
    driver.enable_queue(&mut guest, 1, &LAYOUT, 0xFFFF);
    driver.notify(&mut guest, 1); // too early: nobody is there
    driver.driver_ok(&mut guest);
    watch.setup(1, |setup| assert!(setup.kick.as_ref().unwrap().read().is_err()));
    driver.notify(&mut guest, 1);
    watch.setup(1, |setup| assert_eq!(setup.kick.as_ref().unwrap().read().unwrap(), 1));
    driver.notify(&mut guest, 0);
    watch.setup(1, |setup| assert!(setup.kick.as_ref().unwrap().read().is_err()));
}
