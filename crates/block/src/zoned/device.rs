//! A zoned block device of the host: where its zones end is its own affair, and it takes a write only
//! at its write pointer. One write at a time is in flight in each zone; which that is [`Zones`] says,
//! as for an image, so that requests are judged the same.

mod shape;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

pub use self::shape::DeviceError;
pub(super) use self::shape::Limits;
use self::shape::{geometry, state};
use super::disk::Keeper;
use super::{Condition, Geometry, Held, Refusal, Zones};
use crate::raw::RawFile;
use crate::sys::{self, BlkZone};
use crate::{Fault, ZoneAction, sysfs};

/// What a block device with zones is asked. All of it may take long.
pub(super) trait Host: Send + Sync {
    /// Some zones from the one at `sector` on; none behind the last one.
    fn report(&self, sector: u64) -> io::Result<Vec<BlkZone>>;

    /// Does `action` to the zones in a range, in bytes.
    fn change(&self, action: ZoneAction, offset: u64, len: u64) -> io::Result<()>;

    /// Makes every write that is over durable.
    fn sync(&self) -> io::Result<()>;

    /// What it is called.
    fn name(&self) -> String;
}

/// An open device.
pub(super) struct Device {
    host: Box<dyn Host>,
    zones: Arc<Zones>,
}

impl Device {
    /// Takes the device in `raw`'s file as it is, its open zones closed.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub(super) fn open(raw: Arc<RawFile>) -> Result<Self, DeviceError> {
        let (capacity, limits) = measure(&raw)?;
        Self::with(Box::new(raw), capacity, &limits)
    }

    fn with(host: Box<dyn Host>, capacity: u64, limits: &Limits) -> Result<Self, DeviceError> {
        let (geometry, states) = examine(&*host, capacity, limits)?;
        // Who had them open is gone, and they count against the limit.
        for (zone, _) in
            (0..).zip(&states).filter(|(_, (condition, _))| *condition == Condition::ExplicitlyOpen)
        {
            let (offset, len) = range(&geometry, zone, zone);
            host.change(ZoneAction::Close, offset, len).map_err(DeviceError::host("close its zones"))?;
        }
        let zones = Zones::restore(geometry, |zone| states[zone as usize]).one_write_at_a_time();
        Ok(Self { host, zones: Arc::new(zones) })
    }

    /// Takes over what the device says of `zone`, in which nobody else changes anything now.
    fn look(&self, zone: u32) {
        let geometry = self.zones.geometry();
        let look = || {
            let reported = self.host.report(geometry.start_of(zone) / shape::SECTOR)?;
            let reported = reported.first().ok_or(io::ErrorKind::UnexpectedEof)?;
            state(geometry, zone, reported).map_err(io::Error::other)
        };
        let (condition, written) = look().unwrap_or_else(|error: io::Error| {
            tracing::error!("disk {}: zone {zone} is lost: {error}", self.host.name());
            (Condition::Offline, 0)
        });
        self.zones.correct(zone, condition, written);
    }

    /// Does `action` to held zones that follow each other.
    fn change(&self, action: ZoneAction, run: &[Held<'_>]) -> io::Result<()> {
        let [first, .., last] = run else {
            return run.first().map_or(Ok(()), |only| self.change_range(action, only.zone(), only.zone()));
        };
        self.change_range(action, first.zone(), last.zone())
    }

    fn change_range(&self, action: ZoneAction, first: u32, last: u32) -> io::Result<()> {
        let (offset, len) = range(self.zones.geometry(), first, last);
        let result = self.host.change(action, offset, len);
        if result.is_err() {
            (first..=last).for_each(|zone| self.look(zone));
        }
        result
    }
}

/// How large a device is, in bytes, and its limits.
pub(super) fn measure(raw: &RawFile) -> Result<(u64, Limits), DeviceError> {
    let metadata = raw.file.metadata().map_err(DeviceError::host("examine it"))?;
    let queue = |name| sysfs::queue(&metadata, name);
    let limits = Limits::read(queue, raw.topology.logical_block)?;
    Ok((raw.size.load(std::sync::atomic::Ordering::Relaxed), limits))
}

/// The shape of a device of `capacity` bytes; the condition of each zone, and how much of it is written.
pub(super) fn examine(
    host: &dyn Host,
    capacity: u64,
    limits: &Limits,
) -> Result<(Geometry, Vec<(Condition, u64)>), DeviceError> {
    let mut reported: Vec<BlkZone> = Vec::new();
    loop {
        let next = reported.last().map_or(0, |zone| zone.start.saturating_add(zone.len));
        if next >= capacity / shape::SECTOR {
            break;
        }
        let more = host.report(next).map_err(DeviceError::host("ask for its zones"))?;
        // Whatever does not follow what is known would be asked for again without end.
        if more.first().is_none_or(|zone| zone.start != next || zone.len == 0) {
            break;
        }
        reported.extend(more);
    }
    let geometry = geometry(capacity, limits, &reported)?;
    let states = (0..).zip(&reported).map(|(number, zone)| state(&geometry, number, zone));
    let states = states.collect::<Result<_, _>>()?;
    Ok((geometry, states))
}

/// Where zones are, and how long they are together, in bytes.
pub(super) fn range(geometry: &Geometry, first: u32, last: u32) -> (u64, u64) {
    let start = geometry.start_of(first);
    let end = (geometry.start_of(last) + geometry.zone_size).min(geometry.capacity);
    (start, end - start)
}

impl Keeper for Device {
    fn zones(&self) -> &Arc<Zones> {
        &self.zones
    }

    fn data_offset(&self) -> u64 {
        0
    }

    fn is_device(&self) -> bool {
        true
    }

    fn flush(&self) -> io::Result<()> {
        self.host.sync()
    }

    fn open(&self, held: &Held<'_>) -> Result<(), Fault> {
        held.open()?;
        Ok(self.change_range(ZoneAction::Open, held.zone(), held.zone())?)
    }

    fn close(&self, held: &Held<'_>) -> Result<(), Fault> {
        held.close()?;
        Ok(self.change_range(ZoneAction::Close, held.zone(), held.zone())?)
    }

    fn finish(&self, held: &Held<'_>) -> io::Result<()> {
        self.change_range(ZoneAction::Finish, held.zone(), held.zone())?;
        held.finish();
        Ok(())
    }

    fn empty(&self, held: &[Held<'_>]) -> io::Result<()> {
        for run in held.chunk_by(|one, next| one.zone() + 1 == next.zone()) {
            self.change(ZoneAction::Reset, run)?;
            run.iter().for_each(Held::reset);
        }
        Ok(())
    }

    fn emptied(&self, _held: &Held<'_>) {}

    fn mend(&self, zone: u32, _offset: u64, _len: u64) -> io::Result<()> {
        self.look(zone);
        Ok(())
    }

    /// The kernel has errors of its own for too many zones (`BLK_STS_ZONE_OPEN_RESOURCE` and
    /// `_ACTIVE_RESOURCE`): nothing has changed then.
    fn judge(&self, fault: Fault) -> Fault {
        let number = match &fault {
            Fault::Host(error) => error.raw_os_error(),
            Fault::Refused(_) => None,
        };
        match number {
            Some(libc::ETOOMANYREFS) => Refusal::OpenResource.into(),
            Some(libc::EOVERFLOW) => Refusal::ActiveResource.into(),
            _ => fault,
        }
    }

    /// The device knows nothing of it: when it is opened again, the zone is as it was.
    fn fail(&self, zone: u32, offline: bool) -> io::Result<()> {
        self.zones.fail(zone, offline).map_err(io::Error::other)
    }

    fn shut(&self) -> io::Result<()> {
        self.host.sync()
    }
}

impl Host for Arc<RawFile> {
    fn report(&self, sector: u64) -> io::Result<Vec<BlkZone>> {
        sys::report_zones(&self.file, sector)
    }

    fn change(&self, action: ZoneAction, offset: u64, len: u64) -> io::Result<()> {
        sys::change_zones(&self.file, action, offset, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}
