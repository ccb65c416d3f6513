//! A zoned block device of the host, passed through to the same guest by us and by QEMU.

use anyhow::{Context, Result, bail};

use super::scenario;

/// Runs the scenario and prints a line for each job of fio in it.
pub(super) fn passthrough() -> Result<()> {
    let output = scenario("bench/passthrough")?;
    println!(
        "null_blk of the host in a guest, fio, 4 KiB, 32 at once or one by one (sync), virtual time; IOPS"
    );
    for (job, ours, theirs) in jobs(&output)? {
        println!("  {job:10} {ours:.0}; QEMU {theirs:.0}: {:.2} times", ours / theirs);
    }
    Ok(())
}

/// What was measured in each job, of us and of QEMU, from lines such as `bench: passthrough qemu read 1234.5`.
fn jobs(output: &str) -> Result<Vec<(&str, f64, f64)>> {
    let lines = output.lines().filter_map(|line| line.split_once("bench: passthrough "));
    let figures: Vec<(&str, &str, f64)> = lines
        .map(|(_, line)| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [who, job, iops] => Ok((who, job, iops.parse::<f64>().with_context(|| format!("`{iops}`"))?)),
            _ => bail!("cannot read `{line}`"),
        })
        .collect::<Result<_>>()?;
    let ours = figures.iter().filter(|(who, ..)| *who == "parador");
    ours.map(|(_, job, iops)| {
        let theirs = figures.iter().find(|(who, other, _)| *who == "qemu" && other == job);
        let (.., theirs) = theirs.with_context(|| format!("QEMU did no {job}"))?;
        Ok((*job, *iops, *theirs))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_one_of_ours_and_the_same_of_qemu() {
        let output = "noise\nbench: passthrough parador read 300.5\r\nbench: passthrough qemu read 100\n";
        assert_eq!(jobs(output).unwrap(), [("read", 300.5, 100.0)]);
        assert!(jobs("bench: passthrough parador read 1\n").is_err());
        assert!(jobs("bench: passthrough parador read\n").is_err());
    }
}
