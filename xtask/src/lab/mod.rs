//! `cargo xtask lab SCENARIO`: runs a scenario where KVM can run a stock Linux kernel.
//!
//! On a machine with hardware virtualization that is the machine itself. Elsewhere QEMU's TCG
//! emulates an AMD processor with SVM, and the scenario runs inside that outer machine: a Debian
//! kernel with kvm-amd, busybox, and our static binary.

mod direct;
mod outer;
mod scenario;
mod stage;

use std::fs;
use std::path::PathBuf;
use std::thread::available_parallelism;

use anyhow::{Context, Result, bail};

use crate::guest::{self, Need};
use crate::{cache, command};
pub use scenario::{Clock, Scenario, names};
use stage::Stage;

/// How to run a scenario.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Keep what the run was made of, and print where.
    pub keep: bool,
    /// Show the outer kernel's messages too.
    pub verbose: bool,
    /// Give the scenario the terminal.
    pub interactive: bool,
    /// The scenario's long form, which `cargo xtask soak` runs.
    pub long: bool,
    /// Do not print the scenario's output as it comes; a failure has it anyway.
    pub quiet: bool,
}

/// Where scenarios run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On this machine's KVM.
    Direct,
    /// In an outer machine that QEMU emulates.
    Nested,
}

impl Place {
    /// `$PARADOR_LAB` if it is set, else what this machine's KVM can do.
    pub fn choose() -> Result<Place> {
        match std::env::var("PARADOR_LAB").as_deref() {
            Ok("direct") => Ok(Place::Direct),
            Ok("nested") => Ok(Place::Nested),
            Ok(other) => bail!("PARADOR_LAB={other} is neither `direct` nor `nested`"),
            Err(_) => Ok(Place::probe()),
        }
    }

    /// A KVM that opens is not enough: a software KVM runs no stock kernel, and the processor's
    /// flags tell the two apart.
    fn probe() -> Place {
        let opens = fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        if opens && has_virtualization(&cpuinfo) { Place::Direct } else { Place::Nested }
    }
}

fn has_virtualization(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm")
}

/// The scenario's end: its output, and its exit status.
pub struct Report {
    /// What the scenario printed.
    pub output: String,
    /// 0 for a success.
    pub status: i32,
}

/// Runs the scenario called `name`: see [`run_scenario`].
pub fn run(name: &str, options: Options) -> Result<Report> {
    let mut scenario = Scenario::open(name)?;
    if options.long {
        scenario.timeout =
            scenario.long.with_context(|| format!("`{name}` declares no `long:` form of itself"))?;
    }
    run_scenario(&scenario, options)
}

/// Runs one scenario to its end. An error means the lab failed, a time-out or a machine that died.
pub fn run_scenario(scenario: &Scenario, options: Options) -> Result<Report> {
    let place = if scenario.clock == Clock::Wall { Place::choose()? } else { Place::Nested };
    guest::ensure(if place == Place::Nested { &[Need::Guest, Need::Lab] } else { &[Need::Guest] })?;
    let stage = Stage::new(scenario, build(&scenario.profile)?)?;
    // An outer machine uses one processor. On the machine itself a scenario uses all there are, and
    // makes interfaces under names of its own.
    let places = if place == Place::Nested { available_parallelism().map_or(1, usize::from) } else { 1 };
    let _place = cache::place("lab", places)?;
    let _lock = cache::lock(&format!("lab-{}", scenario.name.replace('/', "-")))?;
    let dir = target().join("lab").join(&scenario.name);
    cache::remove(&dir)?;
    fs::create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    let report = match place {
        Place::Nested => outer::run(scenario, &stage, &dir, options),
        Place::Direct => direct::run(scenario, &stage, &dir, options),
    };
    if options.keep {
        eprintln!("lab: the run is in {}", dir.display());
    } else {
        let log = fs::read(dir.join("console.log")).unwrap_or_default();
        cache::remove(&dir)?;
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("console.log"), log)?;
    }
    report
}

/// Runs one scenario for a person and returns the exit status of the whole command.
pub fn command(name: &str, options: Options) -> Result<u8> {
    let report = run(name, options)?;
    let verdict = if report.status == 0 { "passed" } else { "failed" };
    eprintln!("lab: {name} {verdict} (exit {})", report.status);
    Ok(u8::try_from(report.status).unwrap_or(1))
}

/// The static `parador`, built with `profile`: what runs in the outer machine, and what is measured.
pub fn build(profile: &str) -> Result<PathBuf> {
    build_static("parador", "parador", profile)
}

/// The static program `judge` of the tests.
fn build_judge() -> Result<PathBuf> {
    build_static("parador-tests", "judge", "lab")
}

fn build_static(package: &str, program: &str, profile: &str) -> Result<PathBuf> {
    const TRIPLE: &str = "x86_64-unknown-linux-gnu";
    command::run(
        command::cargo()
            .args(["build", "--quiet", "--package", package, "--bin", program])
            .args(["--profile", profile, "--target", TRIPLE])
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env_remove("CARGO_ENCODED_RUSTFLAGS"),
    )
    .with_context(|| format!("cannot build {program} for the lab"))?;
    Ok(target().join(TRIPLE).join(profile).join(program).canonicalize()?)
}

/// Cargo's target folder.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| command::root().join("target"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_flag_counts() {
        assert!(has_virtualization("processor : 0\nflags\t\t: fpu vmx sse\n"));
        assert!(has_virtualization("flags\t\t: fpu svm\n"));
        assert!(!has_virtualization("flags\t\t: fpu hypervisor svm_lock\nbugs : vmx\n"));
    }
}
