//! From the bytes of a file of keys to typed values, beside the splitting of the same bytes.

use anyhow::Result;

use super::example;
use crate::command;

/// Runs the example of crate `parador-config` that measures it.
pub(super) fn config() -> Result<()> {
    command::run(&mut example("parador-config", "speed"))
}
