//! Keys of network interfaces.

use super::Kind;
use super::row::{Listed, Row, key, number, switch, text};

const VIRTIO: Listed = &["virtio-net"];
const NET: Listed = &["virtio-net", "e1000"];

const NOT_TAP: &str = "only TAP interfaces and other processes can be used yet; set `backend` to tap, macvtap, fd or vhost-user";

pub(super) const KEYS: &[Row] = &[
    key(
        "device.*.backend",
        Kind::Word(&[
            "tap",
            "macvtap",
            "fd",
            "vhost-user",
            "vdpa",
            "user",
            "netmap",
            "netgraph",
            "vmnet",
            "none",
        ]),
        "The host's end: a TAP interface, a macvtap interface over another one, open descriptors of either, or another process (vhost-user).",
    )
    .of(NET)
    .or("tap")
    .only(&["tap", "macvtap", "fd", "vhost-user"], NOT_TAP)
    .bhyve("-s SLOT,virtio-net,BACKEND")
    .qemu("-netdev TYPE")
    .cloud_hypervisor("--net")
    .crosvm("--net")
    .libvirt("interface@type"),
    key(
        "device.*.tap.name",
        Kind::Text { max: 15 },
        "Name of the TAP or macvtap interface; by default made of the names of the machine and the device.",
    )
        .of(NET)
        .bhyve("-s SLOT,virtio-net,tapN")
        .qemu("-netdev tap,ifname=")
        .cloud_hypervisor("--net tap=")
        .firecracker("network-interfaces.host_dev_name")
        .crosvm("--net tap-name=")
        .libvirt("interface/target@dev"),
    key(
        "device.*.tap.create",
        Kind::Word(&["auto", "yes", "no"]),
        "Whether the interface is made, and goes with the machine; `auto` makes it if it is not there.",
    )
    .of(NET)
    .or("auto")
    .runner()
    .libvirt("interface/target@managed"),
    key("device.*.tap.bridge", Kind::Text { max: 15 }, "The bridge that the TAP interface joins.")
        .of(NET)
        .runner()
        .qemu("-netdev bridge,br=")
        .libvirt("interface/source@bridge"),
    text("device.*.tap.owner", "The user, by name or number, who may open a TAP interface that is made.")
        .of(NET)
        .runner(),
    key("device.*.tap.link", Kind::Text { max: 15 }, "The interface under the macvtap interface.")
        .of(NET)
        .runner()
        .libvirt("interface/source@dev"),
    key(
        "device.*.tap.mode",
        Kind::Word(&["bridge", "vepa", "private", "passthru"]),
        "How macvtap interfaces over one interface reach each other.",
    )
    .of(NET)
    .or("bridge")
    .runner()
    .libvirt("interface/source@mode"),
    key(
        "device.*.fd",
        Kind::Descriptors,
        "Descriptors of the interface (backend=fd), one for each pair of queues, such as 3,4.",
    )
        .of(NET)
        .qemu("-netdev tap,fd=")
        .cloud_hypervisor("--net fd=")
        .crosvm("--net tap-fd="),
    key("device.*.socket", Kind::Path, "UNIX socket of the process that moves packets (vhost-user).")
        .of(VIRTIO)
        .qemu("-chardev socket,path=")
        .cloud_hypervisor("--net socket=")
        .crosvm("--vhost-user net,socket=")
        .libvirt("interface/source@path"),
    text("device.*.hostfwd", "Ports of the host that lead to the guest (backend=user).")
        .of(NET)
        .refused(NOT_TAP)
        .bhyve("slirp,hostfwd=")
        .qemu("-netdev user,hostfwd=")
        .libvirt("interface/portForward"),
    text("device.*.port", "Port of a switch, as in vale0:1 (backend=netmap), or name of a node (netgraph).")
        .of(NET)
        .refused(NOT_TAP)
        .bhyve("netmap:PORT, valeB:PORT, path="),
    text("device.*.peerhook", "Hook of the node that is connected to (backend=netgraph).")
        .of(NET)
        .refused(NOT_TAP)
        .bhyve("peerhook="),
    text("device.*.hook", "Hook of the machine's own node (backend=netgraph).")
        .of(NET)
        .refused(NOT_TAP)
        .bhyve("hook="),
    switch("device.*.vhost", "Whether the host's kernel moves the packets (vhost-net).")
        .of(VIRTIO)
        .or("false")
        .only(&["false"], "packets are moved by this process; leave it out")
        .qemu("-netdev tap,vhost=")
        .crosvm("--net vhost-net=")
        .libvirt("interface/driver@name"),
    key(
        "device.*.mac",
        Kind::Mac,
        "Ethernet address; by default derived from the names of the machine and the device.",
    )
    .of(NET)
    .bhyve("mac=")
    .qemu("-device mac=")
    .cloud_hypervisor("--net mac=")
    .firecracker("network-interfaces.guest_mac")
    .crosvm("--net mac=")
    .libvirt("interface/mac@address"),
    number("device.*.mtu", 68, 65_535, "Largest packet the guest is told to send, in bytes.")
        .of(VIRTIO)
        .bhyve("mtu=")
        .qemu("-device host_mtu=")
        .cloud_hypervisor("--net mtu=")
        .firecracker("network-interfaces.mtu")
        .libvirt("interface/mtu@size"),
    number("device.*.queues", 1, 16, "Number of queue pairs.")
        .of(VIRTIO)
        .or("1")
        .qemu("-netdev tap,queues=")
        .cloud_hypervisor("--net num_queues=")
        .crosvm("--net vq-pairs=")
        .libvirt("interface/driver@queues"),
    number("device.*.queue_size", 4, 1024, "Descriptors in each queue, a power of two.")
        .of(VIRTIO)
        .or("256")
        .only(&["256"], "its queues have 256 descriptors; leave it out")
        .qemu("-device rx_queue_size=,tx_queue_size=")
        .cloud_hypervisor("--net queue_size=")
        .libvirt("interface/driver@rx_queue_size"),
];
