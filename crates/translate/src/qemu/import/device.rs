//! `-device`: the table's devices, and what each is connected to.

use parador_config::{Diagnostic, Origin, Severity};

use super::super::bag::Bag;
use super::super::form::switch;
use super::super::models::{IMPLIED, Link, MODELS, Model, SWITCHED_ON};
use super::super::table::{At, Row};
use super::serial::endpoint_of;
use super::{Front, Import};

/// What a device is connected to: its properties, under which name those without a key are kept,
/// and what it is made of.
#[derive(Debug)]
pub(super) struct Back {
    group: &'static str,
    bag: Bag,
    parts: Vec<usize>,
    settings: Vec<(&'static str, String)>,
    /// Words for what nobody can say here.
    losses: Vec<(&'static str, &'static str)>,
}

impl Back {
    pub(super) fn new(group: &'static str, bag: Bag, parts: Vec<usize>) -> Self {
        Self { group, bag, parts, settings: Vec::new(), losses: Vec::new() }
    }
}

/// What became of an attempt to understand something.
pub(super) enum Found<T> {
    /// It is this.
    Yes(T),
    /// It is something else.
    No,
    /// It is nothing: what it refers to is not there.
    Wrong,
}

impl Import {
    /// A device of the table, or one with a page of its own, or one that is kept.
    pub(super) fn device(&mut self, front: Front) {
        let mut bag = front.bag.clone();
        let driver = bag.take("driver").unwrap_or_default();
        let driver = driver.strip_suffix("-device").map_or(driver.clone(), |stem| format!("{stem}-pci"));
        if self.special(&driver, &bag, &front) {
            return;
        }
        for model in MODELS.iter().filter(|model| model.drivers.contains(&driver.as_str())) {
            let mut bag = bag.clone();
            match self.back(model, &mut bag) {
                Found::Yes(back) => return self.known(model, bag, back),
                Found::No => {}
                Found::Wrong => return,
            }
        }
        self.keep(front.index, front.words);
    }

    /// What a device of this model is connected to, if it can be of this model.
    fn back(&mut self, model: &Model, front: &mut Bag) -> Found<Back> {
        let (property, kind) = match model.link {
            Link::None if front.peek("netdev").is_some() => return Found::No,
            Link::None => return Found::Yes(Back::new("", Bag::new(front.origin.clone()), Vec::new())),
            Link::Drive => return self.drive_of(front),
            Link::Netdev(_) | Link::VhostUserNet => ("netdev", "netdev"),
            Link::VhostUser | Link::Endpoint => ("chardev", "chardev"),
            Link::Rng if front.peek("rng").is_none() => {
                return Found::Yes(Back::new("", Bag::new(front.origin.clone()), Vec::new()));
            }
            Link::Rng => ("rng", "object"),
            Link::Fsdev => ("fsdev", "fsdev"),
        };
        let Some(id) = front.peek(property) else { return Found::No };
        let Some(part) = self.find(kind, &id) else { return self.dangling(property, &id, front) };
        let mut bag = self.parts[part].bag.clone();
        bag.take("id");
        let mut back = Back::new(kind, bag, vec![part]);
        let fits = match model.link {
            Link::Netdev(kind) => back.bag.take_if("type", &[kind]) && network(model, front, &mut back),
            Link::VhostUserNet => {
                back.bag.take_if("type", &["vhost-user"]) && self.vhost_user_net(front, &mut back)
            }
            Link::VhostUser => match self.socket(&id) {
                Some((_, bag)) => {
                    back.bag = bag;
                    true
                }
                None => false,
            },
            Link::Rng => back.bag.take_if("qom-type", &["rng-random", "rng-builtin"]),
            Link::Fsdev => {
                back.bag.take_if("security_model", &["none"]);
                back.bag.take_if("fsdriver", &["local"])
            }
            Link::Endpoint => match endpoint_of(&mut back.bag) {
                Some(end) => {
                    back.settings.push(("path", end));
                    true
                }
                None => false,
            },
            Link::None | Link::Drive => false,
        };
        if !fits {
            return Found::No;
        }
        front.take(property);
        Found::Yes(back)
    }

    /// The image of a device.
    fn drive_of(&mut self, front: &mut Bag) -> Found<Back> {
        let Some(id) = front.peek("drive") else { return Found::No };
        let kind = if self.find("drive", &id).is_some() { "drive" } else { "blockdev" };
        if self.find(kind, &id).is_none() {
            return self.dangling("drive", &id, front);
        }
        let Some(image) = self.image_of(kind, &id) else { return Found::No };
        front.take("drive");
        image.front.pour(front, "");
        let mut back = Back::new("blockdev", image.back, image.parts);
        if image.probed {
            back.losses.push(("the format", "QEMU would guess it from the image; here it is raw"));
        }
        if !back.bag.take_if("driver", &["raw"])
            && let Some(format) = back.bag.take("driver")
        {
            back.settings.push(("format", format));
        }
        Found::Yes(back)
    }

    fn vhost_user_net(&self, front: &mut Bag, back: &mut Back) -> bool {
        let socket = back.bag.take("chardev").and_then(|id| self.socket(&id));
        let Some((part, mut socket)) = socket else { return false };
        back.parts.push(part);
        back.bag.take_if("vhostforce", &["on"]);
        if let Some(path) = socket.take("path") {
            back.settings.push(("socket", path));
        }
        queues(front, &mut back.bag);
        true
    }

    pub(super) fn dangling<T>(&mut self, property: &str, id: &str, front: &Bag) -> Found<T> {
        self.diagnostics.add(Severity::Error, || {
            Diagnostic::new(format!("there is nothing that is called `{id}`")).at(front.origin.clone()).hint(
                format!(
                    "`{property}=` names a `-{}` with that id",
                    match property {
                        "drive" => "drive` or `-blockdev",
                        "rng" => "object",
                        other => other,
                    }
                ),
            )
        });
        Found::Wrong
    }

    /// Sets the keys of a device.
    fn known(&mut self, model: &Model, mut front: Bag, mut back: Back) {
        let origin = front.origin.clone();
        let wish = front.take("id");
        let names = |part: &usize| self.parts[*part].bag.peek("id").filter(|name| !name.starts_with('#'));
        let named = match model.link {
            Link::Drive | Link::Netdev(_) | Link::VhostUserNet | Link::Fsdev => {
                back.parts.first().and_then(names)
            }
            Link::None | Link::VhostUser | Link::Rng | Link::Endpoint => None,
        };
        let id = self.name(&[wish.as_deref(), named.as_deref()], model.prefix);
        self.set(&format!("device.{id}.model"), model.model, &origin);
        let first = MODELS.iter().find(|other| other.model == model.model);
        if model.link == Link::Drive {
            self.discards(&format!("device.{id}"), &mut back.bag);
        }
        if first.is_some_and(|first| first.backend != model.backend) {
            self.set(&format!("device.{id}.backend"), model.backend, &origin);
        }
        for (key, value) in std::mem::take(&mut back.settings) {
            self.set(&format!("device.{id}.{key}"), value, &origin);
        }
        implied(&mut front);
        self.peculiar(model, &id, &mut front, &origin);
        for row in model.rows.iter().copied().flatten() {
            let bag = if row.at == At::Front { &mut front } else { &mut back.bag };
            self.property(&format!("device.{id}.{}", row.key), row, bag);
        }
        for (what, why) in std::mem::take(&mut back.losses) {
            self.lose(format!("{what} of `{id}`"), why, &back.bag.origin.clone());
        }
        back.parts.iter().for_each(|part| self.parts[*part].used = true);
        self.keep_properties("device", &id, &front);
        self.keep_properties(back.group, &id, &back.bag);
    }

    /// Sets `key` to what `bag` says of it, if that can be said. Behind a bridge, an address is not
    /// what it is elsewhere.
    pub(super) fn property(&mut self, key: &str, row: &Row, bag: &mut Bag) {
        if row.property == "addr" && bag.peek("bus").is_some() {
            return;
        }
        if let Some(ours) = bag.peek(row.property).and_then(|theirs| row.form.import(&theirs)) {
            bag.take(row.property);
            self.set(key, ours, &bag.origin.clone());
        }
    }

    /// What a table cannot say of some models.
    fn peculiar(&mut self, model: &Model, id: &str, front: &mut Bag, origin: &Origin) {
        match model.model {
            "virtio-blk" if model.backend == "file" => self.sectors(&format!("device.{id}"), front),
            "virtio-balloon" => {
                for (key, property) in SWITCHED_ON {
                    if front.take(property).is_none_or(|on| switch(&on) != Some(true)) {
                        self.set(&format!("device.{id}.{key}"), "false", origin);
                    }
                }
            }
            "nvme" => {
                front.take_if("serial", &[id]);
            }
            "virtio-vsock" => {
                let why = "the host's kernel connects; set `socket` to the UNIX socket that takes its place";
                self.lose(format!("the host's side of `{id}`"), why, origin);
            }
            _ => {}
        }
    }

    /// Discards, which are refused if that is said.
    pub(super) fn discards(&mut self, prefix: &str, back: &mut Bag) {
        if back.take_if("discard", &["ignore", "off"]) {
            self.set(&format!("{prefix}.nodelete"), "true", &back.origin.clone());
        }
        back.take_if("discard", &["unmap", "on"]);
    }

    /// Logical and physical block size, which are one key here.
    pub(super) fn sectors(&mut self, prefix: &str, front: &mut Bag) {
        let origin = front.origin.clone();
        let logical = front.take("logical_block_size");
        let physical = front.take("physical_block_size");
        let value = match (logical, physical) {
            (None, None) => return,
            (Some(both), None) => both,
            (None, Some(physical)) => format!("512/{physical}"),
            (Some(logical), Some(physical)) => format!("{logical}/{physical}"),
        };
        self.set(&format!("{prefix}.sectorsize"), value, &origin);
    }
}

/// What the interface `model` can be of.
fn network(model: &Model, front: &mut Bag, back: &mut Back) -> bool {
    let described = back.bag.peek("fd").is_some();
    if back.bag.peek("fds").is_some()
        || described != (model.backend == "fd") && model.link == Link::Netdev("tap")
    {
        return false;
    }
    if model.link == Link::Netdev("tap") && !described {
        for script in ["script", "downscript"] {
            if back.bag.peek(script).is_none() {
                back.losses.push(match script {
                    "script" => ("script=/etc/qemu-ifup", "nothing is run; the interface has to be ready"),
                    _ => ("downscript=/etc/qemu-ifdown", "nothing is run"),
                });
            }
            back.bag.take_if(script, &["no", ""]);
        }
    }
    if model.link == Link::Netdev("bridge") && back.bag.peek("br").is_none() {
        back.bag.put("br", "br0");
    }
    let forwards = back.bag.take_all("hostfwd");
    if !forwards.is_empty() {
        back.settings.push(("hostfwd", forwards.join(";")));
    }
    queues(front, &mut back.bag);
    true
}

/// What follows from the number of queues.
fn queues(front: &mut Bag, back: &mut Bag) {
    front.take_if("mq", &["on", "true"]);
    let queues = back.peek("queues").and_then(|queues| queues.parse::<u32>().ok()).filter(|n| *n <= 1024);
    front.take_if("vectors", &[&(2 * queues.unwrap_or(1) + 2).to_string()]);
}

/// Takes what changes nothing for us.
pub(super) fn implied(front: &mut Bag) {
    for (property, values) in IMPLIED {
        front.take_if(property, values);
    }
}
