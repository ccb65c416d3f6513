//! The host bridge: slot 0 of the root bus. It has no registers of its own; it is there to be found.

use super::config::{ConfigSpace, Header};
use super::root::Function;

/// Vendor and device of a generic PCI Express host bridge, known to lspci and without quirks in any
/// guest we know.
const VENDOR: u16 = 0x1B36;
const DEVICE: u16 = 0x0008;
/// Subsystem vendor and device of virtual machines' own parts.
const SUBSYSTEM_VENDOR: u16 = 0x1AF4;
const SUBSYSTEM: u16 = 0x1100;
/// Bridge, host bridge (PCI Code and ID Assignment 1.11 §1.7).
const CLASS: u32 = 0x06_0000;

/// The host bridge at 0:0.0.
pub(super) struct HostBridge {
    config: ConfigSpace,
}

impl HostBridge {
    pub(super) fn new() -> Self {
        let header = Header {
            vendor: VENDOR,
            device: DEVICE,
            revision: 0,
            class: CLASS,
            subsystem_vendor: SUBSYSTEM_VENDOR,
            subsystem: SUBSYSTEM,
        };
        Self { config: ConfigSpace::new(header) }
    }
}

impl Function for HostBridge {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn reset(&mut self) {
        self.config.reset();
    }
}
