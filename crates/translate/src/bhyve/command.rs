//! bhyve's tree as a command line: an option where there is one, `-o key=value` for the rest.

use std::collections::BTreeSet;

use super::export::Written;
use super::leaves::{Leaves, place};
use super::options::FLAGS;
use super::slot::{AMD, Conf, MODELS};

/// The command line, the program's name first.
pub(super) fn words(written: Written) -> Vec<String> {
    let Written { mut leaves, arguments, .. } = written;
    let mut command = Command(vec!["bhyve".to_owned()]);
    let name = take(&mut leaves, "name");
    command.machine(&mut leaves);
    for node in nodes(&leaves) {
        command.slot(&mut leaves, &node);
    }
    command.behind(&mut leaves);
    for (path, leaf) in leaves.in_order() {
        command.option("-o", format!("{path}={}", leaf.value));
    }
    command.0.extend(arguments);
    if let Some(name) = name {
        command.0.extend(name.starts_with('-').then(|| "--".to_owned()));
        command.0.push(name);
    }
    command.0
}

fn take(leaves: &mut Leaves, path: &str) -> Option<String> {
    leaves.remove(path).map(|leaf| leaf.value)
}

/// The nodes of devices, in the order of the buses.
fn nodes(leaves: &Leaves) -> Vec<String> {
    let nodes: BTreeSet<(u8, u8, u8)> = leaves
        .below("pci")
        .filter_map(|(path, _)| {
            let mut parts = path.splitn(4, '.');
            place(parts.next()?, parts.next()?, parts.next()?)
        })
        .collect();
    nodes.into_iter().map(|(bus, slot, function)| format!("pci.{bus}.{slot}.{function}")).collect()
}

struct Command(Vec<String>);

impl Command {
    fn option(&mut self, letter: &str, value: String) {
        self.0.extend([letter.to_owned(), value]);
    }

    fn machine(&mut self, leaves: &mut Leaves) {
        let topology: Vec<String> = ["cpus", "sockets", "cores", "threads"]
            .iter()
            .filter_map(|key| {
                let value = leaves.value(key).filter(|value| !value.contains([',', '=']))?.to_owned();
                leaves.remove(key);
                Some(if *key == "cpus" { value } else { format!("{key}={value}") })
            })
            .collect();
        if !topology.is_empty() {
            self.option("-c", topology.join(","));
        }
        for (path, letter) in [("memory.size", "-m"), ("uuid", "-U"), ("keyboard.layout", "-K")] {
            if let Some(value) = take(leaves, path) {
                self.option(letter, value);
            }
        }
        for (letter, path, value) in FLAGS {
            if leaves.value(path) == Some(value) {
                leaves.remove(path);
                self.0.push(format!("-{letter}"));
            }
        }
        self.processors(leaves);
        self.domains(leaves);
        self.debugger(leaves);
    }

    fn processors(&mut self, leaves: &mut Leaves) {
        let pinned: Vec<(String, String)> = leaves
            .below("vcpu")
            .filter_map(|(rest, leaf)| Some((rest.strip_suffix(".cpuset")?.to_owned(), leaf.value.clone())))
            .collect();
        let number = |text: &str| text.parse::<u16>().is_ok_and(|n| n.to_string() == text);
        for (vcpu, set) in pinned {
            if number(&vcpu) && set.split(',').all(number) {
                leaves.remove(&format!("vcpu.{vcpu}.cpuset"));
                for host in set.split(',') {
                    self.option("-p", format!("{vcpu}:{host}"));
                }
            }
        }
    }

    fn domains(&mut self, leaves: &mut Leaves) {
        const PARTS: [&str; 3] = ["size", "cpus", "domain_policy"];
        let mut ids: Vec<u8> =
            leaves.below("domains").filter_map(|(rest, _)| rest.split('.').next()?.parse().ok()).collect();
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            let path = |part: &str| format!("domains.{id}.{part}");
            let said: Vec<&str> =
                PARTS.into_iter().filter(|part| leaves.leaf(&path(part)).is_some()).collect();
            let simple =
                said.iter().all(|part| leaves.value(&path(part)).is_some_and(|value| !value.contains(',')));
            if simple && !said.is_empty() {
                let parts =
                    said.iter().filter_map(|part| Some(format!(",{part}={}", take(leaves, &path(part))?)));
                let parts: String = parts.collect();
                self.option("-n", format!("id={id}{parts}"));
            }
        }
    }

    fn debugger(&mut self, leaves: &mut Leaves) {
        let port = leaves.value("gdb.port").is_some_and(|port| !port.contains(':') && !port.starts_with('w'));
        let address = leaves.value("gdb.address").is_none_or(|address| !address.starts_with('w'));
        if !port || !address {
            return;
        }
        let wait = leaves.value("gdb.wait") == Some("true");
        let mut value = String::new();
        if wait {
            leaves.remove("gdb.wait");
            value.push('w');
        }
        if let Some(address) = take(leaves, "gdb.address") {
            value += &format!("{address}:");
        }
        value += &take(leaves, "gdb.port").unwrap_or_default();
        self.option("-G", value);
    }

    /// What sits behind the LPC bridge.
    fn behind(&mut self, leaves: &mut Leaves) {
        for port in 1..=4 {
            if let Some(path) = take(leaves, &format!("lpc.com{port}.path")) {
                self.option("-l", format!("com{port},{path}"));
            }
        }
        let plain = |value: &str| !value.contains(',');
        if leaves.value("bootrom").is_some_and(plain) {
            let rom = take(leaves, "bootrom").unwrap_or_default();
            let variables = leaves.value("bootvars").is_some_and(|value| !value.contains([',', '=']));
            let variables = variables.then(|| take(leaves, "bootvars")).flatten();
            let variables = variables.map_or(String::new(), |path| format!(",{path}"));
            self.option("-l", format!("bootrom,{rom}{variables}"));
        }
        if ["tpm.type", "tpm.path"].iter().all(|path| leaves.value(path).is_some_and(plain)) {
            let mut value = "tpm".to_owned();
            for path in ["tpm.type", "tpm.path"] {
                value += &format!(",{}", take(leaves, path).unwrap_or_default());
            }
            if leaves.value("tpm.version").is_some_and(plain) {
                value += &format!(",version={}", take(leaves, "tpm.version").unwrap_or_default());
            }
            self.option("-l", value);
        }
        if let Some(kind) = take(leaves, "lpc.fwcfg") {
            self.option("-l", format!("fwcfg,{kind}"));
        }
        if leaves.value("lpc.pc-testdev") == Some("true") {
            leaves.remove("lpc.pc-testdev");
            self.option("-l", "pc-testdev".to_owned());
        }
    }

    /// One device; what `-s` has no words for follows it as `-o`.
    fn slot(&mut self, leaves: &mut Leaves, node: &str) {
        let Some(model) = take(leaves, &format!("{node}.device")) else { return };
        let place: Vec<&str> = node.split('.').skip(1).collect();
        let place = match *place.as_slice() {
            ["0", slot, "0"] => slot.to_owned(),
            ["0", slot, function] => format!("{slot}:{function}"),
            _ => place.join(":"),
        };
        let settings: Vec<(String, String)> = leaves
            .below_in_order(node)
            .into_iter()
            .map(|(field, leaf)| (field.to_owned(), leaf.value.clone()))
            .collect();
        for (field, _) in &settings {
            leaves.remove(&format!("{node}.{field}"));
        }
        let mut device = Device { word: model, settings, conf: Vec::new() };
        device.conf();
        let conf: String = device.conf.iter().map(|part| format!(",{part}")).collect();
        self.option("-s", format!("{place},{}{conf}", device.word));
        for (field, value) in device.settings {
            self.option("-o", format!("{node}.{field}={value}"));
        }
    }
}

/// A device on its way into one word: what is in `conf` is no longer in `settings`.
struct Device {
    word: String,
    settings: Vec<(String, String)>,
    conf: Vec<String>,
}

impl Device {
    fn peek(&self, field: &str) -> Option<&str> {
        self.settings.iter().find(|(known, _)| known == field).map(|(_, value)| value.as_str())
    }

    fn take(&mut self, field: &str) -> String {
        let index = self.settings.iter().position(|(known, _)| known == field);
        index.map(|index| self.settings.remove(index).1).unwrap_or_default()
    }

    /// Whether `field` is set to something without commas.
    fn plain(&self, field: &str) -> bool {
        self.peek(field).is_some_and(|value| !value.contains(','))
    }

    fn conf(&mut self) {
        if self.word == "hostbridge" && AMD.iter().all(|(field, value)| self.peek(field) == Some(value)) {
            self.word = "amd_hostbridge".to_owned();
            self.settings.retain(|(field, _)| !AMD.iter().any(|(known, _)| known == field));
        }
        let how = MODELS.iter().find(|(word, ..)| *word == self.word).map(|(_, _, how)| *how);
        match how {
            Some(Conf::Keys) => self.keys(),
            Some(Conf::First(field)) => self.first(field),
            Some(Conf::Net) if self.peek("backend").is_some_and(|value| value.contains('=')) => {}
            Some(Conf::Net) => self.first("backend"),
            Some(Conf::Nvme) if self.plain("ram") => {
                let ram = self.take("ram");
                self.conf.push(format!("ram={ram}"));
                self.keys();
            }
            Some(Conf::Nvme) if self.peek("path").is_some_and(|path| path.starts_with("ram=")) => {}
            Some(Conf::Nvme) => self.first("path"),
            Some(Conf::Whole(field)) if self.peek(field).is_some() => {
                let value = self.take(field);
                self.conf.push(value);
            }
            Some(Conf::Ahci) => self.ahci(),
            Some(Conf::Share) => self.share(),
            Some(Conf::Ports) => self.ports(),
            Some(Conf::Host) => self.host(),
            Some(Conf::Usb) => self.usb(),
            Some(Conf::Whole(_) | Conf::AhciPort(_)) | None => {}
        }
    }

    /// Everything that has no comma in it, as `key=value`.
    fn keys(&mut self) {
        self.keys_below("");
    }

    fn keys_below(&mut self, prefix: &str) {
        let (said, rest) = std::mem::take(&mut self.settings)
            .into_iter()
            .partition(|(field, value)| field.starts_with(prefix) && !value.contains(','));
        self.settings = rest;
        let said: Vec<(String, String)> = said;
        self.conf.extend(said.into_iter().map(|(field, value)| {
            let field = &field[prefix.len()..];
            if value == "true" { field.to_owned() } else { format!("{field}={value}") }
        }));
    }

    fn first(&mut self, field: &str) {
        if self.plain(field) {
            let value = self.take(field);
            self.conf.push(value);
            self.keys();
        }
    }

    /// One port is a model of its own.
    fn ahci(&mut self) {
        let ports = self.settings.iter().filter(|(field, _)| field.ends_with(".type")).count();
        let complete = |this: &Self, port: usize| {
            let kind = this.peek(&format!("port.{port}.type"));
            matches!(kind, Some("hd" | "cd")) && this.plain(&format!("port.{port}.path"))
        };
        if ports == 0 || !(0..ports).all(|port| complete(self, port)) {
            return;
        }
        for port in 0..ports {
            let kind = self.take(&format!("port.{port}.type"));
            let path = self.take(&format!("port.{port}.path"));
            if ports == 1 {
                self.word = format!("ahci-{kind}");
                self.conf.push(path);
            } else {
                self.conf.push(format!("{kind}:{path}"));
            }
            self.keys_below(&format!("port.{port}."));
        }
    }

    fn share(&mut self) {
        let named = self.plain("sharename") && self.peek("sharename").is_some_and(|name| !name.contains('='));
        if named && self.plain("path") {
            let (name, path) = (self.take("sharename"), self.take("path"));
            self.conf.push(format!("{name}={path}"));
        }
        if !self.conf.is_empty() && self.peek("ro") == Some("true") {
            self.take("ro");
            self.conf.push("ro".to_owned());
        }
    }

    fn ports(&mut self) {
        for port in 0.. {
            let (name, path) = (format!("port.{port}.name"), format!("port.{port}.path"));
            let named = self.plain(&name) && self.peek(&name).is_some_and(|name| !name.contains('='));
            if !named || !self.plain(&path) {
                return;
            }
            let (name, path) = (self.take(&name), self.take(&path));
            self.conf.push(format!("{name}={path}"));
        }
    }

    fn host(&mut self) {
        if self.plain("pptdev") && self.peek("pptdev").is_some_and(|name| name.starts_with("ppt")) {
            let device = self.take("pptdev");
            self.conf.push(device);
            self.keys();
            return;
        }
        let number = |value: &str| value.parse::<u16>().is_ok_and(|n| n.to_string() == value);
        if ["bus", "slot", "func"].iter().all(|field| self.peek(field).is_some_and(number)) {
            let (bus, slot, function) = (self.take("bus"), self.take("slot"), self.take("func"));
            self.conf.push(format!("{bus}/{slot}/{function}"));
            self.keys();
        }
    }

    fn usb(&mut self) {
        for slot in 1.. {
            let device = format!("slot.{slot}.device");
            if !self.plain(&device) || self.peek(&device).is_some_and(|value| value.contains('=')) {
                return;
            }
            let value = self.take(&device);
            self.conf.push(value);
        }
    }
}
