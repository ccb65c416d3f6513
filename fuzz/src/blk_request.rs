//! The request parser of the disk under any bytes, cut into any descriptors.
//!
//! Shared by the fuzz target and by a replay among the tests of the crate.

use parador_devices::blk::request::{
    self, DESCRIPTOR_LEN, Limits, MAX_RANGES, REPORT_HEADER_LEN, Refusal, Request, Zones,
};
use parador_virtio::Queue;
use parador_virtio::ids::VIRTIO_F_INDIRECT_DESC;
use parador_virtio::testing::Driver;
use parador_virtio::testing::hostile::Source;

const SECTOR: u64 = 512;
/// The header's types: those there are, and some there are not.
const KINDS: [u32; 18] = [0, 1, 2, 4, 5, 8, 11, 13, 14, 15, 16, 17, 18, 20, 22, 24, 26, u32::MAX];
/// The most bytes of an append.
const MAX_APPEND: u64 = 8192;

/// Parses the request in `bytes`.
///
/// # Panics
/// The parser lets through what the disk could not do.
pub fn exercise(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let limits = Limits {
        capacity: source.choose(&[0, 1, 8, 2048, u64::MAX / SECTOR, u64::MAX]),
        read_only: source.below(4) == 0,
        discard: source.below(4) != 0,
        write_zeroes: source.below(4) != 0,
        zones: source.choose(&[
            Zones::None,
            Zones::Unknown,
            Zones::HostManaged { max_append: MAX_APPEND },
            Zones::HostManaged { max_append: MAX_APPEND },
        ]),
    };
    let mut readable = Vec::new();
    if source.below(4) != 0 {
        readable.extend(source.choose(&KINDS).to_le_bytes());
        readable.extend(source.u32().to_le_bytes());
        readable
            .extend(if source.below(2) == 0 { u64::from(source.u16()) } else { source.u64() }.to_le_bytes());
    }
    let writable = cut(&mut source.clone(), usize::from(source.u16()) % 8192);
    let indirect = source.below(2) == 0;
    let pieces = source.u8();
    readable.extend(source.rest());
    readable.truncate(64 << 10);
    let lens = cut(&mut Source::new(&[pieces, pieces.rotate_left(3), pieces.rotate_left(5)]), readable.len());
    let mut rest = &readable[..];
    let parts: Vec<&[u8]> = lens
        .iter()
        .map(|&len| {
            let (part, after) = rest.split_at(len);
            rest = after;
            part
        })
        .collect();

    let mut driver = Driver::new(1 << 18, 16, VIRTIO_F_INDIRECT_DESC);
    let added = match indirect {
        true => driver.add_indirect(&parts, &writable),
        false => driver.add(&parts, &writable),
    };
    if added.is_none() {
        return;
    }
    driver.publish();
    let mut queue = Queue::new(&driver.setup(0, driver.state())).expect("a good ring");
    let chain = queue.pop().expect("a good ring").expect("with a chain in it");
    let mut ranges = Vec::new();
    let result = request::parse(&chain, &limits, &mut ranges);
    let fits = |offset: u64, len: u64| {
        offset.is_multiple_of(SECTOR)
            && len.is_multiple_of(SECTOR)
            && (offset / SECTOR).checked_add(len / SECTOR).is_some_and(|end| end <= limits.capacity)
    };
    let zoned = matches!(limits.zones, Zones::HostManaged { .. });
    assert!(limits.zones != Zones::Unknown || matches!(result, Ok(Request::SerialNumber) | Err(_)));
    match result {
        Ok(Request::Read { offset, len }) => {
            assert!(fits(offset, len as u64) && len < chain.writable_len());
        }
        Ok(Request::Write { offset, len }) => {
            assert!(!limits.read_only);
            assert!(fits(offset, len as u64) && len + 16 == chain.readable_len());
        }
        Ok(Request::Discard | Request::WriteZeroes) => {
            assert!(!limits.read_only && (1..=MAX_RANGES).contains(&ranges.len()));
            assert!(ranges.iter().all(|range| fits(range.offset, range.len)));
        }
        Ok(Request::Append { zone, len }) => {
            assert!(zoned && !limits.read_only && fits(zone, SECTOR) && len as u64 <= MAX_APPEND);
            assert!(len.is_multiple_of(512) && len + 16 == chain.readable_len() && chain.writable_len() >= 9);
        }
        Ok(Request::Zone { zone, .. }) => {
            assert!(zoned && !limits.read_only && (zone == 0 || fits(zone, SECTOR)));
        }
        Ok(Request::Report { offset, zones }) => {
            let len = REPORT_HEADER_LEN + zones * DESCRIPTOR_LEN;
            assert!(zoned && fits(offset, SECTOR) && len < chain.writable_len());
        }
        Ok(Request::Flush | Request::SerialNumber) => {}
        Err(Refusal::NoStatus) => assert_eq!(chain.writable_len(), 0),
        Err(Refusal::Status(_)) => {}
    }
    assert!(result == Err(Refusal::NoStatus) || chain.writable_len() > 0, "there is room for a status");
    queue.push(chain, 0);
}

/// Cuts `len` bytes into up to four pieces, none of them empty.
fn cut(source: &mut Source<'_>, mut len: usize) -> Vec<usize> {
    let mut pieces = Vec::new();
    while len > 0 && pieces.len() < 3 {
        let piece = 1 + usize::from(source.u8()) * len / 256;
        pieces.push(piece.min(len));
        len -= piece.min(len);
    }
    pieces.extend((len > 0).then_some(len));
    pieces
}
