//! Boot in virtual time: from the start of the VMM's process to the guest's userspace and out.

use anyhow::{Context, Result, bail};

use super::scenario;

/// What the first issue of the project set out to reach, in seconds.
const GOAL_S: f64 = 1.17;

/// Runs the scenario and prints a line for each VMM.
pub(super) fn boot() -> Result<()> {
    let output = scenario("bench/boot")?;
    let times = times(&output)?;
    let seconds = |name: &str| times.iter().rev().find(|(found, _)| found == name).map(|(_, time)| *time);
    let ours = seconds("parador").context("the scenario did not measure parador")?;
    println!("boot, virtual time, 1 processor, 256 MiB, to userspace and out");
    for (name, time) in &times {
        println!("  {name:24} {time:8.3} s  {:5.2} of ours  {:5.2} of the goal", time / ours, time / GOAL_S);
    }
    Ok(())
}

/// The named intervals in the kernel's log: `[ 1.000001] bench: start NAME` to `bench: end`.
fn times(log: &str) -> Result<Vec<(String, f64)>> {
    let mut times = Vec::new();
    let mut open = None;
    for line in log.lines() {
        let Some((stamp, mark)) = line.split_once("bench: ") else { continue };
        let stamp = stamp.trim().trim_start_matches('[').trim_end_matches(']').trim();
        let stamp = stamp.parse::<f64>().with_context(|| format!("no time in `{line}`"))?;
        match (mark.trim().split_once(' '), open.take()) {
            (Some(("start", name)), None) => open = Some((name.to_owned(), stamp)),
            (None, Some((name, start))) => times.push((name, stamp - start)),
            _ => bail!("`{line}` is out of place"),
        }
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_lies_between_its_marks() {
        let log = "noise\n[    1.500000] bench: start a\n[    2.750000] bench: end\r\n";
        assert_eq!(times(log).unwrap(), [("a".to_owned(), 1.25)]);
        assert!(times("[    1.5] bench: end\n").is_err());
    }
}
