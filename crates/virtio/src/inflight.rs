//! Requests in flight, written down where another process finds them (vhost-user, "Inflight I/O
//! tracking"): the split-ring format, `struct QueueRegionSplit` and its descriptors.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::MmapRegion;

use crate::RingError;
use crate::dirty::map;
use crate::memory::Area;

/// The version of the format.
const VERSION: u16 = 1;
/// Offsets of the fields of a queue: le64 features, which are none, le16 version (0: nothing was
/// ever written here), le16 number of entries, le16 head of the last batch given back, le16 used index.
const VERSION_AT: usize = 8;
const ENTRIES_AT: usize = 10;
const LAST_BATCH_AT: usize = 12;
const USED_INDEX_AT: usize = 14;
/// Offsets of the fields of an entry: u8 in flight, five bytes that are padding to others and a note to
/// us, le16 next of its batch, le64 counter.
const IN_FLIGHT: usize = 0;
const NEXT: usize = 6;
/// Where the note is in the first eight bytes, in bits, and the largest one.
const NOTE: u32 = 8;
pub(crate) const MAX_NOTE: u64 = (1 << 40) - 1;
const COUNTER: usize = 8;

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
pub struct Inflight {
    mapping: Arc<MmapRegion>,
    /// Where in it the queue begins.
    offset: usize,
    /// How many entries it has.
    size: u16,
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

/// What a queue writes down of its requests, one field after the other, so that it makes sense
/// wherever it ends. Nothing is read back: whoever shares the region may write there, too.
pub(crate) struct Journal {
    area: Area,
    /// Of the next request that is taken.
    counter: u64,
    /// Heads that were given back and are not published.
    batch: Vec<u16>,
    last_batch: u16,
}

impl Journal {
    /// Takes up what is written there for a ring of `size` descriptors whose used index is `used`,
    /// and says which heads are in flight: the one that was taken first is last.
    pub(crate) fn open(inflight: &Inflight, size: u16, used: u16) -> Result<(Self, Vec<u16>), RingError> {
        let len = HEADER as usize + ENTRY as usize * usize::from(inflight.size);
        let area = Area::of_mapping(&inflight.mapping, inflight.offset, len).ok_or(RingError::Inflight)?;
        if inflight.size < size {
            return Err(RingError::Inflight);
        }
        let batch = Vec::with_capacity(usize::from(size));
        let mut journal = Self { area, counter: 0, batch, last_batch: 0 };
        let recovered = match journal.load(VERSION_AT) {
            0 => journal.begin(inflight.size, used),
            VERSION => journal.recover(inflight.size, size, used)?,
            _ => return Err(RingError::Inflight),
        };
        Ok((journal, recovered))
    }

    /// A request is taken.
    pub(crate) fn taken(&mut self, head: u16) {
        self.area.store_u64(entry(head) + COUNTER, self.counter);
        self.note(head, 0);
        self.counter = self.counter.wrapping_add(1);
    }

    /// Says something of a request that is in flight and not given back, all of it at once.
    pub(crate) fn note(&mut self, head: u16, note: u64) {
        self.area.store_u64(entry(head) + IN_FLIGHT, 1 | (note & MAX_NOTE) << NOTE);
    }

    /// What was said of it last.
    pub(crate) fn noted(&self, head: u16) -> u64 {
        self.area.load_u64(entry(head) + IN_FLIGHT) >> NOTE & MAX_NOTE
    }

    /// A request is as if it had not been taken.
    pub(crate) fn undone(&mut self, head: u16) {
        self.area.store_u8(entry(head) + IN_FLIGHT, 0);
    }

    /// A request is given back; its driver does not know yet.
    pub(crate) fn pushed(&mut self, head: u16) {
        self.store(entry(head) + NEXT, self.last_batch);
        self.store(LAST_BATCH_AT, head);
        self.last_batch = head;
        self.batch.push(head);
    }

    /// The ring's used index is `used` now: all that was given back is over.
    pub(crate) fn published(&mut self, used: u16) {
        for head in self.batch.drain(..) {
            self.area.store_u8(entry(head) + IN_FLIGHT, 0);
        }
        self.store(USED_INDEX_AT, used);
    }

    /// Begins with nothing in flight.
    fn begin(&mut self, entries: u16, used: u16) -> Vec<u16> {
        (0..entries).for_each(|head| self.undone(head));
        self.store(ENTRIES_AT, entries);
        self.store(LAST_BATCH_AT, 0);
        self.store(USED_INDEX_AT, used);
        self.store(VERSION_AT, VERSION);
        Vec::new()
    }

    /// Finishes what a process left half done; heads as of [`Journal::open`].
    fn recover(&mut self, entries: u16, size: u16, used: u16) -> Result<Vec<u16>, RingError> {
        let known = self.load(ENTRIES_AT);
        if !(size..=entries).contains(&known) {
            return Err(RingError::Inflight);
        }
        let mut in_flight: Vec<bool> =
            (0..known).map(|head| self.area.load_u8(entry(head) + IN_FLIGHT) != 0).collect();
        // The last batch was published, but it was not written down that it is over.
        let mut batch = used.wrapping_sub(self.load(USED_INDEX_AT));
        if batch > size {
            // The ring began anew, which it may if there is nothing in flight.
            if in_flight.contains(&true) {
                return Err(RingError::Inflight);
            }
            batch = 0;
        }
        self.last_batch = self.load(LAST_BATCH_AT);
        let mut head = self.last_batch;
        for _ in 0..batch {
            *in_flight.get_mut(usize::from(head)).ok_or(RingError::Inflight)? = false;
            self.undone(head);
            head = self.load(entry(head) + NEXT);
        }
        self.store(USED_INDEX_AT, used);
        let counter = |head| (self.area.load_u64(entry(head) + COUNTER), head);
        let mut found: Vec<_> =
            (0..known).filter(|&head| in_flight[usize::from(head)]).map(counter).collect();
        if found.iter().any(|&(_, head)| head >= size) {
            return Err(RingError::Inflight);
        }
        found.sort_unstable_by(|one, other| other.cmp(one));
        self.counter = found.first().map_or(0, |(counter, _)| counter.wrapping_add(1));
        Ok(found.into_iter().map(|(_, head)| head).collect())
    }

    fn load(&self, offset: usize) -> u16 {
        self.area.load_u16(offset, Ordering::Acquire)
    }

    fn store(&self, offset: usize, value: u16) {
        self.area.store_u16(offset, value, Ordering::Release);
    }
}

/// Where the entry of a head begins.
fn entry(head: u16) -> usize {
    HEADER as usize + ENTRY as usize * usize::from(head)
}

fn stride(queue_size: u16) -> u64 {
    (HEADER + ENTRY * u64::from(queue_size)).next_multiple_of(ALIGN)
}
