//! The rules of zones, one request after the other.

use parador_block::zoned::{Condition, Geometry, Refusal};

pub(crate) const BLOCK: u64 = 4 << 10;
pub(crate) const ZONE: u64 = 64 << 10;

/// What the rules say, one request after the other.
pub(crate) struct Model {
    pub(crate) geometry: Geometry,
    pub(crate) zones: Vec<(Condition, u64)>,
    /// Zones written to, the last one last.
    recent: Vec<usize>,
}

impl Model {
    pub(crate) fn new(geometry: Geometry) -> Self {
        let first =
            |zone| if geometry.is_conventional(zone) { Condition::NotWritePointer } else { Condition::Empty };
        let zones = (0..geometry.zones()).map(|zone| (first(zone), 0)).collect();
        Self { geometry, zones, recent: Vec::new() }
    }

    pub(crate) fn count(&self, counts: fn(Condition) -> bool) -> u32 {
        self.zones.iter().filter(|zone| counts(zone.0)).count() as u32
    }

    /// Makes room for one more open zone.
    fn admit(&mut self, zone: usize) -> Result<(), Refusal> {
        let Geometry { max_open, max_active, .. } = self.geometry;
        let active = self.count(Condition::is_active);
        if self.zones[zone].0 == Condition::Empty && max_active != 0 && active >= max_active {
            return Err(Refusal::ActiveResource);
        }
        if max_open != 0 && self.count(Condition::is_open) >= max_open {
            let implicit = |zone: &&usize| self.zones[**zone].0 == Condition::ImplicitlyOpen;
            let oldest = *self.recent.iter().find(implicit).ok_or(Refusal::OpenResource)?;
            self.zones[oldest].0 = Condition::Closed;
        }
        Ok(())
    }

    fn sequential(&self, offset: u64) -> Result<usize, Refusal> {
        let zone = (offset / ZONE) as usize;
        if offset >= self.geometry.capacity
            || !offset.is_multiple_of(ZONE)
            || self.zones[zone].0 == Condition::NotWritePointer
        {
            return Err(Refusal::InvalidCommand);
        }
        Ok(zone)
    }

    fn put(&mut self, zone: usize, at: Option<u64>, len: u64) -> Result<u64, Refusal> {
        let (condition, pointer) = self.zones[zone];
        let capacity = self.geometry.capacity_of(zone as u32);
        if !condition.is_active() && condition != Condition::Empty {
            return Err(Refusal::InvalidCommand);
        }
        if at.is_some_and(|at| at != pointer) || !len.is_multiple_of(BLOCK) {
            return Err(Refusal::UnalignedWrite);
        }
        if pointer + len > capacity {
            return Err(Refusal::InvalidCommand);
        }
        if !condition.is_open() {
            self.admit(zone)?;
        }
        let open = if condition == Condition::ExplicitlyOpen { condition } else { Condition::ImplicitlyOpen };
        self.zones[zone] = (if pointer + len == capacity { Condition::Full } else { open }, pointer + len);
        self.recent.retain(|other| *other != zone);
        self.recent.push(zone);
        Ok(zone as u64 * ZONE + pointer)
    }

    pub(crate) fn write(&mut self, offset: u64, len: u64) -> Result<u64, Refusal> {
        if offset + len > self.geometry.capacity || offset >= self.geometry.capacity {
            return Err(Refusal::OutOfRange);
        }
        let (first, last) = ((offset / ZONE) as usize, ((offset + len.max(1) - 1) / ZONE) as usize);
        let sequential = (first..=last).any(|zone| !self.geometry.is_conventional(zone as u32));
        let unfit = [Condition::ReadOnly, Condition::Offline, Condition::Full];
        if (first != last && sequential) || (first..=last).any(|zone| unfit.contains(&self.zones[zone].0)) {
            return Err(Refusal::InvalidCommand);
        }
        if len == 0 || !sequential {
            return Ok(offset);
        }
        if !(offset | len).is_multiple_of(BLOCK) {
            return Err(Refusal::UnalignedWrite);
        }
        self.put(first, Some(offset % ZONE), len)
    }

    pub(crate) fn append(&mut self, offset: u64, len: u64) -> Result<u64, Refusal> {
        let zone = self.sequential(offset)?;
        if len == 0 || len > self.geometry.max_append {
            return Err(Refusal::InvalidCommand);
        }
        self.put(zone, None, len)
    }

    pub(crate) fn open(&mut self, offset: u64) -> Result<(), Refusal> {
        let zone = self.sequential(offset)?;
        match self.zones[zone].0 {
            Condition::Empty | Condition::Closed => self.admit(zone)?,
            open if open.is_open() => {}
            _ => return Err(Refusal::InvalidCommand),
        }
        self.zones[zone].0 = Condition::ExplicitlyOpen;
        Ok(())
    }

    pub(crate) fn close(&mut self, offset: u64) -> Result<(), Refusal> {
        let zone = self.sequential(offset)?;
        let (condition, pointer) = self.zones[zone];
        if !condition.is_active() {
            return Err(Refusal::InvalidCommand);
        }
        self.zones[zone].0 = if pointer == 0 { Condition::Empty } else { Condition::Closed };
        Ok(())
    }

    fn lost(&self, zone: usize) -> bool {
        matches!(self.zones[zone].0, Condition::ReadOnly | Condition::Offline)
    }

    pub(crate) fn reset(&mut self, offset: u64) -> Result<(), Refusal> {
        let zone = self.sequential(offset)?;
        if self.lost(zone) {
            return Err(Refusal::InvalidCommand);
        }
        self.zones[zone] = (Condition::Empty, 0);
        Ok(())
    }

    pub(crate) fn finish(&mut self, offset: u64) -> Result<(), Refusal> {
        let zone = self.sequential(offset)?;
        if self.lost(zone) {
            return Err(Refusal::InvalidCommand);
        }
        if self.zones[zone].0 == Condition::Empty {
            self.admit(zone)?;
        }
        self.zones[zone].0 = Condition::Full;
        Ok(())
    }

    pub(crate) fn reset_all(&mut self) {
        for zone in 0..self.zones.len() {
            if !self.lost(zone) && self.zones[zone].0 != Condition::NotWritePointer {
                self.zones[zone] = (Condition::Empty, 0);
            }
        }
    }

    pub(crate) fn fail(&mut self, zone: usize, offline: bool) -> Result<(), Refusal> {
        if self.zones[zone].0 == Condition::Offline {
            return Err(Refusal::InvalidCommand);
        }
        self.zones[zone].0 = if offline { Condition::Offline } else { Condition::ReadOnly };
        Ok(())
    }
}
