//! What is where in a virtio function: configuration space, capabilities and the BARs
//! (virtio 1.3 §4.1.2, §4.1.4).
//!
//! | offset in BAR 0 | |
//! |---|---|
//! | 0x0000 | common configuration, 64 bytes (§4.1.4.3) |
//! | 0x0100 | ISR status, 1 byte (§4.1.4.5) |
//! | 0x0200 | device configuration, up to 3.5 KiB (§4.1.4.6) |
//! | 0x1000 | notifications, 4 bytes for each queue (§4.1.4.4) |
//! | 0x2000 | MSI-X pending bits |
//! | 0x4000 | MSI-X vector table, 16 bytes for each vector |
//!
//! MSI-X has pages of its own, as PCI 3.0 §6.8.2 wants it where a BAR holds other things too.
//!
//! BAR 2, for devices that have shared memory, is that memory (§4.1.4.7).

use std::ops::Range;

use parador_virtio::{Identity, SharedPiece, SharedRegion, ids};

use super::common;
use crate::pci::config::{Bar, ConfigSpace, Header};
use crate::pci::msix::{self, Msix};

/// All registers are in this BAR: 32 bits wide, so that any guest can reach it.
pub(super) const BAR: usize = 0;
/// What [`BAR`] is.
pub(super) const BAR_SHAPE: Bar = Bar { size: 0x8000, wide: false };

/// Shared memory is in this BAR.
pub(super) const MEMORY_BAR: usize = 2;

const COMMON: u64 = 0;
const ISR: u64 = 0x0100;
const DEVICE: u64 = 0x0200;
const NOTIFY: u64 = 0x1000;
const PENDING: u64 = 0x2000;
const TABLE: u64 = 0x4000;

/// Distance between the notification addresses of two queues.
pub(super) const NOTIFY_MULTIPLIER: u64 = 4;
/// The most queues whose notification addresses fit.
pub(super) const MAX_QUEUES: usize = ((PENDING - NOTIFY) / NOTIFY_MULTIPLIER) as usize;
/// The longest device configuration that fits.
pub(super) const MAX_CONFIG: usize = (NOTIFY - DEVICE) as usize;
/// The most vectors whose table entries fit.
const MAX_VECTORS: usize = (BAR_SHAPE.size - TABLE) as usize / msix::ENTRY_SIZE;
const _: () = assert!(MAX_VECTORS <= msix::MAX_VECTORS && MAX_VECTORS / 8 <= (TABLE - PENDING) as usize);

/// One vector for each queue and one for changes of the configuration, as far as they fit.
pub(super) fn vectors(identity: &Identity) -> u16 {
    (identity.queue_sizes.len() + 1).min(MAX_VECTORS) as u16
}

/// Where regions of shared memory are in [`MEMORY_BAR`].
pub(super) struct SharedLayout {
    /// By id, with the offset of each.
    regions: Vec<(SharedRegion, u64)>,
    pub bar: Bar,
}

/// The most regions whose capabilities fit behind the others in configuration space.
const MAX_REGIONS: usize = 3;
/// Linux maps memory of devices in sections of this size.
const REGION_ALIGN: u64 = 2 << 20;
const PAGE: u64 = 4096;

impl SharedLayout {
    /// A place for each of `regions`; `None` if they are too many, not whole pages, or out of order.
    pub(super) fn new(regions: &[SharedRegion]) -> Option<Self> {
        let ascending = regions.windows(2).all(|pair| pair[0].id < pair[1].id);
        if regions.is_empty() || regions.len() > MAX_REGIONS || !ascending {
            return None;
        }
        let mut placed = Vec::with_capacity(regions.len());
        let mut end = 0u64;
        for region in regions {
            if region.size == 0 || !region.size.is_multiple_of(PAGE) {
                return None;
            }
            let offset = end.checked_next_multiple_of(REGION_ALIGN)?;
            placed.push((*region, offset));
            end = offset.checked_add(region.size)?;
        }
        let size = end.checked_next_power_of_two()?;
        Some(Self { regions: placed, bar: Bar { size, wide: true } })
    }

    /// Where a piece is in the BAR; `None` if it is empty or not inside one region.
    pub(super) fn range(&self, piece: SharedPiece) -> Option<Range<u64>> {
        let SharedPiece { region: id, offset, len } = piece;
        let (region, start) = self.regions.iter().find(|(region, _)| region.id == id)?;
        let end = offset.checked_add(len).filter(|end| len > 0 && *end <= region.size)?;
        Some(start + offset..start + end)
    }
}

/// A part of the BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Region {
    Common,
    Isr,
    Device,
    Notify,
    Pending,
    Table,
}

/// Which part of the BAR `offset` is in, and how far into it.
pub(super) fn region(offset: u64) -> (Region, usize) {
    let (region, start) = match offset {
        ..ISR => (Region::Common, COMMON),
        ISR..DEVICE => (Region::Isr, ISR),
        DEVICE..NOTIFY => (Region::Device, DEVICE),
        NOTIFY..PENDING => (Region::Notify, NOTIFY),
        PENDING..TABLE => (Region::Pending, PENDING),
        TABLE.. => (Region::Table, TABLE),
    };
    (region, (offset - start) as usize)
}

/// Guest-physical address that notifies queue `index`, while the BAR answers in `bar`.
pub(super) fn notify_address(bar: &Range<u64>, index: usize) -> u64 {
    bar.start + NOTIFY + index as u64 * NOTIFY_MULTIPLIER
}

const VENDOR: u16 = 0x1AF4;
/// PCI device number of virtio device type 0 (§4.1.2).
const FIRST_DEVICE: u16 = 0x1040;
/// From here up a subsystem number says "not transitional" (§4.1.2.1).
const FIRST_SUBSYSTEM: u16 = 0x40;

/// Where the capabilities are that need attention after they were made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capabilities {
    pub msix: usize,
    pub pci_cfg: usize,
}

/// Configuration space of a device (§4.1.2), its BARs not yet placed.
pub(super) fn config_space(
    identity: &Identity,
    memory: Option<&SharedLayout>,
    msix: &Msix,
) -> (ConfigSpace, Capabilities) {
    let kind = identity.kind as u16;
    let mut space = ConfigSpace::new(Header {
        vendor: VENDOR,
        device: FIRST_DEVICE.wrapping_add(kind),
        revision: 1,
        class: class(identity.kind),
        subsystem_vendor: VENDOR,
        subsystem: FIRST_SUBSYSTEM.wrapping_add(kind),
    });
    let (body, writable) = msix.capability(BAR as u8, TABLE as u32, PENDING as u32);
    let msix = space.add_capability(msix::CAPABILITY, &body, &writable);
    // In the order in which Linux looks for them; each step over one is an exit.
    add(&mut space, Kind::Common, COMMON, common::SIZE, &[], &[]);
    add(&mut space, Kind::Isr, ISR, 1, &[], &[]);
    let notify = NOTIFY_MULTIPLIER * identity.queue_sizes.len().max(1) as u64;
    add(&mut space, Kind::Notify, NOTIFY, notify as usize, &(NOTIFY_MULTIPLIER as u32).to_le_bytes(), &[]);
    if identity.config_len != 0 {
        add(&mut space, Kind::Device, DEVICE, identity.config_len, &[], &[]);
    }
    let mut writable = [0; 18];
    writable[2] = 0xFF; // bar
    writable[6..].fill(0xFF); // offset, length and data
    let pci_cfg = add(&mut space, Kind::PciCfg, 0, 0, &[0; 4], &writable);
    for (region, offset) in memory.iter().flat_map(|layout| &layout.regions) {
        add_shared_memory(&mut space, *region, *offset);
    }
    (space, Capabilities { msix, pci_cfg })
}

const VENDOR_SPECIFIC: u8 = 0x09;

/// Types of virtio capabilities (§4.1.4).
#[derive(Clone, Copy)]
enum Kind {
    Common = 1,
    Notify = 2,
    Isr = 3,
    Device = 4,
    PciCfg = 5,
    SharedMemory = 8,
}

/// Adds `struct virtio_pci_cap` (§4.1.4), followed by `more`.
fn add(
    space: &mut ConfigSpace,
    kind: Kind,
    offset: u64,
    length: usize,
    more: &[u8],
    writable: &[u8],
) -> usize {
    const LENGTH: usize = 16;
    let mut body = Vec::with_capacity(LENGTH + more.len());
    body.extend([(LENGTH + more.len()) as u8, kind as u8, BAR as u8, 0, 0, 0]);
    body.extend((offset as u32).to_le_bytes());
    body.extend((length as u32).to_le_bytes());
    body.extend(more);
    space.add_capability(VENDOR_SPECIFIC, &body, writable)
}

/// Adds `struct virtio_pci_cap64` (§4.1.4.7).
fn add_shared_memory(space: &mut ConfigSpace, region: SharedRegion, offset: u64) {
    const LENGTH: usize = 24;
    let mut body = Vec::with_capacity(LENGTH);
    body.extend([LENGTH as u8, Kind::SharedMemory as u8, MEMORY_BAR as u8, region.id, 0, 0]);
    for half in [offset, region.size, offset >> 32, region.size >> 32] {
        body.extend((half as u32).to_le_bytes());
    }
    space.add_capability(VENDOR_SPECIFIC, &body, &[]);
}

// Fields of the PCI configuration access capability (§4.1.4.9), from its start.
pub(super) const PCI_CFG_BAR: usize = 4;
pub(super) const PCI_CFG_OFFSET: usize = 8;
pub(super) const PCI_CFG_LENGTH: usize = 12;
pub(super) const PCI_CFG_DATA: usize = 16;

/// The PCI class that fits a device type. Drivers go by vendor and device; people read this.
fn class(kind: u32) -> u32 {
    match kind {
        ids::VIRTIO_ID_NET => 0x02_0000,
        ids::VIRTIO_ID_BLOCK | ids::VIRTIO_ID_SCSI | ids::VIRTIO_ID_FS => 0x01_8000,
        ids::VIRTIO_ID_CONSOLE => 0x07_8000,
        ids::VIRTIO_ID_VSOCK => 0x02_8000,
        ids::VIRTIO_ID_GPU => 0x03_8000,
        ids::VIRTIO_ID_INPUT => 0x09_8000,
        _ => 0xFF_0000,
    }
}
