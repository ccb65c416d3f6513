//! A PCI bus without KVM, for tests and fuzzing: a model of the host, a guest's view of the bus, a
//! register-level virtio driver, devices that watch how they are driven, and hostile input.
//!
//! What is wrong in *our* conduct (an irqfd connected twice, a queue started twice) panics here.

mod device;
mod driver;
mod host;
pub mod hostile;

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use parador_virtio::testing::Arena;

pub use device::{Bare, Echo, Gate, REGIONS, Strict, Watch};
pub use driver::{PciDriver, STATUS_DRIVER_OK, STATUS_FEATURES_OK, STATUS_NEEDS_RESET};
pub use host::ModelHost;

use super::host_memory::scratch;
use super::{ConfigPorts, Ecam, Host, PciAddress, PciRoot, Window, Windows};
use crate::bus::{BusDevice, Effect};

/// Where 32-bit BARs are.
pub const LOW: Range<u64> = 0xC000_0000..0xE000_0000;
/// Where 64-bit BARs are.
pub const HIGH: Range<u64> = 0x10_0000_0000..0x20_0000_0000;
/// Where ECAM is.
pub const ECAM: Range<u64> = 0xE000_0000..0xE010_0000;

/// A bus as a guest sees it. Writes that have an ioeventfd go there, as in KVM.
pub struct Guest {
    /// What the functions ask of the machine; left alone where [`Guest::on`] has another host.
    pub host: Arc<ModelHost>,
    /// The bus.
    pub root: PciRoot,
    /// Guest memory, with room for rings and buffers.
    pub arena: Arena,
    ecam: Ecam,
    ports: ConfigPorts,
    low: Window,
    high: Window,
}

impl Default for Guest {
    fn default() -> Self {
        Self::new()
    }
}

impl Guest {
    /// An empty bus, and 4 MiB of memory.
    ///
    /// # Panics
    /// The host has no memory.
    #[must_use]
    pub fn new() -> Self {
        let host = Arc::new(ModelHost::default());
        Self { host: Arc::clone(&host), ..Self::on(host, Arena::new(4 << 20)) }
    }

    /// An empty bus on another host. Writes do not reach that host's ioeventfds.
    ///
    /// # Panics
    /// The windows are refused.
    #[must_use]
    pub fn on(host: Arc<dyn Host>, arena: Arena) -> Self {
        let windows = Windows { low: LOW, high: Some(HIGH) };
        let root = PciRoot::new(host, Arc::clone(arena.memory()), windows).expect("the windows are good");
        let (ecam, ports) = (root.ecam(), root.config_ports());
        let (low, high) = (root.window(LOW.start), root.window(HIGH.start));
        Self { host: Arc::default(), root, arena, ecam, ports, low, high }
    }

    /// Reads guest-physical memory that is not RAM; all ones where nothing is.
    pub fn read(&mut self, address: u64, data: &mut [u8]) {
        if let Some((memory, offset)) = self.host.memory_at(address) {
            if memory.load(offset, data).is_ok() {
                return;
            }
            assert_ne!(self.root.give_up_memory(), 0, "a processor is stuck for ever");
        }
        match self.device(address) {
            Some((device, offset)) => device.read(offset, data),
            None => data.fill(0xFF),
        }
    }

    /// Writes guest-physical memory that is not RAM.
    pub fn write(&mut self, address: u64, data: &[u8]) {
        if self.host.kick(address) {
            return;
        }
        if let Some((memory, offset)) = self.host.memory_at(address) {
            if memory.store(offset, data).is_ok() {
                return;
            }
            assert_ne!(self.root.give_up_memory(), 0, "a processor is stuck for ever");
        }
        if let Some((device, offset)) = self.device(address) {
            assert_eq!(device.write(offset, data), Effect::None, "no PCI function ends the machine");
        }
    }

    fn device(&mut self, address: u64) -> Option<(&mut dyn BusDevice, u64)> {
        let Self { ecam, low, high, .. } = self;
        let all: [(&mut dyn BusDevice, Range<u64>); 3] = [(low, LOW), (ecam, ECAM), (high, HIGH)];
        let (device, range) = all.into_iter().find(|(_, range)| range.contains(&address))?;
        Some((device, address - range.start))
    }

    /// Reads `N` bytes of guest-physical memory that is not RAM.
    pub fn load<const N: usize>(&mut self, address: u64) -> [u8; N] {
        let mut data = [0; N];
        self.read(address, &mut data);
        data
    }

    /// Reads configuration space through ECAM.
    pub fn config<const N: usize>(&mut self, function: PciAddress, offset: u64) -> [u8; N] {
        self.load(config_address(function, offset))
    }

    /// Writes configuration space through ECAM.
    pub fn set_config(&mut self, function: PciAddress, offset: u64, data: &[u8]) {
        self.write(config_address(function, offset), data);
    }

    /// Reads the ports from 0xCF8.
    pub fn port_in<const N: usize>(&mut self, port: u16) -> [u8; N] {
        let mut data = [0; N];
        self.ports.read(u64::from(port - 0xCF8), &mut data);
        data
    }

    /// Writes the ports from 0xCF8.
    pub fn port_out(&mut self, port: u16, data: &[u8]) {
        let effect = self.ports.write(u64::from(port - 0xCF8), data);
        assert!(effect == Effect::None || port == 0xCF9, "no PCI function ends the machine");
    }
}

/// A file in memory of `len` zeroes.
///
/// # Panics
/// The host has no descriptors left.
#[must_use]
pub fn memory_file(len: u64) -> File {
    let file = scratch().expect("the host has a descriptor to spare");
    file.set_len(len).expect("a file in memory can have any length");
    file
}

/// Where a register of a function is in ECAM.
fn config_address(function: PciAddress, offset: u64) -> u64 {
    ECAM.start + (u64::from(function.devfn()) << 12) + offset
}
