//! What test runners print, counted; and what failed, said again at the end, where a reader of a
//! long log looks.

use std::collections::VecDeque;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// How many lines of a failed test's output are said again.
const TAIL_LINES: usize = 30;

/// What has run so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    failures: Vec<Failure>,
    /// Whether what comes now is the output of the last failure named.
    reading: Option<usize>,
}

/// Something that failed, and the end of what it printed.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    name: String,
    output: VecDeque<String>,
}

impl Tally {
    /// Runs a test runner, shows what it prints, and adds what its summaries say.
    pub(crate) fn count(&mut self, what: &str, runner: &mut Command) -> Result<()> {
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
        self.reading = None;
        let status = child.wait()?;
        if self.failed == failed_before && !status.success() {
            // It did not get as far as a summary: something does not build, or the runner broke.
            self.fail(format!("{what}: the runner ended with {status}"));
        }
        Ok(())
    }

    /// Adds one step that is a test of its own.
    pub(crate) fn step(&mut self, what: &str, result: Result<()>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(error) => {
                let text = format!("{error:#}");
                self.fail(what.to_owned());
                let index = self.failure(what);
                text.lines().for_each(|line| self.failures[index].add(line));
            }
        }
    }

    fn fail(&mut self, name: String) {
        self.failed += 1;
        self.failures.push(Failure { name, output: VecDeque::new() });
    }

    /// The place of the failure called `name`, which is new or has been named before.
    fn failure(&mut self, name: &str) -> usize {
        let known = self.failures.iter().position(|failure| failure.name == name);
        known.unwrap_or_else(|| {
            self.failures.push(Failure { name: name.to_owned(), output: VecDeque::new() });
            self.failures.len() - 1
        })
    }

    /// Reads one line of cargo-nextest or of the standard test runner.
    fn read(&mut self, line: &str) {
        if let Some(counts) = summary(line) {
            self.reading = None;
            self.add(counts);
        } else if let Some((failed, name)) = outcome(line) {
            self.reading = failed.then(|| self.failure(name));
        } else if line.trim() == "failures:" {
            self.reading = None;
        } else if let Some(index) = self.reading {
            self.failures[index].add(line);
        }
    }

    /// Adds numbers such as `8 passed (1 slow), 2 failed`.
    fn add(&mut self, counts: &str) {
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

impl Failure {
    fn add(&mut self, line: &str) {
        if self.output.is_empty() && line.trim().is_empty() {
            return;
        }
        if self.output.len() == TAIL_LINES {
            self.output.pop_front();
        }
        self.output.push_back(line.to_owned());
    }
}

/// The counts of a summary line. A runner's own begins its line, unlike one in a test's output.
fn summary(line: &str) -> Option<&str> {
    if let Some((_, counts)) = line.split_once("tests run: ").or(line.split_once("test run: ")) {
        return line.trim().starts_with("Summary").then_some(counts);
    }
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    Some(counts)
}

/// Whether a line that says how a test ended says that it failed, and the test's name. The standard
/// runner's own begin their line.
fn outcome(line: &str) -> Option<(bool, &str)> {
    if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
        return Some((true, name));
    }
    if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
        return Some((true, name));
    }
    // `FAIL [   0.012s] ( 3/12) crate::binary test`, with the counter or without.
    let (word, rest) = line.trim().split_once(" [")?;
    if word.is_empty() || !word.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
        return None;
    }
    let (_, name) = rest.split_once("s] ")?;
    let name = match name.strip_prefix('(').and_then(|counter| counter.split_once(") ")) {
        Some((_, name)) => name,
        None => name,
    };
    let failed = word.starts_with("SIG") || ["FAIL", "TIMEOUT", "ABORT", "LEAK-FAIL"].contains(&word);
    Some((failed, name.trim()))
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Failure { name, output } in &self.failures {
            writeln!(f, "failed: {name}")?;
            for line in output {
                writeln!(f, "    {}", line.trim_end())?;
            }
        }
        for Failure { name, .. } in &self.failures {
            writeln!(f, "failed: {name}")?;
        }
        writeln!(f, "{} passed, {} failed", self.passed, self.failed)
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
    fn what_failed_is_said_at_the_end_with_the_end_of_its_output() {
        let mut tally = Tally::default();
        for line in [
            "        PASS [   0.012s] ( 1/4) a::b one",
            "        FAIL [   0.345s] ( 2/4) a::b two",
            "  stdout ───",
            "    running 1 test",
            "    test two ... FAILED",
            "    ---- two stdout ----",
            "  stderr ───",
            "    it went wrong",
            "    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 12 filtered out",
            "        SLOW [> 60.000s] ( 2/4) a::b three",
            "    not of the failure",
            "     SIGABRT [   1.000s] ( 3/4) a::b four",
            "    aborted",
            "     Summary [   0.052s] 4 tests run: 2 passed, 2 failed, 0 skipped",
            "        FAIL [   0.345s] ( 2/4) a::b two",
            "     SIGABRT [   1.000s] ( 3/4) a::b four",
            "error: test run failed",
        ] {
            tally.read(line);
        }
        let text = tally.to_string();
        assert!(text.contains("failed: a::b two\n      stdout"), "{text}");
        assert!(text.contains("    it went wrong\n"), "{text}");
        assert!(!text.contains("not of the failure"), "{text}");
        assert!(text.ends_with("failed: a::b two\nfailed: a::b four\n2 passed, 2 failed\n"), "{text}");
    }

    #[test]
    fn what_failed_of_the_standard_runner_is_said_too() {
        let mut tally = Tally::default();
        for line in [
            "test src/lib.rs - (line 3) ... FAILED",
            "",
            "failures:",
            "",
            "---- src/lib.rs - (line 3) stdout ----",
            "it went wrong",
            "",
            "failures:",
            "    src/lib.rs - (line 3)",
            "",
            "test result: FAILED. 5 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out; finished",
        ] {
            tally.read(line);
        }
        let text = tally.to_string();
        assert_eq!(tally.failures.len(), 1);
        assert!(text.contains("failed: src/lib.rs - (line 3)\n    it went wrong\n"), "{text}");
    }

    #[test]
    fn a_long_output_is_cut_at_its_front() {
        let mut tally = Tally::default();
        tally.step("a step", Err(anyhow::anyhow!("{}", "line\n".repeat(100) + "the last")));
        let text = tally.to_string();
        assert!(text.contains("    the last\n") && text.lines().count() < TAIL_LINES + 5, "{text}");
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
