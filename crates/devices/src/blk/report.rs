//! What a disk tells of its zones (virtio 1.3 §5.2.6, `VIRTIO_BLK_T_ZONE_REPORT`).

use std::io;

use parador_block::SECTOR;
use parador_block::zoned::{Condition, Geometry, Zone, Zoned};
use parador_virtio::Chain;
use virtio_bindings::virtio_blk as v;

use super::request::{DESCRIPTOR_LEN, REPORT_HEADER_LEN};

/// How many zones are asked for at once.
const PIECE: usize = 64;

const NOTHING: Zone = Zone { start: 0, capacity: 0, condition: Condition::Offline, write_pointer: None };

/// Writes a header and up to `zones` zones, from the one that has `offset` in it on, to the writable
/// part of `chain`, which has room for them. Says how many bytes that was.
///
/// # Errors
/// What the host says.
pub(super) fn write(zoned: &dyn Zoned, chain: &Chain, offset: u64, zones: usize) -> io::Result<usize> {
    let geometry = zoned.geometry();
    let mut next = geometry.zone_at(offset).ok_or(io::ErrorKind::InvalidInput)?;
    let mut writer = chain.writer();
    let _ = writer.write_all(&[0; REPORT_HEADER_LEN]);
    let (mut piece, mut told) = ([NOTHING; PIECE], 0);
    while told < zones {
        let wanted = (zones - told).min(PIECE);
        let count = zoned.report(next, &mut piece[..wanted])?;
        for zone in &piece[..count] {
            let _ = writer.write_all(&descriptor(geometry, next, zone));
            next += 1;
        }
        told += count;
        if count == 0 {
            break;
        }
    }
    let _ = writer.patch(0, &(told as u64).to_le_bytes());
    Ok(writer.written())
}

/// `struct virtio_blk_zone_descriptor`: le64 z_cap, z_start, z_wp; u8 z_type, z_state; zeroes.
fn descriptor(geometry: &Geometry, number: u32, zone: &Zone) -> [u8; DESCRIPTOR_LEN] {
    let Zone { start, capacity, condition, write_pointer } = *zone;
    let sectors = |bytes: u64| bytes / u64::from(SECTOR);
    let pointer = match (write_pointer, condition) {
        (Some(at), _) => sectors(at),
        (None, Condition::Full) => sectors((start + geometry.zone_size).min(geometry.capacity)),
        // What no write pointer could be.
        (None, _) => u64::MAX,
    };
    let kind = if geometry.is_conventional(number) { v::VIRTIO_BLK_ZT_CONV } else { v::VIRTIO_BLK_ZT_SWR };
    let mut descriptor = [0; DESCRIPTOR_LEN];
    for (at, value) in [(0, sectors(capacity)), (8, sectors(start)), (16, pointer)] {
        descriptor[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    descriptor[24] = kind as u8;
    descriptor[25] = condition as u8;
    descriptor
}
