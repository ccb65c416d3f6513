//! A disk with zones: what there is to ask of it beside requests, and the one that is kept in an
//! image file.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::image::{ImageError, Metadata};
use super::{Geometry, Refusal, Zone};
use crate::raw::RawFile;

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

/// A zoned image that is open, shared by its queues.
pub(crate) struct ZonedFile {
    raw: Arc<RawFile>,
    metadata: Metadata,
}

impl ZonedFile {
    /// Opens the image in `raw`'s file, which is nobody else's.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub(crate) fn open(raw: Arc<RawFile>) -> Result<Self, ImageError> {
        let metadata = Metadata::open(&raw.file)?;
        Ok(Self { raw, metadata })
    }

    /// Makes every write that is over durable.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.metadata.flush()
    }
}

impl Zoned for ZonedFile {
    fn geometry(&self) -> &Geometry {
        self.metadata.zones().geometry()
    }

    fn report(&self, first: u32, zones: &mut [Zone]) -> io::Result<usize> {
        let known = self.metadata.zones();
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
        self.metadata.fail(zone, offline).map_err(|error| {
            let refused = error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Refusal>);
            if refused { io::ErrorKind::InvalidInput.into() } else { error }
        })
    }
}

impl fmt::Debug for ZonedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZonedFile").field("raw", &self.raw).field("geometry", self.geometry()).finish()
    }
}
