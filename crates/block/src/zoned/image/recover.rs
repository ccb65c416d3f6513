//! What an image says after whatever happened to it.

use std::io;

use super::ImageError;
use super::format::{
    BLOCK, Bad, COPIES, Header, Kind, LAST_EPOCH, RECORDS, Record, SUPERBLOCKS, Superblock, VERSION, open,
    records,
};
use super::store::Store;
use crate::zoned::Condition;

/// What is durable of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Durable {
    pub(crate) superblock: Superblock,
    /// Of the checkpoint it begins with.
    pub(crate) epoch: u64,
    /// One for each zone, in order.
    pub(crate) zones: Vec<Record>,
    /// Places of the journal that were read.
    pub(crate) places: u64,
    /// Blocks that were bad and are there a second time.
    pub(crate) repaired: u64,
}

/// Reads all metadata.
///
/// # Errors
/// It is no image, a newer one, or one that is damaged: what was durable is never guessed.
pub(crate) fn recover(store: &dyn Store) -> Result<Durable, ImageError> {
    let (superblock, mut repaired) = superblock(store)?;
    let [a, b] = [checkpoint(store, &superblock, 0)?, checkpoint(store, &superblock, 1)?];
    let newest = [&a, &b].into_iter().flatten().max_by_key(|checkpoint| checkpoint.0);
    let (epoch, mut zones) = newest.cloned().ok_or(ImageError::Damaged("both checkpoints are bad"))?;
    if epoch > LAST_EPOCH {
        return Err(ImageError::Damaged("its count of checkpoints is at its end"));
    }
    let mut places = 0;
    let mut ended = false;
    for place in 0..superblock.layout.places {
        let copies = copies(store, &superblock, place)?;
        if copies.iter().flatten().any(|(header, _)| header.epoch > epoch) {
            return Err(ImageError::Damaged("the journal is newer than the checkpoints"));
        }
        let current = |copy: &&Copy| copy.as_ref().is_ok_and(|(header, _)| header.epoch == epoch);
        let Some(Ok((header, records))) = copies.iter().find(current) else {
            ended = true;
            continue;
        };
        if ended || header.sequence != place {
            return Err(ImageError::Damaged("a place in the middle of the journal is bad"));
        }
        repaired += copies.iter().filter(|copy| !current(copy)).count() as u64;
        for record in records {
            apply(&superblock, &mut zones, *record)?;
        }
        places += 1;
    }
    Ok(Durable { superblock, epoch, zones, places, repaired })
}

/// The superblock, and how many copies of it are bad.
pub(super) fn superblock(store: &dyn Store) -> Result<(Superblock, u64), ImageError> {
    let (mut found, mut bad, mut foreign) = (None, 0, 0);
    for copy in 0..SUPERBLOCKS {
        let block = read(store, copy * BLOCK as u64)?;
        let (header, payload) = match open(&block) {
            Ok(sealed) => sealed,
            Err(why) => {
                bad += 1;
                foreign += u64::from(why == Bad::Foreign);
                continue;
            }
        };
        if header.kind != Kind::Superblock {
            bad += 1;
            continue;
        }
        let version = Superblock::version(payload);
        if version > VERSION {
            return Err(ImageError::Newer(version));
        }
        let this = Superblock::parse(&header, payload)
            .map_err(|_| ImageError::Damaged("the superblock makes no sense"))?;
        if found.replace(this).is_some_and(|other| other != this) {
            return Err(ImageError::Damaged("the two superblocks differ"));
        }
    }
    match found {
        Some(superblock) => Ok((superblock, bad)),
        None if foreign == SUPERBLOCKS => Err(ImageError::NotAnImage),
        None => Err(ImageError::Damaged("both superblocks are bad")),
    }
}

/// Epoch and zones of a checkpoint, if all of it is there.
pub(super) fn checkpoint(
    store: &dyn Store,
    superblock: &Superblock,
    which: u64,
) -> Result<Option<(u64, Vec<Record>)>, ImageError> {
    let count = superblock.geometry.zones() as usize;
    let mut all = Vec::with_capacity(count);
    let mut epoch = None;
    for index in 0..superblock.layout.checkpoint_blocks {
        let block = read(store, superblock.layout.checkpoint(which) + index * BLOCK as u64)?;
        let Ok((header, payload)) = open(&block) else { return Ok(None) };
        let expected = Header {
            kind: Kind::Checkpoint,
            uuid: superblock.uuid,
            epoch: *epoch.get_or_insert(header.epoch),
            sequence: index,
        };
        let Ok(records) = records(payload) else { return Ok(None) };
        let wanted = RECORDS.min(count - all.len());
        // Each has its place, or the next one would be written over the one that counts.
        if header != expected || records.len() != wanted || header.epoch % 2 != which {
            return Ok(None);
        }
        for record in records {
            if record.zone as usize != all.len() || !record.is_possible(&superblock.geometry) {
                return Err(ImageError::Damaged("a checkpoint says what no zone can be"));
            }
            all.push(record);
        }
    }
    Ok(epoch.map(|epoch| (epoch, all)))
}

/// A block of the journal, or why it is none.
pub(super) type Copy = Result<(Header, Vec<Record>), Bad>;

/// Both copies of a place of the journal, as far as they are any of this image.
pub(super) fn copies(
    store: &dyn Store,
    superblock: &Superblock,
    place: u64,
) -> Result<[Copy; COPIES as usize], ImageError> {
    let one = |copy| -> Result<_, ImageError> {
        let block = read(store, superblock.layout.place(place, copy))?;
        Ok(open(&block).and_then(|(header, payload)| {
            if header.kind != Kind::Journal || header.uuid != superblock.uuid {
                return Err(Bad::Nonsense);
            }
            Ok((header, records(payload)?))
        }))
    };
    Ok([one(0)?, one(1)?])
}

fn apply(superblock: &Superblock, zones: &mut [Record], record: Record) -> Result<(), ImageError> {
    if !record.is_possible(&superblock.geometry) {
        return Err(ImageError::Damaged("the journal says what no zone can be"));
    }
    zones[record.zone as usize] = record;
    Ok(())
}

/// Zones of a new image.
pub(crate) fn fresh(superblock: &Superblock) -> Vec<Record> {
    let geometry = &superblock.geometry;
    let record = |zone| {
        let condition =
            if geometry.is_conventional(zone) { Condition::NotWritePointer } else { Condition::Empty };
        Record { zone, condition, pointer: 0 }
    };
    (0..geometry.zones()).map(record).collect()
}

pub(super) fn read(store: &dyn Store, offset: u64) -> Result<Box<[u8; BLOCK]>, ImageError> {
    let mut block = Box::new([0; BLOCK]);
    store.read(offset, &mut block[..]).map_err(ImageError::reading)?;
    Ok(block)
}

impl ImageError {
    pub(super) fn reading(source: io::Error) -> Self {
        Self::Host { action: "read", source }
    }

    pub(super) fn writing(source: io::Error) -> Self {
        Self::Host { action: "write", source }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::format::{Layout, records_payload, seal};
    use super::super::{Check, Finding, Metadata};
    use super::*;
    use crate::zoned::Geometry;

    fn image() -> (File, Superblock) {
        let file = tempfile::tempfile().unwrap();
        let geometry = Geometry::new(1 << 20, 64 << 10);
        let superblock = Superblock { uuid: [1; 16], geometry, layout: Layout::new(&geometry) };
        file.set_len(Metadata::create(&file, geometry, superblock.uuid).unwrap()).unwrap();
        (file, superblock)
    }

    fn put(file: &File, superblock: &Superblock, which: u64, epoch: u64) {
        let header = Header { kind: Kind::Checkpoint, uuid: superblock.uuid, epoch, sequence: 0 };
        let block = seal(header, &records_payload(&fresh(superblock)));
        Store::write(file, superblock.layout.checkpoint(which), &block[..]).unwrap();
    }

    #[test]
    fn epochs_come_to_an_end() {
        let (file, superblock) = image();
        put(&file, &superblock, 1, u64::MAX);
        assert!(matches!(Metadata::open(&file), Err(ImageError::Damaged(_))));
        assert!(Check::of(&file).unwrap().repair(&file).is_err());
        put(&file, &superblock, 1, LAST_EPOCH);
        Metadata::open(&file).unwrap().close().unwrap();
        assert!(Metadata::open(&file).is_err(), "that was the last time");
    }

    #[test]
    fn a_checkpoint_in_the_place_of_the_other_one_is_none() {
        let (file, superblock) = image();
        put(&file, &superblock, 0, 3);
        assert_eq!(Check::of(&file).unwrap().findings(), [Finding::OldCheckpoint(0)]);
        assert_eq!(recover(&file).unwrap().epoch, 1);
    }

    #[test]
    fn another_block_in_the_place_of_a_superblock_is_a_bad_one() {
        let (file, superblock) = image();
        let block = read(&file, superblock.layout.checkpoint(1)).unwrap();
        Store::write(&file, 0, &block[..]).unwrap();
        assert_eq!(Check::of(&file).unwrap().findings(), [Finding::Superblock]);
        Metadata::open(&file).unwrap().close().unwrap();
    }

    #[test]
    fn a_journal_that_would_take_for_ever_to_read_is_refused() {
        let (file, mut superblock) = image();
        let more = (1 << 20) * BLOCK as u64 * COPIES;
        superblock.layout.places = 1 << 20;
        (superblock.layout.live, superblock.layout.data) =
            (superblock.layout.live + more, superblock.layout.data + more);
        for copy in 0..SUPERBLOCKS {
            Store::write(&file, copy * BLOCK as u64, &superblock.block()[..]).unwrap();
        }
        assert!(matches!(recover(&file), Err(ImageError::Damaged(_))));
        assert!(Check::of(&file).is_err());
    }
}
