//! A disk with zones: what there is to ask of it beside requests, and how it works, whoever keeps the
//! zones.

mod bells;
mod clerk;
mod keeper;
mod kept;
mod letters;
mod queue;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use self::bells::Bells;
use self::clerk::Desk;
use self::keeper::InImage;
pub(super) use self::keeper::Keeper;
use self::letters::Letters;
use self::queue::ZonedDisk;
use super::device::{Device, DeviceError};
use super::image::{ImageError, Metadata};
use super::{Condition, Geometry, Refusal, Write, Zone, Zones};
use crate::raw::RawFile;
use crate::{Disk, Fault};

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

    /// Makes `zone` read-only, or offline, for tests of what runs on the disk: for good in an image; a
    /// device of the host knows nothing of it, and has the zone as it was when it is opened again.
    ///
    /// # Errors
    /// There is no such zone, or it is offline already (`InvalidInput`); what the host says.
    fn fail(&self, zone: u32, offline: bool) -> io::Result<()>;
}

/// A disk with zones that is open, shared by its queues; dropping it closes it.
pub(crate) struct ZonedFile {
    core: Arc<Core>,
    /// Other processes' wishes, of an image.
    letters: Option<Letters>,
}

/// What queues and the clerk share.
struct Core {
    /// The keeper's.
    zones: Arc<Zones>,
    keeper: Box<dyn Keeper>,
    /// What it is called.
    name: String,
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
        let name = raw.path.display().to_string();
        let letterbox = metadata.letterbox(&raw.file);
        let mut opened = Self::kept_by(Box::new(InImage { raw, metadata }), name);
        match letterbox.and_then(|letterbox| Letters::read(&opened.core, letterbox)) {
            Ok(letters) => opened.letters = Some(letters),
            Err(error) => {
                tracing::warn!("disk image {}: nobody can make its zones fail: {error}", opened.core.name);
            }
        }
        Ok(opened)
    }

    /// Takes the zones of the block device in `raw`'s file, which is nobody else's.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub(crate) fn pass_through(raw: Arc<RawFile>) -> Result<Self, DeviceError> {
        let name = raw.path.display().to_string();
        Ok(Self::kept_by(Box::new(Device::open(raw)?), name))
    }

    pub(super) fn kept_by(keeper: Box<dyn Keeper>, name: String) -> Self {
        let (desk, bells, holding) = (Desk::default(), Bells::default(), Mutex::default());
        let zones = Arc::clone(keeper.zones());
        Self { core: Arc::new(Core { zones, keeper, name, desk, bells, holding }), letters: None }
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
        self.core.keeper.flush()
    }

    /// Makes every write durable, and says that nobody has the disk open.
    pub(crate) fn close(&self) -> io::Result<()> {
        self.core.keeper.shut()
    }
}

impl Core {
    fn zones(&self) -> &Zones {
        &self.zones
    }

    /// A write is over; whoever waits for its zone learns it.
    #[inline(always)]
    fn complete(&self, write: Write) {
        self.zones().complete(write);
        if self.bells.ring() {
            self.desk.tell();
        }
    }

    /// A write that is in flight failed: makes its zone right, and says what the error means. In a
    /// conventional zone what is left of it is for whoever wrote to judge.
    fn failed(&self, offset: u64, len: u64, fault: Fault) -> Fault {
        let geometry = self.zones().geometry();
        let zone = geometry.zone_at(offset).filter(|zone| !geometry.is_conventional(*zone));
        if let Some(zone) = zone
            && let Err(error) = self.keeper.mend(zone, offset, len)
        {
            tracing::error!("disk {}: zone {zone} is lost: {error}", self.name);
            // It is so now, even if it cannot be written down.
            let _ = self.fail(zone, true);
        }
        self.keeper.judge(fault)
    }

    /// Up to where the zone at `offset` is written, if that is known.
    fn written_to(&self, offset: u64) -> Option<u64> {
        let Zone { start, capacity, condition, write_pointer } =
            self.zones().zone(self.zones().geometry().zone_at(offset)?);
        write_pointer.or_else(|| (condition == Condition::Full).then_some(start + capacity))
    }

    fn fail(&self, zone: u32, offline: bool) -> io::Result<()> {
        let _none_is_busy = self.holding.lock().unwrap_or_else(PoisonError::into_inner);
        self.keeper.fail(zone, offline)
    }
}

impl Zoned for ZonedFile {
    fn geometry(&self) -> &Geometry {
        self.core.zones().geometry()
    }

    fn report(&self, first: u32, zones: &mut [Zone]) -> io::Result<usize> {
        let known = self.core.zones();
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
        let unclear = |error| if is_refused(&error) { io::ErrorKind::InvalidInput.into() } else { error };
        self.core.fail(zone, offline).map_err(unclear)
    }
}

/// Whether the zones did not allow it, rather than the host.
fn is_refused(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Refusal>)
}

impl Drop for ZonedFile {
    fn drop(&mut self) {
        // It may still change zones.
        drop(self.letters.take());
        self.core.desk.close();
        if let Err(error) = self.close() {
            let name = &self.core.name;
            tracing::error!("disk {name}: its last writes may not be durable: {error}");
        }
    }
}

impl fmt::Debug for ZonedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZonedFile").field("name", &self.core.name).field("geometry", self.geometry()).finish()
    }
}
