//! The machine: its kind, its processor, its firmware.

use super::super::bag::Bag;
use super::super::options::Opt;
use super::disk::Image;
use super::{Flash, Import};
use crate::words::Word;

impl Import {
    /// What `-machine` says and the table does not know.
    pub(super) fn machine(&mut self, index: usize, bag: &mut Bag) {
        let origin = bag.origin.clone();
        match bag.take("type").as_deref() {
            None | Some("q35") => {}
            Some("microvm") => self.set("machine.type", "microvm", &origin),
            Some(versioned) if versioned.starts_with("pc-q35-") => {
                let rest = std::mem::replace(bag, Bag::new(origin.clone()).with("type", versioned));
                rest.pour(bag, "");
            }
            Some(other) => {
                self.lose(format!("-machine {other}"), "the machine is a PC with PCI Express, q35", &origin);
            }
        }
        bag.take_if("accel", &["kvm"]);
        if let Some(id) = bag.take("memory-backend") {
            self.whole.memory = Some((index, id, origin.clone()));
        }
        for (unit, property) in ["pflash0", "pflash1"].into_iter().enumerate() {
            if let Some(node) = bag.take(property) {
                let origin = origin.clone();
                self.whole.flash.push(Flash { unit: Some(unit), index, node, kind: "blockdev", origin });
            }
        }
    }

    /// A processor of which all is known whether it is there or not.
    pub(super) fn processor(&mut self, index: usize, option: Opt) {
        let mut parts = option.value.text.split(',');
        let model = parts.next().unwrap_or_default();
        let mut features = Vec::new();
        for part in parts {
            let feature = match part.split_once('=') {
                _ if part.starts_with(['+', '-']) => part.to_owned(),
                None => format!("+{part}"),
                Some((name, "on" | "yes" | "true")) => format!("+{name}"),
                Some((name, "off" | "no" | "false")) => format!("-{name}"),
                Some(_) => return self.keep(index, option.words),
            };
            features.push(feature);
        }
        let origin = &option.value.origin;
        if model != "host" {
            self.set("cpu.model", model, origin);
        }
        if !features.is_empty() {
            self.set("cpu.features", features.join(","), origin);
        }
    }

    /// `-accel`, which is also a property of the machine.
    pub(super) fn accelerator(&mut self, index: usize, option: Opt) {
        if option.value.text.contains([',', '=']) {
            return self.keep(index, option.words);
        }
        let machine = Word { text: "-machine".to_owned(), origin: option.origin() };
        let accel = Word { text: format!("accel={}", option.value.text), origin: option.value.origin };
        self.keep(index, vec![machine, accel]);
    }

    /// `-pflash FILE`, which is a drive.
    pub(super) fn pflash(&mut self, index: usize, option: Opt) {
        let bag = Bag::new(option.value.origin.clone())
            .with("if", "pflash")
            .with("format", "raw")
            .with("file", option.value.text.as_str());
        self.part(index, "drive", "id", bag, option.words);
    }

    /// The files of the firmware and its variables.
    pub(super) fn boot_rom(&mut self) {
        let mut next = 0;
        for flash in std::mem::take(&mut self.whole.flash) {
            let unit = flash.unit.unwrap_or(next);
            next = unit + 1;
            let key = if unit == 0 { "bootrom" } else { "bootvars" };
            let found = self.image_of(flash.kind, &flash.node);
            let raw = found.filter(|image| image.back.peek("driver").as_deref() == Some("raw"));
            let Some(Image { mut back, parts, .. }) = raw else {
                if flash.kind == "blockdev" {
                    let text = format!("pflash{unit}={}", flash.node);
                    let option = Word { text: "-machine".to_owned(), origin: flash.origin.clone() };
                    self.keep(flash.index, vec![option, Word { text, origin: flash.origin }]);
                }
                continue;
            };
            parts.into_iter().for_each(|part| self.parts[part].used = true);
            let path = back.take("file.filename").unwrap_or_default();
            self.set(key, path, &flash.origin);
            let read_only =
                back.take("read-only").is_some_and(|value| ["on", "true"].contains(&value.as_str()));
            if unit == 0 && !read_only {
                let why = "the firmware is only read; its variables are in `bootvars`";
                self.lose("a firmware that can be written", why, &flash.origin);
            } else if unit == 1 && read_only {
                self.set("bootvars_mode", "ro", &flash.origin);
            }
        }
    }

    /// What QEMU does when it is not told otherwise, and this machine does not.
    pub(super) fn left_out(&mut self) {
        let Some(first) = self.whole.first.clone() else { return };
        if self.tree.setting("memory.size").is_none() {
            self.set("memory.size", "128M", &first);
        }
        if self.whole.nodefaults || self.tree.setting("machine.type").is_some() {
            return;
        }
        if !self.whole.networked {
            let why = "QEMU has one unless it is told `-nic none`; add a device with model=virtio-net";
            self.lose("the default network interface", why, &first);
        }
        if !self.whole.displayed {
            let why = "QEMU has one unless it is told `-nographic` or `-display none`; use `console`";
            self.lose("the default screen", why, &first);
        }
    }
}
