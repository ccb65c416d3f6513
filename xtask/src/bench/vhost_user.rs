//! A disk in a process of its own: 4 KiB random reads and writes over vhost-user, of our back-end and
//! of qemu-storage-daemon, beside plain io_uring on the same file, which knows no rings at all.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, bail};

use super::load::{Contender, Figures, Load, Room};
use crate::{command, lab};

const FILE_LEN: usize = 1 << 30;
/// Each figure is of so many pieces, one of each contender after the other.
const ROUNDS: usize = 3;
const PIECE_MS: &str = "500";
/// A disk without requests is watched for so long.
const IDLE: Duration = Duration::from_secs(10);

/// Starts the back-ends and prints their figures.
pub(super) fn vhost_user() -> Result<()> {
    if !command::exists("qemu-storage-daemon") {
        bail!("there is no qemu-storage-daemon to compare with\nhint: apt install qemu-system-common");
    }
    let parador = lab::build("release")?;
    let load = Load::build()?;
    println!("4 KiB random, file of 1 GiB; IOPS, and seconds of processor time for a million requests");
    for (place, folder) in [("in memory", Path::new("/dev/shm")), ("on disk", load.folder()?)] {
        let room = Room::new(folder)?;
        let contenders = contenders(&room, &parador)?;
        let kinds = ["read", "write"];
        let shapes = [(1, 1), (32, 1), (128, 1), (1, 2), (32, 2), (128, 2)];
        for (kind, (depth, queues)) in kinds.iter().flat_map(|kind| shapes.map(|shape| (kind, shape))) {
            let [ours, theirs, plain] = measure(&load, &contenders, kind, depth, queues)?;
            println!(
                "  {place:9} {kind:5} depth {depth:3} x {queues}: {ours}; qemu-storage-daemon {theirs}: {:.1} times; \
                 io_uring {plain}: {:.2} times",
                ours.iops() / theirs.iops(),
                ours.iops() / plain.iops(),
            );
        }
        // Connected, with queues that have nothing to do.
        let guests = contenders.each_ref().map(|contender| load.guest(contender));
        sleep(Duration::from_secs(1));
        let before = contenders.each_ref().map(Contender::processor_time);
        sleep(IDLE);
        let [ours, theirs, _] = contenders.each_ref().map(Contender::processor_time);
        for mut guest in guests.into_iter().flatten() {
            guest.kill()?;
            guest.wait()?;
        }
        let percent = |now: f64, before: f64| (now - before) / IDLE.as_secs_f64() * 100.0;
        println!(
            "  {place:9} idle: {:.1} % of a processor; qemu-storage-daemon {:.1} %",
            percent(ours, before[0]),
            percent(theirs, before[1]),
        );
    }
    Ok(())
}

/// Ours, qemu-storage-daemon and plain io_uring, on two files of the same contents, as no two may write to one.
fn contenders(room: &Room, parador: &Path) -> Result<[Contender; 3]> {
    let chunk: Vec<u8> = (0..1 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for name in ["ours", "theirs"] {
        let mut file = File::create(room.path(name))?;
        (0..FILE_LEN).step_by(chunk.len()).try_for_each(|_| file.write_all(&chunk))?;
        file.sync_all()?;
    }
    let path = format!("path={}", room.path("ours"));
    let ours = room.ours(parador, &[&path, "queues=2", "queue_size=512"], "ours.sock")?;
    let mut command = command::program("qemu-storage-daemon");
    let file = format!("driver=file,node-name=disk,aio=io_uring,filename={}", room.path("theirs"));
    let export = format!(
        "vhost-user-blk,id=disk,node-name=disk,writable=on,num-queues=2,iothread=io,\
         addr.type=unix,addr.path={}",
        room.path("theirs.sock")
    );
    command.args(["--blockdev", &file, "--object", "iothread,id=io", "--export", &export]);
    let theirs = room.start(command, "theirs.sock")?;
    Ok([ours, theirs, Contender::plain(room.path("ours"))])
}

/// Lets the contenders do the same, by turns.
fn measure(
    load: &Load,
    contenders: &[Contender; 3],
    kind: &str,
    depth: usize,
    queues: usize,
) -> Result<[Figures; 3]> {
    let mut figures = <[Figures; 3]>::default();
    for _ in 0..ROUNDS {
        for (contender, figures) in contenders.iter().zip(&mut figures) {
            *figures += load.run(contender, &[kind, &depth.to_string(), &queues.to_string(), PIECE_MS])?;
        }
    }
    Ok(figures)
}
