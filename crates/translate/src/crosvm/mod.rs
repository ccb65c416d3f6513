//! crosvm's command line: `crosvm run --block path=a,ro --mem 1024 -p "root=/dev/vda" vmlinux`.
//!
//! The parts of a value stand between commas; the first one may leave its name out, a part without
//! a value is true, and a value may be in quotes, with backslashes.

mod export;
mod import;
mod value;

pub(crate) use export::export;
pub(crate) use import::import;

use crate::fates::Fate::{Mapped, Refused};
use crate::fates::{Fates, fates};
use crate::parts::How::{Mebibytes, Not, Number, Switch, Text, Words};
use crate::parts::{Row, row};

const ENGINE: &str = "crosvm";

static EXECUTORS: &[(&str, &str)] = &[("epoll", "threads"), ("uring", "io_uring")];

/// Parts and keys.
static ROWS: &[Row] = &[
    row("initrd", "", "boot.initrd", Text),
    row("bios", "", "bootrom", Text),
    row("pflash", "path", "bootvars", Text),
    row("cpus", "num-cores", "cpus", Number).absent("1"),
    row("mem", "size", "memory.size", Mebibytes),
    row("hugepages", "", "memory.thp", Switch).absent("false"),
    row("lock-guest-memory", "", "memory.wired", Switch),
    row("gdb", "", "gdb.port", Number),
    row("smbios", "uuid", "uuid", Text),
    row("smbios", "bios-vendor", "bios.vendor", Text),
    row("smbios", "bios-version", "bios.version", Text),
    row("smbios", "manufacturer", "system.manufacturer", Text),
    row("smbios", "product-name", "system.product_name", Text),
    row("smbios", "serial-number", "system.serial_number", Text),
    row("block", "path", "device.*.path", Text),
    row("block", "ro", "device.*.ro", Switch),
    row("block", "direct", "device.*.nocache", Switch),
    row("block", "sparse", "device.*.nodelete", Not),
    row("block", "id", "device.*.ser", Text),
    row("block", "block-size", "device.*.sectorsize", Text),
    row("block", "async-executor", "device.*.aio", Words(EXECUTORS)).absent("threads"),
    row("block", "bootindex", "device.*.bootindex", Number),
    row("net", "tap-name", "device.*.tap.name", Text),
    row("net", "tap-fd", "device.*.fd", Number),
    row("net", "mac", "device.*.mac", Text),
    row("net", "vq-pairs", "device.*.queues", Number),
    row("net", "vhost-net", "device.*.vhost", Switch),
    row("vsock", "cid", "device.*.cid", Number),
    row("vhost-user", "socket", "device.*.socket", Text),
    row("balloon-page-reporting", "", "device.*.free_page_reporting", Switch).absent("false"),
];

const TOPOLOGY: &str = "it decides by itself how processors sit together";
const MEMORY: &str = "its memory is always a memfd of ordinary pages; --hugepages asks for transparent ones";
const NO_ZONES: &str = "it has no zoned disks";
const NO_TAP: &str = "it opens TAP interfaces that are there";
const NO_SMBIOS: &str = "of SMBIOS it says other things: --smbios";
const NO_RATE: &str = "it does not limit rates";
const FIXED: &str = "it has no such choice";
const OURS: &str = "it is for Parador, not for the machine";

/// Which keys it can say.
pub(crate) const FATES: Fates = fates![
    ("cpus", Mapped),
    ("sockets", Refused(TOPOLOGY)),
    ("cores", Refused(TOPOLOGY)),
    ("threads", Refused(TOPOLOGY)),
    ("vcpu.*.cpuset", Mapped),
    ("name", Refused("its machines have no name")),
    ("uuid", Mapped),
    ("on_reset", Refused("its process ends when the guest resets")),
    ("on_panic", Refused("its process ends when the guest panics")),
    ("machine.type", Refused("it has one kind of machine")),
    ("cpu.model", Refused("its guests see the host's processor")),
    ("cpu.features", Refused("its guests see the host's processor")),
    ("memory.size", Mapped),
    ("memory.thp", Mapped),
    ("memory.wired", Mapped),
    ("memory.backing", Refused(MEMORY)),
    ("memory.page_size", Refused(MEMORY)),
    ("memory.shared", Refused(MEMORY)),
    ("memory.path", Refused(MEMORY)),
    ("memory.max", Refused(FIXED)),
    ("memory.prefault", Refused(FIXED)),
    ("memory.guest_in_core", Refused(FIXED)),
    ("domains.**", Refused("it has no NUMA")),
    ("boot.kernel", Mapped),
    ("boot.initrd", Mapped),
    ("boot.cmdline", Mapped),
    ("bootrom", Mapped),
    ("bootvars", Mapped),
    ("bootvars_mode", Refused("its firmware's variables are kept")),
    ("console", Mapped),
    ("lpc.com2.path", Mapped),
    ("lpc.com3.path", Mapped),
    ("lpc.com4.path", Mapped),
    ("lpc.**", Refused(FIXED)),
    ("tpm.**", Refused("its TPM is another: --vtpm-proxy")),
    ("gdb.port", Mapped),
    ("gdb.**", Refused("its debug server always waits, on localhost")),
    ("acpi_tables", Refused("it always has ACPI tables")),
    ("acpi_tables_in_memory", Refused("it always has ACPI tables")),
    ("destroy_on_poweroff", Refused("its machine goes with its process")),
    ("monitor", Refused("its machine goes with its process")),
    ("virtio_msix", Refused("its devices always have MSI-X")),
    ("rtc.use_localtime", Refused(FIXED)),
    ("x86.**", Refused(FIXED)),
    ("bios.vendor", Mapped),
    ("bios.version", Mapped),
    ("bios.**", Refused(NO_SMBIOS)),
    ("system.manufacturer", Mapped),
    ("system.product_name", Mapped),
    ("system.serial_number", Mapped),
    ("system.**", Refused(NO_SMBIOS)),
    ("board.**", Refused(NO_SMBIOS)),
    ("chassis.**", Refused(NO_SMBIOS)),
    ("keyboard.layout", Refused(FIXED)),
    ("device.*.model", Mapped),
    ("device.*.addr", Mapped),
    ("device.*.path", Mapped),
    ("device.*.format", Refused("it finds out by itself what is in an image")),
    ("device.*.backend", Mapped),
    ("device.*.socket", Mapped),
    ("device.*.ro", Mapped),
    ("device.*.nocache", Mapped),
    ("device.*.nodelete", Mapped),
    ("device.*.aio", Mapped),
    ("device.*.ser", Mapped),
    ("device.*.sectorsize", Mapped),
    ("device.*.bootindex", Mapped),
    ("device.*.sync", Refused("the guest decides what is durable")),
    ("device.*.queues", Mapped),
    ("device.*.queue_size", Refused("it decides by itself how long queues are")),
    ("device.*.rate.**", Refused(NO_RATE)),
    ("device.*.zoned", Refused(NO_ZONES)),
    ("device.*.zone_size", Refused(NO_ZONES)),
    ("device.*.zone_capacity", Refused(NO_ZONES)),
    ("device.*.conventional", Refused(NO_ZONES)),
    ("device.*.max_open", Refused(NO_ZONES)),
    ("device.*.max_active", Refused(NO_ZONES)),
    ("device.*.max_append", Refused(NO_ZONES)),
    ("device.*.power_cut", Refused(NO_ZONES)),
    ("device.*.tap.name", Mapped),
    ("device.*.tap.**", Refused(NO_TAP)),
    ("device.*.fd", Mapped),
    ("device.*.mac", Mapped),
    ("device.*.mtu", Refused("the TAP interface has it")),
    ("device.*.vhost", Mapped),
    ("device.*.port.0.path", Mapped),
    ("device.*.port.**", Refused("its consoles have one port without a name")),
    ("device.*.cid", Mapped),
    ("device.*.size", Mapped),
    ("device.*.free_page_reporting", Mapped),
    ("device.*.deflate_on_oom", Mapped),
    ("device.*.sharename", Refused("the tag comes from the process at the socket")),
    ("device.*.host", Mapped),
    ("device.*.bus", Mapped),
    ("device.*.slot", Mapped),
    ("device.*.func", Mapped),
    ("device.*.virtio_type", Mapped),
    ("device.*.config_size", Refused("it asks the other process")),
    ("device.*.isolation", Refused("it decides itself which devices have a process of their own")),
    ("device.*.**", Refused("it has no such device")),
    ("engine.crosvm.arg.*", Mapped),
    ("engine.**", Refused("it is an option of another system")),
    ("log.level", Refused(OURS)),
    ("sandbox", Refused(OURS)),
    ("control.**", Refused(OURS)),
    ("stats.path", Refused(OURS)),
    ("config.**", Refused(OURS)),
];
