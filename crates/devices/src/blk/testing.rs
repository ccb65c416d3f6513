//! Requests no honest driver makes, against a disk that checks what reaches it.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use parador_block::zoned::image::Metadata;
use parador_block::zoned::{Geometry, Refusal};
use parador_block::{Aio, Buffer, Disk, Image, Op, Outcome, RawOptions, Submitted, Tag};
use parador_virtio::testing::hostile::{HostileRing, Source};
use parador_virtio::testing::{Driver, turn};
use parador_virtio::{GuestAddress, Queue, QueueHandler, QueueState, ids};
use virtio_bindings::virtio_blk as v;
use vm_memory::Bytes;

use super::queue::BlkQueue;
use super::request::{MAX_DISCARD_SECTORS, MAX_RANGES};
use super::{BlkOptions, Shared, config};

/// Size of the disk that is asked, in bytes.
const SIZE: u64 = 256 << 10;
/// Size of a zone, if it has some, in bytes.
const ZONE: u64 = 64 << 10;
/// The most bytes of an append.
const MAX_APPEND: u64 = 4096;

/// A disk that keeps no data and no promise about time. Nothing may reach it that it has to refuse.
struct Checking {
    zoned: bool,
    /// Whether the next requests are over at once, bit by bit.
    at_once: u64,
    /// What was asked, and how it will end.
    in_flight: VecDeque<(Tag, Outcome)>,
}

impl Disk for Checking {
    fn submit(&mut self, op: Op<'_>, tag: Tag) -> Submitted {
        let (offset, len) = match op {
            Op::Read { offset, buffers } | Op::Write { offset, buffers } => {
                (offset, buffers.iter().map(Buffer::len).sum::<usize>() as u64)
            }
            Op::Flush => (0, 0),
            Op::Discard { offset, len } | Op::WriteZeroes { offset, len, .. } => {
                assert!(len <= u64::from(MAX_DISCARD_SECTORS) * 512);
                (offset, len)
            }
            Op::Append { zone, buffers } => {
                let len = buffers.iter().map(Buffer::len).sum::<usize>() as u64;
                assert!(self.zoned && zone < SIZE && len <= MAX_APPEND, "an append that may be: {op:?}");
                (zone, len.min(SIZE - zone))
            }
            Op::Zone { zone, .. } => {
                assert!(self.zoned && zone < SIZE, "a zone that may be: {op:?}");
                (zone, 0)
            }
        };
        assert!(offset.is_multiple_of(512) && len.is_multiple_of(512), "whole sectors: {op:?}");
        assert!(offset.checked_add(len).is_some_and(|end| end <= SIZE), "inside the disk: {op:?}");
        self.at_once = self.at_once.rotate_left(1);
        let outcome = match self.at_once >> 2 & 7 {
            0 => Err(io::ErrorKind::Other.into()),
            1 if self.zoned => Err(Refusal::OpenResource.into()),
            2 if self.zoned => Err(Refusal::InvalidCommand.into()),
            _ => Ok(offset),
        };
        if self.at_once & 1 == 0 {
            return Submitted::Done(outcome);
        }
        self.in_flight.push_back((tag, outcome));
        Submitted::InFlight
    }

    fn kick(&mut self) {}

    fn reap(&mut self) -> Option<(Tag, Outcome)> {
        self.at_once = self.at_once.rotate_left(1);
        if self.at_once & 1 == 0 {
            return None;
        }
        self.in_flight.pop_back()
    }

    fn wait(&mut self) {
        self.at_once |= 1 << 63;
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn aio(&self) -> Aio {
        Aio::Sync
    }
}

/// Runs a disk's queue on whatever `bytes` say: the body of the fuzz target `blk_queue`. Half of
/// the inputs are sound chains with unsound requests in them, half are unsound rings.
///
/// # Panics
/// A request got through that should not have, or one did not come back.
pub fn exercise_requests(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let features = device_features(&mut source);
    let shared = Arc::new(shared(&mut source));
    let zoned = shared.image.zoned().is_some();
    let disk = Checking { zoned, at_once: source.u64(), in_flight: VecDeque::new() };
    let mut handler = BlkQueue::new(Box::new(disk), shared, 16);
    if source.below(2) == 0 {
        sound_chains(&mut handler, features, source);
    } else {
        rings(&mut handler, features, source);
    }
}

/// Chains of any cut; every one comes back once, with a status if there is room for one.
fn sound_chains(handler: &mut BlkQueue, features: u64, mut source: Source<'_>) {
    let mut driver = Driver::new(1 << 20, 16, features | ids::VIRTIO_F_VERSION_1);
    let setup = driver.setup(0, QueueState::default());
    let mut queue = Queue::new(&setup).expect("the model driver's ring is sound");
    while !source.is_empty() {
        let request = request(&mut source);
        let mut readable = Vec::new();
        let mut rest = request.as_slice();
        while !rest.is_empty() && readable.len() < 5 {
            let (piece, after) = rest.split_at((source.below(40) + 1).min(rest.len()));
            readable.push(piece);
            rest = after;
        }
        readable.extend((!rest.is_empty()).then_some(rest));
        let writable: Vec<usize> =
            (0..source.below(4)).map(|_| source.choose(&[1, 2, 20, 511, 512, 513, 1024])).collect();
        let added = driver.add(&readable, &writable).is_some();
        if !added || source.below(4) == 0 {
            driver.publish();
            turn(&mut queue, |queue| handler.run(queue)).expect("the ring is sound");
            check_used(&mut driver);
        }
    }
    driver.publish();
    turn(&mut queue, |queue| handler.run(queue)).expect("the ring is sound");
    handler.drain(&mut queue).expect("the ring is sound");
    queue.flush();
    check_used(&mut driver);
    assert_eq!(driver.in_flight(), 0, "every chain comes back");
}

/// Rings that may be broken; at the end nothing is in flight.
fn rings(handler: &mut BlkQueue, features: u64, mut source: Source<'_>) {
    /// Turns for one input: enough to use up any.
    const TURNS: usize = 64;
    let mut ring = HostileRing::new(&mut source);
    ring.setup.features |= features;
    for place in [0x2100, 0x3ff8, 0x5000] {
        // Some requests for the descriptors to point at.
        let request = request(&mut source);
        drop(ring.setup.memory.write_slice(&request, GuestAddress(place)));
    }
    let Ok(mut queue) = Queue::new(&ring.setup) else { return };
    for _ in 0..TURNS {
        if turn(&mut queue, |queue| handler.run(queue)).is_err() || source.is_empty() {
            break;
        }
        ring.mutate(&mut source);
    }
    handler.drain(&mut queue).expect("what is in flight can come back");
    queue.flush();
}

fn check_used(driver: &mut Driver) {
    while let Some(used) = driver.take_used() {
        let Some(&status) = used.data.last() else { continue };
        assert!(matches!(status, 0..=3 | 5), "status {status}");
        assert!(status == 0 || used.written <= 1, "a failed request claims no data");
    }
}

/// A header, most of the time a possible one, and some data.
fn request(source: &mut Source<'_>) -> Vec<u8> {
    let kinds = [0, 1, 4, 8, 11, 13, 0, 1, 15, 16, 18, 20, 22, 24, 26, 15];
    let kind = if source.below(16) == 0 { source.u32() } else { source.choose(&kinds) };
    let sectors = SIZE / 512;
    let sector = source.choose(&[0, 1, sectors - 1, sectors, u64::MAX, u64::MAX / 512, 1 << 55, ZONE / 512]);
    let mut request = [kind.to_le_bytes(), source.array()].concat();
    request.extend(sector.to_le_bytes());
    if source.below(16) == 0 {
        request.truncate(source.below(16));
        return request;
    }
    match kind {
        v::VIRTIO_BLK_T_DISCARD | v::VIRTIO_BLK_T_WRITE_ZEROES => {
            for _ in 0..source.below(MAX_RANGES + 2) {
                request.extend(source.choose(&[0, 8, sectors - 1, u64::MAX]).to_le_bytes());
                request.extend(source.choose(&[0u32, 1, 8, MAX_DISCARD_SECTORS + 1, u32::MAX]).to_le_bytes());
                request.extend(source.choose(&[0u32, 0, 0, 1, 2, 1 << 31]).to_le_bytes());
            }
            request.extend(vec![0; source.choose(&[0, 0, 0, 1, 15])]);
        }
        _ => request.extend(vec![source.u8(); source.choose(&[0, 1, 511, 512, 513, 1024])]),
    }
    request
}

fn device_features(source: &mut Source<'_>) -> u64 {
    let all = [
        v::VIRTIO_BLK_F_FLUSH,
        v::VIRTIO_BLK_F_CONFIG_WCE,
        v::VIRTIO_BLK_F_DISCARD,
        v::VIRTIO_BLK_F_WRITE_ZEROES,
        v::VIRTIO_BLK_F_ZONED,
    ];
    let chosen = source.u8();
    let bits = all.iter().enumerate().filter(|(index, _)| chosen & 1 << index == 0);
    bits.map(|(_, &feature)| config::bit(feature)).sum()
}

/// A disk of [`SIZE`] bytes, sometimes a read-only one, sometimes one with zones.
fn shared(source: &mut Source<'_>) -> Shared {
    static IMAGES: OnceLock<[Image; 3]> = OnceLock::new();
    let images = IMAGES.get_or_init(|| {
        let plain = image("plain", |_| SIZE, Image::open);
        let read_only = image(
            "read-only",
            |_| SIZE,
            |options| Image::open(&RawOptions { read_only: true, ..options.clone() }),
        );
        let zones = Geometry { conventional: 1, max_append: MAX_APPEND, ..Geometry::new(SIZE, ZONE) };
        let zoned = image(
            "zoned",
            |file| Metadata::create(file, zones, [1; 16]).expect("the host has room for it"),
            Image::open_zoned,
        );
        [plain, read_only, zoned]
    });
    let image = &images[source.below(images.len())];
    let shared = Shared::new(&BlkOptions::new(image.clone())).expect("the defaults suit it");
    shared.writeback.store(source.below(2) == 0, Ordering::Relaxed);
    shared
}

/// An image in a file that is gone already; `make` says how long it is.
fn image(
    name: &str,
    make: impl Fn(&File) -> u64,
    open: impl Fn(&RawOptions) -> Result<Image, parador_block::Error>,
) -> Image {
    let path = std::env::temp_dir().join(format!("parador-blk-{}-{name}", std::process::id()));
    let created = File::options().read(true).write(true).create_new(true).open(&path);
    let file = created.expect("a temporary file can be made");
    file.set_len(make(&file)).expect("a sparse file takes no space");
    let image = open(&RawOptions::new(&path));
    std::fs::remove_file(&path).expect("it was just made");
    image.expect("it is an image")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        #[test]
        fn whatever_a_driver_asks(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
            super::exercise_requests(&bytes);
        }
    }

    #[test]
    fn a_short_run_of_the_fuzz_target() {
        parador_virtio::testing::seeds(2000, 1500).for_each(|bytes| super::exercise_requests(&bytes));
    }
}
