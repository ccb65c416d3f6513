//! Who knows the zones of a disk, beside this process.

use std::io;
use std::sync::Arc;

use crate::Fault;
use crate::raw::{RawFile, Scratch};
use crate::zoned::image::Metadata;
use crate::zoned::{Held, Zones};

/// Where zones are kept: in the metadata of an image, or by a device of the host.
pub(in crate::zoned) trait Keeper: Send + Sync {
    /// The zones: where writes go.
    fn zones(&self) -> &Arc<Zones>;

    /// Where the data of the disk's first byte is in the file.
    fn data_offset(&self) -> u64;

    /// Whether it judges requests itself: opening and closing a zone is something to wait for, a
    /// write that was done cannot be done again, and every reset has an end of its own.
    fn is_device(&self) -> bool;

    /// Makes every write that is over durable.
    fn flush(&self) -> io::Result<()>;

    /// Opens a zone, explicitly.
    fn open(&self, held: &Held<'_>) -> Result<(), Fault> {
        Ok(held.open()?)
    }

    /// Closes a zone.
    fn close(&self, held: &Held<'_>) -> Result<(), Fault> {
        Ok(held.close()?)
    }

    /// Makes a zone full, durably.
    fn finish(&self, held: &Held<'_>) -> io::Result<()>;

    /// Empties zones, durably.
    fn empty(&self, held: &[Held<'_>]) -> io::Result<()>;

    /// The zone was emptied, and whoever asked for it knows.
    fn emptied(&self, held: &Held<'_>);

    /// A write of `len` bytes at `offset`, in the sequential `zone`, failed: what is left of it is made
    /// right. It is still in flight.
    ///
    /// # Errors
    /// That is not possible: the zone is lost.
    fn mend(&self, zone: u32, offset: u64, len: u64) -> io::Result<()>;

    /// What an error of the host means.
    fn judge(&self, fault: Fault) -> Fault {
        fault
    }

    /// Makes `zone` read-only or offline.
    fn fail(&self, zone: u32, offline: bool) -> io::Result<()>;

    /// Nobody uses the disk any more.
    fn shut(&self) -> io::Result<()>;
}

/// Zones in the metadata of an image.
pub(super) struct InImage {
    pub(super) raw: Arc<RawFile>,
    pub(super) metadata: Metadata,
}

impl Keeper for InImage {
    fn zones(&self) -> &Arc<Zones> {
        self.metadata.zones()
    }

    fn data_offset(&self) -> u64 {
        self.metadata.data_offset()
    }

    fn is_device(&self) -> bool {
        false
    }

    fn flush(&self) -> io::Result<()> {
        self.metadata.flush()
    }

    fn finish(&self, held: &Held<'_>) -> io::Result<()> {
        self.metadata.finish(held)
    }

    fn empty(&self, held: &[Held<'_>]) -> io::Result<()> {
        self.metadata.empty(held)
    }

    /// Takes its data away.
    fn emptied(&self, held: &Held<'_>) {
        let Err(error) = self.metadata.punch(held) else { return };
        let (zone, path) = (held.zone(), self.raw.path.display());
        tracing::warn!("disk image {path}: the space of zone {zone} cannot be given back: {error}");
        if let Err(error) = self.metadata.write_over(held) {
            tracing::error!(
                "disk image {path}: zone {zone} is lost, what was in it cannot be erased: {error}"
            );
            // It is so now, even if it cannot be written down.
            let _ = self.metadata.lose(held);
        }
    }

    /// What was not written reads as zeroes.
    fn mend(&self, _zone: u32, offset: u64, len: u64) -> io::Result<()> {
        self.raw.write_zeroes(self.data_offset() + offset, len, true, &mut Scratch::default())
    }

    fn fail(&self, zone: u32, offline: bool) -> io::Result<()> {
        self.metadata.fail(zone, offline)
    }

    fn shut(&self) -> io::Result<()> {
        self.metadata.close()
    }
}
