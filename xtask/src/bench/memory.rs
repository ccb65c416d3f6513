//! Resident memory of the VMM's process outside guest memory, idle guest.

use anyhow::{Context, Result, bail};

use super::scenario;

/// What we set out to reach with and without devices: resident and, of it, anonymous, in KiB.
const GOALS: &[(&str, u32, u32)] = &[("parador-bare", 3072, 256), ("parador-blk-net-console", 4096, 512)];

/// Runs the scenario and prints a line for each VMM.
pub(super) fn memory() -> Result<()> {
    let output = scenario("bench/memory")?;
    println!("memory outside the guest's, 1 processor, 256 MiB, idle guest");
    for line in output.lines().filter_map(|line| line.split_once("bench: memory ")) {
        let words = line.1.split_whitespace().collect::<Vec<_>>();
        let [name, resident, anonymous] = words[..] else { bail!("cannot read `{}`", line.1) };
        let number = |word: &str| word.parse::<u32>().with_context(|| format!("`{word}` is not in KiB"));
        let (resident, anonymous) = (number(resident)?, number(anonymous)?);
        print!("  {name:24} {resident:6} KiB, {anonymous:5} anonymous");
        match GOALS.iter().find(|(goal, ..)| *goal == name) {
            Some((_, all, part)) => println!(
                "  {:5.2} and {:5.2} of the goal",
                f64::from(resident) / f64::from(*all),
                f64::from(anonymous) / f64::from(*part)
            ),
            None => println!(),
        }
    }
    Ok(())
}
