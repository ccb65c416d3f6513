//! Devices of the table.

use super::super::bag::{Bag, Value};
use super::super::form::place;
use super::super::models::{Link, MODELS, Model, SWITCHED_ON};
use super::super::table::{At, Row};
use super::{Export, empty};

/// Longest name of a node.
const MAX_NODE: usize = 31;

impl Export<'_> {
    /// One device of the tree.
    pub(super) fn device(&mut self, id: &str) {
        let key = |name: &str| format!("device.{id}.{name}");
        let Some(name) = self.keys.take(&key("model")) else { return };
        if self.special(name, id) {
            return;
        }
        let backend = self.keys.peek(&key("backend"));
        let bridged =
            self.keys.peek(&key("tap.bridge")).is_some() && self.keys.peek(&key("tap.name")).is_none();
        let default = MODELS.iter().find(|model| model.model == name).map(|model| model.backend);
        let model = MODELS.iter().find(|model| {
            model.model == name
                && Some(model.backend) == backend.or(default)
                && (model.link == Link::Netdev("bridge")) == (bridged && model.backend == "tap")
        });
        match model {
            Some(model) => self.known(id, model),
            None => self.keys.lose(&key("model"), "QEMU has no such device, or not with this back end"),
        }
    }

    fn known(&mut self, id: &str, model: &Model) {
        let key = |name: &str| format!("device.{id}.{name}");
        if self.keys.peek(&key("backend")).is_some() {
            self.keys.take(&key("backend"));
        }
        let mut front = self.front(model.drivers[0], id);
        let mut back = empty();
        for row in model.rows.iter().copied().flatten() {
            let bag = if row.at == At::Front { &mut front } else { &mut back };
            self.property(&key(row.key), row, bag);
        }
        self.multifunction(id, &mut front);
        self.peculiar(model, id, &mut front, &back);
        self.back(model, id, &mut front, back);
        self.named("device", "driver", id, front);
    }

    /// The start of a device.
    pub(super) fn front(&mut self, driver: &str, id: &str) -> Bag {
        let virtio = driver.starts_with("virtio-") || driver.starts_with("vhost-");
        let driver = match driver.strip_suffix("-pci") {
            Some(stem) if virtio && self.microvm => format!("{stem}-device"),
            _ => driver.to_owned(),
        };
        empty().with("driver", driver.as_str()).with("id", id)
    }

    /// Says of a device in a slot with others that it is.
    pub(super) fn multifunction(&mut self, id: &str, front: &mut Bag) {
        let slot = self.keys.peek(&format!("device.{id}.addr")).and_then(place);
        if slot.is_some_and(|(slot, _)| self.shared_slots.contains(&slot)) {
            front.put("multifunction", true);
        }
    }

    /// What the table cannot say of some models.
    fn peculiar(&mut self, model: &Model, id: &str, front: &mut Bag, back: &Bag) {
        match model.model {
            "virtio-blk" if model.link == Link::Drive => self.sectors(&format!("device.{id}"), front),
            "virtio-balloon" => {
                for (key, property) in SWITCHED_ON {
                    let on = self.keys.take(&format!("device.{id}.{key}"));
                    let on = on.is_none_or(|on| super::super::form::switch(on) != Some(false));
                    front.put(property, on);
                }
            }
            "nvme" if front.peek("serial").is_none() => front.put("serial", id),
            "virtio-vsock" => {
                let why = "QEMU leaves vsock to the host's kernel: programs there connect with AF_VSOCK";
                self.keys.lose(&format!("device.{id}.socket"), why);
            }
            "passthru" => self.host_address(id, front),
            "virtio-net" => {
                let queues = back.peek("queues").and_then(|queues| queues.parse::<u64>().ok());
                if let Some(queues) = queues.filter(|queues| *queues > 1) {
                    front.put("mq", true);
                    front.put("vectors", Value::Int(2 * queues + 2));
                }
            }
            _ => {}
        }
    }

    /// What the device is connected to.
    fn back(&mut self, model: &Model, id: &str, front: &mut Bag, rows: Bag) {
        let mut back = empty();
        match model.link {
            Link::None => {}
            Link::Drive => {
                let format = self.keys.take(&format!("device.{id}.format")).unwrap_or("raw").to_owned();
                let node = self.image(&format!("device.{id}"), id, &format, rows);
                front.put("drive", node.as_str());
            }
            Link::Netdev(kind) => {
                back.put("type", kind);
                back.put("id", id);
                rows.pour(&mut back, "");
                if kind == "tap" && back.peek("fd").is_none() {
                    back.put("script", "no");
                    back.put("downscript", "no");
                }
                let forwards =
                    if kind == "user" { self.keys.take(&format!("device.{id}.hostfwd")) } else { None };
                for (number, forward) in forwards.into_iter().flat_map(|f| f.split(';')).enumerate() {
                    back.put(&format!("hostfwd.{number}.str"), forward);
                }
                self.named("netdev", "type", id, back);
                front.put("netdev", id);
            }
            Link::VhostUser | Link::VhostUserNet => {
                let mut rows = rows;
                let socket = empty().with("backend", "socket").with("id", id);
                let socket = socket.with("path", rows.take("path").unwrap_or_default().as_str());
                self.named("chardev", "backend", id, socket);
                if model.link == Link::VhostUser {
                    front.put("chardev", id);
                } else {
                    let mut back = back.with("type", "vhost-user").with("id", id).with("chardev", id);
                    rows.pour(&mut back, "");
                    self.named("netdev", "type", id, back);
                    front.put("netdev", id);
                }
            }
            Link::Rng if rows.is_empty() => {}
            Link::Rng => {
                back.put("qom-type", "rng-random");
                back.put("id", id);
                rows.pour(&mut back, "");
                self.named("object", "qom-type", id, back);
                front.put("rng", id);
            }
            Link::Fsdev => {
                back.put("fsdriver", "local");
                back.put("id", id);
                rows.pour(&mut back, "");
                back.put("security_model", "none");
                self.named("fsdev", "fsdriver", id, back);
                front.put("fsdev", id);
            }
            Link::Endpoint => {
                if self.endpoint(&format!("device.{id}.path"), id) {
                    front.put("chardev", id);
                }
            }
        }
    }

    /// The node of an image, and its name.
    pub(super) fn image(&mut self, prefix: &str, id: &str, format: &str, rows: Bag) -> String {
        let node = if id.len() <= MAX_NODE { id.to_owned() } else { format!("node{}", self.words.len()) };
        let mut back = empty().with("driver", format).with("node-name", node.as_str());
        let path = rows.peek("file.filename").unwrap_or_default();
        let device = path.starts_with("/dev/") && !path.starts_with("/dev/shm/");
        rows.pour(&mut back, "");
        back.put("file.driver", if device { "host_device" } else { "file" });
        let kept =
            self.keys.take(&format!("{prefix}.nodelete")).and_then(super::super::form::switch) == Some(true);
        back.put("discard", if kept { "ignore" } else { "unmap" });
        self.named("blockdev", "driver", id, back);
        node
    }

    /// Logical and physical block size.
    pub(super) fn sectors(&mut self, prefix: &str, front: &mut Bag) {
        let Some(sizes) = self.keys.take(&format!("{prefix}.sectorsize")) else { return };
        let (logical, physical) = sizes.split_once('/').map_or((sizes, None), |(l, p)| (l, Some(p)));
        for (property, size) in [("logical_block_size", Some(logical)), ("physical_block_size", physical)] {
            if let Some(size) = size.and_then(|size| size.parse().ok()) {
                front.put(property, Value::Int(size));
            }
        }
    }

    /// The rows of an image, for what is not a device of its own.
    pub(super) fn rows(&mut self, prefix: &str, rows: &[Row], front: &mut Bag) -> Bag {
        let mut back = empty();
        for row in rows {
            let bag = if row.at == At::Front { &mut *front } else { &mut back };
            self.property(&format!("{prefix}.{}", row.key), row, bag);
        }
        back
    }
}
