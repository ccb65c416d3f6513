//! Keys of every other device.

use super::Kind;
use super::row::{Listed, Row, key, number, switch, text};

const RND: Listed = &["virtio-rnd"];
const CONSOLE: Listed = &["virtio-console"];
const VSOCK: Listed = &["virtio-vsock"];
const BALLOON: Listed = &["virtio-balloon"];
const FS: Listed = &["virtio-fs"];
const SHARES: Listed = &["virtio-fs", "virtio-9p"];
const SCSI: Listed = &["virtio-scsi"];
const PASSTHRU: Listed = &["passthru"];
const FBUF: Listed = &["fbuf"];
const HDA: Listed = &["hda"];
const BRIDGES: Listed = &["hostbridge", "lpc"];
const ANY: Listed = &["vhost-user"];

const BRIDGE: &str = "the bridges are always the same";
const ONE_CONSOLE: &str = "a virtio-console has one port, port.0; add another device of that model";

const fn id(pattern: &'static str, doc: &'static str) -> Row {
    number(pattern, 0, 0xffff, doc).of(BRIDGES).no_effect(BRIDGE)
}

pub(super) const KEYS: &[Row] = &[
    key("device.*.path", Kind::Path, "Where the randomness comes from; by default the host's kernel.")
        .of(RND)
        .qemu("-object rng-random,filename=")
        .cloud_hypervisor("--rng src=")
        .libvirt("rng/backend"),
    key("device.*.port.0.path", Kind::Endpoint, "What the console is connected to.")
        .of(CONSOLE)
        .bhyve("NAME=PATH")
        .qemu("-chardev")
        .cloud_hypervisor("--console")
        .crosvm("--serial type=")
        .libvirt("console/source"),
    text("device.*.port.0.name", "Name of the port, for the guest.")
        .of(CONSOLE)
        .no_effect("the guest finds its console without a name")
        .bhyve("NAME=PATH")
        .qemu("-device virtserialport,name="),
    key("device.*.port.*.path", Kind::Endpoint, "What a port, counted from 0, is connected to.")
        .of(CONSOLE)
        .refused(ONE_CONSOLE)
        .bhyve("NAME=PATH"),
    text("device.*.port.*.name", "Name of a port, for the guest.")
        .of(CONSOLE)
        .refused(ONE_CONSOLE)
        .bhyve("NAME=PATH"),
    number("device.*.cid", 3, 0xffff_fffe, "The guest's address.")
        .of(VSOCK)
        .qemu("-device guest-cid=")
        .cloud_hypervisor("--vsock cid=")
        .firecracker("vsock.guest_cid")
        .crosvm("--vsock cid=")
        .libvirt("vsock/cid@address"),
    key(
        "device.*.socket",
        Kind::Path,
        "UNIX socket for connections into the guest; those out of it go to PATH_PORT.",
    )
    .of(VSOCK)
    .cloud_hypervisor("--vsock socket=")
    .firecracker("vsock.uds_path"),
    key(
        "device.*.size",
        Kind::Memory { min: 0, max: 16 << 40 },
        "How much memory the guest is asked to give back.",
    )
    .of(BALLOON)
    .or("0")
    .live()
    .cloud_hypervisor("--balloon size=")
    .firecracker("balloon.amount_mib")
    .libvirt("currentMemory"),
    switch("device.*.deflate_on_oom", "Whether the guest may take memory back when it runs out of it.")
        .of(BALLOON)
        .or("true")
        .qemu("-device deflate-on-oom=")
        .cloud_hypervisor("--balloon deflate_on_oom=")
        .firecracker("balloon.deflate_on_oom")
        .libvirt("memballoon@autodeflate"),
    switch(
        "device.*.free_page_reporting",
        "Whether the guest tells which of its memory is free, for the host to take.",
    )
    .of(BALLOON)
    .or("true")
    .qemu("-device free-page-reporting=")
    .cloud_hypervisor("--balloon free_page_reporting=")
    .firecracker("balloon.free_page_reporting")
    .crosvm("--balloon-page-reporting")
    .libvirt("memballoon@freePageReporting"),
    key("device.*.sharename", Kind::Text { max: 36 }, "Name under which the guest mounts the folder.")
        .of(SHARES)
        .bhyve("-s SLOT,virtio-9p,NAME=PATH")
        .qemu("-device tag=, mount_tag=")
        .cloud_hypervisor("--fs tag=")
        .crosvm("--shared-dir PATH:TAG")
        .libvirt("filesystem/target@dir"),
    key("device.*.path", Kind::Path, "The folder, for which virtiofsd is started unless `socket` is set.")
        .of(FS)
        .runner(),
    key("device.*.path", Kind::Path, "The folder.")
        .of(&["virtio-9p"])
        .bhyve("-s SLOT,virtio-9p,NAME=PATH")
        .qemu("-fsdev local,path=")
        .crosvm("--shared-dir PATH:TAG")
        .libvirt("filesystem/source@dir"),
    switch("device.*.ro", "Whether the guest may only read.")
        .of(FS)
        .only(&["false"], "virtiofsd decides: start one with --readonly, and set `socket`"),
    switch("device.*.ro", "Whether the guest may only read.")
        .of(&["virtio-9p"])
        .bhyve("ro")
        .qemu("-fsdev readonly=")
        .libvirt("filesystem/readonly"),
    key("device.*.socket", Kind::Path, "UNIX socket of virtiofsd.")
        .of(FS)
        .qemu("-chardev socket,path=")
        .cloud_hypervisor("--fs socket=")
        .crosvm("--vhost-user fs,socket=")
        .libvirt("filesystem/source@socket"),
    key(
        "device.*.dax",
        Kind::Size { min: 0, max: 16 << 40 },
        "Size of the window to map files in; 0 is none.",
    )
    .of(FS)
    .no_effect("it has the window that virtiofsd offers"),
    number("device.*.queues", 1, 64, "Number of request queues.").of(FS).cloud_hypervisor("--fs num_queues="),
    number("device.*.queue_size", 4, 1024, "Descriptors in each queue.")
        .of(FS)
        .qemu("-device queue-size=")
        .cloud_hypervisor("--fs queue_size="),
    text("device.*.virtio_type", "Virtio type of the device, its number or name, such as 4 or rng.")
        .of(ANY)
        .cloud_hypervisor("--generic-vhost-user device_type=")
        .crosvm("--vhost-user type="),
    key("device.*.socket", Kind::Path, "UNIX socket of the process.")
        .of(ANY)
        .qemu("-chardev socket,path=")
        .cloud_hypervisor("--generic-vhost-user socket=")
        .crosvm("--vhost-user socket="),
    text("device.*.queue_sizes", "Descriptors in each queue, as in 256,256; by default what the type has.")
        .of(ANY)
        .cloud_hypervisor("--generic-vhost-user queue_sizes="),
    number("device.*.config_size", 0, 4096, "Bytes of its configuration space; 0 is what the type has.")
        .of(ANY)
        .or("0")
        .qemu("-device config_size="),
    // Devices of other systems. Their models are refused, so nothing more is said of their keys.
    key("device.*.dev", Kind::Path, "The host's CAM target layer, such as /dev/cam/ctl.")
        .of(SCSI)
        .bhyve("dev="),
    number("device.*.iid", 0, 65_535, "Initiator.").of(SCSI).bhyve("iid="),
    key("device.*.path", Kind::Path, "The host's device, such as /dev/input/event0.")
        .of(&["virtio-input"])
        .qemu("-device evdev="),
    number("device.*.bus", 0, 255, "Bus of the host's device.").of(PASSTHRU).bhyve("B/S/F"),
    number("device.*.slot", 0, 31, "Slot of the host's device.").of(PASSTHRU).bhyve("B/S/F"),
    number("device.*.func", 0, 7, "Function of the host's device.").of(PASSTHRU).bhyve("B/S/F"),
    text("device.*.host", "The host's device, as in 0000:01:00.0.")
        .of(PASSTHRU)
        .qemu("-device vfio-pci,host=")
        .cloud_hypervisor("--device path=")
        .crosvm("--vfio PATH")
        .libvirt("hostdev/source/address"),
    key("device.*.pptdev", Kind::Path, "The host's device, as illumos names it.").of(PASSTHRU).bhyve("pptN"),
    key("device.*.rom", Kind::Path, "Its option ROM.")
        .of(PASSTHRU)
        .bhyve("rom=")
        .qemu("-device romfile=")
        .libvirt("rom@file"),
    text("device.*.rfb", "Address and port of the VNC server.")
        .of(FBUF)
        .or("127.0.0.1:5900")
        .bhyve("rfb=, tcp=")
        .qemu("-vnc")
        .libvirt("graphics@listen"),
    number("device.*.w", 640, 3840, "Width of the screen.")
        .of(FBUF)
        .or("1024")
        .bhyve("w=")
        .qemu("-device xres="),
    number("device.*.h", 480, 2160, "Height of the screen.")
        .of(FBUF)
        .or("768")
        .bhyve("h=")
        .qemu("-device yres="),
    key("device.*.vga", Kind::Word(&["io", "on", "off"]), "Whether there is a VGA text mode.")
        .of(FBUF)
        .bhyve("vga="),
    switch("device.*.wait", "Whether the guest waits for a viewer.").of(FBUF).bhyve("wait"),
    text("device.*.password", "Password of the VNC server.")
        .of(FBUF)
        .secret()
        .bhyve("password=")
        .libvirt("graphics@passwd"),
    key("device.*.slot.*.device", Kind::Word(&["tablet"]), "What is at a port, counted from 1.")
        .of(&["xhci"])
        .bhyve("-s SLOT,xhci,tablet")
        .qemu("-device usb-tablet")
        .libvirt("input, bus=usb"),
    key("device.*.play", Kind::Path, "Where sound goes.").of(HDA).bhyve("play="),
    key("device.*.rec", Kind::Path, "Where sound comes from.").of(HDA).bhyve("rec="),
    key("device.*.path", Kind::Endpoint, "What the serial port is connected to.")
        .of(&["uart"])
        .qemu("-chardev"),
    id("device.*.pcireg.vendor", "Vendor the guest reads."),
    id("device.*.pcireg.device", "Device the guest reads."),
    id("device.*.pcireg.revid", "Revision the guest reads."),
    id("device.*.pcireg.subvendor", "Subsystem vendor the guest reads."),
    id("device.*.pcireg.subdevice", "Subsystem the guest reads."),
];
