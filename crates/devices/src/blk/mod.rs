//! A disk (virtio 1.3 §5.2).
//!
//! [`request`] takes a chain apart into owned values, `queue` moves the data on the queue's own
//! thread, and this file is what the driver sees when it looks around.

mod config;
mod queue;
mod report;
pub mod request;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use parador_block::{Image, SECTOR};
use parador_virtio::{Identity, Interrupt, Lane, QueueSetup, QueueState, VirtioDevice, ids};

use self::queue::BlkQueue;
use self::request::SERIAL_LEN;
use crate::config_space;

/// What a disk is made of.
#[derive(Debug)]
pub struct BlkOptions {
    /// Where the blocks are. Read-only, discard and the way to do I/O were settled when it was opened.
    pub image: Image,
    /// What the guest finds under `/dev/disk/by-id`: at most 20 bytes.
    pub serial: String,
    /// Number of request queues, 1 to 64, each with a thread of its own while it runs.
    pub queues: u16,
    /// Descriptors in each queue, a power of two from 4 to 1024. A request has at most two less pieces.
    pub queue_size: u16,
    /// Logical and physical block size to show, in bytes; `None` shows the image's own.
    pub block_sizes: Option<(u32, u32)>,
    /// Whether every write is durable before it completes, whatever the guest asks for.
    pub sync: bool,
    /// What the queues' threads are called, before their number.
    pub name: String,
}

impl BlkOptions {
    /// One queue of 256 descriptors, no serial number.
    #[must_use]
    pub fn new(image: Image) -> Self {
        Self {
            image,
            serial: String::new(),
            queues: 1,
            queue_size: 256,
            block_sizes: None,
            sync: false,
            name: "blk".into(),
        }
    }
}

/// Why a disk cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlkError {
    /// Longer than 20 bytes.
    #[error("a disk's serial number has at most {SERIAL_LEN} bytes, \"{0}\" has more")]
    Serial(String),
    /// Not 1 to 64.
    #[error("a disk has 1 to {MAX_QUEUES} queues, not {0}")]
    Queues(u16),
    /// Not a power of two from 4 to 1024.
    #[error("a disk's queue size is a power of two from 4 to {MAX_QUEUE_SIZE}, not {0}")]
    QueueSize(u16),
    /// Not powers of two, the physical size below the logical one, or the logical one below the image's.
    #[error(
        "block sizes {logical}/{physical} do not suit the image: powers of two up to 65536, \
         the first at least {least}, the second not below the first"
    )]
    BlockSizes {
        /// What was asked for.
        logical: u32,
        /// What was asked for.
        physical: u32,
        /// The image's logical block.
        least: u32,
    },
    /// Not the blocks in which zones are written.
    #[error(
        "block sizes {logical}/{physical} of a disk whose zones are written in blocks of {granularity}: both are that"
    )]
    ZonedBlockSizes {
        /// What was asked for.
        logical: u32,
        /// What was asked for.
        physical: u32,
        /// The zones' write granularity.
        granularity: u32,
    },
    /// The disk is smaller than one block.
    #[error("the image is smaller than one block of {0} bytes")]
    Small(u32),
    /// The host refuses a descriptor.
    #[error("cannot set up a queue of disk image {path}")]
    Queue {
        /// The image.
        path: std::path::PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}

const MAX_QUEUES: u16 = 64;
const MAX_QUEUE_SIZE: u16 = 1024;
const MAX_BLOCK: u32 = 64 << 10;

/// A virtio disk over an [`Image`].
pub struct Blk {
    identity: Identity,
    shared: Arc<Shared>,
    lanes: Box<[Lane<BlkQueue>]>,
    name: String,
}

/// What the device, its queues and its [`Resizer`]s have in common.
struct Shared {
    image: Image,
    /// Units of 512 bytes.
    capacity: AtomicU64,
    /// Whether completed writes may stay in the host's cache until the driver flushes
    /// (`writeback` of the configuration space).
    writeback: AtomicBool,
    /// Features of the device itself.
    features: u64,
    serial: [u8; SERIAL_LEN],
    logical_block: u32,
    physical_block: u32,
    /// Pieces of data in one request.
    segments: u16,
    queues: u16,
    /// Held for a copy or a signal, never across anything else.
    config_change: Mutex<Interrupt>,
}

impl Blk {
    /// Makes a disk; its queues are set up, and start when the driver does.
    ///
    /// # Errors
    /// See [`BlkError`].
    pub fn new(options: BlkOptions) -> Result<Self, BlkError> {
        let shared = Arc::new(Shared::new(&options)?);
        let BlkOptions { image, queues, queue_size, name, .. } = options;
        let lane = |_| {
            let disk = image
                .queue(queue_size)
                .map_err(|source| BlkError::Queue { path: image.path().into(), source })?;
            Ok(Lane::new(BlkQueue::new(disk, Arc::clone(&shared), queue_size)))
        };
        let identity = Identity {
            kind: ids::VIRTIO_ID_BLOCK,
            features: shared.features,
            required: config::required(shared.features),
            queue_sizes: vec![queue_size; usize::from(queues)].into(),
            config_len: config::len(shared.features),
            ..Identity::default()
        };
        let lanes = (0..queues).map(lane).collect::<Result<_, _>>()?;
        Ok(Self { identity, shared, lanes, name })
    }

    /// A handle that tells the guest about a new size.
    #[must_use]
    pub fn resizer(&self) -> Resizer {
        Resizer { shared: Arc::clone(&self.shared) }
    }
}

impl VirtioDevice for Blk {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        config_space::read(&config::space(&self.shared), offset, data);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        let Some(writeback) = config::written_writeback(offset, data) else { return };
        if !config::offers_wce(self.shared.features) {
            return;
        }
        let was = self.shared.writeback.swap(writeback, Ordering::Relaxed);
        // From now on a completed write is a durable one, and the driver stops flushing: that goes
        // for what completed before, too.
        if was
            && !writeback
            && let Err(error) = self.shared.image.flush()
        {
            tracing::warn!("disk image {}: flush failed: {error}", self.shared.image.path().display());
        }
    }

    fn on_config_change(&mut self, interrupt: Interrupt) {
        *self.shared.config_change.lock().unwrap_or_else(PoisonError::into_inner) = interrupt;
    }

    fn start_queue(&mut self, setup: QueueSetup) -> io::Result<()> {
        let index = setup.index;
        if config::required(self.shared.features) & !setup.features != 0 {
            self.shared.warn_of_zones();
        }
        let lane = self.lanes.get_mut(usize::from(index)).ok_or(io::ErrorKind::InvalidInput)?;
        lane.start(&format!("{}.{index}", self.name), setup)
    }

    fn stop_queue(&mut self, index: u16) -> Option<QueueState> {
        self.lanes.get_mut(usize::from(index))?.stop()
    }

    fn abandon_queue(&mut self, index: u16) -> Option<QueueState> {
        self.lanes.get_mut(usize::from(index))?.abandon()
    }

    fn reset(&mut self) {
        let Self { identity: _, shared, lanes: _, name: _ } = self;
        shared.writeback.store(config::initial_writeback(shared.features), Ordering::Relaxed);
    }
}

/// Tells a running guest that its disk has another size. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Resizer {
    shared: Arc<Shared>,
}

impl Resizer {
    /// Measures the image again and announces the size, in bytes, if it is not the one known. The
    /// image itself is made larger or smaller by whoever owns it, before.
    ///
    /// # Errors
    /// The host does not say, or the image is empty: the disk stays as it was.
    pub fn resize(&self) -> io::Result<u64> {
        let capacity = whole_blocks(self.shared.image.refresh_size()?, self.shared.logical_block);
        if self.shared.capacity.swap(capacity, Ordering::Relaxed) != capacity {
            let interrupt = self.shared.config_change.lock().unwrap_or_else(PoisonError::into_inner).clone();
            interrupt.signal();
        }
        Ok(capacity * u64::from(SECTOR))
    }
}

impl Shared {
    fn new(options: &BlkOptions) -> Result<Self, BlkError> {
        let BlkOptions { image, serial, queues, queue_size, block_sizes, sync, name: _ } = options;
        if !(1..=MAX_QUEUES).contains(queues) {
            return Err(BlkError::Queues(*queues));
        }
        if !queue_size.is_power_of_two() || !(4..=MAX_QUEUE_SIZE).contains(queue_size) {
            return Err(BlkError::QueueSize(*queue_size));
        }
        let mut padded = [0; SERIAL_LEN];
        let Some(start) = padded.get_mut(..serial.len()) else {
            return Err(BlkError::Serial(serial.clone()));
        };
        start.copy_from_slice(serial.as_bytes());
        let topology = image.topology();
        let least = topology.logical_block;
        let (logical, physical) = block_sizes.unwrap_or((least, topology.physical_block));
        if let Some(zoned) = image.zoned() {
            // Linux before 7.2 takes the logical block for the write granularity.
            let granularity = zoned.geometry().granularity;
            if (logical, physical) != (granularity, granularity) {
                return Err(BlkError::ZonedBlockSizes { logical, physical, granularity });
            }
        }
        let fits = |block: u32, least| block.is_power_of_two() && (least..=MAX_BLOCK).contains(&block);
        if !fits(logical, least) || !fits(physical, logical) {
            return Err(BlkError::BlockSizes { logical, physical, least });
        }
        let capacity = whole_blocks(image.size(), logical);
        if capacity == 0 {
            return Err(BlkError::Small(logical));
        }
        let features = config::features(image, *queues, *sync);
        Ok(Self {
            image: image.clone(),
            capacity: AtomicU64::new(capacity),
            writeback: AtomicBool::new(config::initial_writeback(features)),
            features,
            serial: padded,
            logical_block: logical,
            physical_block: physical,
            segments: queue_size - 2,
            queues: *queues,
            config_change: Mutex::new(Interrupt::nobody()),
        })
    }
}

/// Sectors in the whole blocks of `bytes`.
fn whole_blocks(bytes: u64, block: u32) -> u64 {
    bytes / u64::from(block) * u64::from(block / SECTOR)
}
