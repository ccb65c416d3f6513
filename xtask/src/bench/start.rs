//! From the start of a process to the guest's first instruction, on any /dev/kvm.

use anyhow::Result;

use super::example;
use crate::{command, lab};

/// Runs the example of crate `parador` that measures it.
pub(super) fn start() -> Result<()> {
    let parador = lab::build("release")?;
    command::run(example("parador", "start").arg("--").arg(parador))
}
