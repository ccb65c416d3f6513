//! Firecracker's configuration file (`--config-file`), as its HTTP interface has it.

use parador_config::{Diagnostics, Endpoint, Origin, Tree, Value as Ours};
use serde_json::Value as Json;

use crate::fates::Fate::{Mapped, Refused};
use crate::fates::{Fates, fates};
use crate::format::{Exported, Imported, Input, Output};
use crate::json::{Object, compact, group, json, read};
use crate::parts::How::{Mebibytes, Number, Switch, Text, Words};
use crate::parts::{Group, Part, Row, Value, bad_part, row, size};
use crate::reading::Reading;
use crate::structured::node::Value as Read;
use crate::writing::Writing;

const ENGINE: &str = "firecracker";

/// The kernel's command line when nothing is said.
const BOOT_ARGS: &str =
    "reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce";

static ENGINES: &[(&str, &str)] = &[("Sync", "sync"), ("Async", "io_uring")];

/// Members and keys.
static ROWS: &[Row] = &[
    row("boot-source", "kernel_image_path", "boot.kernel", Text),
    row("boot-source", "initrd_path", "boot.initrd", Text),
    row("boot-source", "boot_args", "boot.cmdline", Text).absent(BOOT_ARGS),
    row("machine-config", "vcpu_count", "cpus", Number).absent("1"),
    row("machine-config", "mem_size_mib", "memory.size", Mebibytes).absent("128M"),
    row("drives", "path_on_host", "device.*.path", Text),
    row("drives", "is_read_only", "device.*.ro", Switch),
    row("drives", "io_engine", "device.*.aio", Words(ENGINES)).absent("sync"),
    row("drives", "socket", "device.*.socket", Text),
    row("network-interfaces", "host_dev_name", "device.*.tap.name", Text),
    row("network-interfaces", "guest_mac", "device.*.mac", Text),
    row("network-interfaces", "mtu", "device.*.mtu", Number),
    row("vsock", "guest_cid", "device.*.cid", Number),
    row("vsock", "uds_path", "device.*.socket", Text),
    row("balloon", "amount_mib", "device.*.size", Mebibytes),
    row("balloon", "deflate_on_oom", "device.*.deflate_on_oom", Switch).absent("false"),
    row("balloon", "free_page_reporting", "device.*.free_page_reporting", Switch).absent("false"),
];

/// Members that are objects, or arrays of them, in the order in which they are written.
static SECTIONS: &[&str] = &[
    "boot-source",
    "machine-config",
    "drives",
    "network-interfaces",
    "vsock",
    "entropy",
    "balloon",
    "serial",
];

const QUEUES: &str = "its devices have one queue of 256 descriptors";
const NO_SMBIOS: &str = "it has no SMBIOS tables";
const NO_ZONES: &str = "it has no zoned disks";
const NO_TAP: &str = "it opens TAP interfaces that are there";
const FIXED: &str = "it has no such choice";
const OURS: &str = "it is for Parador, not for the machine";

/// Which keys it can say.
pub(crate) const FATES: Fates = fates![
    ("cpus", Mapped),
    ("threads", Mapped),
    ("cores", Mapped),
    ("sockets", Mapped),
    ("vcpu.*.cpuset", Refused("it does not pin processors; taskset does")),
    ("name", Refused("its machines have no name")),
    ("uuid", Refused(NO_SMBIOS)),
    ("on_reset", Refused("its process ends when the guest resets")),
    ("on_panic", Refused("it sees no panics")),
    ("machine.type", Refused("it has one kind of machine")),
    ("cpu.model", Refused("processors are described by a template: cpu-config")),
    ("cpu.features", Refused("processors are described by a template: cpu-config")),
    ("memory.size", Mapped),
    ("memory.backing", Mapped),
    ("memory.page_size", Mapped),
    ("memory.thp", Mapped),
    ("memory.shared", Refused("it decides by itself when memory is shared")),
    ("memory.path", Refused(FIXED)),
    ("memory.max", Refused("it adds memory in another way: memory-hotplug")),
    ("memory.prefault", Refused(FIXED)),
    ("memory.wired", Refused(FIXED)),
    ("memory.guest_in_core", Refused(FIXED)),
    ("domains.**", Refused("it has no NUMA")),
    ("boot.kernel", Mapped),
    ("boot.initrd", Mapped),
    ("boot.cmdline", Mapped),
    ("bootrom", Refused("it starts kernels only")),
    ("bootvars", Refused("it starts kernels only")),
    ("bootvars_mode", Refused("it starts kernels only")),
    ("console", Mapped),
    ("lpc.**", Refused("it has one serial port")),
    ("tpm.**", Refused("it has no TPM")),
    ("gdb.**", Refused("its debug server is a UNIX socket: gdb_socket_path")),
    ("acpi_tables", Refused("it always has ACPI tables")),
    ("acpi_tables_in_memory", Refused("it always has ACPI tables")),
    ("destroy_on_poweroff", Refused("its machine goes with its process")),
    ("monitor", Refused("its machine goes with its process")),
    ("virtio_msix", Refused(FIXED)),
    ("rtc.use_localtime", Refused(FIXED)),
    ("x86.**", Refused(FIXED)),
    ("bios.**", Refused(NO_SMBIOS)),
    ("system.**", Refused(NO_SMBIOS)),
    ("board.**", Refused(NO_SMBIOS)),
    ("chassis.**", Refused(NO_SMBIOS)),
    ("keyboard.layout", Refused("it has no screen")),
    ("device.*.model", Mapped),
    ("device.*.addr", Refused("it chooses where devices sit")),
    ("device.*.path", Mapped),
    ("device.*.format", Mapped),
    ("device.*.backend", Mapped),
    ("device.*.socket", Mapped),
    ("device.*.ro", Mapped),
    ("device.*.aio", Mapped),
    ("device.*.nocache", Refused("it goes through the host's page cache")),
    ("device.*.sync", Refused("the guest decides what is durable")),
    ("device.*.nodelete", Refused(FIXED)),
    ("device.*.queues", Mapped),
    ("device.*.queue_size", Mapped),
    ("device.*.ser", Refused("the guest reads drive_id as the serial number")),
    ("device.*.sectorsize", Refused("its disks have sectors of 512 bytes")),
    ("device.*.bootindex", Refused("it starts kernels only")),
    ("device.*.zoned", Refused(NO_ZONES)),
    ("device.*.zone_size", Refused(NO_ZONES)),
    ("device.*.zone_capacity", Refused(NO_ZONES)),
    ("device.*.conventional", Refused(NO_ZONES)),
    ("device.*.max_open", Refused(NO_ZONES)),
    ("device.*.max_active", Refused(NO_ZONES)),
    ("device.*.max_append", Refused(NO_ZONES)),
    ("device.*.power_cut", Refused(NO_ZONES)),
    ("device.*.rate.bps", Mapped),
    ("device.*.rate.iops", Mapped),
    ("device.*.tap.name", Mapped),
    ("device.*.tap.**", Refused(NO_TAP)),
    ("device.*.fd", Refused("it opens TAP interfaces by name")),
    ("device.*.mac", Mapped),
    ("device.*.mtu", Mapped),
    ("device.*.vhost", Refused("it moves packets itself")),
    ("device.*.cid", Mapped),
    ("device.*.size", Mapped),
    ("device.*.deflate_on_oom", Mapped),
    ("device.*.free_page_reporting", Mapped),
    ("device.*.**", Refused("it has no such device")),
    ("engine.firecracker.arg.*", Mapped),
    ("engine.**", Refused("it is an option of another system")),
    ("log.level", Refused(OURS)),
    ("sandbox", Refused(OURS)),
    ("control.**", Refused(OURS)),
    ("stats.path", Refused(OURS)),
    ("config.**", Refused(OURS)),
];

pub(crate) fn import(input: Input<'_>) -> Result<Imported, Diagnostics> {
    let table = read(input, "give the file that --config-file takes")?;
    let mut reading = Reading::new(ENGINE, ROWS);
    let mut groups: Vec<Group> = Vec::new();
    for (key, node) in &table {
        let name = key.name.as_str();
        if matches!(node.value, Read::Odd(_)) {
            continue;
        }
        if !SECTIONS.contains(&name) {
            reading.keep(format!("/{name}"), &key.place.origin());
            reading.keep(compact(node), &key.place.origin());
            continue;
        }
        for element in node.elements() {
            match group(name, element) {
                Some(group) => groups.push(group),
                None => reading.wrong(element.place.finding(format!("`{name}` is made of objects"))),
            }
        }
    }
    let start = Origin::Argument(0);
    for section in ["boot-source", "machine-config"] {
        if !groups.iter().any(|group| group.option == section) {
            reading.left_out(section, &start);
        }
    }
    for group in groups.iter_mut().filter(|group| group.option == "boot-source") {
        without_pci_off(&mut reading, group);
    }
    // The root device is the first disk, wherever it stands.
    groups
        .sort_by_key(|group| group.part("is_root_device").and_then(|part| part.value.switch()) != Some(true));
    groups.sort_by_key(|group| SECTIONS.iter().position(|section| *section == group.option));
    for mut group in groups {
        match group.option.as_str() {
            "boot-source" => reading.rows(&mut group),
            "machine-config" => machine(&mut reading, &mut group),
            "serial" => {
                if let Some(path) = group.take("serial_out_path") {
                    reading.set("console", format!("file:{}", path.value.shown()), &path.origin);
                }
            }
            _ => device(&mut reading, &mut group),
        }
        reading.rest("/", &group);
    }
    reading.finish()
}

/// Its devices are not on PCI unless it is told so; here they always are.
fn without_pci_off(reading: &mut Reading, group: &mut Group) {
    let Some(part) = group.take("boot_args") else { return };
    let line = part.value.shown();
    let words: Vec<&str> = line.split(' ').filter(|word| *word != "pci=off").collect();
    let value = Value::Text(words.join(" "));
    if value != part.value {
        reading.lose("pci=off", "devices are on PCI here; the guest has to look for them", &part.origin);
    }
    group.parts.push(Part { value, ..part });
}

fn machine(reading: &mut Reading, group: &mut Group) {
    reading.rows(group);
    let smt = group.take("smt").or_else(|| group.take("ht_enabled"));
    if let Some(part) = smt {
        match (part.value.switch(), reading.value("cpus").and_then(|cpus| cpus.parse::<u64>().ok())) {
            (Some(true), Some(cpus)) if cpus > 1 => {
                reading.set("threads", "2", &part.origin);
                reading.set("cores", (cpus / 2).to_string(), &part.origin);
            }
            (Some(_), _) => {}
            (None, _) => reading.wrong(bad_part("machine-config", &part, "true or false")),
        }
    }
    match group.part("huge_pages").map(|part| (part.value.shown(), part.origin.clone())) {
        Some((pages, origin)) if pages == "2M" => {
            reading.set("memory.backing", "hugetlb", &origin);
            reading.set("memory.page_size", "2M", &origin);
        }
        Some((pages, origin)) if pages == "None" => reading.set("memory.thp", "false", &origin),
        Some((pages, origin)) if pages == "Transparent" => reading.set("memory.thp", "true", &origin),
        Some(_) | None => return,
    }
    group.take("huge_pages");
}

fn device(reading: &mut Reading, group: &mut Group) {
    let (model, kind, name) = match group.option.as_str() {
        "drives" => ("virtio-blk", "disk", "drive_id"),
        "network-interfaces" => ("virtio-net", "net", "iface_id"),
        "vsock" => ("virtio-vsock", "vsock", "id"),
        "entropy" => ("virtio-rnd", "rng", "id"),
        _ => ("virtio-balloon", "balloon", "id"),
    };
    let id = reading.device(group, model, kind, name);
    if group.part("socket").is_some() {
        reading.set(&format!("device.{id}.backend"), "vhost-user", &group.origin);
        // Who does the I/O is up to the other process.
        group.push("io_engine", Value::text(""));
    }
    rate(reading, &id, group);
    reading.rows(group);
    if group.option == "drives" {
        root(reading, group);
        // What it has no key for is how it is here anyway.
        if group.part("cache_type").is_some_and(|part| part.value.shown() == "Writeback") {
            group.take("cache_type");
        }
    }
}

/// The root device adds words to the kernel's command line.
fn root(reading: &mut Reading, group: &mut Group) {
    let Some(part) = group.take("is_root_device") else { return };
    match part.value.switch() {
        Some(true) => {
            let partition = group.take("partuuid").map(|part| format!("PARTUUID={}", part.value.shown()));
            let ro = reading.value(&format!("device.{}.ro", group.id)) == Some("true");
            let root = format!(
                "root={} {}",
                partition.as_deref().unwrap_or("/dev/vda"),
                if ro { "ro" } else { "rw" }
            );
            let before = reading.value("boot.cmdline").map(|line| format!("{line} ")).unwrap_or_default();
            reading.set("boot.cmdline", format!("{before}{root}"), &part.origin);
        }
        Some(false) => {}
        None => reading.wrong(bad_part("drives", &part, "true or false")),
    }
}

/// Buckets of interfaces that are the same both ways, and those of disks, are a rate if they are
/// refilled every second and have no burst; others are kept.
fn rate(reading: &mut Reading, id: &str, group: &mut Group) {
    let limiters: &[&str] = match group.option.as_str() {
        "drives" => &["rate_limiter"],
        "network-interfaces" => &["rx_rate_limiter", "tx_rate_limiter"],
        _ => return,
    };
    for (bucket, field) in [("bandwidth", "rate.bps"), ("ops", "rate.iops")] {
        let number = |limiter: &str, part: &str| {
            group.part(&format!("{limiter}.{bucket}.{part}")).and_then(|part| part.value.number())
        };
        let of = |limiter: &&str| {
            let plain = number(limiter, "refill_time") == Some(1000)
                && number(limiter, "one_time_burst").unwrap_or(0) == 0;
            number(limiter, "size").filter(|_| plain)
        };
        let rates: Vec<Option<u64>> = limiters.iter().map(of).collect();
        let Some(Some(rate)) = rates.first().copied().filter(|first| rates.iter().all(|rate| rate == first))
        else {
            continue;
        };
        let mut origin = group.origin.clone();
        for limiter in limiters {
            for part in ["size", "refill_time", "one_time_burst"] {
                if let Some(part) = group.take(&format!("{limiter}.{bucket}.{part}")) {
                    origin = part.origin;
                }
            }
        }
        let value = if bucket == "bandwidth" { size(rate) } else { rate.to_string() };
        reading.set(&format!("device.{id}.{field}"), value, &origin);
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the signature all formats share")]
pub(crate) fn export(tree: &Tree) -> Result<Exported, Diagnostics> {
    let mut writing = Writing::new(tree, FATES, ROWS);
    let boot = writing.group("boot-source", "");
    writing.groups.push(boot);
    write_machine(&mut writing);
    for (option, model, name) in [
        ("drives", "virtio-blk", "drive_id"),
        ("network-interfaces", "virtio-net", "iface_id"),
        ("vsock", "virtio-vsock", ""),
        ("entropy", "virtio-rnd", ""),
        ("balloon", "virtio-balloon", ""),
    ] {
        for (index, id) in writing.devices(model).into_iter().enumerate() {
            if name.is_empty() && index > 0 {
                writing.keys.lose(&format!("device.{id}.model"), "it has one such device");
            } else {
                write_device(&mut writing, option, id, name);
            }
        }
    }
    write_console(&mut writing);
    let whole = writing.kept(ENGINE, "/");
    let (groups, losses) = writing.finish();
    let mut config = Object::default();
    for section in SECTIONS {
        let mut objects = groups.iter().filter(|group| group.option == *section).map(object);
        match *section {
            "drives" | "network-interfaces" => config.set(section, objects.map(Json::from).collect::<Json>()),
            _ => {
                if let Some(object) = objects.next() {
                    config.set(section, object);
                }
            }
        }
    }
    config.kept(&whole);
    Ok(Exported { output: Output::Text(config.file()), losses })
}

fn object(group: &Group) -> Object {
    let mut object = Object::default();
    for part in &group.parts {
        *object.at(&part.name) = json(&part.value);
    }
    object
}

fn write_machine(writing: &mut Writing<'_>) {
    let [sockets, cores, threads] = ["sockets", "cores", "threads"].map(|key| writing.take_int(key));
    let mut group = writing.group("machine-config", "");
    let product = [sockets, cores, threads].iter().fold(1, |product, part| product * part.unwrap_or(1));
    let cpus = group.part("vcpu_count").and_then(|part| part.value.number()).unwrap_or(product);
    if group.part("vcpu_count").is_none() {
        group.push("vcpu_count", Value::Number(cpus));
    }
    let smt = threads == Some(2) && cpus > 1;
    group.push("smt", Value::Switch(smt));
    if threads.unwrap_or(1) > 2 {
        writing.keys.lose("threads", "its processors have one thread, or two (smt)");
    }
    if sockets.unwrap_or(1) > 1 {
        writing.keys.lose("sockets", "its processors are all in one package");
    }
    match writing.take("memory.backing").unwrap_or("anon") {
        "hugetlb" => {
            writing.take("memory.page_size");
            if writing.int("memory.page_size") == Some(2 << 20) {
                group.push("huge_pages", Value::text("2M"));
            } else {
                writing.keys.lose("memory.page_size", "its huge pages have 2M");
            }
        }
        "anon" => {
            // Older versions do not know the word `Transparent`: it is written if it was asked for.
            if writing.take("memory.thp").is_some() {
                let on = writing.value("memory.thp") == Some(Ours::Bool(true));
                group.push("huge_pages", Value::text(if on { "Transparent" } else { "None" }));
            }
        }
        _ => writing.keys.lose("memory.backing", "it decides by itself what memory is made of"),
    }
    writing.groups.push(group);
}

fn write_device(writing: &mut Writing<'_>, option: &str, id: &str, name: &str) {
    let key = |field: &str| format!("device.{id}.{field}");
    if option == "entropy" {
        writing.keys.lose(&key("path"), "its randomness is the host's kernel");
    }
    let mut group = writing.group(option, id);
    if option == "balloon" && group.part("amount_mib").is_none() {
        group.push("amount_mib", Value::Number(0));
    }
    if name.is_empty() {
        let default = match option {
            "vsock" => "vsock0",
            "entropy" => "rng0",
            _ => "balloon0",
        };
        writing.unnamed(id, default);
    } else {
        group.push(name, Value::text(id));
    }
    if option == "network-interfaces" && group.part("host_dev_name").is_none() {
        writing.lose(format!("device {id} without tap.name"), "it opens a TAP interface by its name");
    }
    let vhost_user = writing.keys.peek(&key("backend")) == Some("vhost-user");
    match (option, writing.take(&key("backend"))) {
        (_, None) | ("drives", Some("file" | "vhost-user")) | ("network-interfaces", Some("tap")) => {}
        (_, Some(_)) => writing.keys.lose(&key("backend"), "it knows no such end on the host"),
    }
    if option == "drives" {
        group.push("is_root_device", Value::Switch(false));
        if vhost_user {
            for part in ["io_engine", "is_read_only", "path_on_host"] {
                group.take(part);
            }
        } else if group.part("is_read_only").is_none() {
            group.push("is_read_only", Value::Switch(false));
        }
        // Left out, it would ignore what the guest asks to be made durable.
        group.push("cache_type", Value::text("Writeback"));
        if writing.take(&key("format")).is_some_and(|format| format != "raw") {
            writing.keys.lose(&key("format"), "its disks are raw; `qemu-img convert -O raw` makes one");
        }
    }
    for (field, only) in [("queues", 1), ("queue_size", 256)] {
        if writing.take_int(&key(field)).is_some_and(|n| n != only) {
            writing.keys.lose(&key(field), QUEUES);
        }
    }
    for (bucket, field) in [("bandwidth", "rate.bps"), ("ops", "rate.iops")] {
        let Some(rate) = writing.take_int(&key(field)) else { continue };
        let limiters: &[&str] =
            if option == "drives" { &["rate_limiter"] } else { &["rx_rate_limiter", "tx_rate_limiter"] };
        for limiter in limiters {
            group.push(&format!("{limiter}.{bucket}.size"), Value::Number(rate));
            group.push(&format!("{limiter}.{bucket}.refill_time"), Value::Number(1000));
        }
    }
    writing.groups.push(group);
}

fn write_console(writing: &mut Writing<'_>) {
    let end = writing.value("console");
    writing.take("console");
    match end {
        Some(Ours::Endpoint(Endpoint::File(path))) => {
            let mut group = Group::new("serial", "");
            group.push("serial_out_path", Value::Text(path));
            writing.groups.push(group);
        }
        Some(Ours::Endpoint(Endpoint::Stdio)) | None => {}
        Some(_) => writing.keys.lose("console", "its serial port is standard output, or a file"),
    }
}
