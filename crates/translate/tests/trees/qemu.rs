//! QEMU's command line.

use parador_config::keys::{Key, Kind};
use parador_config::{Origin, Tree};
use parador_translate::{Fate, Format};
use proptest::prelude::*;
use proptest::sample::select;

use crate::come_back_as;
use crate::generate::{Subset, text};

/// All but virtio-vsock, which is another thing there, and is said to be.
const SUBSET: Subset = Subset {
    models: &[
        "ahci",
        "e1000",
        "fbuf",
        "nvme",
        "passthru",
        "uart",
        "virtio-9p",
        "virtio-balloon",
        "virtio-blk",
        "virtio-console",
        "virtio-fs",
        "virtio-input",
        "virtio-net",
        "virtio-rnd",
        "xhci",
    ],
    key: said,
    value: values,
    // What QEMU has to be told, as its defaults are others.
    always: &[("memory.size", "1G"), ("console", "pty")],
    named: false,
    own: false,
    // Devices with an address come first.
    ordered: false,
};

/// Keys that only make sense with others, or with some values of others; [`together`] sees to some.
const COMBINED: &[&str] = &[
    "bootvars",
    "bootvars_mode",
    "gdb.address",
    "gdb.port",
    "gdb.wait",
    "lpc.com2.path",
    "lpc.com3.path",
    "lpc.com4.path",
    "machine.type",
    "memory.page_size",
    "memory.path",
    "sandbox",
    "tpm.path",
    "tpm.type",
    "tpm.version",
    "device.*.backend",
    "device.*.fd",
    "device.*.hostfwd",
    "device.*.socket",
    "device.*.tap.bridge",
    "device.*.bus",
    "device.*.slot",
    "device.*.func",
    "device.*.slot.*.device",
    "device.*.port.*.ro",
    "device.*.port.0.name",
    "device.*.port.*.name",
];

/// Whether QEMU has this key.
fn said(key: &Key, model: Option<&str>) -> bool {
    let fits = |pattern: &str| {
        let mut parts = key.pattern.split('.');
        let (pattern, rest) = pattern.strip_suffix(".**").map_or((pattern, false), |pattern| (pattern, true));
        pattern.split('.').all(|want| parts.next().is_some_and(|part| want == "*" || want == part))
            && parts.next().is_some() == rest
    };
    let fate = Format::QemuArgs.fates().rows().find(|(pattern, _)| fits(pattern));
    if fate.map(|(_, fate)| fate) != Some(Fate::Mapped) || key.pattern.starts_with("engine.") {
        return false;
    }
    match (key.pattern, model) {
        ("device.*.socket", Some("virtio-fs")) => true,
        // virtiofsd knows these.
        ("device.*.path" | "device.*.ro", Some("virtio-fs")) => false,
        ("device.*.sectorsize" | "device.*.format" | "device.*.aio", Some("nvme")) => false,
        (pattern, _) => !COMBINED.contains(&pattern),
    }
}

/// Some values only: others are what is so anyway, and not said.
fn values(key: &Key, _: Option<&str>) -> Option<BoxedStrategy<String>> {
    let only = |words: &[&'static str]| Some(select(words.to_vec()).prop_map(str::to_owned).boxed());
    match key.pattern {
        "on_reset" => only(&["stop"]),
        "on_panic" => only(&["ignore"]),
        "rtc.use_localtime"
        | "memory.shared"
        | "memory.prefault"
        | "device.*.nodelete"
        | "device.*.port.*.nodelete" => only(&["true"]),
        "device.*.deflate_on_oom" | "device.*.free_page_reporting" => only(&["false"]),
        "memory.backing" => only(&["memfd", "hugetlb"]),
        "cpu.model" => only(&["max", "EPYC-v4"]),
        "cpu.features" => only(&["+x2apic", "-avx,+pdpe1gb"]),
        "device.*.format" => only(&["qcow2"]),
        "device.*.aio" => only(&["io_uring", "threads"]),
        "device.*.vga" => only(&["on"]),
        "device.*.rfb" => only(&["127.0.0.1:5900", "[::1]:5999", "unix:/run/vnc"]),
        "device.*.host" => only(&["0000:01:00.0"]),
        _ => match key.kind {
            Kind::Text { max } => Some(text(max).prop_filter("no NUL", |text| !text.contains('\0')).boxed()),
            _ => None,
        },
    }
}

/// The tree with what its devices cannot do without, and with its devices connected in various ways.
fn together(tree: &Tree) -> Tree {
    let mut out = tree.clone();
    let mut set = |key: String, value: &str| {
        out.set(&key, value, Origin::Argument(1));
    };
    for (index, id) in tree.devices().into_iter().enumerate() {
        let has = |key: &str| tree.setting(&format!("device.{id}.{key}")).is_some();
        let model = tree.setting(&format!("device.{id}.model")).map_or("", |setting| &setting.value);
        match model {
            "virtio-blk" | "nvme" | "virtio-9p" if !has("path") => set(format!("device.{id}.path"), "/image"),
            "virtio-fs" if !has("socket") => set(format!("device.{id}.socket"), "/socket"),
            "passthru" if !has("host") => set(format!("device.{id}.host"), "0000:02:00.1"),
            "uart" if !has("path") => set(format!("device.{id}.path"), "none"),
            "fbuf" if !has("rfb") => set(format!("device.{id}.rfb"), "127.0.0.1:5901"),
            "ahci" => {
                set(format!("device.{id}.port.0.type"), if index % 2 == 0 { "hd" } else { "cd" });
                set(format!("device.{id}.port.0.path"), "/image, of a kind");
                if index % 2 == 0 {
                    set(format!("device.{id}.port.0.ro"), "true");
                }
            }
            "xhci" => set(format!("device.{id}.slot.1.device"), "tablet"),
            "virtio-console" => set(format!("device.{id}.port.0.path"), "unix:/a,b"),
            "virtio-net" | "e1000" if !has("tap.name") && !has("queues") && !has("vhost") => {
                match index % 3 {
                    0 => {
                        set(format!("device.{id}.backend"), "user");
                        set(format!("device.{id}.hostfwd"), "tcp::2222-:22;udp:127.0.0.1:53-:53");
                    }
                    1 => set(format!("device.{id}.backend"), "none"),
                    _ => set(format!("device.{id}.tap.bridge"), "br0"),
                }
            }
            _ => {}
        }
    }
    out
}

#[test]
fn a_command_line_of_qemu_comes_back() {
    come_back_as(Format::QemuArgs, &SUBSET, together);
}
