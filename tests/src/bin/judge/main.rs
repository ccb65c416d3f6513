//! Judges zoned block devices from inside a guest: a static program that scenarios stage (`needs: judge`).
//!
//! `judge compare REFERENCE SUBJECT STEPS SEED` does the same random operations to two disks and compares what
//! they answer; `judge append NVME DISK WORKERS` appends to an NVMe namespace from several threads and looks
//! for all of it on the disk that the namespace is made of.

mod append;
mod compare;
mod disk;
mod ioctl;
mod operation;
mod random;
mod tolerance;

use std::path::Path;

use anyhow::{Context, Result, bail};

const USAGE: &str = "judge compare REFERENCE SUBJECT STEPS SEED\njudge append NVME DISK WORKERS";

fn main() -> Result<()> {
    let words = std::env::args().skip(1).collect::<Vec<_>>();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["compare", reference, subject, steps, seed] => {
            let told = compare::run(Path::new(reference), Path::new(subject), number(steps)?, number(seed)?)?;
            println!("{told}");
        }
        ["append", nvme, disk, workers] => {
            println!("{}", append::run(Path::new(nvme), Path::new(disk), number(workers)?)?);
        }
        _ => bail!("cannot read `{}`\n{USAGE}", words.join(" ")),
    }
    Ok(())
}

fn number(word: &str) -> Result<u64> {
    word.parse().with_context(|| format!("`{word}` is not a number\n{USAGE}"))
}
