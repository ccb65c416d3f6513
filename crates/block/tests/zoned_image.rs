//! Zoned images that are made, closed, killed, cut off and damaged.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use parador_block::zoned::image::{ImageError, Metadata, Store};
use parador_block::zoned::{Condition, Geometry, Write, Zones};
use parador_block::{Image, RawOptions};

const BLOCK: u64 = 4096;
const ZONE: u64 = 64 << 10;
const SECTOR: usize = 512;
const ZEROES: [u8; BLOCK as usize] = [0; BLOCK as usize];
const UUID: [u8; 16] = *b"an image's name!";

fn geometry() -> Geometry {
    Geometry { conventional: 1, max_open: 3, max_active: 5, ..Geometry::new(8 * ZONE, ZONE) }
        .checked()
        .unwrap()
}

/// What is done to a file.
#[derive(Debug, Clone)]
enum Done {
    Write(u64, Vec<u8>),
    Punch(u64, u64),
    Sync,
}

/// A file in memory that remembers what was done to it.
#[derive(Default)]
struct Recorder(Mutex<(Vec<u8>, Vec<Done>)>);

fn apply(bytes: &mut Vec<u8>, done: &Done) {
    match done {
        Done::Write(offset, data) => {
            let (start, end) = (*offset as usize, *offset as usize + data.len());
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[start..end].copy_from_slice(data);
        }
        Done::Punch(offset, len) => {
            let end = bytes.len().min((offset + len) as usize);
            bytes[end.min(*offset as usize)..end].fill(0);
        }
        Done::Sync => {}
    }
}

impl Recorder {
    fn of(bytes: Vec<u8>) -> Self {
        Self(Mutex::new((bytes, Vec::new())))
    }

    fn log(&self, done: Done) {
        let mut inner = self.0.lock().unwrap();
        apply(&mut inner.0, &done);
        inner.1.push(done);
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().1.len()
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().0.clone()
    }
}

impl Store for Recorder {
    fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let inner = self.0.lock().unwrap();
        data.fill(0);
        let from = inner.0.get(offset as usize..).unwrap_or_default();
        let len = from.len().min(data.len());
        data[..len].copy_from_slice(&from[..len]);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.log(Done::Write(offset, data.into()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.log(Done::Sync);
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.log(Done::Punch(offset, len));
        Ok(())
    }
}

/// Reproducible numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }
}

/// The data of a block: which zone, which life of it, which block.
fn pattern(zone: u64, life: u64, block: u64) -> Vec<u8> {
    let word = ((zone << 48) | (life << 24) | (block + 1)).to_le_bytes();
    word.repeat(BLOCK as usize / 8)
}

/// What is known of a zone at some moment.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// How often it was reset.
    life: u64,
    /// Bytes that were flushed, and that were written.
    flushed: u64,
    written: u64,
    full: bool,
}

/// What a power cut may find: for each zone one of these.
#[derive(Debug, Clone)]
struct Moment {
    before: Vec<Known>,
    /// What one zone may be instead: a reset or finish of it is under way.
    or: Option<(usize, Known)>,
}

/// Runs random requests on a new image and says what was known at each step of the file's.
fn history(seed: u64, requests: u64) -> (Recorder, usize, Vec<Moment>) {
    let mut random = Random(seed | 1);
    let recorder = Arc::new(Recorder::default());
    Metadata::create(&*recorder, geometry(), UUID).unwrap();
    let start = recorder.len();
    let image = Metadata::open_store(recorder.clone()).unwrap();
    let mut known = vec![Known::default(); 8];
    let mut moments = Vec::new();
    let mut note = |from: usize, known: &[Known], or| {
        moments.resize(from.max(moments.len()), Moment { before: known.to_vec(), or: None });
        let to = recorder.len();
        moments.resize(to.max(moments.len()), Moment { before: known.to_vec(), or });
    };
    for _ in 0..requests {
        let from = recorder.len();
        let zone = 1 + random.below(7) as usize;
        let offset = zone as u64 * ZONE;
        match random.below(10) {
            0..6 => {
                let blocks = 1 + random.below(5);
                let Ok(write) = image.zones().append(offset, blocks * BLOCK) else { continue };
                let at = write.offset - offset;
                known[zone].written = at + blocks * BLOCK;
                known[zone].full = known[zone].written == ZONE;
                for block in at / BLOCK..at / BLOCK + blocks {
                    let to = image.data_offset() + offset + block * BLOCK;
                    recorder.write(to, &pattern(zone as u64, known[zone].life, block)).unwrap();
                }
                image.zones().complete(write);
                // Full is what it becomes with its last block, flushed or not.
                note(from, &known, None);
            }
            6..8 => {
                // Closing is a flush, and more.
                if random.below(3) == 0 { image.close() } else { image.flush() }.unwrap();
                note(from, &known, None);
                known.iter_mut().for_each(|zone| zone.flushed = zone.written);
            }
            8 => {
                let Ok(held) = image.zones().hold(offset) else { continue };
                image.reset(&held).unwrap();
                let after = Known { life: known[zone].life + 1, ..Known::default() };
                note(from, &known, Some((zone, after)));
                known[zone] = after;
            }
            _ => {
                let Ok(held) = image.zones().hold(offset) else { continue };
                if held.may_finish().is_err() {
                    continue;
                }
                image.finish(&held).unwrap();
                let after = Known { full: true, ..known[zone] };
                note(from, &known, Some((zone, after)));
                known[zone] = after;
            }
        }
    }
    drop(image);
    let recorder = Arc::into_inner(recorder).unwrap();
    (recorder, start, moments)
}

/// What a disk may hold whose power was cut after `done`: all before the last sync, and of what
/// came after it any part, in sectors.
fn cut(done: &[Done], random: &mut Random) -> Vec<u8> {
    let synced = done.iter().rposition(|done| matches!(done, Done::Sync)).map_or(0, |at| at + 1);
    // Larger than the image: growing it byte by byte would be most of the test.
    let mut bytes = vec![0; 4 << 20];
    done[..synced].iter().for_each(|done| apply(&mut bytes, done));
    for done in &done[synced..] {
        match done {
            Done::Write(offset, data) => {
                for (sector, data) in (0..).zip(data.chunks(SECTOR)) {
                    if random.below(2) == 0 {
                        apply(&mut bytes, &Done::Write(offset + sector * SECTOR as u64, data.into()));
                    }
                }
            }
            punch @ Done::Punch(..) if random.below(2) == 0 => apply(&mut bytes, punch),
            Done::Punch(..) | Done::Sync => {}
        }
    }
    bytes
}

/// Whether a zone is as it may be, given what was known of it.
fn agrees(bytes: &[u8], data: u64, zone: usize, found: (Condition, u64), known: &Known) -> bool {
    let (condition, pointer) = found;
    let Known { life, flushed, written, full } = *known;
    let must_be_full = full && flushed == written && written == ZONE;
    let condition_fits = match condition {
        Condition::Empty => pointer == 0,
        Condition::Closed => !must_be_full,
        Condition::Full => full,
        _ => false,
    };
    let block_at = |block: u64| {
        let from = (data + zone as u64 * ZONE + block * BLOCK) as usize;
        bytes.get(from..from + BLOCK as usize).unwrap_or(&ZEROES)
    };
    let intact = (0..flushed / BLOCK).all(|block| block_at(block) == pattern(zone as u64, life, block));
    // Every sector beyond the pointer is zero; those before it are of this life or zero.
    let beyond_is_zero = (pointer / BLOCK..ZONE / BLOCK).all(|block| block_at(block) == ZEROES);
    let of_this_life = (0..pointer / BLOCK).all(|block| {
        let expected = pattern(zone as u64, life, block);
        block_at(block)
            .chunks(SECTOR)
            .zip(expected.chunks(SECTOR))
            .all(|(is, should)| is == should || is == &ZEROES[..SECTOR])
    });
    condition_fits && (flushed..=written).contains(&pointer) && intact && beyond_is_zero && of_this_life
}

/// Cuts the power `count` times in histories of random requests.
fn cut_the_power(count: u64) {
    let mut random = Random(7);
    for turn in 0..count / 40 {
        let (recorder, start, moments) = history(turn * 1_000_003 + 5, 60);
        let done = recorder.0.into_inner().unwrap().1;
        for _ in 0..40 {
            let at = start + random.below((done.len() - start + 1) as u64) as usize;
            let disk = Arc::new(Recorder::of(cut(&done[..at], &mut random)));
            let image = Metadata::open_store(disk.clone()).unwrap();
            let (bytes, data) = (disk.bytes(), image.data_offset());
            // A moment is that of the step under way.
            let Some(moment) = moments.get(at) else { continue };
            for zone in 1..8 {
                let found = image.zones().at_rest(zone as u32);
                let instead = moment.or.filter(|(other, _)| *other == zone).map(|(_, known)| known);
                let fits = [Some(moment.before[zone]), instead]
                    .iter()
                    .flatten()
                    .any(|known| agrees(&bytes, data, zone, found, known));
                assert!(
                    fits,
                    "cut at {at} of history {turn}: zone {zone} is {found:?}, {:?} or {instead:?}",
                    moment.before[zone]
                );
            }
            assert_eq!(image.zones().in_use().0, 0, "nothing is open after a power cut");
        }
    }
}

#[test]
fn a_power_cut_takes_nothing_that_was_flushed() {
    cut_the_power(2_000);
}

/// The long form: `cargo test -p parador-block --release --test zoned_image -- --ignored`.
#[test]
#[ignore = "takes minutes"]
fn a_hundred_thousand_power_cuts_take_nothing_that_was_flushed() {
    cut_the_power(100_000);
}

/// A write that is over at once.
fn put(image: &Metadata, zone: u64, blocks: u64) -> u64 {
    let write: Write = image.zones().append(zone * ZONE, blocks * BLOCK).unwrap();
    let offset = write.offset;
    image.zones().complete(write);
    offset
}

fn states(image: &Metadata) -> Vec<(Condition, u64)> {
    (0..image.zones().geometry().zones()).map(|zone| image.zones().at_rest(zone)).collect()
}

fn new_file() -> File {
    let file = tempfile::tempfile().unwrap();
    let len = Metadata::create(&file, geometry(), UUID).unwrap();
    file.set_len(len).unwrap();
    file
}

#[test]
fn what_was_closed_is_as_it_was() {
    let file = new_file();
    let image = Metadata::open(&file).unwrap();
    put(&image, 1, 3);
    put(&image, 2, 16);
    image.zones().open(3 * ZONE).unwrap();
    image.fail(4, false).unwrap();
    image.fail(0, true).unwrap();
    let before = states(&image);
    image.close().unwrap();
    let image = Metadata::open(&file).unwrap();
    assert_eq!(states(&image), before);
    assert_eq!(image.zones().zone(1).condition, Condition::Closed);
    assert_eq!(image.zones().zone(2).condition, Condition::Full);
    assert_eq!(image.zones().zone(3).condition, Condition::Empty, "open and not written is empty");
    assert_eq!(image.zones().zone(4).condition, Condition::ReadOnly);
    assert_eq!(image.zones().zone(0).condition, Condition::Offline, "a conventional one, too");
    assert_eq!((image.uuid(), image.zones().in_use()), (UUID, (0, 1)));
}

#[test]
fn a_process_that_is_killed_loses_no_write_pointer() {
    let file = new_file();
    let image = Metadata::open(&file).unwrap();
    image.flush().unwrap();
    put(&image, 1, 3);
    put(&image, 5, 2);
    let before = states(&image);
    // It goes without a word, as a process does that is killed: only the file is left.
    std::mem::forget(image);
    let image = Metadata::open(&file).unwrap();
    assert_eq!(states(&image), before);
    assert_eq!(put(&image, 1, 1), ZONE + 3 * BLOCK);
}

#[test]
fn another_boot_of_the_host_knows_only_what_was_flushed() {
    let file = new_file();
    let image = Metadata::open(&file).unwrap();
    put(&image, 1, 3);
    image.flush().unwrap();
    put(&image, 1, 2);
    let layout_end = image.data_offset();
    std::mem::forget(image);
    // What the live table is stamped with is of this boot: as after a reboot, it is not.
    let mut metadata = vec![0; layout_end as usize];
    file.read_exact_at(&mut metadata, 0).unwrap();
    let stamp = metadata.windows(8).position(|bytes| bytes == b"ParaLive").unwrap();
    file.write_all_at(&[0; 44], stamp as u64).unwrap();
    let image = Metadata::open(&file).unwrap();
    assert_eq!(image.zones().at_rest(1), (Condition::Closed, 3 * BLOCK));
}

#[test]
fn what_is_no_image_is_said_to_be_none() {
    let zeroes = tempfile::tempfile().unwrap();
    zeroes.set_len(1 << 20).unwrap();
    assert!(matches!(Metadata::open(&zeroes), Err(ImageError::NotAnImage)));
    let file = new_file();
    file.set_len(8192).unwrap();
    assert!(matches!(Metadata::open(&file), Err(ImageError::Damaged(_))));
}

/// A byte of the metadata that changes is never taken for another state: either it is said, or it was
/// there twice.
#[test]
fn damage_is_never_taken_for_another_state() {
    for closed in [false, true] {
        let recorder = Arc::new(Recorder::default());
        Metadata::create(&*recorder, geometry(), UUID).unwrap();
        let image = Metadata::open_store(recorder.clone()).unwrap();
        for turn in 0..6 {
            put(&image, 1 + turn % 5, 1 + turn);
            image.flush().unwrap();
        }
        if closed {
            image.close().unwrap();
        }
        let (expected, sound) = (states(&image), recorder.bytes());
        let data = image.data_offset() as usize;
        let mut random = Random(3);
        let (mut refused, mut tolerated) = (0, 0);
        let written = (0..data.min(sound.len())).step_by(53).filter(|at| sound[at / 4096 * 4096] != 0);
        for at in written {
            let mut damaged = sound.clone();
            damaged[at] ^= 1 << random.below(8);
            match Metadata::open_store(Arc::new(Recorder::of(damaged))) {
                Ok(image) => {
                    assert_eq!(states(&image), expected, "byte {at}");
                    tolerated += 1;
                }
                Err(ImageError::Damaged(_) | ImageError::Newer(_)) => refused += 1,
                Err(other) => unreachable!("byte {at}: {other}"),
            }
        }
        assert!(tolerated > 50, "{refused} refused, {tolerated} tolerated");
        assert_eq!(refused == 0, closed, "what was closed has no part that is there once");
    }
}

/// Twice where a write pointer has moved: were its record durable before its data, a power cut between would show
/// what was there before a reset.
#[test]
fn a_flush_waits_for_the_host_twice_only_if_a_zone_has_changed() {
    let recorder = Arc::new(Recorder::default());
    Metadata::create(&*recorder, geometry(), UUID).unwrap();
    let image = Metadata::open_store(recorder.clone()).unwrap();
    for blocks in [1, 0, 2, 0, 0] {
        if blocks > 0 {
            put(&image, 1, blocks);
        }
        let from = recorder.len();
        image.flush().unwrap();
        let inner = recorder.0.lock().unwrap();
        let syncs = inner.1[from..].iter().filter(|done| matches!(done, Done::Sync)).count();
        assert_eq!(syncs, if blocks > 0 { 2 } else { 1 });
    }
}

/// The journal is written around many times.
#[test]
fn a_journal_that_is_full_begins_again() {
    let recorder = Arc::new(Recorder::default());
    Metadata::create(&*recorder, geometry(), UUID).unwrap();
    let image = Metadata::open_store(recorder.clone()).unwrap();
    for turn in 0..1200u64 {
        let zone = 1 + turn % 5;
        if image.zones().at_rest(zone as u32).1 == ZONE {
            let held = image.zones().hold(zone * ZONE).unwrap();
            image.reset(&held).unwrap();
        }
        put(&image, zone, 1);
        image.flush().unwrap();
        if turn % 100 == 99 {
            let again = Metadata::open_store(Arc::new(Recorder::of(recorder.bytes()))).unwrap();
            assert_eq!(states(&again), states(&image), "after {turn} turns");
        }
    }
}

#[test]
fn an_image_is_opened_as_a_disk_and_what_is_none_is_refused_with_a_reason() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let options = RawOptions::new(file.path());
    let refused = |options: &RawOptions| {
        let error = Image::open_zoned(options).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        (error.to_string(), cause.unwrap_or_default(), error.hint().unwrap_or_default())
    };
    file.as_file().set_len(1 << 20).unwrap();
    let (error, cause, hint) = refused(&options);
    assert_eq!(error, format!("cannot use {} as a zoned disk image", file.path().display()));
    assert_eq!(cause, "this is no zoned image");
    assert_eq!(hint, "make one with `parador image create`");

    let length = Metadata::create(file.as_file(), geometry(), UUID).unwrap();
    file.as_file().set_len(length).unwrap();
    let image = Image::open_zoned(&options).unwrap();
    assert_eq!((image.size(), image.topology().logical_block), (8 * ZONE, BLOCK as u32));
    assert_eq!(image.discard_granularity(), None);
    let zoned = image.zoned().unwrap();
    assert_eq!(*zoned.geometry(), geometry());
    let mut zones = [Zones::new(geometry()).zone(0); 9];
    assert_eq!(zoned.report(6, &mut zones).unwrap(), 2);
    assert_eq!((zones[1].start, zones[1].condition), (7 * ZONE, Condition::Empty));
    assert_eq!(zoned.report(8, &mut zones).unwrap(), 0);
    zoned.fail(7, true).unwrap();
    for zone in [7, 8] {
        assert_eq!(zoned.fail(zone, true).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
    zoned.report(7, &mut zones).unwrap();
    assert_eq!(zones[0].condition, Condition::Offline);

    assert!(refused(&options).0.contains("is in use"));
    drop(image);
    let (error, _, hint) = refused(&RawOptions { read_only: true, ..options.clone() });
    assert!(error.contains("cannot be opened read-only") && hint.contains("for writing"));
    file.as_file().write_all_at(&[1], 4095).unwrap();
    file.as_file().write_all_at(&[1], 4096 + 4095).unwrap();
    let (_, cause, hint) = refused(&options);
    assert!(cause.contains("damaged: both superblocks are bad") && hint.contains("image check"), "{cause}");
}
