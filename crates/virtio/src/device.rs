//! The device contract, and what it is made of.

use std::fs::File;
use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use crate::ids::{VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC, VIRTIO_F_VERSION_1};
use crate::{Dirty, GuestMemory, Inflight, Interrupt};

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

    /// As [`VirtioDevice::stop_queue`], but without waiting for requests that can be given up: they
    /// stay written down in the queue's [`QueueSetup::inflight`], for whoever starts it next. Only
    /// for queues that have one. The default completes every request.
    fn abandon_queue(&mut self, index: u16) -> Option<QueueState> {
        self.stop_queue(index)
    }

    /// Returns the device to what it was after creation. All queues have been stopped.
    fn reset(&mut self) {}

    /// What another device made with the same options needs to know to go on in this one's place,
    /// beside its queues: at most [`MAX_STATE`] bytes, whose meaning is the device's own. All queues
    /// have been stopped.
    ///
    /// # Errors
    /// The state cannot be had: the other end of a [remote](Identity) device is gone.
    fn save(&mut self) -> io::Result<Vec<u8>> {
        Ok(Vec::new())
    }

    /// Takes what [`VirtioDevice::save`] gave, possibly in another process or version. All queues
    /// have been stopped.
    ///
    /// # Errors
    /// `InvalidData`: it is not such a state. The device is what it was after creation.
    fn load(&mut self, state: &[u8]) -> io::Result<()> {
        if state.is_empty() { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// Takes the way to show files in the device's shared memory (virtio 1.3 §2.10). Called before
    /// the first queue starts, if [`Identity::shared_memory`] is not empty; and with another one if
    /// what was mapped is gone.
    fn on_shared_memory(&mut self, _memory: Arc<dyn SharedMemory>) {}
}

/// The most bytes of state a device may have.
pub const MAX_STATE: usize = 16 << 20;

/// A window of host memory in a guest's address space, which a device fills with pieces of files
/// (virtio 1.3 §2.10). Methods may be called from any thread. What is mapped is gone after a reset.
pub trait SharedMemory: Send + Sync {
    /// Shows `piece` of `file`.
    ///
    /// # Errors
    /// `InvalidInput`: the piece is not whole pages inside the region; `AlreadyExists`: something is
    /// mapped there; or what the host says.
    fn map(&self, piece: SharedPiece, file: &File, file_offset: u64, writable: bool) -> io::Result<()>;

    /// Takes away what was mapped at exactly `piece`.
    ///
    /// # Errors
    /// `NotFound`: nothing was, or it began or ended elsewhere.
    fn unmap(&self, piece: SharedPiece) -> io::Result<()>;
}

/// A part of one of a device's regions of shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedPiece {
    /// Which region: [`SharedRegion::id`].
    pub region: u8,
    /// Bytes from the region's start.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// A region of shared memory that a device has (virtio 1.3 §2.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedRegion {
    /// Its `shmid`.
    pub id: u8,
    /// Bytes, whole pages.
    pub size: u64,
}

/// What a device is and offers. The default is nothing of anything.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Device type of virtio 1.3 §5, one of [`crate::ids`].
    pub kind: u32,
    /// Feature bits of the device itself (0-23 and 50 up). Ring and transport bits are added by whoever drives it.
    pub features: u64,
    /// Among `features`, those without which the device cannot work: a driver that leaves one out
    /// does not get FEATURES_OK (virtio 1.3 §3.1.1). Over vhost-user it may start queues nevertheless;
    /// the device answers requests then, if only to say that it cannot.
    pub required: u64,
    /// The largest size of each queue, in descriptors: powers of two up to 32768.
    pub queue_sizes: Box<[u16]>,
    /// Length of the configuration space in bytes.
    pub config_len: usize,
    /// Features of rings that its queues know, among [`RING_FEATURES`]; all of them, for a device
    /// whose queues are [`crate::Queue`]s. Whoever drives it offers no others.
    pub ring_features: u64,
    /// Its regions of shared memory, by ascending id.
    pub shared_memory: Box<[SharedRegion]>,
}

/// The features of rings that [`crate::Queue`] knows.
pub const RING_FEATURES: u64 = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;

impl Default for Identity {
    fn default() -> Self {
        Self {
            kind: 0,
            features: 0,
            required: 0,
            queue_sizes: Box::default(),
            config_len: 0,
            ring_features: RING_FEATURES,
            shared_memory: Box::default(),
        }
    }
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
    /// Fires when the driver has made buffers available. May have fired already. Without one the
    /// driver does not kick, and the ring is looked at from time to time.
    pub kick: Option<EventFd>,
    /// Tells the driver that buffers were used.
    pub call: Interrupt,
    /// Tells whoever drives the device that this queue's ring is broken and latched
    /// (NEEDS_RESET in virtio 1.3 §2.1.2, the error descriptor in vhost-user).
    pub error: Interrupt,
    /// Where requests in flight are written down, for another process to go on with them should
    /// this one end. What is written there already is done first, and `resume` follows from it.
    pub inflight: Option<Inflight>,
    /// Where pages that were written to are marked, for a guest that is being copied elsewhere.
    pub dirty: Option<Dirty>,
}
