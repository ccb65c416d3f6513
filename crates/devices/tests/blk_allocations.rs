//! A disk at work allocates nothing. Alone in its binary, because it counts for the whole process.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod counting;

use parador_block::zoned::Geometry;
use parador_block::zoned::image::Metadata;
use parador_block::{Aio, Image, RawOptions};
use parador_devices::blk::{Blk, BlkOptions};
use parador_virtio::testing::{Driver, Harness, PATIENCE};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// Reads, scattered reads, writes and flushes, 24 at once; or as many of the request that takes
/// the most storage.
fn round(driver: &mut Driver, round: u64, largest: bool) {
    for index in 0..24u64 {
        let mut header = [0; 16];
        header[8..].copy_from_slice(&((round * 131 + index * 8) % 1024).to_le_bytes());
        let added = match if largest { 1 } else { index % 4 } {
            0 => driver.add_indirect(&[&header], &[4096, 1]),
            1 => driver.add_indirect(&[&header], &[512, 1024, 512, 1]),
            2 => {
                header[0] = 1;
                driver.add_indirect(&[&header, &[7; 4096]], &[1])
            }
            _ => {
                header[0] = 4;
                driver.add(&[&header], &[1])
            }
        };
        added.unwrap();
    }
    finish(driver);
}

/// As [`round`], to a zone that begins at sector 16384. FLUSH, RESET and FINISH write a journal, on another
/// thread, which allocates.
fn zoned_round(driver: &mut Driver) {
    for index in 0..24u64 {
        let (kind, data, room): (u8, &[u8], &[usize]) = match index % 6 {
            0 => (15, &[7; 4096], &[16]),
            1 => (0, &[], &[4096, 1]),
            2 => (16, &[], &[64 + 64 * 8, 1]),
            3 => (15, &[7; 8192], &[8, 1]),
            4 => (18, &[], &[1]),
            _ => (20, &[], &[1]),
        };
        let mut header = [0; 16];
        header[0] = kind;
        header[8..].copy_from_slice(&16384u64.to_le_bytes());
        let readable: [&[u8]; 2] = [&header, data];
        driver.add_indirect(&readable[..if data.is_empty() { 1 } else { 2 }], room).unwrap();
    }
    finish(driver);
}

fn finish(driver: &mut Driver) {
    driver.kick();
    while driver.in_flight() > 0 {
        assert_eq!(driver.wait_used(PATIENCE).unwrap().data.last(), Some(&0));
    }
}

#[test]
fn no_request_allocates() {
    counting::leave_out_this_thread();
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    for aio in [Aio::Sync, Aio::Threads, Aio::IoUring] {
        let options = RawOptions { aio, ..RawOptions::new(file.path()) };
        let blk = Blk::new(BlkOptions::new(Image::open(&options).unwrap())).unwrap();
        let mut disk = Harness::new(blk);
        let driver = disk.driver(0);
        // A queue takes all that is there before it starts any of it, so every slot gets its storage.
        (0..10).for_each(|index| round(driver, index, true));
        let before = counting::allocations();
        (0..100).for_each(|index| round(driver, index, false));
        assert_eq!(counting::allocations() - before, 0, "{aio:?}");
        // The count counts: what another thread allocates is seen.
        let before = counting::allocations();
        std::thread::spawn(|| drop(std::hint::black_box(vec![1]))).join().unwrap();
        assert!(counting::allocations() > before);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let geometry = Geometry::new(64 << 20, 8 << 20);
    let len = Metadata::create(file.as_file(), geometry.checked().unwrap(), [1; 16]).unwrap();
    file.as_file().set_len(len).unwrap();
    for aio in [Aio::Sync, Aio::Threads, Aio::IoUring] {
        let options = RawOptions { aio, ..RawOptions::new(file.path()) };
        let blk = Blk::new(BlkOptions::new(Image::open_zoned(&options).unwrap())).unwrap();
        let mut disk = Harness::new(blk);
        let driver = disk.driver(0);
        (0..10).for_each(|_| zoned_round(driver));
        let before = counting::allocations();
        (0..40).for_each(|_| zoned_round(driver));
        assert_eq!(counting::allocations() - before, 0, "zones, {aio:?}");
    }
}
