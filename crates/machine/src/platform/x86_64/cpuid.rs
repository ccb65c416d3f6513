//! What CPUID tells the guest: KVM's supported table, made to say this machine's topology and clock.
//!
//! Leaf numbers and bits are those of the Intel SDM vol. 2A (CPUID), the AMD APM vol. 3 appendix E,
//! and the kernel's Documentation/virt/kvm/x86/cpuid.rst.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use super::topology::Topology;

/// What a CPUID table is made of, apart from KVM's own.
#[derive(Debug, Clone, Copy)]
pub struct CpuidSetup {
    /// The processors.
    pub topology: Topology,
    /// Frequency of the guest's time-stamp counter in kHz (KVM_GET_TSC_KHZ), if known.
    pub tsc_khz: Option<u32>,
    /// KVM has KVM_CAP_TSC_DEADLINE_TIMER. With it the guest has no local APIC timer to calibrate.
    pub tsc_deadline: bool,
    /// Let the guest see performance counters. Probing them costs a guest time at boot.
    pub pmu: bool,
}

/// The CPUID table of all processors of a machine; they differ in their APIC identifiers only.
#[derive(Debug, Clone)]
pub struct Cpuid {
    entries: Vec<kvm_cpuid_entry2>,
    topology: Topology,
}

/// The frequency that KVM's local APIC timer counts at.
const APIC_BUS_HZ: u32 = 1_000_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Vendor {
    Intel,
    Amd,
    Other,
}

impl Cpuid {
    /// Makes the table from what KVM supports (KVM_GET_SUPPORTED_CPUID).
    #[must_use]
    pub fn new(supported: &[kvm_cpuid_entry2], setup: &CpuidSetup) -> Self {
        let vendor = vendor(supported);
        let mut cpuid = Self { entries: Vec::with_capacity(supported.len() + 8), topology: setup.topology };
        cpuid.entries.extend_from_slice(supported);
        cpuid.set_features(vendor, setup);
        cpuid.set_caches();
        cpuid.set_extended_topology(vendor);
        if vendor == Vendor::Amd {
            cpuid.set_amd_topology();
        }
        if let Some(khz) = setup.tsc_khz {
            cpuid.set_frequencies(vendor, khz);
        }
        cpuid
    }

    /// The table of processor `index` (from 0), for KVM_SET_CPUID2.
    #[must_use]
    pub fn of(&self, index: u32) -> Vec<kvm_cpuid_entry2> {
        let id = self.topology.apic_id(index);
        let mut entries = self.entries.clone();
        for entry in &mut entries {
            match entry.function {
                // EBX[31:24]: initial APIC identifier.
                1 => entry.ebx = entry.ebx & 0x00FF_FFFF | id << 24,
                0xB | 0x1F => entry.edx = id,
                0x8000_001E => {
                    entry.eax = id;
                    // EBX[7:0]: core within the socket.
                    let core = index / self.topology.threads() % self.topology.cores();
                    entry.ebx = entry.ebx & !0xFF | core & 0xFF;
                    // ECX[7:0]: node, which is the socket here; ECX[10:8] (nodes in a socket, less 1) is 0.
                    entry.ecx = index / self.topology.cpus_per_socket();
                }
                _ => {}
            }
        }
        entries
    }

    /// How many bits of physical address the guest may use (leaf 0x8000_0008; 36 without it).
    #[must_use]
    pub fn physical_bits(&self) -> u8 {
        let leaf = self.entries.iter().find(|entry| entry.function == 0x8000_0008);
        leaf.map_or(36, |leaf| leaf.eax.to_le_bytes()[0])
    }

    fn set_features(&mut self, vendor: Vendor, setup: &CpuidSetup) {
        let (cpus, threads) = (self.topology.cpus_per_socket(), self.topology.threads());
        let id_bits = self.topology.socket_shift();
        let leaf = self.leaf(1, 0);
        // EBX[23:16]: identifiers in a socket.
        leaf.ebx = leaf.ebx & 0xFF00_FFFF | (1u32 << id_bits).min(255) << 16;
        // MONITOR off: waiting in the guest would keep the host's processor.
        leaf.ecx &= !(1 << 3);
        set_bit(&mut leaf.ecx, 24, setup.tsc_deadline);
        set_bit(&mut leaf.ecx, 31, true); // A hypervisor is here.
        set_bit(&mut leaf.edx, 28, cpus > 1);
        self.remove(5); // MONITOR/MWAIT parameters.
        if !setup.pmu {
            self.remove(0xA);
            self.remove(0x8000_0022);
            if let Some(leaf) = self.find(0x8000_0001, 0) {
                leaf.ecx &= !(1 << 23); // PerfCtrExtCore.
            }
        }
        if let Some(leaf) = self.find(0x8000_0001, 0) {
            set_bit(&mut leaf.ecx, 1, vendor == Vendor::Amd && cpus > 1); // CmpLegacy.
            leaf.ecx |= u32::from(vendor == Vendor::Amd && threads > 1) << 22; // TopologyExtensions.
        }
    }

    /// Says which processors share a cache: the first two levels belong to a core, the third to a socket.
    fn set_caches(&mut self) {
        let core_ids = 1 << self.topology.core_shift();
        let socket_ids = 1 << self.topology.socket_shift();
        let cores = (self.topology.socket_shift() - self.topology.core_shift()).min(6);
        for entry in &mut self.entries {
            if !matches!(entry.function, 4 | 0x8000_001D) || entry.eax & 0x1F == 0 {
                continue;
            }
            let sharing: u32 = if entry.eax >> 5 & 7 >= 3 { socket_ids } else { core_ids };
            // EAX[25:14]: identifiers that share this cache, less 1.
            entry.eax = entry.eax & !(0xFFF << 14) | (sharing - 1) << 14;
            if entry.function == 4 {
                // EAX[31:26]: core identifiers in a socket, less 1.
                entry.eax = entry.eax & 0x03FF_FFFF | ((1u32 << cores) - 1) << 26;
            }
        }
    }

    /// Leaves 0xB and 0x1F: the widths of the fields of an APIC identifier.
    fn set_extended_topology(&mut self, vendor: Vendor) {
        self.raise_limit(0, 0xB);
        let limit = self.leaf(0, 0).eax;
        let has_v2 = vendor == Vendor::Intel && limit >= 0x1F;
        let topology = self.topology;
        let levels = [
            (topology.core_shift(), topology.threads(), 1 << 8),
            (topology.socket_shift(), topology.cpus_per_socket(), 2 << 8 | 1),
            (0, 0, 2),
        ];
        self.remove(0xB);
        self.remove(0x1F);
        for function in [0xB].into_iter().chain(has_v2.then_some(0x1F)) {
            for (index, (shift, count, level)) in (0..).zip(levels) {
                self.entries.push(kvm_cpuid_entry2 {
                    function,
                    index,
                    flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                    eax: shift,
                    ebx: count,
                    ecx: level,
                    ..Default::default()
                });
            }
        }
    }

    /// Leaves 0x8000_0008 and 0x8000_001E, which Linux asks first on AMD.
    fn set_amd_topology(&mut self) {
        let topology = self.topology;
        let leaf = self.leaf(0x8000_0008, 0);
        // ECX[15:12]: width of the identifier within a socket; ECX[7:0]: threads in a socket, less 1.
        leaf.ecx = topology.socket_shift() << 12 | (topology.cpus_per_socket() - 1);
        self.remove(0x8000_0026);
        if self.leaf(0x8000_0001, 0).ecx >> 22 & 1 == 1 {
            self.raise_limit(0x8000_0000, 0x8000_001E);
            // EBX[15:8]: threads in a core, less 1.
            self.leaf(0x8000_001E, 0).ebx = (topology.threads() - 1) << 8;
        }
    }

    /// Tells the clocks' frequencies, so that no guest measures them.
    fn set_frequencies(&mut self, vendor: Vendor, tsc_khz: u32) {
        if vendor == Vendor::Intel {
            // TSC = crystal * EBX / EAX; the crystal is KVM's APIC bus, so both clocks come out exact.
            self.raise_limit(0, 0x15);
            let leaf = self.leaf(0x15, 0);
            (leaf.eax, leaf.ebx, leaf.ecx) = (APIC_BUS_HZ / 1000, tsc_khz, APIC_BUS_HZ);
        }
        // The convention of other hypervisors, which FreeBSD and macOS read under KVM too.
        if self.find(0x4000_0000, 0).is_some() {
            self.raise_limit(0x4000_0000, 0x4000_0010);
            let leaf = self.leaf(0x4000_0010, 0);
            (leaf.eax, leaf.ebx) = (tsc_khz, APIC_BUS_HZ / 1000);
        }
    }

    /// Makes `base` (0, 0x4000_0000 or 0x8000_0000) say that leaves up to `limit` exist.
    fn raise_limit(&mut self, base: u32, limit: u32) {
        let leaf = self.leaf(base, 0);
        leaf.eax = leaf.eax.max(limit);
    }

    fn find(&mut self, function: u32, index: u32) -> Option<&mut kvm_cpuid_entry2> {
        self.entries.iter_mut().find(|entry| entry.function == function && entry.index == index)
    }

    /// The entry of a leaf, made if there is none.
    fn leaf(&mut self, function: u32, index: u32) -> &mut kvm_cpuid_entry2 {
        let found = self.entries.iter().position(|entry| entry.function == function && entry.index == index);
        let position = found.unwrap_or_else(|| {
            self.entries.push(kvm_cpuid_entry2 { function, index, ..Default::default() });
            self.entries.len() - 1
        });
        &mut self.entries[position]
    }

    fn remove(&mut self, function: u32) {
        self.entries.retain(|entry| entry.function != function);
    }
}

fn vendor(entries: &[kvm_cpuid_entry2]) -> Vendor {
    let Some(leaf) = entries.iter().find(|entry| entry.function == 0) else { return Vendor::Other };
    let mut name = [0; 12];
    for (bytes, register) in name.chunks_exact_mut(4).zip([leaf.ebx, leaf.edx, leaf.ecx]) {
        bytes.copy_from_slice(&register.to_le_bytes());
    }
    match &name {
        b"GenuineIntel" => Vendor::Intel,
        b"AuthenticAMD" | b"HygonGenuine" => Vendor::Amd,
        _ => Vendor::Other,
    }
}

fn set_bit(register: &mut u32, bit: u32, on: bool) {
    *register = *register & !(1 << bit) | u32::from(on) << bit;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
        let [eax, ebx, ecx, edx] = registers;
        kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..Default::default() }
    }

    fn name(text: &[u8; 12]) -> [u32; 3] {
        [0, 4, 8].map(|at| u32::from_le_bytes(text[at..at + 4].try_into().unwrap()))
    }

    /// What KVM reports on a large Intel host: 14 cores with two threads each.
    fn intel() -> Vec<kvm_cpuid_entry2> {
        let [ebx, edx, ecx] = name(b"GenuineIntel");
        vec![
            entry(0, 0, [0x1F, ebx, ecx, edx]),
            entry(1, 0, [0x806F8, 0x0740_0800, 0x76FA_3223 | 1 << 3, 0x0F8B_FBFF]),
            entry(4, 0, [0xFC00_4121, 0x02C0_003F, 63, 0]),
            entry(4, 1, [0xFC00_4122, 0x01C0_003F, 63, 0]),
            entry(4, 2, [0xFC00_4143, 0x03C0_003F, 2047, 0]),
            entry(4, 3, [0xFC1F_C163, 0x03C0_003F, 0x1BFFF, 4]),
            entry(4, 4, [0, 0, 0, 0]),
            entry(5, 0, [0x40, 0x40, 3, 0x20]),
            entry(0xA, 0, [0x0730_0802, 0, 0, 0x603]),
            entry(0xB, 0, [1, 2, 0x100, 7]),
            entry(0xB, 1, [7, 28, 0x201, 7]),
            entry(0x1F, 0, [1, 2, 0x100, 7]),
            entry(0x4000_0000, 0, [0x4000_0001, 0x4B4D_564B, 0x564B_4D56, 0x4D]),
            entry(0x4000_0001, 0, [0x0100_7EFB, 0, 0, 0]),
            entry(0x8000_0000, 0, [0x8000_0008, 0, 0, 0]),
            entry(0x8000_0001, 0, [0, 0, 0x121, 0x2C10_0800]),
            entry(0x8000_0008, 0, [0x3934, 0, 0, 0]),
        ]
    }

    /// What KVM reports on an AMD host.
    fn amd() -> Vec<kvm_cpuid_entry2> {
        let [ebx, edx, ecx] = name(b"AuthenticAMD");
        vec![
            entry(0, 0, [0xD, ebx, ecx, edx]),
            entry(1, 0, [0x0080_0F12, 0x0010_0800, 0x7ED8_320B, 0x178B_FBFF]),
            entry(0x4000_0000, 0, [0x4000_0001, 0x4B4D_564B, 0x564B_4D56, 0x4D]),
            entry(0x4000_0001, 0, [0x0100_7EFB, 0, 0, 0]),
            entry(0x8000_0000, 0, [0x8000_001F, ebx, ecx, edx]),
            entry(0x8000_0001, 0, [0x0080_0F12, 0, 0x0040_03F3 | 1 << 23, 0x2FD3_FBFF]),
            entry(0x8000_0008, 0, [0x3028, 0, 0x7007, 0]),
            entry(0x8000_001D, 0, [0x4121, 0x01C0_003F, 63, 0]),
            entry(0x8000_001D, 3, [0x1C163, 0x03C0_003F, 0x1FFF, 0]),
            entry(0x8000_001E, 0, [5, 0x102, 0, 0]),
        ]
    }

    fn setup(sockets: u32, cores: u32, threads: u32) -> CpuidSetup {
        let topology = Topology::new(sockets, cores, threads).unwrap();
        CpuidSetup { topology, tsc_khz: Some(2_100_000), tsc_deadline: true, pmu: false }
    }

    fn leaf(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        *entries.iter().find(|entry| entry.function == function && entry.index == index).unwrap()
    }

    /// Reads leaves 0xB as an operating system does: the socket, core and thread of a processor.
    fn decode(entries: &[kvm_cpuid_entry2], function: u32) -> (u32, u32, u32) {
        let (smt, core) = (leaf(entries, function, 0), leaf(entries, function, 1));
        assert_eq!([smt.ecx >> 8 & 0xFF, core.ecx >> 8 & 0xFF], [1, 2], "level types");
        let id = smt.edx;
        (id >> core.eax, id >> smt.eax & ((1 << (core.eax - smt.eax)) - 1), id & ((1 << smt.eax) - 1))
    }

    #[test]
    fn every_processor_finds_its_place() {
        for (supported, amd) in [(intel(), false), (amd(), true)] {
            for (sockets, cores, threads) in
                [(1, 1, 1), (1, 2, 1), (2, 2, 2), (4, 4, 2), (1, 32, 1), (1, 3, 1), (2, 3, 2), (3, 1, 3)]
            {
                let setup = setup(sockets, cores, threads);
                let cpuid = Cpuid::new(&supported, &setup);
                for index in 0..setup.topology.cpus() {
                    let entries = cpuid.of(index);
                    let thread = index % threads;
                    let core = index / threads % cores;
                    let socket = index / threads / cores;
                    assert_eq!(decode(&entries, 0xB), (socket, core, thread));
                    assert_eq!(leaf(&entries, 1, 0).ebx >> 24, setup.topology.apic_id(index));
                    if amd {
                        let node = leaf(&entries, 0x8000_001E, 0);
                        assert_eq!(node.eax, setup.topology.apic_id(index));
                        assert_eq!(node.ebx, (threads - 1) << 8 | core);
                        assert_eq!(node.ecx, socket);
                        let sizes = leaf(&entries, 0x8000_0008, 0).ecx;
                        assert_eq!(sizes & 0xFF, cores * threads - 1);
                        assert_eq!(leaf(&entries, 0, 0).eax, 0xD, "a limit is only ever raised");
                    } else {
                        assert_eq!(decode(&entries, 0x1F), (socket, core, thread));
                    }
                }
            }
        }
    }

    #[test]
    fn counts_are_those_of_the_machine_not_of_the_host() {
        let entries = Cpuid::new(&intel(), &setup(1, 1, 1)).of(0);
        assert_eq!(leaf(&entries, 1, 0).edx >> 28 & 1, 0, "no HTT with one processor");
        assert_eq!(leaf(&entries, 1, 0).ebx >> 16 & 0xFF, 1);
        assert_eq!(leaf(&entries, 4, 3).eax >> 14, 0);

        let entries = Cpuid::new(&intel(), &setup(1, 3, 2)).of(0);
        assert_eq!(leaf(&entries, 1, 0).edx >> 28 & 1, 1);
        assert_eq!(leaf(&entries, 1, 0).ebx >> 16 & 0xFF, 8, "identifiers, rounded up");
        assert_eq!(leaf(&entries, 0xB, 1).ebx, 6, "processors, not rounded");
        assert_eq!(leaf(&entries, 4, 0).eax >> 14 & 0xFFF, 1, "first level: a core");
        assert_eq!(leaf(&entries, 4, 3).eax >> 14 & 0xFFF, 7, "third level: a socket");
        assert_eq!(leaf(&entries, 4, 0).eax >> 26, 3);
        assert_eq!(leaf(&entries, 4, 4).eax, 0, "the end of the list stays the end");
    }

    #[test]
    fn a_guest_is_told_what_it_would_measure() {
        let entries = Cpuid::new(&intel(), &setup(1, 2, 1)).of(1);
        let ratio = leaf(&entries, 0x15, 0);
        assert_eq!(u64::from(ratio.ecx) * u64::from(ratio.ebx) / u64::from(ratio.eax), 2_100_000_000);
        for supported in [intel(), amd()] {
            let entries = Cpuid::new(&supported, &setup(1, 2, 1)).of(1);
            assert_eq!(leaf(&entries, 0x4000_0000, 0).eax, 0x4000_0010);
            assert_eq!(leaf(&entries, 0x4000_0010, 0).eax, 2_100_000);
            assert_eq!(leaf(&entries, 0x4000_0001, 0).eax, 0x0100_7EFB, "KVM's features stay");
            assert_eq!(leaf(&entries, 1, 0).ecx >> 24 & 1, 1, "TSC deadline");
            assert_eq!(leaf(&entries, 1, 0).ecx >> 31 & 1, 1, "hypervisor");
        }
        assert!(!Cpuid::new(&amd(), &setup(1, 1, 1)).of(0).iter().any(|entry| entry.function == 0x15));
    }

    #[test]
    fn what_costs_probes_is_hidden() {
        let hidden = Cpuid::new(&intel(), &setup(1, 2, 1)).of(0);
        assert!(!hidden.iter().any(|entry| matches!(entry.function, 5 | 0xA)));
        assert_eq!(leaf(&hidden, 1, 0).ecx >> 3 & 1, 0, "MONITOR");
        let shown = Cpuid::new(&intel(), &CpuidSetup { pmu: true, ..setup(1, 2, 1) }).of(0);
        assert_eq!(leaf(&shown, 0xA, 0).eax, 0x0730_0802);
        let hidden = Cpuid::new(&amd(), &setup(1, 2, 1)).of(0);
        assert_eq!(leaf(&hidden, 0x8000_0001, 0).ecx >> 23 & 1, 0);
    }

    #[test]
    fn physical_bits_are_the_hosts() {
        assert_eq!(Cpuid::new(&intel(), &setup(1, 1, 1)).physical_bits(), 0x34);
        assert_eq!(Cpuid::new(&amd(), &setup(1, 1, 1)).physical_bits(), 0x28);
    }

    #[test]
    fn a_table_without_anything_gets_what_it_needs() {
        let entries = Cpuid::new(&[], &setup(1, 2, 1)).of(1);
        assert_eq!(decode(&entries, 0xB), (0, 1, 0));
        assert!(!entries.iter().any(|entry| entry.function >= 0x4000_0000));
    }
}
