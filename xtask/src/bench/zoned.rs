//! What zones cost: a zoned image over vhost-user beside a raw disk of ours, on a file of the same size in the
//! same folder, asked for blocks of 4 KiB by the same program.
//!
//! Both disks are in the same state of allocation before anything is written: all zones were reset, all
//! blocks discarded. Reads are of disks that are written from start to end.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use super::load::{Contender, Figures, Load, Room};
use crate::{command, lab};

/// A piece of one after a piece of the other, so often for each figure.
const PAIRS: usize = 9;

/// Two loads that are compared.
struct Pair {
    name: &'static str,
    zoned: &'static str,
    raw: &'static str,
    /// What of raw's requests a second we set out to reach.
    goal: Option<f64>,
}

/// On disks whose blocks are not allocated.
const EMPTY: &[Pair] = &[
    Pair {
        name: "writes to 1 zone, depth 32 | the same of raw",
        zoned: "sequence 32",
        raw: "sequence 32",
        goal: None,
    },
    Pair {
        name: "writes to 8 zones, depth 32 | the same of raw",
        zoned: "sequence 32 streams=8",
        raw: "sequence 32 streams=8",
        goal: Some(0.95),
    },
    Pair {
        name: "appends to 1 zone, depth 1 | raw random writes",
        zoned: "append 1",
        raw: "write 1",
        goal: None,
    },
    Pair {
        name: "appends to 1 zone, depth 32 | raw random writes",
        zoned: "append 32",
        raw: "write 32",
        goal: Some(0.80),
    },
    Pair {
        name: "writes to 1 zone, FLUSH after each | the same of raw",
        zoned: "sequence 32 flush=1",
        raw: "sequence 32 flush=1",
        goal: None,
    },
    Pair {
        name: "writes to 1 zone, FLUSH after 64 | the same of raw",
        zoned: "sequence 32 flush=64",
        raw: "sequence 32 flush=64",
        goal: None,
    },
];

const READS: Pair =
    Pair { name: "reads, depth 32 | the same of raw", zoned: "read 32", raw: "read 32", goal: Some(0.95) };

/// The zoned side writes to what is not allocated, as always; raw to what is.
const OVER: Pair = Pair {
    name: "appends to 1 zone, depth 32 | raw random writes over data",
    zoned: "append 32",
    raw: "write 32",
    goal: None,
};

/// Starts both disks and prints a line for each pair.
pub(super) fn zoned() -> Result<()> {
    let parador = lab::build("release")?;
    let load = Load::build()?;
    println!(
        "4 KiB, 8 zones of 256 MiB over vhost-user | a raw disk of ours, which is as sparse or as full; IOPS, and seconds \
         of processor time for a million requests: medians of {PAIRS} pairs"
    );
    for (place, folder) in [("in memory", Path::new("/dev/shm")), ("on disk", load.folder()?)] {
        let room = Room::new(folder)?;
        let [zoned, raw] = disks(&room, &parador)?;
        let measure = |pair: &Pair, [zoned_first, raw_first]: [&str; 2]| -> Result<()> {
            let mut done = Vec::new();
            for turn in 0..PAIRS {
                let ours = || load.run(&zoned, &words(pair.zoned, "500", zoned_first));
                let theirs = || load.run(&raw, &words(pair.raw, "500", raw_first));
                done.push(if turn % 2 == 0 {
                    (ours()?, theirs()?)
                } else {
                    let raw = theirs()?;
                    (ours()?, raw)
                });
            }
            println!("  {place:9} {:58} {}", pair.name, verdict(done, pair.goal));
            Ok(())
        };
        let empty = ["empty=zones settled=yes", "empty=ranges settled=yes"];
        EMPTY.iter().try_for_each(|pair| measure(pair, empty))?;
        for (disk, how) in [(&zoned, empty[0]), (&raw, empty[1])] {
            load.run(disk, &words("sequence 32 streams=8", "600000", how))?;
        }
        measure(&READS, ["", ""])?;
        measure(&OVER, [empty[0], "settled=yes"])?;
    }
    recovery(&load, &parador)
}

/// Prints how long it takes to open an image of 1 TiB whose process was killed, with more and more data in all
/// of its zones: from the start of a process to its socket, beside a raw disk of that size.
fn recovery(load: &Load, parador: &Path) -> Result<()> {
    let room = Room::new(load.folder()?)?;
    let [raw, zoned] = ["raw", "zoned"].map(|name| room.path(name));
    let no_limits = ["--max-open", "0", "--max-active", "0"];
    create(parador, &["--size", "1T", &raw])?;
    create(
        parador,
        &[&["--size", "1T", "--zoned", "--zone-size", "64M"], &no_limits[..], &[&zoned]].concat(),
    )?;
    let keys = |path: &str, zones: &str| [format!("path={path}"), format!("zoned={zones}")];
    let (raw, zones) = (keys(&raw, "none"), keys(&zoned, "host-managed"));
    let mut sockets = (0..).map(|number| format!("{number}.sock"));
    let mut start = |keys: &[String]| {
        let (socket, begin) = (sockets.next().unwrap_or_default(), Instant::now());
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        room.ours(parador, &keys, &socket).map(|disk| (disk, begin.elapsed().as_secs_f64() * 1e3))
    };
    // Each ends with kill -9 when the next one starts.
    let mut open = |keys: &[String], fill: &[&str]| -> Result<f64> {
        if !fill.is_empty() {
            load.run(&start(keys)?.0, fill)?;
        }
        let mut times = (0..PAIRS).map(|_| Ok(start(keys)?.1)).collect::<Result<Vec<f64>>>()?;
        times.sort_by(f64::total_cmp);
        Ok(times[PAIRS / 2])
    };
    let raw = open(&raw, &[])?;
    println!("  opening 1 TiB after kill -9: raw {raw:.1} ms; 16384 zones of 64 MiB");
    for time in ["", "500", "2000"] {
        let fill = ["sequence", "32", "1", time, "zone=16384", "streams=16384", "empty=zones"];
        let zones = open(&zones, if time.is_empty() { &[] } else { &fill })?;
        let written = fs::metadata(&zoned)?.blocks() as f64 * 512.0 / f64::from(1 << 20);
        println!("    with {written:5.0} MiB in them {zones:6.1} ms: {:.2} times", zones / raw);
    }
    Ok(())
}

/// What `load` is told: kind, depth, queues, time and the rest.
fn words<'a>(what: &'a str, time: &'a str, first: &'a str) -> Vec<&'a str> {
    let what: Vec<&str> = what.split(' ').collect();
    let (kind_and_depth, rest) = what.split_at(2);
    let rest = rest.iter().copied().chain(first.split_whitespace());
    kind_and_depth.iter().copied().chain(["1", time, "zone=65536"]).chain(rest).collect()
}

fn disks(room: &Room, parador: &Path) -> Result<[Contender; 2]> {
    let (zoned, raw) = (room.path("zoned"), room.path("raw"));
    create(parador, &["--size", "2G", "--zoned", "--zone-size", "256M", &zoned])?;
    create(parador, &["--size", "2G", &raw])?;
    let zoned = room.ours(parador, &[&format!("path={zoned}"), "zoned=host-managed"], "zoned.sock")?;
    let raw = room.ours(parador, &[&format!("path={raw}")], "raw.sock")?;
    Ok([zoned, raw])
}

fn create(parador: &Path, words: &[&str]) -> Result<()> {
    let mut command = std::process::Command::new(parador);
    command::run_quiet(command.args(["image", "create"]).args(words))
}

/// The medians of both, and how they compare.
fn verdict(mut pairs: Vec<(Figures, Figures)>, goal: Option<f64>) -> String {
    let ratio = |(zoned, raw): &(Figures, Figures)| zoned.iops() / raw.iops();
    pairs.sort_by(|one, other| ratio(one).total_cmp(&ratio(other)));
    let ratio = pairs.get(pairs.len() / 2).map_or(f64::NAN, ratio);
    let (zoned, raw): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let said = match goal {
        None => String::new(),
        Some(goal) if ratio >= goal => format!("; the goal is {goal:.2}: reached"),
        Some(goal) => format!("; the goal is {goal:.2}: MISSED"),
    };
    format!("{} | {}: {ratio:.2} times{said}", median(zoned), median(raw))
}

fn median(mut figures: Vec<Figures>) -> Figures {
    figures.sort_by(|one, other| one.iops().total_cmp(&other.iops()));
    figures.swap_remove(figures.len() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(seconds: f64) -> Figures {
        Figures::new(1000.0, seconds, 0.5)
    }

    #[test]
    fn a_ratio_is_the_median_of_pairs_and_not_of_sides() {
        // The host was slow in turn, for both of a pair.
        let pairs = || vec![(done(1.0), done(0.9)), (done(4.0), done(3.6)), (done(2.0), done(1.8))];
        let said = verdict(pairs(), Some(0.85));
        assert_eq!(said, "500 (500.00 s) | 556 (500.00 s): 0.90 times; the goal is 0.85: reached");
        assert!(verdict(pairs(), Some(0.95)).ends_with("MISSED"));
    }
}
