//! A host that fails: what a zoned disk says, and what can be read afterwards.
#![cfg(not(loom))]
#![expect(unsafe_code, reason = "limits that make the host fail; memory of requests")]
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod refuse;

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use parador_block::zoned::image::{ImageError, Metadata, Store};
use parador_block::zoned::{Condition, Geometry, Zone};
use parador_block::{Aio, Buffer, Disk, Fault, Image, Op, Outcome, RawOptions, Submitted, ZoneAction};

const ENGINES: [Aio; 3] = [Aio::Sync, Aio::Threads, Aio::IoUring];
const BLOCK: u64 = 4096;
const ZONE: u64 = 64 << 10;
/// Where zones begin in so small an image.
const DATA: u64 = 3 << 20;

/// Limits are the whole process's.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes to files fail from `limit` on, with EFBIG.
fn limit_files(limit: Option<u64>) {
    let limit =
        libc::rlimit { rlim_cur: limit.unwrap_or(libc::RLIM_INFINITY), rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the kernel reads `limit`, which outlives the call; the signal is ignored.
    let result = unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit)
    };
    assert_eq!(result, 0);
}

struct Fixture {
    file: tempfile::NamedTempFile,
    image: Image,
    disk: Box<dyn Disk>,
}

impl Fixture {
    fn new(aio: Aio) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        let geometry = Geometry { conventional: 1, ..Geometry::new(8 * ZONE, ZONE) }.checked().unwrap();
        let len = Metadata::create(file.as_file(), geometry, [3; 16]).unwrap();
        assert_eq!(len, DATA + 8 * ZONE);
        file.as_file().set_len(len).unwrap();
        let image = Image::open_zoned(&RawOptions { aio, ..RawOptions::new(file.path()) }).unwrap();
        let disk = image.queue(4).unwrap();
        Self { file, image, disk }
    }

    fn ask(&mut self, op: Op<'_>) -> Outcome {
        match self.disk.submit(op, 1) {
            Submitted::Done(outcome) => outcome,
            Submitted::InFlight => loop {
                self.disk.wait();
                if let Some((1, outcome)) = self.disk.reap() {
                    break outcome;
                }
            },
        }
    }

    fn append(&mut self, zone: u64, byte: u8, blocks: u64) -> Outcome {
        let mut memory = vec![byte; (blocks * BLOCK) as usize];
        self.ask(Op::Append { zone: zone * ZONE, buffers: &[buffer(&mut memory)] })
    }

    fn act(&mut self, action: ZoneAction, zone: u64) -> Outcome {
        self.ask(Op::Zone { action, zone: zone * ZONE })
    }

    /// The first byte of each block of a zone, all of which are the same.
    fn read(&mut self, zone: u64) -> Vec<u8> {
        let mut memory = vec![0xee; ZONE as usize];
        let buffers = [buffer(&mut memory)];
        self.ask(Op::Read { offset: zone * ZONE, buffers: &buffers }).unwrap();
        let first = |block: &[u8]| {
            assert!(block.iter().all(|byte| *byte == block[0]));
            block[0]
        };
        memory.chunks_exact(BLOCK as usize).map(first).collect()
    }

    fn zone(&self, number: u32) -> Zone {
        let nothing = Zone { start: 0, capacity: 0, condition: Condition::Empty, write_pointer: None };
        let mut zones = [nothing];
        self.image.zoned().unwrap().report(number, &mut zones).unwrap();
        zones[0]
    }
}

fn buffer(memory: &mut [u8]) -> Buffer {
    let iovec = libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: memory.len() };
    // SAFETY: `ask` returns after the request is over, and the memory outlives it.
    unsafe { Buffer::new(iovec) }
}

fn host(outcome: Outcome) -> io::Error {
    match outcome {
        Err(Fault::Host(error)) => error,
        other => unreachable!("{other:?}"),
    }
}

/// `data`, then zeroes, in blocks of a zone.
fn blocks(data: &[u8]) -> Vec<u8> {
    let mut blocks = data.to_vec();
    blocks.resize((ZONE / BLOCK) as usize, 0);
    blocks
}

#[test]
fn a_write_that_fails_counts_as_written_and_reads_as_zeroes() {
    let _alone = alone();
    for aio in ENGINES {
        let mut it = Fixture::new(aio);
        it.append(4, 1, 2).unwrap();
        it.append(3, 2, 2).unwrap();
        // Part of the next append to zone 4 is written, and none of those to zone 5.
        limit_files(Some(DATA + 4 * ZONE + 3 * BLOCK));
        assert_eq!(host(it.append(4, 3, 3)).raw_os_error(), Some(libc::EFBIG), "{aio:?}");
        assert_eq!(host(it.append(5, 4, 2)).raw_os_error(), Some(libc::EFBIG), "{aio:?}");
        limit_files(None);
        assert_eq!(it.append(4, 5, 1).unwrap(), 4 * ZONE + 5 * BLOCK);
        assert_eq!(it.append(5, 6, 1).unwrap(), 5 * ZONE + 2 * BLOCK);
        assert_eq!(it.read(3), blocks(&[2, 2]));
        assert_eq!(it.read(4), blocks(&[1, 1, 0, 0, 0, 5]));
        assert_eq!(it.read(5), blocks(&[0, 0, 6]));
        // The zone is not stuck.
        it.act(ZoneAction::Reset, 4).unwrap();
        assert_eq!(it.read(4), blocks(&[]));
        assert_eq!(it.zone(5).condition, Condition::ImplicitlyOpen);
    }
}

#[test]
fn without_a_journal_data_goes_on_and_nothing_is_called_durable() {
    let _alone = alone();
    for aio in ENGINES {
        let mut it = Fixture::new(aio);
        it.append(1, 1, 2).unwrap();
        limit_files(Some(BLOCK));
        assert_eq!(host(it.ask(Op::Flush)).raw_os_error(), Some(libc::EFBIG));
        limit_files(None);
        // What is on record is not known from here on.
        host(it.ask(Op::Flush));
        host(it.act(ZoneAction::Reset, 1));
        host(it.act(ZoneAction::ResetAll, 0));
        host(it.act(ZoneAction::Finish, 1));
        it.image.flush().unwrap_err();
        it.image.zoned().unwrap().fail(2, true).unwrap_err();
        assert_eq!(it.zone(1).write_pointer, Some(ZONE + 2 * BLOCK));
        it.append(1, 2, 1).unwrap();
        it.act(ZoneAction::Close, 1).unwrap();
        assert_eq!(it.read(1), blocks(&[1, 1, 2]));
        // The host is still up: the next to open it finds it all.
        let Fixture { file, image, disk } = it;
        drop((image, disk));
        let image = Image::open_zoned(&RawOptions::new(file.path())).unwrap();
        let disk = image.queue(1).unwrap();
        let mut it = Fixture { file, image, disk };
        assert_eq!(it.read(1), blocks(&[1, 1, 2]));
        assert_eq!((it.zone(1).condition, it.zone(2).condition), (Condition::Closed, Condition::Offline));
        it.ask(Op::Flush).unwrap();
    }
}

/// A file whose host may lose what was written to it.
struct Flaky(File, AtomicBool);

impl Store for Flaky {
    fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        Store::read(&self.0, offset, data)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        Store::write(&self.0, offset, data)
    }

    fn sync(&self) -> io::Result<()> {
        if self.1.load(Ordering::Relaxed) { Err(io::ErrorKind::Other.into()) } else { self.0.sync() }
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.punch(offset, len)
    }
}

#[test]
fn after_the_host_has_lost_data_nothing_is_called_durable() {
    let store = Arc::new(Flaky(tempfile::tempfile().unwrap(), AtomicBool::new(false)));
    let geometry = Geometry::new(8 * ZONE, ZONE).checked().unwrap();
    Metadata::create(&*store, geometry, [3; 16]).unwrap();
    let image = Metadata::open_store(store.clone()).unwrap();
    image.zones().complete(image.zones().append(ZONE, BLOCK).unwrap());
    store.1.store(true, Ordering::Relaxed);
    image.flush().unwrap_err();
    store.1.store(false, Ordering::Relaxed);
    // The kernel would say nothing this time.
    image.flush().unwrap_err();
    image.finish(&image.zones().hold(ZONE).unwrap()).unwrap_err();
    assert_eq!(Metadata::open_store(store).unwrap().zones().zone(1).condition, Condition::Empty);
}

/// Old data that the host does not take away stays out of sight.
#[test]
fn what_cannot_be_punched_is_not_seen() {
    let _alone = alone();
    for aio in ENGINES {
        let mut it = Fixture::new(aio);
        let check = move || {
            for zone in [1, 2] {
                it.append(zone, 1, 8).unwrap();
            }
            refuse::refuse(libc::SYS_fallocate, libc::EIO).unwrap();
            for zone in [1, 2] {
                it.act(ZoneAction::Reset, zone).unwrap();
                assert_eq!(it.read(zone), blocks(&[]));
                it.append(zone, 2, 2).unwrap();
                assert_eq!(it.read(zone), blocks(&[2, 2]));
            }
            it.act(ZoneAction::Finish, 1).unwrap();
            assert_eq!(it.read(1), blocks(&[2, 2]));
            // A write fails where old data is left: its zone is lost rather than that shown.
            limit_files(Some(DATA + 2 * ZONE));
            assert_eq!(host(it.append(2, 3, 1)).raw_os_error(), Some(libc::EFBIG));
            limit_files(None);
            assert_eq!(it.zone(2).condition, Condition::Offline);
            let mut memory = [0; BLOCK as usize];
            let read = it.ask(Op::Read { offset: 2 * ZONE + 2 * BLOCK, buffers: &[buffer(&mut memory)] });
            assert!(matches!(read, Err(Fault::Refused(_))));
        };
        thread::spawn(check).join().unwrap();
    }
}

/// A process that is killed before an append gets to the file leaves what is there below the write pointer.
#[test]
fn what_cannot_be_punched_is_written_over_or_its_zone_is_lost() {
    let _alone = alone();
    let mut it = Fixture::new(Aio::Sync);
    let check = move || {
        it.append(1, 1, 8).unwrap();
        it.append(2, 2, 8).unwrap();
        refuse::refuse(libc::SYS_fallocate, libc::ENOSPC).unwrap();
        it.act(ZoneAction::Reset, 1).unwrap();
        // Which waits until the clerk has let go of the zone.
        it.ask(Op::Flush).unwrap();
        limit_files(Some(DATA));
        // It is empty on record, which cannot be taken back.
        it.act(ZoneAction::Reset, 2).unwrap();
        it.ask(Op::Flush).unwrap();
        limit_files(None);
        let mut bytes = vec![0xee; ZONE as usize];
        Store::read(it.file.as_file(), DATA + ZONE, &mut bytes).unwrap();
        assert_eq!(bytes, vec![0; ZONE as usize]);
        assert_eq!(it.zone(1).condition, Condition::Empty);
        it.append(1, 3, 1).unwrap();
        assert_eq!(it.zone(2).condition, Condition::Offline);
        assert!(matches!(it.append(2, 3, 1), Err(Fault::Refused(_))));
        it.file
    };
    let file = thread::spawn(check).join().unwrap();
    assert_eq!(
        Metadata::open(file.as_file()).unwrap().zones().zone(2).condition,
        Condition::Offline,
        "on record, too"
    );
}

/// Without room for the live table, a word would be a signal that ends the process.
#[test]
fn a_host_that_is_full_is_noticed_when_an_image_is_opened() {
    let file = tempfile::tempfile().unwrap();
    let geometry = Geometry::new(8 * ZONE, ZONE);
    file.set_len(Metadata::create(&file, geometry, [3; 16]).unwrap()).unwrap();
    let check = move || {
        refuse::refuse(libc::SYS_fallocate, libc::ENOSPC).unwrap();
        match Metadata::open(&file).err().unwrap() {
            ImageError::Host { action, source } => {
                assert_eq!((action, source.raw_os_error()), ("make room for", Some(libc::ENOSPC)));
            }
            other => unreachable!("{other}"),
        }
    };
    thread::spawn(check).join().unwrap();
}
