//! Requests in flight, written down where another process finds them (vhost-user, "Inflight I/O
//! tracking"): the split-ring format, `struct QueueRegionSplit` and its descriptors.

use std::fs::File;
use std::io;
use std::sync::Arc;

use vm_memory::MmapRegion;

use crate::dirty::map;

/// Bytes before the entries of a queue.
const HEADER: u64 = 16;
/// Bytes of an entry; there is one for each descriptor.
const ENTRY: u64 = 16;
/// Where each queue begins is a multiple of this, as in libvhost-user and DPDK.
const ALIGN: u64 = 64;

/// The requests in flight of all queues of a device, in memory that outlives its process.
pub struct InflightRegion {
    mapping: Arc<MmapRegion>,
    queues: u16,
    queue_size: u16,
}

/// The requests in flight of one queue.
#[expect(dead_code, reason = "the queue writes here from the next commit on")]
pub struct Inflight {
    pub(crate) mapping: Arc<MmapRegion>,
    /// Where in it the queue begins.
    pub(crate) offset: usize,
    /// How many entries it has.
    pub(crate) size: u16,
}

impl InflightRegion {
    /// Bytes needed for `queues` queues of `queue_size` descriptors.
    #[must_use]
    pub fn bytes(queues: u16, queue_size: u16) -> u64 {
        u64::from(queues) * stride(queue_size)
    }

    /// Maps the `len` bytes of `file` from `offset` as such a region. A file of zeroes is one in
    /// which nothing is in flight.
    ///
    /// # Errors
    /// It is too small, or the file is (`InvalidInput`), or the host refuses.
    pub fn map(file: File, offset: u64, len: u64, queues: u16, queue_size: u16) -> io::Result<Self> {
        if len < Self::bytes(queues, queue_size) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self { mapping: Arc::new(map(file, offset, len)?), queues, queue_size })
    }

    /// The part of queue `index`; `None` if the region has no such queue.
    #[must_use]
    pub fn queue(&self, index: u16) -> Option<Inflight> {
        let offset = usize::try_from(u64::from(index) * stride(self.queue_size)).ok()?;
        (index < self.queues).then(|| Inflight {
            mapping: Arc::clone(&self.mapping),
            offset,
            size: self.queue_size,
        })
    }
}

fn stride(queue_size: u16) -> u64 {
    (HEADER + ENTRY * u64::from(queue_size)).next_multiple_of(ALIGN)
}
