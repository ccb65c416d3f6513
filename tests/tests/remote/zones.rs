//! A disk with zones at the other end of a socket: it is what it is by itself, drivers that do not know
//! zones are not left waiting, and a back-end that is killed under load is not noticed.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::{env, fs, thread};

use parador_block::zoned::image::{self, Check, Look, Metadata};
use parador_block::zoned::{Condition, Geometry};
use parador_block::{Image, RawOptions};
use parador_devices::blk::{Blk, BlkOptions};
use parador_vhost_user::frontend::Remote;
use parador_virtio::ids::VIRTIO_ID_BLOCK;
use parador_virtio::testing::{Arena, Driver, Harness, PATIENCE, check_contract};
use parador_virtio::{QueueState, VirtioDevice};

use crate::kill::{Supervisor, let_go, spawn};
use crate::served::{Served, drive, options, three_ways};

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const APPEND: u32 = 15;
const REPORT: u32 = 16;
const OPEN: u32 = 18;
const FINISH: u32 = 22;
const RESET: u32 = 24;

const BLOCK: usize = 4096;
/// Sectors in a block, and in a zone.
const SECTORS: u64 = 8;
const ZONE: u64 = 8192;

fn create(path: &Path) {
    let file = fs::File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
    let geometry = Geometry { conventional: 1, max_open: 4, ..Geometry::new(16 * ZONE * 512, ZONE * 512) };
    let len = Metadata::create(&file, geometry.checked().unwrap(), [3; 16]).unwrap();
    file.set_len(len).unwrap();
}

fn disk(path: &Path) -> Blk {
    let image = Image::open_zoned(&RawOptions { lock: false, ..RawOptions::new(path) }).unwrap();
    Blk::new(BlkOptions { queues: 2, ..BlkOptions::new(image) }).unwrap()
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}

#[test]
fn a_disk_with_zones_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let fresh = || {
        create(&path);
        disk(&path)
    };
    // One image cannot be two disks: each has its own file, made when it is asked for.
    three_ways(fresh, |mut device, _| check_contract(&mut *device));
}

#[test]
fn a_disk_with_zones_is_the_same_over_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let fresh = || {
        create(&path);
        disk(&path)
    };
    let life = |device: Box<dyn VirtioDevice>, how: &str| {
        assert_eq!(device.identity().required, 1 << 17, "{how}");
        let mut harness = drive(device);
        assert_eq!(harness.config(72, 4), (ZONE as u32).to_le_bytes(), "{how}");
        assert_eq!(harness.config(88, 8), [0, 16, 0, 0, 1, 0, 0, 0], "{how}");
        let data = vec![7; BLOCK];
        assert_eq!(harness.request(0, &[&header(OUT, ZONE), &data], &[1]).data, [0], "{how}");
        let reply = harness.request(1, &[&header(APPEND, ZONE), &data], &[16]);
        assert_eq!((number(&reply.data), reply.data[15]), (ZONE + SECTORS, 0), "{how}");
        assert_eq!(harness.request(0, &[&header(OUT, ZONE), &data], &[1]).data, [4], "{how}: unaligned");
        assert_eq!(harness.request(0, &[&header(OPEN, ZONE)], &[1]).data, [0], "{how}");
        harness.pause();
        let reply = harness.request(0, &[&header(REPORT, ZONE)], &[128, 1]);
        assert_eq!((number(&reply.data), reply.written), (1, 129), "{how}");
        let (pointer, state) = (number(&reply.data[80..]), reply.data[89]);
        assert_eq!((pointer, state), (ZONE + 2 * SECTORS, 3), "{how}");
        assert_eq!(harness.request(1, &[&header(FINISH, ZONE)], &[1]).data, [0], "{how}");
        assert_eq!(harness.request(0, &[&header(RESET, ZONE)], &[1]).data, [0], "{how}");
        let reply = harness.request(0, &[&header(IN, ZONE)], &[BLOCK, 1]);
        assert_eq!(reply.data, vec![0; BLOCK + 1], "{how}");
    };
    three_ways(fresh, life);
}

/// As QEMU's front-end and others do it, which do not pass the feature on.
#[test]
fn a_front_end_that_does_not_know_zones_gets_an_answer_to_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    create(&path);
    let served = Served::new(disk(&path));
    let remote = served.connect();
    let features = (remote.identity().features | remote.identity().ring_features) & !(1 << 17);
    let mut harness = Harness::with(Box::new(remote), features, Arena::new(1 << 20));
    for kind in [OUT, FLUSH, APPEND, OPEN, RESET, IN, REPORT] {
        let reply = harness.request(0, &[&header(kind, ZONE), &[7; BLOCK]], &[128, 1]);
        assert_eq!((reply.written, reply.data[128]), (0, 2), "type {kind} is not supported");
    }
    harness.pause();
    assert_eq!(harness.request(1, &[&header(FLUSH, 0)], &[1]).data, [2]);
}

const DEPTH: usize = 16;
/// Blocks in one life of a zone: what is appended twice has room, too.
const LIFE: u64 = 200;

/// What a zone's driver is doing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Writing, with how many blocks begun.
    Writes(u64),
    /// Reading all that was written, with how many begun.
    Reads(usize),
    Reset,
}

enum Asked {
    /// At this sector, if the driver chose it.
    Block(Option<u64>, u64),
    Read(u64, u64),
    Nothing,
}

/// A queue whose driver fills a zone, reads it, and resets it, over and over.
struct Zone {
    driver: Driver,
    start: u64,
    appends: bool,
    phase: Phase,
    stamp: u64,
    /// What is at which sector.
    written: BTreeMap<u64, u64>,
    in_flight: HashMap<u16, Asked>,
    lives: usize,
}

impl Zone {
    fn add(&mut self, kind: u32, sector: u64, data: &[u8], room: &[usize], asked: Asked) {
        let header = header(kind, sector);
        let readable: [&[u8]; 2] = [&header, data];
        let readable = &readable[..if data.is_empty() { 1 } else { 2 }];
        self.in_flight.insert(self.driver.add(readable, room).unwrap(), asked);
    }

    /// Asks for more, as long as there is something to do before all that was asked is over.
    fn fill(&mut self) {
        while self.in_flight.len() < DEPTH {
            match self.phase {
                Phase::Writes(LIFE) if self.in_flight.is_empty() => self.phase = Phase::Reads(0),
                Phase::Writes(LIFE) => break,
                Phase::Writes(begun) => {
                    self.stamp += 1;
                    let data = content(self.stamp);
                    let at = self.start + begun * SECTORS;
                    match self.appends {
                        true => self.add(APPEND, self.start, &data, &[16], Asked::Block(None, self.stamp)),
                        false => self.add(OUT, at, &data, &[1], Asked::Block(Some(at), self.stamp)),
                    }
                    if self.stamp.is_multiple_of(23) {
                        self.add(FLUSH, 0, &[], &[1], Asked::Nothing);
                    }
                    self.phase = Phase::Writes(begun + 1);
                }
                Phase::Reads(begun) => match self.written.iter().nth(begun) {
                    Some((&at, &stamp)) => {
                        self.add(IN, at, &[], &[BLOCK, 1], Asked::Read(at, stamp));
                        self.phase = Phase::Reads(begun + 1);
                    }
                    None if self.in_flight.is_empty() => {
                        self.add(RESET, self.start, &[], &[1], Asked::Nothing);
                        self.phase = Phase::Reset;
                    }
                    None => break,
                },
                Phase::Reset if self.in_flight.is_empty() => {
                    self.lives += 1;
                    self.written.clear();
                    self.phase = Phase::Writes(0);
                }
                Phase::Reset => break,
            }
        }
        self.driver.kick();
    }

    /// Takes what is over, waiting for something, and says how much that was.
    fn reap(&mut self) -> usize {
        let mut next = self.driver.wait_used(PATIENCE);
        assert!(next.is_some(), "a request is lost: {:?}", self.driver);
        let mut count = 0;
        while let Some(mut used) = next {
            count += 1;
            assert_eq!(used.data.pop(), Some(0), "status");
            match self.in_flight.remove(&used.head).expect("each completes once") {
                Asked::Block(at, stamp) => {
                    let at = at.unwrap_or_else(|| number(&used.data));
                    assert!((self.start..self.start + ZONE).contains(&at));
                    assert_eq!(self.written.insert(at, stamp), None, "two at one place");
                }
                Asked::Read(at, stamp) => {
                    assert!(used.data == content(stamp), "sector {at} has what was written there");
                }
                Asked::Nothing => {}
            }
            next = self.driver.take_used();
        }
        count
    }
}

fn content(stamp: u64) -> Vec<u8> {
    stamp.to_le_bytes().repeat(BLOCK / 8)
}

#[test]
fn a_zoned_disk_whose_back_end_is_killed_refuses_nothing_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    create(&folder.path().join("disk"));
    fs::write(folder.path().join("zoned"), []).unwrap();
    let supervisor = Supervisor::new(folder.path(), 50);
    let (completed, has_ended) = (supervisor.completed.clone(), supervisor.has_ended.clone());
    let supervisor = thread::spawn(|| supervisor.run());
    let mut remote = Remote::connect(options(VIRTIO_ID_BLOCK, folder.path().join("socket"))).unwrap();
    let features = remote.identity().features | remote.identity().ring_features;
    let arena = Arena::new(16 << 20);
    let zone = |number: u64| Zone {
        driver: Driver::on(&arena, 128, features),
        start: (1 + number) * ZONE,
        appends: number == 1,
        phase: Phase::Writes(0),
        stamp: number << 32,
        written: BTreeMap::new(),
        in_flight: HashMap::new(),
        lives: 0,
    };
    let mut zones = [zone(0), zone(1)];
    for (index, zone) in (0..).zip(&zones) {
        remote.start_queue(zone.driver.setup(index, QueueState::default())).unwrap();
    }
    // However slow the host is: each zone is reset, and written and read again.
    while !has_ended.load(Ordering::SeqCst) || zones.iter().any(|zone| zone.lives < 2) {
        zones.iter_mut().for_each(Zone::fill);
        for zone in &mut zones {
            completed.fetch_add(zone.reap(), Ordering::SeqCst);
        }
    }
    for (index, zone) in (0..).zip(&mut zones) {
        while !zone.in_flight.is_empty() {
            zone.reap();
        }
        assert_eq!(remote.stop_queue(index), Some(zone.driver.state()));
    }
    // Each write has its one place: the pointer is where the driver thinks it is.
    let mut child = supervisor.join().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let image = let_go(|| Image::open_zoned(&RawOptions::new(folder.path().join("disk"))));
    let mut known = [parador_block::zoned::Zone {
        start: 0,
        capacity: 0,
        condition: Condition::Offline,
        write_pointer: None,
    }; 3];
    assert_eq!(image.zoned().unwrap().report(0, &mut known).unwrap(), 3);
    let last = zones[0].written.last_key_value().filter(|_| zones[0].phase != Phase::Reset);
    let end = last.map_or(ZONE, |(at, _)| at + SECTORS);
    assert_eq!(known[1].write_pointer, Some(end * 512));
}

#[test]
fn a_zone_that_another_process_makes_fail_under_load_has_failed_for_good() {
    const INVALID: u8 = 3;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    create(&path);
    fs::write(folder.path().join("zoned"), []).unwrap();
    let mut child = spawn(folder.path());
    let mut remote = Remote::connect(options(VIRTIO_ID_BLOCK, folder.path().join("socket"))).unwrap();
    let features = remote.identity().features | remote.identity().ring_features;
    let arena = Arena::new(16 << 20);
    let [mut writer, mut other] = [(); 2].map(|()| Driver::on(&arena, 128, features));
    for (index, driver) in (0..).zip([&writer, &other]) {
        remote.start_queue(driver.setup(index, QueueState::default())).unwrap();
    }
    let disk = path.clone();
    let fail = move |zone, offline| {
        let file = fs::File::options().read(true).write(true).open(&disk).unwrap();
        assert!(matches!(image::ask(&file, zone, offline), Ok(image::Asked::Done)));
    };
    let mut request = |header: &[u8], room: &[usize]| {
        other.add(&[header], room).unwrap();
        other.kick();
        other.wait_used(PATIENCE).unwrap().data
    };

    // Appends are in flight all the time, until one is refused; each one ends.
    let (mut written, mut refused, mut asked) = (Vec::new(), 0, None);
    let mut stamps = HashMap::new();
    for stamp in 1.. {
        let data = content(stamp);
        let head = writer.add(&[&header(APPEND, 2 * ZONE), &data], &[16]).unwrap();
        stamps.insert(head, stamp);
        writer.kick();
        if stamp == 100 {
            let fail = fail.clone();
            asked = Some(thread::spawn(move || fail(2, false)));
        }
        while writer.in_flight() >= DEPTH || (refused > 0 && writer.in_flight() > 0) {
            let used = writer.wait_used(PATIENCE).expect("each ends");
            let stamp = stamps.remove(&used.head).unwrap();
            match used.data[15] {
                0 => written.push((number(&used.data), stamp)),
                status => {
                    assert_eq!(status, INVALID);
                    refused += 1;
                }
            }
        }
        if refused > 0 {
            break;
        }
    }
    asked.unwrap().join().unwrap();
    assert!(written.len() >= 100 - DEPTH && refused > 0);
    assert_eq!(request(&header(REPORT, 2 * ZONE), &[128, 1])[89], 13, "read-only");
    for (at, stamp) in &written {
        assert!(request(&header(IN, *at), &[BLOCK, 1]) == [content(*stamp), vec![0]].concat());
    }
    fail(3, true);
    assert_eq!(request(&header(REPORT, 3 * ZONE), &[128, 1])[89], 15, "offline");
    let file = fs::File::open(&path).unwrap();
    let conditions =
        || Look::at(&file).unwrap().zones[2..4].iter().map(|zone| zone.condition).collect::<Vec<_>>();
    let lost = vec![Condition::ReadOnly, Condition::Offline];
    assert_eq!(lost, conditions());

    child.kill().unwrap();
    child.wait().unwrap();
    drop(remote);
    assert_eq!(lost, conditions(), "left by a process that was killed");
    drop(let_go(|| Image::open_zoned(&RawOptions::new(&path))));
    assert_eq!(lost, conditions(), "closed");
    assert_eq!(Check::of(&file).unwrap().findings(), []);
}

/// Where the process that is killed finds the disk it is to write to.
const WRITER: &str = "PARADOR_TEST_WRITER";

/// Not a test but the process that is killed: it appends to the second zone, sixteen at a time, and says
/// where each append went that is over.
#[test]
fn writer() {
    let Some(path) = env::var_os(WRITER) else { return };
    let mut harness = Harness::new(disk(Path::new(&path)));
    let driver = harness.driver(0);
    let mut left = LIFE;
    while left > 0 || driver.in_flight() > 0 {
        while left > 0 && driver.in_flight() < DEPTH {
            driver.add(&[&header(APPEND, ZONE), &content(left)], &[16]).unwrap();
            left -= 1;
        }
        driver.kick();
        let used = driver.wait_used(PATIENCE).unwrap();
        assert_eq!(used.data[15], 0);
        println!("at {}", number(&used.data));
    }
    // Whoever reads that is slow: it comes.
    loop {
        thread::park();
    }
}

#[test]
fn a_process_that_is_killed_loses_what_was_in_flight_and_no_write_pointer() {
    const ROUNDS: u64 = 20;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    create(&path);
    for round in 0..ROUNDS {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "zones::writer", "--nocapture"]).env(WRITER, &path);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut places = Vec::new();
        for line in lines.map_while(Result::ok) {
            let Some(at) = line.rsplit("at ").next().and_then(|at| at.parse::<u64>().ok()) else { continue };
            places.push(at);
            if places.len() as u64 == 1 + 2 * round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();

        let mut harness = drive(Box::new(disk(&path)));
        let reply = harness.request(0, &[&header(REPORT, ZONE)], &[128, 1]);
        let (pointer, state) = (number(&reply.data[80..]), reply.data[89]);
        assert_eq!(state, 4, "closed");
        places.sort_unstable();
        let last = places.last().map_or(ZONE, |last| last + SECTORS);
        assert!((last..=ZONE + (places.len() + DEPTH) as u64 * SECTORS).contains(&pointer));
        for at in places {
            let reply = harness.request(0, &[&header(IN, at)], &[BLOCK, 1]);
            let stamp = number(&reply.data);
            assert!((1..=LIFE).contains(&stamp));
            assert!(reply.data == [content(stamp), vec![0]].concat(), "what was said to be written at {at}");
        }
        assert_eq!(harness.request(0, &[&header(OUT, pointer), &content(1)], &[1]).data, [0]);
        assert_eq!(harness.request(0, &[&header(RESET, ZONE)], &[1]).data, [0]);
    }
}
