//! A limit for log lines that a guest could otherwise pace.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Lets one log line through per second and counts the others.
///
/// Made to be a `static` beside the line it limits; any thread may ask.
#[derive(Debug)]
pub struct LogLimit {
    /// When the next line may pass, in milliseconds since the process first asked.
    next_ms: AtomicU64,
    dropped: AtomicU64,
}

impl LogLimit {
    const PERIOD_MS: u64 = 1000;

    /// A limit that has let nothing through yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { next_ms: AtomicU64::new(0), dropped: AtomicU64::new(0) }
    }

    /// `Some` when the line may be logged, with how many were left out since the last one.
    pub fn pass(&self) -> Option<u64> {
        static START: OnceLock<Instant> = OnceLock::new();
        let elapsed = START.get_or_init(Instant::now).elapsed();
        self.pass_at(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }

    fn pass_at(&self, now_ms: u64) -> Option<u64> {
        let next_ms = self.next_ms.load(Ordering::Relaxed);
        let later = now_ms.saturating_add(Self::PERIOD_MS);
        let passed = now_ms >= next_ms
            && self.next_ms.compare_exchange(next_ms, later, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if passed {
            return Some(self.dropped.swap(0, Ordering::Relaxed));
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
        None
    }
}

impl Default for LogLimit {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_passes_and_tells_of_the_others() {
        let limit = LogLimit::new();
        assert_eq!(limit.pass_at(0), Some(0));
        assert_eq!(limit.pass_at(1), None);
        assert_eq!(limit.pass_at(999), None);
        assert_eq!(limit.pass_at(1000), Some(2));
        assert_eq!(limit.pass_at(5000), Some(0));
    }
}
