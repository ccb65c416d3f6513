//! What a driver asks of a disk, parsed once into owned values (virtio 1.3 §5.2.6).

mod zoned;

use parador_block::ZoneAction;
use parador_virtio::{Chain, Reader};
use virtio_bindings::virtio_blk as v;

pub use self::zoned::{DESCRIPTOR_LEN, REPORT_HEADER_LEN, Zones};

/// Length of a serial number in bytes (`VIRTIO_BLK_T_GET_ID`).
pub const SERIAL_LEN: usize = 20;

/// Ranges in one discard or write-zeroes request (`max_discard_seg`, `max_write_zeroes_seg`).
pub const MAX_RANGES: usize = 16;

/// Length of one range to discard, in sectors: 1 GiB.
pub const MAX_DISCARD_SECTORS: u32 = 1 << 21;

/// Length of one range to fill with zeroes, in sectors: 32 MiB, because the host may have to write them.
pub const MAX_WRITE_ZEROES_SECTORS: u32 = 1 << 16;

/// Bytes in a sector, the unit of the protocol whatever the block size.
const SECTOR: u64 = 512;

/// Length of the header: le32 type, le32 reserved, le64 sector.
const HEADER_LEN: usize = 16;

/// Length of a range: le64 sector, le32 num_sectors, le32 flags.
const RANGE_LEN: usize = 16;

const IO_ERR: Refusal = Refusal::Status(Status::IoErr);
const UNSUPP: Refusal = Refusal::Status(Status::Unsupp);

/// The status byte that ends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Ok = v::VIRTIO_BLK_S_OK as u8,
    /// Not done: a fault of the host, or a request that makes no sense.
    IoErr = v::VIRTIO_BLK_S_IOERR as u8,
    /// Not something this disk does.
    Unsupp = v::VIRTIO_BLK_S_UNSUPP as u8,
    /// The zone's kind or condition does not allow it, or it is in no zone, or in several.
    ZoneInvalidCmd = v::VIRTIO_BLK_S_ZONE_INVALID_CMD as u8,
    /// Not at the write pointer, or not whole blocks.
    ZoneUnalignedWp = v::VIRTIO_BLK_S_ZONE_UNALIGNED_WP as u8,
    /// Too many zones are open.
    ZoneOpenResource = v::VIRTIO_BLK_S_ZONE_OPEN_RESOURCE as u8,
    /// Too many zones are open or partly written.
    ZoneActiveResource = v::VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE as u8,
}

/// A valid request. Offsets and lengths are in bytes and inside the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Fill the first `len` bytes of the chain's writable part.
    Read {
        /// Where on the disk.
        offset: u64,
        /// A multiple of 512.
        len: usize,
    },
    /// Store the `len` bytes after the header in the chain's readable part.
    Write {
        /// Where on the disk.
        offset: u64,
        /// A multiple of 512.
        len: usize,
    },
    /// Make completed writes durable.
    Flush,
    /// Write the serial number to the writable part.
    SerialNumber,
    /// Discard the ranges.
    Discard,
    /// Fill the ranges with zeroes.
    WriteZeroes,
    /// Store the `len` bytes after the header at the write pointer of the zone that starts at `zone`,
    /// and write where that was to the first 8 bytes of the writable part.
    Append {
        /// Where on the disk; not always where a zone starts.
        zone: u64,
        /// A multiple of 512.
        len: usize,
    },
    /// Change the condition of the zone that starts at `zone`.
    Zone {
        /// How.
        action: ZoneAction,
        /// Where on the disk; not always where a zone starts.
        zone: u64,
    },
    /// Write what is known of the zones from the one at `offset` on to the writable part.
    Report {
        /// Where on the disk, anywhere in the zone.
        offset: u64,
        /// How many zones there is room for.
        zones: usize,
    },
}

/// A range of a discard or write-zeroes request, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Where on the disk.
    pub offset: u64,
    /// A multiple of 512.
    pub len: u64,
    /// Whether the space may be given back.
    pub unmap: bool,
}

/// Why there is nothing to do for a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It gets this status.
    Status(Status),
    /// It has no room for a status: it goes back with nothing written.
    NoStatus,
}

/// What requests are judged by.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Size of the disk in sectors.
    pub capacity: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether the driver accepted discard.
    pub discard: bool,
    /// Whether the driver accepted write-zeroes.
    pub write_zeroes: bool,
    /// What zones are to the disk and the driver.
    pub zones: Zones,
}

/// Takes a chain apart, however its descriptors are cut: the header is the first 16 bytes of what
/// the device reads, the status the last byte of what it writes.
///
/// `ranges` is storage: cleared, and filled for [`Request::Discard`] and [`Request::WriteZeroes`].
///
/// # Errors
/// What the driver gets instead.
pub fn parse(chain: &Chain, limits: &Limits, ranges: &mut Vec<Range>) -> Result<Request, Refusal> {
    ranges.clear();
    let room = chain.writable_len().checked_sub(1).ok_or(Refusal::NoStatus)?;
    let mut reader = chain.reader();
    let mut header = [0; HEADER_LEN];
    reader.read_exact(&mut header).ok_or(IO_ERR)?;
    let (kind, sector) = (le32(&header[..4]), le64(&header[8..]));
    match kind {
        v::VIRTIO_BLK_T_GET_ID => Ok(Request::SerialNumber),
        _ if limits.zones == Zones::Unknown => Err(UNSUPP),
        v::VIRTIO_BLK_T_IN => {
            let offset = limits.offset(sector, room as u64).ok_or(IO_ERR)?;
            Ok(Request::Read { offset, len: room })
        }
        v::VIRTIO_BLK_T_OUT if limits.read_only => Err(IO_ERR),
        v::VIRTIO_BLK_T_OUT => {
            let len = reader.remaining();
            let offset = limits.offset(sector, len as u64).ok_or(IO_ERR)?;
            Ok(Request::Write { offset, len })
        }
        v::VIRTIO_BLK_T_FLUSH => Ok(Request::Flush),
        v::VIRTIO_BLK_T_DISCARD | v::VIRTIO_BLK_T_WRITE_ZEROES if limits.read_only => Err(IO_ERR),
        v::VIRTIO_BLK_T_DISCARD if limits.discard => {
            // "The device MUST set the status to UNSUPP for discard commands if the unmap flag is set."
            limits.ranges(&mut reader, MAX_DISCARD_SECTORS, 0, ranges)?;
            Ok(Request::Discard)
        }
        v::VIRTIO_BLK_T_WRITE_ZEROES if limits.write_zeroes => {
            let flags = v::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
            limits.ranges(&mut reader, MAX_WRITE_ZEROES_SECTORS, flags, ranges)?;
            Ok(Request::WriteZeroes)
        }
        _ => zoned::parse(kind, sector, &reader, room, limits),
    }
}

impl Limits {
    /// Where on the disk, in bytes, `len` bytes from `sector` on are; `None` when they are not whole
    /// sectors inside it.
    fn offset(&self, sector: u64, len: u64) -> Option<u64> {
        let end = sector.checked_add(len / SECTOR)?;
        if !len.is_multiple_of(SECTOR) || end > self.capacity {
            return None;
        }
        sector.checked_mul(SECTOR)
    }

    /// Reads the ranges of a discard or write-zeroes request: each of at most `most` sectors, with no
    /// other flags than `flags`.
    fn ranges(
        &self,
        reader: &mut Reader<'_>,
        most: u32,
        flags: u32,
        ranges: &mut Vec<Range>,
    ) -> Result<(), Refusal> {
        let len = reader.remaining();
        if len == 0 || !len.is_multiple_of(RANGE_LEN) || len / RANGE_LEN > MAX_RANGES {
            return Err(IO_ERR);
        }
        let mut raw = [0; RANGE_LEN];
        while reader.read_exact(&mut raw).is_some() {
            let (sector, count, flag) = (le64(&raw[..8]), le32(&raw[8..12]), le32(&raw[12..]));
            if flag & !flags != 0 {
                return Err(UNSUPP);
            }
            let len = u64::from(count) * SECTOR;
            let offset = self.offset(sector, len).filter(|_| count <= most).ok_or(IO_ERR)?;
            let unmap = flag & v::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0;
            ranges.push(Range { offset, len, unmap });
        }
        Ok(())
    }
}

fn le32(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte))
}

fn le64(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}
