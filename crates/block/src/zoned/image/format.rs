//! The metadata of a zoned image as bytes: docs/zoned-image.md says the same in words.
//!
//! Everything is in blocks of 4096 bytes that end up on disk or not, each with a checksum over all of
//! it. Numbers are little-endian.

use super::super::{Condition, Geometry};

/// Bytes of a block of metadata.
pub(crate) const BLOCK: usize = 4096;
/// The version of the format that this code reads and writes.
pub(crate) const VERSION: u32 = 1;
/// Copies of the superblock, at the file's start.
pub(crate) const SUPERBLOCKS: u64 = 2;
/// Blocks in a place of the journal: the same twice, so that one may be lost.
pub(crate) const COPIES: u64 = 2;
/// Records in a block, behind its header and a count.
pub(crate) const RECORDS: usize = (BLOCK - HEADER - 8) / RECORD;
/// Where data starts is a multiple of this.
const DATA_ALIGN: u64 = 1 << 20;
/// Places in the journal of a new image, and the most that one can have: all are read.
const JOURNAL_PLACES: u64 = 256;
const MOST_PLACES: u64 = 1 << 14;
/// The last checkpoint that an image is opened or repaired with: nobody writes so many that come after it.
pub(crate) const LAST_EPOCH: u64 = u64::MAX / 2;

const MAGIC: [u8; 8] = *b"ParaZone";
const HEADER: usize = 48;
const RECORD: usize = 16;
/// Where in a block its checksum is.
const CRC: std::ops::Range<usize> = 12..16;

/// What a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    Superblock = 1,
    Checkpoint = 2,
    Journal = 3,
}

/// What a block says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Which image it belongs to.
    pub(crate) uuid: [u8; 16],
    /// Counts checkpoints.
    pub(crate) epoch: u64,
    /// Its place among those of its kind and epoch.
    pub(crate) sequence: u64,
}

/// What lasts of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) zone: u32,
    pub(crate) condition: Condition,
    /// Bytes written, from the zone's start.
    pub(crate) pointer: u64,
}

/// What never changes of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) uuid: [u8; 16],
    pub(crate) geometry: Geometry,
    pub(crate) layout: Layout,
}

/// Where what is in the file, in bytes from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The two checkpoints, one after the other.
    pub(crate) checkpoints: u64,
    /// Blocks in each.
    pub(crate) checkpoint_blocks: u64,
    pub(crate) journal: u64,
    /// Places in it, of [`COPIES`] blocks each.
    pub(crate) places: u64,
    /// Zones as they are now, for the next process on the same running host.
    pub(crate) live: u64,
    /// The first zone.
    pub(crate) data: u64,
}

/// Why a block is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bad {
    /// There never was one: it does not begin as one does.
    Foreign,
    /// Its checksum is not that of its bytes.
    Checksum,
    /// It is whole, and makes no sense.
    Nonsense,
}

impl Layout {
    /// Of a new image.
    pub(crate) fn new(geometry: &Geometry) -> Self {
        let block = BLOCK as u64;
        let zones = u64::from(geometry.zones());
        let checkpoint_blocks = zones.div_ceil(RECORDS as u64);
        let checkpoints = SUPERBLOCKS * block;
        let journal = checkpoints + 2 * checkpoint_blocks * block;
        let live = journal + JOURNAL_PLACES * COPIES * block;
        let end = live + super::live::bytes(geometry.zones());
        let data = end.next_multiple_of(DATA_ALIGN);
        Self { checkpoints, checkpoint_blocks, journal, places: JOURNAL_PLACES, live, data }
    }

    /// Whether its parts follow one another and have room for what `geometry` needs.
    fn fits(&self, geometry: &Geometry) -> bool {
        let Self { checkpoints, checkpoint_blocks, journal, places, live, data } = *self;
        let block = BLOCK as u64;
        let aligned = [checkpoints, journal, live, data].iter().all(|at| at.is_multiple_of(block));
        let needed = u64::from(geometry.zones()).div_ceil(RECORDS as u64);
        let small = checkpoint_blocks <= 1 << 20 && (2..=MOST_PLACES).contains(&places) && data <= 1 << 40;
        aligned
            && small
            && checkpoint_blocks == needed
            && checkpoints >= SUPERBLOCKS * block
            && journal >= checkpoints.saturating_add(2 * checkpoint_blocks * block)
            && live >= journal.saturating_add(places * COPIES * block)
            && data >= live.saturating_add(super::live::bytes(geometry.zones()))
    }

    /// Where checkpoint `which` (0 or 1) is.
    pub(crate) fn checkpoint(&self, which: u64) -> u64 {
        self.checkpoints + which * self.checkpoint_blocks * BLOCK as u64
    }

    /// Where copy `copy` of place `place` of the journal is.
    pub(crate) fn place(&self, place: u64, copy: u64) -> u64 {
        self.journal + (place * COPIES + copy) * BLOCK as u64
    }
}

/// A block that says `header` and `payload`, with its checksum.
pub(crate) fn seal(header: Header, payload: &[u8]) -> Box<[u8; BLOCK]> {
    let mut block = Box::new([0; BLOCK]);
    let Header { kind, uuid, epoch, sequence } = header;
    block[..8].copy_from_slice(&MAGIC);
    block[8..12].copy_from_slice(&(kind as u32).to_le_bytes());
    block[16..32].copy_from_slice(&uuid);
    block[32..40].copy_from_slice(&epoch.to_le_bytes());
    block[40..48].copy_from_slice(&sequence.to_le_bytes());
    block[HEADER..HEADER + payload.len()].copy_from_slice(payload);
    let crc = crc32c::crc32c(&block[..]);
    block[CRC].copy_from_slice(&crc.to_le_bytes());
    block
}

/// What a block says, if its checksum is right: header and payload.
pub(crate) fn open(block: &[u8; BLOCK]) -> Result<(Header, &[u8]), Bad> {
    if block[..8] != MAGIC {
        return Err(Bad::Foreign);
    }
    let mut copy = *block;
    copy[CRC].fill(0);
    if block[CRC] != crc32c::crc32c(&copy).to_le_bytes() {
        return Err(Bad::Checksum);
    }
    let kind = match u32_at(block, 8) {
        1 => Kind::Superblock,
        2 => Kind::Checkpoint,
        3 => Kind::Journal,
        _ => return Err(Bad::Nonsense),
    };
    let uuid = block[16..32].try_into().expect("16 bytes");
    Ok((Header { kind, uuid, epoch: u64_at(block, 32), sequence: u64_at(block, 40) }, &block[HEADER..]))
}

/// A payload of at most [`RECORDS`] records.
pub(crate) fn records_payload(records: &[Record]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(8 + records.len() * RECORD);
    payload.extend((records.len() as u64).to_le_bytes());
    for Record { zone, condition, pointer } in records {
        payload.extend(zone.to_le_bytes());
        payload.extend([*condition as u8, 0, 0, 0]);
        payload.extend(pointer.to_le_bytes());
    }
    payload
}

/// The records in a payload.
pub(crate) fn records(payload: &[u8]) -> Result<Vec<Record>, Bad> {
    let count = usize::try_from(u64_at(payload, 0)).ok().filter(|count| *count <= RECORDS);
    let count = count.ok_or(Bad::Nonsense)?;
    payload[8..8 + count * RECORD].chunks_exact(RECORD).map(record).collect()
}

fn record(bytes: &[u8]) -> Result<Record, Bad> {
    let condition = Condition::from_number(bytes[4]).ok_or(Bad::Nonsense)?;
    Ok(Record { zone: u32_at(bytes, 0), condition, pointer: u64_at(bytes, 8) })
}

impl Record {
    /// Whether a zone of `geometry` can be so.
    pub(crate) fn is_possible(&self, geometry: &Geometry) -> bool {
        let Self { zone, condition, pointer } = *self;
        if zone >= geometry.zones() {
            return false;
        }
        let capacity = geometry.capacity_of(zone);
        let aligned = pointer.is_multiple_of(u64::from(geometry.granularity));
        let conventional = geometry.is_conventional(zone);
        aligned
            && pointer <= capacity
            && match condition {
                Condition::NotWritePointer => conventional && pointer == 0,
                Condition::Empty => !conventional && pointer == 0,
                Condition::Closed => !conventional && (1..capacity).contains(&pointer),
                Condition::Full => !conventional,
                Condition::ReadOnly | Condition::Offline => true,
                // They are written down as closed or empty.
                Condition::ImplicitlyOpen | Condition::ExplicitlyOpen => false,
            }
    }
}

impl Superblock {
    /// Its bytes; both copies are the same.
    pub(crate) fn block(&self) -> Box<[u8; BLOCK]> {
        let Self { uuid, geometry, layout } = *self;
        let Geometry {
            capacity,
            zone_size,
            zone_capacity,
            conventional,
            max_open,
            max_active,
            max_append,
            granularity,
        } = geometry;
        let Layout { checkpoints, checkpoint_blocks, journal, places, live, data } = layout;
        let mut payload = Vec::new();
        for number in [VERSION, granularity, conventional, max_open, max_active, 0] {
            payload.extend(number.to_le_bytes());
        }
        let numbers = [
            capacity,
            zone_size,
            zone_capacity,
            max_append,
            checkpoints,
            checkpoint_blocks,
            journal,
            places,
            live,
            data,
        ];
        payload.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        seal(Header { kind: Kind::Superblock, uuid, epoch: 0, sequence: 0 }, &payload)
    }

    /// The version of the format in a superblock whose checksum is right.
    pub(crate) fn version(payload: &[u8]) -> u32 {
        u32_at(payload, 0)
    }

    /// What `payload` says, of a superblock of [`VERSION`].
    pub(crate) fn parse(header: &Header, payload: &[u8]) -> Result<Self, Bad> {
        let [granularity, conventional, max_open, max_active] = [4, 8, 12, 16].map(|at| u32_at(payload, at));
        let number = |index: usize| u64_at(payload, 24 + 8 * index);
        let geometry = Geometry {
            capacity: number(0),
            zone_size: number(1),
            zone_capacity: number(2),
            conventional,
            max_open,
            max_active,
            max_append: number(3),
            granularity,
        };
        let layout = Layout {
            checkpoints: number(4),
            checkpoint_blocks: number(5),
            journal: number(6),
            places: number(7),
            live: number(8),
            data: number(9),
        };
        let sound = header.kind == Kind::Superblock
            && geometry.checked().is_ok_and(|checked| checked == geometry)
            && layout.fits(&geometry);
        if sound { Ok(Self { uuid: header.uuid, geometry, layout }) } else { Err(Bad::Nonsense) }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock() -> Superblock {
        let geometry =
            Geometry { conventional: 2, max_open: 4, max_active: 8, ..Geometry::new(1 << 30, 4 << 20) };
        let geometry = geometry.checked().unwrap();
        Superblock { uuid: *b"0123456789abcdef", geometry, layout: Layout::new(&geometry) }
    }

    #[test]
    fn a_superblock_comes_back() {
        let block = superblock().block();
        let (header, payload) = open(&block).unwrap();
        assert_eq!(Superblock::version(payload), VERSION);
        assert_eq!(Superblock::parse(&header, payload), Ok(superblock()));
    }

    #[test]
    fn any_bit_that_flips_is_seen() {
        let block = superblock().block();
        for bit in 0..BLOCK * 8 {
            let mut flipped = block.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn records_come_back_and_too_many_are_nonsense() {
        let all: Vec<Record> = (0..RECORDS as u32)
            .map(|zone| Record { zone, condition: Condition::Closed, pointer: u64::from(zone) * 4096 })
            .collect();
        let block = seal(
            Header { kind: Kind::Journal, uuid: [1; 16], epoch: 2, sequence: 3 },
            &records_payload(&all),
        );
        assert_eq!(records(open(&block).unwrap().1), Ok(all));
        let mut payload = records_payload(&[]);
        payload[0..8].copy_from_slice(&(RECORDS as u64 + 1).to_le_bytes());
        payload.resize(BLOCK - HEADER, 0);
        assert_eq!(records(&payload), Err(Bad::Nonsense));
    }

    #[test]
    fn a_layout_has_room_for_every_geometry() {
        for (capacity, zone_size) in [(64 << 20, 1 << 20), (1 << 40, 64 << 20), (1 << 40, 1 << 20)] {
            let geometry = Geometry::new(capacity, zone_size).checked().unwrap();
            let layout = Layout::new(&geometry);
            assert!(layout.fits(&geometry));
            let mut overlapping = layout;
            overlapping.journal -= BLOCK as u64;
            assert!(!overlapping.fits(&geometry));
        }
    }
}
