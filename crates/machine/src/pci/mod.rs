//! PCI Express: the host bridge, configuration space, BARs, and virtio over it.
//!
//! [`PciRoot`] is bus 0 of segment 0, the only one. Devices are attached to it; the machine puts
//! what [`PciRoot::ecam`], [`PciRoot::config_ports`] and [`PciRoot::window`] return on its buses.
//! [`Host`] is all that this needs of the machine in turn.
//!
//! Addresses of BARs are given out here, before any guest runs, with decoding off as at power-on:
//! a guest that does not place BARs only switches it on.
//!
//! ```
//! use std::sync::Arc;
//! use parador_machine::bus::BusDevice;
//! use parador_machine::pci::{PciRoot, Windows};
//! # use std::io;
//! # use parador_machine::pci::{Host, HostMemory, MsiMessage};
//! # use parador_virtio::{EventFd, GuestAddress, GuestMemory};
//! # struct Nobody;
//! # impl Host for Nobody {
//! #     fn set_ioeventfd(&self, _: u64, _: &EventFd, _: bool) -> io::Result<()> { Ok(()) }
//! #     fn allocate_gsi(&self) -> io::Result<u32> { Ok(24) }
//! #     fn release_gsi(&self, _: u32) {}
//! #     fn route_msi(&self, _: u32, _: Option<MsiMessage>) -> io::Result<()> { Ok(()) }
//! #     fn set_irqfd(&self, _: u32, _: &EventFd, _: bool) -> io::Result<()> { Ok(()) }
//! #     fn show_memory(&self, _: u64, _: &Arc<HostMemory>) -> io::Result<()> { Ok(()) }
//! #     fn hide_memory(&self, _: u64) {}
//! # }
//! # let host = Arc::new(Nobody);
//! # let memory = Arc::new(GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)])?);
//! let windows = Windows { low: 0xC000_0000..0xE000_0000, high: None };
//! let root = PciRoot::new(host, memory, windows)?;
//! let mut id = [0; 4];
//! root.ecam().read(0, &mut id);
//! assert_eq!(id, [0x36, 0x1B, 0x08, 0x00]); // the host bridge
//! root.ecam().read(1 << 15, &mut id);
//! assert_eq!(id, [0xFF; 4]); // nothing in slot 1 yet
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod access;
mod address;
mod bridge;
mod config;
mod host_memory;
mod msix;
mod root;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod virtio;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use parador_virtio::SharedRegion;
use vmm_sys_util::eventfd::EventFd;

pub use access::{ConfigPorts, Ecam, Window};
pub use address::{FUNCTIONS, ParseAddressError, PciAddress, SLOTS};
pub use host_memory::HostMemory;
pub use root::PciRoot;

/// What PCI functions need of the machine they are in. KVM is behind it; tests put a model there.
pub trait Host: Send + Sync {
    /// Makes `kick` fire on every guest write, of any size, to `address` (guest-physical); or stops that.
    ///
    /// # Errors
    /// What the kernel says. The write then reaches the function itself, which kicks by hand.
    fn set_ioeventfd(&self, address: u64, kick: &EventFd, on: bool) -> io::Result<()>;

    /// A global system interrupt number free for message-signalled interrupts. Not given out again
    /// before it is released.
    ///
    /// # Errors
    /// There is none left.
    fn allocate_gsi(&self) -> io::Result<u32>;

    /// Takes back a number from [`Host::allocate_gsi`], and its route. Its irqfd has been disconnected.
    fn release_gsi(&self, gsi: u32);

    /// Sets where `gsi` is delivered; `None` for nowhere.
    ///
    /// # Errors
    /// What the kernel says: the guest may ask for a message that does not exist.
    fn route_msi(&self, gsi: u32, message: Option<MsiMessage>) -> io::Result<()>;

    /// Connects `fd` to `gsi`, so that signalling it interrupts the guest; or disconnects it.
    ///
    /// # Errors
    /// What the kernel says.
    fn set_irqfd(&self, gsi: u32, fd: &EventFd, on: bool) -> io::Result<()>;

    /// Has the guest see `memory` at guest-physical `address`, where nothing else is, with no word to
    /// us when it does. Keeps it until it is hidden.
    ///
    /// # Errors
    /// What the kernel says. Accesses then reach the function itself.
    fn show_memory(&self, address: u64, memory: &Arc<HostMemory>) -> io::Result<()>;

    /// Has the guest no longer see the memory that was shown at `address`.
    fn hide_memory(&self, address: u64);
}

/// A message-signalled interrupt as the guest wrote it into a vector table (PCI 3.0 §6.8.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsiMessage {
    /// Where the message is written.
    pub address: u64,
    /// What is written.
    pub data: u32,
}

/// Where BARs are: ranges of guest-physical addresses that nothing else answers in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// Below 4 GiB.
    pub low: Range<u64>,
    /// Above, for 64-bit BARs, if the processor addresses that far.
    pub high: Option<Range<u64>>,
}

impl Windows {
    /// Whether all of `range` is in one window.
    fn contain(&self, range: &Range<u64>) -> bool {
        [Some(&self.low), self.high.as_ref()]
            .into_iter()
            .flatten()
            .any(|window| window.start <= range.start && range.end <= window.end)
    }
}

/// Why a device cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is a function already.
    #[error("PCI address {0} is taken")]
    Occupied(PciAddress),
    /// There is only bus 0.
    #[error("PCI address {0} is on another bus than 0, the only one")]
    NoSuchBus(PciAddress),
    /// All slots have functions in them.
    #[error("all {SLOTS} PCI slots are taken")]
    NoFreeSlot,
    /// A window is full.
    #[error("no room for a PCI BAR of {0} bytes")]
    NoRoom(u64),
    /// A window that is none.
    #[error("{0:#x?} cannot be a window for PCI BARs")]
    Window(Range<u64>),
    /// The device does not fit into the structures of a virtio PCI function.
    #[error("a virtio PCI function cannot have {queues} queues and {config_len} bytes of configuration")]
    TooLarge {
        /// Number of queues.
        queues: usize,
        /// Bytes of device configuration.
        config_len: usize,
    },
    /// Its regions of shared memory are too many, or not whole pages, or out of order.
    #[error("a virtio PCI function cannot have these regions of shared memory: {0:?}")]
    SharedMemory(Box<[SharedRegion]>),
    /// The host has no addresses to spare.
    #[error("no addresses for {size} bytes of shared memory")]
    NoAddresses {
        /// Bytes of all regions, and what is between them.
        size: u64,
        /// What the host said.
        source: io::Error,
    },
}
