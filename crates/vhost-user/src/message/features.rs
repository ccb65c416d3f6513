//! Protocol features.

use std::fmt;
use std::ops::{BitAnd, BitOr};

/// Features of the protocol itself (`VHOST_USER_PROTOCOL_F_*`), negotiated by messages 15 and 16.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct ProtocolFeatures(
    /// The bits as they are on the wire.
    pub u64,
);

/// Names and bits, in order.
const NAMES: [(&str, ProtocolFeatures); 24] = [
    ("mq", ProtocolFeatures::MQ),
    ("log-shmfd", ProtocolFeatures::LOG_SHMFD),
    ("rarp", ProtocolFeatures::RARP),
    ("reply-ack", ProtocolFeatures::REPLY_ACK),
    ("mtu", ProtocolFeatures::MTU),
    ("backend-req", ProtocolFeatures::BACKEND_REQ),
    ("cross-endian", ProtocolFeatures::CROSS_ENDIAN),
    ("crypto-session", ProtocolFeatures::CRYPTO_SESSION),
    ("pagefault", ProtocolFeatures::PAGEFAULT),
    ("config", ProtocolFeatures::CONFIG),
    ("backend-send-fd", ProtocolFeatures::BACKEND_SEND_FD),
    ("host-notifier", ProtocolFeatures::HOST_NOTIFIER),
    ("inflight-shmfd", ProtocolFeatures::INFLIGHT_SHMFD),
    ("reset-device", ProtocolFeatures::RESET_DEVICE),
    ("inband-notifications", ProtocolFeatures::INBAND_NOTIFICATIONS),
    ("configure-mem-slots", ProtocolFeatures::CONFIGURE_MEM_SLOTS),
    ("status", ProtocolFeatures::STATUS),
    ("xen-mmap", ProtocolFeatures::XEN_MMAP),
    ("shared-object", ProtocolFeatures::SHARED_OBJECT),
    ("device-state", ProtocolFeatures::DEVICE_STATE),
    ("get-vring-base-inflight", ProtocolFeatures::GET_VRING_BASE_INFLIGHT),
    ("gpa-addresses", ProtocolFeatures::GPA_ADDRESSES),
    ("shmem", ProtocolFeatures::SHMEM),
    ("get-vring-base-skip-drain", ProtocolFeatures::GET_VRING_BASE_SKIP_DRAIN),
];

impl ProtocolFeatures {
    /// The back-end says how many queues it has.
    pub const MQ: Self = Self(1 << 0);
    /// The log of dirty pages is a descriptor beside `SET_LOG_BASE`.
    pub const LOG_SHMFD: Self = Self(1 << 1);
    /// The back-end announces a migrated interface.
    pub const RARP: Self = Self(1 << 2);
    /// Any message can ask for an acknowledgement.
    pub const REPLY_ACK: Self = Self(1 << 3);
    /// The front-end sets the MTU.
    pub const MTU: Self = Self(1 << 4);
    /// There is a channel for requests of the back-end.
    pub const BACKEND_REQ: Self = Self(1 << 5);
    /// Rings may be of the other endianness.
    pub const CROSS_ENDIAN: Self = Self(1 << 6);
    /// Sessions of a crypto device.
    pub const CRYPTO_SESSION: Self = Self(1 << 7);
    /// Migration that goes on after the guest has moved.
    pub const PAGEFAULT: Self = Self(1 << 8);
    /// The configuration space is the back-end's.
    pub const CONFIG: Self = Self(1 << 9);
    /// Descriptors on the back-end's channel.
    pub const BACKEND_SEND_FD: Self = Self(1 << 10);
    /// Kicks go to memory of the back-end.
    pub const HOST_NOTIFIER: Self = Self(1 << 11);
    /// Requests in flight are written down in shared memory.
    pub const INFLIGHT_SHMFD: Self = Self(1 << 12);
    /// The device can be reset.
    pub const RESET_DEVICE: Self = Self(1 << 13);
    /// Kicks and calls are messages.
    pub const INBAND_NOTIFICATIONS: Self = Self(1 << 14);
    /// Memory regions come and go one by one.
    pub const CONFIGURE_MEM_SLOTS: Self = Self(1 << 15);
    /// The virtio device status is the back-end's.
    pub const STATUS: Self = Self(1 << 16);
    /// Regions carry what Xen needs to map them.
    pub const XEN_MMAP: Self = Self(1 << 17);
    /// Objects with a UUID are shared between devices.
    pub const SHARED_OBJECT: Self = Self(1 << 18);
    /// The device's own state can be saved and loaded.
    pub const DEVICE_STATE: Self = Self(1 << 19);
    /// A ring can be stopped with requests in flight.
    pub const GET_VRING_BASE_INFLIGHT: Self = Self(1 << 20);
    /// Addresses are the guest's, not the front-end's.
    pub const GPA_ADDRESSES: Self = Self(1 << 21);
    /// The device has shared memory.
    pub const SHMEM: Self = Self(1 << 22);
    /// `GET_VRING_BASE_SKIP_DRAIN`.
    pub const GET_VRING_BASE_SKIP_DRAIN: Self = Self(1 << 23);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// `self` with `other` if `wanted`.
    #[must_use]
    pub fn with_if(self, wanted: bool, other: Self) -> Self {
        if wanted { self | other } else { self }
    }
}

impl BitOr for ProtocolFeatures {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for ProtocolFeatures {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for ProtocolFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut list = f.debug_set();
        for (name, feature) in NAMES.iter().filter(|(_, feature)| self.contains(*feature)) {
            rest &= !feature.0;
            list.entry(&format_args!("{name}"));
        }
        if rest != 0 {
            list.entry(&format_args!("{rest:#x}"));
        }
        list.finish()
    }
}
