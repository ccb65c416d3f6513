//! The device contract, and what it is made of.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use crate::{GuestMemory, Interrupt};

/// A virtio device, driven by a register transport or by a vhost-user front-end.
///
/// Its driver calls it from one thread at a time; data moves on the queues' own threads. Queues it
/// is called with are those of its [`Identity`]: whoever drives it checks what a guest or peer says.
pub trait VirtioDevice: Send {
    /// What the device is and offers; never changes.
    fn identity(&self) -> &Identity;

    /// Fills `data` from the configuration space, starting `offset` bytes in. Bytes beyond
    /// [`Identity::config_len`] read as zero.
    fn read_config(&self, offset: usize, data: &mut [u8]);

    /// Takes a driver's write to the configuration space; the default ignores it.
    fn write_config(&mut self, _offset: usize, _data: &[u8]) {}

    /// Takes the interrupt that announces a change of the configuration space (virtio 1.3 §2.5).
    /// Called before the first queue starts, again whenever the driver moves the vector.
    fn on_config_change(&mut self, _interrupt: Interrupt) {}

    /// Starts queue `setup.index`. Order between queues is free; a queue that runs is never started.
    ///
    /// # Errors
    /// The host refuses what the queue needs (a thread, a descriptor). The queue stays stopped.
    fn start_queue(&mut self, setup: QueueSetup) -> io::Result<()>;

    /// Stops queue `index` after completing every request it took, and says where the ring is.
    /// `None` when it was not running; calling it again is harmless.
    fn stop_queue(&mut self, index: u16) -> Option<QueueState>;

    /// Returns the device to what it was after creation. All queues have been stopped.
    fn reset(&mut self) {}
}

/// What a device is and offers.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Device type of virtio 1.3 §5, one of [`crate::ids`].
    pub kind: u32,
    /// Feature bits of the device itself (0-23 and 50 up). Ring and transport bits are added by whoever drives it.
    pub features: u64,
    /// Among `features`, those without which the device cannot work: a driver that leaves one out
    /// does not get FEATURES_OK (virtio 1.3 §3.1.1).
    pub required: u64,
    /// The largest size of each queue, in descriptors: powers of two up to 32768.
    pub queue_sizes: Box<[u16]>,
    /// Length of the configuration space in bytes.
    pub config_len: usize,
}

/// Where a split ring is: guest-physical addresses of its three areas (virtio 1.3 §2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLayout {
    /// Number of descriptors, a power of two up to 32768.
    pub size: u16,
    /// Descriptor table; 16-byte aligned.
    pub descriptors: u64,
    /// Available ring, written by the driver; 2-byte aligned.
    pub available: u64,
    /// Used ring, written by the device; 4-byte aligned.
    pub used: u64,
}

/// Where a device stopped in a ring. All a queue needs to go on elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueState {
    /// Free-running index of the next available entry the device will take.
    pub next_available: u16,
}

/// Everything a device gets to run one queue.
pub struct QueueSetup {
    /// Which queue.
    pub index: u16,
    /// The features the driver accepted, ring and transport bits included.
    pub features: u64,
    /// Where the ring is.
    pub layout: QueueLayout,
    /// Where to start in it.
    pub resume: QueueState,
    /// Guest memory; fixed until the queue stops.
    pub memory: Arc<GuestMemory>,
    /// Fires when the driver has made buffers available. May have fired already.
    pub kick: EventFd,
    /// Tells the driver that buffers were used.
    pub call: Interrupt,
    /// Tells whoever drives the device that this queue's ring is broken and latched
    /// (NEEDS_RESET in virtio 1.3 §2.1.2, the error descriptor in vhost-user).
    pub error: Interrupt,
}
