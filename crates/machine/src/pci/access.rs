//! How a guest reaches the bus: ECAM, the two legacy ports, and the windows of the BARs.

use super::PciRoot;
use crate::bus::{BusDevice, Effect};

/// Bytes of configuration space of a function in ECAM.
const FUNCTION_SIZE: usize = 4096;

impl PciRoot {
    /// Memory-mapped configuration space (PCI Express 5.0 §7.2.2): 1 MiB for bus 0.
    #[must_use]
    pub fn ecam(&self) -> Ecam {
        Ecam(self.clone())
    }

    /// Configuration mechanism #1 (PCI 3.0 §3.2.2.3.2): 8 ports from 0xCF8. A guest that finds them
    /// uses them, at twice the exits of ECAM.
    #[must_use]
    pub fn config_ports(&self) -> ConfigPorts {
        ConfigPorts { root: self.clone(), address: 0 }
    }

    /// What answers to memory accesses of a window that starts at guest-physical address `start`.
    #[must_use]
    pub fn window(&self, start: u64) -> Window {
        Window { root: self.clone(), start }
    }
}

/// Memory-mapped configuration space of bus 0: slot in bits 19 to 15 of the offset, function in
/// bits 14 to 12, register in bits 11 to 0.
pub struct Ecam(PciRoot);

impl BusDevice for Ecam {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xFF);
        if let Some((devfn, register, len)) = ecam_register(offset, data.len()) {
            self.0.read_config(devfn, register, &mut data[..len]);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        if let Some((devfn, register, len)) = ecam_register(offset, data.len()) {
            self.0.write_config(devfn, register, &data[..len]);
        }
        Effect::None
    }
}

/// Function, register, and how many of `len` bytes are that function's.
fn ecam_register(offset: u64, len: usize) -> Option<(u8, usize, usize)> {
    let devfn = u8::try_from(offset >> 12).ok()?;
    let register = offset as usize % FUNCTION_SIZE;
    Some((devfn, register, len.min(FUNCTION_SIZE - register)))
}

/// CONFIG_ADDRESS and CONFIG_DATA.
///
/// | port | | |
/// |---|---|---|
/// | 0 | CONFIG_ADDRESS | 4 bytes at once; bit 31 enables, 23-16 bus, 15-11 slot, 10-8 function, 7-2 register |
/// | 1 | reset control | 1 byte; written with bit 2 set it resets the machine |
/// | 4 | CONFIG_DATA | 1, 2 or 4 bytes of that register |
///
/// Other accesses to the first four ports are no configuration cycles: they read all ones and change
/// nothing. The reset control register, which PCs have in the middle of them, is for guests that
/// find no better way.
pub struct ConfigPorts {
    root: PciRoot,
    address: u32,
}

const RESET_CONTROL: u64 = 1;
const RESET_PROCESSORS: u8 = 1 << 2;
const CONFIG_DATA: u64 = 4;
const ENABLE: u32 = 1 << 31;
/// Bits 30 to 24, 1 and 0 are reserved and read as zero.
const ADDRESS_BITS: u32 = 0x80FF_FFFC;

impl ConfigPorts {
    /// The function and register that `len` bytes at `offset` mean, and how many of them are in it.
    fn target(&self, offset: u64, len: usize) -> Option<(u8, usize, usize)> {
        let byte = offset.checked_sub(CONFIG_DATA).filter(|byte| *byte < 4)? as usize;
        if self.address & ENABLE == 0 || self.address >> 16 & 0xFF != 0 {
            return None;
        }
        Some(((self.address >> 8) as u8, self.address as u8 as usize | byte, len.min(4 - byte)))
    }
}

impl BusDevice for ConfigPorts {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xFF);
        if offset == 0 && data.len() == 4 {
            data.copy_from_slice(&self.address.to_le_bytes());
        } else if let Some((devfn, register, len)) = self.target(offset, data.len()) {
            self.root.read_config(devfn, register, &mut data[..len]);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        if offset == RESET_CONTROL && matches!(data, [value] if value & RESET_PROCESSORS != 0) {
            return Effect::Reset;
        }
        if offset == 0
            && let Ok(address) = data.try_into()
        {
            self.address = u32::from_le_bytes(address) & ADDRESS_BITS;
        } else if let Some((devfn, register, len)) = self.target(offset, data.len()) {
            self.root.write_config(devfn, register, &data[..len]);
        }
        Effect::None
    }
}

/// A window of guest-physical addresses in which BARs answer.
pub struct Window {
    root: PciRoot,
    start: u64,
}

impl BusDevice for Window {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.root.read_memory(self.start.saturating_add(offset), data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        self.root.write_memory(self.start.saturating_add(offset), data);
        Effect::None
    }
}
