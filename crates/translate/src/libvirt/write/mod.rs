//! A tree as a domain document.

mod console;
mod disk;
mod machine;
mod net;
mod other;

use std::collections::{BTreeMap, BTreeSet};

use parador_config::{Diagnostics, Tree};

use super::fates::FATES;
use super::kept;
use super::print;
use super::units;
use super::xml::{Element, is_character};
use crate::format::{Exported, Output};
use crate::keys::Keys;

/// The order in which libvirt itself writes what is in `<domain>`.
static ORDER: &[&str] = &[
    "name",
    "uuid",
    "genid",
    "title",
    "description",
    "metadata",
    "maxMemory",
    "memory",
    "currentMemory",
    "memoryBacking",
    "vcpu",
    "vcpus",
    "iothreads",
    "cputune",
    "numatune",
    "resource",
    "sysinfo",
    "bootloader",
    "os",
    "features",
    "cpu",
    "clock",
    "on_poweroff",
    "on_reboot",
    "on_crash",
    "pm",
    "devices",
    "seclabel",
];

/// Writes `tree`.
#[expect(clippy::unnecessary_wraps, reason = "the signature all formats share")]
pub(crate) fn export(tree: &Tree) -> Result<Exported, Diagnostics> {
    let mut domain = Domain::new(tree);
    let mut root = Element::new("domain");
    machine::write(&mut domain, &mut root);
    let mut devices = Element::new("devices");
    console::write_serial(&mut domain, &mut devices);
    for id in domain.keys.devices() {
        domain.write_device(&mut devices, id);
    }
    other::write_tpm(&mut domain, &mut devices);
    machine::finish(&mut domain, &mut root, &mut devices);
    root.children.push(devices);
    domain.write_commandlines(&mut root);
    domain.put_back(&mut root);
    machine::write_defaults(&mut root);
    root.children
        .sort_by_key(|child| ORDER.iter().position(|name| *name == child.name).unwrap_or(ORDER.len()));
    kept::declare(&mut root);
    Ok(Exported { output: Output::Text(print::document(&root)), losses: domain.keys.finish() })
}

/// A document on its way out.
struct Domain<'t> {
    tree: &'t Tree,
    keys: Keys<'t>,
    /// Names that a reader takes for granted, or finds.
    ids: BTreeSet<String>,
    counts: BTreeMap<&'static str, usize>,
    /// Slots that have devices with several functions.
    shared: BTreeSet<u8>,
    /// What is added to ranks at boot: libvirt's begin at 1.
    first_rank: u64,
    ranks: BTreeSet<u64>,
    disks: disk::Names,
    /// Ports of devices that have some.
    ports: BTreeMap<&'t str, BTreeSet<usize>>,
    /// SATA, USB and virtio-serial controllers that there are.
    sata: usize,
    usb: usize,
    consoles: usize,
    /// What balloons take, once there is one.
    balloon: Option<u64>,
    has_screen: bool,
}

impl<'t> Domain<'t> {
    fn new(tree: &'t Tree) -> Self {
        let settings = tree.in_order();
        let last = |name: &'static str| {
            settings.iter().filter(move |(key, _)| key.rsplit_once('.').is_some_and(|(_, last)| last == name))
        };
        let addresses = last("addr").filter_map(|(_, setting)| address(&setting.value));
        let has_zero = last("bootindex").any(|(_, setting)| setting.value == "0");
        let mut ports: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for (key, _) in &settings {
            let mut parts = key.split('.');
            if let (Some("device"), Some(id), Some("port"), Some(port), Some(_)) =
                (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
                && let Ok(port) = port.parse()
            {
                ports.entry(id).or_default().insert(port);
            }
        }
        Self {
            tree,
            keys: Keys::new(tree, FATES),
            ids: BTreeSet::new(),
            counts: BTreeMap::new(),
            shared: addresses.filter(|(_, _, function)| *function > 0).map(|(_, slot, _)| slot).collect(),
            first_rank: u64::from(has_zero),
            ranks: BTreeSet::new(),
            disks: disk::Names::new(tree),
            ports,
            sata: 0,
            usb: 0,
            consoles: 0,
            balloon: None,
            has_screen: false,
        }
    }

    fn write_device(&mut self, devices: &mut Element, id: &str) {
        let model = self.keys.peek(&format!("device.{id}.model")).unwrap_or_default();
        let written = match model {
            "virtio-blk" | "nvme" => disk::write(self, id, model),
            "ahci" => return disk::write_ahci(self, devices, id),
            "virtio-net" | "e1000" => net::write(self, id, model),
            "virtio-console" => return console::write_virtio(self, devices, id),
            "fbuf" => return other::write_screen(self, devices, id),
            "xhci" => return other::write_usb(self, devices, id),
            // Every machine has them.
            "hostbridge" | "lpc" => return self.take_bridge(id),
            model => other::write(self, id, model),
        };
        match written {
            Ok(device) => devices.children.push(device),
            Err(why) => self.keys.lose(&format!("device.{id}.model"), why),
        }
    }

    /// Takes a bridge that every machine has.
    fn take_bridge(&mut self, id: &str) {
        self.take(id, "model");
        let usual = matches!(self.peek(id, "addr"), Some("0:0.0" | "0:31.0" | "0:1.0"));
        if usual {
            self.take(id, "addr");
        }
    }

    /// The numbers of a device's ports.
    fn ports(&mut self, id: &str) -> BTreeSet<usize> {
        self.ports.remove(id).unwrap_or_default()
    }

    /// The value of a key, taken, or lost because a document has no such characters.
    fn value(&mut self, key: &str) -> Option<&'t str> {
        if self.keys.peek(key)?.chars().all(|c| is_character(c) && !matches!(c, '\n' | '\r')) {
            return self.keys.take(key);
        }
        self.keys.lose(key, "it has line breaks, or characters that cannot be in XML");
        None
    }

    /// The value of a device's key, taken.
    fn take(&mut self, id: &str, key: &str) -> Option<&'t str> {
        self.value(&format!("device.{id}.{key}"))
    }

    /// The value of a device's key, left where it is.
    fn peek(&self, id: &str, key: &str) -> Option<&'t str> {
        self.keys.peek(&format!("device.{id}.{key}"))
    }

    /// Says that a device's key is lost.
    fn lose(&mut self, id: &str, key: &str, why: impl Into<String>) {
        self.keys.lose(&format!("device.{id}.{key}"), why);
    }

    /// A device's switch, taken, or lost because it is none.
    fn switch(&mut self, id: &str, key: &str) -> Option<bool> {
        self.global_switch(&format!("device.{id}.{key}"))
    }

    fn global_switch(&mut self, key: &str) -> Option<bool> {
        let value = self.value(key)?;
        let on = match value.to_ascii_lowercase().as_str() {
            "true" | "on" | "yes" | "1" => true,
            "false" | "off" | "no" | "0" => false,
            _ => {
                self.keys.lose(key, "it is neither true nor false");
                return None;
            }
        };
        Some(on)
    }

    /// Sets an attribute of `element` to the value of a device's key, if that is set.
    fn attr(&mut self, element: &mut Element, name: &str, id: &str, key: &str) {
        if let Some(value) = self.take(id, key) {
            element.set(name, value);
        }
    }

    /// As [`Domain::attr`], for a number, which libvirt writes in decimal.
    fn number(&mut self, element: &mut Element, name: &str, id: &str, key: &str) {
        if let Some(value) = self.take(id, key) {
            element.set(name, units::any_number(value).map_or(value.to_owned(), |number| number.to_string()));
        }
    }

    /// Adds a child with the value of a device's key as its text, if that is set.
    fn line(&mut self, element: &mut Element, name: &str, id: &str, key: &str) {
        if let Some(value) = self.take(id, key) {
            element.children.push(Element::new(name).saying(value));
        }
    }

    /// Adds what devices have in common: name, rank at boot, place.
    fn common(&mut self, device: &mut Element, id: &str, default: &'static str) {
        self.take(id, "model");
        self.rank(device, id);
        if !self.is_default(id, default) {
            device.children.push(alias(id));
        }
        self.place(device, id);
    }

    /// Whether a reader gives this name to the device if none is written.
    fn is_default(&mut self, id: &str, default: &'static str) -> bool {
        let mut next = self.counts.get(default).copied().unwrap_or(0);
        while self.ids.contains(&format!("{default}{next}")) {
            next += 1;
        }
        let is = id == format!("{default}{next}");
        if is {
            self.counts.insert(default, next + 1);
        }
        self.ids.insert(id.to_owned());
        is
    }

    fn rank(&mut self, device: &mut Element, id: &str) {
        let Some(value) = self.take(id, "bootindex") else { return };
        match units::any_number(value).and_then(|rank| rank.checked_add(self.first_rank)) {
            Some(rank) if self.ranks.insert(rank) => {
                device.children.push(Element::new("boot").with("order", rank.to_string()));
            }
            Some(_) => self.lose(id, "bootindex", "another device has that rank"),
            None => self.lose(id, "bootindex", "it is no number"),
        }
    }

    fn place(&mut self, device: &mut Element, id: &str) {
        let Some(value) = self.take(id, "addr") else { return };
        match address(value) {
            Some((0, slot, function)) => {
                let mut element = Element::new("address")
                    .with("type", "pci")
                    .with("domain", "0x0000")
                    .with("bus", "0x00")
                    .with("slot", format!("0x{slot:02x}"))
                    .with("function", format!("0x{function:x}"));
                if function == 0 && self.shared.contains(&slot) {
                    element.set("multifunction", "on");
                }
                device.children.push(element);
            }
            Some(_) => self.lose(id, "addr", "only bus 0 is there without bridges"),
            None => self.lose(id, "addr", "it is no address"),
        }
    }

    /// Arguments for other systems, past libvirt.
    fn write_commandlines(&mut self, root: &mut Element) {
        for (engine, _) in kept::NAMESPACES {
            let mut commandline = Element::new(&format!("{engine}:commandline"));
            for index in 0..kept::MAX_COUNT {
                let Some(value) = self.value(&format!("engine.{engine}.arg.{index}")) else { break };
                commandline.children.push(Element::new(&format!("{engine}:arg")).with("value", value));
            }
            if !commandline.children.is_empty() {
                root.children.push(commandline);
            }
        }
    }

    /// What a reader kept as it was.
    fn put_back(&mut self, root: &mut Element) {
        for index in 0..kept::MAX_COUNT {
            let key = format!("engine.libvirt.arg.{index}");
            let Some(value) = self.value(&key) else { break };
            if value.starts_with("os <boot ") && !self.ranks.is_empty() {
                self.keys.lose(&key, "devices have ranks of their own");
            } else if let Err(why) = kept::put_back(root, value) {
                self.keys.lose(&key, why);
            }
        }
    }
}

/// The name of a device, as a user's.
fn alias(id: &str) -> Element {
    Element::new("alias").with("name", format!("ua-{id}"))
}

/// Bus, slot and function of `BUS:SLOT.FUNCTION`.
fn address(text: &str) -> Option<(u8, u8, u8)> {
    let (bus, rest) = text.split_once(':')?;
    let (slot, function) = rest.split_once('.')?;
    let slot = slot.parse().ok().filter(|slot| *slot < 32)?;
    Some((bus.parse().ok()?, slot, function.parse().ok().filter(|function| *function < 8)?))
}
