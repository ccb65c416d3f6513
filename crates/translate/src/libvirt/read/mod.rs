//! A domain document as a tree.

mod console;
mod disk;
mod machine;
mod net;
mod other;

pub(super) use machine::SMBIOS;

use std::collections::{BTreeMap, BTreeSet};

use parador_config::{Diagnostics, Severity, Tree};

use super::kept::{NAMESPACES, Rest, shown};
use super::print;
use super::units;
use super::xml::{self, Element};
use crate::format::{Imported, Input, Loss};
use crate::text::{Text, one};

/// Reads a document.
pub(crate) fn import(input: Input<'_>) -> Result<Imported, Diagnostics> {
    let text = match input {
        Input::Text { name, bytes } => Text::new(name, bytes)?,
        Input::Arguments { words, .. } => Text::new("command line", words.join(" ").as_bytes())?,
    };
    let root = xml::parse(&text)?;
    check_root(&root, &text)?;
    let mut domain = Domain {
        text: &text,
        tree: Tree::default(),
        losses: Vec::new(),
        wrong: Diagnostics::default(),
        ids: BTreeSet::new(),
        counts: BTreeMap::new(),
    };
    domain.read(&root);
    let Domain { mut tree, mut losses, wrong, .. } = domain;
    if wrong.errors() > 0 {
        return Err(wrong);
    }
    let rest = Rest::of(&root, &text);
    for (index, (kept, origin)) in rest.kept.into_iter().enumerate() {
        tree.set(&format!("engine.libvirt.arg.{index}"), kept, origin);
    }
    losses.extend(rest.losses);
    Ok(Imported { tree, losses })
}

/// Other documents of libvirt's are no machines, or more than one.
fn check_root(root: &Element, text: &Text) -> Result<(), Diagnostics> {
    let hint = match root.name.as_str() {
        "domain" => return check_kind(root, text),
        "domainsnapshot" | "domaincheckpoint" => {
            "this says what a machine was at some time; `virsh dumpxml NAME` describes what it is now"
        }
        "domstatus" => {
            "this is libvirt's own note of a running machine; `virsh dumpxml --inactive NAME` describes it"
        }
        "domainCapabilities" | "capabilities" => {
            "this says what a host can do; `virsh dumpxml NAME` describes a machine"
        }
        _ => "`virsh dumpxml NAME` describes a machine",
    };
    let message = format!("`<{}>` where a `<domain>` was expected", shown(&root.name));
    Err(one(text.finding(&root.place, message).hint(hint)))
}

/// Containers are no machines.
fn check_kind(root: &Element, text: &Text) -> Result<(), Diagnostics> {
    let container = ["lxc", "openvz"].into_iter().find(|kind| root.attr("type") == Some(kind));
    let os = root.child("os").and_then(|os| os.child("type"));
    let paravirtual = os.filter(|os| matches!(os.text.trim(), "exe" | "linux" | "uml" | "xen"));
    let (place, what) = match (container, paravirtual) {
        (Some(kind), _) => (&root.place, kind),
        (None, Some(os)) => (&os.place, os.text.trim()),
        (None, None) => return Ok(()),
    };
    let message = format!("a domain of type `{what}` has no hardware");
    Err(one(text
        .finding(place, message)
        .hint("only full virtual machines (`<type>hvm</type>`) can be translated")))
}

/// A document on its way in.
struct Domain<'t> {
    text: &'t Text,
    tree: Tree,
    losses: Vec<Loss>,
    wrong: Diagnostics,
    /// Devices that have a name.
    ids: BTreeSet<String>,
    /// Next numbers of default names.
    counts: BTreeMap<&'static str, usize>,
}

impl Domain<'_> {
    fn read(&mut self, root: &Element) {
        // The number is that of a running machine. Everything runs on KVM unless it says otherwise.
        root.take("id");
        root.take_if("type", "kvm");
        machine::read(self, root);
        if let Some(devices) = root.enter("devices") {
            self.reserve(devices);
            let mut consoles = console::Consoles::new(devices);
            let mut disks = disk::Disks::new(devices);
            let mut screens = other::Screens::new(devices);
            for device in &devices.children {
                match device.name.as_str() {
                    "disk" => disks.read(self, device),
                    "interface" => net::read(self, device),
                    "serial" | "console" | "channel" => consoles.read(self, device),
                    "controller" => {
                        disks.read_controller(self, device);
                        consoles.read_controller(self, device);
                        screens.read_controller(self, device);
                    }
                    "graphics" | "video" => screens.read(self, device),
                    // The controller it is at may come after it.
                    "input" if is_tablet(device) => {}
                    "input" => screens.read(self, device),
                    _ => other::read(self, device),
                }
            }
            devices.all("input").filter(|it| is_tablet(it)).for_each(|tablet| screens.read(self, tablet));
            machine::read_boot_order(self, root);
        }
        machine::read_balloon(self, root);
        self.read_commandlines(root);
    }

    /// Arguments for another system, past libvirt.
    fn read_commandlines(&mut self, root: &Element) {
        for (engine, space) in NAMESPACES {
            let name = format!("{engine}:commandline");
            let Some(commandline) = root.child(&name) else { continue };
            let declared = format!("xmlns:{engine}");
            if commandline.attr(&declared).or(root.attr(&declared)) != Some(*space) {
                continue;
            }
            commandline.taken();
            for (index, arg) in commandline.all(&format!("{engine}:arg")).enumerate() {
                if let Some(value) = arg.taken().take("value") {
                    self.set(&format!("engine.{engine}.arg.{index}"), value, arg);
                }
            }
        }
    }

    /// Sets a key, which `element` says.
    fn set(&mut self, key: &str, value: impl Into<String>, element: &Element) {
        self.tree.set(key, value.into(), self.text.origin(element.place.start));
    }

    /// Sets a key to the text of the child `name` of `parent`.
    fn set_line(&mut self, key: &str, parent: &Element, name: &str) {
        let Some(child) = parent.child(name) else { return };
        if let Some(line) = child.line() {
            child.taken().take_line();
            self.set(key, line, child);
        } else if child.text.trim().is_empty() && child.attributes.is_empty() {
            // It says nothing.
            child.taken();
        }
    }

    /// Sets a key to an attribute of `element`, if it has it.
    fn set_attr(&mut self, key: &str, element: &Element, name: &str) {
        if let Some(value) = element.attr(name).filter(|value| !value.is_empty()) {
            element.take(name);
            self.set(key, value, element);
        }
    }

    /// Sets a key to an attribute of `element` that is yes or no.
    fn set_switch(&mut self, key: &str, element: &Element, name: &str) {
        if let Some(value) = switch(element, name) {
            element.take(name);
            self.set(key, value, element);
        }
    }

    /// Says that `what` of `element` is lost.
    fn lose(&mut self, element: &Element, what: &str, why: &str) {
        let origin = Some(self.text.origin(element.place.start));
        self.losses.push(Loss { what: shown(what), why: why.to_owned(), origin });
    }

    /// Takes an attribute and says that it is lost.
    fn lose_attr(&mut self, element: &Element, name: &str, why: &str) {
        if let Some(value) = element.take(name) {
            let what = format!("<{} {}>", element.name, print::attribute(name, value));
            self.lose(element, &what, why);
        }
    }

    /// Says that `element` is wrong.
    fn wrong(&mut self, element: &Element, message: impl Into<String>, hint: &str) {
        let finding = self.text.finding(&element.place, message).hint(hint);
        self.wrong.add(Severity::Error, || finding);
    }

    /// An amount of memory in bytes: the text of `element`, in its unit.
    fn bytes(&mut self, element: &Element) -> Option<u64> {
        element.taken();
        self.amount(element, element.take_line()?, "unit")
    }

    /// `amount` in bytes; the attribute `unit` of `element` has its unit.
    fn amount(&mut self, element: &Element, amount: &str, unit: &str) -> Option<u64> {
        let bytes = units::bytes(amount, element.take(unit));
        if bytes.is_none() {
            let message = format!("`<{}>` is no amount of memory", element.name);
            self.wrong(element, message, "write a whole number, with a unit such as KiB, MiB or GiB");
        }
        bytes
    }

    /// Names that users gave to devices are not taken by others.
    fn reserve(&mut self, devices: &Element) {
        for device in &devices.children {
            if let Some(id) = alias(device)
                && !self.ids.insert(id.to_owned())
            {
                let message = format!("a second device with the alias `ua-{id}`");
                self.wrong(device, message, "give each device an alias of its own, or none");
            }
        }
    }

    /// The name of a device: the user's, or `wish` if it is free, or the first that is of `default`
    /// with a number.
    fn id(&mut self, device: &Element, wish: Option<&str>, default: &'static str) -> String {
        // What is not the user's is libvirt's, for a running machine.
        if let Some(element) = device.child("alias") {
            element.take_all();
        }
        let id = alias(device).or(wish.filter(|id| is_id(id) && !self.ids.contains(*id)));
        let id = id.map_or_else(|| self.default_id(default), str::to_owned);
        self.ids.insert(id.clone());
        id
    }

    fn default_id(&mut self, default: &'static str) -> String {
        let next = self.counts.entry(default).or_default();
        loop {
            let id = format!("{default}{next}");
            *next += 1;
            if self.ids.insert(id.clone()) {
                return id;
            }
        }
    }

    /// Begins a device that others are at: what the document says of it is `described`, if it does;
    /// `mention` is where it first speaks of it.
    fn controller(
        &mut self,
        described: Option<&Element>,
        mention: &Element,
        default: &'static str,
        model: &str,
    ) -> String {
        let id = match described {
            Some(controller) => self.id(controller, None, default),
            None => self.default_id(default),
        };
        self.set(&format!("device.{id}.model"), model, described.unwrap_or(mention));
        if let Some(controller) = described {
            controller.taken().take("type");
            controller.take("index");
            self.pci(controller, &id);
        }
        id
    }

    /// Sets what devices on PCI have in common: where it sits, and its rank at boot.
    fn pci(&mut self, device: &Element, id: &str) {
        self.bootindex(device, id);
        let Some(address) = device.child("address").filter(|address| address.attr("type") == Some("pci"))
        else {
            return;
        };
        address.taken();
        for name in ["type", "domain", "bus", "slot", "function", "multifunction"] {
            address.take(name);
        }
        let part = |name| units::any_number(address.attr(name).unwrap_or("0"));
        let (Some(domain), Some(bus), Some(slot), Some(function)) =
            (part("domain"), part("bus"), part("slot"), part("function"))
        else {
            self.wrong(address, "this is no PCI address", "write numbers such as slot='0x03'");
            return;
        };
        if (domain, bus) == (0, 0) {
            self.set(&format!("device.{id}.addr"), format!("0:{slot}.{function}"), address);
        } else {
            let what = print::fragment(address);
            self.lose(address, &what, "it is behind a bridge; the device gets a free slot without one");
        }
    }

    /// Sets a device's rank at boot.
    fn bootindex(&mut self, device: &Element, id: &str) {
        if let Some(order) = device.child("boot").and_then(|boot| boot.attr("order"))
            && units::number(order).is_some()
            && let Some(boot) = device.enter("boot")
        {
            boot.take("order");
            self.set(&format!("device.{id}.bootindex"), order.trim(), boot);
        }
    }
}

/// `true` or `false` for an attribute that is yes or no.
fn switch(element: &Element, name: &str) -> Option<&'static str> {
    match element.attr(name)? {
        "yes" | "on" => Some("true"),
        "no" | "off" => Some("false"),
        _ => None,
    }
}

fn is_tablet(input: &Element) -> bool {
    input.attr("type") == Some("tablet")
}

/// Takes the name of something that is no device here, unless a user gave it.
fn take_alias(element: &Element) {
    let own = |alias: &&Element| alias.attr("name").is_none_or(|name| !name.starts_with("ua-"));
    if let Some(alias) = element.child("alias").filter(own) {
        alias.take_all();
    }
}

/// The name that a user gave to a device.
fn alias(device: &Element) -> Option<&str> {
    device.child("alias")?.attr("name")?.strip_prefix("ua-").filter(|id| is_id(id))
}

/// Whether `id` can be the name of a device in a key.
fn is_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}
