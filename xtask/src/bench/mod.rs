//! `cargo xtask bench`: speed and memory, each figure beside a peer or a limit of the same run.

mod boot;
mod config;
mod disk;
mod load;
mod memory;
mod passthrough;
mod start;
mod vhost_user;
mod zoned;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::{command, lab};

/// A benchmark: its name and how to run it.
type Bench = (&'static str, fn() -> Result<()>);

const BENCHES: &[Bench] = &[
    ("start", start::start),
    ("config", config::config),
    ("disk", disk::disk),
    ("memory", memory::memory),
    ("vhost-user", vhost_user::vhost_user),
    ("zoned", zoned::zoned),
    ("boot", boot::boot),
    ("passthrough", passthrough::passthrough),
];

/// Runs the benchmark called `name`, or all of them.
pub fn bench(name: Option<&str>) -> Result<()> {
    let chosen = |bench: &&Bench| name.is_none_or(|name| name == bench.0);
    if !BENCHES.iter().any(|bench| chosen(&bench)) {
        let names = BENCHES.iter().map(|bench| bench.0).collect::<Vec<_>>().join(", ");
        bail!("there is no benchmark `{}`\nhint: there are {names}", name.unwrap_or_default());
    }
    BENCHES.iter().filter(chosen).try_for_each(|bench| bench.1())
}

/// Runs a scenario that measures, and returns what it printed.
fn scenario(name: &str) -> Result<String> {
    let report = lab::run(name, lab::Options { quiet: true, ..lab::Options::default() })?;
    if report.status != 0 {
        bail!("the scenario `{name}` ended with {}\n{}", report.status, report.output);
    }
    Ok(report.output)
}

/// Builds an example of a crate as it is measured, and says where it is.
fn example_file(package: &str, name: &str) -> Result<PathBuf> {
    let mut cargo = command::cargo();
    command::run(cargo.args(["build", "--quiet", "--release", "--package", package, "--example", name]))?;
    Ok(lab::target().join("release/examples").join(name).canonicalize()?)
}

/// Runs an example of a crate as it is measured.
fn example(package: &str, name: &str) -> Command {
    let mut cargo = command::cargo();
    cargo.args(["run", "--quiet", "--release", "--package", package, "--example", name]);
    cargo
}
