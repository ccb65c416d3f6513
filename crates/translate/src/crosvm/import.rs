//! What crosvm's options mean here.

use parador_config::{Diagnostic, Diagnostics, Origin};

use super::value::{parts, quoted};
use super::{ENGINE, ROWS};
use crate::format::{Imported, Input};
use crate::parts::{Group, Part, Value, bad_part, cpus, elements, size};
use crate::reading::Reading;
use crate::words::{Word, arguments, is_among};

/// Options of one letter, and older spellings.
static SPELT: &[(&str, &str)] = &[
    ("b", "block"),
    ("c", "cpus"),
    ("d", "disk"),
    ("i", "initrd"),
    ("m", "mem"),
    ("p", "params"),
    ("r", "root"),
    ("s", "socket"),
];

/// Options without a value.
static SWITCHES: &str = "\
    balloon-page-reporting balloon-ws-reporting break-linux-pci-config-io delay-rt disable-sandbox \
    disable-virtio-intx display-window-keyboard display-window-mouse enable-hwp enable-pnp-data \
    force-calibrated-tsc-leaf force-s2idle host-cpu-topology hugepages itmt lock-guest-memory \
    lock-guest-memory-dontneed no-balloon no-i8042 no-legacy no-pmu no-rng no-rtc no-smt no-usb \
    per-vm-core-scheduling privileged-vm protected-vm protected-vm-without-firmware software-tpm \
    split-irqchip strict-balloon suspended unmap-guest-memory-on-fork virt-cpufreq virt-cpufreq-upstream";

/// Options that are understood, with the name of the part that may stand first without its name.
static PARTED: &[(&str, &str)] = &[
    ("block", "path"),
    ("net", ""),
    ("cpus", "num-cores"),
    ("mem", "size"),
    ("vsock", "cid"),
    ("serial", "type"),
    ("vhost-user", "type"),
    ("vfio", "path"),
    ("pflash", "path"),
    ("smbios", ""),
];

/// Options that are understood, whose value is one text.
static WHOLE: &[&str] = &["initrd", "bios", "gdb", "params", "cpu-affinity", "init-mem"];

/// Older options with the one that says the same: the option, and what goes before and after its value.
static OLDER: &[(&str, &str, &str, &str)] = &[
    ("disk", "block", "", ",ro"),
    ("rwdisk", "block", "", ""),
    ("root", "block", "", ",ro,root"),
    ("rwroot", "block", "", ",root"),
    ("tap-name", "net", "tap-name=", ""),
    ("tap-fd", "net", "tap-fd=", ""),
    ("cid", "vsock", "cid=", ""),
];

pub(crate) fn import(input: Input<'_>) -> Result<Imported, Diagnostics> {
    let mut words = arguments(input, &["crosvm"])?;
    let mut reading = Reading::new(ENGINE, ROWS);
    if let Some(run) = words.iter().position(|word| word.text == "run") {
        for word in words.drain(..=run).filter(|word| word.text != "run") {
            reading.lose(word.text, "what stands before `run` is not about the machine", &word.origin);
        }
    }
    let mut line = Line::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        line.option(&mut reading, &word, &mut words);
    }
    line.tree(reading)
}

/// What the options say that is put together in the end.
#[derive(Debug, Default)]
struct Line {
    groups: Vec<Group>,
    params: Vec<Word>,
    /// Words for the kernel that it adds by itself.
    implied: Vec<String>,
    switches: Vec<(String, Origin)>,
    affinity: Option<Part>,
    init_mem: Option<Part>,
    kernel: Option<Word>,
    serial: bool,
}

impl Line {
    fn option(&mut self, reading: &mut Reading, word: &Word, words: &mut impl Iterator<Item = Word>) {
        let (spelt, inline) = match word.text.split_once('=') {
            Some((option, value)) if option.starts_with('-') => (option, Some(value.to_owned())),
            _ => (word.text.as_str(), None),
        };
        let Some(name) = spelt.strip_prefix("--").or_else(|| spelt.strip_prefix('-')) else {
            if self.kernel.is_some() {
                reading
                    .wrong(Diagnostic::new(format!("`{spelt}` is a second kernel")).at(word.origin.clone()));
            }
            self.kernel = Some(word.clone());
            return;
        };
        let name = SPELT.iter().find(|(short, _)| *short == name).map_or(name, |(_, long)| *long);
        if is_among(SWITCHES, name) {
            return self.switch(reading, name, &word.origin);
        }
        let value = match inline {
            Some(text) => Some(Word { text, origin: word.origin.clone() }),
            None => words.next(),
        };
        let Some(mut value) = value else {
            return reading.wrong(Diagnostic::new(format!("`{spelt}` has no value")).at(word.origin.clone()));
        };
        let mut name = name;
        if let Some((_, new, before, after)) = OLDER.iter().find(|(old, ..)| *old == name) {
            value.text = format!("{before}{}{after}", value.text);
            name = new;
        }
        if let Some((_, first)) = PARTED.iter().find(|(parted, _)| *parted == name) {
            match parts(first, &value) {
                Ok(parts) => {
                    self.groups.push(Group { parts, origin: value.origin, ..Group::new(name, "") });
                }
                Err(finding) => reading.wrong(finding.at(value.origin)),
            }
        } else if WHOLE.contains(&name) {
            self.whole(reading, name, value);
        } else {
            reading.keep(format!("--{name}"), &word.origin);
            reading.keep(value.text, &value.origin);
        }
    }

    fn switch(&mut self, reading: &mut Reading, name: &str, origin: &Origin) {
        match name {
            "no-rng" | "no-balloon" | "balloon-page-reporting" | "hugepages" | "lock-guest-memory" => {
                self.switches.push((name.to_owned(), origin.clone()));
            }
            _ => reading.keep(format!("--{name}"), origin),
        }
    }

    fn whole(&mut self, reading: &mut Reading, name: &str, value: Word) {
        let part = Part {
            name: String::new(),
            value: Value::Text(value.text.clone()),
            origin: value.origin.clone(),
        };
        match name {
            "params" => self.params.push(value),
            "cpu-affinity" => self.affinity = Some(part),
            "init-mem" => self.init_mem = Some(part),
            _ => {
                let mut group = Group { origin: value.origin, ..Group::new(name, "") };
                group.parts.push(part);
                reading.rows(&mut group);
            }
        }
    }

    fn has(&self, switch: &str) -> Option<&Origin> {
        self.switches.iter().find(|(name, _)| name == switch).map(|(_, origin)| origin)
    }

    fn tree(mut self, mut reading: Reading) -> Result<Imported, Diagnostics> {
        let start = Origin::Argument(0);
        if let Some(kernel) = &self.kernel {
            reading.set("boot.kernel", &kernel.text, &kernel.origin);
        }
        for option in ["hugepages", "lock-guest-memory"] {
            match self.has(option) {
                Some(origin) => {
                    let mut group = Group { origin: origin.clone(), ..Group::new(option, "") };
                    group.push("", Value::Switch(true));
                    reading.rows(&mut group);
                }
                None => reading.left_out(option, &start),
            }
        }
        let groups = std::mem::take(&mut self.groups);
        if !groups.iter().any(|group| group.option == "cpus") {
            reading.left_out("cpus", &start);
        }
        let mut disks = 0;
        for mut group in groups {
            match group.option.as_str() {
                "block" => {
                    self.disk(&mut reading, &mut group, disks);
                    disks += 1;
                }
                "serial" => self.serial(&mut reading, &mut group),
                "net" | "vsock" | "vhost-user" | "vfio" => device(&mut reading, &mut group),
                _ => reading.rows(&mut group),
            }
            reading.rest("--", &group);
        }
        self.affinity(&mut reading);
        self.always(&mut reading, &start);
        self.cmdline(&mut reading);
        reading.finish()
    }

    fn disk(&mut self, reading: &mut Reading, group: &mut Group, index: u8) {
        for part in &mut group.parts {
            let new = match part.name.as_str() {
                "o-direct" => "direct",
                "read-only" => "ro",
                other => other,
            };
            part.name = new.to_owned();
        }
        let id = reading.device(group, "virtio-blk", "disk", "");
        address(reading, &id, group);
        reading.rows(group);
        let root = group.take("root").and_then(|part| part.value.switch());
        if root == Some(true) {
            let ro = reading.value(&format!("device.{id}.ro")) == Some("true");
            let letter = char::from(b'a' + index.min(25));
            self.implied.push(format!("root=/dev/vd{letter} {}", if ro { "ro" } else { "rw" }));
        }
    }

    fn serial(&mut self, reading: &mut Reading, group: &mut Group) {
        let word = |group: &Group, name: &str| group.part(name).map(|part| part.value.shown());
        let path = word(group, "path").unwrap_or_default();
        let end = match word(group, "type").as_deref() {
            Some("stdout") => "stdio".to_owned(),
            Some("sink") => "none".to_owned(),
            Some("file") if !path.is_empty() => format!("file:{path}"),
            Some("unix-stream") if !path.is_empty() => format!("unix:{path}"),
            _ => return keep_whole(reading, group),
        };
        let hardware = word(group, "hardware").unwrap_or_else(|| "serial".to_owned());
        let number = word(group, "num").unwrap_or_else(|| "1".to_owned());
        let console = match (hardware.as_str(), number.as_str()) {
            ("serial", "1") => {
                self.serial = true;
                reading.set("console", end, &group.origin);
                "ttyS0"
            }
            ("serial", "2" | "3" | "4") => {
                reading.set(&format!("lpc.com{number}.path"), end, &group.origin);
                return taken(group);
            }
            ("virtio-console", _) => {
                let id = reading.device(group, "virtio-console", "console", "");
                reading.set(&format!("device.{id}.port.0.path"), end, &group.origin);
                "hvc0"
            }
            _ => return keep_whole(reading, group),
        };
        if group.part("console").is_some_and(|part| part.value.switch() == Some(true)) {
            self.implied.push(format!("console={console}"));
        }
        taken(group);
    }

    fn affinity(&self, reading: &mut Reading) {
        let Some(part) = &self.affinity else { return };
        let text = part.value.shown();
        let list = |text: &str| cpus(&elements(text).into_iter().map(Value::Text).collect::<Vec<_>>());
        let count = reading.value("cpus").and_then(|cpus| cpus.parse::<u32>().ok()).unwrap_or(1).min(254);
        let pairs: Option<Vec<(u32, String)>> = if text.contains('=') {
            let pair = |pair: &str| {
                let (vcpu, hosts) = pair.split_once('=')?;
                Some((vcpu.parse().ok()?, list(hosts)?))
            };
            text.split(':').map(pair).collect()
        } else {
            list(&text).map(|hosts| (0..count).map(|vcpu| (vcpu, hosts.clone())).collect())
        };
        match pairs {
            Some(pairs) => {
                for (vcpu, hosts) in pairs {
                    reading.set(&format!("vcpu.{vcpu}.cpuset"), hosts, &part.origin);
                }
            }
            None => reading.wrong(bad_part("cpu-affinity", part, "a list such as 0-3, or 0=1,2:1=3")),
        }
    }

    /// Devices that are there unless they are turned off.
    fn always(&self, reading: &mut Reading, start: &Origin) {
        if self.has("no-rng").is_none() {
            reading.device(&mut Group::new("rng", ""), "virtio-rnd", "rng", "");
        }
        if self.has("no-balloon").is_none() {
            let reporting = self.has("balloon-page-reporting");
            let mut group = Group {
                origin: reporting.unwrap_or(start).clone(),
                ..Group::new("balloon-page-reporting", "")
            };
            let id = reading.device(&mut group, "virtio-balloon", "balloon", "");
            if reporting.is_some() {
                group.push("", Value::Switch(true));
            }
            reading.rows(&mut group);
            self.initial(reading, &id);
        }
    }

    /// What is not there at first is in the balloon.
    fn initial(&self, reading: &mut Reading, balloon: &str) {
        let Some(part) = &self.init_mem else { return };
        let all = reading.value("memory.size").and_then(|text| Value::text(text).size()).unwrap_or(256 << 20);
        match part.value.number().and_then(|mib| all.checked_sub(mib.checked_mul(1 << 20)?)) {
            Some(bytes) => reading.set(&format!("device.{balloon}.size"), size(bytes), &part.origin),
            None => reading.wrong(bad_part("init-mem", part, "a number of MiB, at most that of --mem")),
        }
    }

    /// It tells the kernel its console and root by itself.
    fn cmdline(&mut self, reading: &mut Reading) {
        let mut words: Vec<String> = self.params.iter().map(|word| word.text.clone()).collect();
        if !self.serial && self.kernel.is_some() {
            self.implied.insert(0, "console=ttyS0".to_owned());
        }
        for implied in &self.implied {
            let name = implied.split_once('=').map_or("", |(name, _)| name);
            let said = words
                .iter()
                .flat_map(|word| word.split(' '))
                .any(|word| word.split('=').next() == Some(name));
            if !said {
                words.push(implied.clone());
            }
        }
        if !words.is_empty() {
            let origin = self.params.first().map_or(Origin::Argument(0), |word| word.origin.clone());
            reading.set("boot.cmdline", words.join(" "), &origin);
        }
    }
}

fn device(reading: &mut Reading, group: &mut Group) {
    let (model, kind) = match group.option.as_str() {
        "net" => ("virtio-net", "net"),
        "vsock" => ("virtio-vsock", "vsock"),
        "vfio" => ("passthru", "dev"),
        _ => match group.part("type").map(|part| part.value.shown()).as_deref() {
            Some("block") => ("virtio-blk", "disk"),
            Some("net") => ("virtio-net", "net"),
            Some("fs") => ("virtio-fs", "fs"),
            _ => ("vhost-user", "vhost"),
        },
    };
    let id = reading.device(group, model, kind, "");
    let key = |field: &str| format!("device.{id}.{field}");
    address(reading, &id, group);
    match group.option.as_str() {
        "net" if group.part("tap-fd").is_some() => reading.set(&key("backend"), "fd", &group.origin),
        "vsock" => {
            let why = "its connections are the host kernel's; give it a `socket` here";
            reading.lose("--vsock", why, &group.origin);
        }
        "vfio" => {
            let path = group.part("path").map(|part| (part.value.shown(), part.origin.clone()));
            if let Some((path, origin)) = path
                && let Some(host) = path.trim_end_matches('/').strip_prefix("/sys/bus/pci/devices/")
            {
                reading.set(&key("host"), host, &origin);
                group.take("path");
            }
        }
        "vhost-user" => {
            let part = group.take("type");
            match (model, part) {
                ("virtio-blk" | "virtio-net", _) => reading.set(&key("backend"), "vhost-user", &group.origin),
                ("vhost-user", Some(part)) => {
                    reading.set(&key("virtio_type"), part.value.shown(), &part.origin);
                }
                _ => {}
            }
        }
        _ => {}
    }
    reading.rows(group);
}

/// `pci-address=00:04.0` is where it sits.
fn address(reading: &mut Reading, id: &str, group: &mut Group) {
    let Some(part) = group.take("pci-address") else { return };
    let text = part.value.shown();
    let text = text.strip_prefix("0000:").unwrap_or(&text);
    let parsed = (|| {
        let (bus, rest) = text.split_once(':')?;
        let (slot, function) = rest.split_once('.')?;
        let number = |text| u8::from_str_radix(text, 16).ok();
        Some(format!("{}:{}.{}", number(bus)?, number(slot)?, number(function)?))
    })();
    match parsed {
        Some(address) => reading.set(&format!("device.{id}.addr"), address, &part.origin),
        None => reading.wrong(bad_part(&group.option, &part, "BUS:SLOT.FUNCTION, such as 00:04.0")),
    }
}

/// Nothing of it is left to keep.
fn taken(group: &mut Group) {
    for name in ["type", "path", "hardware", "num", "console", "stdin"] {
        group.take(name);
    }
    group.parts.retain(|part| part.name != "earlycon" || part.value.switch() == Some(true));
}

fn keep_whole(reading: &mut Reading, group: &mut Group) {
    let parts: Vec<String> =
        group.parts.drain(..).map(|part| format!("{}={}", part.name, quoted(&part.value.shown()))).collect();
    reading.keep(format!("--{}", group.option), &group.origin);
    reading.keep(parts.join(","), &group.origin);
}
