//! What a device can be, and the keys that every device has.

use super::row::{Listed, Row, key};
use super::{Elsewhere, Kind, Support};

/// A kind of device.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    /// What `device.*.model` is set to.
    pub name: &'static str,
    /// What Parador's own engine makes of it.
    pub support: Support,
    /// What other systems call it.
    pub elsewhere: Elsewhere,
    /// What it is, in one sentence.
    pub doc: &'static str,
}

/// The model called `name`.
#[must_use]
pub fn model(name: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.name == name)
}

/// The names of those that Parador's own engine has.
pub(crate) fn native_models() -> Vec<&'static str> {
    let native = MODELS.iter().filter(|model| model.support == Support::Native);
    native.map(|model| model.name).collect()
}

const fn native(name: &'static str, names: [&'static str; 6], doc: &'static str) -> Model {
    let [bhyve, qemu, cloud_hypervisor, firecracker, crosvm, libvirt] = names;
    let elsewhere = Elsewhere { bhyve, qemu, cloud_hypervisor, firecracker, crosvm, libvirt };
    Model { name, support: Support::Native, elsewhere, doc }
}

const fn other(name: &'static str, names: [&'static str; 6], support: Support, doc: &'static str) -> Model {
    Model { support, ..native(name, names, doc) }
}

/// The models a device can be. The names elsewhere are in the order of [`Elsewhere`].
pub static MODELS: &[Model] = &[
    native(
        "virtio-blk",
        ["virtio-blk", "virtio-blk-pci", "--disk", "drives", "--block", "disk, bus=virtio"],
        "A disk.",
    ),
    native(
        "virtio-net",
        ["virtio-net", "virtio-net-pci", "--net", "network-interfaces", "--net", "interface, model=virtio"],
        "A network interface.",
    ),
    native(
        "virtio-rnd",
        ["virtio-rnd", "virtio-rng-pci", "--rng", "entropy", "always there", "rng"],
        "A source of entropy.",
    ),
    native(
        "virtio-console",
        [
            "virtio-console",
            "virtio-serial-pci",
            "--console",
            "",
            "--serial hardware=virtio-console",
            "console, type=virtio",
        ],
        "A console.",
    ),
    native(
        "virtio-vsock",
        ["", "vhost-vsock-pci", "--vsock", "vsock", "--vsock", "vsock"],
        "Sockets between guest and host.",
    ),
    native(
        "virtio-balloon",
        ["", "virtio-balloon-pci", "--balloon", "balloon", "always there", "memballoon"],
        "A way to take memory back from the guest.",
    ),
    native(
        "virtio-fs",
        ["", "vhost-user-fs-pci", "--fs", "", "--shared-dir, --vhost-user fs", "filesystem, driver=virtiofs"],
        "A folder of the host, over a vhost-user process.",
    ),
    other(
        "virtio-9p",
        ["virtio-9p", "virtio-9p-pci", "", "", "--shared-dir type=p9", "filesystem"],
        Support::Refused("use model=virtio-fs"),
        "A folder of the host, over the 9P protocol.",
    ),
    other(
        "virtio-scsi",
        ["virtio-scsi", "virtio-scsi-pci", "", "", "", "controller, type=scsi"],
        Support::Refused("use model=virtio-blk, or model=vhost-user with virtio_type=scsi"),
        "A SCSI host adapter.",
    ),
    other(
        "virtio-input",
        ["virtio-input", "virtio-input-host-pci", "", "", "--input", "input"],
        Support::Refused("leave it out, or use model=vhost-user with virtio_type=input"),
        "An input device of the host.",
    ),
    native(
        "vhost-user",
        ["", "vhost-user-device-pci", "--generic-vhost-user", "", "--vhost-user", ""],
        "Any device that another process is, over vhost-user.",
    ),
    other(
        "nvme",
        ["nvme", "nvme", "", "", "", "disk, bus=nvme"],
        Support::Refused("use model=virtio-blk"),
        "A disk with the NVMe interface.",
    ),
    other(
        "ahci",
        ["ahci, ahci-hd, ahci-cd", "ich9-ahci", "", "", "", "disk, bus=sata"],
        Support::Refused("use model=virtio-blk for each disk"),
        "A SATA controller with disks and optical drives.",
    ),
    other(
        "e1000",
        ["e1000", "e1000", "", "", "", "interface, model=e1000"],
        Support::Refused("use model=virtio-net"),
        "A network interface of Intel's.",
    ),
    other(
        "passthru",
        ["passthru", "vfio-pci", "--device", "", "--vfio", "hostdev"],
        Support::Refused("devices of the host cannot be given to a guest yet"),
        "A PCI device of the host.",
    ),
    other(
        "fbuf",
        ["fbuf", "VGA, bochs-display", "", "", "--gpu", "video, graphics"],
        Support::Refused("there is no screen; use `console`"),
        "A screen, shown over VNC.",
    ),
    other(
        "xhci",
        ["xhci", "qemu-xhci", "", "", "", "controller, type=usb"],
        Support::Refused("there is no USB; leave it out"),
        "A USB controller.",
    ),
    other(
        "hda",
        ["hda", "intel-hda", "", "", "--sound", "sound"],
        Support::Refused("there is no sound; leave it out"),
        "A sound card.",
    ),
    other(
        "uart",
        ["uart", "pci-serial", "", "", "", "serial, type=pci"],
        Support::Refused("use `console`, or model=virtio-console"),
        "A serial port on PCI.",
    ),
    other(
        "hostbridge",
        ["hostbridge", "", "", "", "", ""],
        Support::Always("every machine has one at 0:0.0"),
        "The bridge between processors and PCI.",
    ),
    other(
        "lpc",
        ["lpc", "", "", "", "", ""],
        Support::Always("what sits behind it is always there"),
        "The bridge to the serial ports and the clock.",
    ),
];

/// Their names, for messages.
const NAMES: Listed = &{
    let mut names = [""; MODELS.len()];
    let mut index = 0;
    while index < MODELS.len() {
        names[index] = MODELS[index].name;
        index += 1;
    }
    names
};

pub(super) const KEYS: &[Row] = &[
    key("device.*.model", Kind::Word(NAMES), "What kind of device it is.")
        .bhyve("-s SLOT,MODEL")
        .qemu("-device MODEL"),
    key(
        "device.*.addr",
        Kind::Address,
        "Where it sits; by default the first free slot, in the order of the devices.",
    )
    .bhyve("-s SLOT")
    .qemu("-device MODEL,addr=")
    .cloud_hypervisor("pci_segment=, pci_device_id=")
    .crosvm("pci-address=")
    .libvirt("address, type=pci"),
    key(
        "device.*.isolation",
        Kind::Word(&["none", "process"]),
        "Whether the device has a process of its own, which is started anew if it ends.",
    )
    .of(&["virtio-blk", "virtio-net", "virtio-rnd", "virtio-console", "virtio-vsock", "virtio-balloon"])
    .or("none")
    .runner(),
];
