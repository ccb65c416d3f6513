//! The zone state machine (virtio 1.3 §5.2.6, ZBC, ZNS): who may write where, and what becomes of a
//! zone.

mod change;
mod held;

use self::change::Resources;
pub use self::held::Held;
use super::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use super::word::{Condition, MAX_WRITES, ONE_WRITE, Word};
use super::words::Words;
use super::{Geometry, Refusal};

/// The zones of a disk. May be used by any number of threads at once.
///
/// A write or append gets its place with one compare-and-swap on its zone's word, as long as the
/// zone is open and stays so. Whatever changes a zone's condition takes a lock besides, under which
/// open and active zones are counted: limits are exact.
pub struct Zones {
    geometry: Geometry,
    words: Words,
    /// How many writes a zone takes at once.
    at_once: u16,
    /// When each zone was last written to, by `clock`. Kept only where the number of open zones has
    /// a limit.
    stamps: Box<[AtomicU64]>,
    clock: AtomicU64,
    /// Held while a zone's condition changes; never across anything that waits.
    resources: Mutex<Resources>,
}

/// What is known of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zone {
    /// Where it starts.
    pub start: u64,
    /// How much of it can be written.
    pub capacity: u64,
    /// What state it is in.
    pub condition: Condition,
    /// Where the next write goes; `None` where that means nothing (conventional, full, read-only,
    /// offline).
    pub write_pointer: Option<u64>,
}

impl Zone {
    /// `zone` of a disk, `written` bytes of it being written.
    pub(super) fn new(geometry: &Geometry, zone: u32, condition: Condition, written: u64) -> Self {
        let start = geometry.start_of(zone);
        let write_pointer = match condition {
            Condition::Empty | Condition::ImplicitlyOpen | Condition::ExplicitlyOpen | Condition::Closed => {
                Some(start + written)
            }
            Condition::NotWritePointer | Condition::ReadOnly | Condition::Full | Condition::Offline => None,
        };
        Self { start, capacity: geometry.capacity_of(zone), condition, write_pointer }
    }
}

/// A write that has its place. It goes back to [`Zones::complete`] when it is over, whether it
/// succeeded or not.
#[derive(Debug)]
#[must_use = "a zone waits for its writes"]
pub struct Write {
    /// Where the data goes.
    pub offset: u64,
    /// The zone that waits for it; none where writes are not counted.
    zone: Option<u32>,
}

impl Zones {
    /// The zones of a new disk: all empty. `geometry` has been [checked](Geometry::checked).
    #[must_use]
    pub fn new(geometry: Geometry) -> Self {
        Self::restore(geometry, |_| (Condition::Empty, 0))
    }

    /// Zones as they were: for each its condition and how much of it is written (within its
    /// capacity). What was open is closed, as after a power cycle.
    #[must_use]
    pub fn restore(geometry: Geometry, state: impl Fn(u32) -> (Condition, u64)) -> Self {
        let words = (0..geometry.zones()).map(|_| AtomicU64::new(0)).collect();
        Self::restore_in(Words::Own(words), geometry, state)
    }

    /// As [`Zones::restore`], with words that others see.
    pub(super) fn restore_in(
        words: Words,
        geometry: Geometry,
        state: impl Fn(u32) -> (Condition, u64),
    ) -> Self {
        let mut active = 0;
        for (zone, word) in (0..geometry.zones()).zip(words.iter()) {
            let (condition, pointer) = state(zone);
            let condition = match condition {
                lost @ (Condition::ReadOnly | Condition::Offline) => lost,
                _ if geometry.is_conventional(zone) => Condition::NotWritePointer,
                other => other.at_rest(pointer),
            };
            active += u32::from(condition.is_active());
            word.store(Word::new(condition, pointer).pack(zone), Ordering::Release);
        }
        let limited = if geometry.max_open == 0 { 0 } else { geometry.zones() };
        Self {
            geometry,
            words,
            at_once: MAX_WRITES,
            stamps: (0..limited).map(|_| AtomicU64::new(0)).collect(),
            clock: AtomicU64::new(1),
            resources: Mutex::new(Resources::new(geometry.zones(), active)),
        }
    }

    /// These zones, each busy as long as one write is in flight in it: for a device that takes writes
    /// only where its write pointer is.
    #[must_use]
    pub fn one_write_at_a_time(self) -> Self {
        Self { at_once: 1, ..self }
    }

    /// What lasts of `zone`, which exists: its condition when nobody has it open, and how much of it
    /// is written.
    #[must_use]
    pub fn at_rest(&self, zone: u32) -> (Condition, u64) {
        let Word { condition, pointer, .. } = self.word(zone);
        (condition.at_rest(pointer), pointer)
    }

    /// The shape of the disk.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// What is known of `zone`, which exists.
    #[must_use]
    pub fn zone(&self, zone: u32) -> Zone {
        let Word { condition, pointer, .. } = self.word(zone);
        Zone::new(&self.geometry, zone, condition, pointer)
    }

    /// How many zones are open, and how many active.
    #[must_use]
    pub fn in_use(&self) -> (u32, u32) {
        let resources = self.resources();
        (resources.open, resources.active)
    }

    /// Whether `len` bytes can be read from `offset`, and how many of them are written: the rest, all
    /// behind a write pointer, is zeroes.
    ///
    /// # Errors
    /// [`Refusal::OutOfRange`]; [`Refusal::InvalidCommand`] for an offline zone, or where a
    /// sequential zone ends or begins in between.
    pub fn read(&self, offset: u64, len: u64) -> Result<u64, Refusal> {
        let zone = self.range(offset, len)?;
        if self.geometry.is_conventional(zone) {
            self.covered(zone, offset, len, |condition| condition != Condition::Offline)?;
            return Ok(len);
        }
        let at = offset - self.geometry.start_of(zone);
        let Word { condition, pointer, .. } = self.word(zone);
        if at + len > self.geometry.zone_size || condition == Condition::Offline {
            return Err(Refusal::InvalidCommand);
        }
        Ok(pointer.saturating_sub(at).min(len))
    }

    /// Gives a write of `len` bytes at `offset` its place.
    ///
    /// # Errors
    /// Why it cannot be written; nothing has changed then.
    pub fn write(&self, offset: u64, len: u64) -> Result<Write, Refusal> {
        let zone = self.range(offset, len)?;
        if len == 0 || self.geometry.is_conventional(zone) {
            let writable =
                |condition| !matches!(condition, Condition::ReadOnly | Condition::Offline | Condition::Full);
            self.covered(zone, offset, len, writable)?;
            return Ok(Write { offset, zone: None });
        }
        let at = offset - self.geometry.start_of(zone);
        if at + len > self.geometry.zone_size {
            return Err(Refusal::InvalidCommand);
        }
        let whole = self.is_whole(offset | len);
        self.reserve(zone, len, self.at_once, |word| {
            if whole && word.pointer == at { Ok(()) } else { Err(Refusal::UnalignedWrite) }
        })
    }

    /// Gives a write of `len` bytes at `offset` its place behind `other`, which is in flight and with
    /// which it is to be done.
    pub(super) fn join_write(&self, other: &Write, offset: u64, len: u64) -> Result<Write, Refusal> {
        let at = other.zone.and_then(|zone| offset.checked_sub(self.geometry.start_of(zone)));
        self.join(other, len, |word| Some(word.pointer) == at)
    }

    /// The same for an append to the zone that starts at `start`.
    pub(super) fn join_append(&self, other: &Write, start: u64, len: u64) -> Result<Write, Refusal> {
        let same = other.zone.is_some() && self.sequential_at(start).ok() == other.zone;
        self.join(other, len, |_| same && len <= self.geometry.max_append)
    }

    fn join(&self, other: &Write, len: u64, fits: impl Fn(Word) -> bool) -> Result<Write, Refusal> {
        let zone = other.zone.ok_or(Refusal::InvalidCommand)?;
        let whole = len > 0 && self.is_whole(len);
        let placed = |word| if whole && fits(word) { Ok(()) } else { Err(Refusal::UnalignedWrite) };
        self.reserve(zone, len, MAX_WRITES, placed)
    }

    /// As [`Zones::write`], for a write that may have had its place before: where all of it is written
    /// already, also to a zone that has become full, it gets the same place again.
    ///
    /// # Errors
    /// Those of [`Zones::write`].
    pub fn write_again(&self, offset: u64, len: u64) -> Result<Write, Refusal> {
        let zone = self.range(offset, len)?;
        let lost = |condition| matches!(condition, Condition::ReadOnly | Condition::Offline);
        self.covered(zone, offset, len, |condition| !lost(condition))?;
        let whole = self.is_whole(offset | len);
        if len == 0 || !whole || self.geometry.is_conventional(zone) {
            return self.write(offset, len);
        }
        let end = offset - self.geometry.start_of(zone) + len;
        let cell = &self.words[zone as usize];
        let mut seen = cell.load(Ordering::Acquire);
        loop {
            let word = Word::unpack(seen);
            if end > word.pointer || lost(word.condition) {
                return self.write(offset, len);
            }
            if word.held || word.writes >= self.at_once {
                return Err(Refusal::Busy);
            }
            let next = Word { writes: word.writes + 1, ..word };
            match cell.compare_exchange_weak(seen, next.pack(zone), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(Write { offset, zone: Some(zone) }),
                Err(changed) => seen = changed,
            }
        }
    }

    /// Finds a place for `len` bytes in the zone that starts at `start`.
    ///
    /// # Errors
    /// Why there is none; nothing has changed then.
    pub fn append(&self, start: u64, len: u64) -> Result<Write, Refusal> {
        let zone = self.sequential_at(start)?;
        if len > self.geometry.max_append || len == 0 {
            return Err(Refusal::InvalidCommand);
        }
        let whole = self.is_whole(len);
        self.reserve(zone, len, self.at_once, |_| if whole { Ok(()) } else { Err(Refusal::UnalignedWrite) })
    }

    /// As [`Zones::append`], for one that may have had its place before, `at`.
    ///
    /// # Errors
    /// Those of [`Zones::append`].
    pub fn append_again(&self, start: u64, len: u64, at: u64) -> Result<Write, Refusal> {
        let zone = self.sequential_at(start)?;
        if self.geometry.zone_at(at) == Some(zone) && (1..=self.geometry.max_append).contains(&len) {
            match self.write_again(at, len) {
                Ok(write) => return Ok(write),
                Err(Refusal::Busy) => return Err(Refusal::Busy),
                Err(_) => {}
            }
        }
        self.append(start, len)
    }

    /// Takes back a write that is over. What failed counts as written: reading it gives zeroes.
    #[expect(clippy::needless_pass_by_value, reason = "a write is over once")]
    pub fn complete(&self, write: Write) {
        if let Some(zone) = write.zone {
            // Release: whoever resets the zone afterwards sees that the write was over. And all of SeqCst:
            // whoever looks afterwards for somebody waiting (`Bells`) needs no fence.
            self.words[zone as usize].fetch_sub(ONE_WRITE, Ordering::SeqCst);
        }
    }

    /// Opens the zone that starts at `start`, explicitly.
    ///
    /// # Errors
    /// It is none, it is full or lost, or too many are open.
    pub fn open(&self, start: u64) -> Result<(), Refusal> {
        let zone = self.sequential_at(start)?;
        let mut resources = self.resources();
        self.free_word(zone)?;
        self.set_open(&mut resources, zone)
    }

    /// Closes the zone that starts at `start`.
    ///
    /// # Errors
    /// It is none, or neither open nor closed.
    pub fn close(&self, start: u64) -> Result<(), Refusal> {
        let zone = self.sequential_at(start)?;
        let mut resources = self.resources();
        self.free_word(zone)?;
        self.set_closed(&mut resources, zone)
    }

    /// Takes the zone that starts at `start`, to reset or finish it: from now on it gets no writes.
    ///
    /// # Errors
    /// It is none, or read-only or offline; or [`Refusal::Busy`], as long as writes are in flight in
    /// it or somebody else holds it.
    pub fn hold(&self, start: u64) -> Result<Held<'_>, Refusal> {
        let zone = self.sequential_at(start)?;
        let held = self.take(zone).ok_or(Refusal::Busy)?;
        if held.is_lost() { Err(Refusal::InvalidCommand) } else { Ok(held) }
    }

    /// Takes every zone that a reset of all would change.
    ///
    /// # Errors
    /// [`Refusal::Busy`], as long as one of them is; none is held then.
    pub fn hold_all(&self) -> Result<Vec<Held<'_>>, Refusal> {
        let changes = |zone: &u32| {
            let condition = self.word(*zone).condition;
            condition.is_active() || condition == Condition::Full
        };
        let all = self.geometry.conventional..self.geometry.zones();
        let held: Result<Vec<_>, _> =
            all.filter(changes).map(|zone| self.take(zone).ok_or(Refusal::Busy)).collect();
        held.map(|mut held| {
            held.retain(|held| !held.is_lost());
            held
        })
    }

    /// Makes `zone`, which exists, read-only or offline. What is in flight in it goes on.
    ///
    /// # Errors
    /// [`Refusal::InvalidCommand`]: it is offline already; [`Refusal::Busy`]: somebody holds it.
    pub fn fail(&self, zone: u32, offline: bool) -> Result<(), Refusal> {
        let mut resources = self.resources();
        if self.free_word(zone)?.condition == Condition::Offline {
            return Err(Refusal::InvalidCommand);
        }
        let condition = if offline { Condition::Offline } else { Condition::ReadOnly };
        self.change(&mut resources, zone, |word| word.condition = condition);
        Ok(())
    }

    /// Takes over what the host says of `zone`, which exists: its condition, and how much of it is
    /// written. Whoever calls this has a write in flight in it, or holds it.
    pub(super) fn correct(&self, zone: u32, condition: Condition, pointer: u64) {
        let mut resources = self.resources();
        self.change(&mut resources, zone, |word| (word.condition, word.pointer) = (condition, pointer));
    }

    // --- What is asked for -----------------------------------------------------------------------

    /// The zone in which a range of the disk begins.
    fn range(&self, offset: u64, len: u64) -> Result<u32, Refusal> {
        let end = offset.checked_add(len).ok_or(Refusal::OutOfRange)?;
        if end > self.geometry.capacity {
            return Err(Refusal::OutOfRange);
        }
        self.geometry.zone_at(offset).ok_or(Refusal::OutOfRange)
    }

    /// The sequential zone that starts at `start`.
    fn sequential_at(&self, start: u64) -> Result<u32, Refusal> {
        let zone = self.geometry.zone_at(start).ok_or(Refusal::InvalidCommand)?;
        let sequential = !self.geometry.is_conventional(zone) && self.geometry.start_of(zone) == start;
        if sequential { Ok(zone) } else { Err(Refusal::InvalidCommand) }
    }

    /// That a range beginning in `first` is in one zone, or in conventional ones only, and all of
    /// them are `fit`.
    fn covered(
        &self,
        first: u32,
        offset: u64,
        len: u64,
        fit: impl Fn(Condition) -> bool,
    ) -> Result<(), Refusal> {
        let last = self.geometry.zone_at((offset + len).saturating_sub(1).max(offset)).unwrap_or(first);
        let conventional = |zone| self.geometry.is_conventional(zone);
        let together = first == last || (conventional(first) && conventional(last));
        let all_fit = together && (first..=last).all(|zone| fit(self.word(zone).condition));
        if all_fit { Ok(()) } else { Err(Refusal::InvalidCommand) }
    }

    /// Whether `len` is whole blocks, which are a power of two.
    fn is_whole(&self, len: u64) -> bool {
        len & (u64::from(self.geometry.granularity) - 1) == 0
    }

    fn take(&self, zone: u32) -> Option<Held<'_>> {
        let cell = &self.words[zone as usize];
        let mut seen = cell.load(Ordering::Acquire);
        loop {
            let word = Word::unpack(seen);
            if word.held || word.writes > 0 {
                return None;
            }
            let held = Word { held: true, ..word };
            match cell.compare_exchange_weak(seen, held.pack(zone), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(Held { zones: self, zone }),
                Err(changed) => seen = changed,
            }
        }
    }

    /// The word of a zone that nobody holds.
    fn free_word(&self, zone: u32) -> Result<Word, Refusal> {
        let word = self.word(zone);
        if word.held { Err(Refusal::Busy) } else { Ok(word) }
    }

    fn word(&self, zone: u32) -> Word {
        Word::unpack(self.words[zone as usize].load(Ordering::Acquire))
    }

    fn touch(&self, zone: u32) {
        if let Some(stamp) = self.stamps.get(zone as usize) {
            stamp.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    fn resources(&self) -> MutexGuard<'_, Resources> {
        self.resources.lock().expect("nobody panics while counting zones")
    }
}
