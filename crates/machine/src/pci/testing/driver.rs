//! A virtio driver that knows nothing but the registers (virtio 1.3 §3.1.1, §4.1.5.1).

use parador_virtio::QueueLayout;

use super::Guest;
use crate::pci::{MsiMessage, PciAddress};

/// Device status: the driver is ready.
pub const STATUS_DRIVER_OK: u8 = 4;
/// Device status: the features are agreed.
pub const STATUS_FEATURES_OK: u8 = 8;
/// Device status: only a reset helps.
pub const STATUS_NEEDS_RESET: u8 = 0x40;

/// A driver of the virtio function at one address. It finds everything through the capabilities.
#[derive(Debug, Clone, Default)]
pub struct PciDriver {
    address: Option<PciAddress>,
    /// Where the BAR is.
    pub bar: u64,
    /// Guest-physical addresses of the structures; 0 where there is none.
    pub common: u64,
    /// Notifications.
    pub notify: u64,
    /// Bytes between the notification addresses of two queues.
    pub multiplier: u64,
    /// ISR status.
    pub isr: u64,
    /// Device configuration.
    pub device: u64,
    /// MSI-X vector table.
    pub table: u64,
    /// MSI-X pending bits.
    pub pending: u64,
    /// Number of vectors.
    pub vectors: u16,
    /// Offset of the MSI-X capability.
    pub msix: u64,
    /// Offset of the PCI configuration access capability.
    pub pci_cfg: u64,
    /// Regions of shared memory: identifier, guest-physical address and length.
    pub shared: Vec<(u8, u64, u64)>,
}

impl PciDriver {
    /// Finds the structures and switches memory decoding and bus mastering on.
    ///
    /// # Panics
    /// The capability list is wrong.
    pub fn probe(guest: &mut Guest, address: PciAddress) -> Self {
        guest.set_config(address, 4, &[0x06, 0x00]);
        let bar = u64::from(u32::from_le_bytes(guest.config(address, 0x10)) & !0xF);
        let mut driver = Self { address: Some(address), bar, ..Self::default() };
        let [mut at] = guest.config(address, 0x34);
        let mut left = 48;
        while at != 0 {
            assert!(at % 4 == 0 && left > 0, "capabilities are aligned, and come to an end");
            left -= 1;
            driver.take_capability(guest, address, u64::from(at));
            [at] = guest.config(address, u64::from(at) + 1);
        }
        driver
    }

    fn take_capability(&mut self, guest: &mut Guest, address: PciAddress, at: u64) {
        let mut word = |offset| u32::from_le_bytes(guest.config(address, at + offset));
        let (id, kind) = (word(0) & 0xFF, word(0) >> 24);
        match (id, kind) {
            (0x11, _) => {
                self.msix = at;
                self.vectors = (word(0) >> 16 & 0x7FF) as u16 + 1;
                self.table = self.bar + u64::from(word(4) & !7);
                self.pending = self.bar + u64::from(word(8) & !7);
            }
            (0x09, 1..=5) => {
                let place = self.bar + u64::from(word(8));
                match kind {
                    1 => self.common = place,
                    2 => (self.notify, self.multiplier) = (place, word(16).into()),
                    3 => self.isr = place,
                    4 => self.device = place,
                    _ => self.pci_cfg = at,
                }
            }
            (0x09, 8) => {
                let wide = |low, high| u64::from(low) | u64::from(high) << 32;
                let (bar, id) = (word(4) & 0xFF, (word(4) >> 8) as u8);
                let (offset, length) = (wide(word(8), word(16)), wide(word(12), word(20)));
                let register = 0x10 + 4 * u64::from(bar);
                let place = u64::from_le_bytes(guest.config(address, register)) & !0xF;
                self.shared.push((id, place + offset, length));
            }
            _ => {}
        }
    }

    /// Where the function is.
    ///
    /// # Panics
    /// This is no driver that probed.
    #[must_use]
    pub fn address(&self) -> PciAddress {
        self.address.expect("the driver has probed")
    }

    /// Reads `N` bytes at `offset` of the common configuration.
    pub fn read<const N: usize>(&self, guest: &mut Guest, offset: u64) -> [u8; N] {
        guest.load(self.common + offset)
    }

    /// Writes at `offset` of the common configuration.
    pub fn write(&self, guest: &mut Guest, offset: u64, data: &[u8]) {
        guest.write(self.common + offset, data);
    }

    /// Device status.
    pub fn status(&self, guest: &mut Guest) -> u8 {
        self.read::<1>(guest, 0x14)[0]
    }

    /// The features the device offers.
    pub fn offered(&self, guest: &mut Guest) -> u64 {
        let mut half = |select: u32| {
            self.write(guest, 0, &select.to_le_bytes());
            u64::from(u32::from_le_bytes(self.read(guest, 4)))
        };
        half(0) | half(1) << 32
    }

    /// Resets the device, and negotiates exactly `features`. Says whether the device agrees.
    pub fn negotiate(&self, guest: &mut Guest, features: u64) -> bool {
        self.write(guest, 0x14, &[0]);
        assert_eq!(self.status(guest), 0, "a reset is done when status reads 0");
        self.write(guest, 0x14, &[1]);
        self.write(guest, 0x14, &[3]);
        for (select, half) in [(0u32, features as u32), (1, (features >> 32) as u32)] {
            self.write(guest, 8, &select.to_le_bytes());
            self.write(guest, 12, &half.to_le_bytes());
        }
        self.write(guest, 0x14, &[3 | STATUS_FEATURES_OK]);
        self.status(guest) & STATUS_FEATURES_OK != 0
    }

    /// Selects a queue, tells the device where it is, maps it to `vector`, and enables it. Says
    /// which vector it got.
    pub fn enable_queue(&self, guest: &mut Guest, index: u16, layout: &QueueLayout, vector: u16) -> u16 {
        self.write(guest, 0x16, &index.to_le_bytes());
        self.write(guest, 0x18, &layout.size.to_le_bytes());
        // 64-bit registers in halves, as drivers do.
        for (offset, address) in [(0x20, layout.descriptors), (0x28, layout.available), (0x30, layout.used)] {
            self.write(guest, offset, &(address as u32).to_le_bytes());
            self.write(guest, offset + 4, &((address >> 32) as u32).to_le_bytes());
        }
        self.write(guest, 0x1A, &vector.to_le_bytes());
        let got = u16::from_le_bytes(self.read(guest, 0x1A));
        self.write(guest, 0x1C, &[1, 0]);
        got
    }

    /// Sets DRIVER_OK.
    pub fn driver_ok(&self, guest: &mut Guest) {
        self.write(guest, 0x14, &[3 | STATUS_FEATURES_OK | STATUS_DRIVER_OK]);
    }

    /// Notifies queue `index` as a driver does: its number, at its address.
    pub fn notify(&self, guest: &mut Guest, index: u16) {
        self.write(guest, 0x16, &index.to_le_bytes());
        let offset = u16::from_le_bytes(self.read(guest, 0x1E));
        guest.write(self.notify + u64::from(offset) * self.multiplier, &index.to_le_bytes());
    }

    /// Message Control of MSI-X: enabled or not, all masked or not.
    pub fn set_msix(&self, guest: &mut Guest, enabled: bool, masked: bool) {
        let control = u16::from(enabled) << 15 | u16::from(masked) << 14;
        guest.set_config(self.address(), self.msix + 2, &control.to_le_bytes());
    }

    /// Writes a vector's message and whether it is masked, as Linux does: masked while it changes.
    pub fn set_vector(&self, guest: &mut Guest, vector: u16, message: MsiMessage, masked: bool) {
        let entry = self.table + u64::from(vector) * 16;
        guest.write(entry + 12, &[1, 0, 0, 0]);
        guest.write(entry, &(message.address as u32).to_le_bytes());
        guest.write(entry + 4, &((message.address >> 32) as u32).to_le_bytes());
        guest.write(entry + 8, &message.data.to_le_bytes());
        self.mask_vector(guest, vector, masked);
    }

    /// Masks or unmasks a vector.
    pub fn mask_vector(&self, guest: &mut Guest, vector: u16, masked: bool) {
        guest.write(self.table + u64::from(vector) * 16 + 12, &u32::from(masked).to_le_bytes());
    }

    /// Whether a vector's pending bit is set.
    pub fn is_pending(&self, guest: &mut Guest, vector: u16) -> bool {
        let [byte] = guest.load(self.pending + u64::from(vector / 8));
        byte >> (vector % 8) & 1 != 0
    }
}
