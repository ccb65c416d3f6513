//! Appends of several threads at once to the zones of an NVMe namespace, which a zoned disk is behind.
//!
//! Nothing else in Linux lets a program append: the answer says where, and that is checked.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs::File;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use crate::disk::{BLOCK, BLOCK_SECTORS, Buffer, Condition, Disk, Zone, fill};
use crate::ioctl;
use crate::random::Random;

/// The longest append, in blocks.
const MAX_BLOCKS: u64 = 8;

/// One answer, about a zone by its number; places and lengths in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Append {
    zone: usize,
    at: Result<u64, u32>,
    blocks: u64,
    /// Whose it is, and what is in it.
    worker: u64,
    serial: u64,
}

impl Append {
    /// No two appends write the same.
    fn pattern(&self) -> u64 {
        self.worker << 16 | self.serial
    }
}

/// Lets `workers` threads append to each zone of `disk`, which are all empty, until it has no room, through the
/// namespace `nvme`; then looks for all of it on `disk`.
pub(crate) fn run(nvme: &Path, disk: &Path, workers: u64) -> Result<String> {
    let disk = Disk::open(disk)?;
    let zones = disk.report()?;
    ensure!(zones.iter().all(|zone| zone.condition == Condition::Empty), "not all zones are empty");
    let nvme = File::options()
        .read(true)
        .write(true)
        .open(nvme)
        .with_context(|| format!("cannot open {}", nvme.display()))?;
    let namespace = ioctl::namespace(&nvme).context("cannot tell the namespace")?;

    let appends = thread::scope(|scope| {
        let threads = (0..workers).map(|worker| {
            scope.spawn({
                let (nvme, zones) = (&nvme, &zones);
                move || work(nvme, namespace, zones, worker)
            })
        });
        let threads = threads.collect::<Vec<_>>();
        let mut appends = Vec::new();
        for thread in threads {
            match thread.join() {
                Ok(done) => appends.extend(done?),
                Err(_) => bail!("a worker panicked"),
            }
        }
        Ok(appends)
    })?;

    let after = disk.report()?;
    for (number, (before, after)) in zones.iter().zip(&after).enumerate() {
        let of_zone = appends.iter().filter(|append| append.zone == number).copied().collect();
        gapless(of_zone, before, after).with_context(|| format!("zone {number}"))?;
    }
    for append in &appends {
        let Ok(at) = append.at else { continue };
        let read =
            disk.read(at * BLOCK_SECTORS, append.blocks * BLOCK_SECTORS).context("cannot read back")?;
        let mut wanted = vec![0; read.len()];
        fill(&mut wanted, 0, append.pattern());
        ensure!(read == wanted, "not what was appended: {append:?}");
    }
    told(&appends, zones.len())
}

/// One thread's appends: to each zone in turn, until there is no room.
fn work(nvme: &File, namespace: u32, zones: &[Zone], worker: u64) -> Result<Vec<Append>> {
    let mut random = Random(worker);
    let mut appends = Vec::new();
    let mut buffer = Buffer::new((MAX_BLOCKS * BLOCK) as usize);
    for (number, zone) in zones.iter().enumerate() {
        loop {
            let blocks = 1 + random.below(MAX_BLOCKS);
            let serial = appends.len() as u64;
            let mut append = Append { zone: number, at: Err(0), blocks, worker, serial };
            let data = &mut buffer.bytes()[..(blocks * BLOCK) as usize];
            fill(data, 0, append.pattern());
            append.at = ioctl::append(nvme, namespace, zone.start / BLOCK_SECTORS, data, BLOCK as usize)
                .with_context(|| format!("cannot ask for {append:?}"))?;
            appends.push(append);
            if append.at.is_err() {
                break;
            }
        }
    }
    Ok(appends)
}

/// Whether the appends of one zone lie one behind the other from its start, end where the zone says, and whether
/// those that were refused had no room.
fn gapless(mut appends: Vec<Append>, before: &Zone, after: &Zone) -> Result<()> {
    // Those that were done come first, by their place.
    appends.sort_by_key(|append| append.at.map_or((1, 0), |at| (0, at)));
    let mut next = before.start / BLOCK_SECTORS;
    for append in &appends {
        match append.at {
            Ok(at) => {
                ensure!(at == next, "block {next} is not where {append:?} is");
                next += append.blocks;
            }
            Err(_) => {
                ensure!(next + append.blocks > before.end() / BLOCK_SECTORS, "room for {append:?} at {next}");
            }
        }
    }
    let end = if after.condition == Condition::Full { after.end() } else { after.pointer };
    ensure!(next * BLOCK_SECTORS == end, "appends end at {next}, and it says {after:?}");
    Ok(())
}

fn told(appends: &[Append], zones: usize) -> Result<String> {
    let done = appends.iter().filter(|append| append.at.is_ok()).count();
    let mut by_place = appends.iter().filter(|append| append.at.is_ok()).collect::<Vec<_>>();
    by_place.sort_by_key(|append| append.at);
    let turns = by_place.windows(2).filter(|pair| pair[0].worker != pair[1].worker).count();
    ensure!(turns > zones, "the threads did not append at once: {turns} turns");
    let mut told = format!(
        "{done} appends to {zones} zones, no overlap, no gap; the next is another thread's {turns} times"
    );
    let statuses = appends.iter().filter_map(|append| append.at.err()).collect::<BTreeSet<_>>();
    for status in statuses {
        let _ = write!(told, "; without room the status is {status:#x}");
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: Zone = Zone { start: 64, len: 64, capacity: 48, pointer: 64, condition: Condition::Empty };

    fn append(at: Result<u64, u32>, blocks: u64) -> Append {
        Append { zone: 0, at, blocks, worker: 0, serial: 0 }
    }

    #[test]
    fn appends_are_one_behind_the_other() {
        let closed = Zone { pointer: 64 + 5 * 8, condition: Condition::ImplicitlyOpen, ..EMPTY };
        let good = [append(Ok(10), 3), append(Err(1), 2), append(Ok(8), 2)];
        assert!(gapless(good.to_vec(), &EMPTY, &closed).is_ok());
        for bad in [
            [append(Ok(11), 3), good[1], good[2]],
            [append(Ok(9), 3), good[1], good[2]],
            [append(Ok(10), 4), good[1], good[2]],
            [good[0], append(Err(1), 1), good[2]],
        ] {
            assert!(gapless(bad.to_vec(), &EMPTY, &closed).is_err(), "{bad:?}");
        }
        let full = Zone { condition: Condition::Full, pointer: 0, ..EMPTY };
        assert!(gapless(vec![append(Ok(8), 6)], &EMPTY, &full).is_ok());
        assert!(gapless(vec![append(Ok(8), 5)], &EMPTY, &full).is_err());
    }
}
