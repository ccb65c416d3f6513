//! How zones change: a write gets its place, and what changes the condition of a zone is counted.

use super::{Write, Zones};
use crate::zoned::sync::Ordering;
use crate::zoned::word::{Condition, Word};
use crate::zoned::{Geometry, Refusal};

/// What limits count, and which zones are not known to be as they were.
#[derive(Debug)]
pub(super) struct Resources {
    pub(super) open: u32,
    pub(super) active: u32,
    /// Zones that are implicitly open, in no order.
    implicit: Vec<u32>,
    /// Zones that are open or whose condition changed, in no order: write pointers of no others move.
    touched: Vec<u32>,
    /// One bit for each zone: whether it is in `touched`.
    is_touched: Box<[u64]>,
}

impl Resources {
    /// Those of `zones` zones of which none is open.
    pub(super) fn new(zones: u32, active: u32) -> Self {
        let is_touched = vec![0; zones.div_ceil(64) as usize].into_boxed_slice();
        Self { open: 0, active, implicit: Vec::new(), touched: Vec::new(), is_touched }
    }

    /// Counts a zone anew.
    fn account(&mut self, zone: u32, from: Condition, to: Condition) {
        self.open = self.open + u32::from(to.is_open()) - u32::from(from.is_open());
        self.active = self.active + u32::from(to.is_active()) - u32::from(from.is_active());
        if from == Condition::ImplicitlyOpen && to != from {
            self.implicit.retain(|other| *other != zone);
        } else if to == Condition::ImplicitlyOpen && to != from {
            self.implicit.push(zone);
        }
        let (word, bit) = (&mut self.is_touched[zone as usize / 64], 1 << (zone % 64));
        if *word & bit == 0 {
            *word |= bit;
            self.touched.push(zone);
        }
    }

    /// The zones that were touched since this was asked last. Those that `stay` so are said again.
    fn touched(&mut self, stay: impl Fn(u32) -> bool) -> Vec<u32> {
        let all = self.touched.clone();
        self.touched.retain(|zone| stay(*zone));
        for zone in &all {
            self.is_touched[*zone as usize / 64] &= !(1 << (zone % 64));
        }
        for zone in &self.touched {
            self.is_touched[*zone as usize / 64] |= 1 << (zone % 64);
        }
        all
    }
}

impl Zones {
    /// All zones that are not as they were when this was asked last, and maybe some that are, in order.
    #[must_use]
    pub fn changed(&self) -> Vec<u32> {
        // The condition of none changes meanwhile, and without that only open ones are written to.
        let mut changed = self.resources().touched(|zone| self.word(zone).condition.is_open());
        changed.sort_unstable();
        changed
    }

    /// Moves the write pointer of `zone`, in which less than `at_once` writes are in flight, over `len`
    /// bytes, not none, if `placed` agrees with where it is.
    pub(super) fn reserve(
        &self,
        zone: u32,
        len: u64,
        at_once: u16,
        placed: impl Fn(Word) -> Result<(), Refusal>,
    ) -> Result<Write, Refusal> {
        let capacity = self.geometry.capacity_of(zone);
        let check = |word: Word| {
            if !(word.condition.is_active() || word.condition == Condition::Empty) {
                return Err(Refusal::InvalidCommand);
            }
            placed(word)?;
            let end = word.pointer.checked_add(len).filter(|end| *end <= capacity);
            let end = end.ok_or(Refusal::InvalidCommand)?;
            if word.held || word.writes >= at_once { Err(Refusal::Busy) } else { Ok(end) }
        };
        let offset = |word: Word| self.geometry.start_of(zone) + word.pointer;
        let cell = &self.words[zone as usize];
        let mut seen = cell.load(Ordering::Acquire);
        loop {
            let word = Word::unpack(seen);
            let end = check(word)?;
            if !word.condition.is_open() || end == capacity {
                break;
            }
            let next = Word { pointer: end, writes: word.writes + 1, ..word };
            match cell.compare_exchange_weak(seen, next.pack(zone), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.touch(zone);
                    return Ok(Write { offset: offset(word), zone: Some(zone) });
                }
                Err(changed) => seen = changed,
            }
        }
        // It opens the zone or fills it: its condition changes.
        let mut resources = self.resources();
        let mut admitted = false;
        loop {
            let seen = cell.load(Ordering::Acquire);
            let word = Word::unpack(seen);
            let end = check(word)?;
            if !word.condition.is_open() && !admitted {
                self.admit(&mut resources, word.condition)?;
                admitted = true;
            }
            let condition = match word.condition {
                _ if end == capacity => Condition::Full,
                Condition::ExplicitlyOpen => Condition::ExplicitlyOpen,
                _ => Condition::ImplicitlyOpen,
            };
            let next = Word { condition, pointer: end, writes: word.writes + 1, ..word };
            if cell.compare_exchange(seen, next.pack(zone), Ordering::AcqRel, Ordering::Acquire).is_ok() {
                resources.account(zone, word.condition, condition);
                self.touch(zone);
                return Ok(Write { offset: offset(word), zone: Some(zone) });
            }
        }
    }

    /// Makes room for one more open zone that was in condition `from`, closing the implicitly open
    /// one that was not written to for longest if need be.
    pub(super) fn admit(&self, resources: &mut Resources, from: Condition) -> Result<(), Refusal> {
        let Geometry { max_open, max_active, .. } = self.geometry;
        if from == Condition::Empty && max_active != 0 && resources.active >= max_active {
            return Err(Refusal::ActiveResource);
        }
        if max_open == 0 || resources.open < max_open {
            return Ok(());
        }
        let stamp = |zone: &&u32| self.stamps[**zone as usize].load(Ordering::Relaxed);
        let oldest = *resources.implicit.iter().min_by_key(stamp).ok_or(Refusal::OpenResource)?;
        self.change(resources, oldest, |word| word.condition = Condition::Closed);
        Ok(())
    }

    pub(super) fn set_open(&self, resources: &mut Resources, zone: u32) -> Result<(), Refusal> {
        let condition = self.word(zone).condition;
        match condition {
            Condition::ExplicitlyOpen => return Ok(()),
            Condition::ImplicitlyOpen => {}
            Condition::Empty | Condition::Closed => self.admit(resources, condition)?,
            Condition::NotWritePointer | Condition::ReadOnly | Condition::Full | Condition::Offline => {
                return Err(Refusal::InvalidCommand);
            }
        }
        self.change(resources, zone, |word| word.condition = Condition::ExplicitlyOpen);
        Ok(())
    }

    pub(super) fn set_closed(&self, resources: &mut Resources, zone: u32) -> Result<(), Refusal> {
        match self.word(zone).condition {
            Condition::Closed => Ok(()),
            Condition::ImplicitlyOpen | Condition::ExplicitlyOpen => {
                self.change(resources, zone, |word| word.condition = word.condition.at_rest(word.pointer));
                Ok(())
            }
            Condition::Empty
            | Condition::NotWritePointer
            | Condition::ReadOnly
            | Condition::Full
            | Condition::Offline => Err(Refusal::InvalidCommand),
        }
    }

    /// Changes a zone whatever writers do meanwhile, and counts it anew.
    pub(super) fn change(&self, resources: &mut Resources, zone: u32, change: impl Fn(&mut Word)) {
        let cell = &self.words[zone as usize];
        loop {
            let seen = cell.load(Ordering::Acquire);
            let from = Word::unpack(seen);
            let mut to = from;
            change(&mut to);
            if cell.compare_exchange(seen, to.pack(zone), Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return resources.account(zone, from.condition, to.condition);
            }
        }
    }
}
