//! `<disk>`, and the SATA controllers that disks are at.

use std::collections::{BTreeMap, BTreeSet};

use super::super::units;
use super::super::xml::Element;
use super::{Domain, take_alias};

/// Disks at one SATA controller, where the document does not say which port is whose.
const PORTS: u64 = 6;

/// The SATA controllers of a machine, by their number.
pub(super) struct Disks<'x> {
    /// What the document says of them.
    elements: BTreeMap<u64, &'x Element>,
    /// Those that have disks: one that has none is there on every machine of libvirt's.
    used: BTreeSet<u64>,
    /// Those that are devices already.
    ids: BTreeMap<u64, String>,
}

/// What a disk is for the guest.
enum Model {
    Virtio,
    Nvme,
    /// At a port of a controller.
    Sata(u64, u64),
}

impl<'x> Disks<'x> {
    pub(super) fn new(devices: &'x Element) -> Self {
        let sata = devices
            .all("controller")
            .filter(|it| it.attr("type") == Some("sata") && it.attr("model").is_none());
        Self {
            elements: sata.filter_map(|it| Some((index(it)?, it))).collect(),
            used: devices.all("disk").filter_map(|disk| Some(sata_port(disk)?.0)).collect(),
            ids: BTreeMap::new(),
        }
    }

    /// Reads a controller: those that the machine has anyway say nothing.
    pub(super) fn read_controller(&mut self, domain: &mut Domain<'_>, controller: &Element) {
        match (controller.attr("type"), index(controller)) {
            // The bridges of the machine, and those libvirt adds for places to plug devices in.
            (Some("pci"), _) => controller.take_all(),
            (Some("sata"), Some(index)) if self.used.contains(&index) => {
                self.controller(domain, index, controller);
            }
            (Some("sata"), Some(index)) if self.elements.contains_key(&index) => controller.take_all(),
            _ => {}
        }
    }

    /// The device that is controller `index`, which `element` mentions.
    fn controller(&mut self, domain: &mut Domain<'_>, index: u64, element: &Element) -> String {
        if let Some(id) = self.ids.get(&index) {
            return id.clone();
        }
        let id = domain.controller(self.elements.get(&index).copied(), element, "sata", "ahci");
        self.ids.insert(index, id.clone());
        id
    }

    /// Reads a disk. Those that no key can describe are kept.
    pub(super) fn read(&mut self, domain: &mut Domain<'_>, disk: &Element) {
        let Some((model, kind)) = model(disk) else { return };
        disk.taken();
        for name in ["type", "device"] {
            disk.take(name);
        }
        let target = disk.enter("target");
        let name = target.and_then(|target| target.take("dev"));
        if let Some(target) = target {
            target.take("bus");
        }
        // An image that is not above another one says so when the machine runs.
        if let Some(backing) = disk.child("backingStore").filter(|it| it.children.is_empty()) {
            backing.take_all();
        }
        let keys = match model {
            Model::Virtio | Model::Nvme => {
                let id = domain.id(disk, name, "disk");
                let model = if matches!(model, Model::Virtio) { "virtio-blk" } else { "nvme" };
                domain.set(&format!("device.{id}.model"), model, disk);
                domain.pci(disk, &id);
                format!("device.{id}")
            }
            Model::Sata(controller, port) => {
                let id = self.controller(domain, controller, disk);
                if let Some(address) = disk.child("address") {
                    address.take_all();
                }
                take_alias(disk);
                domain.set(&format!("device.{id}.port.{port}.type"), kind, disk);
                domain.bootindex(disk, &format!("{id}.port.{port}"));
                format!("device.{id}.port.{port}")
            }
        };
        read_source(domain, disk, &keys);
        if let Some(driver) = disk.enter("driver") {
            read_driver(domain, driver, &keys, &model);
        }
        if let Some(readonly) = disk.enter("readonly") {
            // A drive for discs only reads.
            if kind != "cd" {
                domain.set(&format!("{keys}.ro"), "true", readonly);
            }
        }
        domain.set_line(&format!("{keys}.ser"), disk, "serial");
        match model {
            Model::Sata(..) => domain.set_line(&format!("{keys}.model"), disk, "product"),
            Model::Virtio => read_rates(domain, disk, &keys),
            Model::Nvme => {}
        }
        if let Some(blockio) = disk.child("blockio") {
            read_blockio(domain, blockio, &keys);
        }
    }
}

/// The number of a controller.
pub(super) fn index(controller: &Element) -> Option<u64> {
    controller.attr("index").map_or(Some(0), units::number)
}

/// What `disk` is for the guest, and whether it is a disk (`hd`) or a drive (`cd`).
fn model(disk: &Element) -> Option<(Model, &'static str)> {
    let kind = match disk.attr("device").unwrap_or("disk") {
        "disk" => "hd",
        "cdrom" => "cd",
        _ => return None,
    };
    match disk.attr("type")? {
        "file" | "block" => {}
        "vhostuser" if disk.child("source")?.attr("type") == Some("unix") => {}
        _ => return None,
    }
    let target = disk.child("target")?;
    let name = target.attr("dev").unwrap_or_default();
    let bus = target.attr("bus").unwrap_or(if name.starts_with("vd") { "virtio" } else { "" });
    let model = match (bus, kind) {
        ("virtio", "hd") => Model::Virtio,
        ("nvme", "hd") => Model::Nvme,
        ("sata", _) if disk.attr("type") != Some("vhostuser") => {
            let (controller, port) = sata_port(disk)?;
            Model::Sata(controller, port)
        }
        _ => return None,
    };
    Some((model, kind))
}

/// The SATA controller and the port that `disk` is at: as its address says, or the letters of its
/// name.
fn sata_port(disk: &Element) -> Option<(u64, u64)> {
    let target = disk.child("target").filter(|target| target.attr("bus") == Some("sata"))?;
    if let Some(address) = disk.child("address") {
        let part = |name| units::any_number(address.attr(name).unwrap_or("0"));
        return (address.attr("type") == Some("drive")).then_some((part("controller")?, part("unit")?));
    }
    let letters = target.attr("dev")?.get(2..)?;
    let mut index = 0_u64;
    for letter in letters.bytes() {
        let digit = letter.is_ascii_lowercase().then(|| u64::from(letter - b'a') + 1)?;
        index = index.checked_mul(26)?.checked_add(digit)?;
    }
    let index = index.checked_sub(1)?;
    Some((index / PORTS, index % PORTS))
}

fn read_source(domain: &mut Domain<'_>, disk: &Element, keys: &str) {
    let Some(source) = disk.enter("source") else { return };
    source.take("index");
    if disk.attr("type") == Some("vhostuser") {
        source.take("type");
        domain.set(&format!("{keys}.backend"), "vhost-user", source);
        domain.set_attr(&format!("{keys}.socket"), source, "path");
    } else {
        domain.set_attr(&format!("{keys}.path"), source, "file");
        domain.set_attr(&format!("{keys}.path"), source, "dev");
    }
}

fn read_driver(domain: &mut Domain<'_>, driver: &Element, keys: &str, model: &Model) {
    // The name is that of the program that runs it.
    if matches!(driver.attr("name"), Some("qemu" | "file")) {
        driver.take("name");
    }
    match driver.attr("type") {
        Some("raw") => {
            driver.take("type");
        }
        Some("qcow2") if !matches!(model, Model::Sata(..)) => {
            domain.set_attr(&format!("{keys}.format"), driver, "type");
        }
        _ => domain.lose_attr(
            driver,
            "type",
            "only raw images can be told from others here; convert it to raw",
        ),
    }
    let (nocache, sync) = match driver.attr("cache") {
        Some("none") => (Some("true"), None),
        Some("writeback") => (Some("false"), None),
        Some("writethrough") => (None, Some("true")),
        Some("directsync") => (Some("true"), Some("true")),
        _ => (None, None),
    };
    if nocache.or(sync).is_some() || driver.attr("cache") == Some("default") {
        driver.take("cache");
    }
    for (key, value) in [("nocache", nocache), ("sync", sync)] {
        if let Some(value) = value {
            domain.set(&format!("{keys}.{key}"), value, driver);
        }
    }
    if driver.attr("cache") == Some("unsafe") {
        domain.lose_attr(driver, "cache", "flushes are never ignored");
    }
    if driver.attr("discard") == Some("ignore") {
        driver.take("discard");
        domain.set(&format!("{keys}.nodelete"), "true", driver);
    } else if driver.attr("discard") == Some("unmap") {
        driver.take("discard");
        domain.set(&format!("{keys}.nodelete"), "false", driver);
    }
    if !matches!(model, Model::Virtio) {
        return;
    }
    match driver.attr("io") {
        Some("io_uring" | "threads") => domain.set_attr(&format!("{keys}.aio"), driver, "io"),
        _ => domain.lose_attr(driver, "io", "io_uring is used, which is its successor"),
    }
    domain.set_attr(&format!("{keys}.queues"), driver, "queues");
    domain.set_attr(&format!("{keys}.queue_size"), driver, "queue_size");
}

fn read_rates(domain: &mut Domain<'_>, disk: &Element, keys: &str) {
    let Some(iotune) = disk.enter("iotune") else { return };
    let bytes = iotune.child("total_bytes_sec").and_then(|it| Some((it, units::number(it.line()?)?)));
    if let Some((element, bytes)) = bytes {
        element.take_all();
        domain.set(&format!("{keys}.rate.bps"), units::size(bytes), element);
    }
    domain.set_line(&format!("{keys}.rate.iops"), iotune, "total_iops_sec");
}

fn read_blockio(domain: &mut Domain<'_>, blockio: &Element, keys: &str) {
    let logical = blockio.attr("logical_block_size");
    let physical = blockio.attr("physical_block_size");
    let size = match (logical, physical) {
        (Some(logical), None) => logical.to_owned(),
        (Some(logical), Some(physical)) => format!("{logical}/{physical}"),
        _ => return,
    };
    blockio.taken().take("logical_block_size");
    blockio.take("physical_block_size");
    domain.set(&format!("{keys}.sectorsize"), size, blockio);
}
