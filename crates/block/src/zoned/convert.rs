//! Zoned disks that are copied whole: from an image, or a block device of the host, to a new image or
//! another device. Only what is written of each zone is copied.

#[cfg(test)]
mod tests;
mod unfit;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

pub use self::unfit::Unfit;
use super::device::{self, DeviceError, Host, Limits};
use super::image::{ImageError, Layout, Metadata, Record, States, Store, Superblock};
use super::{Condition, Geometry};
use crate::ZoneAction;
use crate::raw::{BOUNCE_LEN, RawFile, Scratch};

/// What a zone of a new image is not written in, if all of it is zeroes.
const SPARSE: usize = 64 << 10;
/// What holes are whole multiples of: the largest block of a disk with zones.
const HOLE: u64 = 4096;

/// Why a disk could not be copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The host cannot.
    #[error("cannot {action} zone {zone} of the {side}, at byte {offset} of the disk")]
    Zone {
        /// What was tried.
        action: &'static str,
        /// `source` or `target`.
        side: &'static str,
        /// Which zone.
        zone: u32,
        /// Where in the disk.
        offset: u64,
        /// What the host says.
        source: io::Error,
    },
    /// Not in a zone.
    #[error("cannot {action}")]
    Host {
        /// What was tried.
        action: &'static str,
        /// What the host says.
        source: io::Error,
    },
    /// Somebody wrote to the source meanwhile.
    #[error("zone {0} of the source changed while it was copied")]
    Changed(u32),
    /// The source does not say any more how its zones are.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// A zoned block device of the host, to be copied from or to.
pub struct Drive {
    host: Box<dyn Whole>,
    capacity: u64,
    limits: Limits,
    geometry: Geometry,
    zones: Vec<(Condition, u64)>,
}

/// A device: its zones, and what is in them.
trait Whole: Host + Store {}

impl<T: Host + Store> Whole for T {}

/// What is copied.
pub struct Source {
    place: Place,
    geometry: Geometry,
    /// Zones at rest, and how much of each is written.
    zones: Vec<(Condition, u64)>,
    /// Where the data of the disk's first byte is.
    data: u64,
}

enum Place {
    Image(File),
    Device(Drive),
}

/// A disk that is being copied: step by step, as long as there is one.
pub struct Conversion<'a> {
    source: &'a Source,
    target: Target<'a>,
    /// Zones that are still to be copied, the next one last.
    left: Vec<u32>,
    /// How much of that one is there.
    at: u64,
    scratch: Scratch,
}

enum Target<'a> {
    Image { file: &'a File, superblock: Superblock },
    Device(&'a Drive),
}

impl Drive {
    /// Takes the block device in `raw`'s file.
    pub(crate) fn open(raw: Arc<RawFile>) -> Result<Self, DeviceError> {
        let (capacity, limits) = device::measure(&raw)?;
        Self::with(Box::new(raw), capacity, limits)
    }

    fn with(host: Box<dyn Whole>, capacity: u64, limits: Limits) -> Result<Self, DeviceError> {
        let (geometry, zones) = device::examine(&*host, capacity, &limits)?;
        Ok(Self { host, capacity, limits, geometry, zones })
    }

    /// Its shape.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Makes all zones empty that can be. What is in the first one, where most of what is on a disk says
    /// what it is, is gone even if it is conventional: half a copy is not to be taken for the old contents.
    fn clear(&self) -> Result<(), ConvertError> {
        for (zone, (condition, _)) in (0..).zip(&self.zones) {
            let (offset, len) = device::range(&self.geometry, zone, zone);
            let done = match condition {
                Condition::NotWritePointer if zone == 0 => self.host.punch(offset, len),
                Condition::Empty | Condition::NotWritePointer => Ok(()),
                Condition::ReadOnly | Condition::Offline => Ok(()),
                _ => self.host.change(ZoneAction::Reset, offset, len),
            };
            done.map_err(failed("reset", "target", zone, offset))?;
        }
        Ok(())
    }
}

impl Source {
    /// The zones of the image in `file`, which is open for reading, and nobody writes to.
    ///
    /// # Errors
    /// It is none, or not a sound one.
    pub fn image(file: &File) -> Result<Self, ImageError> {
        let States { superblock, zones, .. } = States::of(file)?;
        let Superblock { geometry, layout, .. } = superblock;
        let host = |source| ImageError::Host { action: "read", source };
        if file.metadata().map_err(host)?.len() < layout.data + geometry.capacity {
            return Err(ImageError::Damaged("the file ends before its last zone does"));
        }
        let place = Place::Image(file.try_clone().map_err(host)?);
        Ok(Self { place, geometry, zones: at_rest(&zones), data: layout.data })
    }

    /// The zones of a device.
    #[must_use]
    pub fn device(drive: Drive) -> Self {
        let (geometry, zones) = (drive.geometry, at_rest(&drive.zones));
        Self { place: Place::Device(drive), geometry, zones, data: 0 }
    }

    /// The shape of the disk.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Zones that are read-only or offline: a device cannot be made so.
    #[must_use]
    pub fn lost(&self) -> Vec<(u32, Condition)> {
        let is_lost = |condition| matches!(condition, Condition::ReadOnly | Condition::Offline);
        let zones = (0..).zip(&self.zones).map(|(zone, (condition, _))| (zone, *condition));
        zones.filter(|(_, condition)| is_lost(*condition)).collect()
    }

    /// Bytes to be copied.
    #[must_use]
    pub fn written(&self) -> u64 {
        (0..self.geometry.zones()).map(|zone| self.written_of(zone)).sum()
    }

    fn written_of(&self, zone: u32) -> u64 {
        match self.zones[zone as usize] {
            (Condition::Offline, _) => 0,
            _ if self.geometry.is_conventional(zone) => self.geometry.capacity_of(zone),
            (_, written) => written,
        }
    }

    fn store(&self) -> &dyn Store {
        match &self.place {
            Place::Image(file) => file,
            Place::Device(drive) => &*drive.host,
        }
    }

    /// How many bytes at `offset`, of `len`, are known to be zeroes without being read.
    fn hole(&self, offset: u64, len: u64) -> io::Result<u64> {
        let from = self.data + offset;
        let hole = self.store().next_data(from)?.map_or(len, |data| (data - from) / HOLE * HOLE);
        Ok(hole.min(len))
    }

    /// That nobody wrote to it since it was opened. An image is locked.
    fn is_unchanged(&self) -> Result<(), ConvertError> {
        let Place::Device(drive) = &self.place else { return Ok(()) };
        let (_, now) = device::examine(&*drive.host, drive.capacity, &drive.limits)?;
        let changed = at_rest(&now).iter().zip(&self.zones).position(|(now, before)| now != before);
        changed.map_or(Ok(()), |zone| Err(ConvertError::Changed(zone as u32))) // as many as zones
    }
}

impl<'a> Conversion<'a> {
    /// Begins a new image of `source` in `file`, which is empty, open for reading and writing, and nobody
    /// else's. It is one when all steps are done, and none before. `uuid` is nobody else's.
    ///
    /// # Errors
    /// What the host says.
    pub fn to_image(source: &'a Source, file: &'a File, uuid: [u8; 16]) -> io::Result<Self> {
        let geometry = source.geometry;
        let superblock = Superblock { uuid, geometry, layout: Layout::new(&geometry) };
        file.set_len(superblock.layout.data + geometry.capacity)?;
        Ok(Self::begin(source, Target::Image { file, superblock }))
    }

    /// Begins to make `drive` as `source` is. What is on it is gone, if `force` says that it may: otherwise
    /// all zones must be empty, and none conventional, of which nobody knows.
    ///
    /// # Errors
    /// Nothing has changed if it is [`Unfit`].
    pub fn to_device(
        source: &'a Source,
        drive: &'a Drive,
        force: bool,
    ) -> Result<Result<Self, Unfit>, ConvertError> {
        if let Err(unfit) = unfit::check(source, drive, force) {
            return Ok(Err(unfit));
        }
        drive.clear()?;
        Ok(Ok(Self::begin(source, Target::Device(drive))))
    }

    fn begin(source: &'a Source, target: Target<'a>) -> Self {
        // A zone that becomes full is active for a while: those come first, when there is room for it. The
        // first zone comes late, because it says what is on the disk.
        let is_full = |zone: &u32| source.zones[*zone as usize].0 == Condition::Full;
        let mut left: Vec<u32> = (0..source.geometry.zones()).collect();
        left.sort_by_key(is_full);
        Self { source, target, left, at: 0, scratch: Scratch::default() }
    }

    /// Copies the next piece: how many bytes that were. `None` when all is there and durable.
    ///
    /// # Errors
    /// What the host says; the target is of no use then.
    pub fn step(&mut self) -> Result<Option<u64>, ConvertError> {
        while let Some(&zone) = self.left.last() {
            let left = self.source.written_of(zone) - self.at;
            if left > 0 {
                let done = self.piece(zone, left)?;
                self.at += done;
                return Ok(Some(done));
            }
            self.settle(zone)?;
            self.left.pop();
            self.at = 0;
        }
        self.source.is_unchanged()?;
        self.end()?;
        Ok(None)
    }

    /// Copies some of the `left` bytes that are left of `zone`; how many.
    fn piece(&mut self, zone: u32, left: u64) -> Result<u64, ConvertError> {
        let Self { source, target, scratch, .. } = self;
        let geometry = &source.geometry;
        let offset = geometry.start_of(zone) + self.at;
        let reading = failed("read", "source", zone, offset);
        let writing = failed("write to", "target", zone, offset);
        let hole = source.hole(offset, left).map_err(&reading)?;
        match target {
            Target::Image { .. } if hole > 0 => return Ok(hole),
            Target::Device(drive) if hole > 0 && geometry.is_conventional(zone) => {
                drive.host.punch(offset, hole).map_err(writing)?;
                return Ok(hole);
            }
            _ => {}
        }
        let len = if hole > 0 { hole } else { left };
        let data = &mut scratch.bounce()[..usize::try_from(len).unwrap_or(usize::MAX).min(BOUNCE_LEN)];
        if hole > 0 {
            data.fill(0);
        } else {
            source.store().read(source.data + offset, data).map_err(&reading)?;
        }
        match target {
            Target::Image { file, superblock } => {
                let data = (offset..).step_by(SPARSE).zip(data.chunks(SPARSE));
                for (at, data) in data.filter(|(_, data)| data.iter().any(|byte| *byte != 0)) {
                    Store::write(*file, superblock.layout.data + at, data).map_err(&writing)?;
                }
            }
            Target::Device(drive) => drive.host.write(offset, data).map_err(writing)?,
        }
        Ok(data.len() as u64)
    }

    /// Gives a zone whose data is there its condition.
    fn settle(&self, zone: u32) -> Result<(), ConvertError> {
        let Target::Device(drive) = self.target else { return Ok(()) };
        if drive.geometry.is_conventional(zone) {
            return Ok(());
        }
        let written = self.source.written_of(zone);
        let is_short = written < drive.geometry.capacity_of(zone);
        let action = match self.source.zones[zone as usize].0 {
            Condition::Full if is_short => ZoneAction::Finish,
            Condition::Closed | Condition::ReadOnly if is_short && written > 0 => ZoneAction::Close,
            _ => return Ok(()),
        };
        let (offset, len) = device::range(&drive.geometry, zone, zone);
        let name = if action == ZoneAction::Finish { "finish" } else { "close" };
        drive.host.change(action, offset, len).map_err(failed(name, "target", zone, offset))
    }

    /// Makes all of it durable, and an image.
    fn end(&self) -> Result<(), ConvertError> {
        let host = |source| ConvertError::Host { action: "make the target durable", source };
        let (file, superblock) = match &self.target {
            Target::Device(drive) => return Host::sync(&*drive.host).map_err(host),
            Target::Image { file, superblock } => (*file, superblock),
        };
        let record = |(zone, (condition, pointer)): (u32, &(Condition, u64))| {
            let means_nothing = matches!(condition, Condition::NotWritePointer | Condition::Offline);
            Record { zone, condition: *condition, pointer: if means_nothing { 0 } else { *pointer } }
        };
        let zones: Vec<Record> = (0..).zip(&self.source.zones).map(record).collect();
        file.sync_all().map_err(host)?;
        Metadata::create_around(file, superblock, &zones).map_err(|error| {
            let source = match error {
                ImageError::Host { source, .. } => source,
                other => io::Error::other(other),
            };
            ConvertError::Host { action: "write the target's metadata", source }
        })
    }
}

/// Zones that nobody has open any more.
fn at_rest(zones: &[(Condition, u64)]) -> Vec<(Condition, u64)> {
    zones.iter().map(|(condition, written)| (condition.at_rest(*written), *written)).collect()
}

fn failed(
    action: &'static str,
    side: &'static str,
    zone: u32,
    offset: u64,
) -> impl Fn(io::Error) -> ConvertError {
    move |source| ConvertError::Zone { action, side, zone, offset, source }
}

/// A device, around the host's page cache: offsets and lengths are whole blocks of it.
impl Store for Arc<RawFile> {
    fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(data, offset)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_zeroes(offset, len, true, &mut Scratch::default())
    }
}
