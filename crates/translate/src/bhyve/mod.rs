//! bhyve(8), the hypervisor of FreeBSD: its command line, and its bhyve_config(5) files.
//!
//! Both are ways to write bhyve's own tree of keys, whose names ours were taken from; what differs is
//! in `names`.

mod command;
mod devices;
mod export;
mod file;
mod hub;
mod leaves;
mod names;
mod options;
mod slot;
pub(crate) mod vm_bhyve;

use std::collections::BTreeMap;
use std::fmt::Write;

use parador_config::{Diagnostics, Tree};

use crate::fates::Fate::{self, Mapped, Refused};
use crate::fates::{Fates, fates};
use crate::format::{Exported, Imported, Input, Load, Output};
use crate::words;

use options::Reading;

const LOADER: Fate = Refused("bhyve starts a boot ROM, or what bhyveload or grub-bhyve loaded before");
const MEMORY: Fate = Refused("bhyve's memory is always the same kind");
const DISK: Fate = Refused("bhyve decides that itself");
const NET: Fate = Refused("bhyve is given the name of an interface that is there");
const ZONES: Fate = Refused("bhyve has no zoned disks");
const NO_DEVICE: Fate = Refused("bhyve has no such device");
const PROCESS: Fate = Refused("it is about Parador's process");

/// What bhyve can say.
pub(crate) const FATES: Fates = fates![
    ("name", Mapped),
    ("uuid", Mapped),
    ("cpus", Mapped),
    ("sockets", Mapped),
    ("cores", Mapped),
    ("threads", Mapped),
    ("vcpu.*.cpuset", Mapped),
    ("domains.*.size", Mapped),
    ("domains.*.cpus", Mapped),
    ("domains.*.domain_policy", Mapped),
    ("memory.size", Mapped),
    ("memory.wired", Mapped),
    ("memory.guest_in_core", Mapped),
    ("memory.**", MEMORY),
    ("acpi_tables", Mapped),
    ("acpi_tables_in_memory", Mapped),
    ("destroy_on_poweroff", Mapped),
    ("monitor", Mapped),
    ("virtio_msix", Mapped),
    ("rtc.use_localtime", Mapped),
    ("x86.**", Mapped),
    ("bios.**", Mapped),
    ("system.**", Mapped),
    ("board.**", Mapped),
    ("chassis.**", Mapped),
    ("tpm.**", Mapped),
    ("gdb.**", Mapped),
    ("keyboard.layout", Mapped),
    ("on_reset", Refused("bhyve ends with status 0, and whoever started it starts it again")),
    ("on_panic", Refused("bhyve has no device by which a guest reports a panic")),
    ("machine.type", Refused("bhyve has one kind of machine")),
    ("cpu.**", Refused("bhyve shows the guest the host's processor")),
    ("boot.**", LOADER),
    ("bootrom", Mapped),
    ("bootvars", Mapped),
    ("bootvars_mode", Refused("bhyve always writes the firmware's variables back")),
    ("console", Mapped),
    ("lpc.*.path", Mapped),
    ("lpc.fwcfg", Mapped),
    ("lpc.pc-testdev", Mapped),
    ("device.*.model", Mapped),
    ("device.*.addr", Mapped),
    ("device.*.path", Mapped),
    ("device.*.ro", Mapped),
    ("device.*.nocache", Mapped),
    ("device.*.sync", Mapped),
    ("device.*.nodelete", Mapped),
    ("device.*.sectorsize", Mapped),
    ("device.*.ser", Mapped),
    ("device.*.bootindex", Mapped),
    ("device.*.aio", DISK),
    ("device.*.format", Refused("bhyve takes every image for a raw one")),
    ("device.*.queues", DISK),
    ("device.*.queue_size", DISK),
    ("device.*.zoned", ZONES),
    ("device.*.zone_size", ZONES),
    ("device.*.zone_capacity", ZONES),
    ("device.*.conventional", ZONES),
    ("device.*.max_open", ZONES),
    ("device.*.max_active", ZONES),
    ("device.*.max_append", ZONES),
    ("device.*.power_cut", ZONES),
    ("device.*.rate.**", Refused("bhyve has no limits of its own; rctl(8) has")),
    ("device.*.backend", Mapped),
    ("device.*.tap.name", Mapped),
    ("device.*.tap.**", NET),
    ("device.*.fd", NET),
    ("device.*.vhost", NET),
    ("device.*.mac", Mapped),
    ("device.*.mtu", Mapped),
    ("device.*.cid", NO_DEVICE),
    ("device.*.size", NO_DEVICE),
    ("device.*.deflate_on_oom", NO_DEVICE),
    ("device.*.free_page_reporting", NO_DEVICE),
    ("device.*.dax", NO_DEVICE),
    ("device.*.queue_sizes", NO_DEVICE),
    ("device.*.config_size", NO_DEVICE),
    ("device.*.isolation", Refused("it decides itself which devices have a process of their own")),
    ("device.**", Mapped),
    ("engine.bhyve.arg.*", Mapped),
    ("engine.**", Refused("it is an option of another system")),
    ("log.level", PROCESS),
    ("sandbox", Refused("bhyve is always in a sandbox")),
    ("control.**", PROCESS),
    ("stats.**", PROCESS),
    ("config.**", PROCESS),
];

/// Reads a command line.
pub(crate) fn import_args(input: Input<'_>, load: Load<'_>) -> Result<Imported, Diagnostics> {
    CommandLine::read(input, load).map(CommandLine::machine)
}

/// A command line of bhyve's, read by bhyve's rules: for who takes bhyve's place.
#[derive(Debug)]
pub struct CommandLine(Reading);

impl CommandLine {
    /// Reads `input`; files that it names come through `load`.
    ///
    /// # Errors
    ///
    /// All that bhyve would refuse, with places.
    pub fn read(input: Input<'_>, load: Load<'_>) -> Result<Self, Diagnostics> {
        let words = words::arguments(input, &["bhyve"])?;
        let mut reading = Reading::default();
        reading.arguments(&words, load);
        if reading.diagnostics.errors() > 0 { Err(reading.diagnostics) } else { Ok(Self(reading)) }
    }

    /// Whether it asks for help only (`-h`).
    #[must_use]
    pub fn asks_for_help(&self) -> bool {
        self.0.help
    }

    /// What bhyve prints if `config.dump` is true, and then ends with status 1: every key as it was
    /// given, without expanding anything.
    #[must_use]
    pub fn dump(&self) -> Option<String> {
        /// What bhyve sets before it reads the command line.
        const DEFAULTS: &[(&str, &str)] = &[
            ("acpi_tables", "true"),
            ("acpi_tables_in_memory", "true"),
            ("memory.size", "256M"),
            ("x86.strictmsr", "true"),
            ("x86.verbosemsr", "false"),
            ("lpc.fwcfg", "bhyve"),
        ];
        let leaves = &self.0.leaves;
        let asked = leaves.value("config.dump")?.to_ascii_lowercase();
        if !["true", "on", "yes", "1"].contains(&asked.as_str()) {
            return None;
        }
        let unset = DEFAULTS.iter().filter(|(path, _)| leaves.leaf(path).is_none());
        let defaults = unset.map(|(path, value)| format!("{path}={value}\n"));
        let set = leaves.in_order().into_iter().map(|(path, leaf)| format!("{path}={}\n", leaf.value));
        Some(defaults.chain(set).collect())
    }

    /// The machine that it describes, in our keys.
    #[must_use]
    pub fn machine(self) -> Imported {
        hub::tree(self.0, &BTreeMap::new())
    }
}

/// Reads a file of keys, or each word as one line of it.
pub(crate) fn import_config(input: Input<'_>) -> Result<Imported, Diagnostics> {
    let mut reading = Reading::default();
    match input {
        Input::Text { name, bytes } => file::read(&mut reading, name, bytes),
        Input::Arguments { .. } => {
            for word in words::arguments(input, &[])? {
                if let Err(wrong) = reading.assign(&word.text, &word.origin) {
                    reading.wrong(wrong, &word.text, &word.origin);
                }
            }
        }
    }
    finish(reading)
}

fn finish(reading: Reading) -> Result<Imported, Diagnostics> {
    if reading.diagnostics.errors() > 0 {
        return Err(reading.diagnostics);
    }
    Ok(hub::tree(reading, &BTreeMap::new()))
}

/// Writes a command line.
#[expect(clippy::unnecessary_wraps, reason = "the signature all formats share")]
pub(crate) fn export_args(tree: &Tree) -> Result<Exported, Diagnostics> {
    let mut written = export::write(tree);
    let losses = std::mem::take(&mut written.losses);
    Ok(Exported { output: Output::Arguments(command::words(written)), losses })
}

/// Writes a file of keys.
#[expect(clippy::unnecessary_wraps, reason = "the signature all formats share")]
pub(crate) fn export_config(tree: &Tree) -> Result<Exported, Diagnostics> {
    let written = export::write(tree);
    let mut text = String::new();
    for (path, leaf) in written.leaves.in_order() {
        let _ = writeln!(text, "{path}={}", leaf.value);
    }
    let mut losses = written.losses;
    for option in written.arguments.chunks(2) {
        losses.push(crate::Loss {
            what: option.join(" "),
            why: "a file of keys has no word for it; give it on the command line".to_owned(),
            origin: None,
        });
    }
    Ok(Exported { output: Output::Text(text), losses })
}
