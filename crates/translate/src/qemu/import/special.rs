//! Devices that are made of several, and the options that go with them.

use super::super::bag::Bag;
use super::super::models::{COMMON, PORT};
use super::super::options::Opt;
use super::super::table::At;
use super::device::implied;
use super::{Front, Host, Import};
use crate::words::Word;

impl Import {
    /// Takes a device that the table alone cannot say; `false` if it is none of those.
    pub(super) fn special(&mut self, driver: &str, bag: &Bag, front: &Front) -> bool {
        match driver {
            "pvpanic" | "pvpanic-pci" => true,
            "virtio-serial-pci" | "virtio-serial" => self.host("virtio-console", "console", bag.clone()),
            "ich9-ahci" | "ahci" => self.host("ahci", "ahci", bag.clone()),
            "qemu-xhci" | "nec-usb-xhci" => self.host("xhci", "xhci", bag.clone()),
            "virtconsole" | "virtserialport" => self.console_port(driver, bag.clone()),
            "ide-hd" | "ide-cd" => self.sata_port(driver, bag.clone()),
            "usb-tablet" => self.tablet(bag.clone()),
            "VGA" | "bochs-display" => self.screen(driver, bag.clone()),
            "tpm-crb" | "tpm-tis" => self.tpm(driver, bag.clone()),
            "e1000e" => {
                let why = "it becomes an e1000, its older sister";
                self.lose("e1000e", why, &bag.origin);
                let bag = Bag::new(bag.origin.clone()).with("driver", "e1000");
                let mut bag = bag;
                front.bag.clone().pour(&mut bag, "");
                bag.put("driver", "e1000");
                self.device(Front { index: front.index, bag, words: front.words.clone() });
                true
            }
            _ => false,
        }
    }

    /// A device that others are plugged into.
    fn host(&mut self, model: &'static str, prefix: &'static str, mut bag: Bag) -> bool {
        let theirs = bag.take("id");
        let ours = self.name(&[theirs.as_deref()], prefix);
        self.set(&format!("device.{ours}.model"), model, &bag.origin.clone());
        implied(&mut bag);
        for row in COMMON {
            self.property(&format!("device.{ours}.{}", row.key), row, &mut bag);
        }
        self.keep_properties("device", &ours, &bag);
        let next = usize::from(model == "xhci");
        self.whole.hosts.push(Host { model, theirs, ours, next });
        true
    }

    /// The device of `model` that `bag` is plugged into, and the place there: which `bus` says, or
    /// the last one and the next place.
    fn place(&mut self, model: &'static str, bag: &mut Bag) -> Option<(String, usize)> {
        let bus = bag.peek("bus");
        let (name, place) = match bus.as_deref().map(|bus| bus.rsplit_once('.').unwrap_or((bus, ""))) {
            Some((name, place)) => (Some(name), place.parse().ok()),
            None => (None, None),
        };
        let host = self.whole.hosts.iter_mut().rev().filter(|host| host.model == model);
        let host = { host }.find(|host| name.is_none() || host.theirs.as_deref() == name)?;
        let place = if model == "ahci" { place } else { None }.unwrap_or(host.next);
        host.next = host.next.max(place.checked_add(1)?);
        bag.take("bus");
        Some((host.ours.clone(), place))
    }

    fn console_port(&mut self, driver: &str, mut bag: Bag) -> bool {
        let chardev = bag.peek("chardev");
        let known = chardev.as_deref().is_some_and(|id| self.find("chardev", id).is_some());
        let hosts = self.whole.hosts.len();
        let Some((id, port)) = self.place("virtio-console", &mut bag) else { return false };
        let end = chardev.filter(|_| known).and_then(|c| self.endpoint(&c, &format!("{id}-{port}")));
        let Some(end) = end else {
            // What it is connected to has no word here; the place stays free.
            self.whole.hosts[..hosts]
                .iter_mut()
                .filter(|host| host.ours == id)
                .for_each(|host| host.next -= 1);
            return false;
        };
        let origin = bag.origin.clone();
        for property in ["chardev", "id", "nr"] {
            bag.take(property);
        }
        let name = bag.take("name");
        self.set(&format!("device.{id}.port.{port}.path"), end, &origin);
        match name {
            Some(name) if driver == "virtserialport" => {
                self.set(&format!("device.{id}.port.{port}.name"), name, &origin);
            }
            Some(name) => {
                self.lose(format!("name={name}"), "only other ports than consoles have names", &origin);
            }
            None => {}
        }
        self.keep_properties("device", &format!("{id}-{port}"), &bag);
        true
    }

    fn sata_port(&mut self, driver: &str, mut bag: Bag) -> bool {
        let drive = bag.peek("drive");
        let image = drive.as_deref().and_then(|id| {
            let image = self.image_of("drive", id).or_else(|| self.image_of("blockdev", id));
            image.filter(|image| image.back.peek("driver").as_deref() == Some("raw"))
        });
        if drive.is_some() && image.is_none() {
            return false;
        }
        let builtin = bag.peek("bus").is_none_or(|bus| bus.starts_with("ide."));
        let name = if builtin { "ide" } else { "" };
        let there =
            self.whole.hosts.iter().any(|host| host.model == "ahci" && host.theirs.as_deref() == Some(name));
        if builtin && !there {
            let ours = self.name(&[], "ahci");
            self.set(&format!("device.{ours}.model"), "ahci", &bag.origin);
            self.whole.hosts.push(Host { model: "ahci", theirs: Some(name.to_owned()), ours, next: 0 });
        }
        let Some((id, port)) = self.place("ahci", &mut bag) else { return false };
        let origin = bag.origin.clone();
        let prefix = format!("device.{id}.port.{port}");
        self.set(&format!("{prefix}.type"), &driver["ide-".len()..], &origin);
        for property in ["drive", "id", "unit"] {
            bag.take(property);
        }
        let group = format!("{id}-{port}");
        if let Some(mut image) = image {
            image.front.pour(&mut bag, "");
            image.back.take("driver");
            self.discards(&prefix, &mut image.back);
            if driver == "ide-cd" {
                image.back.take("read-only");
            }
            for row in PORT.iter().filter(|row| row.at == At::Back) {
                self.property(&format!("{prefix}.{}", row.key), row, &mut image.back);
            }
            if image.probed && driver == "ide-hd" {
                let why = "QEMU would guess it from the image; here it is raw";
                self.lose(format!("the format of port {port} of `{id}`"), why, &origin);
            }
            self.keep_properties("blockdev", &group, &image.back);
            image.parts.iter().for_each(|part| self.parts[*part].used = true);
        }
        for row in PORT.iter().filter(|row| row.at == At::Front) {
            self.property(&format!("{prefix}.{}", row.key), row, &mut bag);
        }
        self.sectors(&prefix, &mut bag);
        self.keep_properties("device", &group, &bag);
        true
    }

    fn tablet(&mut self, mut bag: Bag) -> bool {
        let Some((id, slot)) = self.place("xhci", &mut bag) else { return false };
        bag.take("id");
        bag.take("port");
        self.set(&format!("device.{id}.slot.{slot}.device"), "tablet", &bag.origin);
        self.keep_properties("device", &format!("{id}-{slot}"), &bag);
        true
    }

    /// A screen, if it is shown over VNC.
    fn screen(&mut self, driver: &str, mut bag: Bag) -> bool {
        let Some(address) = self.whole.vnc.front().and_then(|(_, words)| rfb(words)) else { return false };
        let Some((_, words)) = self.whole.vnc.pop_front() else { return false };
        let origin = bag.origin.clone();
        let wish = bag.take("id");
        let id = self.name(&[wish.as_deref()], "fbuf");
        self.set(&format!("device.{id}.model"), "fbuf", &origin);
        self.set(
            &format!("device.{id}.rfb"),
            address,
            &words.last().map_or(origin.clone(), |w| w.origin.clone()),
        );
        if driver == "VGA" {
            self.set(&format!("device.{id}.vga"), "on", &origin);
        }
        for (property, key) in [("xres", "w"), ("yres", "h")] {
            if let Some(value) = bag.take(property) {
                self.set(&format!("device.{id}.{key}"), value, &origin);
            }
        }
        implied(&mut bag);
        for row in COMMON {
            self.property(&format!("device.{id}.{}", row.key), row, &mut bag);
        }
        self.keep_properties("device", &id, &bag);
        true
    }

    fn tpm(&mut self, driver: &str, mut bag: Bag) -> bool {
        let Some(part) = bag.take("tpmdev").and_then(|id| self.find("tpmdev", &id)) else { return false };
        let back = self.parts[part].bag.clone();
        let origin = back.origin.clone();
        let (kind, path) = match back.peek("type").as_deref() {
            Some("passthrough") => ("passthru", back.peek("path")),
            Some("emulator") => match back.peek("chardev").and_then(|id| self.socket(&id)) {
                Some((socket, bag)) => {
                    self.parts[socket].used = true;
                    ("swtpm", bag.peek("path"))
                }
                None => return false,
            },
            _ => return false,
        };
        self.parts[part].used = true;
        self.set("tpm.type", kind, &origin);
        if let Some(path) = path {
            self.set("tpm.path", path, &origin);
        }
        if driver == "tpm-tis" {
            self.set("tpm.version", "1.2", &origin);
        }
        true
    }

    /// `-gdb tcp:ADDRESS:PORT`.
    pub(super) fn gdb(&mut self, index: usize, option: Opt) {
        let origin = option.value.origin.clone();
        let place = option.value.text.strip_prefix("tcp:").and_then(|rest| rest.rsplit_once(':'));
        match place {
            Some((address, port)) if port.parse::<u16>().is_ok() => {
                if !address.is_empty() {
                    self.set("gdb.address", address, &origin);
                }
                self.set("gdb.port", port, &origin);
            }
            _ => self.keep(index, option.words),
        }
    }

    /// What is kept unless something else was there to take it.
    pub(super) fn remaining(&mut self) {
        if let Some((index, origin)) = self.whole.stopped.take() {
            if self.tree.setting("gdb.port").is_some() {
                self.set("gdb.wait", "true", &origin);
            } else {
                self.keep(index, vec![Word { text: "-S".to_owned(), origin }]);
            }
        }
        for (index, words) in std::mem::take(&mut self.whole.vnc) {
            self.keep(index, words);
        }
    }
}

/// The address of a VNC server, as `ADDRESS:PORT`, from the display that QEMU counts.
fn rfb(words: &[Word]) -> Option<String> {
    let text = &words.get(1)?.text;
    if text.starts_with("unix:") {
        return Some(text.clone());
    }
    let (address, display) = text.rsplit_once(':')?;
    let address = if address.is_empty() { "0.0.0.0" } else { address };
    Some(format!("{address}:{}", display.parse::<u16>().ok()?.checked_add(5900)?))
}
