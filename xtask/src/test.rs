//! `cargo xtask test`: every test, counted together; and `cargo xtask ci`, which is that after the
//! checks that need no running.

use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail};

use crate::guest::{self, Need};
use crate::tally::Tally;
use crate::{command, fuzz, tidy};

/// How long each fuzz target runs as a part of the tests.
const FUZZ_SECONDS: u32 = 10;

/// Where the property tests begin. The same commit gives the same result here; whoever runs the test
/// runner itself gets other cases each time.
const SEED: &str = "PROPTEST_RNG_SEED";

/// Runs everything, prints `N passed, N failed`, and returns the exit status.
pub fn test() -> Result<u8> {
    // All that is fetched is fetched first, so that a broken network does not look like a broken test.
    // QEMU is the lab where there is no other place, and takes what is exported for it everywhere.
    guest::ensure(&[Need::Test, Need::Guest, Need::Lab])?;
    guest::guest()?;
    guest::domain_schema()?;
    guest::former_storage_daemon()?;

    let mut tally = Tally::default();
    if command::output(command::cargo().args(["nextest", "--version"])).is_ok() {
        let mut nextest = command::cargo();
        nextest.args(["nextest", "run", "--workspace", "--no-fail-fast"]);
        tally.count("tests", nextest.env(SEED, "2026"))?;
    } else {
        tally.count(
            "tests",
            command::cargo()
                .args(["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"])
                .env(SEED, "2026"),
        )?;
    }
    tally.count("doctests", command::cargo().args(["test", "--workspace", "--doc", "--no-fail-fast"]))?;
    tally.count("every interleaving", &mut interleavings())?;
    tally.step("tidy", tidy::tidy());
    let targets = fuzz::targets()?;
    if !targets.is_empty() {
        match fuzz::build() {
            Ok(()) => {
                for (target, result) in fuzz_all(&targets) {
                    tally.step(target, result);
                }
            }
            error => tally.step("building the fuzz targets", error),
        }
    }
    print!("{tally}");
    Ok(u8::from(tally.failed > 0))
}

/// Fuzzes each target for a while, one on each core.
fn fuzz_all(targets: &[String]) -> Vec<(&String, Result<()>)> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut results = Vec::new();
    for some in targets.chunks(cores) {
        thread::scope(|scope| {
            let runs: Vec<_> =
                some.iter().map(|target| scope.spawn(|| fuzz::fuzz_quietly(target, FUZZ_SECONDS))).collect();
            let ended = runs.into_iter().map(|run| run.join().unwrap_or_else(|_| bail!("it panicked")));
            results.extend(some.iter().zip(ended));
        });
    }
    results
}

/// What is lock-free, in every interleaving of its threads. It is built apart: `--cfg loom` replaces
/// what it stands on.
fn interleavings() -> Command {
    let mut loom = command::cargo();
    loom.args(["test", "--package", "parador-block", "--lib", "--test", "zones_loom"]);
    loom.args(["--target-dir", "target/loom"]);
    loom.env("RUSTFLAGS", "--cfg loom");
    loom
}

/// The tests that fetch more than the others: front-ends that few machines have.
pub fn peers() -> Result<u8> {
    guest::ensure(&[Need::Test, Need::Guest, Need::Lab])?;
    let mut tally = Tally::default();
    let mut tests = command::cargo();
    tests.args(["test", "--package", "parador-tests", "--test", "vhost_user", "--", "--ignored"]);
    tally.count("peers", &mut tests)?;
    print!("{tally}");
    Ok(u8::from(tally.failed > 0))
}

/// The checks that need no running, then the tests.
pub fn ci() -> Result<u8> {
    command::run(command::cargo().args(["fmt", "--all", "--check"])).context("hint: run `cargo fmt`")?;
    command::run(command::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    tidy::tidy()?;
    deny()?;
    command::run(
        command::cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    test()
}

/// Holds dependencies against deny.toml, where there is the tool for it. What is known against them is
/// not asked for: that changes without a change here, and needs a network.
fn deny() -> Result<()> {
    if command::output(command::cargo().args(["deny", "--version"])).is_err() {
        eprintln!("ci: no cargo-deny here, so dependencies are not held against deny.toml");
        return Ok(());
    }
    command::run(command::cargo().args(["deny", "--offline", "check", "bans", "licenses", "sources"]))
}
