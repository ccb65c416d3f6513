//! The driver's side of the contract, for tests: of this crate, of devices, of transports.
//!
//! [`Driver`] is a model driver of one ring; it checks the device's conduct as it goes and panics
//! when the device breaks the rules. [`Harness`] runs any [`crate::VirtioDevice`] against it.
//! [`check_contract`] holds a device against its contract. [`hostile`] makes rings no honest driver would. Nothing here knows who drives the device: what
//! a register transport or a socket puts in front of it is again a [`crate::VirtioDevice`].

mod arena;
mod contract;
mod driver;
mod end;
mod harness;
pub mod hostile;

use std::time::Duration;

pub use arena::Arena;
pub use contract::check_contract;
pub use driver::{Driver, INDIRECT, NEXT, Used, WRITE};
pub(crate) use end::lands;
pub use end::{end_after, shared_file};
pub use harness::{Harness, Reply};

use crate::{Queue, RingError};

/// How long a device may take to answer before a test calls it stuck.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What buffers for the device to write are filled with beforehand.
pub const UNTOUCHED: u8 = 0xa5;

/// Runs `handler` (what a [`crate::QueueHandler`]'s `run` does) for one turn on `queue` as a worker
/// would, on the calling thread. Says whether the worker would go on with another turn at once.
///
/// # Errors
/// What the worker would latch the queue for.
pub fn turn(
    queue: &mut Queue,
    handler: impl FnOnce(&mut Queue) -> Result<(), RingError>,
) -> Result<bool, RingError> {
    queue.begin_turn();
    handler(queue).inspect_err(|&error| queue.latch(error))?;
    queue.end_turn().map(|turn| turn == crate::queue::Turn::Again)
}

/// `count` reproducible inputs of up to `max_len` bytes, for a short deterministic run of what a
/// fuzzer runs for long.
pub fn seeds(count: u64, max_len: usize) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(move |seed| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed + 1);
        let mut next = move || {
            // xorshift64*
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d)
        };
        let len = usize::try_from(next() >> 33).expect("31 bits") % (max_len + 1);
        (0..len).map(|_| next().to_be_bytes()[0]).collect()
    })
}
