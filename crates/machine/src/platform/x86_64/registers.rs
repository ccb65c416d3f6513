//! What a processor's registers hold when a kernel is entered.

use kvm_bindings::{kvm_dtable, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::layout::{BOOT_GDT, BOOT_PAGE_TABLES, BOOT_STACK, PVH_START_INFO, ZERO_PAGE};

/// How and where the first processor enters the kernel. The others wait for the kernel's INIT and SIPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// In long mode, RSI pointing to the zero page
    /// (Linux Documentation/arch/x86/boot.rst, "64-bit boot protocol").
    Linux64 {
        /// First instruction.
        rip: u64,
    },
    /// In 32-bit protected mode without paging, EBX pointing to the start info
    /// (Xen docs/misc/pvh.pandoc, "x86/HVM direct boot ABI").
    Pvh {
        /// First instruction.
        eip: u32,
    },
}

const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;

const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

const PAGE_PRESENT_WRITABLE: u64 = 0x3;
const PAGE_LARGE: u64 = 1 << 7;

impl Entry {
    /// The general registers to enter with (KVM_SET_REGS).
    #[must_use]
    pub fn registers(&self) -> kvm_regs {
        // Bit 1 of RFLAGS is always set; interrupts are off.
        let base = kvm_regs { rflags: 2, ..Default::default() };
        match *self {
            Entry::Linux64 { rip } => {
                kvm_regs { rip, rsi: ZERO_PAGE, rsp: BOOT_STACK, rbp: BOOT_STACK, ..base }
            }
            Entry::Pvh { eip } => kvm_regs { rip: u64::from(eip), rbx: PVH_START_INFO, ..base },
        }
    }

    /// Changes the special registers of a processor just reset (KVM_GET_SREGS) into those to enter
    /// with (KVM_SET_SREGS).
    pub fn set_special_registers(&self, registers: &mut kvm_sregs) {
        let long = matches!(self, Entry::Linux64 { .. });
        let code = segment(CODE_SELECTOR, 0xB, long);
        let data = segment(DATA_SELECTOR, 0x3, false);
        registers.cs = code;
        for register in
            [&mut registers.ds, &mut registers.es, &mut registers.fs, &mut registers.gs, &mut registers.ss]
        {
            *register = data;
        }
        // A busy task-state segment, which VMX insists on.
        registers.tr = kvm_segment { limit: 0x67, type_: 0xB, present: 1, ..Default::default() };
        registers.gdt = kvm_dtable { base: BOOT_GDT, limit: GDT_LIMIT, ..Default::default() };
        registers.idt = kvm_dtable::default();
        registers.cr0 = CR0_PE | CR0_ET;
        registers.cr3 = 0;
        registers.cr4 = 0;
        registers.efer = 0;
        if long {
            registers.cr0 |= CR0_PG;
            registers.cr3 = BOOT_PAGE_TABLES;
            registers.cr4 = CR4_PAE;
            registers.efer = EFER_LME | EFER_LMA;
        }
    }

    /// Writes the descriptor table and, for long mode, page tables that map the first GiB to itself.
    ///
    /// # Errors
    /// `memory` has no 64 KiB at 0.
    pub fn write_tables<M: Bytes<GuestAddress, E = GuestMemoryError>>(
        &self,
        memory: &M,
    ) -> Result<(), GuestMemoryError> {
        let long = matches!(self, Entry::Linux64 { .. });
        let descriptors: [u64; GDT_ENTRIES] =
            [0, 0, if long { 0x00AF_9B00_0000_FFFF } else { 0x00CF_9B00_0000_FFFF }, 0x00CF_9300_0000_FFFF];
        memory.write_slice(&bytes_of(&descriptors), GuestAddress(BOOT_GDT))?;
        if long {
            let tables = [BOOT_PAGE_TABLES, BOOT_PAGE_TABLES + 0x1000, BOOT_PAGE_TABLES + 0x2000];
            let directory: Vec<u64> =
                (0..512).map(|page| page << 21 | PAGE_LARGE | PAGE_PRESENT_WRITABLE).collect();
            memory.write_obj(tables[1] | PAGE_PRESENT_WRITABLE, GuestAddress(tables[0]))?;
            memory.write_obj(tables[2] | PAGE_PRESENT_WRITABLE, GuestAddress(tables[1]))?;
            memory.write_slice(&bytes_of(&directory), GuestAddress(tables[2]))?;
        }
        Ok(())
    }
}

const GDT_ENTRIES: usize = 4;
const GDT_LIMIT: u16 = 8 * GDT_ENTRIES as u16 - 1;

/// A flat 4 GiB segment.
fn segment(selector: u16, type_: u8, long: bool) -> kvm_segment {
    kvm_segment {
        selector,
        type_,
        limit: u32::MAX,
        present: 1,
        s: 1,
        g: 1,
        l: u8::from(long),
        db: u8::from(!long),
        ..Default::default()
    }
}

fn bytes_of(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Model-specific registers of a new processor that must differ from what KVM gives it. All others are
/// at reset: a guest that reboots gets new processors.
///
/// A host may refuse one; the guest then does without it.
#[must_use]
pub fn boot_msrs() -> Vec<kvm_msr_entry> {
    vec![
        // Memory types: on, and write-back for what no range names. Linux uses PAT only if it is on.
        msr(MSR_MTRR_DEF_TYPE, 1 << 11 | 6),
        // Fast string instructions.
        msr(MSR_IA32_MISC_ENABLE, 1),
    ]
}

fn msr(index: u32, data: u64) -> kvm_msr_entry {
    kvm_msr_entry { index, data, ..Default::default() }
}

const MSR_IA32_MISC_ENABLE: u32 = 0x1A0;
const MSR_MTRR_DEF_TYPE: u32 = 0x2FF;

#[cfg(test)]
mod tests {
    use vm_memory::GuestMemoryMmap;

    use super::*;

    fn memory() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 16)]).unwrap()
    }

    #[test]
    fn linux_is_entered_in_long_mode() {
        let entry = Entry::Linux64 { rip: 0x10_0200 };
        let registers = entry.registers();
        assert_eq!((registers.rip, registers.rsi, registers.rflags), (0x10_0200, ZERO_PAGE, 2));
        let mut special = kvm_sregs { apic_base: 0xFEE0_0900, ..Default::default() };
        entry.set_special_registers(&mut special);
        assert_eq!((special.cs.selector, special.cs.l, special.cs.db), (0x10, 1, 0));
        assert_eq!((special.ds.selector, special.cs.type_, special.ds.type_), (0x18, 0xB, 0x3));
        assert_eq!(special.cr0 & (CR0_PE | CR0_PG), CR0_PE | CR0_PG);
        assert_eq!(special.efer, EFER_LME | EFER_LMA);
        assert_eq!(special.apic_base, 0xFEE0_0900, "not ours to change");
    }

    #[test]
    fn long_mode_maps_memory_to_itself() {
        let memory = memory();
        let entry = Entry::Linux64 { rip: 0x10_0200 };
        entry.write_tables(&memory).unwrap();
        let mut special = kvm_sregs::default();
        entry.set_special_registers(&mut special);
        let walk = |address: u64| {
            let mut table = special.cr3;
            for level in [39, 30, 21] {
                let slot = GuestAddress((table & !0xFFF) + (address >> level & 511) * 8);
                table = memory.read_obj(slot).unwrap();
                if table & 1 == 0 {
                    return None;
                }
            }
            assert_ne!(table & PAGE_LARGE, 0);
            Some(table & !0x1F_FFFF | address & 0x1F_FFFF)
        };
        for address in [0, ZERO_PAGE, 0x10_0200, 0x123_4567, 0x3FFF_FFFF] {
            assert_eq!(walk(address), Some(address));
        }
        assert_eq!(walk(0x4000_0000), None);
        let code: u64 = memory.read_obj(GuestAddress(BOOT_GDT + u64::from(CODE_SELECTOR))).unwrap();
        assert_eq!(code >> 53 & 1, 1, "the L bit");
    }

    #[test]
    fn pvh_is_entered_in_protected_mode() {
        let memory = memory();
        let entry = Entry::Pvh { eip: 0x100_0000 };
        entry.write_tables(&memory).unwrap();
        let registers = entry.registers();
        assert_eq!((registers.rip, registers.rbx), (0x100_0000, PVH_START_INFO));
        let mut special = kvm_sregs { efer: EFER_LME, cr4: CR4_PAE, ..Default::default() };
        entry.set_special_registers(&mut special);
        assert_eq!((special.cs.l, special.cs.db, special.cs.limit), (0, 1, u32::MAX));
        assert_eq!((special.cr0, special.cr3, special.cr4, special.efer), (CR0_PE | CR0_ET, 0, 0, 0));
        let code: u64 = memory.read_obj(GuestAddress(BOOT_GDT + u64::from(CODE_SELECTOR))).unwrap();
        assert_eq!(code >> 53 & 3, 2, "D, not L");
    }

    #[test]
    fn memory_types_are_on() {
        let types = boot_msrs().into_iter().find(|msr| msr.index == MSR_MTRR_DEF_TYPE).unwrap();
        assert_eq!((types.data >> 11 & 1, types.data & 0xFF), (1, 6), "on, write-back");
    }
}
