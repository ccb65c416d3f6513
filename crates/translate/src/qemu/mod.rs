//! The command line of QEMU (qemu-system-x86_64).
//!
//! **Out** goes what QEMU 6.2 and later take: a q35 without default devices, JSON for `-blockdev`,
//! `-netdev`, `-object` and `-device`, nothing that QEMU would have to guess.
//!
//! **In** comes what people write, old and new: `-drive`, `-hda`, `-nic` and `-net` as well as JSON.
//! What has no key is kept, in order, under `engine.qemu.arg.N`. A property without a key, of something
//! that has one, is kept as QEMU's own `-set GROUP.ID.PROPERTY=VALUE`, and the export puts it where it
//! belongs; `GROUP` may then be any option that makes something, such as `blockdev`.
//!
//! What comes back as it was is every key that [`FATES`] maps, except that
//!
//! - `memory.size` and `console` are always said, as QEMU's defaults are not ours;
//! - a switch of a balloon that is on is not said, as it is on by default;
//! - a socket for virtio-vsock is lost, and said to be: QEMU uses the host's kernel.

mod bag;
mod export;
mod form;
mod import;
mod models;
mod options;
mod table;
#[cfg(test)]
mod tests;

use parador_config::{Diagnostics, Tree};

use crate::fates::Fate::{Mapped, Refused};
use crate::fates::{Fates, fates};
use crate::format::{Exported, Imported, Input};

const BHYVE: &str = "QEMU has no such choice";
const ZONES: &str = "a disk of QEMU's has zones if the block device it is has them";

/// What is said, and what is not.
pub(crate) const FATES: Fates = fates![
    ("engine.qemu.arg.*", Mapped),
    ("engine.**", Refused("it is an option of another system")),
    ("vcpu.*.cpuset", Refused("QEMU is pinned from outside, with taskset or by libvirt")),
    ("memory.thp", Refused("QEMU leaves that to the host; see /sys/kernel/mm/transparent_hugepage")),
    ("domains.*.domain_policy", Refused("it is a property of the memory object, host-nodes= and policy=")),
    ("acpi_tables_in_memory", Refused(BHYVE)),
    ("destroy_on_poweroff", Refused("a machine goes with its process")),
    ("monitor", Refused("QEMU reboots the guest in the same process")),
    ("virtio_msix", Refused("it is a property of each device, vectors=0")),
    ("x86.**", Refused(BHYVE)),
    ("lpc.fwcfg", Refused("QEMU has its own protocol always")),
    ("lpc.pc-testdev", Refused("add `-device pc-testdev`")),
    ("control.**", Refused("QEMU speaks QMP; add `-qmp unix:PATH,server=on,wait=off`")),
    ("stats.path", Refused("QEMU tells counters over QMP")),
    ("config.**", Refused("it is about how keys are read")),
    ("device.*.tap.create", Refused("QEMU opens a TAP interface that is there")),
    ("device.*.tap.owner", Refused("QEMU opens a TAP interface that is there")),
    ("device.*.tap.link", Refused("QEMU takes a macvtap interface as a descriptor, `backend=fd`")),
    ("device.*.tap.mode", Refused("QEMU takes a macvtap interface as a descriptor, `backend=fd`")),
    ("device.*.port", Refused("QEMU is built without netmap")),
    ("device.*.peerhook", Refused("there is no netgraph outside FreeBSD")),
    ("device.*.hook", Refused("there is no netgraph outside FreeBSD")),
    ("device.*.zoned", Refused(ZONES)),
    ("device.*.zone_size", Refused(ZONES)),
    ("device.*.zone_capacity", Refused(ZONES)),
    ("device.*.conventional", Refused(ZONES)),
    ("device.*.max_open", Refused(ZONES)),
    ("device.*.max_active", Refused(ZONES)),
    ("device.*.max_append", Refused(ZONES)),
    ("device.*.power_cut", Refused(ZONES)),
    ("device.*.rate.*", Refused("add an `-object throttle-group`")),
    ("device.*.ram", Refused("add a file in /dev/shm")),
    ("device.*.qsz", Refused(BHYVE)),
    ("device.*.ioslots", Refused(BHYVE)),
    ("device.*.eui64", Refused("QEMU gives it to a namespace, `-device nvme-ns`")),
    ("device.*.dsm", Refused(BHYVE)),
    ("device.*.size", Refused("the balloon is set over QMP, `balloon`, while the machine runs")),
    ("device.*.dax", Refused("QEMU has no DAX window for virtio-fs")),
    ("device.*.dev", Refused("there is no CAM target layer outside FreeBSD")),
    ("device.*.iid", Refused("there is no CAM target layer outside FreeBSD")),
    ("device.*.pptdev", Refused("the device has another name on Linux; set `host`")),
    ("device.*.wait", Refused("QEMU does not wait for a viewer; `-S` stops it until QMP says `cont`")),
    ("device.*.password", Refused("a password on a command line is seen by all; set it over QMP")),
    ("device.*.play", Refused("add an `-audiodev`, and `-device intel-hda`")),
    ("device.*.rec", Refused("add an `-audiodev`, and `-device intel-hda`")),
    ("device.*.virtio_type", Refused("QEMU has a device of its own for each type")),
    ("device.*.queue_sizes", Refused("QEMU has a device of its own for each type")),
    ("device.*.config_size", Refused("QEMU has a device of its own for each type")),
    ("device.*.isolation", Refused("it decides itself which devices have a process of their own")),
    ("device.*.pcireg.*", Refused("the bridges of QEMU's q35 are always the same")),
    ("name", Mapped),
    ("uuid", Mapped),
    ("cpus", Mapped),
    ("sockets", Mapped),
    ("cores", Mapped),
    ("threads", Mapped),
    ("on_reset", Mapped),
    ("on_panic", Mapped),
    ("machine.type", Mapped),
    ("cpu.model", Mapped),
    ("cpu.features", Mapped),
    ("acpi_tables", Mapped),
    ("rtc.use_localtime", Mapped),
    ("bios.vendor", Mapped),
    ("bios.version", Mapped),
    ("bios.release_date", Mapped),
    ("system.manufacturer", Mapped),
    ("system.product_name", Mapped),
    ("system.family_name", Mapped),
    ("system.version", Mapped),
    ("system.serial_number", Mapped),
    ("system.sku", Mapped),
    ("board.manufacturer", Mapped),
    ("board.product_name", Mapped),
    ("board.version", Mapped),
    ("board.serial_number", Mapped),
    ("board.asset_tag", Mapped),
    ("board.location", Mapped),
    ("chassis.manufacturer", Mapped),
    ("chassis.version", Mapped),
    ("chassis.serial_number", Mapped),
    ("chassis.asset_tag", Mapped),
    ("chassis.sku", Mapped),
    ("tpm.type", Mapped),
    ("tpm.path", Mapped),
    ("tpm.version", Mapped),
    ("gdb.port", Mapped),
    ("gdb.address", Mapped),
    ("gdb.wait", Mapped),
    ("keyboard.layout", Mapped),
    ("memory.size", Mapped),
    ("memory.max", Mapped),
    ("memory.backing", Mapped),
    ("memory.path", Mapped),
    ("memory.page_size", Mapped),
    ("memory.shared", Mapped),
    ("memory.prefault", Mapped),
    ("memory.wired", Mapped),
    ("memory.guest_in_core", Mapped),
    ("domains.*.size", Mapped),
    ("domains.*.cpus", Mapped),
    ("boot.kernel", Mapped),
    ("boot.initrd", Mapped),
    ("boot.cmdline", Mapped),
    ("bootrom", Mapped),
    ("bootvars", Mapped),
    ("bootvars_mode", Mapped),
    ("console", Mapped),
    ("lpc.com2.path", Mapped),
    ("lpc.com3.path", Mapped),
    ("lpc.com4.path", Mapped),
    ("device.*.model", Mapped),
    ("device.*.addr", Mapped),
    ("device.*.path", Mapped),
    ("device.*.fd", Mapped),
    ("device.*.format", Mapped),
    ("device.*.backend", Mapped),
    ("device.*.socket", Mapped),
    ("device.*.ro", Mapped),
    ("device.*.nocache", Mapped),
    ("device.*.sync", Mapped),
    ("device.*.nodelete", Mapped),
    ("device.*.aio", Mapped),
    ("device.*.queues", Mapped),
    ("device.*.queue_size", Mapped),
    ("device.*.ser", Mapped),
    ("device.*.sectorsize", Mapped),
    ("device.*.bootindex", Mapped),
    ("device.*.maxq", Mapped),
    ("device.*.sectsz", Mapped),
    ("device.*.port.*.type", Mapped),
    ("device.*.port.*.path", Mapped),
    ("device.*.port.*.ro", Mapped),
    ("device.*.port.*.nocache", Mapped),
    ("device.*.port.*.sync", Mapped),
    ("device.*.port.*.nodelete", Mapped),
    ("device.*.port.*.sectorsize", Mapped),
    ("device.*.port.*.nmrr", Mapped),
    ("device.*.port.*.ser", Mapped),
    ("device.*.port.*.rev", Mapped),
    ("device.*.port.*.model", Mapped),
    ("device.*.port.*.bootindex", Mapped),
    ("device.*.tap.name", Mapped),
    ("device.*.tap.bridge", Mapped),
    ("device.*.hostfwd", Mapped),
    ("device.*.vhost", Mapped),
    ("device.*.mac", Mapped),
    ("device.*.mtu", Mapped),
    ("device.*.port.0.path", Mapped),
    ("device.*.port.0.name", Mapped),
    ("device.*.port.*.name", Mapped),
    ("device.*.cid", Mapped),
    ("device.*.deflate_on_oom", Mapped),
    ("device.*.free_page_reporting", Mapped),
    ("device.*.sharename", Mapped),
    ("device.*.bus", Mapped),
    ("device.*.slot", Mapped),
    ("device.*.func", Mapped),
    ("device.*.host", Mapped),
    ("device.*.rom", Mapped),
    ("device.*.rfb", Mapped),
    ("device.*.w", Mapped),
    ("device.*.h", Mapped),
    ("device.*.vga", Mapped),
    ("device.*.slot.*.device", Mapped),
    ("sandbox", Mapped),
];

/// A tree of a command line.
pub(crate) fn import(input: Input<'_>) -> Result<Imported, Diagnostics> {
    import::import(input)
}

/// A command line of a tree.
#[expect(clippy::unnecessary_wraps, reason = "the signature all formats share")]
pub(crate) fn export(tree: &Tree) -> Result<Exported, Diagnostics> {
    Ok(export::export(tree))
}
