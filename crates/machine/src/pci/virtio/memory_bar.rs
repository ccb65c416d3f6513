//! The BAR with a device's shared memory (virtio 1.3 §2.10, §4.1.4.7).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parador_virtio::{LogLimit, SharedMemory, SharedPiece};
use tracing::warn;

use super::layout::SharedLayout;
use crate::pci::Host;
use crate::pci::host_memory::HostMemory;

/// The BAR: host memory, and whether the guest sees it. While it does not, accesses come to us.
pub(super) struct MemoryBar {
    regions: Arc<Regions>,
    /// Where the BAR answers.
    placed: Option<u64>,
    /// Where the guest sees the memory: there, or nowhere.
    shown: Option<u64>,
    /// It was taken away, until the device is reset.
    given_up: bool,
}

impl MemoryBar {
    /// # Errors
    /// The host has no addresses for it.
    pub(super) fn new(layout: SharedLayout) -> io::Result<Self> {
        let memory = Arc::new(HostMemory::new(layout.bar.size)?);
        let pieces = Mutex::new(Pieces { life: 0, mapped: BTreeMap::new() });
        let regions = Arc::new(Regions { memory, layout, pieces });
        Ok(Self { regions, placed: None, shown: None, given_up: false })
    }

    pub(super) fn layout(&self) -> &SharedLayout {
        &self.regions.layout
    }

    /// The way to show files in it until the device is reset.
    pub(super) fn access(&self) -> Arc<dyn SharedMemory> {
        let life = self.regions.pieces().life;
        Arc::new(Access { regions: Arc::clone(&self.regions), life })
    }

    /// Has the guest see the memory where the BAR answers now, if it does.
    pub(super) fn place(&mut self, range: Option<&Range<u64>>, host: &dyn Host) {
        self.placed = range.map(|range| range.start);
        self.show(host);
    }

    /// Takes the memory away from the guest until the device is reset. Whether it had it.
    pub(super) fn give_up(&mut self, host: &dyn Host) -> bool {
        let had = self.shown.is_some();
        self.given_up |= had;
        self.show(host);
        had
    }

    /// Takes away all that is mapped: a device begins anew, with another [`MemoryBar::access`].
    pub(super) fn reset(&mut self, host: &dyn Host) {
        // Memory that keeps what it had is not shown to whoever comes next.
        self.given_up = !self.regions.reset();
        self.show(host);
    }

    fn show(&mut self, host: &dyn Host) {
        let wanted = self.placed.filter(|_| !self.given_up);
        if self.shown == wanted {
            return;
        }
        if let Some(old) = self.shown.take() {
            host.hide_memory(old);
        }
        let Some(address) = wanted else { return };
        match host.show_memory(address, &self.regions.memory) {
            Ok(()) => self.shown = Some(address),
            Err(error) => {
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(dropped) = LIMIT.pass() {
                    warn!(address, %error, dropped, "a guest does not see a device's shared memory");
                }
            }
        }
    }
}

/// The regions, and what is mapped in them.
struct Regions {
    memory: Arc<HostMemory>,
    layout: SharedLayout,
    /// Held for a few system calls.
    pieces: Mutex<Pieces>,
}

struct Pieces {
    /// How often the device was reset.
    life: u64,
    /// Bytes, by offset in the BAR. No two overlap.
    mapped: BTreeMap<u64, u64>,
}

/// The most pieces that are mapped at a time: each is one of the 65530 mappings a process may have.
const MAX_PIECES: usize = 8192;
const PAGE: u64 = 4096;

/// The regions for a device until it is reset: whoever comes late changes nothing in the next life.
struct Access {
    regions: Arc<Regions>,
    life: u64,
}

impl SharedMemory for Access {
    fn map(&self, piece: SharedPiece, file: &File, file_offset: u64, writable: bool) -> io::Result<()> {
        let range = self.regions.layout.range(piece).ok_or(io::ErrorKind::InvalidInput)?;
        if [range.start, range.end, file_offset].iter().any(|number| !number.is_multiple_of(PAGE)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut pieces = self.pieces()?;
        let before = pieces.mapped.range(..range.end).next_back();
        if before.is_some_and(|(start, len)| start + len > range.start) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if pieces.mapped.len() >= MAX_PIECES {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.regions.memory.map(range.start, piece.len, file, file_offset, writable)?;
        pieces.mapped.insert(range.start, piece.len);
        Ok(())
    }

    fn unmap(&self, piece: SharedPiece) -> io::Result<()> {
        let range = self.regions.layout.range(piece).ok_or(io::ErrorKind::NotFound)?;
        let mut pieces = self.pieces()?;
        if pieces.mapped.get(&range.start) != Some(&piece.len) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.regions.memory.clear(range.start, piece.len)?;
        pieces.mapped.remove(&range.start);
        Ok(())
    }
}

impl Access {
    /// What is mapped, unless the device was reset since this was made.
    fn pieces(&self) -> io::Result<MutexGuard<'_, Pieces>> {
        let pieces = self.regions.pieces();
        if pieces.life != self.life {
            return Err(io::Error::other("the device has been reset"));
        }
        Ok(pieces)
    }
}

impl Regions {
    fn pieces(&self) -> MutexGuard<'_, Pieces> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins another life, with nothing mapped. Whether the host let it.
    fn reset(&self) -> bool {
        let mut pieces = self.pieces();
        pieces.life += 1;
        if pieces.mapped.is_empty() {
            return true;
        }
        if let Err(error) = self.memory.clear(0, self.memory.len()) {
            warn!(%error, "a device's shared memory cannot be emptied");
            return false;
        }
        pieces.mapped.clear();
        true
    }
}
