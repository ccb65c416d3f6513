//! Images that are looked at, checked and repaired.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs::File;
use std::os::unix::fs::FileExt;

use parador_block::zoned::image::{Check, Finding, Look, Metadata, Severity};
use parador_block::zoned::{Condition, Geometry};

const BLOCK: u64 = 4096;
const ZONE: u64 = 64 << 10;
const JOURNAL: u64 = 4 * BLOCK;

/// An image of eight zones, the first of them conventional.
fn image() -> File {
    let geometry = Geometry { conventional: 1, ..Geometry::new(8 * ZONE, ZONE) }.checked().unwrap();
    let file = tempfile::tempfile().unwrap();
    let len = Metadata::create(&file, geometry, *b"an image's name!").unwrap();
    file.set_len(len).unwrap();
    file
}

fn append(metadata: &Metadata, file: &File, zone: u64, blocks: u64) {
    let write = metadata.zones().append(zone * ZONE, blocks * BLOCK).unwrap();
    let data = vec![zone as u8; (blocks * BLOCK) as usize];
    file.write_all_at(&data, metadata.data_offset() + write.offset).unwrap();
    metadata.zones().complete(write);
}

/// Appends a block to zones 1, 2 and 3 in one flush each.
fn written(file: &File) -> Metadata {
    let metadata = Metadata::open(file).unwrap();
    for zone in 1..4 {
        append(&metadata, file, zone, 1);
        metadata.flush().unwrap();
    }
    metadata
}

/// What [`written`] leaves when the host stops after the last flush: nobody closes it.
fn stopped() -> File {
    let file = image();
    drop(written(&file));
    file.write_all_at(&[0; 44], JOURNAL + 512 * BLOCK).unwrap();
    file
}

fn spoil(file: &File, offset: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

fn findings(file: &File) -> Vec<Finding> {
    Check::of(file).unwrap().findings().to_vec()
}

/// The conditions of zones 1 to 3 once `file` has been repaired, which leaves nothing to find.
fn repaired(file: &File) -> [Condition; 3] {
    Check::of(file).unwrap().repair(file).unwrap();
    assert_eq!(findings(file), []);
    let metadata = Metadata::open(file).unwrap();
    let conditions = [1, 2, 3].map(|zone| metadata.zones().zone(zone).condition);
    metadata.close().unwrap();
    conditions
}

fn block_of_zone(file: &File, zone: u64) -> Vec<u8> {
    let mut data = vec![0; BLOCK as usize];
    file.read_exact_at(&mut data, Look::at(file).unwrap().data_offset + zone * ZONE).unwrap();
    data
}

#[test]
fn nothing_is_found_in_an_image_that_is_new_or_was_closed() {
    let file = image();
    assert_eq!(findings(&file), []);
    written(&file).close().unwrap();
    assert_eq!(findings(&file), []);
    assert_eq!(repaired(&file), [Condition::Closed; 3], "a repair that nothing needs changes nothing");
}

#[test]
fn a_look_sees_zones_as_they_are() {
    let file = image();
    assert!(!Look::at(&file).unwrap().live);
    let metadata = written(&file);
    append(&metadata, &file, 1, 2);
    let look = Look::at(&file).unwrap();
    assert!(look.live);
    assert_eq!((look.geometry, look.uuid), (*metadata.zones().geometry(), metadata.uuid()));
    let zones: Vec<_> = (0..8).map(|zone| metadata.zones().zone(zone)).collect();
    assert_eq!(look.zones, zones, "open zones and what nobody flushed, too");
    drop(metadata);
    assert_eq!(Look::at(&file).unwrap(), look, "it was killed");
    assert_eq!(findings(&file), [Finding::Killed]);
    Metadata::open(&file).unwrap().close().unwrap();
    let look = Look::at(&file).unwrap();
    assert!(!look.live);
    assert_eq!(look.zones[1].condition, Condition::Closed);
    assert_eq!(look.zones[1].write_pointer, Some(ZONE + 3 * BLOCK));
}

#[test]
fn what_nobody_flushed_before_a_power_cut_is_gone() {
    for closes in [false, true] {
        let file = image();
        written(&file).close().unwrap();
        let metadata = Metadata::open_forgetful(&file).unwrap();
        append(&metadata, &file, 1, 1);
        append(&metadata, &file, 5, 1);
        metadata.flush().unwrap();
        append(&metadata, &file, 1, 1);
        append(&metadata, &file, 6, 16);
        assert_eq!(metadata.zones().zone(6).condition, Condition::Full);
        if closes {
            metadata.close().unwrap();
        }
        drop(metadata);
        let opened = Metadata::open(&file).unwrap();
        let pointers = [1, 5, 6].map(|zone| opened.zones().at_rest(zone).1);
        assert_eq!(pointers, [2 * BLOCK, BLOCK, 0]);
        assert_eq!(block_of_zone(&file, 5), [5; BLOCK as usize]);
        assert_eq!(block_of_zone(&file, 6), [0; BLOCK as usize]);
    }
}

#[test]
fn what_is_there_twice_can_be_lost_once() {
    for (offset, found) in
        [(0, Finding::Superblock), (BLOCK + 100, Finding::Superblock), (JOURNAL + 50, Finding::Copy(0))]
    {
        let file = stopped();
        spoil(&file, offset);
        assert_eq!(findings(&file), [found]);
        assert_eq!(found.severity(), Severity::Spare);
        assert_eq!(repaired(&file), [Condition::Closed; 3]);
    }
}

#[test]
fn all_of_an_image_that_was_closed_is_there_twice() {
    // Both copies of a place of the journal, the last one too; or a checkpoint.
    let cases = [
        (JOURNAL, JOURNAL + BLOCK, Finding::Torn(0)),
        (JOURNAL + 2 * BLOCK, JOURNAL + 3 * BLOCK, Finding::Replaced(1)),
        (JOURNAL + 4 * BLOCK, JOURNAL + 5 * BLOCK, Finding::Replaced(2)),
        (2 * BLOCK, 2 * BLOCK + 1, Finding::OldCheckpoint(0)),
        (3 * BLOCK, 3 * BLOCK + 1, Finding::OldCheckpoint(1)),
    ];
    for (one, other, found) in cases {
        let file = image();
        written(&file).close().unwrap();
        let zones = Look::at(&file).unwrap().zones;
        spoil(&file, one);
        spoil(&file, other);
        assert_eq!(findings(&file), [found]);
        assert!(found.severity() < Severity::Loss);
        assert_eq!(Look::at(&file).unwrap().zones, zones, "{found}");
        let metadata = Metadata::open(&file).unwrap();
        assert_eq!(metadata.zones().at_rest(3), (Condition::Closed, BLOCK));
    }
}

#[test]
fn what_a_host_that_stops_leaves_is_no_damage() {
    let file = stopped();
    spoil(&file, JOURNAL + 4 * BLOCK);
    assert_eq!(findings(&file), [Finding::Torn(2)]);
    spoil(&file, JOURNAL + 5 * BLOCK);
    assert_eq!(findings(&file), [Finding::Torn(2)]);
    let check = Check::of(&file).unwrap();
    assert_eq!((check.worst(), check.changes()), (Some(Severity::Trace), &[][..]));
}

#[test]
fn data_whose_record_is_lost_stays() {
    let file = stopped();
    spoil(&file, JOURNAL + 2 * BLOCK);
    spoil(&file, JOURNAL + 3 * BLOCK);
    assert!(Metadata::open(&file).is_err());
    let check = Check::of(&file).unwrap();
    assert_eq!(check.findings(), [Finding::Place(1)]);
    assert_eq!(check.changes(), [(2, Condition::Full)]);
    assert_eq!(repaired(&file), [Condition::Closed, Condition::Full, Condition::Closed]);
    assert_eq!(block_of_zone(&file, 2), [2; BLOCK as usize]);
}

#[test]
fn without_checkpoints_all_data_stays() {
    let file = image();
    let metadata = written(&file);
    metadata.close().unwrap();
    // From then on it is in the checkpoints only.
    for _ in 0..2 {
        Metadata::open(&file).unwrap().close().unwrap();
    }
    spoil(&file, 2 * BLOCK);
    spoil(&file, 3 * BLOCK + 77);
    let check = Check::of(&file).unwrap();
    assert_eq!((check.findings(), check.worst()), (&[Finding::Checkpoints][..], Some(Severity::Loss)));
    let conditions = repaired(&file);
    for zone in 1..4 {
        assert_ne!(conditions[zone - 1], Condition::Empty);
        assert_eq!(block_of_zone(&file, zone as u64), [zone as u8; BLOCK as usize]);
    }
}

#[test]
fn a_checkpoint_that_the_journal_is_newer_than() {
    let file = stopped();
    // The newest of the two.
    let epoch = |which: u64| {
        let mut epoch = [0; 8];
        file.read_exact_at(&mut epoch, (2 + which) * BLOCK + 32).unwrap();
        u64::from_le_bytes(epoch)
    };
    spoil(&file, if epoch(0) > epoch(1) { 2 } else { 3 } * BLOCK + 60);
    let found = findings(&file);
    assert!(found.contains(&Finding::Newer), "{found:?}");
    assert_eq!(repaired(&file), [Condition::Closed; 3], "the journal is all there");
}

#[test]
fn a_bad_word_of_the_live_table_is_one_zones() {
    let file = image();
    let metadata = written(&file);
    append(&metadata, &file, 1, 1);
    append(&metadata, &file, 2, 1);
    drop(metadata);
    let live = JOURNAL + 512 * BLOCK;
    spoil(&file, live + BLOCK + 8);
    assert_eq!(findings(&file), [Finding::Killed, Finding::Live(1)]);
    assert!(Metadata::open(&file).is_err());
    assert_eq!(repaired(&file), [Condition::Full, Condition::Closed, Condition::Closed]);
    assert_eq!(Look::at(&file).unwrap().zones[2].write_pointer, Some(2 * ZONE + 2 * BLOCK));
}

#[test]
fn a_zone_whose_data_was_cut_off_is_offline() {
    let file = image();
    written(&file).close().unwrap();
    file.set_len(Look::at(&file).unwrap().data_offset + 3 * ZONE + 512).unwrap();
    let check = Check::of(&file).unwrap();
    assert_eq!(check.findings(), [Finding::Short(5 * ZONE - 512)]);
    assert_eq!(check.changes(), [(3, Condition::Offline)]);
    assert_eq!(repaired(&file), [Condition::Closed, Condition::Closed, Condition::Offline]);
}

#[test]
fn any_byte_that_changes_is_found_and_what_can_be_is_repaired() {
    let original = image();
    written(&original).close().unwrap();
    let mut bytes = vec![0; (10 * BLOCK) as usize];
    original.read_exact_at(&mut bytes, 0).unwrap();
    for offset in (0..10 * BLOCK).step_by(397) {
        spoil(&original, offset);
        let found = findings(&original);
        assert_ne!(found, [], "byte {offset}");
        let check = Check::of(&original).unwrap();
        assert_eq!(check.changes(), [], "there is one of all that counts");
        original.write_all_at(&bytes, 0).unwrap();
    }
}

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Whatever happens to metadata: what has a superblock left can be repaired, opens, and has its data.
#[test]
fn nothing_that_was_written_is_lost_to_damage_and_repair() {
    let mut random = Random(0x5eed);
    let (mut refused, mut repaired) = (0, 0);
    for round in 0..60 {
        let file = image();
        let metadata = written(&file);
        if round % 2 == 0 {
            metadata.close().unwrap();
        }
        drop(metadata);
        let live = JOURNAL + 512 * BLOCK;
        for _ in 0..=random.below(6) {
            // Mostly where there is something.
            let block = match random.below(4) {
                0 => random.below(4),
                1 => 4 + random.below(8),
                2 => (live / BLOCK) + random.below(2),
                _ => 4 + random.below(512),
            };
            match random.below(3) {
                0 => spoil(&file, block * BLOCK + random.below(BLOCK)),
                1 => spoil(&file, block * BLOCK + random.below(128)),
                _ => file.write_all_at(&vec![random.below(256) as u8; 512], block * BLOCK).unwrap(),
            }
        }
        let Ok(check) = Check::of(&file) else {
            assert!(Metadata::open(&file).is_err(), "what cannot be checked does not open");
            refused += 1;
            continue;
        };
        let opens = Metadata::open(&file).is_ok();
        let harmless = check.worst().is_none_or(|worst| worst < Severity::Loss);
        assert!(opens || !harmless, "round {round}: {:?}", check.findings());
        if harmless {
            continue;
        }
        if opens {
            continue; // Nothing that is still needed was lost.
        }
        check.repair(&file).unwrap();
        assert_eq!(findings(&file), []);
        let metadata = Metadata::open(&file).unwrap();
        for zone in 1..4 {
            assert_ne!(metadata.zones().zone(zone as u32).condition, Condition::Empty, "round {round}");
            assert_eq!(block_of_zone(&file, zone), [zone as u8; BLOCK as usize], "round {round}");
        }
        repaired += 1;
    }
    assert!(refused > 0 && repaired > 8, "{refused} {repaired}");
}
