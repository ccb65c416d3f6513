//! A zoned disk in one file: its zones' state beside its data, safe against power cuts.
//!
//! [`Metadata`] is the part that is not data. FLUSH is [`Metadata::flush`]: what is written and where
//! write pointers are is durable together. A reset or finish is durable before anything else
//! happens. Between those, the zones' words are in pages of the file that outlive this process, so
//! that one which is killed loses nothing as long as the host stays up.
//!
//! docs/zoned-image.md has the format byte by byte.

mod ask;
mod check;
mod format;
mod journal;
mod live;
mod look;
mod recover;
mod store;

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

pub use self::ask::ask;
pub use self::check::{Check, Finding, Severity};
use self::format::{BLOCK, SUPERBLOCKS};
pub(super) use self::format::{Layout, Record, Superblock};
use self::journal::Journal;
pub(super) use self::look::States;
pub use self::look::{Look, geometry};
pub use self::store::Store;
pub use super::letterbox::Asked;
use super::letterbox::Letterbox;
use super::mapped::Mapped;
use super::word::Word;
use super::words::Words;
use super::{Condition, Geometry, Held, Refusal, Zones};

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// It does not begin as one does.
    #[error("this is no zoned image")]
    NotAnImage,
    /// It was made by a newer version.
    #[error("a zoned image of version {0}; this program knows version {version}", version = format::VERSION)]
    Newer(u32),
    /// What was durable cannot be told any more.
    #[error("the zoned image is damaged: {0}")]
    Damaged(&'static str),
    /// The host does not let us.
    #[error("cannot {action} the image's metadata")]
    Host {
        /// What was tried.
        action: &'static str,
        /// What the host says.
        source: io::Error,
    },
}

/// The zones of an open image, and where they are written down. Usable from any thread.
pub struct Metadata {
    store: Arc<dyn Store>,
    superblock: Superblock,
    zones: Arc<Zones>,
    /// Held while something is being made durable.
    journal: Mutex<Journal>,
    /// How many flushes were asked for.
    asked: AtomicU64,
    /// The file with the live words, unless nobody is to find them.
    live: Option<File>,
    /// Whether closing makes nothing durable that nobody asked for.
    forgets: bool,
}

impl Metadata {
    /// Makes a new image in `store`, whose data reads as zeroes, and says how long its file is.
    /// `geometry` has been [checked](Geometry::checked); `uuid` is nobody else's.
    ///
    /// # Errors
    /// [`ImageError::Host`].
    pub fn create(store: &dyn Store, geometry: Geometry, uuid: [u8; 16]) -> Result<u64, ImageError> {
        let superblock = Superblock { uuid, geometry, layout: Layout::new(&geometry) };
        Self::create_around(store, &superblock, &recover::fresh(&superblock))?;
        Ok(superblock.layout.data + geometry.capacity)
    }

    /// Makes what is in `store` an image, whose data is there, durably, and whose zones are so.
    pub(super) fn create_around(
        store: &dyn Store,
        superblock: &Superblock,
        zones: &[Record],
    ) -> Result<(), ImageError> {
        // No superblock before all else is there: what is half made is no image.
        store.punch(0, superblock.layout.data).map_err(ImageError::writing)?;
        journal::write_checkpoint(store, superblock, 1, zones).map_err(ImageError::writing)?;
        store.sync().map_err(ImageError::writing)?;
        for copy in 0..SUPERBLOCKS {
            store.write(copy * BLOCK as u64, &superblock.block()[..]).map_err(ImageError::writing)?;
        }
        store.sync().map_err(ImageError::writing)
    }

    /// Opens the image in `file`, which is open for reading and writing, and nobody else's.
    ///
    /// # Errors
    /// See [`ImageError`]; the image is as it was then.
    pub fn open(file: &File) -> Result<Self, ImageError> {
        let store: Arc<dyn Store> = Arc::new(file.try_clone().map_err(ImageError::reading)?);
        let durable = recover::recover(&*store)?;
        let Superblock { uuid, geometry, layout } = durable.superblock;
        let count = geometry.zones() as usize;
        let len = file.metadata().map_err(ImageError::reading)?.len();
        if len < layout.data {
            return Err(ImageError::Damaged("the file ends in its metadata"));
        }
        if len < layout.data + geometry.capacity {
            return Err(ImageError::Damaged("the file ends before its last zone does"));
        }
        // A host that is full would kill us when it finds no room for a word.
        let room = |source| ImageError::Host { action: "make room for", source };
        live::allocate(file, layout.live, geometry.zones()).map_err(room)?;
        let words = Mapped::new(file, layout.live, BLOCK, count).map_err(ImageError::reading)?;
        let words = Words::Mapped(words);
        let current = live::is_current(file, layout.live, uuid).map_err(ImageError::reading)?;
        let zones = if current { living(&geometry, &words)? } else { durable.zones.clone() };
        let live = file.try_clone().map_err(ImageError::reading)?;
        let metadata = Self::with(store, &durable, zones, words, Some(live))?;
        live::set_current(file, layout.live, uuid).map_err(ImageError::writing)?;
        Ok(metadata)
    }

    /// As [`Metadata::open`], for tests of power cuts: what nobody flushes from now on is gone when this
    /// process ends, however it does. What is written to conventional zones stays.
    ///
    /// # Errors
    /// As [`Metadata::open`].
    pub fn open_forgetful(file: &File) -> Result<Self, ImageError> {
        let opened = Self::open(file)?;
        live::clear(file, opened.superblock.layout.live).map_err(ImageError::writing)?;
        Ok(Self { forgets: true, ..opened })
    }

    /// Opens the image in `store`, as after a power cut: what nobody made durable is gone.
    ///
    /// # Errors
    /// As [`Metadata::open`].
    pub fn open_store(store: Arc<dyn Store>) -> Result<Self, ImageError> {
        let durable = recover::recover(&*store)?;
        let count = durable.superblock.geometry.zones();
        let words = Words::Own((0..count).map(|_| AtomicU64::new(0)).collect());
        let zones = durable.zones.clone();
        Self::with(store, &durable, zones, words, None)
    }

    fn with(
        store: Arc<dyn Store>,
        durable: &recover::Durable,
        zones: Vec<Record>,
        words: Words,
        live: Option<File>,
    ) -> Result<Self, ImageError> {
        let superblock = durable.superblock;
        let geometry = superblock.geometry;
        // What lies beyond a write pointer is of a write that nobody flushed, or of a reset that was
        // cut short: it must not be seen when the zone is written again, or read there.
        for (start, end) in unwritten(&geometry, &zones) {
            store.punch(superblock.layout.data + start, end - start).map_err(ImageError::writing)?;
        }
        // A pointer that nobody flushed is about to be on record: so is its data.
        store.sync().map_err(ImageError::writing)?;
        let state = |zone: u32| (zones[zone as usize].condition, zones[zone as usize].pointer);
        let restored = Arc::new(Zones::restore_in(words, geometry, state));
        let journal =
            Journal::begin(&*store, &superblock, durable.epoch, zones).map_err(ImageError::writing)?;
        let (journal, asked) = (Mutex::new(journal), AtomicU64::new(0));
        Ok(Self { store, superblock, zones: restored, journal, asked, live, forgets: false })
    }

    /// The zones: where writes go.
    #[must_use]
    pub fn zones(&self) -> &Arc<Zones> {
        &self.zones
    }

    /// Where the data of the disk's first byte is in the file.
    #[must_use]
    pub fn data_offset(&self) -> u64 {
        self.superblock.layout.data
    }

    /// Where in `file`, which is the image's, others ask for zones to fail.
    pub(super) fn letterbox(&self, file: &File) -> io::Result<Letterbox> {
        ask::letterbox(file, self.superblock.layout.live)
    }

    /// The image's own name.
    #[must_use]
    pub fn uuid(&self) -> [u8; 16] {
        self.superblock.uuid
    }

    /// Makes every write that was over when this was called durable, with the write pointers that go
    /// with it. Flushes that wait for one another share the work.
    ///
    /// # Errors
    /// What the host says; it and every later one, as nobody knows what is durable then.
    pub fn flush(&self) -> io::Result<()> {
        let ticket = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut journal = self.journal();
        if journal.served >= ticket {
            return Ok(());
        }
        let serves = self.asked.load(Ordering::Acquire);
        // Before the data is made durable: a pointer that moves meanwhile is for the next flush.
        let changed = journal.changed(&self.zones);
        journal.sync(&*self.store)?;
        journal.append(&*self.store, &self.superblock, &changed)?;
        journal.served = serves;
        Ok(())
    }

    /// Empties a zone: [`Metadata::empty`], then [`Metadata::punch`].
    ///
    /// # Errors
    /// What the host says. The zone is as it was if its record could not be written; it is empty if
    /// only its space could not be given back.
    pub fn reset(&self, held: &Held<'_>) -> io::Result<()> {
        self.empty(std::slice::from_ref(held))?;
        self.punch(held)
    }

    /// Empties zones: first on record, then for whoever asks. Their data is still there: it must be
    /// punched before the zones are let go of.
    ///
    /// # Errors
    /// What the host says; the zones are as they were.
    pub fn empty(&self, held: &[Held<'_>]) -> io::Result<()> {
        let empty = |held: &Held<'_>| Record { zone: held.zone(), condition: Condition::Empty, pointer: 0 };
        let records: Vec<Record> = held.iter().map(empty).collect();
        self.record(&records, || held.iter().for_each(Held::reset))
    }

    /// Takes away the data of a zone that is empty.
    ///
    /// # Errors
    /// What the host says; its space is not given back then.
    pub fn punch(&self, held: &Held<'_>) -> io::Result<()> {
        let (start, len) = self.data_of(held);
        self.store.punch(start, len)
    }

    /// Where the data of a zone is in the file, and how much there can be.
    fn data_of(&self, held: &Held<'_>) -> (u64, u64) {
        let (zone, geometry) = (held.zone(), self.zones.geometry());
        (self.data_offset() + geometry.start_of(zone), geometry.capacity_of(zone))
    }

    /// As [`Metadata::punch`], where the host refuses that: its space is not given back.
    ///
    /// # Errors
    /// What the host says: what is left would be seen where a later write is cut short. The zone must be lost.
    pub(super) fn write_over(&self, held: &Held<'_>) -> io::Result<()> {
        let (start, len) = self.data_of(held);
        store::write_over(&*self.store, start, len)
    }

    /// Makes a zone offline that is empty and must take no writes.
    ///
    /// # Errors
    /// What the host says. It is so, but not on record.
    pub(super) fn lose(&self, held: &Held<'_>) -> io::Result<()> {
        let mut journal = self.journal();
        held.lose();
        let record = Record { zone: held.zone(), condition: Condition::Offline, pointer: 0 };
        journal.append(&*self.store, &self.superblock, &[record])
    }

    /// Makes a zone full, on record.
    ///
    /// # Errors
    /// What the host says; the zone is as it was.
    pub fn finish(&self, held: &Held<'_>) -> io::Result<()> {
        let record = Record { zone: held.zone(), condition: Condition::Full, pointer: held.written() };
        // From now on nobody cleans up beyond its pointer: what was reset before has to be gone.
        self.journal().sync(&*self.store)?;
        self.record(&[record], || held.finish())
    }

    /// Makes a zone read-only or offline, on record.
    ///
    /// # Errors
    /// What the host says, or (inside) a [`Refusal`].
    pub fn fail(&self, zone: u32, offline: bool) -> io::Result<()> {
        let mut journal = self.journal();
        self.zones.fail(zone, offline).map_err(|refusal: Refusal| io::Error::other(refusal))?;
        let (condition, pointer) = self.zones.at_rest(zone);
        journal.sync(&*self.store)?;
        journal.append(&*self.store, &self.superblock, &[Record { zone, condition, pointer }])
    }

    /// Flushes, and says that nobody has the image open any more.
    ///
    /// # Errors
    /// What the host says; the next to open it recovers it.
    pub fn close(&self) -> io::Result<()> {
        if self.forgets {
            return Ok(());
        }
        self.flush()?;
        // A place of the journal that is bad later on is not taken for the end of it.
        self.journal().settle(&*self.store, &self.superblock)?;
        match &self.live {
            Some(file) => live::clear(file, self.superblock.layout.live),
            None => Ok(()),
        }
    }

    /// Writes records down, then lets `settle` make them true. No flush sees one without the other.
    fn record(&self, records: &[Record], settle: impl FnOnce()) -> io::Result<()> {
        let mut journal = self.journal();
        journal.append(&*self.store, &self.superblock, records)?;
        settle();
        Ok(())
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().expect("nobody panics while writing the journal")
    }
}

/// The ranges of the disk behind write pointers, as few as possible: empty zones go with what is
/// before them.
fn unwritten(geometry: &Geometry, zones: &[Record]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    let mut follows = false;
    for &Record { zone, condition, pointer } in zones {
        let start = geometry.start_of(zone);
        let end = start + geometry.capacity_of(zone);
        let is_unwritten = matches!(condition, Condition::Empty | Condition::Closed);
        match ranges.last_mut() {
            Some(last) if is_unwritten && follows && pointer == 0 => last.1 = end,
            _ if is_unwritten => ranges.push((start + pointer, end)),
            _ => {}
        }
        follows = is_unwritten;
    }
    ranges
}

/// Zones as a process that was killed left them.
fn living(geometry: &Geometry, words: &Words) -> Result<Vec<Record>, ImageError> {
    let record = |(zone, word): (u32, &AtomicU64)| {
        let word = Word::verified(word.load(Ordering::Acquire), zone)?;
        let condition = word.condition.at_rest(word.pointer);
        let record = Record { zone, condition, pointer: word.pointer };
        record.is_possible(geometry).then_some(record)
    };
    let records: Option<Vec<_>> = (0..).zip(words.iter()).map(record).collect();
    records.ok_or(ImageError::Damaged("the live table says what no zone can be"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_written_is_found_in_few_ranges() {
        const ZONE: u64 = 64 << 10;
        let geometry = Geometry { zone_capacity: 48 << 10, ..Geometry::new(8 * ZONE, ZONE) };
        let geometry = Geometry { conventional: 1, ..geometry };
        let (closed, empty, full) = (Condition::Closed, Condition::Empty, Condition::Full);
        let zones = [
            (Condition::NotWritePointer, 0),
            (empty, 0),
            (empty, 0),
            (closed, 4096),
            (empty, 0),
            (full, 8192),
            (Condition::Offline, 0),
            (closed, 8192),
        ];
        let record = |(zone, (condition, pointer))| Record { zone, condition, pointer };
        let zones: Vec<Record> = (0..).zip(zones).map(record).collect();
        let (cut, end) = (48 << 10, |zone| zone * ZONE);
        let expected = [(end(1), end(2) + cut), (end(3) + 4096, end(4) + cut), (end(7) + 8192, end(7) + cut)];
        assert_eq!(unwritten(&geometry, &zones), expected);
    }
}
