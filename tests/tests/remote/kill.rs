//! A back-end that is killed again and again under load: each request completes once, with the right
//! data.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use parador_block::{Error, Image, RawOptions};
use parador_devices::blk::{Blk, BlkOptions};
use parador_vhost_user::frontend::Remote;
use parador_vhost_user::server::Server;
use parador_virtio::ids::VIRTIO_ID_BLOCK;
use parador_virtio::testing::{Arena, Driver, PATIENCE};
use parador_virtio::{EventFd, QueueState, VirtioDevice};

use crate::served::options;

const KILLS: usize = 100;
const QUEUES: u16 = 2;
const DEPTH: usize = 32;
const BLOCK: usize = 4096;
/// Blocks of the disk: each is at most one request's at a time.
const BLOCKS: u64 = 1024;
/// Where the process that is killed finds what it is to serve.
const FOLDER: &str = "PARADOR_TEST_BACKEND";

/// The image that `open` opens, whose lock a process had that was killed: however long a busy kernel takes to let go of
/// it.
pub(crate) fn let_go(open: impl Fn() -> Result<Image, Error>) -> Image {
    let end = Instant::now() + PATIENCE;
    loop {
        match open() {
            Err(Error::Locked { .. }) if Instant::now() < end => {}
            opened => return opened.unwrap(),
        }
    }
}

/// Not a test but the process that is killed.
#[test]
fn back_end() {
    let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) else { return };
    let open = if folder.join("zoned").exists() { Image::open_zoned } else { Image::open };
    let image = let_go(|| open(&RawOptions::new(folder.join("disk"))));
    let disk = Blk::new(BlkOptions { queues: QUEUES, ..BlkOptions::new(image) }).unwrap();
    let socket = folder.join("socket");
    drop(fs::remove_file(&socket));
    let listener = UnixListener::bind(socket).unwrap();
    Server::new(Box::new(disk)).accept(&listener, &EventFd::new(0).unwrap()).unwrap();
}

pub(crate) fn spawn(folder: &Path) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "kill::back_end", "--nocapture"]).env(FOLDER, folder);
    command.stdout(std::process::Stdio::null()).spawn().unwrap()
}

/// Kills and restarts the back-end, each time after the driver has got on.
pub(crate) struct Supervisor {
    folder: PathBuf,
    kills: usize,
    pub(crate) completed: Arc<AtomicUsize>,
    pub(crate) has_ended: Arc<AtomicBool>,
}

impl Supervisor {
    /// Of a back-end that serves the file `disk` in `folder`, which has zones if there is a file
    /// `zoned` beside it.
    pub(crate) fn new(folder: &Path, kills: usize) -> Self {
        Self { folder: folder.into(), kills, completed: Arc::default(), has_ended: Arc::default() }
    }

    pub(crate) fn run(self) -> Child {
        let mut child = spawn(&self.folder);
        for round in 0..self.kills {
            // Some way into a batch: a different one each time, and less than it takes to end one.
            let from = self.completed.load(Ordering::SeqCst);
            while self.completed.load(Ordering::SeqCst) < from + 1 + round % 50 {
                thread::sleep(Duration::from_micros(100));
            }
            child.kill().unwrap();
            child.wait().unwrap();
            child = spawn(&self.folder);
        }
        self.has_ended.store(true, Ordering::SeqCst);
        child
    }
}

enum Request {
    Write { block: u64, generation: u64 },
    Read { block: u64 },
}

/// A driver of two queues and what it knows of the disk.
struct Load {
    drivers: Vec<Driver>,
    in_flight: Vec<HashMap<u16, Request>>,
    busy: Vec<bool>,
    disk: Vec<u64>,
    issued: u64,
    random: u64,
}

impl Load {
    fn random(&mut self, below: u64) -> u64 {
        // xorshift64*
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }

    /// Puts requests in queue `queue` until it has enough.
    fn fill(&mut self, queue: usize) {
        while self.in_flight[queue].len() < DEPTH {
            let block = self.random(BLOCKS);
            if std::mem::replace(&mut self.busy[block as usize], true) {
                continue;
            }
            self.issued += 1;
            let header = |kind: u32| {
                let sector = block * (BLOCK / 512) as u64;
                [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
            };
            let driver = &mut self.drivers[queue];
            let (head, request) = if self.issued.is_multiple_of(2) {
                let generation = self.issued;
                let data = content(block, generation);
                (driver.add(&[&header(1), &data], &[1]), Request::Write { block, generation })
            } else {
                (driver.add(&[&header(0)], &[BLOCK, 1]), Request::Read { block })
            };
            self.in_flight[queue].insert(head.unwrap(), request);
        }
        self.drivers[queue].kick();
    }

    /// Takes what is completed in queue `queue`, waiting for one, and says how many were.
    fn reap(&mut self, queue: usize) -> usize {
        let mut next = self.drivers[queue].wait_used(PATIENCE);
        assert!(next.is_some(), "a request is lost: {:?}", self.drivers[queue]);
        let mut count = 0;
        while let Some(mut used) = next {
            count += 1;
            assert_eq!(used.data.pop(), Some(0), "status");
            let block = match self.in_flight[queue].remove(&used.head).expect("each completes once") {
                Request::Write { block, generation } => {
                    self.disk[block as usize] = generation;
                    block
                }
                Request::Read { block } => {
                    let expected = content(block, self.disk[block as usize]);
                    assert!(used.data == expected, "block {block} has what was written last");
                    block
                }
            };
            self.busy[block as usize] = false;
            next = self.drivers[queue].take_used();
        }
        count
    }
}

/// What block `block` has after write `generation`; zeroes before any.
fn content(block: u64, generation: u64) -> Vec<u8> {
    if generation == 0 {
        return vec![0; BLOCK];
    }
    [block, generation].iter().cycle().take(BLOCK / 8).flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn a_disk_whose_back_end_is_killed_loses_nothing_and_does_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let file = fs::File::create_new(folder.path().join("disk")).unwrap();
    file.set_len(BLOCKS * BLOCK as u64).unwrap();
    let supervisor = Supervisor::new(folder.path(), KILLS);
    let (completed, has_ended) = (Arc::clone(&supervisor.completed), Arc::clone(&supervisor.has_ended));
    let supervisor = thread::spawn(|| supervisor.run());
    let mut remote = Remote::connect(options(VIRTIO_ID_BLOCK, folder.path().join("socket"))).unwrap();
    let identity = remote.identity().clone();
    assert_eq!(identity.queue_sizes.len(), usize::from(QUEUES));
    let arena = Arena::new(16 << 20);
    let features = identity.features | identity.ring_features;
    let driver = |_| Driver::on(&arena, 128, features);
    let mut load = Load {
        drivers: (0..QUEUES).map(driver).collect(),
        in_flight: (0..QUEUES).map(|_| HashMap::new()).collect(),
        busy: vec![false; BLOCKS as usize],
        disk: vec![0; BLOCKS as usize],
        issued: 0,
        random: 1,
    };
    for (index, driver) in (0..).zip(&load.drivers) {
        remote.start_queue(driver.setup(index, QueueState::default())).unwrap();
    }
    while !has_ended.load(Ordering::SeqCst) {
        for queue in 0..usize::from(QUEUES) {
            load.fill(queue);
        }
        for queue in 0..usize::from(QUEUES) {
            completed.fetch_add(load.reap(queue), Ordering::SeqCst);
        }
    }
    for queue in 0..usize::from(QUEUES) {
        while !load.in_flight[queue].is_empty() {
            load.reap(queue);
        }
        assert_eq!(remote.stop_queue(queue as u16), Some(load.drivers[queue].state()));
    }
    for (block, generation) in (0..).zip(&load.disk) {
        let mut data = vec![0; BLOCK];
        file.read_exact_at(&mut data, block * BLOCK as u64).unwrap();
        assert!(data == content(block, *generation), "block {block} is on the disk");
    }
    eprintln!("{} requests over {KILLS} kills", completed.load(Ordering::SeqCst));
    let mut child = supervisor.join().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}
