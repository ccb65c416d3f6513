//! The configuration space and the features (virtio 1.3 §5.2.3, §5.2.4).

use std::sync::atomic::Ordering;

use parador_block::zoned::Geometry;
use parador_block::{Image, SECTOR};
use virtio_bindings::virtio_blk as v;

use super::Shared;
use super::request::{MAX_DISCARD_SECTORS, MAX_RANGES, MAX_WRITE_ZEROES_SECTORS};

/// Up to and including the write-zeroes fields: all that a disk without zones has.
const PLAIN_LEN: usize = 60;
/// The whole `struct virtio_blk_config`. Of what lies between, secure erase, there is nothing.
const LEN: usize = 96;

/// What Linux takes a segment of a request for.
const SEGMENT: u64 = 4096;

/// Offset of `writeback`, the one field a driver writes.
const WRITEBACK: usize = 32;

/// A feature's bit, from its number.
pub(super) const fn bit(number: u32) -> u64 {
    1 << number
}

/// What a disk over `image` offers. A driver that is offered no flush knows that completed writes
/// are durable (§5.2.5.2), which is what `sync` means.
pub(super) fn features(image: &Image, queues: u16, sync: bool) -> u64 {
    let mut features =
        bit(v::VIRTIO_BLK_F_SEG_MAX) | bit(v::VIRTIO_BLK_F_BLK_SIZE) | bit(v::VIRTIO_BLK_F_TOPOLOGY);
    if !sync {
        features |= bit(v::VIRTIO_BLK_F_FLUSH) | bit(v::VIRTIO_BLK_F_CONFIG_WCE);
    }
    if queues > 1 {
        features |= bit(v::VIRTIO_BLK_F_MQ);
    }
    if image.is_read_only() {
        features |= bit(v::VIRTIO_BLK_F_RO);
    }
    if image.zoned().is_some() {
        // What a discard or zeroes would do to a write pointer is not written anywhere.
        features |= bit(v::VIRTIO_BLK_F_ZONED);
    } else if !image.is_read_only() {
        features |= bit(v::VIRTIO_BLK_F_WRITE_ZEROES);
        if image.discard_granularity().is_some() {
            features |= bit(v::VIRTIO_BLK_F_DISCARD);
        }
    }
    features
}

pub(super) fn offers_wce(features: u64) -> bool {
    features & bit(v::VIRTIO_BLK_F_CONFIG_WCE) != 0
}

/// Without which a driver must not have the disk: one that does not know zones would take the first
/// write that a zone refuses for a broken medium.
pub(super) fn required(features: u64) -> u64 {
    features & bit(v::VIRTIO_BLK_F_ZONED)
}

/// Length of the configuration space.
pub(super) fn len(features: u64) -> usize {
    if required(features) == 0 { PLAIN_LEN } else { LEN }
}

/// The most bytes of one append: what a zone takes, and a request of `segments` pieces has
/// (§5.2.5.1).
pub(super) fn max_append(geometry: &Geometry, segments: u16) -> u64 {
    geometry.max_append.min(u64::from(segments) * SEGMENT)
}

/// `writeback` after a reset.
pub(super) fn initial_writeback(features: u64) -> bool {
    offers_wce(features)
}

/// Whether a completed write must be durable, for a driver that accepted `features` (§5.2.5.2).
pub(super) fn is_writethrough(shared: &Shared, features: u64) -> bool {
    let flushes = features & bit(v::VIRTIO_BLK_F_FLUSH) != 0;
    !flushes || (offers_wce(features) && !shared.writeback.load(Ordering::Relaxed))
}

/// What a write to the configuration space makes of `writeback`; `None` when it does not touch it.
pub(super) fn written_writeback(offset: usize, data: &[u8]) -> Option<bool> {
    let byte = data.get(WRITEBACK.checked_sub(offset)?)?;
    Some(byte & 1 != 0)
}

/// `struct virtio_blk_config`, zeroes where the disk has nothing.
pub(super) fn space(shared: &Shared) -> [u8; LEN] {
    let sectors = |bytes: u32| bytes / SECTOR;
    let topology = shared.image.topology();
    let in_blocks = |bytes: u32| bytes / shared.logical_block;
    let aligned = topology.alignment_offset.checked_rem(shared.physical_block).unwrap_or(0);
    let exponent = (shared.physical_block / shared.logical_block).trailing_zeros();
    let discard = shared.image.discard_granularity().unwrap_or(shared.logical_block);

    let mut space = [0; LEN];
    let mut put = |at: usize, bytes: &[u8]| space[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &shared.capacity.load(Ordering::Relaxed).to_le_bytes());
    put(12, &u32::from(shared.segments).to_le_bytes());
    put(20, &shared.logical_block.to_le_bytes());
    // topology: physical_block_exp, alignment_offset, min_io_size, opt_io_size, in logical blocks.
    put(24, &[exponent as u8, u8::try_from(in_blocks(aligned)).unwrap_or(0)]);
    put(26, &u16::try_from(in_blocks(topology.minimum_io)).unwrap_or(0).to_le_bytes());
    put(28, &in_blocks(topology.optimal_io).to_le_bytes());
    put(WRITEBACK, &[u8::from(shared.writeback.load(Ordering::Relaxed))]);
    put(34, &shared.queues.to_le_bytes());
    if let Some(zoned) = shared.image.zoned() {
        let geometry = zoned.geometry();
        let sectors = |bytes: u64| u32::try_from(bytes / u64::from(SECTOR)).unwrap_or(u32::MAX);
        put(72, &sectors(geometry.zone_size).to_le_bytes());
        put(76, &geometry.max_open.to_le_bytes());
        put(80, &geometry.max_active.to_le_bytes());
        put(84, &sectors(max_append(geometry, shared.segments)).to_le_bytes());
        put(88, &geometry.granularity.to_le_bytes());
        put(92, &[v::VIRTIO_BLK_Z_HM as u8]);
        return space;
    }
    put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
    put(40, &(MAX_RANGES as u32).to_le_bytes());
    put(44, &sectors(discard.max(shared.logical_block)).to_le_bytes());
    put(48, &MAX_WRITE_ZEROES_SECTORS.to_le_bytes());
    put(52, &(MAX_RANGES as u32).to_le_bytes());
    // write_zeroes_may_unmap
    put(56, &[u8::from(shared.image.discard_granularity().is_some())]);
    space
}
