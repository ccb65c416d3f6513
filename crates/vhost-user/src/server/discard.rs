//! What happens to frames that a network card sends while it is disabled.

use parador_virtio::{Queue, QueueHandler, RingError};

/// Takes every chain and gives it back.
pub(super) struct Discard;

impl QueueHandler for Discard {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        while let Some(chain) = queue.pop()? {
            queue.push(chain, 0);
        }
        Ok(())
    }
}
