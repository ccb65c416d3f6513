//! What became of zones since the last checkpoint, written down in order.

use std::io;

use super::format::{COPIES, Header, Kind, RECORDS, Record, Superblock, records_payload, seal};
use super::store::Store;
use crate::zoned::Zones;

/// The journal, and what is on record of each zone.
pub(super) struct Journal {
    epoch: u64,
    /// The next place to write.
    place: u64,
    /// What is durable, one for each zone.
    recorded: Vec<Record>,
    /// Up to which flush all is durable.
    pub(super) served: u64,
    /// Whether a write or sync failed: nobody knows what is durable then.
    failed: bool,
}

impl Journal {
    /// Begins an empty journal after a checkpoint of `zones`; `epoch` is that of the last one.
    pub(super) fn begin(
        store: &dyn Store,
        superblock: &Superblock,
        epoch: u64,
        zones: Vec<Record>,
    ) -> io::Result<Self> {
        let mut journal = Self { epoch, place: 0, recorded: zones, served: 0, failed: false };
        journal.checkpoint(store, superblock)?;
        Ok(journal)
    }

    /// The zones that are not as they are on record, which have to be written down now: they are said once.
    pub(super) fn changed(&self, zones: &Zones) -> Vec<Record> {
        let now = |zone| {
            let (condition, pointer) = zones.at_rest(zone);
            Record { zone, condition, pointer }
        };
        let changed = zones.changed().into_iter().map(now);
        changed.filter(|record| *record != self.recorded[record.zone as usize]).collect()
    }

    /// Makes data durable that records are about to follow.
    pub(super) fn sync(&mut self, store: &dyn Store) -> io::Result<()> {
        self.check()?;
        // The host tells once that it has lost something: after that nothing is known.
        self.failed = true;
        store.sync()?;
        self.failed = false;
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        if self.failed { Err(io::Error::other("the image could not be made durable before")) } else { Ok(()) }
    }

    /// Makes `records` durable, all of them if it says so.
    pub(super) fn append(
        &mut self,
        store: &dyn Store,
        superblock: &Superblock,
        records: &[Record],
    ) -> io::Result<()> {
        self.check()?;
        // It stays so if anything below fails.
        self.failed = !records.is_empty();
        for some in records.chunks(RECORDS) {
            if self.place == superblock.layout.places {
                self.checkpoint(store, superblock)?;
            }
            let Self { epoch, place, .. } = *self;
            let header = Header { kind: Kind::Journal, uuid: superblock.uuid, epoch, sequence: place };
            let block = seal(header, &records_payload(some));
            for copy in 0..COPIES {
                store.write(superblock.layout.place(place, copy), &block[..])?;
            }
            store.sync()?;
            self.place += 1;
            for record in some {
                self.recorded[record.zone as usize] = *record;
            }
        }
        self.failed = false;
        Ok(())
    }

    /// Leaves nothing in the journal that is not in a checkpoint, too.
    pub(super) fn settle(&mut self, store: &dyn Store, superblock: &Superblock) -> io::Result<()> {
        self.check()?;
        if self.place == 0 {
            return Ok(());
        }
        self.failed = true;
        self.checkpoint(store, superblock)?;
        self.failed = false;
        Ok(())
    }

    /// Writes all that is on record down anew, and begins the journal again.
    fn checkpoint(&mut self, store: &dyn Store, superblock: &Superblock) -> io::Result<()> {
        write_checkpoint(store, superblock, self.epoch + 1, &self.recorded)?;
        store.sync()?;
        (self.epoch, self.place) = (self.epoch + 1, 0);
        Ok(())
    }
}

/// Writes a checkpoint over the older one of the two.
pub(super) fn write_checkpoint(
    store: &dyn Store,
    superblock: &Superblock,
    epoch: u64,
    zones: &[Record],
) -> io::Result<()> {
    let mut at = superblock.layout.checkpoint(epoch % 2);
    for (sequence, records) in (0..).zip(zones.chunks(RECORDS)) {
        let header = Header { kind: Kind::Checkpoint, uuid: superblock.uuid, epoch, sequence };
        let block = seal(header, &records_payload(records));
        store.write(at, &block[..])?;
        at += block.len() as u64;
    }
    Ok(())
}
