//! `cargo xtask test`: every test, counted together; and `cargo xtask ci`, which is that after the
//! checks that need no running.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::guest::{self, Need};
use crate::lab::Place;
use crate::{command, fuzz, tidy};

/// How long each fuzz target runs as a part of the tests.
const FUZZ_SECONDS: u32 = 15;

/// Runs everything, prints `N passed, N failed`, and returns the exit status.
pub fn test() -> Result<u8> {
    // All that is fetched is fetched first, so that a broken network does not look like a broken test.
    guest::ensure(if Place::choose()? == Place::Nested {
        &[Need::Test, Need::Guest, Need::Lab]
    } else {
        &[Need::Test, Need::Guest]
    })?;
    guest::guest()?;

    let mut tally = Tally::default();
    if command::output(command::cargo().args(["nextest", "--version"])).is_ok() {
        tally.count("tests", command::cargo().args(["nextest", "run", "--workspace", "--no-fail-fast"]))?;
    } else {
        tally.count(
            "tests",
            command::cargo().args(["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"]),
        )?;
    }
    tally.count("doctests", command::cargo().args(["test", "--workspace", "--doc", "--no-fail-fast"]))?;
    tally.step("tidy", tidy::tidy());
    let targets = fuzz::targets()?;
    if !targets.is_empty() {
        match fuzz::build() {
            Ok(()) => targets.iter().for_each(|target| tally.step(target, fuzz::fuzz(target, FUZZ_SECONDS))),
            error => tally.step("building the fuzz targets", error),
        }
    }
    for failure in &tally.failures {
        println!("failed: {failure}");
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(u8::from(tally.failed > 0))
}

/// The checks that need no running, then the tests.
pub fn ci() -> Result<u8> {
    command::run(command::cargo().args(["fmt", "--all", "--check"])).context("hint: run `cargo fmt`")?;
    command::run(command::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    tidy::tidy()?;
    command::run(
        command::cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    test()
}

/// What has run so far.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u32,
    failed: u32,
    failures: Vec<String>,
}

impl Tally {
    /// Runs a test runner, shows what it prints, and adds what its summaries say.
    fn count(&mut self, what: &str, runner: &mut Command) -> Result<()> {
        let (output, input) = std::io::pipe()?;
        runner.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input);
        let mut child = runner.spawn().with_context(|| format!("cannot start {runner:?}"))?;
        // The parent's ends of the pipe would keep it open.
        runner.stdout(Stdio::null()).stderr(Stdio::null());
        let failed_before = self.failed;
        for line in BufReader::new(output).split(b'\n') {
            let line = line?;
            let mut terminal = std::io::stdout().lock();
            terminal.write_all(&line)?;
            terminal.write_all(b"\n")?;
            self.read(&String::from_utf8_lossy(&line));
        }
        let status = child.wait()?;
        if self.failed > failed_before {
            self.failures.push(format!("{} of the {what}, see above", self.failed - failed_before));
        } else if !status.success() {
            // It did not get as far as a summary: something does not build, or the runner broke.
            self.failed += 1;
            self.failures.push(format!("{what}: the runner ended with {status}"));
        }
        Ok(())
    }

    /// Adds one step that is a test of its own.
    fn step(&mut self, what: &str, result: Result<()>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(error) => {
                self.failed += 1;
                self.failures.push(format!("{what}: {error:#}"));
            }
        }
    }

    /// Adds the numbers of a summary line of cargo-nextest or of the standard test runner.
    fn read(&mut self, line: &str) {
        let line = line.trim();
        let counts =
            if let Some((_, counts)) = line.split_once("tests run: ").or(line.split_once("test run: ")) {
                if !line.starts_with("Summary") {
                    return;
                }
                counts
            } else if let Some(counts) = line.strip_prefix("test result: ") {
                counts.split_once(". ").map_or("", |(_, counts)| counts)
            } else {
                return;
            };
        for count in counts.split([',', ';']) {
            let mut words = count.split_whitespace();
            let Some(Ok(number)) = words.next().map(str::parse::<u32>) else { continue };
            match words.next() {
                Some("passed") => self.passed += number,
                Some("failed" | "timed" | "exec") => self.failed += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_both_runners_are_read() {
        let mut tally = Tally::default();
        tally.read(
            "     Summary [   0.052s] 12 tests run: 8 passed (1 slow), 2 failed, 1 timed out, 1 skipped",
        );
        tally
            .read("test result: FAILED. 5 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out; finished");
        tally.read("   Summary [ 1.0s] 1 test run: 1 passed, 0 skipped");
        tally.read("a test prints: 7 tests run: 7 passed");
        assert_eq!((tally.passed, tally.failed), (14, 4));
    }

    #[test]
    fn a_runner_that_breaks_counts_as_a_failure() {
        let mut tally = Tally::default();
        tally.count("tests", Command::new("sh").args(["-c", "echo error >&2; exit 101"])).unwrap();
        assert_eq!((tally.passed, tally.failed), (0, 1));
        tally
            .count("tests", Command::new("sh").args(["-c", "echo 'test result: ok. 3 passed; 0 failed'"]))
            .unwrap();
        assert_eq!((tally.passed, tally.failed), (3, 1));
    }
}
