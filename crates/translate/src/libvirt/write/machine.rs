//! The machine as a whole.

use std::collections::BTreeMap;

use super::super::read::SMBIOS;
use super::super::units;
use super::super::xml::Element;
use super::Domain;

/// What a machine is that does not say.
const NAME: &str = "parador";
const MEMORY: u64 = 256 << 20;

/// Adds all but the devices.
pub(super) fn write(domain: &mut Domain<'_>, root: &mut Element) {
    let name = domain.value("name").unwrap_or(NAME);
    root.children.push(Element::new("name").saying(name));
    line(domain, root, "uuid", "uuid");
    write_memory(domain, root);
    write_cpus(domain, root);
    write_smbios(domain, root);
    write_os(domain, root);
    write_features(domain, root);
    if let Some(local) = domain.global_switch("rtc.use_localtime") {
        root.children.push(Element::new("clock").with("offset", if local { "localtime" } else { "utc" }));
    }
    match domain.value("on_reset") {
        Some("stop") => root.children.push(Element::new("on_reboot").saying("destroy")),
        Some("reboot") => root.children.push(Element::new("on_reboot").saying("restart")),
        _ => {}
    }
    match domain.value("on_panic") {
        Some("stop") => root.children.push(Element::new("on_crash").saying("destroy")),
        Some(_) => domain.keys.lose("on_panic", "a guest that panics is always ended"),
        None => {}
    }
}

/// Adds a child with the value of `key` as its text, if that is set.
fn line(domain: &mut Domain<'_>, parent: &mut Element, name: &str, key: &str) {
    if let Some(value) = domain.value(key) {
        parent.children.push(Element::new(name).saying(value));
    }
}

fn memory_element(name: &str, bytes: u64) -> Element {
    let (amount, unit) = units::amount(bytes);
    Element::new(name).with("unit", unit).saying(amount)
}

/// The bytes of a key of memory, taken, or lost because it is none.
fn memory(domain: &mut Domain<'_>, key: &str) -> Option<u64> {
    let value = domain.value(key)?;
    let bytes = units::memory(value);
    if bytes.is_none() {
        domain.keys.lose(key, "it is no size");
    }
    bytes
}

fn write_memory(domain: &mut Domain<'_>, root: &mut Element) {
    if let Some(most) = memory(domain, "memory.max") {
        root.children.push(memory_element("maxMemory", most));
    }
    let size = memory(domain, "memory.size").unwrap_or(MEMORY);
    let mut element = memory_element("memory", size);
    if let Some(dumped) = domain.global_switch("memory.guest_in_core") {
        element.set("dumpCore", if dumped { "on" } else { "off" });
    }
    root.children.push(element);
    let mut backing = Element::new("memoryBacking");
    let kind = domain.value("memory.backing");
    let shared = domain.global_switch("memory.shared");
    if kind == Some("hugetlb") {
        let mut pages = Element::new("hugepages");
        if let Some(size) = domain.value("memory.page_size") {
            match units::value(size) {
                Some(bytes) => {
                    let (amount, unit) = units::amount(bytes);
                    pages.children.push(Element::new("page").with("size", amount).with("unit", unit));
                }
                None => domain.keys.lose("memory.page_size", "it is no size"),
            }
        }
        backing.children.push(pages);
    } else {
        domain.keys.lose("memory.page_size", "only memory on huge pages has their size");
    }
    let source = match kind {
        Some("memfd") => Some("memfd"),
        Some("hugetlb") if shared == Some(true) => Some("memfd"),
        Some("anon") => Some("anonymous"),
        Some("file") => Some("file"),
        _ => None,
    };
    if domain.global_switch("memory.wired") == Some(true) {
        backing.children.push(Element::new("locked"));
    }
    if let Some(source) = source {
        backing.children.push(Element::new("source").with("type", source));
    }
    if let Some(shared) = shared {
        backing.children.push(Element::new("access").with("mode", if shared { "shared" } else { "private" }));
    }
    if let Some(now) = domain.global_switch("memory.prefault") {
        backing
            .children
            .push(Element::new("allocation").with("mode", if now { "immediate" } else { "ondemand" }));
    }
    if !backing.children.is_empty() {
        root.children.push(backing);
    }
}

fn write_cpus(domain: &mut Domain<'_>, root: &mut Element) {
    let mut number = |key: &str| {
        let value = domain.value(key)?;
        let number = units::any_number(value).filter(|number| *number > 0);
        if number.is_none() {
            domain.keys.lose(key, "it is no number of processors");
        }
        number
    };
    let [cpus, sockets, cores, threads] = ["cpus", "sockets", "cores", "threads"].map(&mut number);
    let has_topology = sockets.or(cores).or(threads).is_some();
    let (cores, threads) = (cores.unwrap_or(1), threads.unwrap_or(1));
    let in_socket = cores.saturating_mul(threads);
    let sockets = sockets.or(cpus.map(|cpus| cpus / in_socket)).unwrap_or(1).max(1);
    let cpus = cpus.unwrap_or(if has_topology { sockets.saturating_mul(in_socket) } else { 1 });
    root.children.push(Element::new("vcpu").saying(cpus.to_string()));

    let mut cputune = Element::new("cputune");
    let mut domains: BTreeMap<&str, ()> = BTreeMap::new();
    for (key, _) in domain.tree.in_order() {
        let mut parts = key.split('.');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("vcpu"), Some(vcpu), Some("cpuset")) if units::number(vcpu).is_some() => {
                if let Some(cpuset) = domain.value(key) {
                    cputune.children.push(Element::new("vcpupin").with("vcpu", vcpu).with("cpuset", cpuset));
                }
            }
            (Some("domains"), Some(id), _) if units::number(id).is_some() => {
                domains.insert(id, ());
            }
            _ => {}
        }
    }
    if !cputune.children.is_empty() {
        root.children.push(cputune);
    }
    let mut cpu = Element::new("cpu");
    match domain.value("cpu.model") {
        None | Some("host") => {}
        Some(model) => {
            cpu.set("mode", "custom");
            cpu.set("match", "exact");
            cpu.children.push(Element::new("model").with("fallback", "allow").saying(model));
        }
    }
    if has_topology {
        let topology = Element::new("topology")
            .with("sockets", sockets.to_string())
            .with("cores", cores.to_string())
            .with("threads", threads.to_string());
        cpu.children.push(topology);
    }
    write_cpu_features(domain, &mut cpu);
    write_numa(domain, &mut cpu, domains.into_keys());
    root.children.push(cpu);
}

fn write_cpu_features(domain: &mut Domain<'_>, cpu: &mut Element) {
    let Some(list) = domain.value("cpu.features") else { return };
    let mut features = Vec::new();
    for feature in list.split(',') {
        let (policy, name) = match (feature.strip_prefix('+'), feature.strip_prefix('-')) {
            (Some(name), _) => ("require", name),
            (_, Some(name)) => ("disable", name),
            _ => ("", ""),
        };
        if name.is_empty() || name.contains(' ') {
            domain.keys.lose("cpu.features", "only features after + or - have words");
            return;
        }
        features.push(Element::new("feature").with("policy", policy).with("name", name));
    }
    cpu.children.append(&mut features);
}

fn write_numa<'k>(domain: &mut Domain<'_>, cpu: &mut Element, ids: impl Iterator<Item = &'k str>) {
    let mut numa = Element::new("numa");
    for id in ids {
        let Some(bytes) = memory(domain, &format!("domains.{id}.size")) else { continue };
        let mut cell = Element::new("cell").with("id", id);
        if let Some(cpus) = domain.value(&format!("domains.{id}.cpus")) {
            cell.set("cpus", cpus);
        }
        let (amount, unit) = units::amount(bytes);
        numa.children.push(cell.with("memory", amount).with("unit", unit));
    }
    if !numa.children.is_empty() {
        cpu.children.push(numa);
    }
}

fn write_smbios(domain: &mut Domain<'_>, root: &mut Element) {
    let mut sysinfo = Element::new("sysinfo").with("type", "smbios");
    for (table, entry, key) in SMBIOS {
        if let Some(value) = domain.value(key) {
            let entry = Element::new("entry").with("name", *entry).saying(value);
            sysinfo.child_mut(table).children.push(entry);
        }
    }
    if !sysinfo.children.is_empty() {
        root.children.push(sysinfo);
        root.child_mut("os").children.push(Element::new("smbios").with("mode", "sysinfo"));
    }
}

fn write_os(domain: &mut Domain<'_>, root: &mut Element) {
    let mut kind = Element::new("type").saying("hvm");
    match domain.value("machine.type") {
        None | Some("pc") => {}
        Some("microvm") => {
            kind.set("machine", "microvm");
        }
        Some(_) => domain.keys.lose("machine.type", "the machine is written as an x86_64 one"),
    }
    let os = root.child_mut("os");
    os.children.insert(0, kind);
    if let Some(firmware) = domain.value("bootrom") {
        let loader = Element::new("loader").with("readonly", "yes").with("type", "pflash").saying(firmware);
        os.children.push(loader);
        line(domain, os, "nvram", "bootvars");
    } else {
        domain.keys.lose("bootvars", "variables are a part of firmware, and `bootrom` is not set");
    }
    for (name, key) in [("kernel", "boot.kernel"), ("initrd", "boot.initrd"), ("cmdline", "boot.cmdline")] {
        line(domain, os, name, key);
    }
}

fn write_features(domain: &mut Domain<'_>, root: &mut Element) {
    let mut features = Element::new("features").and(Element::new("acpi")).and(Element::new("apic"));
    if domain.global_switch("acpi_tables") == Some(false) {
        domain.keys.lose("acpi_tables", "every machine is written with ACPI");
    }
    if let Some(strict) = domain.global_switch("x86.strictmsr") {
        features.children.push(Element::new("msrs").with("unknown", if strict { "fault" } else { "ignore" }));
    }
    root.children.push(features);
}

/// Adds what depends on the devices, and the devices that say that something is not there.
pub(super) fn finish(domain: &mut Domain<'_>, root: &mut Element, devices: &mut Element) {
    match domain.balloon {
        Some(balloon) if balloon > 0 => {
            let size = domain.keys.peek("memory.size").and_then(units::memory).unwrap_or(MEMORY);
            root.children.push(memory_element("currentMemory", size.saturating_sub(balloon)));
        }
        Some(_) => {}
        None => devices.children.push(Element::new("memballoon").with("model", "none")),
    }
    if domain.keys.peek("on_panic") == Some("stop") {
        devices.children.push(Element::new("panic").with("model", "isa"));
    }
    if !domain.has_screen {
        domain.keys.lose("keyboard.layout", "there is no screen that it could belong to");
    }
}

/// Adds what every document says, where nothing that was kept says it otherwise.
pub(super) fn write_defaults(root: &mut Element) {
    root.set("type", "kvm");
    let kind = root.child_mut("os").child_mut("type");
    kind.set("arch", "x86_64");
    kind.set("machine", "q35");
    // Without KVM there is no host's processor to pass through.
    if root.attr("type") == Some("kvm") {
        root.child_mut("cpu").set("mode", "host-passthrough");
    }
    root.children
        .retain(|child| child.name != "cpu" || !child.attributes.is_empty() || !child.children.is_empty());
}
