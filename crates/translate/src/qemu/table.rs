//! What is called how: one table, read from left to right by the export and from right to left by
//! the import.

use super::form::Form::{self, Int, Memory, Switch, Text, Words};

/// A key of ours, and a property of QEMU's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// Our key: the whole of it, or what follows `device.<id>.`.
    pub(super) key: &'static str,
    /// Which of the options that make a device has the property.
    pub(super) at: At,
    /// The property; dots are levels of JSON.
    pub(super) property: &'static str,
    /// How its values differ.
    pub(super) form: Form,
}

/// An option that makes a part of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// `-device`, or the option itself for what is not of a device.
    Front,
    /// What it is connected to: `-blockdev`, `-netdev`, `-object`, `-chardev`, `-fsdev`.
    Back,
}

/// A property of the device or option itself.
pub(super) const fn row(key: &'static str, property: &'static str, form: Form) -> Row {
    Row { key, at: At::Front, property, form }
}

/// A property of what the device is connected to.
pub(super) const fn back(key: &'static str, property: &'static str, form: Form) -> Row {
    Row { key, at: At::Back, property, form }
}

/// An option with properties that are not of a device.
#[derive(Debug)]
pub(super) struct Global {
    /// Its name.
    pub(super) option: &'static str,
    /// The property that may be written without its name.
    pub(super) first: &'static str,
    /// Properties that are written as well when there is any.
    pub(super) constants: &'static [(&'static str, &'static str)],
    /// Its properties.
    pub(super) rows: &'static [Row],
}

/// Options of one value: the option and the key.
pub(super) static PLAIN: &[(&str, &str)] = &[
    ("uuid", "uuid"),
    ("kernel", "boot.kernel"),
    ("initrd", "boot.initrd"),
    ("append", "boot.cmdline"),
    ("k", "keyboard.layout"),
];

/// Slots for memory to come, without which QEMU takes no `maxmem`.
pub(super) const SLOTS: &str = "16";

/// Keys of the serial ports.
pub(super) static PORTS: &[&str] = &["console", "lpc.com2.path", "lpc.com3.path", "lpc.com4.path"];

/// Options with properties.
pub(super) static GLOBALS: &[Global] = &[
    Global { option: "name", first: "guest", constants: &[], rows: &[row("name", "guest", Text)] },
    Global {
        option: "smp",
        first: "cpus",
        constants: &[],
        rows: &[
            row("cpus", "cpus", Int),
            row("sockets", "sockets", Int),
            row("cores", "cores", Int),
            row("threads", "threads", Int),
        ],
    },
    Global {
        option: "m",
        first: "size",
        constants: &[],
        rows: &[row("memory.size", "size", Memory), row("memory.max", "maxmem", Memory)],
    },
    Global {
        option: "machine",
        first: "type",
        constants: &[],
        rows: &[row("acpi_tables", "acpi", Switch), row("memory.guest_in_core", "dump-guest-core", Switch)],
    },
    Global { option: "sandbox", first: "enable", constants: &[], rows: &[row("sandbox", "enable", Switch)] },
    Global {
        option: "overcommit",
        first: "",
        constants: &[],
        rows: &[row("memory.wired", "mem-lock", Switch)],
    },
    Global {
        option: "rtc",
        first: "",
        constants: &[],
        rows: &[row("rtc.use_localtime", "base", Words(&[("true", "localtime"), ("false", "utc")]))],
    },
    Global {
        option: "action",
        first: "",
        constants: &[],
        rows: &[
            row("on_reset", "reboot", Words(&[("reboot", "reset"), ("stop", "shutdown")])),
            row(
                "on_panic",
                "panic",
                Words(&[("stop", "exit-failure"), ("stop", "shutdown"), ("ignore", "none")]),
            ),
        ],
    },
    smbios(
        "0",
        &[
            row("bios.vendor", "vendor", Text),
            row("bios.version", "version", Text),
            row("bios.release_date", "date", Text),
        ],
    ),
    smbios(
        "1",
        &[
            row("system.manufacturer", "manufacturer", Text),
            row("system.product_name", "product", Text),
            row("system.version", "version", Text),
            row("system.serial_number", "serial", Text),
            row("system.sku", "sku", Text),
            row("system.family_name", "family", Text),
        ],
    ),
    smbios(
        "2",
        &[
            row("board.manufacturer", "manufacturer", Text),
            row("board.product_name", "product", Text),
            row("board.version", "version", Text),
            row("board.serial_number", "serial", Text),
            row("board.asset_tag", "asset", Text),
            row("board.location", "location", Text),
        ],
    ),
    smbios(
        "3",
        &[
            row("chassis.manufacturer", "manufacturer", Text),
            row("chassis.version", "version", Text),
            row("chassis.serial_number", "serial", Text),
            row("chassis.asset_tag", "asset", Text),
            row("chassis.sku", "sku", Text),
        ],
    ),
];

const fn smbios(kind: &'static str, rows: &'static [Row]) -> Global {
    Global {
        option: "smbios",
        first: "",
        constants: match kind.as_bytes() {
            b"0" => &[("type", "0")],
            b"1" => &[("type", "1")],
            b"2" => &[("type", "2")],
            _ => &[("type", "3")],
        },
        rows,
    }
}
