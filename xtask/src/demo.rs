//! `cargo xtask demo`: a real Debian under Parador, to look at.

use std::io::IsTerminal;

use anyhow::Result;

use crate::command;
use crate::lab::{self, Options, Place, Scenario};

/// Sets up what is missing and boots Debian: with a terminal, for a person; without one, a tour that
/// prints what the guest has and powers it off. Returns the exit status of the command.
pub fn demo() -> Result<u8> {
    let interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let scenario = Scenario::read("demo", command::root().join("xtask/src/demo.sh"))?;
    match Place::choose()? {
        Place::Direct => eprintln!("demo: on this machine's KVM"),
        Place::Nested => eprintln!(
            "demo: this machine's KVM cannot run a stock Linux kernel, so QEMU emulates a machine whose \
             KVM can; everything is several times slower than on hardware"
        ),
    }
    if interactive {
        eprintln!("demo: you will be root; `poweroff` ends it. Changes to the disk are not kept.");
    }
    let report = lab::run_scenario(&scenario, Options { interactive, ..Options::default() })?;
    Ok(u8::try_from(report.status).unwrap_or(1))
}
