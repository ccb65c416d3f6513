//! The namespace: PCI Express, the power button, and what little there is on ports.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Arg, BufferData, Device, EISAName, Equal, Field,
    FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, IO, If, Interrupt, Local, Memory32Fixed,
    Method, Name, Notify, ONE, OpRegion, OpRegionSpace, Package, Path, ResourceTemplate, Return, Scope,
    Store, Uuid, ZERO,
};
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};

use super::{AcpiSetup, OEM, REVISION, TABLE};
use crate::legacy::power::{EVENTS, POWER_BUTTON, SLEEP_TYPE_S5};
use crate::platform::x86_64::layout::{
    COM1_GSI, COM1_PORT, COM1_PORTS, ECAM_SIZE, ECAM_START, GED_GSI, LAST_PCI_BUS, MMIO32_END, MMIO32_START,
    PCI_CONFIG_ADDRESS_PORT, POWER_PORT, POWER_PORTS, PVPANIC_PORT, RTC_PORT, RTC_PORTS,
};

pub(super) fn dsdt(setup: &AcpiSetup<'_>) -> Sdt {
    // Revision 2 and later have integers of 64 bits.
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM, TABLE, REVISION);
    let mut bytes = Vec::new();
    Name::new("_S5_".into(), &Package::new(vec![&SLEEP_TYPE_S5])).to_aml_bytes(&mut bytes);
    add_pci(setup, &mut bytes);
    add_reserved(&mut bytes);
    add_power_button(&mut bytes);
    if setup.serial {
        add_serial(&mut bytes);
    }
    if setup.rtc {
        add_rtc(&mut bytes);
    }
    if setup.pvpanic {
        add_pvpanic(&mut bytes);
    }
    dsdt.append_slice(&bytes);
    dsdt
}

/// Puts `device` into `\_SB`.
fn add(device: &Device<'_>, bytes: &mut Vec<u8>) {
    Scope::new("\\_SB_".into(), vec![device]).to_aml_bytes(bytes);
}

fn hid(name: &str) -> Name {
    Name::new("_HID".into(), &EISAName::new(name))
}

fn resources(descriptors: Vec<&dyn Aml>) -> Name {
    Name::new("_CRS".into(), &ResourceTemplate::new(descriptors))
}

/// Bytes that already are AML.
struct Raw<'a>(&'a [u8]);

impl Aml for Raw<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(self.0);
    }
}

fn to_bytes(aml: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    aml.to_aml_bytes(&mut bytes);
    bytes
}

/// The function of `_DSM` that says that the operating system keeps the addresses it finds in BARs
/// (PCI Firmware Specification 3.3 §4.6.5).
const PRESERVE_BOOT_CONFIGURATION: u8 = 5;

/// The PCI Express host bridge. Devices have message-signalled interrupts only, so there is no `_PRT`.
fn add_pci(setup: &AcpiSetup<'_>, bytes: &mut Vec<u8>) {
    let buses = AddressSpace::new_bus_number(0u16, u16::from(LAST_PCI_BUS));
    let ports = IO::new(PCI_CONFIG_ADDRESS_PORT, PCI_CONFIG_ADDRESS_PORT, 1, 8);
    let low = AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        MMIO32_START as u32,
        (MMIO32_END - 1) as u32,
        None,
    );
    let high = setup.mmio64.as_ref().map(|range| {
        AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, range.start, range.end - 1, None)
    });
    let mut windows: Vec<&dyn Aml> = vec![&buses, &ports, &low];
    windows.extend(high.as_ref().map(|high| high as &dyn Aml));

    // The guest may control all it asks for: nothing else in the machine does.
    let control = to_bytes(&Method::new("_OSC".into(), 4, false, vec![&Return::new(&Arg(3))]));
    let functions = BufferData::new(vec![1 | 1 << PRESERVE_BOOT_CONFIGURATION]);
    let dsm = to_bytes(&Method::new(
        "_DSM".into(),
        4,
        false,
        vec![
            &If::new(
                &Equal::new(&Arg(0), &Uuid::new("E5C937D0-3553-4D7A-9117-EA4D19C3434D")),
                vec![
                    &If::new(&Equal::new(&Arg(2), &ZERO), vec![&Return::new(&functions)]),
                    // Zero: it must.
                    &If::new(&Equal::new(&Arg(2), &PRESERVE_BOOT_CONFIGURATION), vec![&Return::new(&ZERO)]),
                ],
            ),
            &Return::new(&BufferData::new(vec![0])),
        ],
    ));
    add(
        &Device::new(
            "PCI0".into(),
            vec![
                &hid("PNP0A08"),
                &Name::new("_CID".into(), &EISAName::new("PNP0A03")),
                &Name::new("_UID".into(), &ZERO),
                &Name::new("_SEG".into(), &ZERO),
                &Name::new("_BBN".into(), &ZERO),
                &resources(windows),
                &Raw(&control),
                &Raw(&dsm),
            ],
        ),
        bytes,
    );
}

/// What is taken though no device claims it: the configuration space, which Linux wants to find here.
fn add_reserved(bytes: &mut Vec<u8>) {
    let ecam = Memory32Fixed::new(true, ECAM_START as u32, ECAM_SIZE as u32);
    let power = IO::new(POWER_PORT, POWER_PORT, 1, POWER_PORTS as u8);
    add(
        &Device::new(
            "RESV".into(),
            vec![&hid("PNP0C02"), &Name::new("_UID".into(), &ZERO), &resources(vec![&ecam, &power])],
        ),
        bytes,
    );
}

/// The power button, and the generic event device that says when it was pressed (ACPI 6.5 §5.6.9).
fn add_power_button(bytes: &mut Vec<u8>) {
    add(&Device::new("PWRB".into(), vec![&hid("PNP0C0C"), &Name::new("_UID".into(), &ZERO)]), bytes);
    let interrupt = Interrupt::new(true, true, false, false, GED_GSI);
    let port = POWER_PORT + EVENTS as u16;
    add(
        &Device::new(
            "GED_".into(),
            vec![
                &Name::new("_HID".into(), &"ACPI0013"),
                &Name::new("_UID".into(), &ZERO),
                &resources(vec![&interrupt]),
                &OpRegion::new("EVTR".into(), OpRegionSpace::SystemIO, &port, &ONE),
                &Field::new(
                    "EVTR".into(),
                    FieldAccessType::Byte,
                    FieldLockRule::NoLock,
                    FieldUpdateRule::WriteAsZeroes,
                    vec![FieldEntry::Named(*b"EVNT", 8)],
                ),
                &Method::new(
                    "_EVT".into(),
                    1,
                    true,
                    vec![
                        // Reading takes the events away, so read once.
                        &Store::new(&Local(0), &Path::new("EVNT")),
                        &And::new(&Local(1), &Local(0), &POWER_BUTTON),
                        &If::new(
                            &Equal::new(&Local(1), &POWER_BUTTON),
                            vec![&Notify::new(&Path::new("PWRB"), &0x80u8)],
                        ),
                    ],
                ),
            ],
        ),
        bytes,
    );
}

fn add_serial(bytes: &mut Vec<u8>) {
    let interrupt = Interrupt::new(true, true, false, false, COM1_GSI);
    let ports = IO::new(COM1_PORT, COM1_PORT, 1, COM1_PORTS as u8);
    add(
        &Device::new(
            "COM1".into(),
            vec![&hid("PNP0501"), &Name::new("_UID".into(), &ZERO), &resources(vec![&ports, &interrupt])],
        ),
        bytes,
    );
}

/// Without an interrupt: the clock has no alarms.
fn add_rtc(bytes: &mut Vec<u8>) {
    let ports = IO::new(RTC_PORT, RTC_PORT, 1, RTC_PORTS as u8);
    add(&Device::new("RTC_".into(), vec![&hid("PNP0B00"), &resources(vec![&ports])]), bytes);
}

fn add_pvpanic(bytes: &mut Vec<u8>) {
    let ports = IO::new(PVPANIC_PORT, PVPANIC_PORT, 1, 1);
    add(
        &Device::new("PEVT".into(), vec![&Name::new("_HID".into(), &"QEMU0001"), &resources(vec![&ports])]),
        bytes,
    );
}
