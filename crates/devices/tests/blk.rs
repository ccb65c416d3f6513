//! A disk, driven end to end.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::os::unix::fs::FileExt;
use std::time::Duration;

use parador_block::{Aio, Image, RawOptions};
use parador_devices::blk::{Blk, BlkError, BlkOptions, Resizer};
use parador_virtio::testing::{Arena, Harness, PATIENCE, Reply, UNTOUCHED};
use parador_virtio::{VirtioDevice, ids};
use tempfile::NamedTempFile;

const ENGINES: [Aio; 3] = [Aio::Sync, Aio::Threads, Aio::IoUring];
const SIZE: u64 = 1 << 20;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const OK: u8 = 0;
const IO_ERR: u8 = 1;
const UNSUPP: u8 = 2;

const F_RO: u64 = 1 << 5;
const F_FLUSH: u64 = 1 << 9;
const F_CONFIG_WCE: u64 = 1 << 11;
const F_MQ: u64 = 1 << 12;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;

struct Fixture {
    file: NamedTempFile,
    disk: Harness,
    resizer: Resizer,
}

/// A disk of `SIZE` bytes in which byte `i` is `i / 512`.
fn fixture(change: impl FnOnce(&mut RawOptions, &mut Option<BlkOptions>)) -> Fixture {
    let file = NamedTempFile::new().unwrap();
    let bytes: Vec<u8> = (0..SIZE).map(|i| (i / 512) as u8).collect();
    file.as_file().write_all_at(&bytes, 0).unwrap();
    let mut raw = RawOptions::new(file.path());
    let mut options = None;
    change(&mut raw, &mut options);
    let image = Image::open(&raw).unwrap();
    let options =
        options.map_or_else(|| BlkOptions::new(image.clone()), |o| BlkOptions { image: image.clone(), ..o });
    let blk = Blk::new(options).unwrap();
    let resizer = blk.resizer();
    Fixture { file, disk: Harness::new(blk), resizer }
}

fn with_engine(aio: Aio) -> Fixture {
    fixture(|raw, _| raw.aio = aio)
}

fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    header
}

fn range(sector: u64, count: u32, flags: u32) -> [u8; 16] {
    let mut range = [0; 16];
    range[..8].copy_from_slice(&sector.to_le_bytes());
    range[8..12].copy_from_slice(&count.to_le_bytes());
    range[12..].copy_from_slice(&flags.to_le_bytes());
    range
}

fn status(reply: &Reply) -> u8 {
    *reply.data.last().unwrap()
}

impl Fixture {
    fn contents(&self) -> Vec<u8> {
        std::fs::read(self.file.path()).unwrap()
    }

    /// A request with `data` to read and `room` for an answer; its status.
    fn ask(&mut self, kind: u32, sector: u64, data: &[u8], room: usize) -> u8 {
        let header = header(kind, sector);
        let mut readable: Vec<&[u8]> = vec![&header];
        readable.extend((!data.is_empty()).then_some(data));
        let writable: Vec<usize> = [room, 1].into_iter().filter(|&len| len > 0).collect();
        status(&self.disk.request(0, &readable, &writable))
    }
}

#[test]
fn what_a_driver_sees() {
    let mut disk = fixture(|_, _| {}).disk;
    let identity = disk.device().identity().clone();
    assert_eq!(identity.kind, ids::VIRTIO_ID_BLOCK);
    assert_eq!(&*identity.queue_sizes, [256]);
    assert_eq!(identity.features & (F_RO | F_MQ), 0);
    assert_eq!(
        identity.features & (F_FLUSH | F_CONFIG_WCE | F_WRITE_ZEROES),
        F_FLUSH | F_CONFIG_WCE | F_WRITE_ZEROES
    );
    assert_eq!(disk.config(0, 8), (SIZE / 512).to_le_bytes());
    assert_eq!(disk.config(12, 4), 254u32.to_le_bytes(), "seg_max");
    assert_eq!(disk.config(20, 4), 512u32.to_le_bytes(), "blk_size");
    assert_eq!(disk.config(24, 1), [3], "eight logical blocks in a physical one");
    assert_eq!(disk.config(32, 1), [1], "writeback");
    assert_eq!(disk.config(56, 20)[4..], [0; 16], "zeroes after the end");
    assert_eq!(disk.config(usize::MAX, 4), [0; 4]);
}

#[test]
fn data_in_and_out_however_the_descriptors_are_cut() {
    for aio in ENGINES {
        let mut fixture = with_engine(aio);
        let data: Vec<u8> = (0..2048u32).map(|i| (i * 7) as u8).collect();
        let header = header(OUT, 3);
        let cut: [&[u8]; 5] = [&header[..1], &header[1..9], &header[9..], &data[..700], &data[700..]];
        assert_eq!(fixture.disk.request(0, &cut, &[1]), Reply { written: 1, data: vec![OK] });
        let joined = [header.as_slice(), &data].concat();
        assert_eq!(status(&fixture.disk.request(0, &[&joined], &[1])), OK);
        assert_eq!(fixture.contents()[3 * 512..][..2048], data);

        let header = self::header(IN, 3);
        for room in [
            vec![2048, 1],
            vec![2049],
            vec![1, 2, 2046],
            vec![2047, 1, 1],
            vec![1024; 2].into_iter().chain([1]).collect(),
        ] {
            let reply = fixture.disk.request(0, &[&header], &room);
            assert_eq!(reply.written, 2049, "{aio:?} {room:?}");
            assert_eq!(reply.data[..2048], data, "{aio:?} {room:?}");
            assert_eq!(status(&reply), OK);
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    for aio in ENGINES {
        let mut fixture = with_engine(aio);
        let before = fixture.contents();
        let last = SIZE / 512 - 1;
        let ranges = |count| range(0, 8, 0).repeat(count);
        for (kind, sector, data, room, expected) in [
            (IN, last, vec![], 1024, IO_ERR),
            (IN, last + 1, vec![], 512, IO_ERR),
            (IN, u64::MAX, vec![], 512, IO_ERR),
            (IN, u64::MAX / 512, vec![], 512, IO_ERR),
            (IN, 1 << 55, vec![], 512, IO_ERR),
            (IN, 0, vec![], 511, IO_ERR),
            (IN, 0, vec![], 513, IO_ERR),
            (OUT, last, vec![9; 1024], 0, IO_ERR),
            (OUT, u64::MAX, vec![9; 512], 0, IO_ERR),
            (OUT, 0, vec![9; 100], 0, IO_ERR),
            (DISCARD, 0, vec![], 0, IO_ERR),
            (DISCARD, 0, vec![0; 15], 0, IO_ERR),
            (DISCARD, 0, vec![0; 17], 0, IO_ERR),
            (DISCARD, 0, ranges(17), 0, IO_ERR),
            (DISCARD, 0, range(0, 8, 1).to_vec(), 0, UNSUPP),
            (DISCARD, 0, range(0, 8, 1 << 31).to_vec(), 0, UNSUPP),
            (DISCARD, 0, range(last, 2, 0).to_vec(), 0, IO_ERR),
            (DISCARD, 0, range(u64::MAX, 2, 0).to_vec(), 0, IO_ERR),
            (DISCARD, 0, range(0, u32::MAX, 0).to_vec(), 0, IO_ERR),
            (WRITE_ZEROES, 0, range(0, 8, 2).to_vec(), 0, UNSUPP),
            (WRITE_ZEROES, 0, range(last, 2, 0).to_vec(), 0, IO_ERR),
            // One bad range spoils all of them.
            (WRITE_ZEROES, 0, [range(0, 8, 0), range(last, 2, 0)].concat(), 0, IO_ERR),
            (2, 0, vec![0; 64], 64, UNSUPP),
            (14, 0, range(0, 8, 0).to_vec(), 0, UNSUPP),
            (15, 0, vec![0; 512], 0, UNSUPP),
            (u32::MAX, 0, vec![], 0, UNSUPP),
        ] {
            let status = fixture.ask(kind, sector, &data, room);
            assert_eq!(
                status,
                expected,
                "{aio:?}: type {kind} at {sector}, {} bytes in, {room} out",
                data.len()
            );
        }
        assert!(fixture.contents() == before);
        assert_eq!(fixture.ask(IN, last, &[], 512), OK, "the disk goes on");
    }
}

#[test]
fn a_refused_read_claims_no_data() {
    let mut fixture = with_engine(Aio::Sync);
    let reply = fixture.disk.request(0, &[&header(IN, u64::MAX)], &[512, 1]);
    assert_eq!(reply.written, 0);
    assert_eq!(reply.data[..512], [UNTOUCHED; 512]);
    assert_eq!(status(&reply), IO_ERR);
}

#[test]
fn a_chain_without_room_for_a_status_comes_back_with_nothing() {
    let mut fixture = with_engine(Aio::IoUring);
    for kind in [IN, OUT, FLUSH, GET_ID, 77] {
        let reply = fixture.disk.request(0, &[&header(kind, 0), &[0; 512]], &[]);
        assert_eq!(reply, Reply { written: 0, data: vec![] });
    }
    // A header cut short, or none, with room to say so.
    assert_eq!(fixture.disk.request(0, &[&header(IN, 0)[..15]], &[513]).data[512], IO_ERR);
    assert_eq!(fixture.disk.request(0, &[], &[513]).data[512], IO_ERR);
    assert_eq!(fixture.disk.request(0, &[], &[1]), Reply { written: 1, data: vec![IO_ERR] });
}

#[test]
fn zeroes_and_discards() {
    for aio in ENGINES {
        let mut fixture = with_engine(aio);
        let mut expected = fixture.contents();
        let ranges = [range(8, 8, 1), range(100, 3, 0), range(7, 0, 0)].concat();
        assert_eq!(fixture.ask(WRITE_ZEROES, 0, &ranges, 0), OK);
        expected[8 * 512..16 * 512].fill(0);
        expected[100 * 512..103 * 512].fill(0);
        assert!(fixture.contents() == expected, "{aio:?}");
        if fixture.disk.device().identity().features & F_DISCARD != 0 {
            let ranges: Vec<u8> = (0..16).flat_map(|i| range(200 + 16 * i, 8, 0)).collect();
            assert_eq!(fixture.ask(DISCARD, 0, &ranges, 0), OK);
            for i in 0..16 {
                expected[(200 + 16 * i) * 512..][..4096].fill(0);
            }
            assert!(fixture.contents() == expected, "{aio:?}");
        }
        assert_eq!(fixture.ask(FLUSH, 0, &[], 0), OK);
    }
}

/// Far more operations than the ring of an I/O engine holds: none may be left behind in it.
#[test]
fn a_full_queue_of_requests_of_many_ranges_ends() {
    for aio in ENGINES {
        let mut fixture = with_engine(aio);
        let ranges: Vec<u8> = (0..16).flat_map(|i| range(64 * i, 8, 1)).collect();
        let driver = fixture.disk.driver(0);
        for _ in 0..256 {
            driver.add_indirect(&[&header(WRITE_ZEROES, 0), &ranges], &[1]).unwrap();
        }
        driver.kick();
        while driver.in_flight() > 0 {
            assert_eq!(driver.wait_used(PATIENCE).expect("it ends").data, [OK]);
        }
    }
}

#[test]
fn zeroes_and_discards_need_their_features() {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(SIZE).unwrap();
    let blk = Blk::new(BlkOptions::new(Image::open(&RawOptions::new(file.path())).unwrap())).unwrap();
    let mut disk = Harness::with(Box::new(blk), ids::VIRTIO_F_VERSION_1, Arena::new(1 << 20));
    for kind in [DISCARD, WRITE_ZEROES] {
        assert_eq!(disk.request(0, &[&header(kind, 0), &range(0, 8, 0)], &[1]).data, [UNSUPP]);
    }
}

#[test]
fn the_serial_number_is_padded_or_cut() {
    let mut fixture = fixture(|raw, options| {
        let image = Image::open(&RawOptions { lock: false, ..raw.clone() }).unwrap();
        *options = Some(BlkOptions { serial: "parador-0".into(), ..BlkOptions::new(image) });
    });
    let header = header(GET_ID, 0);
    let reply = fixture.disk.request(0, &[&header], &[20, 1]);
    assert_eq!(reply, Reply { written: 21, data: b"parador-0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec() });
    let reply = fixture.disk.request(0, &[&header], &[4, 1]);
    assert_eq!(reply, Reply { written: 5, data: b"para\0".to_vec() });
    let reply = fixture.disk.request(0, &[&header], &[30, 1]);
    assert_eq!((reply.written, status(&reply), reply.data[20]), (20, OK, UNTOUCHED));
}

#[test]
fn a_read_only_disk_refuses_every_write() {
    for aio in ENGINES {
        let mut fixture = fixture(|raw, _| (raw.aio, raw.read_only) = (aio, true));
        let features = fixture.disk.device().identity().features;
        assert_eq!(features & (F_RO | F_DISCARD | F_WRITE_ZEROES), F_RO);
        let before = fixture.contents();
        assert_eq!(fixture.ask(OUT, 0, &[9; 512], 0), IO_ERR);
        assert_eq!(fixture.ask(DISCARD, 0, &range(0, 8, 0), 0), IO_ERR);
        assert_eq!(fixture.ask(WRITE_ZEROES, 0, &range(0, 8, 0), 0), IO_ERR);
        assert!(fixture.contents() == before);
        assert_eq!(fixture.ask(IN, 0, &[], 512), OK);
        assert_eq!(fixture.ask(FLUSH, 0, &[], 0), OK);
    }
}

#[test]
fn the_cache_mode_is_the_drivers_until_reset() {
    let mut fixture = with_engine(Aio::IoUring);
    fixture.disk.device().write_config(32, &[0]);
    assert_eq!(fixture.disk.config(32, 1), [0]);
    assert_eq!(fixture.ask(OUT, 0, &[9; 512], 0), OK);
    // Around it and beyond it, nothing is the driver's to write.
    fixture.disk.device().write_config(0, &[0xff; 32]);
    fixture.disk.device().write_config(33, &[0xff; 64]);
    fixture.disk.device().write_config(usize::MAX, &[0xff]);
    assert_eq!(fixture.disk.config(32, 1), [0]);
    assert_eq!(fixture.disk.config(0, 8), (SIZE / 512).to_le_bytes());
    fixture.disk.device().write_config(31, &[0, 1, 0]);
    assert_eq!(fixture.disk.config(32, 1), [1]);
    fixture.disk.device().write_config(32, &[0]);
    fixture.disk.reset();
    assert_eq!(fixture.disk.config(32, 1), [1]);
}

#[test]
fn a_new_size_is_announced_and_usable() {
    let mut fixture = with_engine(Aio::IoUring);
    assert_eq!(fixture.ask(IN, SIZE / 512, &[], 512), IO_ERR);
    assert_eq!(fixture.resizer.resize().unwrap(), SIZE);
    assert!(!fixture.disk.config_changed(), "nothing changed");
    fixture.file.as_file().set_len(2 * SIZE).unwrap();
    assert_eq!(fixture.resizer.resize().unwrap(), 2 * SIZE);
    assert!(fixture.disk.config_changed());
    assert_eq!(fixture.disk.config(0, 8), (2 * SIZE / 512).to_le_bytes());
    assert_eq!(fixture.ask(OUT, SIZE / 512, &[1; 512], 0), OK);
}

#[test]
fn a_file_that_shrank_is_an_error_to_the_guest_only() {
    for aio in ENGINES {
        let mut fixture = with_engine(aio);
        fixture.file.as_file().set_len(4096).unwrap();
        assert_eq!(fixture.ask(IN, 0, &[], 8192), IO_ERR);
        assert_eq!(fixture.ask(IN, 0, &[], 4096), OK);
    }
}

/// Requests that fill the ring several times over, with `interrupt` called now and then; every one
/// comes back once (the model driver sees to that) with what it must have read.
fn load(fixture: &mut Fixture, queues: u16, mut interrupt: impl FnMut(&mut Harness)) {
    const ROUNDS: u64 = 40;
    for round in 0..ROUNDS {
        for queue in 0..queues {
            let driver = fixture.disk.driver(queue);
            // Each queue and each request of a round has sectors of its own.
            for slot in 0..20 {
                let sector = u64::from(queue) * 512 + slot * 8;
                if slot % 3 == 0 {
                    let data = [(round ^ slot) as u8; 4096];
                    driver.add_indirect(&[&header(OUT, sector), &data], &[1]).unwrap();
                } else {
                    driver.add(&[&header(IN, sector)], &[512, 3584, 1]).unwrap();
                }
            }
            driver.kick();
        }
        if round % 4 == 1 {
            interrupt(&mut fixture.disk);
        }
        for queue in 0..queues {
            let driver = fixture.disk.driver(queue);
            while driver.in_flight() > 0 {
                let used = driver.wait_used(PATIENCE).expect("nothing is lost");
                assert_eq!(used.data.last(), Some(&OK));
                assert_eq!(used.written as usize, used.data.len());
            }
            assert_eq!(driver.take_used(), None);
        }
    }
}

#[test]
fn stopping_and_starting_under_load_loses_nothing() {
    for aio in ENGINES {
        // Without the page cache, requests wait for the disk and complete from its interrupt.
        for direct in [false, true] {
            let mut fixture = fixture(|raw, options| {
                raw.aio = aio;
                let image = Image::open(&RawOptions { lock: false, ..raw.clone() }).unwrap();
                *options = Some(BlkOptions { queues: 2, ..BlkOptions::new(image) });
                raw.direct = direct;
                if let Err(error) = Image::open(raw) {
                    eprintln!("in part without direct I/O: {error}");
                    raw.direct = false;
                }
            });
            assert_eq!(fixture.disk.config(34, 2), [2, 0]);
            load(&mut fixture, 2, Harness::pause);
            let contents = fixture.contents();
            for (queue, slot) in [(0, 0), (0, 18), (1, 3), (1, 15)] {
                let at = (queue * 512 + slot * 8) * 512;
                assert_eq!(contents[at..at + 4096], [(39 ^ slot) as u8; 4096]);
            }
        }
    }
}

#[test]
fn a_reset_with_requests_in_flight_ends_them_first() {
    for aio in ENGINES {
        let mut fixture = with_engine(aio);
        for _ in 0..20 {
            let driver = fixture.disk.driver(0);
            for slot in 0..60 {
                driver.add_indirect(&[&header(IN, slot * 8)], &[8192, 1]).unwrap();
            }
            driver.kick();
            fixture.disk.reset();
        }
        assert_eq!(fixture.ask(IN, 0, &[], 512), OK);
    }
}

#[test]
fn writethrough_without_the_flush_feature() {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(SIZE).unwrap();
    let image = Image::open(&RawOptions::new(file.path())).unwrap();
    let blk = Blk::new(BlkOptions { sync: true, ..BlkOptions::new(image) }).unwrap();
    assert_eq!(blk.identity().features & (F_FLUSH | F_CONFIG_WCE), 0);
    let mut disk = Harness::new(blk);
    disk.device().write_config(32, &[1]);
    assert_eq!(disk.config(32, 1), [0]);
    assert_eq!(disk.request(0, &[&header(OUT, 0), &[1; 512]], &[1]).data, [OK]);
}

#[test]
fn a_broken_ring_is_told_and_a_reset_heals_it() {
    let mut fixture = with_engine(Aio::IoUring);
    let driver = fixture.disk.driver(0);
    let head = driver.add(&[&header(IN, 0)], &[512, 1]).unwrap();
    // The same head twice in flight.
    driver.offer(head);
    driver.offer(300);
    driver.kick();
    let end = std::time::Instant::now() + PATIENCE;
    while !driver.is_broken() {
        assert!(std::time::Instant::now() < end, "the driver is told");
        std::thread::sleep(Duration::from_millis(1));
    }
    fixture.disk.reset();
    assert_eq!(fixture.ask(IN, 0, &[], 512), OK);
}

#[test]
fn options_that_make_no_disk() {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(SIZE).unwrap();
    let image = Image::open(&RawOptions::new(file.path())).unwrap();
    let new = |change: fn(&mut BlkOptions)| {
        let mut options = BlkOptions::new(image.clone());
        change(&mut options);
        Blk::new(options).err()
    };
    assert!(matches!(new(|o| o.serial = "x".repeat(21)), Some(BlkError::Serial(_))));
    assert!(new(|o| o.serial = "x".repeat(20)).is_none());
    for queues in [0, 65] {
        let mut options = BlkOptions::new(image.clone());
        options.queues = queues;
        assert!(matches!(Blk::new(options).err(), Some(BlkError::Queues(_))));
    }
    for size in [0, 2, 100, 2048] {
        let mut options = BlkOptions::new(image.clone());
        options.queue_size = size;
        assert!(matches!(Blk::new(options).err(), Some(BlkError::QueueSize(_))));
    }
    for sizes in [(256, 512), (512, 256), (1000, 4096), (4096, 1 << 20)] {
        let mut options = BlkOptions::new(image.clone());
        options.block_sizes = Some(sizes);
        assert!(matches!(Blk::new(options).err(), Some(BlkError::BlockSizes { .. })));
    }
    assert!(new(|o| o.block_sizes = Some((4096, 4096))).is_none());
}
