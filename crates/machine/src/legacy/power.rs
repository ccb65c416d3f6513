//! ACPI power of a machine of reduced hardware: sleep, reset, and the events of the power button.
//!
//! | offset | register | |
//! |---|---|---|
//! | 0 | sleep control (ACPI 6.5 §4.8.3.7) | bit 5 with type 5 in bits 4:2 switches the machine off |
//! | 1 | sleep status | reads 0: the machine never wakes up |
//! | 2 | reset (§4.8.3.6) | writing [`RESET_VALUE`] resets |
//! | 4 | events | bits of what happened; reading takes them away |

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use vmm_sys_util::eventfd::EventFd;

use crate::bus::{BusDevice, Effect};

/// Offset of the sleep control register.
pub const SLEEP_CONTROL: u64 = 0;
/// Offset of the sleep status register.
pub const SLEEP_STATUS: u64 = 1;
/// Offset of the reset register.
pub const RESET: u64 = 2;
/// Offset of the event register.
pub const EVENTS: u64 = 4;
/// What resets, written to [`RESET`].
pub const RESET_VALUE: u8 = 1;
/// The sleep type of soft off, which `_S5` tells.
pub const SLEEP_TYPE_S5: u8 = 5;
/// The event of the power button.
pub const POWER_BUTTON: u8 = 1;

const SLEEP_ENABLE: u8 = 1 << 5;

/// The registers.
#[derive(Debug)]
pub struct Power {
    events: Arc<AtomicU8>,
    interrupt: Arc<EventFd>,
}

/// Presses the power button, from any thread.
#[derive(Debug, Clone)]
pub struct PowerButton {
    events: Arc<AtomicU8>,
    interrupt: Arc<EventFd>,
}

impl Power {
    /// Registers whose events make `interrupt` fire, which is the generic event device's.
    #[must_use]
    pub fn new(interrupt: EventFd) -> Self {
        Self { events: Arc::default(), interrupt: Arc::new(interrupt) }
    }

    /// A button to press.
    #[must_use]
    pub fn button(&self) -> PowerButton {
        PowerButton { events: Arc::clone(&self.events), interrupt: Arc::clone(&self.interrupt) }
    }

    /// Forgets events that the guest has not read.
    pub fn reset(&mut self) {
        let Self { events, interrupt: _ } = self;
        events.store(0, Ordering::Relaxed);
    }
}

impl PowerButton {
    /// Presses the button. A guest that listens shuts itself down; another does nothing.
    ///
    /// # Errors
    /// The interrupt cannot be signalled.
    pub fn press(&self) -> io::Result<()> {
        self.events.fetch_or(POWER_BUTTON, Ordering::Release);
        self.interrupt.write(1)
    }
}

impl BusDevice for Power {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if offset == EVENTS
            && let [first, ..] = data
        {
            *first = self.events.swap(0, Ordering::Acquire);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        match (offset, data) {
            (SLEEP_CONTROL, &[value]) if value & SLEEP_ENABLE != 0 && value >> 2 & 7 == SLEEP_TYPE_S5 => {
                Effect::PowerOff
            }
            (RESET, &[RESET_VALUE]) => Effect::Reset,
            _ => Effect::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn power() -> Power {
        Power::new(EventFd::new(libc::EFD_NONBLOCK).unwrap())
    }

    #[test]
    fn sleep_type_five_is_off() {
        let mut power = power();
        assert_eq!(power.write(SLEEP_CONTROL, &[5 << 2 | 1 << 5]), Effect::PowerOff);
        assert_eq!(power.write(SLEEP_CONTROL, &[5 << 2]), Effect::None, "not enabled");
        assert_eq!(power.write(SLEEP_CONTROL, &[1 << 2 | 1 << 5]), Effect::None, "S1 is not there");
        assert_eq!(power.write(SLEEP_STATUS, &[1 << 7]), Effect::None);
        assert_eq!(power.write(RESET, &[RESET_VALUE]), Effect::Reset);
        assert_eq!(power.write(RESET, &[0]), Effect::None);
        assert_eq!(power.write(RESET, &[1, 1]), Effect::None, "the register has one byte");
        assert_eq!(power.write(u64::MAX, &[]), Effect::None);
    }

    #[test]
    fn a_press_is_seen_once() {
        let mut power = power();
        power.button().press().unwrap();
        assert_eq!(power.interrupt.read().unwrap(), 1);
        let mut data = [0xFF; 2];
        power.read(EVENTS, &mut data);
        assert_eq!(data, [POWER_BUTTON, 0]);
        power.read(EVENTS, &mut data);
        assert_eq!(data, [0, 0]);
        power.button().press().unwrap();
        power.reset();
        power.read(EVENTS, &mut data);
        assert_eq!(data, [0, 0]);
    }
}
