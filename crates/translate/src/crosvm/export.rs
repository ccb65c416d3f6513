//! A tree as crosvm's command line.

use parador_config::{Diagnostics, Endpoint, Tree, Value as Ours};

use super::value::quoted;
use super::{ENGINE, FATES, ROWS};
use crate::format::{Exported, Output};
use crate::parts::{Group, Value, ranges};
use crate::writing::Writing;

#[expect(clippy::unnecessary_wraps, reason = "the signature all formats share")]
pub(crate) fn export(tree: &Tree) -> Result<Exported, Diagnostics> {
    let mut writing = Writing::new(tree, FATES, ROWS);
    for option in
        ["cpus", "mem", "hugepages", "lock-guest-memory", "initrd", "bios", "pflash", "gdb", "smbios"]
    {
        let group = writing.group(option, "");
        writing.groups.push(group);
    }
    affinity(&mut writing);
    if let Some(line) = writing.take("boot.cmdline") {
        single(&mut writing, "params", line);
    }
    serial(&mut writing);
    for (model, option, kind) in [
        ("virtio-blk", "block", "disk"),
        ("virtio-net", "net", "net"),
        ("virtio-fs", "vhost-user", "fs"),
        ("virtio-vsock", "vsock", "vsock"),
        ("vhost-user", "vhost-user", "vhost"),
        ("passthru", "vfio", "dev"),
    ] {
        for (index, id) in writing.devices(model).into_iter().enumerate() {
            writing.unnamed(id, &format!("{kind}{index}"));
            if option == "vsock" && index > 0 {
                writing.keys.lose(&format!("device.{id}.model"), "it has one such device");
            } else {
                device(&mut writing, option, model, id);
            }
        }
    }
    always(&mut writing);
    let kernel = writing.take("boot.kernel");
    let whole = writing.kept(ENGINE, "--");
    let (groups, losses) = writing.finish();
    let mut words = vec!["crosvm".to_owned(), "run".to_owned()];
    for group in groups {
        words.extend(option(&group));
    }
    words.extend(whole);
    words.extend(kernel.map(str::to_owned));
    Ok(Exported { output: Output::Arguments(words), losses })
}

/// The group as words: none if there is nothing in it, one if it is a switch.
fn option(group: &Group) -> Vec<String> {
    let name = format!("--{}", group.option);
    let switch = |part: &crate::parts::Part| match part.value {
        Value::Switch(on) => Some(on),
        Value::Text(_) | Value::Number(_) | Value::Size(_) | Value::List(_) | Value::Json(_) => None,
    };
    match &group.parts[..] {
        [] => Vec::new(),
        [only] if only.name.is_empty() => match switch(only) {
            Some(true) => vec![name],
            Some(false) => Vec::new(),
            None => vec![name, only.value.shown()],
        },
        parts => {
            let parts: Vec<String> = parts
                .iter()
                .enumerate()
                .map(|(index, part)| match switch(part) {
                    // Alone in the first place, the name would be taken for a value.
                    Some(true) if index > 0 => part.name.clone(),
                    Some(true) => format!("{}=true", part.name),
                    Some(false) => format!("{}=false", part.name),
                    None => format!("{}={}", part.name, quoted(&part.value.shown())),
                })
                .collect();
            vec![name, parts.join(",")]
        }
    }
}

fn single(writing: &mut Writing<'_>, option: &str, value: &str) {
    let mut group = Group::new(option, "");
    group.push("", Value::text(value));
    writing.groups.push(group);
}

fn affinity(writing: &mut Writing<'_>) {
    let mut pairs = Vec::new();
    for vcpu in 0..writing.int("cpus").unwrap_or(1) {
        let key = format!("vcpu.{vcpu}.cpuset");
        if let Some(Ours::Cpus(hosts)) = writing.take(&key).and_then(|_| writing.value(&key)) {
            pairs.push(format!("{vcpu}={}", ranges(&hosts)));
        }
    }
    if !pairs.is_empty() {
        single(writing, "cpu-affinity", &pairs.join(":"));
    }
}

fn serial(writing: &mut Writing<'_>) {
    port(writing, "console", "serial", 1);
    for number in 2..=4 {
        let key = format!("lpc.com{number}.path");
        if writing.keys.peek(&key).is_some() {
            port(writing, &key, "serial", number);
        }
    }
    for (index, id) in writing.devices("virtio-console").into_iter().enumerate() {
        writing.unnamed(id, &format!("console{index}"));
        port(writing, &format!("device.{id}.port.0.path"), "virtio-console", index as u64 + 1);
    }
}

/// A serial port or console; without the part `console`, it adds nothing to the kernel's words.
fn port(writing: &mut Writing<'_>, key: &str, hardware: &str, number: u64) {
    let end = writing.value(key);
    writing.take(key);
    let (kind, path) = match end {
        Some(Ours::Endpoint(Endpoint::Stdio)) => ("stdout", None),
        Some(Ours::Endpoint(Endpoint::File(path))) => ("file", Some(path)),
        Some(Ours::Endpoint(Endpoint::Unix(path))) => ("unix-stream", Some(path)),
        Some(Ours::Endpoint(Endpoint::Pty)) => {
            writing.keys.lose(key, "it makes no pseudo-terminals");
            ("sink", None)
        }
        Some(_) | None => ("sink", None),
    };
    let mut group = Group::new("serial", &format!("{hardware}{number}"));
    group.push("type", Value::text(kind));
    if let Some(path) = path {
        group.push("path", Value::Text(path));
    }
    group.push("hardware", Value::text(hardware));
    group.push("num", Value::Number(number));
    if kind == "stdout" {
        group.push("stdin", Value::Switch(true));
    }
    writing.groups.push(group);
}

fn device(writing: &mut Writing<'_>, option: &str, model: &str, id: &str) {
    let key = |field: &str| format!("device.{id}.{field}");
    let backend = writing.take(&key("backend"));
    let vhost_user = option == "vhost-user" || backend == Some("vhost-user");
    let option = if vhost_user { "vhost-user" } else { option };
    let mut group = Group::new(option, id);
    if vhost_user {
        let kind = match model {
            "virtio-blk" => "block",
            "virtio-net" => "net",
            "virtio-fs" => "fs",
            _ => writing.take(&key("virtio_type")).unwrap_or_default(),
        };
        group.push("type", Value::text(kind));
    }
    match (model, backend) {
        (_, None | Some("vhost-user"))
        | ("virtio-blk", Some("file"))
        | ("virtio-net", Some("tap" | "fd")) => {}
        (_, Some(_)) => writing.keys.lose(&key("backend"), "it knows no such end on the host"),
    }
    group.parts.extend(writing.group(option, id).parts);
    if let Some(part) = group.part("block-size").cloned()
        && let Some((logical, _)) = part.value.shown().split_once('/')
    {
        group.take("block-size");
        group.push("block-size", Value::text(logical));
        writing.keys.lose(&key("sectorsize"), "it knows one block size, the logical one");
    }
    if let Some(Ours::Address(address)) = writing.take(&key("addr")).and_then(|_| writing.value(&key("addr")))
    {
        let text = format!("{:02x}:{:02x}.{:x}", address.bus, address.slot, address.function);
        group.push("pci-address", Value::Text(text));
    }
    match option {
        "vsock" => {
            writing.keys.lose(&key("socket"), "its connections are the host kernel's, not a UNIX socket's");
        }
        "vfio" => host(writing, id, &mut group),
        "block" if writing.take_int(&key("queues")).is_some_and(|queues| queues != 1) => {
            writing.keys.lose(&key("queues"), "it decides by itself how many queues a disk has");
        }
        _ => {}
    }
    if group.parts.is_empty() {
        writing.keys.lose(&key("model"), "it needs to know what is behind it on the host");
    }
    writing.groups.push(group);
}

fn host(writing: &mut Writing<'_>, id: &str, group: &mut Group) {
    if let Some(name) = writing.host(id) {
        group.parts.insert(
            0,
            crate::parts::Part {
                name: "path".to_owned(),
                value: Value::Text(format!("/sys/bus/pci/devices/{name}")),
                origin: group.origin.clone(),
            },
        );
    }
}

/// Devices that are there unless they are turned off.
fn always(writing: &mut Writing<'_>) {
    for (model, kind, switch) in
        [("virtio-rnd", "rng", "no-rng"), ("virtio-balloon", "balloon", "no-balloon")]
    {
        let devices = writing.devices(model);
        for id in devices.iter().skip(1) {
            writing.keys.lose(&format!("device.{id}.model"), "it has one such device");
        }
        let Some(id) = devices.first() else {
            let mut group = Group::new(switch, "");
            group.push("", Value::Switch(true));
            writing.groups.push(group);
            continue;
        };
        writing.unnamed(id, &format!("{kind}0"));
        writing.keys.lose(&format!("device.{id}.addr"), "it chooses where this device sits");
        if model == "virtio-rnd" {
            writing.keys.lose(&format!("device.{id}.path"), "its randomness is the host's kernel");
        } else {
            balloon(writing, id);
        }
    }
}

fn balloon(writing: &mut Writing<'_>, id: &str) {
    let key = |field: &str| format!("device.{id}.{field}");
    let group = writing.group("balloon-page-reporting", id);
    writing.groups.push(group);
    let size = writing.take_int(&key("size")).unwrap_or(0);
    let memory = writing.int("memory.size").unwrap_or(0);
    if size > 0 && size <= memory && (memory - size).is_multiple_of(1 << 20) {
        single(writing, "init-mem", &((memory - size) >> 20).to_string());
    } else if size > 0 {
        writing.keys.lose(&key("size"), "it is more than the memory, or not in whole MiB");
    }
    if writing.take(&key("deflate_on_oom")).is_some()
        && writing.value(&key("deflate_on_oom")) == Some(Ours::Bool(false))
    {
        writing.keys.lose(&key("deflate_on_oom"), "its guests may always take memory back");
    }
}
