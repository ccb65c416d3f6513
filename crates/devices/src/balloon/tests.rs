//! The balloon against the model driver, over private and shared guest memory.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use parador_virtio::ids::{VIRTIO_F_EVENT_IDX, VIRTIO_F_VERSION_1};
use parador_virtio::testing::{Arena, Harness, NEXT, PATIENCE, WRITE};
use parador_virtio::{GuestAddress, GuestMemory};
use vm_memory::{Bytes, FileOffset};

use super::*;

const RING: u64 = VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX;
const MIB: usize = 1 << 20;
/// Where guest memory begins: a region, a hole, another one.
const REGIONS: [(u64, usize); 2] = [(0, 8 * MIB), (0x1000_0000, 8 * MIB)];

fn numbers(pages: impl IntoIterator<Item = u32>) -> Vec<u8> {
    pages.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// A balloon whose guest has written to all its memory above the first megabyte.
fn used_up(options: BalloonOptions, features: u64) -> (Harness, Arena, Control) {
    in_memory(options, features, Arena::of_regions(&REGIONS))
}

fn in_memory(options: BalloonOptions, features: u64, arena: Arena) -> (Harness, Arena, Control) {
    let balloon = Balloon::new(options).unwrap();
    let control = balloon.control();
    let features = balloon.identity().features & features | RING;
    for start in (MIB..8 * MIB).step_by(MIB) {
        arena.memory().write_slice(&[7; MIB], GuestAddress(start as u64)).unwrap();
    }
    arena.memory().write_slice(&[7; 8 * MIB], GuestAddress(REGIONS[1].0)).unwrap();
    (Harness::with(Box::new(balloon), features, arena.clone()), arena, control)
}

/// Whether a page still has what the guest wrote.
fn is_kept(memory: &GuestMemory, page: u32) -> bool {
    let byte: u8 = memory.read_obj(GuestAddress(u64::from(page) * PAGE_SIZE)).unwrap();
    assert!(byte == 0 || byte == 7);
    byte == 7
}

#[test]
fn pages_that_are_given_up_leave_the_host() {
    let ranges = REGIONS.map(|(start, len)| (GuestAddress(start), len));
    let private = Arena::of_memory(Arc::new(GuestMemory::from_ranges(&ranges).unwrap()));
    // An arena of its own making is a file, shared with other processes.
    for arena in [private, Arena::of_regions(&REGIONS)] {
        let (mut harness, arena, _) = in_memory(BalloonOptions::default(), u64::MAX, arena);
        // In no order, with one twice, over the border of a batch, and in both regions.
        let mut pages: Vec<u32> = (300..900).rev().collect();
        pages.swap(3, 500);
        pages.extend([0x10000, 0x10001, 0x10007, 0x10007]);
        harness.request(0, &[&numbers(pages.clone())], &[]);
        for page in pages {
            assert!(!is_kept(arena.memory(), page), "{page}");
        }
        for page in [299, 900, 0x10002, 0x10006, 0x10008] {
            assert!(is_kept(arena.memory(), page), "{page}");
        }
        // It takes them back.
        harness.request(1, &[&numbers(300..900)], &[]);
    }
}

#[test]
fn a_file_of_shared_memory_shrinks() {
    let file = tempfile::tempfile_in("/dev/shm").unwrap();
    file.set_len(8 * MIB as u64).unwrap();
    let range = (GuestAddress(0), 8 * MIB, Some(FileOffset::new(file.try_clone().unwrap(), 0)));
    let arena = Arena::of_memory(Arc::new(GuestMemory::from_ranges_with_files([range]).unwrap()));
    arena.memory().write_slice(&[7; 4 * MIB], GuestAddress(4 * MIB as u64)).unwrap();
    let mut harness = Harness::with(Box::new(Balloon::new(BalloonOptions::default()).unwrap()), RING, arena);
    harness.driver(0);
    let before = file.metadata().unwrap().blocks();
    harness.request(0, &[&numbers(1024..2048)], &[]);
    let after = file.metadata().unwrap().blocks();
    // What is left is the ring and the request itself.
    assert!(before >= 4 * MIB as u64 / 512 && after < 100, "from {before} to {after} blocks");
}

#[test]
fn pages_that_are_not_there_are_ignored() {
    let (mut harness, arena, _) = used_up(BalloonOptions::default(), u64::MAX);
    // Beyond memory, in the hole, at the end of what can be named, and a number cut short.
    let pages = [0x7ff, 0x800, 0xffff, 0x1_0800, u32::MAX, u32::MAX - 1];
    harness.request(0, &[&numbers(pages)], &[]);
    harness.request(0, &[&numbers([512]), &[1, 2, 3]], &[]);
    assert!(!is_kept(arena.memory(), 512));
    // No page numbers at all.
    harness.request(0, &[&[1]], &[]);
    harness.request(0, &[], &[8]);
    harness.request(1, &[], &[8]);
    assert!(is_kept(arena.memory(), 513));
}

#[test]
fn free_pages_leave_the_host_and_others_do_not() {
    let (mut harness, arena, _) = used_up(BalloonOptions::default(), F_PAGE_REPORTING | F_PAGE_POISON);
    let driver = harness.driver(2);
    // Two whole ranges; then one that begins and ends within pages.
    let ranges = [(2 * MIB as u64, 2 * MIB as u32), (0x1000_0000, 4096), (5 * MIB as u64 + 100, 3 * 4096)];
    for (at, (address, length)) in ranges.into_iter().enumerate() {
        let at = at as u16;
        driver.write_descriptor(at, address, length, WRITE | if at < 2 { NEXT } else { 0 }, at + 1);
    }
    driver.offer(0);
    driver.kick();
    assert!(driver.wait_call(PATIENCE));
    let kept = |page| is_kept(arena.memory(), page);
    assert!(!kept(512) && !kept(1023) && !kept(0x10000));
    assert!(kept(511) && kept(1024) && kept(0x10001));
    assert!(kept(1280) && !kept(1281) && !kept(1282) && kept(1283));
}

#[test]
fn poisoned_pages_keep_their_poison() {
    let (mut harness, arena, _) = used_up(BalloonOptions::default(), F_PAGE_REPORTING | F_PAGE_POISON);
    harness.device().write_config(POISON_VAL, &0x0707_0707u32.to_le_bytes());
    assert_eq!(harness.config(POISON_VAL, 4), [7; 4]);
    let driver = harness.driver(2);
    driver.write_descriptor(0, 2 * MIB as u64, 4096, WRITE, 0);
    driver.offer(0);
    driver.kick();
    assert!(driver.wait_call(PATIENCE));
    assert!(is_kept(arena.memory(), 512));
}

#[test]
fn the_target_and_what_became_of_it() {
    let options =
        BalloonOptions { target: 5 * PAGE_SIZE + 1, deflate_on_oom: false, free_page_reporting: false };
    let balloon = Balloon::new(options).unwrap();
    assert_eq!(balloon.identity().features, F_STATS_VQ);
    assert_eq!(balloon.identity().queue_sizes.len(), 3);
    let control = balloon.control();
    let mut harness = Harness::new(balloon);
    assert_eq!(harness.config(0, 16)[..8], [5, 0, 0, 0, 0, 0, 0, 0]);
    harness.device().write_config(ACTUAL, &5u32.to_le_bytes());
    assert_eq!(control.actual(), 5 * PAGE_SIZE);
    control.set_target(u64::MAX);
    assert!(harness.config_changed());
    assert_eq!(harness.config(0, 4), [255; 4]);
    control.set_target(control.target());
    assert!(!harness.config_changed());
    // The target is the host's; half a field and what is beyond are nobody's.
    harness.device().write_config(0, &[0; 4]);
    harness.device().write_config(ACTUAL, &[1, 2]);
    harness.device().write_config(ACTUAL + 1, &[9; 4]);
    harness.device().write_config(usize::MAX, &[9; 4]);
    assert_eq!(harness.config(0, 8), [255, 255, 255, 255, 5, 0, 0, 0]);
    harness.reset();
    assert_eq!(control.actual(), 0);
}

#[test]
fn statistics_are_asked_for_again() {
    let balloon = Balloon::new(BalloonOptions::default()).unwrap();
    let control = balloon.control();
    let mut harness = Harness::new(balloon);
    let tell = |harness: &mut Harness, free: u64| {
        let pairs: [(u16, u64); 3] = [(4, free), (5, 1 << 30), (999, 1)];
        let bytes =
            pairs.map(|(tag, value)| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat()).concat();
        let driver = harness.driver(2);
        driver.add(&[&bytes, &[4, 0, 1]], &[]).unwrap();
        driver.kick();
    };
    let told = |free| {
        let end = Instant::now() + PATIENCE;
        while control.stats().free != Some(free) {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(control.stats().total, Some(1 << 30));
        assert_eq!(control.stats().caches, None);
    };
    tell(&mut harness, 100);
    told(100);
    // Having been asked, it gives the buffer back, once.
    assert!(harness.driver(2).wait_used(PATIENCE).is_some());
    tell(&mut harness, 200);
    told(200);
    // A pause keeps the buffer in the ring, not in the device.
    harness.driver(2).wait_used(PATIENCE).unwrap();
    tell(&mut harness, 300);
    harness.pause();
    told_after_pause(&mut harness, &control);
}

fn told_after_pause(harness: &mut Harness, control: &Control) {
    harness.driver(2);
    let end = Instant::now() + PATIENCE;
    while harness.driver(2).take_used().is_none() {
        assert!(Instant::now() < end);
        let _ = control.stats();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(control.stats().free, Some(300));
}
