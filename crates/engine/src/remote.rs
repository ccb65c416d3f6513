//! What a device will be whose work another process does.

use std::path::PathBuf;

use parador_config::{Checked, Value};
use parador_virtio::ids;

use crate::device::{lacks, number, queue_size, text};
use crate::plan::Check;

/// A device that another process is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Remote {
    /// Its type in virtio 1.3 §5.
    pub kind: u32,
    /// Where the process listens; empty where it is yet to be started for the folder.
    pub socket: PathBuf,
    /// The folder of a file system that virtiofsd is to be started for.
    pub folder: Option<PathBuf>,
    /// How many queues; `None`: what the type has, or the process says.
    pub queues: Option<u16>,
    /// The size of each queue; `None`: what the type has.
    pub queue_sizes: Option<Vec<u16>>,
    /// Bytes of its configuration space; 0: what the type has.
    pub config_len: usize,
    /// The address of a network interface, if one was given.
    pub mac: Option<[u8; 6]>,
    /// The name of a file system.
    pub tag: Option<String>,
}

/// Types of devices by name: those of the specification, and of other systems.
pub(crate) static TYPES: &[(&str, u32)] = &[
    ("net", ids::VIRTIO_ID_NET),
    ("block", ids::VIRTIO_ID_BLOCK),
    ("blk", ids::VIRTIO_ID_BLOCK),
    ("console", ids::VIRTIO_ID_CONSOLE),
    ("rng", ids::VIRTIO_ID_RNG),
    ("balloon", ids::VIRTIO_ID_BALLOON),
    ("scsi", ids::VIRTIO_ID_SCSI),
    ("gpu", ids::VIRTIO_ID_GPU),
    ("input", ids::VIRTIO_ID_INPUT),
    ("vsock", ids::VIRTIO_ID_VSOCK),
    ("crypto", ids::VIRTIO_ID_CRYPTO),
    ("iommu", ids::VIRTIO_ID_IOMMU),
    ("sound", ids::VIRTIO_ID_SOUND),
    ("fs", ids::VIRTIO_ID_FS),
    ("pmem", ids::VIRTIO_ID_PMEM),
    ("rpmb", ids::VIRTIO_ID_RPMB),
    ("video-encoder", ids::VIRTIO_ID_VIDEO_ENCODER),
    ("video-decoder", ids::VIRTIO_ID_VIDEO_DECODER),
    ("i2c", ids::VIRTIO_ID_I2C_ADAPTER),
    ("can", ids::VIRTIO_ID_CAN),
    ("gpio", ids::VIRTIO_ID_GPIO),
];

/// The largest type that has a PCI device number (virtio 1.3 §4.1.2).
const MAX_TYPE: u32 = 0x3f;

/// Decides a disk whose I/O another process does.
pub(crate) fn disk(check: &mut Check<'_>, key: &impl Fn(&str) -> String) -> Option<Remote> {
    const OTHERS: &[&str] = &[
        "path",
        "fd",
        "format",
        "ro",
        "nocache",
        "sync",
        "nodelete",
        "aio",
        "ser",
        "sectorsize",
        "zoned",
        "zone_size",
        "zone_capacity",
        "conventional",
        "max_open",
        "max_active",
        "max_append",
        "power_cut",
    ];
    refuse(check, key, OTHERS);
    let (queues, size) = (given(check.keys, &key("queues")), given_size(check, key));
    let queue_sizes = size.map(|size| vec![size; usize::from(queues.unwrap_or(1))]);
    Some(Remote {
        kind: ids::VIRTIO_ID_BLOCK,
        socket: socket(check, key)?,
        queues,
        queue_sizes,
        ..Remote::default()
    })
}

/// Decides a network interface whose packets another process moves.
pub(crate) fn net(check: &mut Check<'_>, key: &impl Fn(&str) -> String) -> Option<Remote> {
    const OTHERS: &[&str] =
        &["fd", "tap.name", "tap.create", "tap.bridge", "tap.owner", "tap.link", "tap.mode", "mtu"];
    refuse(check, key, OTHERS);
    let mac = if let Some(Value::Mac(mac)) = check.keys.value(&key("mac")) { Some(mac) } else { None };
    // A control queue besides: without one a driver uses one pair.
    let pairs = number(check.keys, &key("queues")).filter(|pairs| *pairs > 1);
    Some(Remote {
        kind: ids::VIRTIO_ID_NET,
        socket: socket(check, key)?,
        queues: pairs.map(|pairs| 2 * pairs + 1),
        mac,
        ..Remote::default()
    })
}

/// Decides a folder of the host.
pub(crate) fn fs(check: &mut Check<'_>, key: &impl Fn(&str) -> String) -> Option<Remote> {
    let keys = check.keys;
    let tag = text(check, key, "sharename", "data")?;
    let folder = keys.text(&key("path"));
    if folder.is_some() && keys.is_set(&key("socket")) {
        let hint =
            "leave out `path`, which whoever started that process told it; or `socket`, to have one started";
        check.error(&key("path"), "a process that listens at `socket` has a folder of its own", hint);
    }
    let socket = match folder {
        Some(_) => PathBuf::new(),
        None => keys.text(&key("socket")).or_else(|| lacks(check, key, "path", "/srv/data"))?.into(),
    };
    // One queue for requests that cannot wait, besides.
    let queues = given(keys, &key("queues")).map(|queues| queues + 1);
    let size = given_size(check, key);
    Some(Remote {
        kind: ids::VIRTIO_ID_FS,
        socket,
        folder: folder.map(PathBuf::from),
        queues,
        queue_sizes: size.map(|size| vec![size; usize::from(queues.unwrap_or(2))]),
        tag: Some(tag),
        ..Remote::default()
    })
}

/// Decides a device of any type.
pub(crate) fn any(check: &mut Check<'_>, key: &impl Fn(&str) -> String) -> Option<Remote> {
    let keys = check.keys;
    let name = text(check, key, "virtio_type", "rng")?;
    let named = TYPES.iter().find(|(word, _)| *word == name).map(|(_, kind)| *kind);
    let kind = named.or_else(|| name.parse().ok().filter(|kind| (1..=MAX_TYPE).contains(kind)));
    if kind.is_none() {
        let words: Vec<&str> = TYPES.iter().map(|(word, _)| *word).collect();
        let message = format!("there is no virtio device `{}`", name.escape_debug());
        let hint = format!("it is a number from 1 to {MAX_TYPE}, or one of {}", words.join(", "));
        check.error(&key("virtio_type"), message, hint);
    }
    let queue_sizes = match keys.text(&key("queue_sizes")) {
        None => None,
        Some(list) => {
            let sizes: Option<Vec<u16>> = list.split(',').map(|size| size.trim().parse().ok()).collect();
            let sizes = sizes.filter(|sizes| sizes.iter().all(|size| size.is_power_of_two()));
            if sizes.is_none() {
                let message = format!("`{}` are no sizes of queues", list.escape_debug());
                let hint = "it is a power of two up to 32768 for each queue, as in 256,256";
                check.error(&key("queue_sizes"), message, hint);
            }
            sizes
        }
    };
    let socket = socket(check, key)?;
    let config_len = keys.int(&key("config_size")).and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
    Some(Remote { kind: kind?, socket, queue_sizes, config_len, ..Remote::default() })
}

fn socket(check: &mut Check<'_>, key: &impl Fn(&str) -> String) -> Option<PathBuf> {
    text(check, key, "socket", "/run/back-end.sock").map(PathBuf::from)
}

/// Finds keys that the other process would have to know.
fn refuse(check: &mut Check<'_>, key: &impl Fn(&str) -> String, names: &[&str]) {
    for name in names.iter().chain(&["isolation"]) {
        if check.keys.is_set(&key(name)) {
            let message = format!("`{name}` is for the process that does the device's work");
            check.error(&key(name), message, "tell it when you start it, and leave this out");
        }
    }
}

/// A number that the user has given.
fn given(keys: &Checked, key: &str) -> Option<u16> {
    number(keys, key).filter(|_| keys.is_set(key))
}

/// The size of queues that the user has given, after a finding if none can have it.
fn given_size(check: &mut Check<'_>, key: &impl Fn(&str) -> String) -> Option<u16> {
    queue_size(check, key).filter(|_| check.keys.is_set(&key("queue_size")))
}
