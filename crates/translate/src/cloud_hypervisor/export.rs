//! A tree in Cloud Hypervisor's groups.

use parador_config::Value as Ours;

use super::{ENGINE, URANDOM};
use crate::parts::{Group, Value, ranges};
use crate::writing::Writing;

/// What does not go into groups.
#[derive(Debug)]
pub(super) struct Machine {
    /// Words that were kept, and stand for themselves.
    pub(super) whole: Vec<String>,
}

/// Adds all groups of the tree; `prefix` is that of places of what was kept.
pub(super) fn machine(writing: &mut Writing<'_>, prefix: &str) -> Machine {
    for option in ["kernel", "initramfs", "cmdline", "firmware", "platform"] {
        let group = writing.group(option, "");
        add(writing, group);
    }
    cpu(writing);
    memory(writing);
    tpm(writing);
    for (option, model) in [
        ("disk", "virtio-blk"),
        ("net", "virtio-net"),
        ("fs", "virtio-fs"),
        ("vsock", "virtio-vsock"),
        ("balloon", "virtio-balloon"),
        ("generic-vhost-user", "vhost-user"),
        ("device", "passthru"),
    ] {
        let single = matches!(option, "vsock" | "balloon");
        for (index, id) in writing.devices(model).into_iter().enumerate() {
            if single && index > 0 {
                writing.keys.lose(&format!("device.{id}.model"), "it has one such device");
                continue;
            }
            let mut group = writing.group(option, id);
            device(writing, id, &mut group);
            // Balloons are the only devices without a name there.
            if option == "balloon" {
                if group.part("size").is_none() {
                    group.push("size", Value::Size(0));
                }
                writing.unnamed(id, "balloon0");
            } else {
                group.push("id", Value::text(id));
            }
            writing.groups.push(group);
        }
    }
    rng(writing);
    serial(writing);
    console(writing);
    Machine { whole: writing.kept(ENGINE, prefix) }
}

fn add(writing: &mut Writing<'_>, group: Group) {
    if !group.parts.is_empty() {
        writing.groups.push(group);
    }
}

fn cpu(writing: &mut Writing<'_>) {
    let [sockets, cores, threads] = ["sockets", "cores", "threads"].map(|key| writing.take_int(key));
    let parts = [sockets, cores, threads];
    let product = parts.iter().fold(1, |product, part| product * part.unwrap_or(1));
    let count = writing.take_int("cpus").unwrap_or(product);
    let mut group = Group::new("cpus", "");
    group.push("boot", Value::Number(count));
    if parts.iter().any(Option::is_some) {
        let topology = format!("{}:{}:1:{}", threads.unwrap_or(1), cores.unwrap_or(1), sockets.unwrap_or(1));
        group.push("topology", Value::Text(topology));
    }
    let mut affinity = Vec::new();
    for vcpu in 0..count {
        let key = format!("vcpu.{vcpu}.cpuset");
        if let Some(Ours::Cpus(hosts)) = writing.take(&key).and_then(|_| writing.value(&key)) {
            affinity.push(Value::Text(format!("{vcpu}@[{}]", ranges(&hosts))));
        }
    }
    if !affinity.is_empty() {
        group.push("affinity", Value::List(affinity));
    }
    writing.groups.push(group);
}

fn memory(writing: &mut Writing<'_>) {
    let mut group = writing.group("memory", "");
    let backing = writing.take("memory.backing").unwrap_or("anon");
    let shared =
        writing.take("memory.shared").is_some() && writing.value("memory.shared") == Some(Ours::Bool(true));
    match backing {
        "hugetlb" => {
            group.push("hugepages", Value::Switch(true));
            if let Some(bytes) = writing.int("memory.page_size") {
                writing.take("memory.page_size");
                group.push("hugepage_size", Value::Size(bytes));
            }
        }
        "memfd" if !shared => writing.keys.lose("memory.backing", "its memory is a memfd when it is shared"),
        "file" => writing
            .keys
            .lose("memory.backing", "only a zone of its memory can be a file: --memory-zone file="),
        _ => {}
    }
    if shared {
        group.push("shared", Value::Switch(true));
    }
    let domains: Vec<u64> =
        (0..64).filter(|n| writing.keys.peek(&format!("domains.{n}.size")).is_some()).collect();
    // Of zones, each says for itself what its memory is made of.
    let mut of_zones = Vec::new();
    if !domains.is_empty() {
        let names = ["shared", "hugepages", "hugepage_size", "prefault"];
        of_zones.extend(names.into_iter().filter_map(|name| group.take(name)));
        group.take("size");
        group.push("size", Value::Size(0));
    }
    writing.groups.push(group);
    for n in domains {
        let [size, cpus] = ["size", "cpus"].map(|field| format!("domains.{n}.{field}"));
        let zone_id = format!("mem{n}");
        let mut zone = Group::new("memory-zone", &n.to_string());
        zone.push("id", Value::text(&zone_id));
        zone.push("size", Value::Size(writing.take_int(&size).unwrap_or_default()));
        zone.parts.extend(of_zones.iter().cloned());
        writing.groups.push(zone);
        let mut node = Group::new("numa", &n.to_string());
        node.push("guest_numa_id", Value::Number(n));
        if let Some(Ours::Cpus(list)) = writing.take(&cpus).and_then(|_| writing.value(&cpus)) {
            let list = ranges(&list).split(',').map(Value::text).collect();
            node.push("cpus", Value::List(list));
        }
        node.push("memory_zones", Value::List(vec![Value::Text(zone_id)]));
        writing.groups.push(node);
    }
}

fn tpm(writing: &mut Writing<'_>) {
    match writing.keys.peek("tpm.type") {
        None | Some("swtpm") => {
            writing.take("tpm.type");
            let group = writing.group("tpm", "");
            add(writing, group);
        }
        Some(_) => {
            for key in ["tpm.type", "tpm.path"] {
                writing.keys.lose(key, "its TPM is swtpm");
            }
        }
    }
}

fn device(writing: &mut Writing<'_>, id: &str, group: &mut Group) {
    let key = |field: &str| format!("device.{id}.{field}");
    if let Some(Ours::Address(address)) = writing.take(&key("addr")).and_then(|_| writing.value(&key("addr")))
    {
        if address.bus == 0 && address.function == 0 {
            group.push("pci_device_id", Value::Number(address.slot.into()));
        } else {
            writing.keys.lose(&key("addr"), "its devices are all function 0 of a slot of bus 0");
        }
    }
    match (group.option.as_str(), writing.take(&key("backend"))) {
        ("disk" | "net", Some("vhost-user")) => group.push("vhost_user", Value::Switch(true)),
        ("net", Some("fd")) => {
            if let Some(fds) = writing.take(&key("fd")) {
                group.push("fd", Value::List(fds.split(',').map(Value::text).collect()));
            }
        }
        ("disk", None | Some("file")) | ("net", None | Some("tap")) | (_, None) => {}
        (_, Some(_)) => writing.keys.lose(&key("backend"), "it knows no such end on the host"),
    }
    if group.option == "disk" && group.part("vhost_user").is_none() {
        group.take("image_type");
        let qcow2 = writing.keys.peek(&key("format")) == Some("qcow2");
        group.push("image_type", Value::text(if qcow2 { "qcow2" } else { "raw" }));
    }
    for (bucket, field) in [("bw", "rate.bps"), ("ops", "rate.iops")] {
        if let Some(rate) = writing.take_int(&key(field)) {
            group.push(&format!("{bucket}_size"), Value::Number(rate));
            group.push(&format!("{bucket}_refill_time"), Value::Number(1000));
        }
    }
    if let Some(sizes) = writing.take(&key("queue_sizes")) {
        group.push("queue_sizes", Value::List(sizes.split(',').map(Value::text).collect()));
    }
    if group.option == "device" {
        host(writing, id, group);
    }
}

fn host(writing: &mut Writing<'_>, id: &str, group: &mut Group) {
    if let Some(name) = writing.host(id) {
        group.push("path", Value::Text(format!("/sys/bus/pci/devices/{name}")));
    }
}

fn rng(writing: &mut Writing<'_>) {
    let devices = writing.devices("virtio-rnd");
    let mut group = Group::new("rng", devices.first().copied().unwrap_or("rng0"));
    match devices.first() {
        Some(id) => {
            let path = writing.take(&format!("device.{id}.path")).unwrap_or(URANDOM);
            group.push("src", Value::text(path));
            writing.unnamed(id, "rng0");
        }
        None => writing.lose("no device virtio-rnd", "it always has one"),
    }
    for id in devices.iter().skip(1) {
        writing.keys.lose(&format!("device.{id}.model"), "it has one such device");
    }
    add(writing, group);
}

fn serial(writing: &mut Writing<'_>) {
    let end = writing.value("console");
    writing.take("console");
    let mut group = Group::new("serial", "");
    endpoint(&mut group, end);
    writing.groups.push(group);
}

fn console(writing: &mut Writing<'_>) {
    let devices = writing.devices("virtio-console");
    let mut group = Group::new("console", devices.first().copied().unwrap_or_default());
    match devices.first() {
        Some(id) => {
            let key = format!("device.{id}.port.0.path");
            let end = writing.value(&key);
            writing.take(&key);
            endpoint(&mut group, end);
            writing.unnamed(id, "console0");
        }
        None => group.push("", Value::text("off")),
    }
    for id in devices.iter().skip(1) {
        writing.keys.lose(&format!("device.{id}.model"), "it has one such device");
    }
    writing.groups.push(group);
}

fn endpoint(group: &mut Group, end: Option<Ours>) {
    use parador_config::Endpoint::{File, None as Nothing, Pty, Stdio, Unix};
    match end {
        Some(Ours::Endpoint(Stdio)) => group.push("", Value::text("tty")),
        Some(Ours::Endpoint(Pty)) => group.push("", Value::text("pty")),
        Some(Ours::Endpoint(File(path))) => group.push("file", Value::Text(path)),
        Some(Ours::Endpoint(Unix(path))) => group.push("socket", Value::Text(path)),
        Some(Ours::Endpoint(Nothing)) | Some(_) | None => group.push("", Value::text("null")),
    }
}
