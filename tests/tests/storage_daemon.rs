//! qemu-storage-daemon, of two releases, behind our front-end.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use parador_vhost_user::frontend::{Remote, RemoteOptions};
use parador_virtio::VirtioDevice;
use parador_virtio::ids::VIRTIO_ID_BLOCK;
use parador_virtio::testing::{Harness, PATIENCE};
use xtask::guest;

const SECTOR: usize = 512;
const SECTORS: usize = 2048;
/// virtio 1.3 §5.2.6: requests, and what a good one ends with.
const IN: u32 = 0;
const OUT: u32 = 1;
const OK: u8 = 0;

/// A daemon that serves a disk until it is killed.
struct Daemon {
    program: PathBuf,
    process: Child,
    directory: tempfile::TempDir,
}

impl Daemon {
    /// This machine's own, and the one of the Debian release before.
    fn each() -> impl Iterator<Item = Self> {
        let former = guest::former_storage_daemon().expect("it comes from the Debian archive");
        [PathBuf::from("qemu-storage-daemon"), former].into_iter().map(Self::start)
    }

    fn start(program: PathBuf) -> Self {
        println!("{}", program.display());
        let directory = tempfile::tempdir().unwrap();
        let mut file = fs::File::create(directory.path().join("disk")).unwrap();
        for sector in 0..SECTORS {
            file.write_all(&pattern(sector, 0)).unwrap();
        }
        let process = Self::spawn(&program, &directory);
        Self { program, process, directory }
    }

    fn spawn(program: &Path, directory: &tempfile::TempDir) -> Child {
        let at = |name: &str| directory.path().join(name).display().to_string();
        let mut daemon = Command::new(program);
        daemon.arg("--blockdev");
        daemon.arg(format!("driver=file,node-name=disk,filename={},locking=off", at("disk")));
        daemon.arg("--export").arg(format!(
            "type=vhost-user-blk,id=export,addr.type=unix,addr.path={},node-name=disk,writable=on,num-queues=2",
            at("socket")
        ));
        daemon.stdin(Stdio::null()).spawn().expect("the tests set it up")
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn restart(&mut self) {
        self.process = Self::spawn(&self.program, &self.directory);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

fn pattern(sector: usize, generation: usize) -> [u8; SECTOR] {
    let mut data = [(sector * 7 + generation) as u8; SECTOR];
    data[..8].copy_from_slice(&(sector as u64).to_le_bytes());
    data
}

fn header(kind: u32, sector: usize) -> Vec<u8> {
    [kind.to_le_bytes(), 0u32.to_le_bytes()]
        .concat()
        .into_iter()
        .chain((sector as u64).to_le_bytes())
        .collect()
}

fn connect(daemon: &Daemon) -> Remote {
    let options = RemoteOptions {
        kind: VIRTIO_ID_BLOCK,
        path: daemon.socket(),
        name: "disk".to_owned(),
        ..RemoteOptions::default()
    };
    Remote::connect(options).unwrap()
}

fn read(harness: &mut Harness, queue: u16, sector: usize) -> Vec<u8> {
    let mut reply = harness.request(queue, &[&header(IN, sector)], &[SECTOR, 1]).data;
    assert_eq!(reply.pop(), Some(OK));
    reply
}

fn write(harness: &mut Harness, queue: u16, sector: usize, data: &[u8]) {
    assert_eq!(harness.request(queue, &[&header(OUT, sector), data], &[1]).data, [OK]);
}

#[test]
fn a_disk_reads_and_writes() {
    for daemon in Daemon::each() {
        let remote = connect(&daemon);
        assert_eq!(remote.identity().queue_sizes.len(), 2);
        assert_eq!(remote.identity().config_len, 60);
        let mut harness = Harness::new(remote);
        assert_eq!(harness.config(0, 8), (SECTORS as u64).to_le_bytes());
        for round in 0..3 {
            for sector in [0, 7, SECTORS - 1] {
                assert_eq!(read(&mut harness, 1, sector), pattern(sector, round), "round {round}");
                write(&mut harness, 0, sector, &pattern(sector, round + 1));
            }
            if round == 0 { harness.pause() } else { harness.reset() }
        }
        let disk = fs::read(daemon.directory.path().join("disk")).unwrap();
        assert_eq!(disk[7 * SECTOR..8 * SECTOR], pattern(7, 3));
    }
}

#[test]
fn requests_wait_for_a_daemon_that_was_killed() {
    for mut daemon in Daemon::each() {
        let mut harness = Harness::new(connect(&daemon));
        write(&mut harness, 0, 5, &pattern(5, 1));
        for round in 1..10 {
            daemon.kill();
            let driver = harness.driver(0);
            let data = pattern(5, round + 1);
            driver.add(&[&header(OUT, 5), &data], &[1]).unwrap();
            driver.kick();
            daemon.restart();
            assert_eq!(driver.wait_used(PATIENCE).expect("the daemon is back").data, [OK]);
            assert_eq!(read(&mut harness, 1, 5), data);
        }
    }
}

/// It has no in-flight region: what it had not said to be done is done again, and each request ends once.
#[test]
fn a_daemon_that_is_killed_with_many_requests_in_flight_loses_none() {
    const DEPTH: usize = 32;
    for mut daemon in Daemon::each() {
        let mut harness = Harness::new(connect(&daemon));
        for round in 1..10 {
            let driver = harness.driver(0);
            for sector in 0..DEPTH {
                driver.add(&[&header(OUT, sector), &pattern(sector, round)], &[1]).unwrap();
                driver.kick();
            }
            daemon.kill();
            daemon.restart();
            for _ in 0..DEPTH {
                assert_eq!(driver.wait_used(PATIENCE).expect("each ends").data, [OK]);
            }
            assert!(driver.wait_used(Duration::from_millis(20)).is_none(), "and only once");
            for sector in 0..DEPTH {
                assert_eq!(read(&mut harness, 1, sector), pattern(sector, round));
            }
        }
    }
}

#[test]
fn a_device_is_stopped_and_dropped_while_its_daemon_is_away() {
    for mut daemon in Daemon::each() {
        let mut harness = Harness::new(connect(&daemon));
        write(&mut harness, 0, 5, &pattern(5, 1));
        daemon.kill();
        harness.driver(0).add(&[&header(IN, 5)], &[SECTOR, 1]).unwrap();
        harness.driver(0).kick();
        harness.pause();
        harness.driver(0);
        harness.reset();
        harness.start();
        drop(harness);
    }
}
