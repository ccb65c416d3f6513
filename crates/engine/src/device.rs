//! What each device will be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use parador_config::{Checked, Device, Endpoint, PciAddress};
use parador_virtio::ids;

use crate::net::{Net, Tap, net};
use crate::plan::{Check, HostFile};
use crate::remote::{self, Remote};
use crate::zones::{Zones, zones};

/// A device, decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePlan {
    /// What the user calls it.
    pub id: String,
    /// Where it sits.
    pub address: PciAddress,
    /// What it is.
    pub model: Model,
    /// Whether it has a process of its own.
    pub isolated: bool,
}

impl DevicePlan {
    /// Whether another process works in the guest's memory for it.
    #[must_use]
    pub fn shares_memory(&self) -> bool {
        self.isolated || matches!(self.model, Model::Remote(_))
    }
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Model {
    /// A disk.
    Block(Block),
    /// A network interface.
    Net(Net),
    /// A source of entropy; `None` is the host's kernel.
    Rng(Option<PathBuf>),
    /// A console.
    Console(Endpoint),
    /// Sockets between guest and host.
    Vsock(Vsock),
    /// A memory balloon.
    Balloon(Balloon),
    /// Anything that another process is.
    Remote(Remote),
}

impl Model {
    /// Its type in virtio 1.3 §5, of one that this program has.
    #[must_use]
    pub fn kind(&self) -> Option<u32> {
        Some(match self {
            Self::Block(_) => ids::VIRTIO_ID_BLOCK,
            Self::Net(_) => ids::VIRTIO_ID_NET,
            Self::Rng(_) => ids::VIRTIO_ID_RNG,
            Self::Console(_) => ids::VIRTIO_ID_CONSOLE,
            Self::Vsock(_) => ids::VIRTIO_ID_VSOCK,
            Self::Balloon(_) => ids::VIRTIO_ID_BALLOON,
            Self::Remote(_) => return None,
        })
    }
}

/// Bytes of a balloon's configuration space (virtio 1.3 §5.5.4).
pub const BALLOON_CONFIG: usize = 16;

impl Balloon {
    /// The sizes of its queues, which a machine has to be told where it is not its own.
    #[must_use]
    pub fn queue_sizes(&self) -> Vec<u16> {
        let mut sizes = vec![128, 128, 16];
        sizes.extend(self.free_page_reporting.then_some(128));
        sizes
    }
}

/// Sockets between guest and host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vsock {
    /// The guest's address.
    pub cid: u64,
    /// Where the host connects.
    pub socket: PathBuf,
}

/// A memory balloon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balloon {
    /// Bytes the guest is asked to give back.
    pub size: u64,
    /// Whether it may take memory back when it runs out.
    pub deflate_on_oom: bool,
    /// Whether it reports free memory.
    pub free_page_reporting: bool,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The image.
    pub image: HostFile,
    /// Whether it is only read.
    pub read_only: bool,
    /// Whether I/O goes around the page cache.
    pub direct: bool,
    /// Whether writes are durable before they complete.
    pub sync: bool,
    /// How I/O is done.
    pub aio: Aio,
    /// Request queues.
    pub queues: u16,
    /// Descriptors in each.
    pub queue_size: u16,
    /// Serial number.
    pub serial: String,
    /// Logical and physical sector size in bytes, if they are not the image's own.
    pub sector_size: Option<(u32, u32)>,
    /// Its zones, if it has any: the image is a zoned one then.
    pub zones: Option<Zones>,
}

/// How a disk's I/O is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aio {
    /// io_uring.
    IoUring,
    /// Threads.
    Threads,
    /// On the queue's own thread.
    Sync,
}

/// Slots on bus 0 that devices can have: 0 is the host bridge.
const SLOTS: std::ops::RangeInclusive<u8> = 1..=31;

/// Decides the devices, which share their slots and standard input with `console`.
pub(crate) fn plan(check: &mut Check<'_>, console: &Endpoint) -> Vec<DevicePlan> {
    let keys = check.keys;
    let devices: Vec<_> = keys.devices().iter().filter_map(|device| one(check, device)).collect();
    let devices = place(check, devices);
    interfaces(check, &devices);
    let mut stdio = (*console == Endpoint::Stdio).then(|| "console".to_owned());
    for device in &devices {
        if device.model != Model::Console(Endpoint::Stdio) {
            continue;
        }
        let key = format!("device.{}.port.0.path", device.id);
        match &stdio {
            Some(other) => {
                let message = format!("standard input and output belong to `{other}` already");
                check.error(&key, message, format!("set `{other}` to something else, such as none"));
            }
            None => stdio = Some(key),
        }
    }
    devices
}

/// A device that has no place yet, and the one it was asked to have.
type Placeless = (String, Option<PciAddress>, Model, bool);

/// Gives devices the addresses they were asked to have, and the others the first slots left.
fn place(check: &mut Check<'_>, devices: Vec<Placeless>) -> Vec<DevicePlan> {
    let mut taken = BTreeSet::new();
    for (id, address, ..) in &devices {
        let Some(address) = address else { continue };
        let key = format!("device.{id}.addr");
        if address.bus != 0 || address.function != 0 || !SLOTS.contains(&address.slot) {
            check.error(&key, format!("no device can be at {address}"), "addresses are 0:1.0 to 0:31.0");
        } else {
            taken.insert(address.slot);
        }
    }
    if devices.len() > SLOTS.count() {
        let key = format!("device.{}.model", devices[SLOTS.count()].0);
        let message =
            format!("{} devices are more than the {} slots there are", devices.len(), SLOTS.count());
        check.error(&key, message, "leave some out");
    }
    let mut free = SLOTS.filter(|slot| !taken.contains(slot));
    let mut next = || PciAddress { bus: 0, slot: free.next().unwrap_or(0), function: 0 };
    let placed = |(id, asked, model, isolated): Placeless| {
        let address = asked.unwrap_or_else(&mut next);
        DevicePlan { id, address, model, isolated }
    };
    devices.into_iter().map(placed).collect()
}

/// Finds interfaces of the host that two devices would use.
fn interfaces(check: &mut Check<'_>, devices: &[DevicePlan]) {
    let mut taken = BTreeMap::new();
    for device in devices {
        let Model::Net(Net { tap: Tap::Interface(interface), .. }) = &device.model else { continue };
        if let Some(other) = taken.insert(interface.name.as_str(), device.id.as_str()) {
            let message = format!("interface {} is that of device `{other}` already", interface.name);
            let named = format!("device.{}.tap.name", device.id);
            let key =
                if check.keys.is_set(&named) { named.clone() } else { format!("device.{}.model", device.id) };
            check.error(&key, message, format!("give each its own with `{named}`"));
        }
    }
}

/// Decides one device; `None` after saying what it lacks.
fn one(check: &mut Check<'_>, device: &Device) -> Option<Placeless> {
    let model = model(check, device)?;
    let key = |name: &str| format!("device.{}.{name}", device.id);
    let isolated = isolated(check, device.model, &model, &key);
    Some((device.id.clone(), check.keys.address(&key("addr")), model, isolated))
}

/// Whether a device gets a process of its own.
fn isolated(check: &mut Check<'_>, name: &str, model: &Model, key: &impl Fn(&str) -> String) -> bool {
    let can = !matches!(name, "virtio-fs" | "vhost-user");
    let isolated = can && check.keys.word(&key("isolation")) == Some("process");
    if isolated && *model == Model::Console(Endpoint::Stdio) {
        let hint = "leave `isolation` out, or use a pseudo-terminal, a socket or a file";
        check.error(&key("isolation"), "standard input and output are this process's", hint);
    }
    isolated && !matches!(model, Model::Remote(_))
}

/// Decides what `device` is; `None` after saying what it lacks.
pub(crate) fn model(check: &mut Check<'_>, device: &Device) -> Option<Model> {
    let keys = check.keys;
    let key = |name: &str| format!("device.{}.{name}", device.id);
    let remote = match device.model {
        "virtio-blk" | "virtio-net" if keys.word(&key("backend")) != Some("vhost-user") => {
            check.without_effect(&key("socket"), "it is for backend=vhost-user");
            None
        }
        "virtio-blk" => Some(remote::disk(check, &key)?),
        "virtio-net" => Some(remote::net(check, &key)?),
        "virtio-fs" => Some(remote::fs(check, &key)?),
        "vhost-user" => Some(remote::any(check, &key)?),
        _ => None,
    };
    if let Some(remote) = remote {
        return Some(Model::Remote(remote));
    }
    Some(match device.model {
        "virtio-blk" => Model::Block(block(check, &key)?),
        "virtio-net" => Model::Net(net(check, &device.id, &key)?),
        "virtio-rnd" => Model::Rng(keys.text(&key("path")).map(PathBuf::from)),
        "virtio-console" => Model::Console(keys.endpoint(&key("port.0.path")).unwrap_or(Endpoint::None)),
        "virtio-vsock" => Model::Vsock(Vsock {
            cid: keys.int(&key("cid")).or_else(|| lacks(check, &key, "cid", "3"))?,
            socket: text(check, &key, "socket", "/run/web.vsock")?.into(),
        }),
        "virtio-balloon" => Model::Balloon(Balloon {
            size: keys.int(&key("size")).unwrap_or(0),
            deflate_on_oom: keys.bool(&key("deflate_on_oom")),
            free_page_reporting: keys.bool(&key("free_page_reporting")),
        }),
        // Refused when support was judged, or part of every machine.
        _ => return None,
    })
}

fn block(check: &mut Check<'_>, key: &impl Fn(&str) -> String) -> Option<Block> {
    let keys = check.keys;
    let queue_size = queue_size(check, key).unwrap_or(1);
    Some(Block {
        image: HostFile {
            path: text(check, key, "path", "/vm/web.img")?.into(),
            fd: check.descriptor(&key("fd")),
        },
        read_only: keys.bool(&key("ro")),
        direct: keys.bool(&key("nocache")),
        sync: keys.bool(&key("sync")),
        aio: match keys.word(&key("aio")) {
            Some("threads") => Aio::Threads,
            Some("sync") => Aio::Sync,
            _ => Aio::IoUring,
        },
        queues: number(keys, &key("queues")).unwrap_or(1),
        queue_size,
        serial: keys.text(&key("ser")).unwrap_or_default(),
        sector_size: keys.word(&key("sectorsize")).map(|word| match word {
            "512" => (512, 512),
            "512/4096" => (512, 4096),
            _ => (4096, 4096),
        }),
        zones: zones(check, key),
    })
}

/// How many descriptors each queue of a device has, after a finding if none can have as many.
pub(crate) fn queue_size(check: &mut Check<'_>, key: &impl Fn(&str) -> String) -> Option<u16> {
    let size = number(check.keys, &key("queue_size"));
    if let Some(size) = size.filter(|size| !size.is_power_of_two()) {
        let message = format!("a queue cannot have {size} descriptors");
        check.error(&key("queue_size"), message, "it is a power of two, such as 256");
    }
    size
}

/// A number that has 16 bits.
pub(crate) fn number(keys: &Checked, key: &str) -> Option<u16> {
    keys.int(key).and_then(|number| u16::try_from(number).ok())
}

pub(crate) fn text(
    check: &mut Check<'_>,
    key: &impl Fn(&str) -> String,
    name: &str,
    example: &str,
) -> Option<String> {
    check.keys.text(&key(name)).or_else(|| lacks(check, key, name, example))
}

/// Says that a key is missing, unless it is there with a value that was refused.
pub(crate) fn lacks<T>(
    check: &mut Check<'_>,
    key: &impl Fn(&str) -> String,
    name: &str,
    example: &str,
) -> Option<T> {
    if !check.keys.is_set(&key(name)) {
        let message = format!("the device has no `{name}`");
        check.error(&key("model"), message, format!("set it, as in {}={example}", key(name)));
    }
    None
}
