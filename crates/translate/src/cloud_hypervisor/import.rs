//! What Cloud Hypervisor's options mean here.

use std::collections::BTreeMap;

use parador_config::{Diagnostics, Origin};

use super::URANDOM;
use crate::format::Imported;
use crate::parts::{Group, Part, Value, bad_part, cpus, size};
use crate::reading::Reading;

/// The tree that `groups` are; `prefix` is that of places of what is kept.
pub(super) fn tree(mut reading: Reading, prefix: &str, groups: Vec<Group>) -> Result<Imported, Diagnostics> {
    let mut by_option: BTreeMap<&str, Vec<Group>> = BTreeMap::new();
    for group in groups {
        by_option.entry(known(&group.option)).or_default().push(group);
    }
    let mut take = |option: &str| by_option.remove(option).unwrap_or_default();
    for option in ["kernel", "initramfs", "cmdline", "firmware", "platform"] {
        for mut group in take(option) {
            reading.rows(&mut group);
            reading.rest(prefix, &group);
        }
    }
    let all = Origin::Argument(0);
    cpu(&mut reading, prefix, last(take("cpus"), "cpus", &all));
    memory(&mut reading, prefix, last(take("memory"), "memory", &all), take("memory-zone"), take("numa"));
    for mut group in take("tpm") {
        reading.rows(&mut group);
        reading.set("tpm.type", "swtpm", &group.origin);
        reading.rest(prefix, &group);
    }
    serial(&mut reading, prefix, take("serial").pop());
    for (option, model, kind) in [
        ("disk", "virtio-blk", "disk"),
        ("net", "virtio-net", "net"),
        ("fs", "virtio-fs", "fs"),
        ("vsock", "virtio-vsock", "vsock"),
        ("balloon", "virtio-balloon", "balloon"),
        ("generic-vhost-user", "vhost-user", "vhost"),
        ("device", "passthru", "dev"),
    ] {
        for mut group in take(option) {
            let id = reading.device(&mut group, model, kind, "id");
            device(&mut reading, &id, &mut group);
            reading.rest(prefix, &group);
        }
    }
    rng(&mut reading, prefix, last(take("rng"), "rng", &all));
    console(&mut reading, prefix, last(take("console"), "console", &all));
    reading.finish()
}

/// The option, as a word that lives on.
fn known(option: &str) -> &'static str {
    const OPTIONS: &[&str] = &[
        "kernel",
        "initramfs",
        "cmdline",
        "firmware",
        "platform",
        "cpus",
        "memory",
        "memory-zone",
        "numa",
        "tpm",
        "serial",
        "disk",
        "net",
        "fs",
        "vsock",
        "balloon",
        "generic-vhost-user",
        "device",
        "rng",
        "console",
    ];
    OPTIONS.iter().find(|known| **known == option).copied().unwrap_or_default()
}

/// The group that counts, or an empty one.
fn last(mut groups: Vec<Group>, option: &str, origin: &Origin) -> Group {
    groups.pop().unwrap_or_else(|| Group { origin: origin.clone(), ..Group::new(option, "") })
}

fn cpu(reading: &mut Reading, prefix: &str, mut group: Group) {
    reading.rows(&mut group);
    let boot = reading.value("cpus").and_then(|cpus| cpus.parse::<u64>().ok());
    if group.part("max").is_some_and(|max| max.value.number() == boot) {
        group.take("max");
    }
    if let Some(part) = group.part("topology").cloned() {
        let parts: Vec<u64> = part.value.shown().split(':').filter_map(|n| n.parse().ok()).collect();
        match parts[..] {
            [threads, cores, 1, packages] => {
                for (key, n) in [("threads", threads), ("cores", cores), ("sockets", packages)] {
                    reading.set(key, n.to_string(), &part.origin);
                }
                group.take("topology");
            }
            [_, _, _, _] => {}
            _ => reading.wrong(bad_part("cpus", &part, "THREADS:CORES:DIES:PACKAGES, such as 1:4:1:1")),
        }
    }
    if let Some(part) = group.take("affinity") {
        match pairs(&part.value) {
            Some(pairs) => {
                for (vcpu, hosts) in pairs {
                    reading.set(&format!("vcpu.{vcpu}.cpuset"), hosts, &part.origin);
                }
            }
            None => reading.wrong(bad_part("cpus", &part, "a list such as [0@[1,2],1@[3-4]]")),
        }
    }
    reading.rest(prefix, &group);
}

/// Each number of a list such as `[0@[1,2],1@[3]]`, with its processors.
fn pairs(value: &Value) -> Option<Vec<(u32, String)>> {
    let one = |value: Value| {
        let text = value.shown();
        let (number, list) = text.split_once('@')?;
        Some((number.parse().ok()?, cpus(&Value::text(list).list()?)?))
    };
    value.list()?.into_iter().map(one).collect()
}

fn memory(reading: &mut Reading, prefix: &str, mut group: Group, mut zones: Vec<Group>, numa: Vec<Group>) {
    // Of zones, --memory has no size of its own.
    let zoned = group.part("size").is_some_and(|size| size.value.size() == Some(0)) && !zones.is_empty();
    if zoned {
        let sizes: Option<Vec<u64>> = zones.iter().map(|zone| zone.part("size")?.value.size()).collect();
        let total = sizes.and_then(|sizes| sizes.into_iter().try_fold(0_u64, u64::checked_add));
        if let Some(part) = group.take("size") {
            match total {
                Some(total) => {
                    group.parts.push(Part { value: Value::Size(total), ..part });
                }
                None => reading.wrong(bad_part("memory-zone", &part, "a zone with a size")),
            }
        }
    }
    hoist(&mut group, &mut zones);
    let mut wrong = Vec::new();
    let mut switch = |group: &mut Group, name: &str| {
        let part = group.take(name)?;
        match part.value.switch() {
            Some(on) => Some((on, part.origin)),
            None => {
                wrong.push(bad_part("memory", &part, "`on` or `off`"));
                None
            }
        }
    };
    let huge = switch(&mut group, "hugepages");
    let shared = switch(&mut group, "shared");
    for finding in wrong {
        reading.wrong(finding);
    }
    if let Some((true, origin)) = &huge {
        reading.set("memory.backing", "hugetlb", origin);
        if let Some(part) = group.take("hugepage_size") {
            match part.value.size() {
                Some(bytes) => reading.set("memory.page_size", size(bytes), &part.origin),
                None => reading.wrong(bad_part("memory", &part, "a size, such as 2M or 1G")),
            }
        }
    }
    if let Some((true, origin)) = shared {
        if !matches!(huge, Some((true, _))) {
            reading.set("memory.backing", "memfd", &origin);
        }
        reading.set("memory.shared", "true", &origin);
    }
    reading.rows(&mut group);
    reading.rest(prefix, &group);
    domains(reading, prefix, zones, numa);
}

/// What all zones agree on is said of the memory.
fn hoist(group: &mut Group, zones: &mut [Group]) {
    for name in ["shared", "hugepages", "hugepage_size", "prefault"] {
        let value = zones.first().and_then(|zone| zone.part(name)).cloned();
        let same = |zone: &Group| {
            let of = |part: Option<&Part>| part.map(|part| part.value.clone());
            of(zone.part(name)) == of(value.as_ref())
        };
        if let Some(part) = value.as_ref().filter(|_| zones.iter().all(same)) {
            zones.iter_mut().for_each(|zone| drop(zone.take(name)));
            group.parts.push(part.clone());
        }
    }
}

/// Zones of memory and the NUMA nodes they belong to. A node of one zone is a domain; anything else
/// is kept as it is.
fn domains(reading: &mut Reading, prefix: &str, mut zones: Vec<Group>, numa: Vec<Group>) {
    for mut node in numa {
        let zone_of = |node: &Group, zones: &[Group]| {
            let names = node.part("memory_zones")?.value.list()?;
            let [name] = &names[..] else { return None };
            let is_it = |zone: &Group| zone.part("id").is_some_and(|id| id.value.shown() == name.shown());
            zones.iter().position(is_it)
        };
        let number = node.part("guest_numa_id").and_then(|part| part.value.number());
        let (Some(number), Some(index)) = (number, zone_of(&node, &zones)) else {
            node.id = number.map(|number| number.to_string()).unwrap_or_default();
            keep_whole(reading, prefix, &node);
            continue;
        };
        let mut zone = zones.remove(index);
        let domain = number.to_string();
        if let Some(part) = zone.take("size") {
            let bytes = part.value.size().unwrap_or_default();
            reading.set(&format!("domains.{domain}.size"), size(bytes), &part.origin);
        }
        if let Some(part) = node.take("cpus") {
            match part.value.list().as_deref().and_then(cpus) {
                Some(list) => reading.set(&format!("domains.{domain}.cpus"), list, &part.origin),
                None => reading.wrong(bad_part("numa", &part, "a list such as [0,2-3]")),
            }
        }
        for (group, parts) in [(&mut zone, ["id", ""]), (&mut node, ["guest_numa_id", "memory_zones"])] {
            group.id.clone_from(&domain);
            for part in parts {
                group.take(part);
            }
        }
        reading.rest(prefix, &zone);
        reading.rest(prefix, &node);
    }
    for zone in zones {
        keep_whole(reading, prefix, &zone);
    }
}

/// Keeps a group as one value of its option.
fn keep_whole(reading: &mut Reading, prefix: &str, group: &Group) {
    if prefix == "/" {
        return reading.rest(prefix, group);
    }
    let parts: Vec<String> =
        group.parts.iter().map(|part| format!("{}={}", part.name, part.value.shown())).collect();
    reading.keep(format!("{prefix}{}", group.option), &group.origin);
    reading.keep(parts.join(","), &group.origin);
}

fn device(reading: &mut Reading, id: &str, group: &mut Group) {
    let key = |field: &str| format!("device.{id}.{field}");
    if let Some(part) = group.take("pci_device_id") {
        match part.value.number() {
            Some(slot) => reading.set(&key("addr"), format!("0:{slot}.0"), &part.origin),
            None => reading.wrong(bad_part(&group.option, &part, "the number of a slot")),
        }
    }
    if let Some(part) = group.take("vhost_user") {
        match part.value.switch() {
            Some(true) => reading.set(&key("backend"), "vhost-user", &part.origin),
            Some(false) => {}
            None => reading.wrong(bad_part(&group.option, &part, "`on` or `off`")),
        }
    }
    if group.option == "net" {
        descriptors(reading, id, group);
    }
    if group.option == "device" {
        host(reading, id, group);
    }
    if let Some(part) = group.take("queue_sizes") {
        let sizes = part.value.list().unwrap_or_default();
        let sizes: Vec<String> = sizes.iter().map(Value::shown).collect();
        reading.set(&key("queue_sizes"), sizes.join(","), &part.origin);
    }
    for (bucket, field) in [("bw", "rate.bps"), ("ops", "rate.iops")] {
        rate(reading, &key(field), bucket, group);
    }
    reading.rows(group);
}

/// A bucket that is refilled every second, and has no burst, is a rate; others are kept.
fn rate(reading: &mut Reading, key: &str, bucket: &str, group: &mut Group) {
    let name = |part: &str| format!("{bucket}_{part}");
    let number = |part: &str| group.part(&name(part)).and_then(|part| part.value.number());
    let plain = number("refill_time") == Some(1000) && number("one_time_burst").unwrap_or(0) == 0;
    if plain && let Some(rate) = number("size") {
        let origin = group.part(&name("size")).map_or(group.origin.clone(), |part| part.origin.clone());
        reading.set(key, if bucket == "bw" { size(rate) } else { rate.to_string() }, &origin);
        for part in ["size", "refill_time", "one_time_burst"] {
            group.take(&name(part));
        }
    }
}

/// `fd=3`, or `fd=[3,4]` for as many pairs of queues.
fn descriptors(reading: &mut Reading, id: &str, group: &mut Group) {
    let Some(part) = group.take("fd") else { return };
    let list = part.value.list().unwrap_or_else(|| vec![part.value.clone()]);
    let numbers: Option<Vec<String>> = list.iter().map(|fd| fd.number().map(|fd| fd.to_string())).collect();
    match numbers.filter(|numbers| !numbers.is_empty()) {
        Some(numbers) => {
            reading.set(&format!("device.{id}.backend"), "fd", &part.origin);
            reading.set(&format!("device.{id}.fd"), numbers.join(","), &part.origin);
        }
        None => reading.wrong(bad_part("net", &part, "a descriptor, such as 3 or [3,4]")),
    }
}

fn host(reading: &mut Reading, id: &str, group: &mut Group) {
    let Some(part) = group.part("path").cloned() else { return };
    let path = part.value.shown();
    let name = path.trim_end_matches('/').strip_prefix("/sys/bus/pci/devices/");
    if let Some(name) = name.filter(|name| !name.contains('/')) {
        reading.set(&format!("device.{id}.host"), name, &part.origin);
        group.take("path");
    }
}

/// It always has a device for random numbers.
fn rng(reading: &mut Reading, prefix: &str, mut group: Group) {
    let id = reading.device(&mut group, "virtio-rnd", "rng", "id");
    if let Some(part) = group.take("src").filter(|part| part.value.shown() != URANDOM) {
        reading.set(&format!("device.{id}.path"), part.value.shown(), &part.origin);
    }
    reading.rest(prefix, &group);
}

fn serial(reading: &mut Reading, prefix: &str, group: Option<Group>) {
    let Some(mut group) = group else {
        return reading.set("console", "none", &Origin::Argument(0));
    };
    match endpoint(&mut group) {
        Some(end) => reading.set("console", end, &group.origin),
        None => {
            reading.set("console", "none", &group.origin);
            reading.lose(
                "--serial off",
                "the port is always there; nothing is connected to it",
                &group.origin,
            );
        }
    }
    reading.rest(prefix, &group);
}

fn console(reading: &mut Reading, prefix: &str, mut group: Group) {
    let end = if group.parts.is_empty() { Some("stdio".to_owned()) } else { endpoint(&mut group) };
    let Some(end) = end else { return reading.rest(prefix, &group) };
    let id = reading.device(&mut group, "virtio-console", "console", "id");
    reading.set(&format!("device.{id}.port.0.path"), end, &group.origin);
    reading.rest(prefix, &group);
}

/// What it is connected to; `None` if it is off.
fn endpoint(group: &mut Group) -> Option<String> {
    let word = group.take("").map(|part| part.value.shown()).unwrap_or_default();
    let file = group.take("file").map(|part| format!("file:{}", part.value.shown()));
    let socket = group.take("socket").map(|part| format!("unix:{}", part.value.shown()));
    match (word.as_str(), file, socket) {
        ("tty", None, None) => Some("stdio".to_owned()),
        ("pty", None, None) => Some("pty".to_owned()),
        ("null", None, None) => Some("none".to_owned()),
        (_, Some(end), None) | (_, None, Some(end)) => Some(end),
        ("off", None, None) => None,
        (other, _, _) => {
            // Modes that this does not know stay as they are.
            group.push("mode", Value::text(other));
            Some("none".to_owned())
        }
    }
}
