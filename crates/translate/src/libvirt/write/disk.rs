//! Disks, and the SATA controllers that disks are at.

use std::collections::BTreeSet;

use parador_config::Tree;

use super::super::units;
use super::super::xml::Element;
use super::{Domain, alias};

/// Disks at one SATA controller that have letters of their own.
const PORTS: usize = 6;

/// Names of disks, such as `vda`. A device whose name is one has it.
#[derive(Debug, Default)]
pub(super) struct Names {
    taken: BTreeSet<String>,
    virtio: usize,
    nvme: usize,
    sata: usize,
}

impl Names {
    pub(super) fn new(tree: &Tree) -> Self {
        let mut names = Self::default();
        for (key, setting) in tree.in_order() {
            if let Some(id) = key.strip_prefix("device.").and_then(|key| key.strip_suffix(".model"))
                && is_name(id, &setting.value)
            {
                names.taken.insert(id.to_owned());
            }
        }
        names
    }

    /// The first name that is free.
    fn next(&mut self, model: &str) -> String {
        loop {
            let next = match model {
                "virtio-blk" => &mut self.virtio,
                "nvme" => &mut self.nvme,
                _ => &mut self.sata,
            };
            let index = *next;
            *next += 1;
            let name = match model {
                "virtio-blk" => format!("vd{}", letters(index)),
                "nvme" => format!("nvme{index}n1"),
                _ => format!("sd{}", letters(index)),
            };
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}

/// Whether `id` is the name of a disk of this model.
fn is_name(id: &str, model: &str) -> bool {
    match model {
        "virtio-blk" => id.strip_prefix("vd").is_some_and(|letters| {
            (1..=3).contains(&letters.len()) && letters.bytes().all(|b| b.is_ascii_lowercase())
        }),
        "nvme" => id
            .strip_prefix("nvme")
            .and_then(|rest| rest.strip_suffix("n1"))
            .is_some_and(|number| (1..=4).contains(&number.len()) && units::number(number).is_some()),
        _ => false,
    }
}

/// `a`, `b` … `z`, `aa`, `ab` …
fn letters(mut index: usize) -> String {
    let mut letters = Vec::new();
    loop {
        letters.insert(0, char::from(b'a' + u8::try_from(index % 26).unwrap_or_default()));
        match (index / 26).checked_sub(1) {
            Some(rest) => index = rest,
            None => return letters.into_iter().collect(),
        }
    }
}

/// A disk that is a device of its own.
pub(super) fn write(domain: &mut Domain<'_>, id: &str, model: &str) -> Result<Element, &'static str> {
    let own = is_name(id, model);
    let bus = if model == "nvme" { "nvme" } else { "virtio" };
    let (mut disk, source) = match domain.peek(id, "backend") {
        None | Some("file") => {
            domain.take(id, "backend");
            source(domain, id)
        }
        Some("vhost-user") => {
            domain.take(id, "backend");
            let mut source = Element::new("source").with("type", "unix");
            domain.attr(&mut source, "path", id, "socket");
            (Element::new("disk").with("type", "vhostuser"), Some(source))
        }
        Some(_) => return Err("only images and vhost-user have words"),
    };
    disk.set("device", "disk");
    let mut driver = Element::new("driver").with("name", "qemu");
    driver.set("type", domain.take(id, "format").unwrap_or("raw"));
    write_driver(domain, &mut driver, id);
    if model == "virtio-blk" {
        match domain.take(id, "aio") {
            Some(aio @ ("io_uring" | "threads")) => {
                driver.set("io", aio);
            }
            Some(_) => domain.lose(id, "aio", "there are threads and io_uring"),
            None => {}
        }
        domain.number(&mut driver, "queues", id, "queues");
        domain.number(&mut driver, "queue_size", id, "queue_size");
    }
    disk.children.push(driver);
    disk.children.extend(source);
    let name = if own { id.to_owned() } else { domain.disks.next(model) };
    disk.children.push(Element::new("target").with("dev", name).with("bus", bus));
    if model == "virtio-blk" {
        write_rates(domain, &mut disk, id);
    }
    if domain.switch(id, "ro") == Some(true) {
        disk.children.push(Element::new("readonly"));
    }
    domain.line(&mut disk, "serial", id, "ser");
    write_blockio(domain, &mut disk, id);
    domain.take(id, "model");
    domain.rank(&mut disk, id);
    if !own {
        disk.children.push(alias(id));
    }
    domain.ids.insert(id.to_owned());
    domain.place(&mut disk, id);
    Ok(disk)
}

/// `<disk>` for an image, and its source; `keys` is the identifier of the disk, or of its port.
fn source(domain: &mut Domain<'_>, keys: &str) -> (Element, Option<Element>) {
    let path = domain.take(keys, "path");
    let is_device = path.is_some_and(|path| path.starts_with("/dev/"));
    let (kind, name) = if is_device { ("block", "dev") } else { ("file", "file") };
    (Element::new("disk").with("type", kind), path.map(|path| Element::new("source").with(name, path)))
}

fn write_driver(domain: &mut Domain<'_>, driver: &mut Element, keys: &str) {
    let cache = match (domain.switch(keys, "nocache"), domain.switch(keys, "sync")) {
        (Some(true), Some(true)) => Some("directsync"),
        (Some(true), _) => Some("none"),
        (_, Some(true)) => Some("writethrough"),
        (Some(false), _) => Some("writeback"),
        (None, _) => None,
    };
    if let Some(cache) = cache {
        driver.set("cache", cache);
    }
    if let Some(refused) = domain.switch(keys, "nodelete") {
        driver.set("discard", if refused { "ignore" } else { "unmap" });
    }
}

fn write_rates(domain: &mut Domain<'_>, disk: &mut Element, id: &str) {
    let mut iotune = Element::new("iotune");
    if let Some(rate) = domain.take(id, "rate.bps") {
        match units::value(rate) {
            Some(bytes) => iotune.children.push(Element::new("total_bytes_sec").saying(bytes.to_string())),
            None => domain.lose(id, "rate.bps", "it is no size"),
        }
    }
    if let Some(rate) = domain.take(id, "rate.iops") {
        match units::any_number(rate) {
            Some(rate) => iotune.children.push(Element::new("total_iops_sec").saying(rate.to_string())),
            None => domain.lose(id, "rate.iops", "it is no number"),
        }
    }
    if !iotune.children.is_empty() {
        disk.children.push(iotune);
    }
}

fn write_blockio(domain: &mut Domain<'_>, disk: &mut Element, keys: &str) {
    let Some(size) = domain.take(keys, "sectorsize") else { return };
    let (logical, physical) =
        size.split_once('/').map_or((size, None), |(logical, physical)| (logical, Some(physical)));
    let mut blockio = Element::new("blockio").with("logical_block_size", logical);
    if let Some(physical) = physical {
        blockio.set("physical_block_size", physical);
    }
    disk.children.push(blockio);
}

/// A SATA controller, and what is at its ports.
pub(super) fn write_ahci(domain: &mut Domain<'_>, devices: &mut Element, id: &str) {
    let index = domain.sata;
    domain.sata += 1;
    let mut controller = Element::new("controller").with("type", "sata").with("index", index.to_string());
    domain.common(&mut controller, id, "sata");
    devices.children.push(controller);
    for port in domain.ports(id) {
        let keys = format!("{id}.port.{port}");
        let (mut disk, source) = source(domain, &keys);
        let is_drive = domain.take(&keys, "type") == Some("cd");
        disk.set("device", if is_drive { "cdrom" } else { "disk" });
        let mut driver = Element::new("driver").with("name", "qemu").with("type", "raw");
        write_driver(domain, &mut driver, &keys);
        disk.children.push(driver);
        disk.children.extend(source);
        let name = name_at(domain, index, port);
        disk.children.push(Element::new("target").with("dev", name).with("bus", "sata"));
        if domain.switch(&keys, "ro") == Some(true) || is_drive {
            disk.children.push(Element::new("readonly"));
        }
        domain.line(&mut disk, "serial", &keys, "ser");
        domain.line(&mut disk, "product", &keys, "model");
        write_blockio(domain, &mut disk, &keys);
        domain.rank(&mut disk, &keys);
        let address = Element::new("address")
            .with("type", "drive")
            .with("controller", index.to_string())
            .with("bus", "0")
            .with("target", "0")
            .with("unit", port.to_string());
        disk.children.push(address);
        devices.children.push(disk);
    }
}

/// The name that libvirt itself gives to a disk at this place, if it is free.
fn name_at(domain: &mut Domain<'_>, controller: usize, port: usize) -> String {
    let usual = format!("sd{}", letters(controller * PORTS + port));
    if port < PORTS && domain.disks.taken.insert(usual.clone()) { usual } else { domain.disks.next("ahci") }
}
