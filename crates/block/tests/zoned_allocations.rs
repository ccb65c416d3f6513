//! A zoned disk at work allocates nothing. Alone in its binary, because it counts for the whole process.
#![cfg(not(loom))]
#![expect(unsafe_code, reason = "the memory of a request is named by Buffer::new")]
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[expect(dead_code, reason = "nobody is left out here")]
#[path = "../../devices/tests/counting/mod.rs"]
mod counting;

use parador_block::zoned::image::Metadata;
use parador_block::zoned::{Geometry, Zone};
use parador_block::{Aio, Buffer, Disk, Image, Op, RawOptions, Submitted, ZoneAction};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

const ZONE: u64 = 1 << 20;
const BLOCK: u64 = 4096;

/// Writes, appends and reads, also from where nothing is written, 16 at once in two pieces each.
fn round(image: &Image, disk: &mut dyn Disk, memory: &mut [u8]) {
    let mut in_flight = 0;
    for (index, memory) in (0..16u64).zip(memory.chunks_exact_mut(2 * BLOCK as usize)) {
        let (base, len) = (memory.as_mut_ptr(), memory.len() / 2);
        // SAFETY: the memory outlives the requests, which are over when this returns.
        let piece =
            |at| unsafe { Buffer::new(libc::iovec { iov_base: base.wrapping_add(at).cast(), iov_len: len }) };
        let buffers = [piece(0), piece(len)];
        let zone = index % 4 * ZONE;
        let op = match index / 4 {
            0 => Op::Write { offset: zone + pointer(image, zone), buffers: &buffers },
            1 => Op::Append { zone, buffers: &buffers },
            2 => Op::Read { offset: zone, buffers: &buffers },
            _ => Op::Read { offset: zone + pointer(image, zone) - BLOCK, buffers: &buffers },
        };
        match disk.submit(op, index as u32) {
            Submitted::Done(outcome) => drop(outcome.unwrap()),
            Submitted::InFlight => in_flight += 1,
        }
    }
    while in_flight > 0 {
        disk.wait();
        while let Some((_, outcome)) = disk.reap() {
            outcome.unwrap();
            in_flight -= 1;
        }
    }
}

fn pointer(image: &Image, zone: u64) -> u64 {
    let nothing = Zone {
        start: 0,
        capacity: 0,
        condition: parador_block::zoned::Condition::Empty,
        write_pointer: None,
    };
    let mut zones = [nothing];
    image.zoned().unwrap().report((zone / ZONE) as u32, &mut zones).unwrap();
    zones[0].write_pointer.unwrap() - zone
}

#[test]
fn no_request_allocates() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut memory = vec![1; 32 * BLOCK as usize];
    for aio in [Aio::Sync, Aio::Threads, Aio::IoUring] {
        let geometry = Geometry { max_open: 3, ..Geometry::new(8 * ZONE, ZONE) }.checked().unwrap();
        let len = Metadata::create(file.as_file(), geometry, [1; 16]).unwrap();
        file.as_file().set_len(len).unwrap();
        let image = Image::open_zoned(&RawOptions { aio, ..RawOptions::new(file.path()) }).unwrap();
        let mut disk = image.queue(32).unwrap();
        (0..10).for_each(|_| round(&image, &mut *disk, &mut memory));
        let mut several = || {
            let before = counting::allocations();
            (0..8).for_each(|_| round(&image, &mut *disk, &mut memory));
            counting::allocations() - before
        };
        // A thread that begins late on a busy host allocates once; requests would do so every time.
        let least = (0..5).map(|_| several()).min();
        assert_eq!(least, Some(0), "{aio:?}");
        // The count counts: the first request that takes a thread of its own is seen.
        let before = counting::allocations();
        let _ = disk.submit(Op::Zone { action: ZoneAction::Reset, zone: 0 }, 0);
        assert!(counting::allocations() > before);
    }
}
