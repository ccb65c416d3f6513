//! Keys of what the machine starts, and of its serial ports.

use super::Kind;
use super::row::{Row, key, number, switch};

const NO_FIRMWARE: &str = "firmware cannot be started yet; set `boot.kernel` to a kernel";
const ONE_PORT: &str =
    "there is one serial port, `console`; a device of model virtio-console is another console";

pub(super) const KEYS: &[Row] = &[
    key("boot.kernel", Kind::Path, "The kernel: a bzImage, or an ELF vmlinux with a PVH entry.")
        .qemu("-kernel")
        .cloud_hypervisor("--kernel")
        .firecracker("boot-source.kernel_image_path")
        .crosvm("KERNEL")
        .libvirt("os/kernel"),
    key("boot.initrd", Kind::Path, "The initial RAM disk.")
        .qemu("-initrd")
        .cloud_hypervisor("--initramfs")
        .firecracker("boot-source.initrd_path")
        .crosvm("--initrd")
        .libvirt("os/initrd"),
    number(
        "boot.kernel_fd",
        3,
        65_535,
        "Descriptor of the open kernel; boot.kernel is then its name in messages.",
    ),
    number("boot.initrd_fd", 3, 65_535, "Descriptor of the open initial RAM disk, likewise."),
    key("boot.cmdline", Kind::Text { max: 2047 }, "The kernel's command line.")
        .qemu("-append")
        .cloud_hypervisor("--cmdline")
        .firecracker("boot-source.boot_args")
        .crosvm("--params")
        .libvirt("os/cmdline"),
    key("bootrom", Kind::Path, "The firmware.")
        .refused(NO_FIRMWARE)
        .bhyve("-l bootrom,ROM")
        .qemu("-bios, -machine pflash0=")
        .cloud_hypervisor("--firmware")
        .crosvm("--bios")
        .libvirt("os/loader"),
    key("bootvars", Kind::Path, "The firmware's variables.")
        .refused(NO_FIRMWARE)
        .bhyve("-l bootrom,ROM,VARS")
        .qemu("-machine pflash1=")
        .crosvm("--pflash path=")
        .libvirt("os/nvram"),
    key(
        "bootvars_mode",
        Kind::Word(&["rw", "ro", "ephemeral"]),
        "Whether changes of the firmware's variables are kept, refused, or forgotten.",
    )
    .or("rw")
    .refused(NO_FIRMWARE),
    key(
        "console",
        Kind::Endpoint,
        "What the first serial port (COM1) is connected to; also spelt lpc.com1.path.",
    )
    .or("stdio")
    .bhyve("-l com1,PATH")
    .qemu("-serial")
    .cloud_hypervisor("--serial")
    .firecracker("serial.serial_out_path")
    .crosvm("--serial")
    .libvirt("devices/serial"),
    key("lpc.com2.path", Kind::Endpoint, "What the second serial port is connected to.")
        .refused(ONE_PORT)
        .bhyve("-l com2,PATH")
        .qemu("-serial"),
    key("lpc.com3.path", Kind::Endpoint, "What the third serial port is connected to.")
        .refused(ONE_PORT)
        .bhyve("-l com3,PATH")
        .qemu("-serial"),
    key("lpc.com4.path", Kind::Endpoint, "What the fourth serial port is connected to.")
        .refused(ONE_PORT)
        .bhyve("-l com4,PATH")
        .qemu("-serial"),
    key(
        "lpc.fwcfg",
        Kind::Word(&["bhyve", "qemu"]),
        "Whose protocol the firmware gets its configuration by.",
    )
    .or("bhyve")
    .no_effect("it is for firmware, and there is none")
    .bhyve("-l fwcfg,NAME"),
    switch("lpc.pc-testdev", "Whether there is a device for tests of the hypervisor.")
        .or("false")
        .only(&["false"], "there is no such device; leave it out")
        .bhyve("-l pc-testdev")
        .qemu("-device pc-testdev"),
];
