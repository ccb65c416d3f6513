//! libvirt's domain XML.

use parador_config::keys::Key;
use parador_translate::Format;
use proptest::prelude::*;
use proptest::sample::select;

use crate::come_back;
use crate::generate::{Subset, value};

/// Keys that a document has words for, in every combination.
const MACHINE: &[&str] = &[
    "uuid",
    "vcpu.*.cpuset",
    "on_reset",
    "on_panic",
    "machine.type",
    "cpu.model",
    "cpu.features",
    "rtc.use_localtime",
    "x86.strictmsr",
    "memory.max",
    "memory.backing",
    "memory.shared",
    "memory.prefault",
    "memory.wired",
    "memory.guest_in_core",
    "domains.*.cpus",
    "boot.kernel",
    "boot.initrd",
    "boot.cmdline",
    "bootvars",
    "console",
    "lpc.com2.path",
    "lpc.com3.path",
    "lpc.com4.path",
];

/// Keys of devices that one has no words for, or only together with others.
const DEVICE: &[&str] = &[
    "device.*.addr",
    "device.*.path",
    "device.*.format",
    "device.*.ro",
    "device.*.nocache",
    "device.*.nodelete",
    "device.*.aio",
    "device.*.queues",
    "device.*.queue_size",
    "device.*.ser",
    "device.*.sectorsize",
    "device.*.rate.bps",
    "device.*.rate.iops",
    "device.*.tap.name",
    "device.*.tap.bridge",
    "device.*.mac",
    "device.*.mtu",
    "device.*.vhost",
    "device.*.cid",
    "device.*.sharename",
];

const MODELS: &[&str] = &[
    "virtio-blk",
    "nvme",
    "virtio-net",
    "e1000",
    "virtio-rnd",
    "virtio-vsock",
    "virtio-fs",
    "virtio-9p",
    "virtio-input",
];

fn is_said(key: &Key, model: Option<&str>) -> bool {
    let smbios =
        ["bios.", "system.", "board.", "chassis."].iter().any(|table| key.pattern.starts_with(table));
    match (key.pattern, model) {
        (pattern, None) => smbios || MACHINE.contains(&pattern),
        ("device.*.rate.bps" | "device.*.rate.iops", Some("virtio-net")) => false,
        ("device.*.queues", Some("virtio-fs")) => false,
        (pattern, Some(_)) => DEVICE.contains(&pattern),
    }
}

/// Values that are not what a document says without a word, and text that XML can have.
fn said(key: &Key, model: Option<&str>) -> Option<BoxedStrategy<String>> {
    let one = |words: &[&str]| {
        Some(select(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()).boxed())
    };
    match (key.pattern, model) {
        ("machine.type", _) => one(&["microvm"]),
        ("on_panic", _) => one(&["stop"]),
        ("memory.wired" | "device.*.ro", _) => one(&["true"]),
        ("cpu.model", _) => one(&["Skylake-Server", "EPYC-v4"]),
        ("cpu.features", _) => one(&["+x2apic", "-avx,+vmx"]),
        ("device.*.format", _) => one(&["qcow2"]),
        ("device.*.aio", _) => one(&["io_uring", "threads"]),
        ("device.*.sectorsize", _) => one(&["512", "512/4096", "4096/4096"]),
        _ => match key.kind {
            parador_config::keys::Kind::Text { max } => {
                let text = "[ -~äß☃]{1,30}".prop_map(move |mut text| {
                    while text.len() > max {
                        text.pop();
                    }
                    text
                });
                Some(text.boxed())
            }
            kind => Some(value(kind)),
        },
    }
}

const SUBSET: Subset = Subset {
    models: MODELS,
    key: is_said,
    value: said,
    always: &[
        ("name", "web & <co>"),
        ("memory.size", "2G"),
        ("cpus", "8"),
        ("sockets", "2"),
        ("cores", "2"),
        ("threads", "2"),
        ("domains.0.size", "2G"),
        ("bootrom", "/usr/share/OVMF/OVMF_CODE.fd"),
        ("engine.libvirt.arg.0", "devices <sound model='ich9'/>"),
        ("engine.qemu.arg.0", "-device"),
        ("engine.qemu.arg.1", "ipmi-bmc-sim,id='bmc0'"),
    ],
    named: true,
    own: false,
    ordered: true,
};

#[test]
fn trees_come_back_from_a_domain_document() {
    come_back(Format::LibvirtXml, &SUBSET);
}

#[test]
fn trees_come_back_whose_keys_need_each_other() {
    let always = &[
        ("name", "web"),
        ("cpus", "1"),
        ("memory.size", "4G"),
        ("memory.backing", "hugetlb"),
        ("memory.page_size", "1G"),
        ("memory.shared", "true"),
        ("tpm.type", "passthru"),
        ("tpm.path", "/dev/tpm0"),
        ("keyboard.layout", "de"),
        ("device.screen0.model", "fbuf"),
        ("device.screen0.rfb", "127.0.0.1:5904"),
        ("device.screen0.w", "1280"),
        ("device.screen0.h", "720"),
        ("device.pointer.model", "xhci"),
        ("device.pointer.slot.1.device", "tablet"),
        ("device.vdb.model", "virtio-blk"),
        ("device.vdb.path", "/dev/vg/web"),
        ("device.vdb.bootindex", "1"),
        ("device.vdb.nocache", "true"),
        ("device.vdb.sync", "true"),
        ("device.disk0.model", "virtio-blk"),
        ("device.disk0.backend", "vhost-user"),
        ("device.disk0.socket", "/run/blk.sock"),
        ("device.cds.model", "ahci"),
        ("device.cds.addr", "0:31.2"),
        ("device.cds.port.0.type", "cd"),
        ("device.cds.port.0.path", "/iso/debian.iso"),
        ("device.cds.port.0.bootindex", "2"),
        ("device.cds.port.3.type", "hd"),
        ("device.cds.port.3.path", "/vm/old.img"),
        ("device.cds.port.3.ser", "S3"),
        ("device.net1.model", "virtio-net"),
        ("device.net1.backend", "macvtap"),
        ("device.net1.tap.link", "eth0"),
        ("device.net1.tap.mode", "passthru"),
        ("device.net0.model", "virtio-net"),
        ("device.net0.backend", "vhost-user"),
        ("device.net0.socket", "/run/net.sock"),
        ("device.net2.model", "e1000"),
        ("device.net2.backend", "user"),
        ("device.net3.model", "virtio-net"),
        ("device.net3.tap.name", "tap7"),
        ("device.net3.tap.create", "no"),
        ("device.gpu.model", "passthru"),
        ("device.gpu.host", "0000:65:00.1"),
        ("device.gpu.rom", "/rom/gpu.bin"),
        ("device.console0.model", "virtio-console"),
        ("device.console0.port.0.path", "pty"),
        ("device.agent.model", "virtio-console"),
        ("device.agent.addr", "0:9.0"),
        ("device.agent.port.0.path", "none"),
        ("device.agent.port.1.name", "org.qemu.guest_agent.0"),
        ("device.agent.port.1.path", "unix:/run/agent.sock"),
        ("device.share.model", "virtio-fs"),
        ("device.share.sharename", "home"),
        ("device.share.socket", "/run/fs.sock"),
        ("device.b.model", "virtio-balloon"),
        ("device.b.size", "1G"),
        ("device.b.deflate_on_oom", "false"),
    ];
    come_back(Format::LibvirtXml, &Subset { always, key: |_, _| false, models: &["virtio-rnd"], ..SUBSET });
}
