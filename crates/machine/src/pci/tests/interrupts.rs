//! MSI-X: routes, masks, pending bits, and what is mapped to which vector.

use parador_virtio::QueueLayout;

use crate::pci::MsiMessage;
use crate::pci::testing::{Guest, PciDriver, Strict, Watch};

const NO_VECTOR: u16 = 0xFFFF;

fn message(data: u32) -> MsiMessage {
    MsiMessage { address: 0xFEE0_1000, data }
}

/// A device whose queue 1 runs, mapped to vector 1, changes to vector 0. All masked, as at reset.
fn running() -> (Guest, PciDriver, Watch) {
    let mut guest = Guest::new();
    let (device, watch) = Strict::new();
    let address = guest.root.attach_virtio(Box::new(device), None).unwrap();
    let driver = PciDriver::probe(&mut guest, address);
    driver.set_msix(&mut guest, true, false);
    let offered = driver.offered(&mut guest);
    assert!(driver.negotiate(&mut guest, offered));
    driver.write(&mut guest, 0x10, &[0, 0]);
    let layout = QueueLayout { size: 16, descriptors: 0, available: 0x1000, used: 0x2000 };
    assert_eq!(driver.enable_queue(&mut guest, 1, &layout, 1), 1);
    driver.driver_ok(&mut guest);
    (guest, driver, watch)
}

#[test]
fn a_vector_delivers_the_message_in_its_entry() {
    let (mut guest, driver, watch) = running();
    driver.set_vector(&mut guest, 0, message(0x40), false);
    driver.set_vector(&mut guest, 1, message(0x41), false);
    watch.call();
    assert_eq!(guest.host.take_interrupts(), [message(0x41)]);
    assert!(watch.change_config());
    assert_eq!(guest.host.take_interrupts(), [message(0x40)]);
    driver.set_vector(&mut guest, 1, MsiMessage { address: 0x1_FEE0_2000, data: 0x51 }, false);
    watch.call();
    assert_eq!(guest.host.take_interrupts(), [MsiMessage { address: 0x1_FEE0_2000, data: 0x51 }]);
    // Changed without a mask, which the specification leaves open.
    guest.write(driver.table + 16 + 8, &[0x61]);
    watch.call();
    assert_eq!(guest.host.take_interrupts(), [MsiMessage { address: 0x1_FEE0_2000, data: 0x61 }]);
    assert_eq!(guest.host.lines(), (2, 2), "only vectors in use cost anything");
}

#[test]
fn what_comes_in_while_masked_is_pending_and_delivered_once() {
    let (mut guest, driver, watch) = running();
    driver.set_vector(&mut guest, 1, message(0x41), false);
    driver.mask_vector(&mut guest, 1, true);
    assert!(!driver.is_pending(&mut guest, 1));
    watch.call();
    watch.call();
    assert_eq!(guest.host.take_interrupts(), []);
    assert!(driver.is_pending(&mut guest, 1));
    assert!(driver.is_pending(&mut guest, 1), "reading does not clear it");
    assert!(!driver.is_pending(&mut guest, 0));
    driver.mask_vector(&mut guest, 1, false);
    assert_eq!(guest.host.take_interrupts(), [message(0x41)]);
    assert!(!driver.is_pending(&mut guest, 1));
    driver.mask_vector(&mut guest, 1, true);
    driver.mask_vector(&mut guest, 1, false);
    assert_eq!(guest.host.take_interrupts(), [], "delivered once");
    // The same without a look at the pending bits.
    driver.mask_vector(&mut guest, 1, true);
    watch.call();
    driver.mask_vector(&mut guest, 1, false);
    assert_eq!(guest.host.take_interrupts(), [message(0x41)]);
    driver.mask_vector(&mut guest, 1, true);
    assert!(!driver.is_pending(&mut guest, 1), "nothing is left of it");
    driver.mask_vector(&mut guest, 1, false);
    assert_eq!(guest.host.take_interrupts(), []);
}

#[test]
fn the_function_masks_all_vectors() {
    let (mut guest, driver, watch) = running();
    driver.set_vector(&mut guest, 1, message(0x41), false);
    for (enabled, masked) in [(true, true), (false, false)] {
        driver.set_msix(&mut guest, enabled, masked);
        assert_eq!(guest.host.lines().1, 0);
        watch.call();
        assert_eq!(guest.host.take_interrupts(), []);
        assert!(driver.is_pending(&mut guest, 1));
        driver.set_msix(&mut guest, true, false);
        assert_eq!(guest.host.take_interrupts(), [message(0x41)]);
    }
}

#[test]
fn a_vector_that_is_not_there_reads_back_as_none() {
    let (mut guest, driver, watch) = running();
    assert_eq!(driver.vectors, 4);
    for vector in [4u16, 5, 0x7FF, 0x800, 0xFFFE, NO_VECTOR] {
        driver.write(&mut guest, 0x10, &vector.to_le_bytes());
        assert_eq!(driver.read::<2>(&mut guest, 0x10), [0xFF; 2]);
        driver.write(&mut guest, 0x1A, &vector.to_le_bytes());
        assert_eq!(driver.read::<2>(&mut guest, 0x1A), [0xFF; 2]);
    }
    watch.call();
    assert!(watch.change_config());
    assert_eq!(guest.host.take_interrupts(), []);
    driver.write(&mut guest, 0x1A, &[3, 0]);
    assert_eq!(driver.read::<2>(&mut guest, 0x1A), [3, 0]);
}

#[test]
fn a_host_without_interrupts_left_gives_no_vector() {
    let (mut guest, driver, watch) = running();
    guest.host.refuse_lines(true);
    driver.write(&mut guest, 0x1A, &[2, 0]);
    assert_eq!(driver.read::<2>(&mut guest, 0x1A), [0xFF; 2]);
    guest.host.refuse_lines(false);
    driver.write(&mut guest, 0x1A, &[2, 0]);
    assert_eq!(driver.read::<2>(&mut guest, 0x1A), [2, 0]);
    assert_eq!(watch.running(), [1]);
}

#[test]
fn a_queue_that_runs_moves_to_another_vector() {
    let (mut guest, driver, watch) = running();
    driver.set_vector(&mut guest, 1, message(0x41), false);
    driver.set_vector(&mut guest, 2, message(0x42), false);
    driver.write(&mut guest, 0x1A, &[2, 0]);
    watch.call();
    assert_eq!(guest.host.take_interrupts(), [message(0x42)]);
    driver.write(&mut guest, 0x1A, &NO_VECTOR.to_le_bytes());
    watch.call();
    assert_eq!(guest.host.take_interrupts(), []);
    driver.write(&mut guest, 0x1A, &[1, 0]);
    watch.call();
    assert_eq!(guest.host.take_interrupts(), [message(0x41)]);
    driver.write(&mut guest, 0x10, &[1, 0]);
    assert!(watch.change_config());
    assert_eq!(guest.host.take_interrupts(), [message(0x41)], "two sources on one vector");
}

#[test]
fn table_accesses_of_odd_widths_change_only_what_they_cover() {
    let (mut guest, driver, _) = running();
    let mut model = vec![0u8; 64];
    for entry in 0..4 {
        model[entry * 16 + 12] = 1;
    }
    let read = |guest: &mut Guest| -> Vec<u8> {
        (0..64).map(|offset| guest.load::<1>(driver.table + offset)[0]).collect()
    };
    assert_eq!(read(&mut guest), model);
    for (offset, width) in [(1, 2), (3, 4), (7, 8), (14, 4), (30, 8), (5, 1), (62, 2), (60, 8), (33, 3)] {
        let data: Vec<u8> = (0..width).map(|byte| 0xA0 | byte).collect();
        guest.write(driver.table + offset, &data);
        for (at, byte) in (offset as usize..64).zip(&data) {
            model[at] = match at % 16 {
                12 => byte & 1, // only the mask bit exists
                13..16 => 0,
                _ => *byte,
            };
        }
        assert_eq!(read(&mut guest), model, "{width} bytes at {offset}");
        let straddling: [u8; 8] = guest.load(driver.table + offset);
        for (at, byte) in (offset as usize..).zip(straddling) {
            assert_eq!(byte, model.get(at).copied().unwrap_or(0));
        }
    }
    guest.write(driver.pending, &[0xFF; 8]);
    assert_eq!(guest.load::<8>(driver.pending), [0; 8], "pending bits are read-only");
    let end = guest.load::<8>(driver.table - 3);
    assert_eq!(end, [0; 8], "what begins before the table does not reach into it");
}

#[test]
fn without_msix_the_isr_status_tells() {
    let mut guest = Guest::new();
    let (device, watch) = Strict::new();
    let address = guest.root.attach_virtio(Box::new(device), None).unwrap();
    let driver = PciDriver::probe(&mut guest, address);
    let offered = driver.offered(&mut guest);
    assert!(driver.negotiate(&mut guest, offered));
    let layout = QueueLayout { size: 16, descriptors: 0, available: 0x1000, used: 0x2000 };
    driver.enable_queue(&mut guest, 1, &layout, NO_VECTOR);
    driver.driver_ok(&mut guest);
    assert_eq!(guest.load::<1>(driver.isr), [0]);
    watch.call();
    assert_eq!(guest.load::<1>(driver.isr), [1]);
    assert_eq!(guest.load::<1>(driver.isr), [0], "reading clears it");
    assert!(watch.change_config());
    watch.call();
    assert_eq!(guest.load::<4>(driver.isr), [3, 0, 0, 0]);
    watch.call();
    watch.change_config();
    driver.write(&mut guest, 0x14, &[0]);
    assert_eq!(guest.load::<1>(driver.isr), [0], "so does a reset");
    assert!(watch.change_config(), "the device can go on announcing after it");
    assert_eq!(guest.load::<1>(driver.isr), [2]);
    assert_eq!(guest.host.lines(), (0, 0));
}

#[test]
fn a_change_before_the_driver_is_ready_is_announced_when_it_is() {
    let mut guest = Guest::new();
    let (device, watch) = Strict::new();
    let address = guest.root.attach_virtio(Box::new(device), None).unwrap();
    let driver = PciDriver::probe(&mut guest, address);
    driver.set_msix(&mut guest, true, false);
    let offered = driver.offered(&mut guest);
    assert!(driver.negotiate(&mut guest, offered));
    driver.write(&mut guest, 0x10, &[0, 0]);
    driver.set_vector(&mut guest, 0, message(0x40), false);
    let before = driver.read::<1>(&mut guest, 0x15);
    assert!(watch.change_config());
    assert_ne!(driver.read::<1>(&mut guest, 0x15), before, "the generation counts changes");
    assert_eq!(guest.host.take_interrupts(), [], "no notification before DRIVER_OK");
    driver.driver_ok(&mut guest);
    assert_eq!(guest.host.take_interrupts(), [message(0x40)]);
}

#[test]
fn a_message_the_host_refuses_stays_pending() {
    let (mut guest, driver, watch) = running();
    guest.host.refuse_routes(true);
    driver.set_vector(&mut guest, 1, message(0x41), false);
    watch.call();
    assert_eq!((guest.host.take_interrupts(), guest.host.lines().1), (vec![], 0));
    assert!(driver.is_pending(&mut guest, 1));
    guest.host.refuse_routes(false);
    driver.set_vector(&mut guest, 1, message(0x42), false);
    assert_eq!(guest.host.take_interrupts(), [message(0x42)]);
    guest.host.refuse_routes(true);
    guest.write(driver.table + 16 + 8, &[0x43]);
    watch.call();
    assert_eq!(guest.host.take_interrupts(), [], "the old message is not what the guest asked for");
}

#[test]
fn bringing_a_device_up_asks_no_more_of_the_host_than_it_needs() {
    let mut guest = Guest::new();
    let address = guest.root.attach_virtio(Box::new(Strict::new().0), None).unwrap();
    let driver = PciDriver::probe(&mut guest, address);
    let offered = driver.offered(&mut guest);
    assert!(driver.negotiate(&mut guest, offered));
    // In Linux's order: enabled with everything masked, then vector by vector.
    driver.set_msix(&mut guest, true, true);
    (0..4).for_each(|vector| driver.mask_vector(&mut guest, vector, true));
    driver.set_msix(&mut guest, true, false);
    driver.set_vector(&mut guest, 0, message(0x40), false);
    driver.write(&mut guest, 0x10, &[0, 0]);
    let layout = QueueLayout { size: 16, descriptors: 0, available: 0x1000, used: 0x2000 };
    for queue in 0..3 {
        driver.enable_queue(&mut guest, queue, &layout, queue + 1);
        driver.set_vector(&mut guest, queue + 1, message(0x41), false);
    }
    driver.driver_ok(&mut guest);
    assert_eq!(guest.host.take_calls(), 4 * 2 + 3, "a route and an irqfd each, and the kicks");
    assert_eq!(guest.host.lines(), (4, 4));
}
