//! Keys of disks.

use super::Kind;
use super::row::{Listed, Row, key, number, switch};

const BLK: Listed = &["virtio-blk"];
const NVME: Listed = &["nvme"];
const AHCI: Listed = &["ahci"];
const DISKS: Listed = &["virtio-blk", "nvme"];
const ORDERED: Listed = &["virtio-blk", "nvme", "ahci", "virtio-scsi", "virtio-net", "e1000", "passthru"];

const SECTORS: Kind<Listed> = Kind::Word(&["512", "512/4096", "4096", "4096/4096"]);
const BYTES_OF_ZONE: Kind<Listed> = Kind::Size { min: 512, max: 1 << 40 };
const NO_RATE: &str = "rates cannot be limited yet; leave it out";

pub(super) const KEYS: &[Row] = &[
    key("device.*.path", Kind::Path, "The image or block device.")
        .of(DISKS)
        .bhyve("-s SLOT,virtio-blk,PATH")
        .qemu("-blockdev filename=")
        .cloud_hypervisor("--disk path=")
        .firecracker("drives.path_on_host")
        .crosvm("--block path=")
        .libvirt("disk/source"),
    number("device.*.fd", 3, 65_535, "Descriptor of the open image; path is then its name in messages.")
        .of(BLK),
    key("device.*.format", Kind::Word(&["raw", "qcow2"]), "What is in the image.")
        .of(DISKS)
        .or("raw")
        .only(&["raw"], "only raw images can be opened yet; `qemu-img convert -O raw` makes one")
        .qemu("-blockdev driver=")
        .cloud_hypervisor("--disk image_type=")
        .libvirt("disk/driver@type"),
    key("device.*.backend", Kind::Word(&["file", "vhost-user", "vdpa"]), "Who does the disk's I/O.")
        .of(BLK)
        .or("file")
        .only(&["file", "vhost-user"], "it is an image of this host's, or another process (vhost-user)")
        .qemu("-device vhost-user-blk-pci")
        .cloud_hypervisor("--disk vhost_user=")
        .crosvm("--vhost-user block")
        .libvirt("disk@type"),
    key("device.*.socket", Kind::Path, "UNIX socket of the process that does the I/O (vhost-user).")
        .of(BLK)
        .qemu("-chardev socket,path=")
        .cloud_hypervisor("--disk vhost_socket=")
        .firecracker("drives.socket")
        .crosvm("--vhost-user block,socket=")
        .libvirt("disk/source@path"),
    switch("device.*.ro", "Whether the guest may only read.")
        .of(DISKS)
        .or("false")
        .bhyve("ro")
        .qemu("-blockdev read-only=")
        .cloud_hypervisor("--disk readonly=")
        .firecracker("drives.is_read_only")
        .crosvm("--block ro=")
        .libvirt("disk/readonly"),
    switch("device.*.nocache", "Whether to go around the host's page cache (O_DIRECT).")
        .of(DISKS)
        .or("false")
        .bhyve("nocache")
        .qemu("-blockdev cache.direct=")
        .cloud_hypervisor("--disk direct=")
        .crosvm("--block direct=")
        .libvirt("disk/driver@cache"),
    switch("device.*.sync", "Whether every write is durable before it completes (O_DSYNC).")
        .of(DISKS)
        .or("false")
        .bhyve("sync, direct")
        .libvirt("disk/driver@cache"),
    switch("device.*.nodelete", "Whether the guest's discards are refused.")
        .of(DISKS)
        .or("false")
        .only(&["false"], "discards cannot be refused yet; leave it out")
        .bhyve("nodelete")
        .qemu("-blockdev discard=")
        .cloud_hypervisor("--disk sparse=")
        .crosvm("--block sparse=")
        .libvirt("disk/driver@discard"),
    key("device.*.aio", Kind::Word(&["io_uring", "threads", "sync"]), "How the host does the I/O.")
        .of(BLK)
        .or("io_uring")
        .qemu("-blockdev aio=")
        .firecracker("drives.io_engine")
        .crosvm("--block async-executor=")
        .libvirt("disk/driver@io"),
    number("device.*.queues", 1, 64, "Number of request queues.")
        .of(BLK)
        .or("1")
        .qemu("-device num-queues=")
        .cloud_hypervisor("--disk num_queues=")
        .libvirt("disk/driver@queues"),
    number("device.*.queue_size", 4, 1024, "Descriptors in each queue, a power of two.")
        .of(BLK)
        .or("256")
        .qemu("-device queue-size=")
        .cloud_hypervisor("--disk queue_size=")
        .libvirt("disk/driver@queue_size"),
    key("device.*.ser", Kind::Text { max: 20 }, "Serial number the guest reads.")
        .of(DISKS)
        .bhyve("ser=")
        .qemu("-device serial=")
        .cloud_hypervisor("--disk serial=")
        .crosvm("--block id=")
        .libvirt("disk/serial"),
    key("device.*.sectorsize", SECTORS, "Logical and physical block size; by default what the image has.")
        .of(DISKS)
        .bhyve("sectorsize=")
        .qemu("-device logical_block_size=,physical_block_size=")
        .crosvm("--block block-size=")
        .libvirt("disk/blockio"),
    number("device.*.bootindex", 0, 255, "Where it comes in the order in which the firmware tries devices.")
        .of(ORDERED)
        .no_effect("the machine starts `boot.kernel`")
        .bhyve("bootindex=")
        .qemu("-device bootindex=")
        .crosvm("--block bootindex=")
        .libvirt("boot@order"),
    key(
        "device.*.zoned",
        Kind::Word(&["none", "host-managed", "passthrough"]),
        "Whether the disk has zones: those of a zoned image, which `parador image create` makes, or the host's own, of a block device.",
    )
    .of(BLK)
    .or("none"),
    key(
        "device.*.zone_size",
        Kind::Size { min: 64 << 10, max: 1 << 40 },
        "Size of each zone. This and the keys that follow are what the image must be; it says itself what it is.",
    )
    .of(BLK),
    key("device.*.zone_capacity", BYTES_OF_ZONE, "What can be written of each zone.").of(BLK),
    number("device.*.conventional", 0, 1 << 20, "Zones at the start that are written anywhere.").of(BLK),
    number("device.*.max_open", 0, 1 << 20, "Zones that can be open at once; 0 is any number.").of(BLK),
    number("device.*.max_active", 0, 1 << 20, "Zones that can be active at once; 0 is any number.").of(BLK),
    key("device.*.max_append", BYTES_OF_ZONE, "Bytes of one append at most.").of(BLK),
    switch(
        "device.*.power_cut",
        "Whether what the guest wrote to a zoned image and did not flush is gone when the process ends: for tests.",
    )
    .of(BLK)
    .or("false"),
    key("device.*.rate.bps", Kind::Size { min: 0, max: 1 << 50 }, "Bytes a second at most; 0 is any number.")
        .of(&["virtio-blk", "virtio-net"])
        .live()
        .refused(NO_RATE)
        .qemu("-object throttle-group,x-bps-total=")
        .cloud_hypervisor("bw_size=,bw_refill_time=")
        .firecracker("rate_limiter.bandwidth")
        .libvirt("iotune, bandwidth"),
    number("device.*.rate.iops", 0, 1 << 40, "Requests or packets a second at most; 0 is any number.")
        .of(&["virtio-blk", "virtio-net"])
        .live()
        .refused(NO_RATE)
        .qemu("-object throttle-group,x-iops-total=")
        .cloud_hypervisor("ops_size=,ops_refill_time=")
        .firecracker("rate_limiter.ops")
        .libvirt("iotune"),
    key(
        "device.*.ram",
        Kind::Size { min: 1, max: 1 << 20 },
        "A disk in memory of so many MiB, instead of an image.",
    )
    .of(NVME)
    .bhyve("ram="),
    number("device.*.maxq", 1, 65_535, "Queues at most.")
        .of(NVME)
        .bhyve("maxq=")
        .qemu("-device max_ioqpairs="),
    number("device.*.qsz", 2, 65_536, "Entries of each queue at most.").of(NVME).bhyve("qsz="),
    number("device.*.ioslots", 1, 65_535, "Requests under way at most.").of(NVME).bhyve("ioslots="),
    key("device.*.sectsz", Kind::Word(&["512", "4096", "8192"]), "Logical block size.")
        .of(NVME)
        .bhyve("sectsz=")
        .qemu("-device logical_block_size="),
    key("device.*.eui64", Kind::Text { max: 18 }, "The namespace's identity, IEEE EUI-64.")
        .of(NVME)
        .bhyve("eui64=")
        .qemu("-device nvme-ns,eui64="),
    key("device.*.dsm", Kind::Word(&["auto", "enable", "disable"]), "Whether the guest may discard.")
        .of(NVME)
        .bhyve("dsm="),
    key(
        "device.*.port.*.type",
        Kind::Word(&["hd", "cd"]),
        "What is at a port of the controller: a disk or a drive.",
    )
    .of(AHCI)
    .bhyve("hd:, cd:")
    .qemu("-device ide-hd, ide-cd"),
    key("device.*.port.*.path", Kind::Path, "The image at a port.").of(AHCI).bhyve("hd:PATH"),
    switch("device.*.port.*.ro", "Whether the guest may only read.").of(AHCI).bhyve("ro"),
    switch("device.*.port.*.nocache", "Whether to go around the host's page cache.")
        .of(AHCI)
        .bhyve("nocache"),
    switch("device.*.port.*.sync", "Whether every write is durable before it completes.")
        .of(AHCI)
        .bhyve("sync"),
    switch("device.*.port.*.nodelete", "Whether the guest's discards are refused.")
        .of(AHCI)
        .bhyve("nodelete"),
    key("device.*.port.*.sectorsize", SECTORS, "Logical and physical block size.")
        .of(AHCI)
        .bhyve("sectorsize="),
    number("device.*.port.*.nmrr", 0, 65_535, "Nominal rotation rate.").of(AHCI).bhyve("nmrr="),
    key("device.*.port.*.ser", Kind::Text { max: 20 }, "Serial number.").of(AHCI).bhyve("ser="),
    key("device.*.port.*.rev", Kind::Text { max: 8 }, "Revision.").of(AHCI).bhyve("rev="),
    key("device.*.port.*.model", Kind::Text { max: 40 }, "Name of the disk's model.")
        .of(AHCI)
        .bhyve("model="),
    number("device.*.port.*.bootindex", 0, 255, "Where it comes in the order of the firmware.")
        .of(AHCI)
        .bhyve("bootindex="),
];
