//! A zoned image as a disk, against the rules of zones and a vector of bytes.
#![cfg(not(loom))]
#![expect(unsafe_code, reason = "the memory of a request is named by Buffer::new")]
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod zone_model;

use std::fs::File;
use std::mem;
use std::path::Path;

use parador_block::zoned::image::Metadata;
use parador_block::zoned::{Condition, Geometry, Refusal, Zone};
use parador_block::{Aio, Buffer, Disk, Fault, Image, Op, Outcome, RawOptions, Submitted, ZoneAction};

use zone_model::{BLOCK, Model, ZONE};

const ENGINES: [Aio; 3] = [Aio::Sync, Aio::Threads, Aio::IoUring];
const KIB: u64 = 1 << 10;

fn geometries() -> [Geometry; 8] {
    let plain = Geometry { max_append: 16 * KIB, ..Geometry::new(9 * ZONE, ZONE) };
    let small = Geometry { zone_capacity: 48 * KIB, ..plain };
    let short = Geometry { capacity: 9 * ZONE - 20 * KIB, ..plain };
    [
        plain,
        small,
        short,
        Geometry { conventional: 2, ..plain },
        Geometry { max_open: 2, ..plain },
        Geometry { max_open: 2, max_active: 3, conventional: 1, ..small },
        Geometry { max_active: 2, ..short },
        Geometry { max_open: 1, max_active: 1, ..plain },
    ]
    .map(|geometry| geometry.checked().unwrap())
}

fn create(path: &Path, geometry: Geometry) {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
    let len = Metadata::create(&file, geometry, *b"an image's name!").unwrap();
    file.set_len(len).unwrap();
}

/// Reproducible numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % limit
    }
}

/// Cuts memory into a few pieces.
fn pieces(memory: &mut [u8], random: &mut Random) -> Vec<Buffer> {
    let mut rest = memory;
    let mut buffers = Vec::new();
    while !rest.is_empty() {
        let cut = if buffers.len() == 4 { rest.len() } else { 1 + random.below(rest.len() as u64) as usize };
        let (piece, after) = rest.split_at_mut(cut);
        let iovec = libc::iovec { iov_base: piece.as_mut_ptr().cast(), iov_len: piece.len() };
        // SAFETY: the memory outlives the request, which `ask` waits for.
        buffers.push(unsafe { Buffer::new(iovec) });
        rest = after;
    }
    buffers
}

/// Waits for a request.
fn ask(disk: &mut dyn Disk, op: Op<'_>) -> Result<u64, Refusal> {
    let outcome: Outcome = match disk.submit(op, 5) {
        Submitted::Done(outcome) => outcome,
        Submitted::InFlight => loop {
            disk.wait();
            if let Some((5, outcome)) = disk.reap() {
                break outcome;
            }
        },
    };
    match outcome {
        Ok(at) => Ok(at),
        Err(Fault::Refused(refusal)) => Err(refusal),
        Err(Fault::Host(error)) => unreachable!("{op:?}: {error}"),
    }
}

/// A disk, what it should be, and what should be on it.
struct Twin {
    options: RawOptions,
    image: Option<(Image, Box<dyn Disk>)>,
    model: Model,
    bytes: Vec<u8>,
    random: Random,
    /// Of the next write.
    stamp: u8,
}

impl Twin {
    fn disk(&mut self) -> &mut dyn Disk {
        &mut *self.image.as_mut().unwrap().1
    }

    fn open(&mut self) {
        let image = Image::open_zoned(&self.options).unwrap();
        let disk = image.queue(8).unwrap();
        self.image = Some((image, disk));
        for (condition, pointer) in &mut self.model.zones {
            *condition = condition.at_rest(*pointer);
        }
    }

    /// Opens the image anew, after closing it or as another process after this one was killed.
    fn reopen(&mut self, killed: bool) {
        // What goes on after the last request is over would not do so in a process that is dead.
        ask(self.disk(), Op::Flush).unwrap();
        if killed {
            (0..5).for_each(|_| self.append());
            mem::forget(self.image.take());
        } else {
            self.image = None;
        }
        self.open();
    }

    fn data(&mut self, len: u64) -> Vec<u8> {
        self.stamp = self.stamp.wrapping_add(1);
        (0..len).map(|at| (at / 512) as u8 ^ self.stamp | 0x80).collect()
    }

    fn place(&mut self) -> (u64, u64) {
        let zone = self.random.below(10);
        let block = self.random.below(4) * self.random.below(17);
        let odd = if self.random.below(12) == 0 { 512 } else { 0 };
        (zone * ZONE + block * BLOCK, self.random.below(6) * BLOCK + odd)
    }

    fn write(&mut self) {
        let (mut offset, len) = self.place();
        if self.random.below(4) > 0 {
            let zone = offset / ZONE;
            offset = zone * ZONE + self.model.zones.get(zone as usize).map_or(0, |zone| zone.1);
        }
        let mut memory = self.data(len);
        let buffers = pieces(&mut memory, &mut self.random);
        let said = ask(self.disk(), Op::Write { offset, buffers: &buffers });
        let expected = self.model.write(offset, len);
        assert_eq!(said, expected.map(|_| 0), "write of {len} at {offset}");
        if expected.is_ok() {
            self.bytes[offset as usize..][..len as usize].copy_from_slice(&memory);
        }
    }

    fn append(&mut self) {
        let (place, len) = self.place();
        let zone = if self.random.below(12) == 0 { place } else { place / ZONE * ZONE };
        let mut memory = self.data(len);
        let buffers = pieces(&mut memory, &mut self.random);
        let said = ask(self.disk(), Op::Append { zone, buffers: &buffers });
        let expected = self.model.append(zone, len);
        assert_eq!(said, expected, "append of {len} to {zone}");
        if let Ok(at) = expected {
            self.bytes[at as usize..][..len as usize].copy_from_slice(&memory);
        }
    }

    fn read(&mut self) {
        let (offset, len) = self.place();
        let mut memory = vec![0xee; len as usize];
        let buffers = pieces(&mut memory, &mut self.random);
        let said = ask(self.disk(), Op::Read { offset, buffers: &buffers });
        let capacity = self.model.geometry.capacity;
        let zones = offset / ZONE..=(offset + len.max(1) - 1) / ZONE;
        let expected = if offset >= capacity || offset + len > capacity {
            Err(Refusal::OutOfRange)
        } else if zones.clone().any(|zone| self.model.zones[zone as usize].0 == Condition::Offline)
            || (zones.clone().count() > 1
                && zones.clone().any(|zone| !self.model.geometry.is_conventional(zone as u32)))
        {
            Err(Refusal::InvalidCommand)
        } else {
            Ok(0)
        };
        assert_eq!(said, expected, "read of {len} at {offset}");
        if said.is_ok() {
            assert!(memory == self.bytes[offset as usize..][..len as usize], "read of {len} at {offset}");
        }
    }

    fn act(&mut self) {
        use ZoneAction::{Close, Finish, Open, Reset, ResetAll};
        let action =
            [Open, Open, Close, Close, Finish, Reset, Reset, ResetAll][self.random.below(8) as usize];
        let zone = self.random.below(10) * ZONE + if self.random.below(12) == 0 { BLOCK } else { 0 };
        let said = ask(self.disk(), Op::Zone { action, zone });
        let expected = match action {
            Open => self.model.open(zone),
            Close => self.model.close(zone),
            Finish => self.model.finish(zone),
            Reset => self.model.reset(zone),
            ResetAll => {
                self.model.reset_all();
                Ok(())
            }
        };
        assert_eq!(said, expected.map(|()| 0), "{action:?} of {zone}");
        for (zone, (condition, _)) in self.model.zones.iter().enumerate() {
            if *condition == Condition::Empty {
                let start = zone * ZONE as usize;
                let end = self.bytes.len().min(start + ZONE as usize);
                self.bytes[start..end].fill(0);
            }
        }
    }

    fn fail(&mut self) {
        let zone = self.random.below(9) as usize;
        let offline = self.random.below(2) == 0;
        let said = self.image.as_ref().unwrap().0.zoned().unwrap().fail(zone as u32, offline);
        assert_eq!(said.is_ok(), self.model.fail(zone, offline).is_ok());
    }

    fn report(&mut self) {
        let zoned = self.image.as_ref().unwrap().0.zoned().unwrap();
        let nothing = Zone { start: 0, capacity: 0, condition: Condition::Empty, write_pointer: None };
        let mut zones = [nothing; 12];
        assert_eq!(zoned.report(0, &mut zones).unwrap(), 9);
        for (number, (zone, (condition, pointer))) in zones.iter().zip(&self.model.zones).enumerate() {
            assert_eq!(zone.condition, *condition, "zone {number}");
            assert_eq!(zone.start, number as u64 * ZONE);
            if condition.is_active() || *condition == Condition::Empty {
                assert_eq!(zone.write_pointer, Some(zone.start + pointer), "zone {number}");
            }
        }
    }

    fn step(&mut self) {
        match self.random.below(40) {
            0..10 => self.write(),
            10..18 => self.append(),
            18..28 => self.read(),
            28..36 => self.act(),
            36 => drop(ask(self.disk(), Op::Flush).unwrap()),
            37 if self.random.below(10) == 0 => self.fail(),
            38 if self.random.below(4) == 0 => {
                let killed = self.random.below(2) == 0;
                self.reopen(killed);
            }
            _ => self.report(),
        }
    }
}

#[test]
fn a_disk_does_what_the_rules_say_and_holds_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    for (index, geometry) in geometries().into_iter().enumerate() {
        for (engine, aio) in ENGINES.into_iter().enumerate() {
            let path = directory.path().join(format!("{index}-{engine}"));
            create(&path, geometry);
            // Processes that were killed are among us, and their locks with them.
            let options = RawOptions { aio, lock: false, ..RawOptions::new(&path) };
            let mut twin = Twin {
                options,
                image: None,
                model: Model::new(geometry),
                bytes: vec![0; geometry.capacity as usize],
                random: Random(1 + index as u64 * 7 + engine as u64),
                stamp: 0,
            };
            twin.open();
            for _ in 0..400 {
                twin.step();
            }
            twin.reopen(false);
            twin.report();
        }
    }
}

/// Over vhost-user the guest outlives the process: what it did not say is done is asked for again.
#[test]
fn what_another_process_wrote_and_did_not_say_so_is_written_again() {
    let directory = tempfile::tempdir().unwrap();
    for (engine, aio) in ENGINES.into_iter().enumerate() {
        let path = directory.path().join(format!("{engine}"));
        create(&path, geometries()[0]);
        let options = RawOptions { aio, lock: false, ..RawOptions::new(&path) };
        let image = Image::open_zoned(&options).unwrap();
        let mut disk = image.queue(8).unwrap();
        let mut memory = vec![7; 2 * BLOCK as usize];
        let buffers = pieces(&mut memory, &mut Random(1));
        let write = Op::Write { offset: ZONE, buffers: &buffers };
        ask(&mut *disk, write).unwrap();
        assert_eq!(ask(&mut *disk, write), Err(Refusal::UnalignedWrite));
        mem::forget((image, disk));
        let image = Image::open_zoned(&options).unwrap();
        let mut disk = image.queue(8).unwrap();
        let mut over = usize::from(matches!(disk.resubmit(write, 5, None), Submitted::Done(Ok(0))));
        while over == 0 {
            disk.wait();
            over += std::iter::from_fn(|| disk.reap()).filter(|it| matches!(it, (5, Ok(0)))).count();
        }
        assert_eq!(ask(&mut *disk, write), Err(Refusal::UnalignedWrite));
        let mut found = vec![0; 3 * BLOCK as usize];
        let buffers = pieces(&mut found, &mut Random(2));
        ask(&mut *disk, Op::Read { offset: ZONE, buffers: &buffers }).unwrap();
        assert!(found[..memory.len()] == memory && found[memory.len()..].iter().all(|byte| *byte == 0));
    }
}
