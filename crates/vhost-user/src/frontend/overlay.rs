//! What a device is, from what its back-end says and its options.

use parador_virtio::{Identity, RING_FEATURES, ids::VIRTIO_F_VERSION_1};

use super::kinds::{
    FS_TAG, FS_TAG_LEN, Kind, NET_CONTROLS, NET_F_CTRL_VQ, NET_F_MAC, NET_F_MQ, NET_FILTERS, NET_MAC,
    NET_PAIRS, Queues, required,
};
use super::link::Link;
use super::negotiate::Offer;
use super::rings::MAX_SIZE;
use super::{RemoteError, RemoteOptions};

/// Feature bits that are a device's own (virtio 1.3 §6): 0 to 23, and 50 up.
const OWN_FEATURES: u64 = ((1 << 24) - 1) | !((1 << 50) - 1);
/// The most queues a device can have: their number is a byte in some messages.
const MAX_QUEUES: u64 = 256;
/// The size of queues of a type of device of which nothing is known.
const QUEUE_SIZE: u16 = 256;

/// What is different from what the back-end says.
#[derive(Debug, Clone, Default)]
pub(super) struct Overlay {
    /// Features that are added.
    features: u64,
    /// Bytes of the configuration space, and where they go.
    bytes: Vec<(usize, Vec<u8>)>,
}

impl Overlay {
    /// Features that no back-end has to know.
    pub(super) fn features(&self) -> u64 {
        self.features
    }

    /// Puts what is different in `config`.
    pub(super) fn apply(&self, config: &mut [u8]) {
        for (offset, bytes) in &self.bytes {
            if let Some(field) = config.get_mut(*offset..offset + bytes.len()) {
                field.copy_from_slice(bytes);
            }
        }
    }

    fn put(&mut self, offset: usize, bytes: impl Into<Vec<u8>>) {
        self.bytes.push((offset, bytes.into()));
    }
}

/// What a device is that a back-end offers, with its configuration space.
pub(super) struct Found {
    pub(super) identity: Identity,
    pub(super) overlay: Overlay,
    pub(super) config: Vec<u8>,
}

/// Makes a device of what the back-end at the other end of `link` offers.
pub(super) fn find(options: &RemoteOptions, link: &Link, offer: Offer) -> Result<Found, RemoteError> {
    if link.offered & VIRTIO_F_VERSION_1 == 0 {
        return Err(RemoteError::Features(VIRTIO_F_VERSION_1));
    }
    let known = Kind::of(options.kind);
    let mut features = link.offered & OWN_FEATURES;
    let config_len = match (options.config_len, &known) {
        (0, Some(known)) => known.config_len(features),
        (len, _) => len,
    };
    let mut overlay = Overlay::default();
    if let Some(mac) = options.mac.or(options.spare_mac.filter(|_| features & NET_F_MAC == 0)) {
        overlay.features = NET_F_MAC;
        overlay.put(NET_MAC, mac);
        // A filter that lets the back-end's own address through would drop what is for this one.
        features &= !NET_FILTERS;
    }
    if let Some(tag) = &options.tag {
        let mut bytes = tag.clone().into_bytes();
        bytes.resize(FS_TAG_LEN, 0);
        overlay.put(FS_TAG, bytes);
    }
    let mut config = link.config(config_len)?.unwrap_or_else(|| vec![0; config_len]);
    let queue_sizes = sizes(options, known.as_ref(), features, &config, offer.queues)?;
    let count = queue_sizes.len();
    if let Some(known) = &known {
        let bad = RemoteError::Queues { kind: options.kind, queues: count };
        match known.queues {
            Queues::Fixed(_) => {}
            Queues::Counted { feature, field: (at, len), more } => {
                let counted = count.checked_sub(usize::from(more)).filter(|count| *count > 0).ok_or(bad)?;
                if features & feature == feature {
                    overlay.put(at, &(counted as u32).to_le_bytes()[..len]); // 256 at most
                }
            }
            Queues::Pairs => {
                let pairs = (count / 2) as u16; // 256 at most
                if pairs == 0 {
                    return Err(bad);
                }
                overlay.put(NET_PAIRS, pairs.to_le_bytes());
                if count.is_multiple_of(2) {
                    features &= !NET_CONTROLS;
                }
            }
        }
    }
    overlay.apply(&mut config);
    let identity = Identity {
        kind: options.kind,
        features: features | overlay.features,
        required: required(options.kind, features, &config),
        queue_sizes,
        config_len,
        ring_features: link.offered & RING_FEATURES,
        shared_memory: offer.shared_memory,
    };
    Ok(Found { identity, overlay, config })
}

/// The size of each queue.
fn sizes(
    options: &RemoteOptions,
    known: Option<&Kind>,
    features: u64,
    config: &[u8],
    offered: Option<u64>,
) -> Result<Box<[u16]>, RemoteError> {
    let sizes = match (&options.queue_sizes, known) {
        (Some(sizes), _) => sizes.clone(),
        (None, Some(known)) => {
            let count = options.queues.unwrap_or_else(|| count(known.queues, features, config, offered));
            known.queue_sizes(count)
        }
        (None, None) => {
            let count = options.queues.ok_or(RemoteError::Kind(options.kind))?;
            vec![QUEUE_SIZE; usize::from(count)].into()
        }
    };
    if sizes.is_empty() || sizes.len() as u64 > MAX_QUEUES {
        return Err(RemoteError::Queues { kind: options.kind, queues: sizes.len() });
    }
    if let Some(bad) = sizes.iter().find(|size| !size.is_power_of_two() || **size > MAX_SIZE) {
        return Err(RemoteError::QueueSize(*bad));
    }
    check_queues(known, offered, sizes.len())?;
    Ok(sizes)
}

/// How many queues a device has by itself.
fn count(queues: Queues, features: u64, config: &[u8], offered: Option<u64>) -> u16 {
    let offered = offered.unwrap_or(MAX_QUEUES).clamp(1, MAX_QUEUES);
    let count = match queues {
        Queues::Fixed(count) => u64::from(count),
        Queues::Counted { feature, field: (at, len), more } => {
            let field = config.get(at..at + len).filter(|_| features & feature == feature);
            let counted = field.map_or(1, |field| {
                field.iter().rev().fold(0, |value: u64, byte| value << 8 | u64::from(*byte))
            });
            (counted.max(1) + u64::from(more)).min(offered.max(1 + u64::from(more)))
        }
        // An odd number of queues has a control queue; some count pairs, and have none.
        Queues::Pairs if features & NET_F_CTRL_VQ != 0 && offered % 2 == 1 && offered > 1 => {
            if features & NET_F_MQ == 0 { 3 } else { offered.min(MAX_QUEUES - 1) }
        }
        Queues::Pairs => 2,
    };
    count.min(MAX_QUEUES) as u16
}

/// That a back-end with `offered` queues, if it says so, has enough of them.
pub(super) fn check_queues(
    known: Option<&Kind>,
    offered: Option<u64>,
    wanted: usize,
) -> Result<(), RemoteError> {
    let Some(has) = offered else { return Ok(()) };
    let pairs = known.is_some_and(|known| known.queues == Queues::Pairs);
    let enough = if pairs { 2 * has.saturating_add(1) } else { has };
    if enough >= wanted as u64 { Ok(()) } else { Err(RemoteError::TooFewQueues { has, wanted }) }
}
