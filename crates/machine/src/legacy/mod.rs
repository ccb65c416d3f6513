//! What is left of the old PC: a serial port, a clock, and the ports that switch the machine off.
//!
//! Each is a [`crate::bus::BusDevice`] at ports that [`crate::platform`] names. None of them blocks the
//! processor that writes to it.

mod output;
pub mod power;
pub mod pvpanic;
pub mod reset;
pub mod rtc;
pub mod serial;

pub use power::{Power, PowerButton};
pub use pvpanic::Pvpanic;
pub use reset::KeyboardReset;
pub use rtc::Rtc;
pub use serial::{Serial, SerialPort};
