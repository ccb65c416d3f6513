//! Memory tables: two styles, any offsets, changes under running rings.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use parador_vhost_user::message::{
    FrontendRequest as R, MemoryRegion, Message, ProtocolFeatures as F, VringAddr,
};
use parador_virtio::testing::PATIENCE;
use rustix::fs::{MemfdFlags, memfd_create};

use crate::device::Echo;
use crate::front::{Front, MEMORY_LEN, USER, arena, echo, memfd};

const PAGE: u64 = 4096;

#[test]
fn a_region_may_begin_anywhere_in_its_file() {
    // M5, M6: pages of another size, too.
    for (offset, base) in [(0xc_0000, 0xc_0000), (0x5000, 0x1_0000), (0x5123, 0x1_0123), (0x7ff0, 0xff0)] {
        let mut front = Front::connect(Echo::new());
        front.negotiate();
        let len = 0x2_0000;
        front.file = memfd(offset + len + 5);
        // The test sees it from the page's start on.
        let slack = offset % PAGE;
        front.arena = arena(&front.file, offset - slack, base - slack, (len + slack) as usize);
        let _not_ours = front.arena.alloc(slack.max(1), 1);
        let region =
            MemoryRegion { guest_address: base, size: len, user_address: USER + base, mmap_offset: offset };
        front.tell_with(&R::SetMemTable(vec![region]), &[front.file.as_fd()]);
        echo(&mut front.start(0), b"found");
    }
}

#[test]
fn regions_that_cannot_be_are_refused() {
    // M4, M7
    let front = Front::new(Echo::new());
    let mut driver = front.start(0);
    let other = memfd(1 << 20);
    let good = MemoryRegion { guest_address: 1 << 30, size: 1 << 20, user_address: 0, mmap_offset: 0 };
    let bad = [
        MemoryRegion { size: 0, ..good },
        MemoryRegion { size: (1 << 20) + 1, ..good },
        MemoryRegion { mmap_offset: PAGE, ..good },
        MemoryRegion { mmap_offset: u64::MAX - PAGE + 1, ..good },
        MemoryRegion { guest_address: u64::MAX - PAGE + 1, ..good },
        MemoryRegion { user_address: u64::MAX, ..good },
        MemoryRegion { size: u64::MAX, ..good },
        // Over the one that is there, in either address space.
        MemoryRegion { guest_address: MEMORY_LEN as u64 - PAGE, ..good },
        MemoryRegion { user_address: USER - PAGE, ..good },
        front.region(),
    ];
    for region in bad {
        front.refused(&R::AddMemReg(region), &[other.as_fd()]);
        let table = R::SetMemTable(vec![front.region(), region]);
        front.refused(&table, &[front.file.as_fd(), other.as_fd()]);
    }
    front.refused(&R::AddMemReg(good), &[File::open("/dev/null").unwrap().as_fd()]);
    echo(&mut driver, b"as before");
}

#[test]
fn a_table_without_regions_or_with_too_many_is_refused() {
    // M2
    let front = Front::new(Echo::new());
    for count in [0u32, 9, u32::MAX] {
        let mut payload = count.to_ne_bytes().to_vec();
        payload.resize(8 + 32 * 9, 0);
        assert_ne!(front.ack_message(&Message::new(5, payload), &[]), 0);
    }
}

#[test]
fn as_many_regions_as_there_are_slots() {
    // M12, M13
    let front = Front::connect(Echo::new());
    front.negotiate();
    let slots = front.number(&R::GetMaxMemSlots);
    assert_eq!(slots, 509);
    let region = |index: u64| MemoryRegion {
        guest_address: index << 20,
        size: PAGE,
        user_address: index << 30,
        mmap_offset: index * PAGE,
    };
    for index in 0..slots {
        front.tell_with(&R::AddMemReg(region(index)), &[front.file.as_fd()]);
    }
    front.refused(&R::AddMemReg(region(slots)), &[front.file.as_fd()]);
    front.tell(&R::RemMemReg(region(7)));
    front.tell_with(&R::AddMemReg(region(slots)), &[front.file.as_fd()]);
}

#[test]
fn a_region_is_removed_by_its_places_and_size() {
    // M9, M10
    let front = Front::new(Echo::new());
    let region = front.region();
    front.refused(&R::RemMemReg(MemoryRegion { guest_address: PAGE, ..region }), &[]);
    front.refused(&R::RemMemReg(MemoryRegion { user_address: 0, ..region }), &[]);
    front.refused(&R::RemMemReg(MemoryRegion { size: PAGE, ..region }), &[]);
    front.refused(&R::RemMemReg(region), &[front.file.as_fd(), front.file.as_fd()]);
    front.tell_with(&R::RemMemReg(MemoryRegion { mmap_offset: 77, ..region }), &[front.file.as_fd()]);
    front.refused(&R::RemMemReg(region), &[]);
}

#[test]
fn memory_changes_under_running_rings() {
    // M14, M16
    let front = Front::new(Echo::new());
    let mut driver = front.start(0);
    let spare = memfd(PAGE);
    let mut done = 0u32;
    for round in 0..50u64 {
        let heads: Vec<_> = (0..8).map(|_| driver.add(&[b"busy"], &[4]).unwrap()).collect();
        driver.kick();
        let user_address = USER + (round << 32);
        let table = vec![
            MemoryRegion { user_address, ..front.region() },
            MemoryRegion { guest_address: 1 << 40, size: PAGE, user_address: 0, mmap_offset: 0 },
        ];
        let fds: [BorrowedFd<'_>; 2] = [front.file.as_fd(), spare.as_fd()];
        front.tell_with(&R::SetMemTable(table), &fds);
        // Its addresses are elsewhere now, and the ring waits until that is said.
        let VringAddr { descriptor, used, available, .. } = front.address(0, &driver);
        let at = |address: u64| address - USER + user_address;
        front.tell(&R::SetVringAddr(VringAddr {
            descriptor: at(descriptor),
            used: at(used),
            available: at(available),
            ..VringAddr::default()
        }));
        for _ in heads {
            assert!(driver.wait_used(PATIENCE).is_some(), "none is lost: {driver:#?}");
            done += 1;
        }
    }
    assert_eq!(front.base(0), done);
}

#[test]
fn regions_come_and_go_under_running_rings() {
    // M14
    let front = Front::new(Echo::new());
    let mut driver = front.start(0);
    let spare = memfd(PAGE);
    let region = MemoryRegion { guest_address: 1 << 40, size: PAGE, user_address: 0, mmap_offset: 0 };
    for _ in 0..50 {
        driver.add(&[b"busy"], &[4]).unwrap();
        driver.kick();
        front.tell_with(&R::AddMemReg(region), &[spare.as_fd()]);
        assert!(driver.wait_used(PATIENCE).is_some());
        front.tell(&R::RemMemReg(region));
        echo(&mut driver, b"on");
    }
}

#[test]
fn a_ring_whose_memory_goes_waits_until_it_is_back() {
    // M15
    let front = Front::new(Echo::new());
    let mut driver = front.start(0);
    echo(&mut driver, b"before");
    front.tell(&R::RemMemReg(front.region()));
    driver.add(&[b"meanwhile"], &[9]);
    driver.force_kick();
    driver.publish();
    front.tell_with(&R::AddMemReg(front.region()), &[front.file.as_fd()]);
    assert_eq!(driver.wait_used(PATIENCE).expect("it goes on").data, b"meanwhile");
    assert_eq!(front.base(0), 2);
}

#[test]
fn addresses_may_be_the_guests() {
    // M17, R18
    let front = Front::connect(Echo::new());
    front.send(&R::SetProtocolFeatures((front.offered.1 | F::GPA_ADDRESSES).0));
    front.tell(&R::SetFeatures(crate::front::FEATURES));
    front.refused(&R::AddMemReg(front.region()), &[front.file.as_fd()]);
    let region = MemoryRegion { user_address: 0, ..front.region() };
    front.tell_with(&R::AddMemReg(region), &[front.file.as_fd()]);
    let mut driver = front.driver();
    let layout = driver.layout();
    front.refused(&R::SetVringAddr(front.address(0, &driver)), &[]);
    let (descriptor, used, available) = (layout.descriptors, layout.used, layout.available);
    let address = VringAddr { descriptor, used, available, ..VringAddr::default() };
    let state = |num| parador_vhost_user::message::VringState { index: 0, num };
    front.tell(&R::SetVringNum(state(u32::from(layout.size))));
    front.tell(&R::SetVringAddr(address));
    front.set_kick(0, &driver);
    front.set_call(0, &driver);
    front.enable(0, true);
    echo(&mut driver, b"by the guest's");
}

#[test]
fn memory_that_a_device_holds_stays_until_it_lets_go() {
    let mapped = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains("/memfd:a held test")).count()
    };
    let file = memfd_create("a held test", MemfdFlags::CLOEXEC).unwrap();
    let file = File::from(file);
    file.set_len(PAGE).unwrap();
    let front = Front::new(Echo::new());
    let driver = front.start(0);
    let region = MemoryRegion { guest_address: 1 << 40, size: PAGE, user_address: 0, mmap_offset: 0 };
    front.tell_with(&R::AddMemReg(region), &[file.as_fd()]);
    let held = front.seen.guest.lock().unwrap().take().unwrap();
    assert_eq!(mapped(), 1);
    front.tell(&R::RemMemReg(region));
    assert_eq!(mapped(), 1, "it may still be looked at");
    front.seen.guest.lock().unwrap().take();
    drop(held);
    // The next change finds that nobody does.
    front.tell(&R::RemMemReg(front.region()));
    assert_eq!(mapped(), 0);
    drop(driver);
}
