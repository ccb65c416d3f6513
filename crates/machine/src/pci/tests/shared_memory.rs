//! Shared memory of devices: where the guest finds it, what is in it, and when.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parador_virtio::testing::Arena;
use parador_virtio::{SharedPiece, SharedRegion};

use super::virtio::{NEEDED, started, strict};
use crate::pci::testing::{
    Bare, Guest, HIGH, LOW, ModelHost, PciDriver, REGIONS, STATUS_NEEDS_RESET, Strict, memory_file,
};
use crate::pci::{AttachError, PciAddress, PciRoot, Windows};

const PAGE: u64 = 4096;
/// The BAR of a device with [`REGIONS`].
const BAR: u64 = 4 << 20;

fn page(region: u8, offset: u64) -> SharedPiece {
    SharedPiece { region, offset, len: PAGE }
}

/// Eight pages, each filled with its number.
fn pages() -> File {
    let file = memory_file(8 * PAGE);
    for number in 0..8 {
        file.write_all_at(&[number as u8; PAGE as usize], number * PAGE).unwrap();
    }
    file
}

fn error(result: std::io::Result<()>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn regions_are_in_a_wide_bar_of_their_own() {
    let (mut guest, driver, _) = strict();
    assert_eq!(
        driver.shared,
        [
            (REGIONS[0].id, HIGH.start, REGIONS[0].size),
            (REGIONS[1].id, HIGH.start + (2 << 20), REGIONS[1].size),
        ]
    );
    assert_eq!(guest.config::<4>(driver.address(), 0x18)[0], 0xC, "64 bits, prefetchable");
    assert_eq!(guest.host.memory(), [(HIGH.start, BAR)], "decoding is on");
    guest.set_config(driver.address(), 4, &[0]);
    assert_eq!(guest.host.memory(), []);
    guest.set_config(driver.address(), 0x18, &[0xFF; 8]);
    assert_eq!(guest.config::<8>(driver.address(), 0x18), (!(BAR - 1) | 0xC).to_le_bytes());
}

#[test]
fn regions_wider_than_32_bits_are_told_whole() {
    let size = 5 << 32;
    let guest = Guest::new();
    let device = Bare::with_shared_memory([SharedRegion { id: 0, size }]);
    let address = guest.root.attach_virtio(Box::new(device), None).unwrap();
    let mut guest = guest;
    let driver = PciDriver::probe(&mut guest, address);
    assert_eq!(driver.shared, [(0, HIGH.start, size)]);
}

#[test]
fn a_guest_reads_and_writes_the_file_that_is_mapped() {
    let (mut guest, _, watch) = strict();
    let (file, memory) = (pages(), watch.shared_memory());
    memory.map(page(1, PAGE), &file, 3 * PAGE, true).unwrap();
    memory.map(SharedPiece { region: 200, offset: 0, len: 2 * PAGE }, &file, 4 * PAGE, false).unwrap();
    assert_eq!(guest.load::<2>(HIGH.start + PAGE - 1), [0, 3], "nothing, then the file");
    assert_eq!(guest.load::<2>(HIGH.start + (2 << 20) + PAGE - 1), [4, 5]);
    guest.write(HIGH.start + PAGE + 8, b"guest");
    let mut data = [0; 5];
    file.read_exact_at(&mut data, 3 * PAGE + 8).unwrap();
    assert_eq!(&data, b"guest");
    memory.unmap(page(1, PAGE)).unwrap();
    assert_eq!(guest.load::<2>(HIGH.start + PAGE), [0, 0]);
}

#[test]
fn pieces_are_whole_pages_inside_a_region() {
    let (_guest, _, watch) = strict();
    let (file, memory) = (pages(), watch.shared_memory());
    let piece = |region, offset, len| SharedPiece { region, offset, len };
    for wrong in [
        piece(0, 0, PAGE),
        piece(1, 0, 0),
        piece(1, 1, PAGE),
        piece(1, 0, PAGE - 1),
        piece(1, 3 * PAGE, PAGE),
        piece(1, 2 * PAGE, 2 * PAGE),
        piece(1, u64::MAX - PAGE + 1, PAGE),
        piece(1, PAGE, u64::MAX - PAGE + 1),
        piece(200, (2 << 20) - PAGE, 2 * PAGE),
    ] {
        assert_eq!(error(memory.map(wrong, &file, 0, true)), ErrorKind::InvalidInput, "{wrong:?}");
        assert_eq!(error(memory.unmap(wrong)), ErrorKind::NotFound, "{wrong:?}");
    }
    assert_eq!(error(memory.map(page(1, 0), &file, 5, true)), ErrorKind::InvalidInput);
    assert_eq!(error(memory.map(page(1, 0), &file, 1 << 63, true)), ErrorKind::InvalidInput);
}

#[test]
fn what_is_mapped_is_not_mapped_over_and_is_unmapped_whole() {
    let (_guest, _, watch) = strict();
    let (file, memory) = (pages(), watch.shared_memory());
    let piece = |offset, count| SharedPiece { region: 200, offset: offset * PAGE, len: count * PAGE };
    memory.map(piece(4, 4), &file, 0, false).unwrap();
    for over in [piece(4, 4), piece(4, 1), piece(7, 1), piece(7, 8), piece(0, 5), piece(0, 16), piece(5, 2)] {
        assert_eq!(error(memory.map(over, &file, 0, false)), ErrorKind::AlreadyExists, "{over:?}");
    }
    memory.map(piece(8, 1), &file, 0, false).unwrap();
    memory.map(piece(3, 1), &file, 0, false).unwrap();
    for part in [piece(4, 3), piece(5, 3), piece(4, 5), piece(3, 5), piece(0, 1)] {
        assert_eq!(error(memory.unmap(part)), ErrorKind::NotFound, "{part:?}");
    }
    memory.unmap(piece(4, 4)).unwrap();
    assert_eq!(error(memory.unmap(piece(4, 4))), ErrorKind::NotFound);
    memory.map(piece(4, 4), &file, 0, false).unwrap();
}

#[test]
fn a_file_that_cannot_be_mapped_leaves_everything_as_it_was() {
    let (mut guest, _, watch) = strict();
    let memory = watch.shared_memory();
    let nothing = File::open("/dev").unwrap();
    let read_only = File::open("/proc/self/exe").unwrap();
    assert!(memory.map(page(1, 0), &nothing, 0, false).is_err());
    assert_eq!(error(memory.map(page(1, 0), &read_only, 0, true)), ErrorKind::PermissionDenied);
    assert_eq!(guest.load::<4>(HIGH.start), [0; 4]);
    memory.map(page(1, 0), &read_only, 0, false).unwrap();
    assert_eq!(guest.load::<4>(HIGH.start), *b"\x7fELF");
}

#[test]
fn a_reset_unmaps_everything_and_begins_anew() {
    let (mut guest, driver, watch) = strict();
    let before = watch.shared_memory();
    for reset in [true, false] {
        let memory = watch.shared_memory();
        memory.map(page(1, 0), &pages(), PAGE, true).unwrap();
        assert_eq!(guest.load::<1>(HIGH.start), [1]);
        if reset {
            driver.write(&mut guest, 0x14, &[0]);
            assert_eq!(guest.host.memory(), [(HIGH.start, BAR)], "the driver's reset leaves the BAR there");
            assert_eq!(guest.load::<1>(HIGH.start), [0]);
        } else {
            guest.root.reset();
            assert_eq!(guest.host.memory(), []);
            PciDriver::probe(&mut guest, driver.address());
            assert_eq!(guest.load::<1>(HIGH.start), [0]);
        }
        assert!(memory.unmap(page(1, 0)).is_err(), "of another life");
    }
    assert_eq!(error(before.map(page(1, 0), &pages(), 0, true)), ErrorKind::Other, "of another life");
    assert_eq!(guest.load::<1>(HIGH.start), [0]);
}

#[test]
fn the_memory_follows_its_bar_with_what_is_in_it() {
    let (mut guest, driver, watch) = strict();
    watch.shared_memory().map(page(1, 0), &pages(), 2 * PAGE, false).unwrap();
    for to in [HIGH.start + BAR, HIGH.end - BAR, LOW.end - BAR, HIGH.start] {
        guest.set_config(driver.address(), 0x18, &to.to_le_bytes());
        assert_eq!(guest.host.memory(), [(to, BAR)]);
        assert_eq!(guest.load::<1>(to), [2]);
    }
    for outside in [HIGH.end, 0, u64::MAX] {
        guest.set_config(driver.address(), 0x18, &outside.to_le_bytes());
        assert_eq!(guest.host.memory(), []);
    }
    guest.set_config(driver.address(), 0x18, &HIGH.start.to_le_bytes());
    assert_eq!(guest.load::<1>(HIGH.start), [2]);
}

#[test]
fn of_two_in_one_place_the_first_is_seen() {
    let (mut guest, driver, watch) = strict();
    let (other, other_watch) = Strict::new();
    let second = guest.root.attach_virtio(Box::new(other), None).unwrap();
    watch.shared_memory().map(page(1, 0), &pages(), PAGE, false).unwrap();
    other_watch.shared_memory().map(page(1, 0), &pages(), 2 * PAGE, false).unwrap();
    PciDriver::probe(&mut guest, second);
    assert_eq!(guest.host.memory(), [(HIGH.start, BAR), (HIGH.start + BAR, BAR)]);
    guest.set_config(second, 0x18, &HIGH.start.to_le_bytes());
    assert_eq!(guest.host.memory(), [(HIGH.start, BAR)]);
    assert_eq!(guest.load::<1>(HIGH.start), [1]);
    // Over registers of another function, which were there first.
    guest.set_config(second, 0x18, &LOW.start.to_le_bytes());
    assert_eq!(guest.host.memory(), [(HIGH.start, BAR)]);
    assert_eq!(guest.load::<2>(driver.common + 0x12), [3, 0]);
}

#[test]
fn memory_that_a_guest_may_not_touch_so_is_taken_away_until_a_reset() {
    let shorter = pages();
    type Touch = fn(&mut Guest);
    let touches: [(&str, Touch); 3] = [
        ("writes where nothing is", |guest| guest.write(HIGH.start + 2 * PAGE, &[1])),
        ("writes where it may read", |guest| guest.write(HIGH.start, &[1])),
        ("reads beyond a file's end", |guest| assert_eq!(guest.load::<1>(HIGH.start + PAGE), [0xFF])),
    ];
    for (what, touch) in touches {
        let (mut guest, driver, watch) = started(NEEDED);
        shorter.set_len(2 * PAGE).unwrap();
        watch.shared_memory().map(page(1, 0), &shorter, 0, false).unwrap();
        watch.shared_memory().map(page(1, PAGE), &shorter, PAGE, true).unwrap();
        shorter.set_len(PAGE).unwrap();
        touch(&mut guest);
        assert_eq!(guest.host.memory(), [], "{what}");
        assert_ne!(driver.status(&mut guest) & STATUS_NEEDS_RESET, 0, "{what}");
        assert_eq!(guest.load::<1>(HIGH.start), [0xFF], "what is not there reads all ones");
        guest.write(HIGH.start, &[1]);
        guest.set_config(driver.address(), 0x18, &(HIGH.start + BAR).to_le_bytes());
        assert_eq!(guest.host.memory(), [], "nor elsewhere");
        driver.write(&mut guest, 0x14, &[0]);
        assert_eq!(guest.host.memory(), [(HIGH.start + BAR, BAR)], "{what}");
        assert_eq!(guest.load::<1>(HIGH.start + BAR), [0]);
    }
}

#[test]
fn giving_up_is_counted_only_where_there_was_something() {
    let (guest, _, _) = strict();
    assert_eq!(guest.root.give_up_memory(), 1);
    assert_eq!(guest.root.give_up_memory(), 1);
}

#[test]
fn a_host_that_does_not_show_memory_leaves_it_reading_all_ones() {
    let (mut guest, driver, _) = strict();
    guest.host.refuse_memory(true);
    guest.set_config(driver.address(), 0x18, &(HIGH.start + BAR).to_le_bytes());
    assert_eq!(guest.host.memory(), []);
    assert_eq!(guest.load::<4>(HIGH.start + BAR), [0xFF; 4]);
}

#[test]
fn regions_that_cannot_be_are_refused() {
    let region = |id, size| SharedRegion { id, size };
    let attach = |regions: &[SharedRegion]| {
        let device = Bare::with_shared_memory(regions.iter().copied());
        Guest::new().root.attach_virtio(Box::new(device), None)
    };
    for wrong in [
        &[region(0, 0)][..],
        &[region(0, 100)],
        &[region(1, PAGE), region(1, PAGE)],
        &[region(1, PAGE), region(0, PAGE)],
        &[region(0, PAGE), region(1, PAGE), region(2, PAGE), region(3, PAGE)],
        &[region(0, u64::MAX - PAGE + 1)],
        &[region(0, 1 << 63), region(1, 1 << 63)],
    ] {
        let refused = attach(wrong);
        assert!(matches!(refused, Err(AttachError::SharedMemory(_))), "{wrong:?}: {refused:?}");
    }
    assert!(attach(&[region(0, PAGE), region(7, PAGE), region(255, PAGE)]).is_ok());
    // More than this process, and than the window, has addresses for.
    assert!(matches!(attach(&[region(0, 1 << 63)]), Err(AttachError::NoAddresses { .. })));
    assert!(matches!(attach(&[region(0, 1 << 37)]), Err(AttachError::NoRoom(_))));
}

#[test]
fn without_a_wide_window_the_memory_is_below_four_gib() {
    let windows = Windows { low: LOW, high: None };
    let arena = Arena::new(1 << 20);
    let root = PciRoot::new(Arc::new(ModelHost::default()), Arc::clone(arena.memory()), windows).unwrap();
    let device = Bare::with_shared_memory([SharedRegion { id: 0, size: PAGE }]);
    assert_eq!(root.attach_virtio(Box::new(device), None).unwrap(), PciAddress::new(0, 1, 0).unwrap());
}
