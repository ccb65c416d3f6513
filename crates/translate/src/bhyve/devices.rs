//! The devices of a guest of vm-bhyve, in the slots where vm-bhyve puts them.

use parador_config::Origin;

use super::slot;
use super::vm_bhyve::Guest;

/// The next place for a device. Guests with UEFI firmware get a slot for each disk, others share
/// slots by their functions.
pub(super) struct Slots<'a> {
    guest: &'a mut Guest,
    uefi: bool,
    bus: u8,
    slot: u8,
    function: u8,
}

impl<'a> Slots<'a> {
    pub(super) fn new(guest: &'a mut Guest) -> Self {
        let uefi = guest.loader().starts_with("uefi");
        let slot = guest.text("start_slot").and_then(|slot| slot.parse().ok()).filter(|slot| *slot < 31);
        Self { guest, uefi, bus: 0, slot: slot.unwrap_or(4), function: 0 }
    }

    /// Adds all devices.
    pub(super) fn devices(mut self) {
        self.bridges();
        self.disks();
        self.networks();
        if self.guest.yes("virt_random", false) {
            self.add("virtio-rnd", "rng0", "virt_random");
            self.next_slot();
        }
        self.passthru();
        self.screen();
        if self.guest.yes("xhci_mouse", false) {
            self.add("xhci,tablet", "xhci0", "xhci_mouse");
            self.next_slot();
        }
        self.sound();
        self.console();
    }

    /// Puts a device at the next place; `key` is the setting that asks for it. Returns its node.
    fn add(&mut self, device: &str, id: &str, key: &str) -> String {
        let place = format!("{}:{}:{}", self.bus, self.slot, self.function);
        let origin = self.guest.place(key);
        self.add_at(&place, device, id, &origin)
    }

    fn add_at(&mut self, place: &str, device: &str, id: &str, origin: &Origin) -> String {
        let text = format!("{place},{device}");
        if let Err(wrong) = slot::read(&mut self.guest.reading.leaves, &text, origin) {
            self.guest.reading.wrong(wrong, &text, origin);
        }
        let node = slot::node(place).unwrap_or_default();
        self.guest.ids.insert(node.clone(), id.to_owned());
        node
    }

    fn next_slot(&mut self) {
        self.function = 0;
        self.slot += 1;
        if self.slot >= if self.bus == 0 { 31 } else { 32 } {
            self.slot = 0;
            self.bus = self.bus.saturating_add(1);
        }
    }

    fn next_function(&mut self) {
        self.function += 1;
        if self.function == 8 {
            self.next_slot();
        }
    }

    fn bridges(&mut self) {
        let bridge = self.guest.text("hostbridge").unwrap_or_default();
        let origin = self.guest.place("hostbridge");
        match bridge.as_str() {
            none if none.starts_with("no") => {}
            "amd" => drop(self.add_at("0", "amd_hostbridge", "hostbridge0", &origin)),
            _ => drop(self.add_at("0", "hostbridge", "hostbridge0", &origin)),
        }
        let start = self.guest.start.clone();
        self.add_at("31", "lpc", "lpc0", &start);
    }

    fn disks(&mut self) {
        let limit = self.guest.text("ahci_device_limit").and_then(|limit| limit.parse::<usize>().ok());
        let limit = limit.filter(|limit| (2..=32).contains(limit)).unwrap_or(1);
        let mut shared: Vec<String> = Vec::new();
        let mut controllers = 0;
        let mut number = 0;
        loop {
            let (name, kind) = (format!("disk{number}_name"), format!("disk{number}_type"));
            let Some((file, model)) = self.guest.text(&name).zip(self.guest.text(&kind)) else { break };
            let path = self.path(number, &file);
            let options = self.guest.text(&format!("disk{number}_opts"));
            let options = options.map_or(String::new(), |options| format!(",{options}"));
            match model.strip_prefix("ahci-") {
                Some(port) if limit > 1 => {
                    shared.push(format!("{port}:{path}{options}"));
                    if shared.len() == limit {
                        self.controller(&mut shared, &mut controllers, &kind);
                    }
                }
                _ => {
                    self.add(&format!("{model},{path}{options}"), &format!("disk{number}"), &kind);
                    if self.uefi { self.next_slot() } else { self.next_function() }
                }
            }
            number += 1;
        }
        if !shared.is_empty() {
            self.controller(&mut shared, &mut controllers, &format!("disk{}_type", number - 1));
        }
        if self.function > 0 {
            self.next_slot();
        }
    }

    /// Puts the disks in `shared` at one controller.
    fn controller(&mut self, shared: &mut Vec<String>, controllers: &mut usize, key: &str) {
        self.add(&format!("ahci,{}", shared.join(",")), &format!("ahci{controllers}"), key);
        shared.clear();
        *controllers += 1;
        if self.uefi { self.next_slot() } else { self.next_function() }
    }

    /// The file or device of a disk.
    fn path(&mut self, number: usize, file: &str) -> String {
        let key = format!("disk{number}_dev");
        match self.guest.text(&key).unwrap_or_default().as_str() {
            "zvol" | "sparse-zvol" => {
                let start = self.guest.start.clone();
                self.guest.set("var.vm_dataset", "zroot/vm", &start);
                format!("/dev/zvol/%(var.vm_dataset)/%(name)/{file}")
            }
            "custom" => file.to_owned(),
            "iscsi" => {
                let origin = self.guest.place(&key);
                let why = "vm-bhyve looks up which device this target is; set the disk's `path` to it";
                self.guest.lose(&format!("{key}=iscsi"), why, &origin);
                file.to_owned()
            }
            _ => format!("{}/{file}", self.guest.folder()),
        }
    }

    fn networks(&mut self) {
        let mut number = 0;
        while let Some(model) = self.guest.text(&format!("network{number}_type")) {
            let said = |guest: &mut Guest, what: &str| guest.text(&format!("network{number}_{what}"));
            let mut device = model;
            let existing = said(self.guest, "device");
            let named = said(self.guest, "name");
            if let Some(backend) = existing.as_ref().or(named.as_ref()) {
                device += &format!(",{backend}");
                device +=
                    if backend.starts_with("tap") || backend.starts_with("vmnet") { "" } else { ",type=tap" };
            }
            let mac = said(self.guest, "mac");
            if let Some(mac) = mac {
                device += &format!(",mac={mac}");
            }
            let node = self.add(&device, &format!("net{number}"), &format!("network{number}_type"));
            let switch = format!("network{number}_switch");
            if let Some(name) = self.guest.text(&switch) {
                let origin = self.guest.place(&switch);
                // The bridge of a standard switch.
                self.guest.set(&format!("{node}.tap.bridge"), &format!("vm-{name}"), &origin);
            }
            if existing.is_some() {
                let origin = self.guest.place(&format!("network{number}_device"));
                self.guest.set(&format!("{node}.tap.create"), "no", &origin);
            }
            self.next_function();
            number += 1;
        }
        if number > 0 && self.function > 0 {
            self.next_slot();
        }
    }

    /// Devices of the host, those of one host slot together.
    fn passthru(&mut self) {
        let mut last: Option<String> = None;
        let mut number = 0;
        while let Some(device) = self.guest.text(&format!("passthru{number}")) {
            let key = format!("passthru{number}");
            let options = self.guest.text(&format!("{key}_options"));
            let options = options.map_or(String::new(), |options| format!(",{options}"));
            if let Some((device, place)) = device.split_once('=') {
                let origin = self.guest.place(&key);
                self.add_at(
                    &format!("{}:{place}", self.bus),
                    &format!("passthru,{device}{options}"),
                    &key,
                    &origin,
                );
            } else {
                let host = device.split('/').next().unwrap_or_default().to_owned();
                if last.as_ref().is_some_and(|last| *last != host) {
                    self.next_slot();
                }
                self.add(&format!("passthru,{device}{options}"), &key, &key);
                last = Some(host);
                self.next_function();
            }
            number += 1;
        }
        if number > 0 {
            self.next_slot();
            let origin = self.guest.place("passthru0");
            self.guest.set("memory.wired", "true", &origin);
        }
    }

    fn screen(&mut self) {
        if !self.uefi || !self.guest.yes("graphics", false) {
            return;
        }
        let address = self.guest.text("graphics_listen").unwrap_or_else(|| "0.0.0.0".to_owned());
        let port = self.guest.text("graphics_port").unwrap_or_else(|| {
            let origin = self.guest.place("graphics");
            self.guest.lose(
                "graphics_port",
                "vm-bhyve looks for a port that is free; 5900 is the first it tries",
                &origin,
            );
            "5900".to_owned()
        });
        let mut device = format!("fbuf,tcp={address}:{port}");
        let size = self.guest.text("graphics_res");
        if let Some((width, height)) = size.as_ref().and_then(|size| size.split_once('x')) {
            device += &format!(",w={width},h={height}");
        }
        for (key, setting) in [("graphics_vga", "vga"), ("vnc_password", "password")] {
            if let Some(value) = self.guest.text(key) {
                device += &format!(",{setting}={value}");
            }
        }
        // `auto` waits while an operating system is installed.
        if self.guest.text("graphics_wait").is_some_and(|wait| wait != "auto")
            && self.guest.yes("graphics_wait", false)
        {
            device += ",wait";
        }
        self.add(&device, "fbuf0", "graphics");
        self.next_slot();
    }

    fn sound(&mut self) {
        let play = self.guest.text("sound_play").unwrap_or_else(|| "/dev/dsp0".to_owned());
        let record = self.guest.text("sound_rec").map_or(String::new(), |path| format!(",rec={path}"));
        if self.guest.yes("sound", false) {
            self.add(&format!("hda,play={play}{record}"), "hda0", "sound");
            self.next_slot();
        }
    }

    fn console(&mut self) {
        let mut ports = Vec::new();
        while ports.len() < 16
            && let Some(name) = self.guest.text(&format!("virt_console{}", ports.len()))
        {
            let numbered = ["yes", "on", "1"].contains(&name.to_ascii_lowercase().as_str());
            let name = if numbered { ports.len().to_string() } else { name };
            let folder = self.guest.folder();
            ports.push(format!("{name}={folder}/vtcon.{name}"));
        }
        if !ports.is_empty() {
            self.add(&format!("virtio-console,{}", ports.join(",")), "console0", "virt_console0");
            self.next_slot();
        }
    }
}
