//! What devices of each type have: queues, and the length and fields of their configuration space.

use parador_virtio::ids;

/// What is known of a type of device without asking one.
pub(super) struct Kind {
    /// How many queues it has.
    pub(super) queues: Queues,
    /// The largest size of each queue, in descriptors.
    queue_size: u16,
    /// That of the last one, where it is for control or events.
    last_queue_size: Option<u16>,
    /// Bytes of its configuration space, for a device that offers these features.
    config_len: fn(u64) -> usize,
    /// Whether it has state beside queues and configuration, which it cannot be moved without.
    pub(super) has_state: bool,
}

/// How many queues a type of device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queues {
    /// Always this many.
    Fixed(u16),
    /// As many as a field of its configuration says, and some more.
    Counted {
        /// Feature without which the field is not there and means one; zero for none.
        feature: u64,
        /// Where the field is, and its bytes: 2 or 4.
        field: (usize, usize),
        /// Queues that the field does not count.
        more: u16,
    },
    /// Network: pairs, and a control queue if there is one.
    Pairs,
}

/// virtio 1.3 §5.1.3.
pub(super) const NET_F_MTU: u64 = 1 << 3;
pub(super) const NET_F_MAC: u64 = 1 << 5;
pub(super) const NET_F_CTRL_VQ: u64 = 1 << 17;
pub(super) const NET_F_MQ: u64 = 1 << 22;
/// Those that are commands on the control queue: CTRL_GUEST_OFFLOADS, CTRL_RX, CTRL_VLAN,
/// GUEST_ANNOUNCE, CTRL_MAC_ADDR, HASH_REPORT, RSS.
pub(super) const NET_CONTROLS: u64 =
    NET_F_CTRL_VQ | NET_F_MQ | 1 << 2 | 1 << 18 | 1 << 19 | 1 << 21 | 1 << 23 | NET_F_HASH_REPORT | NET_F_RSS;
/// Commands that say which addresses the driver listens to, beside the device's own: CTRL_RX, CTRL_RX_EXTRA.
pub(super) const NET_FILTERS: u64 = 1 << 18 | 1 << 20;
const NET_F_HASH_REPORT: u64 = 1 << 57;
const NET_F_RSS: u64 = 1 << 60;
const NET_F_SPEED_DUPLEX: u64 = 1 << 63;
/// Where a network device has its address and the number of its pairs (§5.1.4).
pub(super) const NET_MAC: usize = 0;
pub(super) const NET_PAIRS: usize = 8;

/// virtio 1.3 §5.2.3.
const BLK_F_MQ: u64 = 1 << 12;
const BLK_F_SECURE_ERASE: u64 = 1 << 16;
const BLK_F_ZONED: u64 = 1 << 17;
/// Where a disk says what kind of zones it has, and the kind that is not written anywhere (§5.2.4).
const BLK_ZONED_MODEL: usize = 92;
const BLK_Z_HM: u8 = 1;

/// Where a file system has its name, and the bytes of that (§5.11.4).
pub(super) const FS_TAG: usize = 0;
pub(super) const FS_TAG_LEN: usize = 36;
const FS_F_NOTIFICATION: u64 = 1 << 0;

const SOUND_F_CTLS: u64 = 1 << 0;

/// Features without which a driver must not have a device of type `kind`, with this configuration
/// space. There is no way to ask a back-end for them.
pub(super) fn required(kind: u32, features: u64, config: &[u8]) -> u64 {
    // §5.2.5.2: a disk whose zones are host-managed.
    let managed = kind == ids::VIRTIO_ID_BLOCK && config.get(BLK_ZONED_MODEL) == Some(&BLK_Z_HM);
    if managed { features & BLK_F_ZONED } else { 0 }
}

impl Kind {
    /// What is known of type `kind`.
    pub(super) fn of(kind: u32) -> Option<Self> {
        use Queues::{Counted, Fixed};
        let (queues, queue_size, config_len): (Queues, u16, fn(u64) -> usize) = match kind {
            // §5.1.2, §5.1.4: mac, status, pairs, mtu; speed and duplex; what hashes need.
            ids::VIRTIO_ID_NET => (Queues::Pairs, 256, net_config_len),
            // §5.2.2, §5.2.4: up to write zeroes; secure erase; zones.
            ids::VIRTIO_ID_BLOCK => {
                let queues = Counted { feature: BLK_F_MQ, field: (34, 2), more: 0 };
                (queues, 256, blk_config_len)
            }
            // §5.3.2, §5.3.4: cols, rows, max_nr_ports, emerg_wr. Of ports only the first.
            ids::VIRTIO_ID_CONSOLE => (Fixed(2), 64, |_| 12),
            // §5.4.2, §5.4.4.
            ids::VIRTIO_ID_RNG => (Fixed(1), 64, |_| 0),
            // §5.6.2, §5.6.4: control, event and request queues.
            ids::VIRTIO_ID_SCSI => (Counted { feature: 0, field: (0, 4), more: 2 }, 128, |_| 36),
            // §5.8.2, §5.8.4: select, subsel, size, the union.
            ids::VIRTIO_ID_INPUT => (Fixed(2), 64, |_| 136),
            // §5.10.2, §5.10.4: guest_cid.
            ids::VIRTIO_ID_VSOCK => (Fixed(3), 128, |_| 8),
            // §5.11.2, §5.11.4: the high-priority queue and request queues.
            ids::VIRTIO_ID_FS => (Counted { feature: 0, field: (36, 4), more: 1 }, 256, |features| {
                if features & FS_F_NOTIFICATION == 0 { 40 } else { 44 }
            }),
            // §5.14.2, §5.14.4: jacks, streams, chmaps, controls.
            ids::VIRTIO_ID_SOUND => {
                (Fixed(4), 64, |features| if features & SOUND_F_CTLS == 0 { 12 } else { 16 })
            }
            // §5.16.2, §5.16.4.
            ids::VIRTIO_ID_I2C_ADAPTER => (Fixed(1), 64, |_| 0),
            // §5.18.2, §5.18.4: ngpio, gpio_names_size.
            ids::VIRTIO_ID_GPIO => (Fixed(2), 64, |_| 8),
            _ => return None,
        };
        let last_queue_size = match kind {
            ids::VIRTIO_ID_NET => Some(64),
            ids::VIRTIO_ID_VSOCK => Some(16),
            _ => None,
        };
        let has_state = kind == ids::VIRTIO_ID_FS;
        Some(Self { queues, queue_size, last_queue_size, config_len, has_state })
    }

    /// The sizes of `count` queues. There is no way to ask for them: these are what every known
    /// back-end takes.
    pub(super) fn queue_sizes(&self, count: u16) -> Box<[u16]> {
        let mut sizes = vec![self.queue_size; usize::from(count)];
        let has_control = self.queues != Queues::Pairs || !count.is_multiple_of(2);
        if let Some(last) = sizes.last_mut().filter(|_| has_control) {
            *last = self.last_queue_size.unwrap_or(*last);
        }
        sizes.into()
    }

    /// Bytes of the configuration space of a device that offers `features`.
    pub(super) fn config_len(&self, features: u64) -> usize {
        (self.config_len)(features)
    }
}

fn net_config_len(features: u64) -> usize {
    if features & (NET_F_RSS | NET_F_HASH_REPORT) != 0 {
        24
    } else if features & NET_F_SPEED_DUPLEX != 0 {
        17
    } else if features & NET_F_MTU != 0 {
        12
    } else {
        10
    }
}

fn blk_config_len(features: u64) -> usize {
    if features & BLK_F_ZONED != 0 {
        96
    } else if features & BLK_F_SECURE_ERASE != 0 {
        72
    } else {
        60
    }
}
