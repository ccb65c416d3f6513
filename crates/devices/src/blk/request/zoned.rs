//! What only a disk with zones is asked (virtio 1.3 §5.2.6).

use parador_block::ZoneAction;
use parador_virtio::Reader;
use virtio_bindings::virtio_blk as v;

use super::{IO_ERR, Limits, Refusal, Request, SECTOR, Status, UNSUPP};

/// What zones are to a disk and its driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zones {
    /// The disk has none.
    None,
    /// The disk has some, and the driver did not accept `VIRTIO_BLK_F_ZONED`. Over vhost-user nobody
    /// keeps such a driver away: it may ask for the serial number, and nothing else.
    Unknown,
    /// The disk has some, and the driver knows.
    HostManaged {
        /// The most bytes of one append.
        max_append: u64,
    },
}

/// Bytes that come first in a report: le64 nr_zones and padding.
pub const REPORT_HEADER_LEN: usize = 64;

/// Bytes of a zone in a report.
pub const DESCRIPTOR_LEN: usize = 64;

/// The least a driver has room for in an append: le64 append_sector, u8 status. Linux has 16 bytes:
/// the sector comes first and the status last, whatever is between them.
const APPEND_ROOM: usize = 9;

const INVALID_CMD: Refusal = Refusal::Status(Status::ZoneInvalidCmd);

/// Parses what follows the header of a request of type `kind`, which has `room` bytes for its
/// answer beside the status.
pub(super) fn parse(
    kind: u32,
    sector: u64,
    reader: &Reader<'_>,
    room: usize,
    limits: &Limits,
) -> Result<Request, Refusal> {
    let Zones::HostManaged { max_append } = limits.zones else { return Err(UNSUPP) };
    let action = match kind {
        v::VIRTIO_BLK_T_ZONE_APPEND => None,
        v::VIRTIO_BLK_T_ZONE_REPORT => {
            let zones = room.checked_sub(REPORT_HEADER_LEN).ok_or(IO_ERR)? / DESCRIPTOR_LEN;
            let offset = inside(sector, limits)?;
            return Ok(Request::Report { offset, zones });
        }
        v::VIRTIO_BLK_T_ZONE_OPEN => Some(ZoneAction::Open),
        v::VIRTIO_BLK_T_ZONE_CLOSE => Some(ZoneAction::Close),
        v::VIRTIO_BLK_T_ZONE_FINISH => Some(ZoneAction::Finish),
        v::VIRTIO_BLK_T_ZONE_RESET => Some(ZoneAction::Reset),
        v::VIRTIO_BLK_T_ZONE_RESET_ALL => Some(ZoneAction::ResetAll),
        _ => return Err(UNSUPP),
    };
    if limits.read_only {
        return Err(IO_ERR);
    }
    match action {
        // Its sector means nothing.
        Some(action @ ZoneAction::ResetAll) => Ok(Request::Zone { action, zone: 0 }),
        Some(action) => Ok(Request::Zone { action, zone: inside(sector, limits)? }),
        None => {
            let len = reader.remaining();
            if room + 1 < APPEND_ROOM || !len.is_multiple_of(SECTOR as usize) {
                return Err(IO_ERR);
            }
            let zone = inside(sector, limits)?;
            if len as u64 > max_append { Err(INVALID_CMD) } else { Ok(Request::Append { zone, len }) }
        }
    }
}

/// Where `sector` is, in bytes, if it is on the disk.
fn inside(sector: u64, limits: &Limits) -> Result<u64, Refusal> {
    let place = (sector < limits.capacity).then(|| sector.checked_mul(SECTOR)).flatten();
    place.ok_or(INVALID_CMD)
}
