//! How long a queue's thread looks at its ring before it sleeps.

use std::num::NonZero;
use std::thread;
use std::time::{Duration, Instant};

/// The longest look, and the shortest. A driver that needs longer for its next request is woken for:
/// that costs it about as much again.
const LONGEST: Duration = Duration::from_micros(32);
const SHORTEST: Duration = Duration::from_micros(4);

/// Learns from how long there was nothing to do: looking pays if the next request comes soon, and
/// what comes later than [`LONGEST`] is not waited for at all.
pub(crate) struct Polling {
    longest: Duration,
    span: Duration,
    /// Since when there is nothing to do.
    idle: Option<Instant>,
}

impl Polling {
    /// On a host with one processor, whoever looks keeps the driver from working: nobody does.
    pub(crate) fn new() -> Self {
        let alone = thread::available_parallelism().is_ok_and(|count| count == NonZero::<usize>::MIN);
        let longest = if alone { Duration::ZERO } else { LONGEST };
        Self { longest, span: Duration::ZERO, idle: None }
    }

    /// Calls `look` until it says yes or the time is over. Others who want the processor get it.
    pub(crate) fn look(&mut self, mut look: impl FnMut() -> bool) -> bool {
        if self.span.is_zero() {
            return false;
        }
        let start = Instant::now();
        while start.elapsed() < self.span {
            if look() {
                return true;
            }
            thread::yield_now();
        }
        self.idle = Some(start);
        false
    }

    /// Sleeps by calling `sleep`, and learns from how long there was nothing to do.
    pub(crate) fn sleep(&mut self, sleep: impl FnOnce()) {
        let idle = self.idle.take().unwrap_or_else(Instant::now);
        sleep();
        let longer = (self.span * 2).max(SHORTEST).min(self.longest);
        self.span = if idle.elapsed() < self.longest { longer } else { Duration::ZERO };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn polling(longest: Duration) -> Polling {
        Polling { longest, ..Polling::new() }
    }

    #[test]
    fn short_sleeps_lead_to_looks_and_a_long_one_ends_them() {
        // Long enough for a machine that is busy with something else.
        let mut polling = polling(Duration::from_secs(60));
        assert!(!polling.look(|| true), "the first time it sleeps at once");
        polling.sleep(|| {});
        assert_eq!(polling.span, SHORTEST);
        polling.sleep(|| {});
        assert_eq!(polling.span, SHORTEST * 2);
        assert!(polling.look(|| true));
        polling.longest = Duration::from_millis(1);
        polling.sleep(|| thread::sleep(Duration::from_millis(2)));
        assert!(!polling.look(|| true));
    }

    #[test]
    fn a_look_ends() {
        let mut polling = polling(Duration::from_secs(60));
        polling.sleep(|| {});
        assert!(!polling.look(|| false));
    }

    #[test]
    fn with_one_processor_nobody_looks() {
        let mut polling = polling(Duration::ZERO);
        polling.sleep(|| {});
        assert!(!polling.look(|| true));
    }
}
