//! `cargo xtask fuzz TARGET SECONDS`: runs one target of `fuzz/` for a while.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::guest::{self, Need};
use crate::{cache, command};

/// How long one input may take: guests must not be able to make us spin.
const INPUT_TIMEOUT: &str = "-timeout=10";

/// The names of all targets, sorted.
pub fn targets() -> Result<Vec<String>> {
    let folder = folder().join("fuzz_targets");
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".rs").map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Fuzzes `target` for `seconds`; a crash or a stuck input is an error.
pub fn fuzz(target: &str, seconds: u32) -> Result<()> {
    command::run(&mut run(target, seconds)?)
}

/// As [`fuzz`]; what the fuzzer prints is shown only when it fails.
pub fn fuzz_quietly(target: &str, seconds: u32) -> Result<()> {
    println!("fuzzing {target} for {seconds} s");
    command::run_quiet(&mut run(target, seconds)?)
}

fn run(target: &str, seconds: u32) -> Result<Command> {
    let targets = targets()?;
    if !targets.iter().any(|name| name == target) {
        bail!("there is no fuzz target `{target}`\nhint: there are {}", targets.join(", "));
    }
    set_up()?;
    let mut run = cargo_fuzz();
    run.args(["run", target, "--", INPUT_TIMEOUT, "-rss_limit_mb=2048", "-print_final_stats=1"])
        .arg(format!("-max_total_time={seconds}"));
    Ok(run)
}

/// Builds all targets, so that the seconds of a run are seconds of fuzzing.
pub fn build() -> Result<()> {
    set_up()?;
    command::run(cargo_fuzz().arg("build"))
}

fn set_up() -> Result<()> {
    guest::ensure(&[Need::Fuzz])?;
    let _lock = cache::lock("cargo-fuzz")?;
    if command::output(Command::new("cargo").args(["fuzz", "--version"])).is_err() {
        eprintln!("installing cargo-fuzz");
        command::run(Command::new("cargo").args(["install", "--quiet", "--locked", "cargo-fuzz"]))
            .context("cannot install cargo-fuzz")?;
    }
    Ok(())
}

fn cargo_fuzz() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(folder()).arg("fuzz");
    // Sanitizers are a nightly feature; the stable compiler has them behind this door.
    command.env("RUSTC_BOOTSTRAP", "1");
    command
}

fn folder() -> PathBuf {
    command::root().join("fuzz")
}
