//! Devices at work: data, pauses, resets, and threads that report meanwhile.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parador_virtio::testing::{Driver, Used};

use super::virtio::{LAYOUT, NEEDED, started, strict};
use crate::bus::BusDevice;
use crate::pci::MsiMessage;
use crate::pci::testing::{Echo, Guest, PciDriver, STATUS_NEEDS_RESET, Strict};

/// Brings up a device that echoes, with a ring for each of its queues.
fn echo(queues: u16) -> (Guest, PciDriver, Vec<Driver>) {
    let mut guest = Guest::new();
    let address = guest.root.attach_virtio(Box::new(Echo::new(queues.into())), None).unwrap();
    let driver = PciDriver::probe(&mut guest, address);
    driver.set_msix(&mut guest, true, false);
    let rings = bring_up(&mut guest, &driver, queues);
    (guest, driver, rings)
}

fn bring_up(guest: &mut Guest, driver: &PciDriver, queues: u16) -> Vec<Driver> {
    let features = driver.offered(guest);
    assert!(driver.negotiate(guest, features));
    let rings: Vec<_> = (0..queues).map(|_| Driver::on(&guest.arena, 16, features)).collect();
    for (queue, ring) in (0..queues).zip(&rings) {
        driver.set_vector(guest, queue, vector(queue), false);
        assert_eq!(driver.enable_queue(guest, queue, &ring.layout(), queue), queue);
    }
    driver.driver_ok(guest);
    assert_eq!(driver.status(guest), 15);
    rings
}

fn vector(queue: u16) -> MsiMessage {
    MsiMessage { address: 0xFEE0_0000, data: 0x40 + u32::from(queue) }
}

/// Sends a request and waits for its interrupt, as a guest does.
fn request(guest: &mut Guest, driver: &PciDriver, ring: &mut Driver, queue: u16, data: &[u8]) -> Used {
    ring.ask_for_interrupt();
    ring.add(&[data], &[data.len()]).unwrap();
    ring.publish();
    driver.notify(guest, queue);
    let deadline = Instant::now() + Duration::from_secs(20);
    while guest.host.take_interrupts() != [vector(queue)] {
        assert!(Instant::now() < deadline, "no interrupt");
        thread::yield_now();
    }
    ring.take_used().expect("an interrupt means a used buffer")
}

#[test]
fn data_moves_through_a_device() {
    let (mut guest, driver, mut rings) = echo(3);
    for round in 0..100u8 {
        for queue in 0..3 {
            let data = [round ^ queue as u8; 100];
            let used = request(&mut guest, &driver, &mut rings[usize::from(queue)], queue, &data);
            assert_eq!(used.data, data);
        }
    }
}

#[test]
fn data_moves_on_after_a_pause() {
    let (mut guest, driver, mut rings) = echo(2);
    for round in 0..50u8 {
        let used = request(&mut guest, &driver, &mut rings[1], 1, &[round]);
        assert_eq!(used.data, [round]);
        guest.root.stop_queues();
        if round % 2 == 0 {
            guest.root.stop_queues();
        }
        // Made available while nobody looks.
        rings[0].ask_for_interrupt();
        rings[0].add(&[b"meanwhile"], &[9]).unwrap();
        rings[0].publish();
        driver.notify(&mut guest, 0);
        thread::sleep(Duration::from_millis(1));
        assert!(rings[0].take_used().is_none(), "stopped");
        guest.root.start_queues();
        guest.root.start_queues();
        let deadline = Instant::now() + Duration::from_secs(20);
        while rings[0].take_used().is_none() {
            assert!(Instant::now() < deadline, "the pause lost a request");
            thread::yield_now();
        }
        while guest.host.take_interrupts().is_empty() {
            assert!(Instant::now() < deadline, "the pause lost an interrupt");
        }
    }
}

#[test]
fn a_pause_starts_nothing_that_did_not_run() {
    let (mut guest, driver, watch) = strict();
    guest.root.stop_queues();
    guest.root.start_queues();
    assert_eq!(watch.starts_and_resets(), (0, 0));
    guest.root.stop_queues();
    assert!(driver.negotiate(&mut guest, NEEDED));
    driver.enable_queue(&mut guest, 1, &LAYOUT, 0xFFFF);
    driver.driver_ok(&mut guest);
    assert!(watch.running().is_empty(), "what is set up meanwhile waits");
    guest.root.start_queues();
    assert_eq!(watch.running(), [1]);
    guest.root.stop_queues();
    guest.root.reset();
    guest.root.start_queues();
    assert!(watch.running().is_empty(), "a reset forgets what was stopped");
}

#[test]
fn a_device_that_cannot_go_on_says_so() {
    let (mut guest, driver, watch) = started(NEEDED);
    guest.root.stop_queues();
    watch.refuse(true);
    guest.root.start_queues();
    assert_eq!(driver.status(&mut guest), 15 | STATUS_NEEDS_RESET);
    assert!(watch.running().is_empty());
}

#[test]
fn a_device_that_forgets_where_it_was_needs_a_reset() {
    let (mut guest, driver, watch) = started(NEEDED);
    watch.forget(true);
    guest.root.stop_queues();
    watch.forget(false);
    guest.root.start_queues();
    assert_eq!(driver.status(&mut guest), 15 | STATUS_NEEDS_RESET);
    assert!(watch.running().is_empty());
}

#[test]
fn a_queue_whose_place_is_lost_does_not_move_to_another_vector() {
    let (mut guest, driver, watch) = started(NEEDED);
    watch.forget(true);
    driver.write(&mut guest, 0x1A, &[2, 0]);
    assert_eq!(driver.status(&mut guest), 15 | STATUS_NEEDS_RESET);
    assert!(watch.running().is_empty());
    assert_eq!(watch.starts_and_resets().0, 1);
}

#[test]
fn queue_threads_may_report_while_the_driver_resets() {
    let (mut guest, driver, watch) = strict();
    driver.set_msix(&mut guest, true, false);
    driver.set_vector(&mut guest, 0, MsiMessage { address: 0xFEE0_0000, data: 0x40 }, false);
    let done = Arc::new(AtomicBool::new(false));
    let reporter = thread::spawn({
        let (watch, done) = (watch.clone(), Arc::clone(&done));
        move || {
            while !done.load(Ordering::Relaxed) {
                let _ = watch.change_config(); // not in the middle of a reset
                watch.break_rings();
                watch.call();
            }
        }
    });
    for round in 0..2000u16 {
        assert!(driver.negotiate(&mut guest, NEEDED));
        driver.write(&mut guest, 0x10, &[0, 0]);
        driver.enable_queue(&mut guest, 1, &LAYOUT, round % 2);
        driver.driver_ok(&mut guest);
        driver.mask_vector(&mut guest, 0, round % 3 == 0);
        driver.write(&mut guest, 0x1A, &[0, 0]);
        guest.root.stop_queues();
        guest.root.start_queues();
    }
    done.store(true, Ordering::Relaxed);
    reporter.join().unwrap();
}

#[test]
fn a_device_that_takes_its_time_holds_up_nobody_else() {
    let (mut guest, driver, watch) = started(NEEDED);
    let other = guest.root.attach_virtio(Box::new(Strict::new().0), None).unwrap();
    let gate = watch.hold_stops();
    let stopping = thread::spawn({
        let (mut ecam, address) = (guest.root.ecam(), driver.address());
        // Through configuration space, which everybody shares.
        let at = u64::from(address.devfn()) << 12 | driver.pci_cfg;
        move || {
            for (offset, value) in [(8, 0x14), (12, 1), (16, 0u32)] {
                let _ = ecam.write(at + offset, &value.to_le_bytes());
            }
        }
    });
    gate.wait_for_arrival();
    let driver = PciDriver::probe(&mut guest, other);
    assert!(driver.negotiate(&mut guest, NEEDED));
    driver.enable_queue(&mut guest, 1, &LAYOUT, 0xFFFF);
    driver.driver_ok(&mut guest);
    guest.set_config(other, 0x10, &0xC010_0000u32.to_le_bytes());
    assert_eq!(guest.load::<1>(0xC010_0014), [15]);
    let third = guest.root.attach_virtio(Box::new(Strict::new().0), None).unwrap();
    assert_ne!(third, other);
    assert!(!stopping.is_finished());
    gate.open();
    stopping.join().unwrap();
    assert_eq!(watch.starts_and_resets().1, 2);
}

#[test]
fn resets_leak_nothing() {
    let (mut guest, driver, mut rings) = echo(2);
    request(&mut guest, &driver, &mut rings[0], 0, b"before");
    drop(rings);
    guest.root.reset();
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for round in 0..1000 {
        let driver = PciDriver::probe(&mut guest, driver.address());
        driver.set_msix(&mut guest, true, false);
        // The ring's own descriptors go with it; its memory is not used again.
        let features = driver.offered(&mut guest);
        assert!(driver.negotiate(&mut guest, features));
        for queue in 0..2 {
            driver.enable_queue(&mut guest, queue, &LAYOUT, queue);
        }
        driver.driver_ok(&mut guest);
        assert_eq!((driver.status(&mut guest), guest.host.lines().0), (15, 2));
        match round % 3 {
            0 => guest.root.reset(),
            1 => driver.write(&mut guest, 0x14, &[0]),
            _ => {
                guest.root.stop_queues();
                guest.root.reset();
                guest.root.start_queues();
            }
        }
    }
    guest.root.reset();
    assert_eq!((guest.host.lines(), guest.host.kicks()), ((0, 0), vec![]));
    // Other tests may open some in the same process; a leak would be a thousand.
    assert!(open() < before + 100, "{} after {before}", open());
}

#[test]
fn a_device_works_after_the_machine_was_reset() {
    let (mut guest, driver, mut rings) = echo(2);
    for round in 0..10u8 {
        let used = request(&mut guest, &driver, &mut rings[1], 1, &[round; 7]);
        assert_eq!(used.data, [round; 7]);
        drop(rings);
        guest.root.reset();
        assert_eq!(driver.status(&mut guest), 0xFF, "the BAR does not answer before it is switched on");
        guest.set_config(driver.address(), 4, &[6, 0]);
        assert_eq!(guest.load::<4>(driver.table + 12), [1, 0, 0, 0]);
        driver.set_msix(&mut guest, true, false);
        rings = bring_up(&mut guest, &driver, 2);
    }
}
