//! The keyboard controller's reset line: all that is left of the keyboard controller.

use crate::bus::{BusDevice, Effect};

/// "Pulse output port" with the bit of the reset line low.
const PULSE_RESET: u8 = 0xFE;

/// The command port (0x64). The status reads as an idle controller's, which is what a kernel waits for
/// before it sends the command.
#[derive(Debug, Default)]
pub struct KeyboardReset;

impl BusDevice for KeyboardReset {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) -> Effect {
        if data == [PULSE_RESET] { Effect::Reset } else { Effect::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_command_resets() {
        let mut status = [0xFF];
        KeyboardReset.read(0, &mut status);
        assert_eq!(status, [0]);
        assert_eq!(KeyboardReset.write(0, &[0xFE]), Effect::Reset);
        assert_eq!(KeyboardReset.write(0, &[0xAA]), Effect::None);
    }
}
