//! Devices that QEMU makes of several.

use super::super::bag::Bag;
use super::super::form::number;
use super::super::models::{COMMON, PORT};
use super::{Export, empty};

impl Export<'_> {
    /// Writes a device that the table alone cannot say; `false` if it is none of those.
    pub(super) fn special(&mut self, model: &str, id: &str) -> bool {
        match model {
            "virtio-console" => self.console(id),
            "ahci" => self.ahci(id),
            "xhci" => self.xhci(id),
            "fbuf" => self.screen(id),
            "hostbridge" | "lpc" => {
                // They are there, at these places.
                let at = if model == "lpc" { "0:31.0" } else { "0:0.0" };
                let addr = format!("device.{id}.addr");
                if self.keys.peek(&addr) == Some(at) {
                    self.keys.take(&addr);
                }
            }
            _ => return false,
        }
        true
    }

    fn common(&mut self, driver: &str, id: &str) -> Bag {
        let mut front = self.front(driver, id);
        self.rows(&format!("device.{id}"), COMMON, &mut front);
        self.multifunction(id, &mut front);
        front
    }

    /// The numbers of `device.ID.LIST.N.…`, ascending.
    fn numbers(&self, id: &str, list: &str) -> Vec<u64> {
        let below = self.keys.below(&format!("device.{id}.{list}"));
        let mut numbers: Vec<u64> = below.into_iter().filter_map(number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// A port with a name is another port than a console.
    fn console(&mut self, id: &str) {
        let front = self.common("virtio-serial-pci", id);
        self.named("device", "driver", id, front);
        for port in self.numbers(id, "port") {
            let name = format!("{id}-{port}");
            if !self.endpoint(&format!("device.{id}.port.{port}.path"), &name) {
                continue;
            }
            let label = self.keys.take(&format!("device.{id}.port.{port}.name"));
            let driver = if label.is_some() { "virtserialport" } else { "virtconsole" };
            let bus = format!("{id}.0");
            let mut front =
                empty().with("driver", driver).with("id", name.as_str()).with("bus", bus.as_str());
            front.put("chardev", name.as_str());
            if let Some(label) = label {
                front.put("name", label);
            }
            self.named("device", "driver", &name, front);
        }
    }

    fn ahci(&mut self, id: &str) {
        let front = self.common("ich9-ahci", id);
        self.named("device", "driver", id, front);
        for port in self.numbers(id, "port") {
            let prefix = format!("device.{id}.port.{port}");
            let name = format!("{id}-{port}");
            let driver =
                if self.keys.take(&format!("{prefix}.type")) == Some("cd") { "ide-cd" } else { "ide-hd" };
            let bus = format!("{id}.{port}");
            let mut front =
                empty().with("driver", driver).with("id", name.as_str()).with("bus", bus.as_str());
            let mut back = self.rows(&prefix, PORT, &mut front);
            self.sectors(&prefix, &mut front);
            if driver == "ide-cd" && back.peek("read-only").is_none() {
                back.put("read-only", true);
            }
            if back.peek("file.filename").is_some() {
                let node = self.image(&prefix, &name, "raw", back);
                front.put("drive", node.as_str());
            }
            self.named("device", "driver", &name, front);
        }
    }

    fn xhci(&mut self, id: &str) {
        let front = self.common("qemu-xhci", id);
        self.named("device", "driver", id, front);
        for slot in self.numbers(id, "slot") {
            if self.keys.take(&format!("device.{id}.slot.{slot}.device")) == Some("tablet") {
                let (name, bus) = (format!("{id}-{slot}"), format!("{id}.0"));
                let front = empty().with("driver", "usb-tablet").with("id", name.as_str());
                self.named("device", "driver", &name, front.with("bus", bus.as_str()));
            }
        }
    }

    /// A screen, shown over VNC.
    fn screen(&mut self, id: &str) {
        let key = |name: &str| format!("device.{id}.{name}");
        let vga = self.keys.take(&key("vga")).is_some_and(|vga| vga != "off");
        let mut front = self.common(if vga { "VGA" } else { "bochs-display" }, id);
        for (name, property) in [("w", "xres"), ("h", "yres")] {
            if let Some(size) = self.keys.take(&key(name)).and_then(number) {
                front.put(property, super::super::bag::Value::Int(size));
            }
        }
        let rfb = self.keys.take(&key("rfb")).unwrap_or("127.0.0.1:5900");
        let (address, port) = rfb.rsplit_once(':').unwrap_or(("127.0.0.1", rfb));
        let display = if address == "unix" {
            Some(rfb.to_owned())
        } else {
            port.parse::<u16>().ok().and_then(|port| port.checked_sub(5900)).map(|n| format!("{address}:{n}"))
        };
        match display {
            Some(display) => self.option("vnc", display),
            None => self.keys.lose(&key("rfb"), "QEMU counts displays from port 5900"),
        }
        self.named("device", "driver", id, front);
    }

    /// The host's device as Linux writes it: as it is, or put together from bus, slot and function.
    pub(super) fn host_address(&mut self, id: &str, front: &mut Bag) {
        if front.peek("host").is_some() {
            return;
        }
        let part = |name: &str| self.keys.peek(&format!("device.{id}.{name}")).and_then(number);
        let (bus, slot, function) = (part("bus"), part("slot"), part("func"));
        if let (Some(bus), Some(slot)) = (bus, slot) {
            for name in ["bus", "slot", "func"] {
                self.keys.take(&format!("device.{id}.{name}"));
            }
            front.put("host", format!("0000:{bus:02x}:{slot:02x}.{:x}", function.unwrap_or(0)).as_str());
        }
    }
}
