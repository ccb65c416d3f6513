//! A host that is as strict as a device with zones, and remembers what it was asked.

use std::io;
use std::sync::{Arc, Mutex};

use super::Host;
use super::shape::{CONVENTIONAL, Limits, SEQUENTIAL};
use crate::ZoneAction;
use crate::sys::BlkZone;
use crate::zoned::image::Store;

pub(in crate::zoned) const SECTOR: u64 = 512;
pub(in crate::zoned) const ZONE: u64 = 64 << 10;
pub(in crate::zoned) const BLOCK: u64 = 4096;
pub(in crate::zoned) const LIMITS: Limits = Limits { max_open: 3, max_active: 4, granularity: 4096 };

/// Eight zones, the first of them conventional.
pub(in crate::zoned) fn zones() -> Vec<BlkZone> {
    let zone = |number: u64| {
        let (kind, condition) = if number == 0 { (CONVENTIONAL, 0) } else { (SEQUENTIAL, 1) };
        let (start, len) = (number * ZONE / SECTOR, ZONE / SECTOR);
        BlkZone { start, len, write_pointer: start, kind, condition, capacity: len, ..BlkZone::default() }
    };
    (0..8).map(zone).collect()
}

#[derive(Default)]
pub(in crate::zoned) struct Drive {
    pub(in crate::zoned) zones: Vec<BlkZone>,
    pub(in crate::zoned) asked: Vec<(ZoneAction, u64, u64)>,
    /// What the next command, or the next write, ends with; of a write half is done.
    pub(in crate::zoned) command_fails: Option<i32>,
    pub(in crate::zoned) write_fails: Option<i32>,
    /// It does not say how its zones are any more.
    pub(in crate::zoned) is_gone: bool,
    /// Where writes are in flight.
    pub(in crate::zoned) writing: Vec<u64>,
    /// What was written, and how much at once.
    pub(in crate::zoned) written: Vec<(u64, u64)>,
    pub(in crate::zoned) flushed: u32,
    /// What is in it, as far as anything was written at once.
    pub(in crate::zoned) data: Vec<u8>,
    /// Reading there fails.
    pub(in crate::zoned) bad: Option<u64>,
}

impl Drive {
    pub(in crate::zoned) fn zone(&mut self, offset: u64) -> &mut BlkZone {
        &mut self.zones[(offset / ZONE) as usize]
    }

    pub(in crate::zoned) fn write(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let fails = self.write_fails.take();
        self.written.push((offset, len));
        let zone = self.zone(offset);
        if zone.kind == SEQUENTIAL {
            assert_eq!(zone.write_pointer * SECTOR, offset, "a drive refuses that");
            let done = if fails.is_some() { len / 2 / BLOCK * BLOCK } else { len };
            zone.write_pointer += done / SECTOR;
            let full = zone.write_pointer == zone.start + zone.capacity;
            zone.condition = if full { 14 } else { 2 };
        }
        fails.map_or(Ok(()), |error| Err(io::Error::from_raw_os_error(error)))
    }
}

#[derive(Clone, Default)]
pub(in crate::zoned) struct Shared(pub(in crate::zoned) Arc<Mutex<Drive>>);

impl Shared {
    pub(in crate::zoned) fn with<T>(&self, f: impl FnOnce(&mut Drive) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }
}

pub(in crate::zoned) fn new() -> Shared {
    let drive = Shared::default();
    drive.with(|drive| (drive.zones, drive.data) = (zones(), vec![0; 8 * ZONE as usize]));
    drive
}

impl Host for Shared {
    /// At most three at a time, as a kernel with little room.
    fn report(&self, sector: u64) -> io::Result<Vec<BlkZone>> {
        self.with(|drive| {
            let zones = drive.zones.iter().filter(|zone| zone.start >= sector).take(3);
            if drive.is_gone {
                Err(io::Error::from_raw_os_error(libc::ENODEV))
            } else {
                Ok(zones.copied().collect())
            }
        })
    }

    fn change(&self, action: ZoneAction, offset: u64, len: u64) -> io::Result<()> {
        self.with(|drive| {
            drive.asked.push((action, offset / ZONE, len / ZONE));
            if let Some(error) = drive.command_fails.take() {
                return Err(io::Error::from_raw_os_error(error));
            }
            for number in offset / ZONE..(offset + len) / ZONE {
                let zone = drive.zone(number * ZONE);
                zone.condition = match action {
                    ZoneAction::Open => 3,
                    ZoneAction::Close => 4,
                    ZoneAction::Finish => 14,
                    ZoneAction::Reset | ZoneAction::ResetAll => 1,
                };
                if zone.condition == 1 {
                    zone.write_pointer = zone.start;
                }
            }
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|drive| drive.flushed += 1);
        Ok(())
    }

    fn name(&self) -> String {
        "drive".to_owned()
    }
}

impl Store for Shared {
    fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.with(|drive| {
            let range = offset..offset + data.len() as u64;
            if drive.bad.is_some_and(|bad| range.contains(&bad)) {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            data.copy_from_slice(&drive.data[offset as usize..][..data.len()]);
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|drive| {
            drive.write(offset, data.len() as u64)?;
            drive.data[offset as usize..][..data.len()].copy_from_slice(data);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        Host::sync(self)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.with(|drive| drive.data[offset as usize..][..len as usize].fill(0));
        Ok(())
    }
}
