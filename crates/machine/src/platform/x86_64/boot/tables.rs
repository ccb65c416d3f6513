//! What a kernel reads before anything else: the zero page, or the PVH start info.

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use parador_virtio::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion};

use super::{Initrd, Kernel};
use crate::platform::x86_64::layout::{
    ACPI_END, CMDLINE, ECAM_SIZE, ECAM_START, HIGH_MEMORY, LOW_MEMORY_END, PVH_START_INFO, RSDP, ZERO_PAGE,
};

/// Kinds of memory (ACPI 6.5 §15, "INT 15H, E820H"); PVH has the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum MemoryKind {
    Ram = 1,
    Reserved = 2,
    Acpi = 3,
}

/// The guest's memory as firmware would describe it: start, size and kind, in ascending order.
pub(super) fn memory_map(memory: &GuestMemory) -> Vec<(u64, u64, MemoryKind)> {
    let mut map = vec![(0, LOW_MEMORY_END, MemoryKind::Ram), (RSDP, ACPI_END - RSDP, MemoryKind::Acpi)];
    for region in memory.iter() {
        let end = region.start_addr().0 + region.len();
        let start = region.start_addr().0.max(HIGH_MEMORY);
        if end <= start {
            continue;
        }
        match map.last_mut() {
            // Regions of one stretch of memory, split for NUMA nodes.
            Some((last, size, MemoryKind::Ram)) if *last + *size == start => *size += end - start,
            _ => map.push((start, end - start, MemoryKind::Ram)),
        }
    }
    // Linux uses the configuration space of PCI Express only where it is reserved.
    map.push((ECAM_START, ECAM_SIZE, MemoryKind::Reserved));
    map.sort_unstable_by_key(|&(start, ..)| start);
    map
}

/// A boot loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xFF;

/// The zero page (Linux Documentation/arch/x86/zero-page.rst).
pub(super) fn write_zero_page(
    memory: &GuestMemory,
    kernel: &Kernel,
    initrd: Option<Initrd>,
) -> Result<(), GuestMemoryError> {
    let mut page = boot_params { hdr: kernel.header, acpi_rsdp_addr: RSDP, ..Default::default() };
    page.hdr.type_of_loader = LOADER_UNDEFINED;
    page.hdr.cmd_line_ptr = CMDLINE as u32;
    page.hdr.setup_data = 0;
    if let Some(Initrd { start, size }) = initrd {
        (page.hdr.ramdisk_image, page.ext_ramdisk_image) = (start as u32, (start >> 32) as u32);
        (page.hdr.ramdisk_size, page.ext_ramdisk_size) = (size as u32, (size >> 32) as u32);
    }
    let mut count = 0;
    let mut table = page.e820_table;
    for (slot, (addr, size, kind)) in table.iter_mut().zip(memory_map(memory)) {
        *slot = boot_e820_entry { addr, size, r#type: kind as u32 };
        count += 1;
    }
    page.e820_table = table;
    page.e820_entries = count;
    memory.write_obj(page, GuestAddress(ZERO_PAGE))
}

const START_MAGIC: u32 = 0x336E_C578;

/// The start info (Xen public/arch-x86/hvm/start_info.h), and the tables it points to right after it.
pub(super) fn write_start_info(memory: &GuestMemory, initrd: Option<Initrd>) -> Result<(), GuestMemoryError> {
    let modules = PVH_START_INFO + size_of::<hvm_start_info>() as u64;
    let map_address = modules + size_of::<hvm_modlist_entry>() as u64;
    let map = memory_map(memory);
    let info = hvm_start_info {
        magic: START_MAGIC,
        version: 1,
        nr_modules: u32::from(initrd.is_some()),
        modlist_paddr: if initrd.is_some() { modules } else { 0 },
        cmdline_paddr: CMDLINE,
        rsdp_paddr: RSDP,
        memmap_paddr: map_address,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    memory.write_obj(info, GuestAddress(PVH_START_INFO))?;
    if let Some(Initrd { start, size }) = initrd {
        let module = hvm_modlist_entry { paddr: start, size, ..Default::default() };
        memory.write_obj(module, GuestAddress(modules))?;
    }
    for (index, (addr, size, kind)) in (0u64..).zip(map) {
        let entry = hvm_memmap_table_entry { addr, size, type_: kind as u32, reserved: 0 };
        let offset = index * size_of::<hvm_memmap_table_entry>() as u64;
        memory.write_obj(entry, GuestAddress(map_address + offset))?;
    }
    Ok(())
}
