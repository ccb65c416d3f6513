//! The ACPI tables: a machine of reduced hardware (ACPI 6.5 §4.1), and no more than Linux needs.
//!
//! Every object in the namespace costs the guest time at boot, so there is one PCI bus, no processor
//! objects (the MADT has them all), and no legacy device that is not there.

mod dsdt;
#[cfg(test)]
mod tests;

use std::ops::Range;

use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::srat::{MemoryAffinity, SRAT};
use acpi_tables::xsdt::XSDT;
use parador_virtio::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::layout::{ECAM_START, IOAPIC, LAST_PCI_BUS, LOCAL_APIC, POWER_PORT, RESET_VECTOR, RSDP};
use super::topology::Topology;
use crate::legacy::power::{RESET, RESET_VALUE, SLEEP_CONTROL, SLEEP_STATUS};

/// What the tables describe.
#[derive(Debug, Clone)]
pub struct AcpiSetup<'a> {
    /// The processors.
    pub topology: Topology,
    /// The 64-bit window for PCI BARs, if there is one.
    pub mmio64: Option<Range<u64>>,
    /// There is a serial port at COM1.
    pub serial: bool,
    /// There is a real-time clock.
    pub rtc: bool,
    /// There is a pvpanic device.
    pub pvpanic: bool,
    /// NUMA nodes; none, and the guest is not told of any.
    pub nodes: &'a [Node],
}

/// A NUMA node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its processors, by index.
    pub cpus: Vec<u32>,
    /// Its memory, in guest-physical addresses.
    pub memory: Vec<Range<u64>>,
    /// The distance to each node, itself included: 10 is no distance, 20 the usual one, 255 unreachable.
    pub distances: Vec<u8>,
}

const OEM: [u8; 6] = *b"PARADR";
const TABLE: [u8; 8] = *b"PARADOR ";
const REVISION: u32 = 1;

/// Writes the tables for `setup`, from the root pointer on.
///
/// # Errors
/// `memory` ends before [`RESET_VECTOR`].
///
/// # Panics
/// Never: the largest machine's tables are a fifth of the room.
pub fn write(setup: &AcpiSetup<'_>, memory: &GuestMemory) -> Result<(), GuestMemoryError> {
    let bytes = tables(setup);
    assert!(bytes.len() as u64 <= RESET_VECTOR - RSDP, "more tables than room");
    memory.write_slice(&bytes, GuestAddress(RSDP))
}

/// All tables, as they are from [`RSDP`] on.
fn tables(setup: &AcpiSetup<'_>) -> Vec<u8> {
    let mut tables = Placed { bytes: vec![0; Rsdp::len()] };
    let dsdt = tables.place(&dsdt::dsdt(setup));
    let mut xsdt = XSDT::new(OEM, TABLE, REVISION);
    xsdt.add_entry(tables.place(&fadt(setup, dsdt)));
    xsdt.add_entry(tables.place(&madt(&setup.topology)));
    xsdt.add_entry(tables.place(&mcfg()));
    if !setup.nodes.is_empty() {
        xsdt.add_entry(tables.place(&srat(setup)));
        xsdt.add_entry(tables.place(&slit(setup.nodes)));
    }
    let xsdt = tables.place(&xsdt);
    let mut rsdp = Vec::with_capacity(Rsdp::len());
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut rsdp);
    tables.bytes[..rsdp.len()].copy_from_slice(&rsdp);
    tables.bytes
}

/// Tables one after the other, each on a boundary of 16 bytes.
struct Placed {
    bytes: Vec<u8>,
}

impl Placed {
    /// Puts a table behind the others, and says where.
    fn place(&mut self, table: &dyn Aml) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(16), 0);
        let address = RSDP + self.bytes.len() as u64;
        table.to_aml_bytes(&mut self.bytes);
        address
    }
}

// IA-PC boot architecture flags (ACPI 6.5 §5.2.9.3). The bit for a keyboard controller (1) stays clear.
const BOOT_LEGACY_DEVICES: u16 = 1 << 0;
const BOOT_NO_VGA: u16 = 1 << 2;
const BOOT_NO_ASPM: u16 = 1 << 4;
const BOOT_NO_CMOS_RTC: u16 = 1 << 5;

fn fadt(setup: &AcpiSetup<'_>, dsdt: u64) -> impl Aml {
    let mut fadt = FADTBuilder::new(OEM, TABLE, REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::Wbinvd)
        .flag(Flags::ResetRegSup)
        // Set means that there are no fixed buttons, and no fixed wake from the clock.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::Headless);
    let mut boot = BOOT_NO_VGA | BOOT_NO_ASPM;
    if setup.serial || setup.rtc {
        boot |= BOOT_LEGACY_DEVICES;
    }
    if !setup.rtc {
        boot |= BOOT_NO_CMOS_RTC;
    }
    fadt.iapc_boot_arch = boot.into();
    fadt.sleep_control_reg = power_register(SLEEP_CONTROL);
    fadt.sleep_status_reg = power_register(SLEEP_STATUS);
    fadt.reset_reg = power_register(RESET);
    fadt.reset_value = RESET_VALUE;
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(TABLE).into();
    fadt.finalize()
}

fn power_register(offset: u64) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, u64::from(POWER_PORT) + offset)
}

/// Processors and the I/O APIC. No interrupt differs from what ISA says of it, and there is no 8259.
fn madt(topology: &Topology) -> impl Aml {
    let mut madt = MADT::new(OEM, TABLE, REVISION, LocalInterruptController::Address(LOCAL_APIC as u32));
    for index in 0..topology.cpus() {
        // Both fit: a topology has identifiers up to 254.
        let (uid, id) = (index as u8, topology.apic_id(index) as u8);
        madt.add_structure(ProcessorLocalApic::new(uid, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, IOAPIC as u32, 0));
    madt
}

fn mcfg() -> impl Aml {
    let mut mcfg = MCFG::new(OEM, TABLE, REVISION);
    mcfg.add_ecam(ECAM_START, 0, 0, LAST_PCI_BUS);
    mcfg
}

/// System resource affinity (ACPI 6.5 §5.2.16).
fn srat(setup: &AcpiSetup<'_>) -> impl Aml {
    let mut memory = SRAT::new(OEM, TABLE, REVISION);
    for (domain, node) in (0..).zip(setup.nodes) {
        for range in &node.memory {
            memory.add_memory_affinity(
                MemoryAffinity::new(domain, range.start, range.end - range.start).enabled(),
            );
        }
    }
    let mut bytes = Vec::new();
    memory.to_aml_bytes(&mut bytes);
    let mut srat = Sdt::new(*b"SRAT", 36, 3, OEM, TABLE, REVISION);
    srat.append_slice(&bytes[36..]);
    for (domain, node) in (0u32..).zip(setup.nodes) {
        for &cpu in &node.cpus {
            // Processor local x2APIC affinity: type 2, 24 bytes, enabled.
            let mut entry = [0; 24];
            entry[..2].copy_from_slice(&[2, 24]);
            entry[4..8].copy_from_slice(&domain.to_le_bytes());
            entry[8..12].copy_from_slice(&setup.topology.apic_id(cpu).to_le_bytes());
            entry[12] = 1;
            srat.append_slice(&entry);
        }
    }
    srat
}

fn slit(nodes: &[Node]) -> impl Aml {
    let mut slit = Sdt::new(*b"SLIT", 36, 1, OEM, TABLE, REVISION);
    slit.append_slice(&(nodes.len() as u64).to_le_bytes());
    for node in nodes {
        slit.append_slice(&node.distances);
    }
    slit
}
