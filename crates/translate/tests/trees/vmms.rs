//! Cloud Hypervisor, Firecracker and crosvm.
//!
//! What these leave unsaid often means something else than here, so it is written, and comes back
//! as a key that is set: each tree is completed with such defaults before it goes out.

use parador_config::keys::Key;
use parador_config::{Diagnostics, Origin, Tree};
use parador_translate::Format;
use proptest::prelude::*;
use proptest::sample::select;

use crate::come_back_as;
use crate::generate::{Subset, path, text};

/// A tree with what is always said: keys of the machine, keys of each device of a model; of some
/// models only the first device.
fn completed(tree: &Tree, machine: &[(&str, &str)], devices: &[(&str, &str, &str)], single: &[&str]) -> Tree {
    let tree = tree.expand(&mut Diagnostics::default());
    let mut out = Tree::default();
    let here = || Origin::Argument(1);
    let mut dropped: Vec<&str> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (key, setting) in tree.in_order() {
        let id = key.strip_prefix("device.").and_then(|rest| rest.split_once('.')).map_or("", |(id, _)| id);
        if key.ends_with(".model") && single.contains(&setting.value.as_str()) {
            if seen.contains(&setting.value.as_str()) {
                dropped.push(id);
            } else {
                seen.push(&setting.value);
            }
        }
        if !dropped.contains(&id) || id.is_empty() {
            out.set(key, setting.value.clone(), here());
        }
    }
    for (key, value) in machine {
        if out.setting(key).is_none() {
            out.set(key, *value, here());
        }
    }
    for id in out.devices().into_iter().map(str::to_owned).collect::<Vec<_>>() {
        let model = out.setting(&format!("device.{id}.model")).map(|model| model.value.clone());
        for (of, field, value) in devices {
            let key = format!("device.{id}.{field}");
            if model.as_deref() == Some(of) && out.setting(&key).is_none() {
                out.set(&key, *value, here());
            }
        }
    }
    out
}

/// Whether `key` is one of the machine's, or of `fields` for its model.
fn is_one_of(key: &Key, model: Option<&str>, machine: &[&str], fields: &[(&str, &[&str])]) -> bool {
    match (model, key.pattern.strip_prefix("device.*.")) {
        (Some(model), Some(field)) => {
            fields.iter().any(|(of, fields)| *of == model && fields.contains(&field))
        }
        _ => machine.contains(&key.pattern),
    }
}

/// Some text on one line; `"` has no form on one of the command lines.
fn some(max: usize) -> BoxedStrategy<String> {
    text(max)
        .prop_map(|text| text.replace(['"', '\0'], "_"))
        .prop_filter("text", |text| !text.is_empty())
        .boxed()
}

fn one_of(words: &[&'static str]) -> Option<BoxedStrategy<String>> {
    Some(select(words.to_vec()).prop_map(str::to_owned).boxed())
}

fn values(key: &Key, _: Option<&str>) -> Option<BoxedStrategy<String>> {
    match key.pattern {
        "boot.cmdline" => Some(some(200)),
        "system.serial_number" | "system.manufacturer" | "bios.vendor" => Some(some(60)),
        "device.*.ser" => Some(some(20)),
        "device.*.sharename" => Some(some(36)),
        "device.*.tap.name" => Some(some(15)),
        "device.*.addr" => Some((1..31_u8).prop_map(|slot| format!("0:{slot}.0")).boxed()),
        "device.*.host" => one_of(&["0000:01:00.0", "0000:c1:1f.7"]),
        "device.*.virtio_type" => one_of(&["gpu", "26"]),
        "device.*.queue_sizes" => one_of(&["256,128", "64"]),
        "device.*.size" => Some((1..1000_u32).prop_map(|mib| format!("{}M", mib * 2 + 1)).boxed()),
        "device.*.rate.bps" => Some((1..1000_u32).prop_map(|mib| format!("{}M", mib * 2 + 1)).boxed()),
        "device.*.port.0.path" => Some(path().prop_map(|path| format!("file:{path}")).boxed()),
        _ => None,
    }
}

const CLOUD_HYPERVISOR: Subset = Subset {
    models: &[
        "virtio-blk",
        "virtio-net",
        "virtio-fs",
        "virtio-vsock",
        "virtio-balloon",
        "virtio-console",
        "vhost-user",
        "passthru",
    ],
    key: |key, model| {
        const DISK: &[&str] = &[
            "addr",
            "path",
            "format",
            "ro",
            "nocache",
            "nodelete",
            "ser",
            "queues",
            "queue_size",
            "rate.bps",
            "rate.iops",
        ];
        is_one_of(
            key,
            model,
            &[
                "boot.kernel",
                "boot.initrd",
                "boot.cmdline",
                "bootrom",
                "console",
                "cpus",
                "memory.size",
                "memory.prefault",
                "memory.thp",
                "system.serial_number",
                "tpm.path",
                "uuid",
                "vcpu.*.cpuset",
            ],
            &[
                ("virtio-blk", DISK),
                ("virtio-net", &["addr", "tap.name", "mac", "mtu", "queues", "queue_size", "rate.bps"]),
                ("virtio-fs", &["addr", "sharename", "socket", "queues", "queue_size"]),
                ("virtio-vsock", &["addr", "cid", "socket"]),
                ("virtio-balloon", &["size", "deflate_on_oom", "free_page_reporting"]),
                ("virtio-console", &["port.0.path"]),
                ("vhost-user", &["virtio_type", "socket", "queue_sizes"]),
                ("passthru", &["host"]),
            ],
        )
    },
    value: values,
    always: &[("device.rng0.model", "virtio-rnd")],
    named: false,
    own: false,
    ordered: false,
};

fn cloud_hypervisor(tree: &Tree) -> Tree {
    let tpm: &[(&str, &str)] =
        if tree.setting("tpm.path").is_some() { &[("tpm.type", "swtpm")] } else { &[] };
    let machine = [&[("cpus", "1"), ("memory.size", "256M"), ("console", "stdio")], tpm].concat();
    completed(
        tree,
        &machine,
        &[
            ("virtio-blk", "format", "raw"),
            ("virtio-blk", "queue_size", "256"),
            ("virtio-balloon", "size", "0"),
            ("virtio-balloon", "deflate_on_oom", "true"),
            ("virtio-balloon", "free_page_reporting", "true"),
            ("virtio-console", "port.0.path", "none"),
        ],
        &["virtio-vsock", "virtio-balloon", "virtio-console"],
    )
}

#[test]
fn a_command_line_of_cloud_hypervisor_comes_back() {
    come_back_as(Format::ChArgs, &CLOUD_HYPERVISOR, cloud_hypervisor);
}

#[test]
fn a_vm_config_of_cloud_hypervisor_comes_back() {
    come_back_as(Format::ChJson, &CLOUD_HYPERVISOR, cloud_hypervisor);
}

const FIRECRACKER: Subset = Subset {
    models: &["virtio-blk", "virtio-net", "virtio-rnd", "virtio-vsock", "virtio-balloon"],
    key: |key, model| {
        is_one_of(
            key,
            model,
            &["boot.kernel", "boot.initrd", "boot.cmdline", "console", "cpus", "memory.size", "memory.thp"],
            &[
                ("virtio-blk", &["path", "ro", "aio", "rate.bps", "rate.iops"]),
                ("virtio-net", &["tap.name", "mac", "mtu", "rate.bps", "rate.iops"]),
                ("virtio-vsock", &["cid", "socket"]),
                ("virtio-balloon", &["size", "deflate_on_oom", "free_page_reporting"]),
            ],
        )
    },
    value: |key, model| match key.pattern {
        "device.*.aio" => one_of(&["sync", "io_uring"]),
        "console" => Some(path().prop_map(|path| format!("file:{path}")).boxed()),
        _ => values(key, model),
    },
    always: &[],
    named: false,
    own: false,
    ordered: false,
};

#[test]
fn a_configuration_of_firecracker_comes_back() {
    come_back_as(Format::FcJson, &FIRECRACKER, |tree| {
        completed(
            tree,
            &[("cpus", "1"), ("memory.size", "256M")],
            &[
                ("virtio-blk", "ro", "false"),
                ("virtio-net", "tap.name", "tap0"),
                ("virtio-blk", "aio", "io_uring"),
                ("virtio-balloon", "size", "0"),
                ("virtio-balloon", "deflate_on_oom", "true"),
                ("virtio-balloon", "free_page_reporting", "true"),
            ],
            &["virtio-rnd", "virtio-vsock", "virtio-balloon"],
        )
    });
}

const CROSVM: Subset = Subset {
    models: &[
        "virtio-blk",
        "virtio-net",
        "virtio-rnd",
        "virtio-balloon",
        "virtio-console",
        "vhost-user",
        "passthru",
    ],
    key: |key, model| {
        is_one_of(
            key,
            model,
            &[
                "boot.kernel",
                "boot.initrd",
                "boot.cmdline",
                "bootrom",
                "bootvars",
                "console",
                "lpc.com2.path",
                "lpc.com4.path",
                "cpus",
                "gdb.port",
                "memory.size",
                "memory.thp",
                "memory.wired",
                "system.manufacturer",
                "system.serial_number",
                "bios.vendor",
                "uuid",
                "vcpu.*.cpuset",
            ],
            &[
                (
                    "virtio-blk",
                    &["addr", "path", "ro", "nocache", "nodelete", "ser", "sectorsize", "aio", "bootindex"],
                ),
                ("virtio-net", &["addr", "tap.name", "mac", "queues", "vhost"]),
                ("virtio-balloon", &["free_page_reporting"]),
                ("virtio-console", &["port.0.path"]),
                ("vhost-user", &["virtio_type", "socket"]),
                ("passthru", &["host", "addr"]),
            ],
        )
    },
    value: |key, model| match key.pattern {
        "device.*.addr" => None,
        "device.*.aio" => one_of(&["threads", "io_uring"]),
        "device.*.sectorsize" => one_of(&["512", "4096"]),
        "memory.wired" => one_of(&["true"]),
        "console" | "lpc.com2.path" | "lpc.com4.path" => {
            let made = path().prop_map(|path| format!("unix:{path}"));
            Some(prop_oneof![select(vec!["stdio", "none"]).prop_map(str::to_owned), made].boxed())
        }
        "boot.cmdline" => {
            Some(text(200).prop_filter("text", |text| !text.is_empty() && !text.contains('\0')).boxed())
        }
        _ => values(key, model),
    },
    always: &[],
    named: false,
    own: false,
    ordered: false,
};

#[test]
fn a_command_line_of_crosvm_comes_back() {
    come_back_as(Format::CrosvmArgs, &CROSVM, |tree| {
        completed(
            tree,
            &[("cpus", "1"), ("console", "stdio"), ("memory.thp", "true")],
            &[
                ("virtio-blk", "aio", "io_uring"),
                ("virtio-balloon", "free_page_reporting", "true"),
                ("virtio-console", "port.0.path", "none"),
                ("vhost-user", "virtio_type", "gpu"),
                ("virtio-net", "tap.name", "tap0"),
                ("passthru", "host", "0000:01:00.0"),
            ],
            &["virtio-rnd", "virtio-balloon"],
        )
    });
}
