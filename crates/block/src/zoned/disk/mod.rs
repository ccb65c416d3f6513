//! A disk with zones: what there is to ask of it beside requests, and the one that is kept in an
//! image file.

mod bells;
mod clerk;
mod queue;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use self::bells::Bells;
use self::clerk::Desk;
use self::queue::ZonedDisk;
use super::image::{ImageError, Metadata};
use super::{Geometry, Refusal, Write, Zone};
use crate::Disk;
use crate::raw::{RawFile, Scratch};

/// What a disk with zones is asked beside requests. Usable from any thread.
pub trait Zoned: Send + Sync {
    /// The shape of the disk.
    fn geometry(&self) -> &Geometry;

    /// Says of the zones from `first` on how they are now, as many as `zones` has room for and there
    /// are; how many that were.
    ///
    /// # Errors
    /// What the host says.
    fn report(&self, first: u32, zones: &mut [Zone]) -> io::Result<usize>;

    /// Makes `zone` read-only, or offline, for good: for tests of what runs on the disk.
    ///
    /// # Errors
    /// There is no such zone, or it is offline already (`InvalidInput`); what the host says.
    fn fail(&self, zone: u32, offline: bool) -> io::Result<()>;
}

/// A zoned image that is open, shared by its queues; dropping it closes the image.
pub(crate) struct ZonedFile {
    core: Arc<Core>,
}

/// What queues and the clerk share.
struct Core {
    raw: Arc<RawFile>,
    metadata: Metadata,
    desk: Desk,
    bells: Bells,
    /// Held while zones are: whoever else changes one finds none busy.
    holding: Mutex<()>,
}

impl ZonedFile {
    /// Opens the image in `raw`'s file, which is nobody else's.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub(crate) fn open(raw: Arc<RawFile>, power_cut: bool) -> Result<Self, ImageError> {
        if raw.block_device {
            return Err(ImageError::NotAnImage);
        }
        let open = if power_cut { Metadata::open_forgetful } else { Metadata::open };
        let metadata = open(&raw.file)?;
        let core =
            Core { raw, metadata, desk: Desk::default(), bells: Bells::default(), holding: Mutex::default() };
        Ok(Self { core: Arc::new(core) })
    }

    /// A queue whose data `inner` moves, which is one over the whole file.
    ///
    /// # Errors
    /// The host refuses a descriptor.
    pub(crate) fn queue(self: &Arc<Self>, inner: Box<dyn Disk>, depth: u16) -> io::Result<Box<dyn Disk>> {
        Ok(Box::new(ZonedDisk::new(inner, Arc::clone(self), depth)?))
    }

    /// Makes every write that is over durable.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.core.metadata.flush()
    }

    /// Makes every write durable, and says that nobody has the image open.
    pub(crate) fn close(&self) -> io::Result<()> {
        self.core.metadata.close()
    }
}

impl Core {
    /// A write is over; whoever waits for its zone learns it.
    fn complete(&self, write: Write) {
        self.metadata.zones().complete(write);
        if self.bells.ring() {
            self.desk.tell();
        }
    }

    /// Whatever is left of a write that failed reads as zeroes. In a conventional zone that is for
    /// whoever wrote to judge.
    fn blank(&self, offset: u64, len: u64) {
        let geometry = self.metadata.zones().geometry();
        let Some(zone) = geometry.zone_at(offset).filter(|zone| !geometry.is_conventional(*zone)) else {
            return;
        };
        let at = self.metadata.data_offset() + offset;
        if let Err(error) = self.raw.write_zeroes(at, len, true, &mut Scratch::default()) {
            tracing::error!("disk image {}: zone {zone} is lost: {error}", self.raw.path.display());
            // It is so now, even if it cannot be written down.
            let _ = self.fail(zone, true);
        }
    }

    fn fail(&self, zone: u32, offline: bool) -> io::Result<()> {
        let _none_is_busy = self.holding.lock().unwrap_or_else(PoisonError::into_inner);
        self.metadata.fail(zone, offline)
    }
}

impl Zoned for ZonedFile {
    fn geometry(&self) -> &Geometry {
        self.core.metadata.zones().geometry()
    }

    fn report(&self, first: u32, zones: &mut [Zone]) -> io::Result<usize> {
        let known = self.core.metadata.zones();
        let mut count = 0;
        for (number, zone) in (first..self.geometry().zones()).zip(zones) {
            *zone = known.zone(number);
            count += 1;
        }
        Ok(count)
    }

    fn fail(&self, zone: u32, offline: bool) -> io::Result<()> {
        if zone >= self.geometry().zones() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.core.fail(zone, offline).map_err(|error| {
            let refused = error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Refusal>);
            if refused { io::ErrorKind::InvalidInput.into() } else { error }
        })
    }
}

impl Drop for ZonedFile {
    fn drop(&mut self) {
        self.core.desk.close();
        if let Err(error) = self.close() {
            let path = self.core.raw.path.display();
            tracing::error!("disk image {path}: its last writes may not be durable: {error}");
        }
    }
}

impl fmt::Debug for ZonedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZonedFile").field("raw", &self.core.raw).field("geometry", self.geometry()).finish()
    }
}
