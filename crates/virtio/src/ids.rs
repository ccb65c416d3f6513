//! Numbers of the virtio specification: device types and the feature bits that transports own.

pub use virtio_bindings::virtio_ids::*;

/// Indirect descriptors (virtio 1.3 §2.7.7). Offered by whoever drives the device.
pub const VIRTIO_F_INDIRECT_DESC: u64 = 1 << 28;
/// Event index: `used_event` and `avail_event` (virtio 1.3 §2.7.10).
pub const VIRTIO_F_EVENT_IDX: u64 = 1 << 29;
/// The modern interface (virtio 1.3 §6.1); no device here works without it.
pub const VIRTIO_F_VERSION_1: u64 = 1 << 32;
