//! Disks that are copied from and to a device that is as strict as one of the host.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::{Conversion, ConvertError, Drive, Source, Unfit};
use crate::zoned::Condition::{self, Closed, Empty, Full, NotWritePointer, Offline, ReadOnly};
use crate::zoned::Write;
use crate::zoned::device::Limits;
use crate::zoned::device::testing::{self, BLOCK, LIMITS, SECTOR, Shared, ZONE};
use crate::zoned::image::{Check, Metadata, States};
use crate::{Aio, Buffer, Image, Op, RawOptions, Submitted, ZoneAction};

/// What the zones of [`drive`] are, and how much of each is written.
const ZONES: [(Condition, u64); 8] = [
    (NotWritePointer, 0),
    (Full, ZONE),
    (Closed, 3 * BLOCK),
    (Empty, 0),
    (Full, 2 * BLOCK),
    (Closed, ZONE - BLOCK),
    (Offline, 0),
    (ReadOnly, 5 * BLOCK),
];

/// A byte that is never zero, nor the same in two blocks that follow each other.
fn byte(offset: u64) -> u8 {
    (offset / BLOCK % 251 + 1) as u8
}

fn fill(shared: &Shared, zone: u64, len: u64) {
    for offset in zone * ZONE..zone * ZONE + len {
        shared.with(|drive| drive.data[offset as usize] = byte(offset));
    }
}

/// A device with something in it.
fn full_drive() -> Shared {
    let shared = testing::new();
    for (number, condition, written) in
        [(1, 14, ZONE), (2, 2, 3 * BLOCK), (4, 14, 2 * BLOCK), (5, 4, ZONE - BLOCK), (6, 15, 0), (7, 13, 0)]
    {
        shared.with(|drive| {
            let zone = drive.zone(number * ZONE);
            (zone.condition, zone.write_pointer) = (condition, zone.start + written / SECTOR);
        });
        fill(&shared, number, written);
    }
    fill(&shared, 0, BLOCK);
    fill(&shared, 7, 5 * BLOCK);
    shared
}

fn drive(shared: &Shared) -> Drive {
    limited(shared, LIMITS)
}

fn limited(shared: &Shared, limits: Limits) -> Drive {
    Drive::with(Box::new(shared.clone()), 8 * ZONE, limits).unwrap()
}

/// Copies all; how many bytes that were.
fn run(mut conversion: Conversion<'_>) -> Result<u64, ConvertError> {
    let mut all = 0;
    while let Some(bytes) = conversion.step()? {
        all += bytes;
    }
    Ok(all)
}

fn to_image(source: &Source) -> File {
    let file = tempfile::tempfile().unwrap();
    assert_eq!(run(Conversion::to_image(source, &file, [7; 16]).unwrap()).unwrap(), source.written());
    file
}

/// An image that is open, and a write of two blocks to its zone 3, whose data is there.
fn written_image() -> (File, Metadata, Write) {
    let image = tempfile::tempfile().unwrap();
    let geometry = *drive(&testing::new()).geometry();
    image.set_len(Metadata::create(&image, geometry, [1; 16]).unwrap()).unwrap();
    let metadata = Metadata::open(&image).unwrap();
    let write = metadata.zones().append(3 * ZONE, 2 * BLOCK).unwrap();
    image.write_all_at(&[5; 2 * BLOCK as usize], metadata.data_offset() + write.offset).unwrap();
    (image, metadata, write)
}

/// The zones of an image, which is sound, and its data.
fn contents(file: &File) -> (Vec<(Condition, u64)>, Vec<u8>) {
    assert_eq!(Check::of(file).unwrap().findings(), []);
    let States { superblock, zones, .. } = States::of(file).unwrap();
    let mut data = vec![0; 8 * ZONE as usize];
    file.read_exact_at(&mut data, superblock.layout.data).unwrap();
    (zones, data)
}

#[test]
fn a_device_becomes_an_image_and_that_a_device_again() {
    let shared = full_drive();
    let source = Source::device(drive(&shared));
    let image = to_image(&source);
    let (zones, data) = contents(&image);
    // What of a full or read-only zone is written a device does not say: it is all of it.
    let mut expected = ZONES;
    (expected[4].1, expected[7].1) = (ZONE, ZONE);
    assert_eq!(zones, expected);
    shared.with(|drive| assert_eq!(data, drive.data));
    // It is an image that works.
    let metadata = Metadata::open(&image).unwrap();
    assert_eq!(metadata.zones().at_rest(2), (Closed, 3 * BLOCK));
    metadata.close().unwrap();

    let source = Source::image(&image).unwrap();
    assert_eq!(source.lost(), [(6, Offline), (7, ReadOnly)]);
    let copy = testing::new();
    let target = drive(&copy);
    let unfit = Conversion::to_device(&source, &target, false).unwrap().err();
    assert_eq!(unfit, Some(Unfit::MayNotBeEmpty(1)));
    copy.with(|drive| assert!(drive.asked.is_empty()));
    run(Conversion::to_device(&source, &target, true).unwrap().unwrap()).unwrap();
    copy.with(|drive| {
        assert_eq!(drive.data, data);
        let state = |zone: &crate::sys::BlkZone| (zone.condition, zone.write_pointer * SECTOR % ZONE);
        let states: Vec<_> = drive.zones.iter().map(state).collect();
        let expected = [(0, 0), (14, 0), (4, 3 * BLOCK), (1, 0), (14, 0), (4, ZONE - BLOCK), (1, 0), (14, 0)];
        assert_eq!(states, expected);
        assert_eq!(drive.flushed, 1);
        let first = drive.asked.first();
        assert_eq!(first, Some(&(ZoneAction::Close, 5, 1)), "full zones come first, the first one late");
    });
}

#[test]
fn what_is_finished_early_is_finished_on_a_device() {
    let (image, metadata, write) = written_image();
    metadata.zones().complete(write);
    for zone in [3, 4] {
        metadata.finish(&metadata.zones().hold(zone * ZONE).unwrap()).unwrap();
    }
    metadata.close().unwrap();

    let source = Source::image(&image).unwrap();
    assert_eq!(contents(&to_image(&source)), contents(&image));
    let (shared, limits) = (testing::new(), Limits { max_active: 1, max_open: 1, ..LIMITS });
    run(Conversion::to_device(&source, &limited(&shared, limits), true).unwrap().unwrap()).unwrap();
    shared.with(|drive| {
        assert_eq!(drive.asked, [(ZoneAction::Finish, 4, 1), (ZoneAction::Finish, 3, 1)]);
        assert_eq!(drive.data[(3 * ZONE + 2 * BLOCK) as usize - 1..][..2], [5, 0]);
    });
}

#[test]
fn an_image_whose_process_was_killed_is_copied_as_it_was_left() {
    // Its write is still in flight.
    let (image, metadata, _write) = written_image();
    metadata.zones().open(4 * ZONE).unwrap();
    // Nobody flushes, nobody closes.
    std::mem::forget(metadata);
    let (zones, data) = contents(&to_image(&Source::image(&image).unwrap()));
    assert_eq!((zones[3], zones[4]), ((Closed, 2 * BLOCK), (Empty, 0)));
    assert_eq!(data[3 * ZONE as usize..][..2 * BLOCK as usize], [5; 2 * BLOCK as usize]);
}

#[test]
fn an_image_is_sparse_and_none_before_it_is_whole() {
    let shared = full_drive();
    // Zone 1 is full, of zeroes but for one block.
    shared.with(|drive| drive.data[ZONE as usize..][..(ZONE - BLOCK) as usize].fill(0));
    let source = Source::device(drive(&shared));
    let first = to_image(&source);
    let source = Source::image(&first).unwrap();
    let second = tempfile::tempfile().unwrap();
    let mut conversion = Conversion::to_image(&source, &second, [8; 16]).unwrap();
    loop {
        let whole = conversion.step().unwrap().is_none();
        assert_eq!(Check::of(&second).is_ok(), whole);
        if whole {
            break;
        }
    }
    assert_eq!(contents(&first), contents(&second));
    let space = second.metadata().unwrap().blocks() * 512;
    assert!(space <= 64 * BLOCK + 9 * (64 << 10), "{space}");
}

#[test]
fn a_device_that_does_not_fit_is_left_as_it_is() {
    type Case = (fn(&mut testing::Drive), Limits, Unfit);
    let (target, wanted) = (LIMITS, LIMITS);
    let cases: [Case; 6] = [
        (|drive| drive.zones[0] = drive.zones[3], LIMITS, Unfit::Conventional { target: 0, wanted: 1 }),
        (
            |drive| drive.zones[1..].iter_mut().for_each(|zone| zone.capacity = 96),
            LIMITS,
            Unfit::Capacity { zone: 1, target: 96 * SECTOR, wanted: ZONE },
        ),
        (|_| {}, Limits { max_active: 2, max_open: 2, ..target }, Unfit::Active { target: 2, wanted: 3 }),
        (|drive| drive.zones[2].condition = 13, wanted, Unfit::Lost(2)),
        (|drive| drive.zones[3].condition = 14, LIMITS, Unfit::NotEmpty(1)),
        (|_| {}, LIMITS, Unfit::MayNotBeEmpty(1)),
    ];
    let source = Source::device(drive(&full_drive()));
    for (change, limits, unfit) in cases {
        let shared = testing::new();
        shared.with(change);
        shared.with(|drive| (drive.zones[0].start, drive.zones[0].write_pointer) = (0, 0));
        let force = !matches!(unfit, Unfit::NotEmpty(_) | Unfit::MayNotBeEmpty(_));
        let target = limited(&shared, limits);
        let found = Conversion::to_device(&source, &target, force).unwrap().err();
        assert_eq!(found, Some(unfit));
        shared.with(|drive| assert!(drive.asked.is_empty() && drive.data.iter().all(|byte| *byte == 0)));
    }
}

#[test]
fn force_empties_a_device_first() {
    let blank = testing::new();
    let source = Source::device(drive(&blank));
    let shared = full_drive();
    shared.with(|drive| drive.zones[7].condition = 4);
    run(Conversion::to_device(&source, &drive(&shared), true).unwrap().unwrap()).unwrap();
    shared.with(|drive| {
        let conditions: Vec<_> = drive.zones.iter().map(|zone| zone.condition).collect();
        assert_eq!(conditions, [0, 1, 1, 1, 1, 1, 15, 1]);
        assert!(drive.data[..ZONE as usize].iter().all(|byte| *byte == 0), "the conventional zone");
    });
}

#[test]
fn an_error_of_the_host_names_the_zone_and_the_byte() {
    let shared = full_drive();
    shared.with(|drive| drive.bad = Some(2 * ZONE + BLOCK));
    let source = Source::device(drive(&shared));
    let file = tempfile::tempfile().unwrap();
    let error = run(Conversion::to_image(&source, &file, [7; 16]).unwrap()).unwrap_err();
    let said = format!("cannot read zone 2 of the source, at byte {} of the disk", 2 * ZONE);
    assert_eq!(error.to_string(), said);

    shared.with(|drive| drive.bad = None);
    let target = testing::new();
    target.with(|drive| drive.write_fails = Some(libc::EIO));
    let source = Source::device(drive(&shared));
    let error = run(Conversion::to_device(&source, &drive(&target), true).unwrap().unwrap()).unwrap_err();
    let said = format!("cannot write to zone 4 of the target, at byte {} of the disk", 4 * ZONE);
    assert_eq!(error.to_string(), said);
}

#[test]
fn a_source_that_changes_meanwhile_is_noticed() {
    let shared = full_drive();
    let source = Source::device(drive(&shared));
    let file = tempfile::tempfile().unwrap();
    let mut conversion = Conversion::to_image(&source, &file, [7; 16]).unwrap();
    conversion.step().unwrap();
    shared.with(|drive| drive.zones[3].condition = 14);
    let error = run(conversion).unwrap_err();
    assert!(matches!(error, ConvertError::Changed(3)), "{error}");
    assert!(Check::of(&file).is_err());
}

#[test]
fn a_zone_that_a_repair_made_full_can_be_read_and_is_copied() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let geometry = *drive(&testing::new()).geometry();
    let len = Metadata::create(file.as_file(), geometry, [1; 16]).unwrap();
    file.as_file().set_len(len).unwrap();
    let at = States::of(file.as_file()).unwrap().superblock.layout.data + 3 * ZONE + BLOCK;
    file.as_file().write_all_at(b"something", at).unwrap();
    for checkpoint in [2, 3] {
        file.as_file().write_all_at(&[1], checkpoint * BLOCK + 99).unwrap();
    }
    let check = Check::of(file.as_file()).unwrap();
    assert_eq!(check.changes(), [(3, Full)]);
    check.repair(file.as_file()).unwrap();
    let source = Source::image(file.as_file()).unwrap();
    assert_eq!(source.zones[3], (Full, ZONE));
    assert_eq!(contents(&to_image(&source)), contents(file.as_file()));
    drop(source);
    let options = RawOptions { aio: Aio::Sync, ..RawOptions::new(file.path()) };
    let image = Image::open_zoned(&options).unwrap();
    let mut read = vec![0; BLOCK as usize];
    let buffers = [Buffer::of(&mut read)];
    let op = Op::Read { offset: 3 * ZONE + BLOCK, buffers: &buffers };
    assert!(matches!(image.queue(1).unwrap().submit(op, 0), Submitted::Done(Ok(_))));
    assert_eq!(&read[..9], b"something");
}
