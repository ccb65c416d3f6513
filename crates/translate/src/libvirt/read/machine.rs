//! The machine as a whole: its name, processors, memory, and what it starts.

use super::super::units;
use super::super::xml::Element;
use super::Domain;

/// Most processors that are pinned one by one because all are.
const MAX_PINNED: u64 = 4096;

/// Most kinds of devices to boot from: there are four.
const MAX_BOOT: usize = 8;

/// SMBIOS: the table in `<sysinfo>`, its entry, and the key.
pub(in crate::libvirt) static SMBIOS: &[(&str, &str, &str)] = &[
    ("bios", "vendor", "bios.vendor"),
    ("bios", "version", "bios.version"),
    ("bios", "date", "bios.release_date"),
    ("system", "manufacturer", "system.manufacturer"),
    ("system", "product", "system.product_name"),
    ("system", "version", "system.version"),
    ("system", "serial", "system.serial_number"),
    ("system", "sku", "system.sku"),
    ("system", "family", "system.family_name"),
    ("baseBoard", "manufacturer", "board.manufacturer"),
    ("baseBoard", "product", "board.product_name"),
    ("baseBoard", "version", "board.version"),
    ("baseBoard", "serial", "board.serial_number"),
    ("baseBoard", "asset", "board.asset_tag"),
    ("baseBoard", "location", "board.location"),
    ("chassis", "manufacturer", "chassis.manufacturer"),
    ("chassis", "version", "chassis.version"),
    ("chassis", "serial", "chassis.serial_number"),
    ("chassis", "asset", "chassis.asset_tag"),
    ("chassis", "sku", "chassis.sku"),
];

/// Reads all of `<domain>` but its devices.
pub(super) fn read(domain: &mut Domain<'_>, root: &Element) {
    domain.set_line("name", root, "name");
    domain.set_line("uuid", root, "uuid");
    read_cpus(domain, root);
    read_memory(domain, root);
    if let Some(os) = root.enter("os") {
        read_os(domain, os);
    }
    if let Some(features) = root.enter("features") {
        read_features(domain, features);
    }
    if let Some(clock) = root.enter("clock") {
        let local = match clock.attr("offset") {
            Some("utc") => Some("false"),
            Some("localtime") => Some("true"),
            _ => None,
        };
        if let Some(local) = local {
            clock.take("offset");
            domain.set("rtc.use_localtime", local, clock);
        }
    }
    for name in ["on_poweroff", "on_reboot", "on_crash"] {
        let Some(element) = root.child(name) else { continue };
        let set = match (name, element.line()) {
            ("on_poweroff", Some("destroy")) => None,
            ("on_reboot", Some("restart")) => Some(("on_reset", "reboot")),
            ("on_reboot", Some("destroy")) => Some(("on_reset", "stop")),
            ("on_crash", Some("destroy")) => Some(("on_panic", "stop")),
            _ => continue,
        };
        element.taken().take_line();
        if let Some((key, value)) = set {
            domain.set(key, value, element);
        }
    }
    if let Some(sysinfo) = root.child("sysinfo").filter(|it| it.attr("type") == Some("smbios")) {
        read_smbios(domain, sysinfo.taken());
    }
}

fn read_cpus(domain: &mut Domain<'_>, root: &Element) {
    let mut count = None;
    if let Some(vcpu) = root.enter("vcpu") {
        vcpu.take_if("placement", "static");
        count = vcpu.take_line().and_then(units::number);
        match count {
            Some(count) => domain.set("cpus", count.to_string(), vcpu),
            None => {
                domain.wrong(vcpu, "no number of processors", "write a whole number, such as <vcpu>2</vcpu>");
            }
        }
    }
    if let Some(cputune) = root.enter("cputune") {
        for pin in cputune.all("vcpupin") {
            let vcpu = pin.attr("vcpu").and_then(units::number);
            let (Some(vcpu), Some(cpus)) = (vcpu, pin.attr("cpuset").and_then(units::cpus)) else {
                domain.wrong(pin, "no processors here", "write vcpu='0' cpuset='0-3'");
                continue;
            };
            pin.taken().take("vcpu");
            pin.take("cpuset");
            domain.set(&format!("vcpu.{vcpu}.cpuset"), cpus, pin);
        }
    }
    if let Some(vcpu) = root.child("vcpu")
        && let Some(cpus) = vcpu.attr("cpuset").and_then(units::cpus)
        && let Some(count) = count.filter(|count| *count <= MAX_PINNED)
    {
        vcpu.take("cpuset");
        for index in 0..count {
            let key = format!("vcpu.{index}.cpuset");
            if domain.tree.setting(&key).is_none() {
                domain.set(&key, cpus.clone(), vcpu);
            }
        }
    }
    let Some(cpu) = root.enter("cpu") else { return };
    match cpu.attr("mode") {
        // What there is without a word.
        Some("host-passthrough") => {
            cpu.take("mode");
        }
        Some("custom") | None => {
            if let Some(model) = cpu.child("model").filter(|model| model.line().is_some()) {
                cpu.take("mode");
                cpu.take_if("match", "exact");
                model.take_if("fallback", "allow");
                domain.set_line("cpu.model", cpu, "model");
            }
        }
        _ => {}
    }
    read_topology(domain, cpu);
    read_cpu_features(domain, cpu);
    read_numa(domain, cpu);
}

/// Features to add and to hide. With any other wish among them, all are kept as they are.
fn read_cpu_features(domain: &mut Domain<'_>, cpu: &Element) {
    let mut list = Vec::new();
    for feature in cpu.all("feature") {
        let sign = match feature.attr("policy") {
            Some("require") | None => '+',
            Some("disable") => '-',
            _ => return,
        };
        match feature.attr("name").filter(|name| !name.is_empty() && !name.contains([',', ' '])) {
            Some(name) if feature.attributes.len() <= 2 => list.push(format!("{sign}{name}")),
            _ => return,
        }
    }
    if let Some(first) = cpu.child("feature") {
        cpu.all("feature").for_each(Element::take_all);
        domain.set("cpu.features", list.join(","), first);
    }
}

/// Dies and clusters have no keys: with more than one of either, the topology is kept as it is.
fn read_topology(domain: &mut Domain<'_>, cpu: &Element) {
    let Some(topology) = cpu.child("topology") else { return };
    if ["dies", "clusters"].iter().any(|name| topology.attr(name).is_some_and(|count| count != "1")) {
        return;
    }
    topology.taken();
    topology.take("dies");
    topology.take("clusters");
    for name in ["sockets", "cores", "threads"] {
        domain.set_attr(name, topology, name);
    }
}

fn read_numa(domain: &mut Domain<'_>, cpu: &Element) {
    let Some(numa) = cpu.enter("numa") else { return };
    for (index, cell) in numa.all("cell").enumerate() {
        let id = cell.taken().take("id").map_or(Some(index as u64), units::number);
        let Some(id) = id else {
            domain.wrong(cell, "no number of a NUMA cell", "write id='0'");
            continue;
        };
        if let Some(cpus) = cell.attr("cpus").and_then(units::cpus) {
            cell.take("cpus");
            domain.set(&format!("domains.{id}.cpus"), cpus, cell);
        }
        if let Some(memory) = cell.take("memory")
            && let Some(bytes) = domain.amount(cell, memory, "unit")
        {
            domain.set(&format!("domains.{id}.size"), units::size(bytes), cell);
        }
    }
}

fn read_memory(domain: &mut Domain<'_>, root: &Element) {
    for (name, key) in [("memory", "memory.size"), ("maxMemory", "memory.max")] {
        if let Some(element) = root.child(name)
            && let Some(bytes) = domain.bytes(element)
        {
            domain.set(key, units::size(bytes), element);
        }
    }
    if let Some(memory) = root.child("memory") {
        domain.set_switch("memory.guest_in_core", memory, "dumpCore");
    }
    let Some(backing) = root.enter("memoryBacking") else { return };
    let source = backing.child("source").and_then(|source| source.attr("type"));
    let kind = match source {
        Some("memfd") => Some("memfd"),
        Some("anonymous") => Some("anon"),
        Some("file") => Some("file"),
        _ => None,
    };
    if let Some(pages) = backing.enter("hugepages") {
        domain.set("memory.backing", "hugetlb", pages);
        read_pages(domain, pages);
        // Huge pages that are shared are a memfd here anyway.
        if let Some(source) = backing.child("source").filter(|_| kind == Some("memfd")) {
            source.taken().take("type");
        }
    } else if let (Some(kind), Some(source)) = (kind, backing.enter("source")) {
        source.take("type");
        domain.set("memory.backing", kind, source);
    }
    for (name, attribute, key, words) in [
        ("access", "mode", "memory.shared", [("shared", "true"), ("private", "false")]),
        ("allocation", "mode", "memory.prefault", [("immediate", "true"), ("ondemand", "false")]),
    ] {
        let Some(element) = backing.child(name) else { continue };
        let found = words.iter().find(|(word, _)| element.attr(attribute) == Some(word));
        if let Some((_, value)) = found {
            element.taken().take(attribute);
            domain.set(key, *value, element);
        }
    }
    if let Some(locked) = backing.enter("locked") {
        domain.set("memory.wired", "true", locked);
    }
}

fn read_pages(domain: &mut Domain<'_>, pages: &Element) {
    let mut all = pages.all("page");
    // Several sizes, or one for some of the NUMA cells, are kept as they are.
    if let (Some(page), None) = (all.next(), all.next())
        && page.attr("nodeset").is_none()
        && let Some(size) = page.taken().take("size")
        && let Some(bytes) = domain.amount(page, size, "unit")
    {
        domain.set("memory.page_size", units::size(bytes), page);
    }
}

fn read_os(domain: &mut Domain<'_>, os: &Element) {
    if let Some(kind) = os.enter("type") {
        kind.take_line();
        kind.take_if("arch", "x86_64");
        let machine = match kind.attr("machine") {
            Some("q35") => Some("pc"),
            Some("microvm") => Some("microvm"),
            Some("virt") => Some("virt"),
            _ => None,
        };
        if let Some(machine) = machine {
            kind.take("machine");
            if machine != "pc" {
                domain.set("machine.type", machine, kind);
            }
        }
    }
    domain.set_line("boot.kernel", os, "kernel");
    domain.set_line("boot.initrd", os, "initrd");
    domain.set_line("boot.cmdline", os, "cmdline");
    if let Some(loader) = os.child("loader").filter(|loader| loader.line().is_some()) {
        loader.take_if("type", "pflash");
        loader.take_if("readonly", "yes");
        domain.set_line("bootrom", os, "loader");
    }
    domain.set_line("bootvars", os, "nvram");
    if let Some(smbios) = os.child("smbios").filter(|smbios| smbios.attr("mode") == Some("sysinfo")) {
        smbios.take_all();
    }
}

fn read_features(domain: &mut Domain<'_>, features: &Element) {
    // They are there on every machine.
    for name in ["acpi", "apic"] {
        if let Some(feature) = features.child(name) {
            feature.taken();
        }
    }
    if let Some(msrs) = features.child("msrs") {
        let strict = match msrs.attr("unknown") {
            Some("ignore") => "false",
            Some("fault") => "true",
            _ => return,
        };
        msrs.taken().take("unknown");
        domain.set("x86.strictmsr", strict, msrs);
    }
}

fn read_smbios(domain: &mut Domain<'_>, sysinfo: &Element) {
    sysinfo.take("type");
    for (table, entry, key) in SMBIOS {
        let Some(table) = sysinfo.child(table) else { continue };
        table.taken();
        let found = table.all("entry").find(|it| it.is_left() && it.attr("name") == Some(entry));
        if let Some(entry) = found
            && let Some(line) = entry.line()
        {
            entry.take_all();
            domain.set(key, line, entry);
        }
    }
}

/// Gives a balloon what it is to take: what the guest has at most, without what it has now.
pub(super) fn read_balloon(domain: &mut Domain<'_>, root: &Element) {
    let Some(current) = root.child("currentMemory") else { return };
    let Some(bytes) = domain.bytes(current) else { return };
    let memory = domain.tree.setting("memory.size").and_then(|memory| units::memory(&memory.value));
    let Some(balloon) = memory.and_then(|memory| memory.checked_sub(bytes)).filter(|balloon| *balloon > 0)
    else {
        return;
    };
    let devices = root.child("devices").map(|devices| devices.child("memballoon"));
    let model = domain.tree.in_order().into_iter().find(|(_, setting)| setting.value == "virtio-balloon");
    let id = model.and_then(|(key, _)| key.split('.').nth(1)).map(str::to_owned);
    let none = devices.flatten().is_some_and(|it| it.attr("model") == Some("none"));
    match id {
        Some(id) => domain.set(&format!("device.{id}.size"), units::size(balloon), current),
        None if none => domain.lose(
            current,
            &format!("<currentMemory> {bytes} bytes"),
            "without a balloon the guest keeps all of its memory",
        ),
        None => {
            // libvirt gives every machine a balloon unless it is told not to.
            let id = domain.default_id("balloon");
            domain.set(&format!("device.{id}.model"), "virtio-balloon", current);
            domain.set(&format!("device.{id}.size"), units::size(balloon), current);
        }
    }
}

/// Turns kinds of devices to boot from (`<boot dev='hd'/>`) into the ranks of devices. Where a
/// device of such a kind is only kept, so are they: its rank could not be said.
pub(super) fn read_boot_order(domain: &mut Domain<'_>, root: &Element) {
    let (Some(os), Some(devices)) = (root.child("os"), root.child("devices")) else { return };
    let kept = |name| devices.all(name).any(Element::is_left);
    // Either way to order devices has a meaning only without the other.
    let has_ranks = domain.tree.in_order().iter().any(|(key, _)| key.ends_with(".bootindex"));
    if has_ranks || kept("disk") || kept("interface") {
        return;
    }
    let mut rank = 1;
    for boot in os.all("boot").take(MAX_BOOT) {
        let Some(kind) = boot.taken().take("dev") else { continue };
        if let Some(prefix) = domain.first_of(kind) {
            domain.set(&format!("{prefix}.bootindex"), rank.to_string(), boot);
            rank += 1;
        }
    }
}

impl Domain<'_> {
    /// The first device of a kind to boot from, as the beginning of its keys.
    fn first_of(&self, kind: &str) -> Option<String> {
        self.tree.in_order().iter().find_map(|(key, setting)| {
            let (device, last) = key.rsplit_once('.')?;
            let fits = matches!(
                (kind, last, setting.value.as_str()),
                ("hd", "model", "virtio-blk" | "nvme")
                    | ("network", "model", "virtio-net" | "e1000")
                    | ("hd", "type", "hd")
                    | ("cdrom", "type", "cd")
            );
            fits.then(|| device.to_owned())
        })
    }
}
