//! The configuration space and the features (virtio 1.3 §5.2.3, §5.2.4).

use std::sync::atomic::Ordering;

use parador_block::{Image, SECTOR};
use virtio_bindings::virtio_blk as v;

use super::Shared;
use super::request::{MAX_DISCARD_SECTORS, MAX_RANGES, MAX_WRITE_ZEROES_SECTORS};

/// Up to and including the write-zeroes fields; secure erase and zones are further on.
pub(super) const LEN: usize = 60;

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
    } else {
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

/// `struct virtio_blk_config`.
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
    put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
    put(40, &(MAX_RANGES as u32).to_le_bytes());
    put(44, &sectors(discard.max(shared.logical_block)).to_le_bytes());
    put(48, &MAX_WRITE_ZEROES_SECTORS.to_le_bytes());
    put(52, &(MAX_RANGES as u32).to_le_bytes());
    // write_zeroes_may_unmap
    put(56, &[u8::from(shared.image.discard_granularity().is_some())]);
    space
}
