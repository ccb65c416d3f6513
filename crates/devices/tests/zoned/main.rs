//! A disk with zones, driven end to end: what docs/zoned.md says of a device. Sectors are 512 bytes.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod appends;
mod commands;
mod conventional;
mod lasting;
mod negotiation;
mod reads;
mod reports;
mod resources;
mod writes;

use parador_block::zoned::Geometry;
use parador_block::zoned::image::Metadata;
use parador_block::{Aio, Image, RawOptions};
use parador_devices::blk::{Blk, BlkOptions};
use parador_virtio::testing::{Harness, Reply, UNTOUCHED};
use tempfile::NamedTempFile;

const ENGINES: [Aio; 3] = [Aio::Sync, Aio::Threads, Aio::IoUring];

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const SECURE_ERASE: u32 = 14;
const APPEND: u32 = 15;
const REPORT: u32 = 16;
const OPEN: u32 = 18;
const CLOSE: u32 = 20;
const FINISH: u32 = 22;
const RESET: u32 = 24;
const RESET_ALL: u32 = 26;

const OK: u8 = 0;
const IO_ERR: u8 = 1;
const UNSUPP: u8 = 2;
const INVALID_CMD: u8 = 3;
const UNALIGNED_WP: u8 = 4;
const OPEN_RESOURCE: u8 = 5;
const ACTIVE_RESOURCE: u8 = 6;

/// From the start of a zone to that of the next one, in sectors.
const ZONE: u64 = 128;
/// What can be written of a zone, in sectors.
const CAPACITY: u64 = 96;
/// What write pointers move by, in sectors.
const BLOCK: u64 = 8;
/// The disk, in sectors.
const SECTORS: u64 = 16 * ZONE;
/// The most sectors of an append.
const MAX_APPEND: u64 = 32;

/// Two conventional zones, then fourteen sequential ones.
fn geometry() -> Geometry {
    Geometry {
        zone_capacity: CAPACITY * 512,
        conventional: 2,
        max_append: MAX_APPEND * 512,
        ..Geometry::new(SECTORS * 512, ZONE * 512)
    }
}

/// Where the `number`th sequential zone starts.
const fn zone(number: u64) -> u64 {
    (2 + number) * ZONE
}

/// What a zone can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    NotWritePointer = 0,
    Empty = 1,
    Implicit = 2,
    Explicit = 3,
    Closed = 4,
    ReadOnly = 13,
    Full = 14,
    Offline = 15,
}
use State::{Closed, Empty, Explicit, Full, Implicit, NotWritePointer, Offline, ReadOnly};

/// A zone as a report has it, in sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    capacity: u64,
    start: u64,
    pointer: u64,
    kind: u8,
    state: State,
}

struct Disk {
    harness: Harness,
    image: Image,
    file: NamedTempFile,
}

impl Disk {
    fn new() -> Self {
        Self::with(geometry(), |_| {})
    }

    fn limited(max_open: u32, max_active: u32) -> Self {
        Self::with(Geometry { max_open, max_active, ..geometry() }, |_| {})
    }

    fn on(aio: Aio) -> Self {
        open(created(geometry()), aio)
    }

    fn with(geometry: Geometry, change: impl FnOnce(&mut BlkOptions)) -> Self {
        let (file, image) = image(geometry);
        let mut options = BlkOptions::new(image.clone());
        change(&mut options);
        Self { harness: Harness::new(Blk::new(options).unwrap()), image, file }
    }

    fn request(&mut self, kind: u32, sector: u64, data: &[u8], room: &[usize]) -> Reply {
        let header = header(kind, sector);
        let readable: Vec<&[u8]> = [&header, data].into_iter().filter(|part| !part.is_empty()).collect();
        self.harness.request(0, &readable, room)
    }

    /// A request that is answered by a status alone.
    fn ask(&mut self, kind: u32, sector: u64, data: &[u8]) -> u8 {
        let reply = self.request(kind, sector, data, &[1]);
        assert_eq!(reply.written, 1);
        reply.data[0]
    }

    /// What becomes of `OPEN`, `CLOSE`, `FINISH`, `RESET`.
    fn manage(&mut self, kind: u32, sector: u64) -> u8 {
        self.ask(kind, sector, &[])
    }

    fn write(&mut self, sector: u64, sectors: u64, byte: u8) -> u8 {
        self.ask(OUT, sector, &vec![byte; sectors as usize * 512])
    }

    /// Where an append went, or its status. As Linux does it: 16 bytes of room.
    fn append(&mut self, sector: u64, sectors: u64, byte: u8) -> Result<u64, u8> {
        let reply = self.request(APPEND, sector, &vec![byte; sectors as usize * 512], &[16]);
        let at = u64::from_le_bytes(reply.data[..8].try_into().unwrap());
        match reply.data[15] {
            OK => Ok(at),
            status => Err(status),
        }
    }

    /// What is on the disk, a byte for each sector, which all have to be of one kind.
    fn read(&mut self, sector: u64, sectors: u64) -> Result<Vec<u8>, u8> {
        let len = sectors as usize * 512;
        let reply = self.request(IN, sector, &[], &[len, 1]);
        if reply.data[len] != OK {
            return Err(reply.data[len]);
        }
        assert_eq!(reply.written as usize, len + 1);
        let of_sector = |bytes: &[u8]| {
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "half a sector");
            bytes[0]
        };
        Ok(reply.data[..len].chunks(512).map(of_sector).collect())
    }

    fn zones(&mut self) -> Vec<Told> {
        let reply = self.request(REPORT, 0, &[], &[64 + 64 * 20, 1]);
        told(&reply)
    }

    /// The zone that `sector` is in.
    fn told(&mut self, sector: u64) -> Told {
        let reply = self.request(REPORT, sector, &[], &[128, 1]);
        told(&reply)[0]
    }

    /// State and write pointer of the zone that `sector` is in, the pointer relative to it.
    fn state(&mut self, sector: u64) -> (State, u64) {
        let told = self.told(sector);
        (told.state, told.pointer.wrapping_sub(told.start))
    }

    /// Brings the empty zone at `sector` into a state; half written, where it can be.
    fn bring(&mut self, sector: u64, state: State) {
        let half = |disk: &mut Self| assert_eq!(disk.write(sector, 48, 1), OK);
        let fail = |disk: &Self, offline| {
            let zone = u32::try_from(sector / ZONE).unwrap();
            disk.image.zoned().unwrap().fail(zone, offline).unwrap();
        };
        match state {
            NotWritePointer | Empty => {}
            Implicit => half(self),
            Explicit => {
                half(self);
                assert_eq!(self.manage(OPEN, sector), OK);
            }
            Closed => {
                half(self);
                assert_eq!(self.manage(CLOSE, sector), OK);
            }
            Full => assert_eq!(self.write(sector, CAPACITY, 1), OK),
            ReadOnly | Offline => {
                half(self);
                fail(self, state == Offline);
            }
        }
        assert_eq!(self.told(sector).state, state);
    }
}

/// A disk of the image in `file`.
fn open(file: NamedTempFile, aio: Aio) -> Disk {
    let image = Image::open_zoned(&RawOptions { aio, ..RawOptions::new(file.path()) }).unwrap();
    let harness = Harness::new(Blk::new(BlkOptions::new(image.clone())).unwrap());
    Disk { harness, image, file }
}

fn created(geometry: Geometry) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    let len = Metadata::create(file.as_file(), geometry.checked().unwrap(), [7; 16]).unwrap();
    file.as_file().set_len(len).unwrap();
    file
}

fn image(geometry: Geometry) -> (NamedTempFile, Image) {
    let file = created(geometry);
    let image = Image::open_zoned(&RawOptions::new(file.path())).unwrap();
    (file, image)
}

fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    header
}

/// The zones in the answer to a `REPORT`.
fn told(reply: &Reply) -> Vec<Told> {
    let (status, data) = reply.data.split_last().unwrap();
    assert_eq!(*status, OK);
    let number = |at: usize| u64::from_le_bytes(data[at..at + 8].try_into().unwrap());
    assert_eq!(data[8..64], [0; 56], "the header's padding");
    let zone = |at: usize| {
        assert_eq!(data[at + 26..at + 64], [0; 38], "a zone's padding");
        let states = [NotWritePointer, Empty, Implicit, Explicit, Closed, ReadOnly, Full, Offline];
        let state = states.into_iter().find(|state| *state as u8 == data[at + 25]);
        Told {
            capacity: number(at),
            start: number(at + 8),
            pointer: number(at + 16),
            kind: data[at + 24],
            state: state.expect("a state there is"),
        }
    };
    (1..=number(0) as usize).map(|index| zone(index * 64)).collect()
}
