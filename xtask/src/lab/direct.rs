//! A scenario on this machine's own KVM.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

use super::outer::watch;
use super::scenario::Scenario;
use super::stage::Stage;
use super::{Options, Report};

/// Runs `scenario` with its files linked under `dir`.
pub(super) fn run(scenario: &Scenario, stage: &Stage, dir: &Path, options: Options) -> Result<Report> {
    let (lab, work) = (dir.join("lab"), dir.join("work"));
    stage.link(&lab, &work, options)?;
    let mut shell = Command::new(lab.join("bin/sh"));
    shell
        .current_dir(&work)
        .arg("-c")
        .arg(format!(". '{0}/environment'; exec sh '{0}/scenario.sh' 2>&1", lab.display()));
    if !options.interactive {
        shell.stdin(Stdio::null());
    }
    let (status, output) = watch(&mut shell, scenario, &dir.join("console.log"), options)?;
    Ok(Report { output, status: status.code().unwrap_or(1) })
}
