//! Devices: drivers and their properties, as the rest of the [table](super::table).

use super::form::Form::{Int, IntText, OffOn, Slot, Switch, Text, Words};
use super::table::{Row, back, row};

/// A kind of device.
#[derive(Debug)]
pub(super) struct Model {
    /// Our model.
    pub(super) model: &'static str,
    /// The value of its key `backend`; the first entry of a model is what it is by default.
    pub(super) backend: &'static str,
    /// QEMU's driver: the one that is written, then other names of it.
    pub(super) drivers: &'static [&'static str],
    /// What the device is connected to.
    pub(super) link: Link,
    /// Properties.
    pub(super) rows: &'static [&'static [Row]],
    /// How identifiers begin that nobody chose.
    pub(super) prefix: &'static str,
}

/// What a device is connected to, by which property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// Nothing.
    None,
    /// `drive`: a node of the block layer.
    Drive,
    /// `netdev`, of this type.
    Netdev(&'static str),
    /// `chardev`: a vhost-user back end's socket.
    VhostUser,
    /// `netdev`, and its `chardev`: a vhost-user back end's socket.
    VhostUserNet,
    /// `rng`: a source of randomness.
    Rng,
    /// `fsdev`: a folder.
    Fsdev,
    /// `chardev`: the other end of a serial port.
    Endpoint,
}

/// Properties that change nothing for us: they are taken, and not written.
pub(super) static IMPLIED: &[(&str, &[&str])] = &[
    ("disable-legacy", &["on", "true"]),
    ("disable-modern", &["off", "false"]),
    ("bus", &["pcie.0", "pci.0"]),
    ("multifunction", &["on", "true"]),
];

/// Keys and properties of a balloon that are on here, and off there, unless something else is said.
pub(super) static SWITCHED_ON: &[(&str, &str)] =
    &[("deflate_on_oom", "deflate-on-oom"), ("free_page_reporting", "free-page-reporting")];

/// What is at a port of a SATA controller, without `port.N.`.
pub(super) static PORT: &[Row] = &[
    back("ro", "read-only", Switch),
    back("nocache", "cache.direct", Switch),
    back("path", "file.filename", Text),
    row("sync", "write-cache", OffOn),
    row("ser", "serial", Text),
    row("nmrr", "rotation_rate", Int),
    row("rev", "ver", Text),
    row("model", "model", Text),
    row("bootindex", "bootindex", Int),
];

/// Keys of every device.
pub(super) static COMMON: &[Row] = &[row("addr", "addr", Slot), row("bootindex", "bootindex", Int)];

/// The image behind a disk.
pub(super) static IMAGE: &[Row] = &[
    back("ro", "read-only", Switch),
    back("nocache", "cache.direct", Switch),
    back("path", "file.filename", Text),
    back("aio", "file.aio", Words(&[("io_uring", "io_uring"), ("threads", "threads")])),
    row("sync", "write-cache", OffOn),
    row("ser", "serial", Text),
];

static TAP: &[Row] = &[back("tap.name", "ifname", Text), back("vhost", "vhost", Switch), QUEUES[0]];
static ETHERNET: &[Row] = &[row("mac", "mac", Text)];
static VIRTIO_NET: &[Row] = &[row("mtu", "host_mtu", Int), row("queue_size", "rx_queue_size", Int)];
static QUEUES: &[Row] = &[back("queues", "queues", Int)];
static SOCKET: &[Row] = &[back("socket", "path", Text)];
static RINGS: &[Row] = &[row("queues", "num-queues", Int), row("queue_size", "queue-size", Int)];

const fn device(
    model: &'static str,
    prefix: &'static str,
    drivers: &'static [&'static str],
    link: Link,
    rows: &'static [&'static [Row]],
) -> Model {
    Model { model, backend: "", drivers, link, rows, prefix }
}

const fn on(mut model: Model, backend: &'static str) -> Model {
    model.backend = backend;
    model
}

static BLK: &[&str] =
    &["virtio-blk-pci", "virtio-blk", "virtio-blk-pci-non-transitional", "virtio-blk-pci-transitional"];
static NET: &[&str] =
    &["virtio-net-pci", "virtio-net", "virtio-net-pci-non-transitional", "virtio-net-pci-transitional"];

const E1000: &[&str] = &["e1000", "e1000-82540em"];
static BRIDGE: &[Row] = &[back("tap.bridge", "br", Text)];

/// All that both sides know.
pub(super) static MODELS: &[Model] = &[
    on(device("virtio-blk", "disk", BLK, Link::Drive, &[COMMON, IMAGE, RINGS]), "file"),
    on(
        device(
            "virtio-blk",
            "disk",
            &["vhost-user-blk-pci", "vhost-user-blk"],
            Link::VhostUser,
            &[COMMON, SOCKET, RINGS],
        ),
        "vhost-user",
    ),
    on(device("virtio-net", "net", NET, Link::Netdev("tap"), &[COMMON, TAP, ETHERNET, VIRTIO_NET]), "tap"),
    on(
        device(
            "virtio-net",
            "net",
            NET,
            Link::Netdev("tap"),
            &[COMMON, &[back("fd", "fd", IntText), back("vhost", "vhost", Switch)], ETHERNET, VIRTIO_NET],
        ),
        "fd",
    ),
    on(
        device("virtio-net", "net", NET, Link::VhostUserNet, &[COMMON, SOCKET, QUEUES, ETHERNET, VIRTIO_NET]),
        "vhost-user",
    ),
    on(
        device("virtio-net", "net", NET, Link::Netdev("bridge"), &[COMMON, BRIDGE, ETHERNET, VIRTIO_NET]),
        "tap",
    ),
    on(device("virtio-net", "net", NET, Link::Netdev("user"), &[COMMON, ETHERNET, VIRTIO_NET]), "user"),
    on(device("virtio-net", "net", NET, Link::None, &[COMMON, ETHERNET, VIRTIO_NET]), "none"),
    on(device("e1000", "net", E1000, Link::Netdev("tap"), &[COMMON, TAP, ETHERNET]), "tap"),
    on(device("e1000", "net", E1000, Link::Netdev("bridge"), &[COMMON, BRIDGE, ETHERNET]), "tap"),
    on(device("e1000", "net", E1000, Link::Netdev("user"), &[COMMON, ETHERNET]), "user"),
    on(device("e1000", "net", E1000, Link::None, &[COMMON, ETHERNET]), "none"),
    device(
        "nvme",
        "nvme",
        &["nvme"],
        Link::Drive,
        &[COMMON, IMAGE, &[row("maxq", "max_ioqpairs", Int), row("sectsz", "logical_block_size", Int)]],
    ),
    device(
        "virtio-rnd",
        "rng",
        &["virtio-rng-pci", "virtio-rng", "virtio-rng-pci-non-transitional", "virtio-rng-pci-transitional"],
        Link::Rng,
        &[COMMON, &[back("path", "filename", Text)]],
    ),
    device(
        "virtio-vsock",
        "vsock",
        &["vhost-vsock-pci", "vhost-vsock", "vhost-vsock-pci-non-transitional"],
        Link::None,
        &[COMMON, &[row("cid", "guest-cid", Int)]],
    ),
    device(
        "virtio-balloon",
        "balloon",
        &[
            "virtio-balloon-pci",
            "virtio-balloon",
            "virtio-balloon-pci-non-transitional",
            "virtio-balloon-pci-transitional",
        ],
        Link::None,
        &[COMMON],
    ),
    device(
        "virtio-9p",
        "fs",
        &["virtio-9p-pci", "virtio-9p"],
        Link::Fsdev,
        &[
            COMMON,
            &[
                row("sharename", "mount_tag", Text),
                back("path", "path", Text),
                back("ro", "readonly", Switch),
            ],
        ],
    ),
    device(
        "virtio-fs",
        "fs",
        &["vhost-user-fs-pci", "vhost-user-fs"],
        Link::VhostUser,
        &[
            COMMON,
            SOCKET,
            &[
                row("sharename", "tag", Text),
                row("queue_size", "queue-size", Int),
                row("queues", "num-request-queues", Int),
            ],
        ],
    ),
    device(
        "passthru",
        "passthru",
        &["vfio-pci"],
        Link::None,
        &[COMMON, &[row("host", "host", Text), row("rom", "romfile", Text)]],
    ),
    device(
        "virtio-input",
        "input",
        &["virtio-input-host-pci", "virtio-input-host"],
        Link::None,
        &[COMMON, &[row("path", "evdev", Text)]],
    ),
    device("uart", "uart", &["pci-serial"], Link::Endpoint, &[COMMON]),
];
