//! Words for keys and values that are not theirs.

/// Other names of whole keys, which mean the same.
pub(super) const SYNONYMS: &[(&str, &str)] = &[("lpc.com1.path", "console")];

/// Words for keys that other systems use: never accepted, but understood well enough to say the right one.
/// A key of a device is named by its last part.
pub(crate) const FOREIGN: &[(&str, &str)] = &[
    ("memory", "memory.size"),
    ("mem", "memory.size"),
    ("ram", "memory.size"),
    ("kernel", "boot.kernel"),
    ("initrd", "boot.initrd"),
    ("initramfs", "boot.initrd"),
    ("cmdline", "boot.cmdline"),
    ("append", "boot.cmdline"),
    ("smp", "cpus"),
    ("vcpus", "cpus"),
    ("hugepages", "memory.backing"),
    ("serial", "console"),
    ("firmware", "bootrom"),
    ("bios", "bootrom"),
    ("loader", "bootrom"),
    ("nvram", "bootvars"),
    ("hostname", "name"),
    ("machine", "machine.type"),
    ("sandboxing", "sandbox"),
    ("device.*.readonly", "device.*.ro"),
    ("device.*.read_only", "device.*.ro"),
    ("device.*.serial", "device.*.ser"),
    ("device.*.file", "device.*.path"),
    ("device.*.filename", "device.*.path"),
    ("device.*.direct", "device.*.nocache"),
    ("device.*.type", "device.*.model"),
    ("device.*.device", "device.*.model"),
    ("device.*.driver", "device.*.model"),
    ("device.*.num_queues", "device.*.queues"),
    ("device.*.tap", "device.*.tap.name"),
    ("device.*.ifname", "device.*.tap.name"),
    ("device.*.bridge", "device.*.tap.bridge"),
    ("device.*.host_mtu", "device.*.mtu"),
    ("device.*.guest_cid", "device.*.cid"),
    ("device.*.uds", "device.*.socket"),
    ("device.*.address", "device.*.addr"),
    ("device.*.bridge", "device.*.tap.bridge"),
    ("device.*.tag", "device.*.sharename"),
    ("device.*.mount_tag", "device.*.sharename"),
    ("device.*.image", "device.*.path"),
    ("device.*.image_type", "device.*.format"),
    ("device.*.boot_index", "device.*.bootindex"),
    ("device.*.macaddr", "device.*.mac"),
    ("device.*.guest_mac", "device.*.mac"),
    ("device.*.amount_mib", "device.*.size"),
    ("device.*.uds_path", "device.*.socket"),
];

/// Words for values, likewise.
pub(crate) const FOREIGN_VALUES: &[(&str, &str)] = &[
    ("blk", "virtio-blk"),
    ("virtio-block", "virtio-blk"),
    ("net", "virtio-net"),
    ("rng", "virtio-rnd"),
    ("virtio-rng", "virtio-rnd"),
    ("console", "virtio-console"),
    ("serial", "virtio-console"),
    ("virtio-serial", "virtio-console"),
    ("vsock", "virtio-vsock"),
    ("balloon", "virtio-balloon"),
    ("huge", "hugetlb"),
    ("hugepages", "hugetlb"),
    ("warning", "warn"),
    ("native", "io_uring"),
    ("restart", "reboot"),
    ("virtio-rng-pci", "virtio-rnd"),
    ("entropy", "virtio-rnd"),
    ("9p", "virtio-9p"),
    ("fs", "virtio-fs"),
    ("virtiofs", "virtio-fs"),
    ("scsi", "virtio-scsi"),
    ("sata", "ahci"),
    ("vfio", "passthru"),
    ("vfio-pci", "passthru"),
    ("vga", "fbuf"),
    ("usb", "xhci"),
    ("bridge", "tap"),
    ("slirp", "user"),
];

/// If `path` is a synonym: that, and the name under which it is kept.
pub(crate) fn synonym(path: &str) -> Option<(&'static str, &'static str)> {
    SYNONYMS.iter().find(|(other, _)| *other == path).copied()
}
