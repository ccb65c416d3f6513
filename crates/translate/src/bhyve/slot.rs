//! `-s SLOT,MODEL,CONF`: each model has its own way to write its settings in one word.

use parador_config::Origin;

use super::leaves::{Leaves, Wrong, place};

/// How the part after the model is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conf {
    /// `key=value,key,…`; a key alone is `true`.
    Keys,
    /// The first part is the value of this key, the rest is as [`Conf::Keys`].
    First(&'static str),
    /// As `First("backend")`; nothing but keys, if there is an `=` in the first part.
    Net,
    /// All of it is the value of this key, commas and all.
    Whole(&'static str),
    /// As `First("path")`, or `ram=MEGABYTES` first.
    Nvme,
    /// `hd:PATH,keys…,cd:PATH,…`.
    Ahci,
    /// One port of this type, as `First("path")`.
    AhciPort(&'static str),
    /// `NAME=PATH` once, and keys alone.
    Share,
    /// `NAME=PATH,…`, one for each port.
    Ports,
    /// `pptN`, `B/S/F` or `pciB:S:F`, then as [`Conf::Keys`].
    Host,
    /// `DEVICE[=KEY],…`, one for each slot.
    Usb,
}

/// What can stand in a slot: the word for it, the model that it is, and how its settings are written.
pub(super) static MODELS: &[(&str, &str, Conf)] = &[
    ("ahci", "ahci", Conf::Ahci),
    ("ahci-cd", "ahci", Conf::AhciPort("cd")),
    ("ahci-hd", "ahci", Conf::AhciPort("hd")),
    ("amd_hostbridge", "hostbridge", Conf::Keys),
    ("e1000", "e1000", Conf::Net),
    ("fbuf", "fbuf", Conf::Keys),
    ("hda", "hda", Conf::Keys),
    ("hostbridge", "hostbridge", Conf::Keys),
    ("lpc", "lpc", Conf::Keys),
    ("nvme", "nvme", Conf::Nvme),
    ("passthru", "passthru", Conf::Host),
    ("uart", "uart", Conf::Whole("path")),
    ("virtio-9p", "virtio-9p", Conf::Share),
    ("virtio-blk", "virtio-blk", Conf::First("path")),
    ("virtio-console", "virtio-console", Conf::Ports),
    ("virtio-input", "virtio-input", Conf::First("path")),
    ("virtio-net", "virtio-net", Conf::Net),
    ("virtio-rnd", "virtio-rnd", Conf::Keys),
    ("virtio-scsi", "virtio-scsi", Conf::First("dev")),
    ("xhci", "xhci", Conf::Usb),
];

/// The registers by which a hostbridge is one of AMD.
pub(super) const AMD: [(&str, &str); 2] = [("pcireg.vendor", "0x1022"), ("pcireg.device", "0x7432")];

/// Sets what `-s text` sets. The error is what bhyve would say, and what to do.
pub(super) fn read(leaves: &mut Leaves, text: &str, origin: &Origin) -> Result<(), Wrong> {
    let Some((address, rest)) = text.split_once(',') else {
        return Err(Wrong::new("no model in this slot", "write `-s SLOT,MODEL[,SETTINGS]`"));
    };
    let (word, conf) = rest.split_once(',').map_or((rest, None), |(word, conf)| (word, Some(conf)));
    let node = node(address)?;
    let Some((_, model, how)) = MODELS.iter().find(|(known, ..)| *known == word) else {
        let words: Vec<&str> = MODELS.iter().map(|(word, ..)| *word).collect();
        return Err(Wrong::new(
            format!("unknown device `{}`", word.escape_debug()),
            format!("bhyve has {}", words.join(", ")),
        ));
    };
    if leaves.is_node(&node) {
        let hint = format!("change what is there with `-o {node}.KEY=VALUE`, or take another slot");
        return Err(Wrong::new(format!("pci slot {} already occupied!", &node[4..].replace('.', ":")), hint));
    }
    let mut device = Device { leaves, node, origin };
    device.set("device", model)?;
    if word == "amd_hostbridge" {
        for (register, value) in AMD {
            device.set(register, value)?;
        }
    }
    match conf {
        Some(conf) => device.conf(*how, conf),
        None => Ok(()),
    }
}

/// The node of `[[B:]S][:F]`.
pub(super) fn node(address: &str) -> Result<String, Wrong> {
    let parts: Vec<&str> = address.split(':').map(unpadded).collect();
    let (bus, slot, function) = match *parts {
        [slot] => ("0", slot, "0"),
        [slot, function] => ("0", slot, function),
        [bus, slot, function] => (bus, slot, function),
        _ => ("", "", ""),
    };
    match place(bus, slot, function) {
        Some((bus, slot, function)) => Ok(format!("pci.{bus}.{slot}.{function}")),
        None => Err(Wrong::new(
            format!("invalid PCI slot `{}`", address.escape_debug()),
            "write SLOT, SLOT:FUNCTION or BUS:SLOT:FUNCTION in decimal, up to 255:31:7",
        )),
    }
}

fn unpadded(part: &str) -> &str {
    match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0",
        rest => rest,
    }
}

/// A node that is being filled.
struct Device<'a> {
    leaves: &'a mut Leaves,
    node: String,
    origin: &'a Origin,
}

impl Device<'_> {
    fn set(&mut self, key: &str, value: &str) -> Result<(), Wrong> {
        self.leaves.set(&format!("{}.{key}", self.node), value, self.origin)
    }

    fn conf(&mut self, how: Conf, conf: &str) -> Result<(), Wrong> {
        match how {
            Conf::Keys => self.keys("", conf),
            Conf::First(key) => self.first("", key, conf),
            Conf::Net if conf.split(',').next().is_some_and(|part| part.contains('=')) => self.keys("", conf),
            Conf::Net => self.first("", "backend", conf),
            Conf::Whole(key) => self.set(key, conf),
            Conf::Nvme if conf.starts_with("ram=") => self.keys("", conf),
            Conf::Nvme => self.first("", "path", conf),
            Conf::Ahci => self.ahci(conf),
            Conf::AhciPort(kind) => {
                self.set("port.0.type", kind)?;
                self.first("port.0.", "path", conf)
            }
            Conf::Share => self.share(conf),
            Conf::Ports => self.ports(conf),
            Conf::Host => self.host(conf),
            Conf::Usb => self.usb(conf),
        }
    }

    /// `key=value` and `key`, separated by commas, below `prefix`.
    fn keys(&mut self, prefix: &str, conf: &str) -> Result<(), Wrong> {
        for part in conf.split(',') {
            let (key, value) = part.split_once('=').unwrap_or((part, "true"));
            if key.is_empty() {
                return Err(Wrong::new(
                    "a setting without a name",
                    "write KEY=VALUE, separated by single commas",
                ));
            }
            self.set(&format!("{prefix}{key}"), value)?;
        }
        Ok(())
    }

    fn first(&mut self, prefix: &str, key: &str, conf: &str) -> Result<(), Wrong> {
        let (first, rest) = conf.split_once(',').map_or((conf, None), |(first, rest)| (first, Some(rest)));
        self.set(&format!("{prefix}{key}"), first)?;
        rest.map_or(Ok(()), |rest| self.keys(prefix, rest))
    }

    fn ahci(&mut self, mut rest: &str) -> Result<(), Wrong> {
        /// Ports of one controller.
        const PORTS: usize = 32;
        for port in 0..PORTS {
            let kind = ["hd", "cd"]
                .into_iter()
                .find(|kind| rest.strip_prefix(kind).is_some_and(|rest| rest.starts_with(':')));
            rest = kind.map_or(rest, |_| &rest[3..]);
            let end = [",hd:", ",cd:"].into_iter().filter_map(|next| rest.find(next)).min();
            let settings = &rest[..end.unwrap_or(rest.len())];
            if !settings.is_empty() {
                let Some(kind) = kind else {
                    let hint = "each port is `hd:PATH` or `cd:PATH`; one alone can be `ahci-hd,PATH`";
                    return Err(Wrong::new("a port without a type", hint));
                };
                self.set(&format!("port.{port}.type"), kind)?;
                self.first(&format!("port.{port}."), "path", settings)?;
            }
            let Some(end) = end else { return Ok(()) };
            rest = &rest[end + 1..];
        }
        Err(Wrong::new(format!("more than {PORTS} ports"), "add a second controller in another slot"))
    }

    fn share(&mut self, conf: &str) -> Result<(), Wrong> {
        let mut named = false;
        for part in conf.split(',') {
            match part.split_once('=') {
                Some(_) if named => {
                    return Err(Wrong::new("more than one share name given", "add a second device for it"));
                }
                Some((name, path)) => {
                    self.set("sharename", name)?;
                    self.set("path", path)?;
                    named = true;
                }
                None => self.keys("", part)?,
            }
        }
        Ok(())
    }

    fn ports(&mut self, conf: &str) -> Result<(), Wrong> {
        for (port, part) in conf.split(',').enumerate() {
            let Some((name, path)) = part.split_once('=') else {
                return Err(Wrong::new("a port without a path", "write NAME=PATH of its UNIX socket"));
            };
            self.set(&format!("port.{port}.name"), name)?;
            self.set(&format!("port.{port}.path"), path)?;
        }
        Ok(())
    }

    fn host(&mut self, conf: &str) -> Result<(), Wrong> {
        let (device, rest) = conf.split_once(',').map_or((conf, None), |(device, rest)| (device, Some(rest)));
        if device.starts_with("ppt") {
            self.set("pptdev", device)?;
        } else {
            let address = device.strip_prefix("pci0:").filter(|rest| rest.matches(':').count() == 2);
            let address = address.or_else(|| device.strip_prefix("pci"));
            let parts: Vec<&str> =
                address.map_or_else(|| device.split('/').collect(), |address| address.split(':').collect());
            let number = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let [bus, slot, function] = *parts else { return Err(bad_host(device)) };
            if !parts.iter().all(number) {
                return Err(bad_host(device));
            }
            for (key, value) in [("bus", bus), ("slot", slot), ("func", function)] {
                self.set(key, unpadded(value))?;
            }
        }
        rest.map_or(Ok(()), |rest| self.keys("", rest))
    }

    fn usb(&mut self, conf: &str) -> Result<(), Wrong> {
        for (index, part) in conf.split(',').enumerate() {
            let slot = format!("slot.{}.", index + 1);
            let (device, rest) = part.split_once('=').map_or((part, ""), |(device, rest)| (device, rest));
            self.set(&format!("{slot}device"), device)?;
            if !rest.is_empty() {
                self.keys(&slot, rest)?;
            }
        }
        Ok(())
    }
}

fn bad_host(device: &str) -> Wrong {
    Wrong::new(
        format!("`{}` is no device of the host", device.escape_debug()),
        "write pptN, BUS/SLOT/FUNCTION or pciBUS:SLOT:FUNCTION",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Result<Vec<String>, String> {
        let mut leaves = Leaves::default();
        read(&mut leaves, text, &Origin::Argument(1)).map_err(|wrong| wrong.message)?;
        Ok(leaves.in_order().iter().map(|(path, leaf)| format!("{path}={}", leaf.value)).collect())
    }

    #[track_caller]
    fn is(text: &str, expected: &[&str]) {
        assert_eq!(
            keys(text).as_deref(),
            Ok(&expected.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..])
        );
    }

    #[test]
    fn disks() {
        is(
            "4,virtio-blk,/a b.img,ro,sectorsize=512/4096",
            &[
                "pci.0.4.0.device=virtio-blk",
                "pci.0.4.0.path=/a b.img",
                "pci.0.4.0.ro=true",
                "pci.0.4.0.sectorsize=512/4096",
            ],
        );
        is("4:1,nvme,ram=8,maxq=2", &["pci.0.4.1.device=nvme", "pci.0.4.1.ram=8", "pci.0.4.1.maxq=2"]);
        is("1:04:1,nvme,/d", &["pci.1.4.1.device=nvme", "pci.1.4.1.path=/d"]);
        is(
            "3,ahci-cd,i.iso,bootindex=1",
            &[
                "pci.0.3.0.device=ahci",
                "pci.0.3.0.port.0.type=cd",
                "pci.0.3.0.port.0.path=i.iso",
                "pci.0.3.0.port.0.bootindex=1",
            ],
        );
        is(
            "3,ahci,hd:/a,ser=x,cd:/b",
            &[
                "pci.0.3.0.device=ahci",
                "pci.0.3.0.port.0.type=hd",
                "pci.0.3.0.port.0.path=/a",
                "pci.0.3.0.port.0.ser=x",
                "pci.0.3.0.port.1.type=cd",
                "pci.0.3.0.port.1.path=/b",
            ],
        );
    }

    #[test]
    fn networks_and_the_rest() {
        is(
            "5,virtio-net,tap0,mac=00:be:fa:76:45:00",
            &["pci.0.5.0.device=virtio-net", "pci.0.5.0.backend=tap0", "pci.0.5.0.mac=00:be:fa:76:45:00"],
        );
        is("5,e1000,backend=tap0", &["pci.0.5.0.device=e1000", "pci.0.5.0.backend=tap0"]);
        is(
            "5,virtio-9p,s=/x=y,ro",
            &[
                "pci.0.5.0.device=virtio-9p",
                "pci.0.5.0.sharename=s",
                "pci.0.5.0.path=/x=y",
                "pci.0.5.0.ro=true",
            ],
        );
        is(
            "5,virtio-console,a=/s1,b=/s2",
            &[
                "pci.0.5.0.device=virtio-console",
                "pci.0.5.0.port.0.name=a",
                "pci.0.5.0.port.0.path=/s1",
                "pci.0.5.0.port.1.name=b",
                "pci.0.5.0.port.1.path=/s2",
            ],
        );
        let host = ["pci.0.6.0.device=passthru", "pci.0.6.0.bus=2", "pci.0.6.0.slot=0", "pci.0.6.0.func=3"];
        for device in ["2/0/3", "pci2:0:3", "pci0:2:0:3"] {
            is(&format!("6,passthru,{device}"), &host);
        }
        is(
            "6,passthru,ppt0,rom=/r",
            &["pci.0.6.0.device=passthru", "pci.0.6.0.pptdev=ppt0", "pci.0.6.0.rom=/r"],
        );
        is("7,xhci,tablet", &["pci.0.7.0.device=xhci", "pci.0.7.0.slot.1.device=tablet"]);
        is("7,uart,tcp=1.2.3.4:5", &["pci.0.7.0.device=uart", "pci.0.7.0.path=tcp=1.2.3.4:5"]);
        is(
            "0,amd_hostbridge",
            &[
                "pci.0.0.0.device=hostbridge",
                "pci.0.0.0.pcireg.vendor=0x1022",
                "pci.0.0.0.pcireg.device=0x7432",
            ],
        );
    }

    #[test]
    fn what_bhyve_refuses_is_refused() {
        for (text, message) in [
            ("4", "no model"),
            ("32,lpc", "invalid PCI slot `32`"),
            ("x,lpc", "invalid PCI slot"),
            ("0:0:0:0,lpc", "invalid PCI slot"),
            ("4,virtio-vsock", "unknown device `virtio-vsock`"),
            ("4,ahci,/a", "a port without a type"),
            ("4,virtio-9p,a=/b,c=/d", "more than one share name"),
            ("4,virtio-console,a", "a port without a path"),
            ("4,passthru,card", "no device of the host"),
            ("4,virtio-blk,/a,,ro", "without a name"),
            ("4,virtio-blk,", "`pci.0.4.0.path` has no value"),
        ] {
            let wrong = keys(text).unwrap_err();
            assert!(wrong.contains(message), "{text}: {wrong}");
        }
        let mut leaves = Leaves::default();
        read(&mut leaves, "4,virtio-rnd", &Origin::Argument(1)).unwrap();
        let wrong = read(&mut leaves, "0:4:0,virtio-rnd", &Origin::Argument(2)).unwrap_err();
        assert_eq!(wrong.message, "pci slot 0:4:0 already occupied!");
    }
}
