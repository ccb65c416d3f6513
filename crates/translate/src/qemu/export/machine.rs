//! The machine: what it is, what it starts, its serial ports.

use super::super::form::switch;
use super::super::table::{GLOBALS, PLAIN, PORTS, SLOTS};
use super::{Export, empty};

impl Export<'_> {
    /// What is not of a device. `accelerated` says that what was kept has an `-accel` of its own.
    pub(super) fn machine(&mut self, accelerated: bool) {
        self.words.extend(["-nodefaults", "-no-user-config", "-display", "none"].map(str::to_owned));
        let kind = self.kind();
        let mut machine = empty().with("type", kind);
        if !accelerated {
            machine.put("accel", "kvm");
        }
        let flash = self.boot_rom();
        self.memory(&mut machine);
        for (property, node) in flash {
            machine.put(property, node);
        }
        for global in GLOBALS {
            let mut bag = if global.option == "machine" { machine.clone() } else { empty() };
            global.rows.iter().for_each(|row| self.property(row.key, row, &mut bag));
            if global.option == "action" && bag.peek("panic").is_none() {
                bag.put("panic", "exit-failure");
            }
            if global.option == "m" && bag.peek("maxmem").is_some() {
                bag.put("slots", SLOTS);
            }
            if global.option == "m" && bag.peek("size").is_none() {
                bag.put("size", "256M");
            }
            if !bag.is_empty() {
                let mut all = empty();
                global.constants.iter().for_each(|(name, value)| all.put(name, *value));
                bag.pour(&mut all, "");
                // A name is not taken for a property, whatever is in it.
                let first = if global.option == "name" { "" } else { global.first };
                self.option(global.option, all.human(first));
            }
            if global.option == "machine" {
                self.processor();
            }
        }
        for (option, key) in PLAIN {
            if let Some(value) = self.keys.take(key) {
                self.option(option, value);
            }
        }
        if !self.microvm {
            self.named("device", "driver", "", empty().with("driver", "pvpanic"));
        }
        self.debugger();
        self.tpm();
    }

    fn kind(&mut self) -> &'static str {
        match self.keys.take("machine.type") {
            None | Some("pc") => "q35",
            Some("microvm") => "microvm",
            Some(_) => {
                self.keys
                    .lose("machine.type", "this program emulates PCs; there is another for each processor");
                "q35"
            }
        }
    }

    fn processor(&mut self) {
        let mut value = self.keys.take("cpu.model").unwrap_or("host").to_owned();
        for feature in self.keys.take("cpu.features").into_iter().flat_map(|features| features.split(',')) {
            let (name, on) = match feature.strip_prefix('-') {
                Some(name) => (name, "off"),
                None => (feature.strip_prefix('+').unwrap_or(feature), "on"),
            };
            value += &format!(",{name}={on}");
        }
        self.option("cpu", value);
    }

    /// The nodes of the firmware and its variables.
    fn boot_rom(&mut self) -> Vec<(&'static str, &'static str)> {
        let mut flash = Vec::new();
        let mode = self.keys.take("bootvars_mode");
        let kept = mode != Some("ro");
        if mode == Some("ephemeral") {
            self.keys.lose("bootvars_mode", "changes would be kept; give QEMU a copy of the file");
        }
        for (key, property, written) in [("bootrom", "pflash0", false), ("bootvars", "pflash1", kept)] {
            let lost = key == "bootvars" && mode == Some("ephemeral");
            if let Some(path) = self.keys.take(key).filter(|_| !lost) {
                let bag = empty()
                    .with("driver", "raw")
                    .with("node-name", key)
                    .with("read-only", !written)
                    .with("file.driver", "file")
                    .with("file.filename", path);
                self.named("blockdev", "driver", key, bag);
                flash.push((property, key));
            } else if lost {
                self.keys.lose(key, "changes would be kept; give QEMU a copy of the file");
            }
        }
        flash
    }

    /// The serial ports; a place that nobody has is left free for the next.
    pub(super) fn serial_ports(&mut self) {
        let last = PORTS.iter().rposition(|key| self.keys.peek(key).is_some()).unwrap_or(0);
        for (number, key) in PORTS.iter().enumerate().take(last + 1) {
            let name = format!("com{}", number + 1);
            let end = self.keys.peek(key);
            if end == Some("none")
                && let Some(kept) = self.serials.pop_front()
            {
                self.keys.take(key);
                self.words.extend(kept);
            } else if end.is_some() {
                if self.endpoint(key, &name) {
                    self.option("serial", format!("chardev:{name}"));
                }
            } else if number > 0 {
                self.option("serial", "none");
            } else if self.stdio_is_free() {
                let stdio = empty().with("backend", "stdio").with("id", &*name).with("signal", false);
                self.named("chardev", "backend", &name, stdio);
                self.option("serial", format!("chardev:{name}"));
            } else {
                self.option("serial", "null");
            }
        }
        self.words.extend(self.serials.drain(..).flatten());
    }

    /// Whether no other port says that it is connected to standard input and output.
    fn stdio_is_free(&self) -> bool {
        let stdio = |key: String| self.keys.peek(&key) == Some("stdio");
        self.keys.devices().iter().all(|id| {
            let mut ports = self.keys.below(&format!("device.{id}.port")).into_iter();
            !stdio(format!("device.{id}.path"))
                && !ports.any(|port| stdio(format!("device.{id}.port.{port}.path")))
        })
    }

    fn debugger(&mut self) {
        let address = self.keys.peek("gdb.address").unwrap_or_default();
        if let Some(port) = self.keys.peek("gdb.port") {
            self.keys.take("gdb.port");
            self.keys.take("gdb.address");
            if port != "0" {
                self.option("gdb", format!("tcp:{address}:{port}"));
            }
            if self.keys.take("gdb.wait").and_then(switch) == Some(true) {
                self.words.push("-S".to_owned());
            }
        }
    }

    fn tpm(&mut self) {
        let path = self.keys.peek("tpm.path").unwrap_or_default();
        let back = empty().with("type", "emulator").with("id", "tpm0");
        match self.keys.peek("tpm.type") {
            Some("swtpm") => {
                self.option(
                    "chardev",
                    empty().with("backend", "socket").with("id", "tpm0").with("path", path).human("backend"),
                );
                self.option("tpmdev", back.with("chardev", "tpm0").human("type"));
            }
            Some("passthru") => {
                let back = empty().with("type", "passthrough").with("id", "tpm0");
                self.option(
                    "tpmdev",
                    if path.is_empty() { back } else { back.with("path", path) }.human("type"),
                );
            }
            _ => return,
        }
        let driver = if self.keys.peek("tpm.version") == Some("1.2") { "tpm-tis" } else { "tpm-crb" };
        for key in ["tpm.type", "tpm.path", "tpm.version"] {
            self.keys.take(key);
        }
        self.named("device", "driver", "", empty().with("driver", driver).with("tpmdev", "tpm0"));
    }
}
