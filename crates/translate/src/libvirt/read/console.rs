//! `<serial>`, `<console>` and `<channel>`: what the machine says, and to whom.

use std::collections::{BTreeMap, BTreeSet};

use super::super::units;
use super::super::xml::Element;
use super::disk::index;
use super::{Domain, take_alias};

/// Serial ports of the machine.
const SERIAL_PORTS: u64 = 4;
/// Ports of a virtio console.
const CONSOLE_PORTS: u64 = 511;

/// What is connected to where.
pub(super) struct Consoles<'x> {
    /// Serial ports that something is connected to.
    serial: BTreeSet<u64>,
    /// Whether the document has serial ports; if not, its consoles make them.
    has_serial: bool,
    /// What the document says of virtio-serial controllers.
    elements: BTreeMap<u64, &'x Element>,
    /// Those that have ports with words for them.
    used: BTreeSet<u64>,
    /// Those that are devices already, and their ports.
    controllers: BTreeMap<u64, (String, BTreeSet<u64>)>,
}

impl<'x> Consoles<'x> {
    pub(super) fn new(devices: &'x Element) -> Self {
        let controllers = devices.all("controller").filter(|it| it.attr("type") == Some("virtio-serial"));
        let ports = devices.children.iter().filter(|it| is_virtio(it) && endpoint(it).is_some());
        Self {
            serial: BTreeSet::new(),
            has_serial: devices.child("serial").is_some(),
            elements: controllers.filter_map(|it| Some((index(it)?, it))).collect(),
            used: ports.filter_map(|port| address(port).map(|(controller, _)| controller)).collect(),
            controllers: BTreeMap::new(),
        }
    }

    /// Reads a controller of virtio consoles.
    pub(super) fn read_controller(&mut self, domain: &mut Domain<'_>, controller: &Element) {
        if controller.attr("type") == Some("virtio-serial")
            && let Some(index) = index(controller).filter(|index| self.used.contains(index))
        {
            self.controller(domain, index, controller);
        }
    }

    /// The device that is controller `index`, which `element` mentions.
    fn controller(&mut self, domain: &mut Domain<'_>, index: u64, element: &Element) -> String {
        if let Some((id, _)) = self.controllers.get(&index) {
            return id.clone();
        }
        let id = domain.controller(self.elements.get(&index).copied(), element, "console", "virtio-console");
        self.controllers.insert(index, (id.clone(), BTreeSet::new()));
        id
    }

    /// Reads one of them. Those that no key can describe are kept.
    pub(super) fn read(&mut self, domain: &mut Domain<'_>, device: &Element) {
        let target = device.child("target");
        let kind = target.and_then(|target| target.attr("type")).unwrap_or("");
        if is_virtio(device) {
            self.read_virtio(domain, device);
        } else if device.name == "serial" && matches!(kind, "" | "isa-serial" | "serial") {
            self.read_serial(domain, device);
        } else if device.name == "console" && matches!(kind, "" | "serial") {
            if self.has_serial {
                // It says again what the first serial port is.
                device.take_all();
            } else {
                self.read_serial(domain, device);
            }
        }
    }

    fn read_serial(&mut self, domain: &mut Domain<'_>, device: &Element) {
        let free = (0..SERIAL_PORTS).find(|port| !self.serial.contains(port));
        let port =
            device.child("target").and_then(|target| target.attr("port")).and_then(units::number).or(free);
        let Some(port) = port.filter(|port| *port < SERIAL_PORTS && !self.serial.contains(port)) else {
            return;
        };
        let Some(endpoint) = endpoint(device) else { return };
        self.serial.insert(port);
        take(device);
        if let Some(target) = device.enter("target") {
            target.take("type");
            target.take("port");
            if let Some(model) =
                target.child("model").filter(|model| model.attr("name") == Some("isa-serial"))
            {
                model.take_all();
            }
        }
        let key = if port == 0 { "console".to_owned() } else { format!("lpc.com{}.path", port + 1) };
        domain.set(&key, endpoint, device);
    }

    fn read_virtio(&mut self, domain: &mut Domain<'_>, device: &Element) {
        let (Some(endpoint), Some((index, port))) = (endpoint(device), address(device)) else { return };
        let id = self.controller(domain, index, device);
        let Some((_, ports)) = self.controllers.get_mut(&index) else { return };
        // A port with a name is not the console itself, which is the first.
        let first = u64::from(device.name == "channel");
        let free = (first..CONSOLE_PORTS).find(|port| !ports.contains(port));
        let Some(port) = port.or(free).filter(|port| ports.insert(*port)) else { return };
        take(device);
        if let Some(address) = device.child("address") {
            address.take_all();
        }
        let keys = format!("device.{id}.port.{port}");
        domain.set(&format!("{keys}.path"), endpoint, device);
        let Some(target) = device.enter("target") else { return };
        target.take("type");
        target.take("state");
        if device.name == "channel" {
            domain.set_attr(&format!("{keys}.name"), target, "name");
        } else {
            target.take("port");
        }
    }
}

fn is_virtio(device: &Element) -> bool {
    matches!(device.name.as_str(), "console" | "channel")
        && device.child("target").is_some_and(|target| target.attr("type") == Some("virtio"))
}

/// The virtio-serial controller of a console, and its port there if that is said.
fn address(device: &Element) -> Option<(u64, Option<u64>)> {
    let Some(address) = device.child("address") else { return Some((0, None)) };
    let part = |name| address.attr(name).map_or(Some(0), units::any_number);
    let good = address.attr("type") == Some("virtio-serial") && part("bus") == Some(0);
    let port = part("port").filter(|port| *port < CONSOLE_PORTS)?;
    good.then_some((part("controller")?, address.attr("port").map(|_| port)))
}

/// What a console is connected to, if there are words for it.
fn endpoint(device: &Element) -> Option<String> {
    let source = device.child("source");
    let path = source.and_then(|source| source.attr("path")).filter(|path| !path.is_empty());
    match device.attr("type")? {
        "pty" => Some("pty".to_owned()),
        "stdio" => Some("stdio".to_owned()),
        "null" => Some("none".to_owned()),
        "file" => path.map(|path| format!("file:{path}")),
        // Consoles listen; they do not call.
        "unix" if source?.attr("mode") == Some("bind") => path.map(|path| format!("unix:{path}")),
        _ => None,
    }
}

/// Takes what [`endpoint`] has told, and what libvirt notes of a running machine.
fn take(device: &Element) {
    device.taken().take("type");
    device.take("tty");
    if let Some(source) = device.enter("source") {
        source.take("path");
        source.take("mode");
    }
    take_alias(device);
}
