//! A zone that is about to be changed as a whole.

use super::{Condition, Refusal, Zones};

/// A zone that takes no writes and has none in flight: about to be reset or finished. Dropping it
/// leaves the zone as it was.
#[must_use]
pub struct Held<'a> {
    pub(super) zones: &'a Zones,
    pub(super) zone: u32,
}

impl Held<'_> {
    /// Which zone it is.
    #[must_use]
    pub fn zone(&self) -> u32 {
        self.zone
    }

    /// How much of it is written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.zones.word(self.zone).pointer
    }

    /// Empties the zone, which stays held: its data can be taken away before the next write.
    pub fn reset(&self) {
        self.zones.correct(self.zone, Condition::Empty, 0);
    }

    /// Whether the zone can be made full: an empty one has to be opened for it.
    ///
    /// # Errors
    /// [`Refusal::ActiveResource`] or [`Refusal::OpenResource`].
    pub fn may_finish(&self) -> Result<(), Refusal> {
        let condition = self.zones.word(self.zone).condition;
        if condition != Condition::Empty {
            return Ok(());
        }
        self.zones.admit(&mut self.zones.resources(), condition)
    }

    /// Opens the zone, explicitly.
    ///
    /// # Errors
    /// As [`Zones::open`].
    pub fn open(&self) -> Result<(), Refusal> {
        self.zones.set_open(&mut self.zones.resources(), self.zone)
    }

    /// Closes the zone.
    ///
    /// # Errors
    /// As [`Zones::close`].
    pub fn close(&self) -> Result<(), Refusal> {
        self.zones.set_closed(&mut self.zones.resources(), self.zone)
    }

    /// Makes the zone full. What was not written reads as zeroes.
    pub fn finish(&self) {
        self.zones.correct(self.zone, Condition::Full, self.written());
    }

    /// Makes the zone offline.
    #[cfg(not(loom))]
    pub(in crate::zoned) fn lose(&self) {
        self.zones.correct(self.zone, Condition::Offline, self.written());
    }

    /// Whether it failed just before it was taken; it does not as long as it is held.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.zones.word(self.zone).condition, Condition::ReadOnly | Condition::Offline)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut resources = self.zones.resources();
        self.zones.change(&mut resources, self.zone, |word| word.held = false);
    }
}
