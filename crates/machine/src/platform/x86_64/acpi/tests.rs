use std::process::Command;

use vm_memory::GuestAddress;

use super::*;
use crate::platform::x86_64::layout::{GIB, MMIO32_START, ram_ranges};

fn setup(nodes: &[Node]) -> AcpiSetup<'_> {
    AcpiSetup {
        topology: Topology::new(2, 3, 1).unwrap(),
        mmio64: Some(64 * GIB..128 * GIB),
        serial: true,
        rtc: true,
        pvpanic: true,
        nodes,
    }
}

fn two_nodes() -> Vec<Node> {
    vec![
        Node { cpus: vec![0, 1, 2], memory: ram_ranges(GIB), distances: vec![10, 21] },
        Node { cpus: vec![3, 4, 5], memory: vec![GIB..3 * GIB, 4 * GIB..5 * GIB], distances: vec![21, 10] },
    ]
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Walks from the root pointer as a kernel does: every table, its signature first.
fn walk(bytes: &[u8]) -> Vec<&[u8]> {
    let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    let table = |address: u64| {
        let start = (address - RSDP) as usize;
        assert_eq!(start % 16, 0);
        let table = &bytes[start..start + u32_at(bytes, start + 4) as usize];
        assert_eq!(sum(table), 0, "{}", String::from_utf8_lossy(&table[..4]));
        table
    };
    assert_eq!(&bytes[..8], b"RSD PTR ");
    assert_eq!((sum(&bytes[..20]), sum(&bytes[..36])), (0, 0));
    let xsdt = table(u64_at(bytes, 24));
    let mut tables: Vec<_> = xsdt[36..].chunks(8).map(|entry| table(u64_at(entry, 0))).collect();
    assert_eq!(&tables[0][..4], b"FACP");
    tables.push(table(u64_at(tables[0], 140)));
    tables
}

fn find<'a>(tables: &[&'a [u8]], signature: &[u8; 4]) -> Option<&'a [u8]> {
    tables.iter().copied().find(|table| table.starts_with(signature))
}

#[test]
fn a_kernel_finds_every_table() {
    let bytes = tables(&setup(&[]));
    let tables = walk(&bytes);
    for signature in [b"FACP", b"APIC", b"MCFG", b"DSDT"] {
        assert!(find(&tables, signature).is_some(), "{}", String::from_utf8_lossy(signature));
    }
    assert!(find(&tables, b"SRAT").is_none() && find(&tables, b"SLIT").is_none());
    let mcfg = find(&tables, b"MCFG").unwrap();
    assert_eq!((u64_at(mcfg, 44), &mcfg[52..56]), (ECAM_START, [0, 0, 0, 0].as_slice()));
}

#[test]
fn hardware_is_reduced_and_switches_off() {
    let bytes = tables(&setup(&[]));
    let tables = walk(&bytes);
    let fadt = find(&tables, b"FACP").unwrap();
    assert_eq!(u32_at(fadt, 112) >> 20 & 1, 1, "HW_REDUCED_ACPI");
    assert_eq!(u32_at(fadt, 112) >> 10 & 1, 1, "RESET_REG_SUP");
    assert_eq!(fadt[109] & 1 << 1, 0, "no keyboard controller");
    let registers = [(116, RESET), (244, SLEEP_CONTROL), (256, SLEEP_STATUS)];
    for (at, offset) in registers {
        assert_eq!(&fadt[at..at + 4], [1, 8, 0, 1], "a byte in I/O space");
        assert_eq!(u64_at(fadt, at + 4), u64::from(POWER_PORT) + offset);
    }
    assert_eq!(fadt[128], RESET_VALUE);
}

#[test]
fn every_processor_is_in_the_madt() {
    let bytes = tables(&setup(&[]));
    let tables = walk(&bytes);
    let madt = find(&tables, b"APIC").unwrap();
    assert_eq!(u32_at(madt, 36), LOCAL_APIC as u32);
    let ids: Vec<_> = madt[44..44 + 6 * 8].chunks(8).map(|entry| (entry[0], entry[2], entry[3])).collect();
    assert_eq!(ids, [(0, 0, 0), (0, 1, 1), (0, 2, 2), (0, 3, 4), (0, 4, 5), (0, 5, 6)]);
    assert_eq!(madt[92..94], [1, 12]);
    assert_eq!(u32_at(madt, 96), IOAPIC as u32);
}

#[test]
fn nodes_have_memory_processors_and_distances() {
    let nodes = two_nodes();
    let bytes = tables(&setup(&nodes));
    let tables = walk(&bytes);
    let slit = find(&tables, b"SLIT").unwrap();
    assert_eq!((u64_at(slit, 36), &slit[44..]), (2, [10, 21, 21, 10].as_slice()));
    let mut srat = &find(&tables, b"SRAT").unwrap()[48..];
    let (mut memory, mut cpus) = (Vec::new(), Vec::new());
    while let [kind, length, ..] = *srat {
        match kind {
            1 => memory.push((u32_at(srat, 2), u64_at(srat, 8), u64_at(srat, 16), u32_at(srat, 28))),
            2 => cpus.push((u32_at(srat, 4), u32_at(srat, 8), u32_at(srat, 12))),
            other => assert!([1, 2].contains(&other)),
        }
        srat = &srat[usize::from(length)..];
    }
    assert_eq!(memory, [(0, 0, GIB, 1), (1, GIB, 2 * GIB, 1), (1, 4 * GIB, GIB, 1)]);
    assert_eq!(cpus, [(0, 0, 1), (0, 1, 1), (0, 2, 1), (1, 4, 1), (1, 5, 1), (1, 6, 1)]);
}

#[test]
fn the_largest_machine_fits() {
    let topology = Topology::new(1, 255, 1).unwrap();
    let node = Node { cpus: (0..255).collect(), memory: ram_ranges(GIB), distances: vec![10] };
    let nodes = [node];
    let setup = AcpiSetup { topology, ..setup(&nodes) };
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 21)]).unwrap();
    write(&setup, &memory).unwrap();
    let signature: [u8; 8] = memory.read_obj(GuestAddress(RSDP)).unwrap();
    assert_eq!(&signature, b"RSD PTR ");
    assert!(tables(&setup).len() as u64 * 5 < RESET_VECTOR - RSDP);
}

/// Compiles what was taken apart, with ACPICA's own tools where they are installed.
#[test]
fn acpica_reads_the_namespace() {
    if Command::new("iasl").arg("-v").output().is_err() {
        eprintln!("skipped: iasl (Debian: acpica-tools) is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let nodes = two_nodes();
    let bytes = tables(&setup(&nodes));
    for table in walk(&bytes) {
        let name = String::from_utf8(table[..4].to_vec()).unwrap();
        std::fs::write(directory.path().join(format!("{name}.aml")), table).unwrap();
        let iasl = |arguments: &[&str]| {
            let output = Command::new("iasl").args(arguments).current_dir(&directory).output().unwrap();
            let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(output.status.success(), "{name}: {text}");
            text
        };
        iasl(&["-d", &format!("{name}.aml")]);
        let text = iasl(&["-p", "again", &format!("{name}.dsl")]);
        assert!(text.contains(" 0 Errors, 0 Warnings") || !text.contains("Warning"), "{name}: {text}");
    }
    let source = std::fs::read_to_string(directory.path().join("DSDT.dsl")).unwrap();
    for object in
        ["_S5", "PCI0", "_CRS", "_OSC", "_DSM", "COM1", "RTC", "PEVT", "QEMU0001", "PWRB", "ACPI0013"]
    {
        assert!(source.contains(object), "{object}");
    }
    assert!(source.contains(&format!("0x{MMIO32_START:08X}")), "the window for BARs");
}
