//! Where everything is: guest-physical addresses, I/O ports and interrupt numbers.
//!
//! ```text
//! 0x0000_0000  low memory       boot tables below 640 KiB, ACPI tables from 0xE_0000, kernel from 1 MiB
//! 0xC000_0000  MMIO32_START     32-bit window for PCI BARs, 512 MiB
//! 0xE000_0000  ECAM_START       PCI configuration space of bus 0
//! 0xFEC0_0000  IOAPIC           I/O APIC
//! 0xFEE0_0000  LOCAL_APIC       local APIC, and the window of message-signalled interrupts
//! 0xFFFB_C000  IDENTITY_MAP     pages that KVM wants for itself on Intel
//! 0x1_0000_0000                 high memory, if there is more than 3 GiB
//! after it     mmio64_window    64-bit window for PCI BARs
//! ```

use std::ops::Range;

/// Bytes in a KiB.
pub const KIB: u64 = 1 << 10;
/// Bytes in a MiB.
pub const MIB: u64 = 1 << 20;
/// Bytes in a GiB.
pub const GIB: u64 = 1 << 30;

// --- Memory -------------------------------------------------------------------------------------

/// Memory below 4 GiB ends here at the latest; what does not fit goes to [`HIGH_RAM_START`].
pub const LOW_RAM_END: u64 = 3 * GIB;
/// Memory that does not fit below [`LOW_RAM_END`] starts here.
pub const HIGH_RAM_START: u64 = 4 * GIB;
/// The 32-bit window for PCI BARs.
pub const MMIO32_START: u64 = LOW_RAM_END;
/// First address after the 32-bit window for PCI BARs.
pub const MMIO32_END: u64 = ECAM_START;
/// The PCI configuration space of segment 0, bus 0.
pub const ECAM_START: u64 = 0xE000_0000;
/// Size of [`ECAM_START`]: 1 MiB for each bus, and there is one.
pub const ECAM_SIZE: u64 = MIB;
/// The last bus of segment 0.
pub const LAST_PCI_BUS: u8 = 0;
/// The I/O APIC, in the kernel.
pub const IOAPIC: u64 = 0xFEC0_0000;
/// The local APIC, in the kernel. Message-signalled interrupts are writes to this MiB.
pub const LOCAL_APIC: u64 = 0xFEE0_0000;
/// One page for KVM_SET_IDENTITY_MAP_ADDR. Set before the first vCPU exists.
pub const IDENTITY_MAP: u64 = 0xFFFB_C000;
/// Three pages for KVM_SET_TSS_ADDR.
pub const TSS: u64 = 0xFFFB_D000;

/// The 64-bit window for PCI BARs behind `ram_end` (first address after all memory), on a processor
/// that addresses `physical_bits` bits: as large as a power of two up to 64 GiB can be.
///
/// `None` if there is no room for a GiB; then all BARs go below 4 GiB.
#[must_use]
pub fn mmio64_window(ram_end: u64, physical_bits: u8) -> Option<Range<u64>> {
    let limit = 1u64.checked_shl(u32::from(physical_bits)).unwrap_or(u64::MAX);
    let mut size = 64 * GIB;
    while size >= GIB {
        let start = ram_end.max(HIGH_RAM_START).checked_next_multiple_of(size)?;
        if start.checked_add(size).is_some_and(|end| end <= limit) {
            return Some(start..start + size);
        }
        size /= 2;
    }
    None
}

/// Guest-physical ranges of `size` bytes of memory: one below the hole, and the rest above it.
#[must_use]
pub fn ram_ranges(size: u64) -> Vec<Range<u64>> {
    let low = size.min(LOW_RAM_END);
    let mut ranges = Vec::with_capacity(2);
    ranges.push(0..low);
    if size > low {
        ranges.push(HIGH_RAM_START..HIGH_RAM_START + (size - low));
    }
    ranges
}

// --- Boot: what is written below 1 MiB ----------------------------------------------------------

/// Global descriptor table: four entries.
pub const BOOT_GDT: u64 = 0x500;
/// PVH start info, its memory map and its module list: one page.
pub const PVH_START_INFO: u64 = 0x6000;
/// The "zero page" of the Linux boot protocol.
pub const ZERO_PAGE: u64 = 0x7000;
/// Top of the stack at entry.
pub const BOOT_STACK: u64 = 0x8FF0;
/// Page tables: PML4, PDPT and the page directory of the first GiB, one page each.
pub const BOOT_PAGE_TABLES: u64 = 0x9000;
/// The kernel command line, with its terminating zero.
pub const CMDLINE: u64 = 0x2_0000;
/// Most bytes of the command line, with its terminating zero.
pub const CMDLINE_SIZE: u64 = 64 * KIB;
/// First address below 1 MiB that is not memory.
pub const LOW_MEMORY_END: u64 = 0x9_FC00;
/// The ACPI root pointer; all tables follow it.
pub const RSDP: u64 = 0xE_0000;
/// First address after the room for ACPI tables and the reset vector.
pub const ACPI_END: u64 = HIGH_MEMORY;
/// Where a processor in real mode jumps to have the firmware reset the machine. Nothing is behind it.
pub const RESET_VECTOR: u64 = 0xF_FFF0;
/// Memory from here to [`LOW_RAM_END`] is the kernel's and the initrd's.
pub const HIGH_MEMORY: u64 = MIB;

// --- Processors ---------------------------------------------------------------------------------

/// Most vCPUs: xAPIC identifiers 0 to 254 (255 is broadcast). An odd topology has fewer, as its
/// identifiers have gaps.
pub const MAX_VCPUS: u32 = 255;

// --- Interrupts ---------------------------------------------------------------------------------

/// First serial port. Edge-triggered.
pub const COM1_GSI: u32 = 4;
/// ACPI generic event device (power button). Edge-triggered.
pub const GED_GSI: u32 = 9;
/// Pins of the I/O APIC; the first number for message-signalled interrupts.
pub const IOAPIC_PINS: u32 = 24;

// --- I/O ports ----------------------------------------------------------------------------------

/// First serial port, a 16550.
pub const COM1_PORT: u16 = 0x3F8;
/// Ports of a serial port.
pub const COM1_PORTS: u16 = 8;
/// Status and command port of the keyboard controller: only the reset command is there.
pub const I8042_PORT: u16 = 0x64;
/// Index and data of the real-time clock.
pub const RTC_PORT: u16 = 0x70;
/// Ports of the real-time clock.
pub const RTC_PORTS: u16 = 2;
/// QEMU's pvpanic.
pub const PVPANIC_PORT: u16 = 0x505;
/// ACPI power: sleep control and status, reset, events of the generic event device.
pub const POWER_PORT: u16 = 0x600;
/// Ports of ACPI power.
pub const POWER_PORTS: u16 = 8;
/// PCI CONFIG_ADDRESS (4 bytes), with the reset control register of PCs (0xCF9) in it.
pub const PCI_CONFIG_ADDRESS_PORT: u16 = 0xCF8;
/// PCI CONFIG_DATA (4 bytes).
pub const PCI_CONFIG_DATA_PORT: u16 = 0xCFC;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_split_around_the_hole() {
        let ends = |size| ram_ranges(size).iter().map(|range| (range.start, range.end)).collect::<Vec<_>>();
        assert_eq!(ends(512 * MIB), [(0, 512 * MIB)]);
        assert_eq!(ends(3 * GIB), [(0, 3 * GIB)]);
        assert_eq!(ends(6 * GIB), [(0, 3 * GIB), (4 * GIB, 7 * GIB)]);
    }

    #[test]
    fn the_wide_window_fits_the_processor() {
        assert_eq!(mmio64_window(GIB, 40), Some(64 * GIB..128 * GIB));
        assert_eq!(mmio64_window(7 * GIB, 36), Some(32 * GIB..64 * GIB));
        assert_eq!(mmio64_window(40 * GIB, 36), Some(48 * GIB..64 * GIB));
        assert_eq!(mmio64_window(64 * GIB, 36), None);
        assert_eq!(mmio64_window(u64::MAX, 52), None);
        assert_eq!(mmio64_window(GIB, 64), Some(64 * GIB..128 * GIB));
    }

    #[test]
    fn nothing_overlaps() {
        let mut regions = [
            (BOOT_GDT, 0x20),
            (PVH_START_INFO, 0x1000),
            (ZERO_PAGE, 0x1000),
            (BOOT_STACK & !0xFFF, 0x1000),
            (BOOT_PAGE_TABLES, 3 * 0x1000),
            (CMDLINE, CMDLINE_SIZE),
            (RSDP, ACPI_END - RSDP),
            (HIGH_MEMORY, LOW_RAM_END - HIGH_MEMORY),
            (MMIO32_START, MMIO32_END - MMIO32_START),
            (ECAM_START, ECAM_SIZE),
            (IOAPIC, 0x1000),
            (LOCAL_APIC, MIB),
            (IDENTITY_MAP, 0x1000),
            (TSS, 0x3000),
            (HIGH_RAM_START, 0),
        ];
        regions.sort_unstable();
        for pair in regions.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
        }
        const { assert!(CMDLINE + CMDLINE_SIZE <= LOW_MEMORY_END) };
    }
}
