//! QEMU's pvpanic (QEMU docs/specs/pvpanic.rst): a port where a kernel says that it has panicked.

use crate::bus::{BusDevice, Effect};

const PANICKED: u8 = 1 << 0;
/// The guest has panicked, and its crash kernel takes over.
const CRASH_LOADED: u8 = 1 << 1;

/// The port.
#[derive(Debug, Default)]
pub struct Pvpanic;

impl BusDevice for Pvpanic {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let [first, ..] = data {
            *first = PANICKED | CRASH_LOADED;
        }
    }

    fn write(&mut self, _offset: u64, data: &[u8]) -> Effect {
        match data {
            [events, ..] if events & PANICKED != 0 => Effect::Panicked,
            _ => Effect::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_effect() {
        let mut data = [0xFF; 4];
        Pvpanic.read(0, &mut data);
        assert_eq!(data, [3, 0, 0, 0]);
        assert_eq!(Pvpanic.write(0, &[PANICKED]), Effect::Panicked);
        assert_eq!(Pvpanic.write(0, &[CRASH_LOADED]), Effect::None, "it goes on in the crash kernel");
        assert_eq!(Pvpanic.write(0, &[]), Effect::None);
    }
}
