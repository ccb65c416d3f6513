//! Whether the metadata of an image is as it should be, and how what is left of it is made whole.
//!
//! Where opening an image refuses to guess, a repair has to: what it makes of a zone is never less
//! than what is in the file. A zone with data beyond the pointer that is known of it becomes full, so
//! that the data can be read and the zone reset.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::format::{BLOCK, COPIES, LAST_EPOCH, RECORDS, Record, SUPERBLOCKS, Superblock};
use super::store::Store;
use super::{ImageError, journal, live, look, recover};
use crate::sys;
use crate::zoned::Condition;

/// What was found in an image that nobody has open.
#[derive(Debug)]
pub struct Check {
    superblock: Superblock,
    /// Of the checkpoint that counts; 0 if none is whole.
    checkpoint: u64,
    /// The highest one that was seen.
    epoch: u64,
    /// Each zone as well as it is known.
    zones: Vec<Record>,
    /// Zones of which more may have been on record.
    unsure: Vec<bool>,
    findings: Vec<Finding>,
    changes: Vec<(u32, Condition)>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// What a process or host that stops leaves behind: the next to open the image sees to it.
    Trace,
    /// What was there twice is there once.
    Spare,
    /// Something that was durable is gone.
    Loss,
}

/// Something that is not as it was when the image was made or closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Finding {
    /// The host has not been restarted since.
    #[error("nobody closed it: its process was killed, and its zones are as that left them")]
    Killed,
    /// The host stopped, or another one had it.
    #[error("nobody closed it before its host stopped: what was not flushed then is gone")]
    HostStopped,
    /// A place of the journal, the last one.
    #[error("place {0} of the journal was being written when all stopped")]
    Torn(u64),
    /// A checkpoint, 0 or 1, of which the other one is whole and newer.
    #[error("checkpoint {0} was being written when all stopped, or is bad; the other one is whole")]
    OldCheckpoint(u64),
    /// One of two superblocks.
    #[error("one of two superblocks is bad")]
    Superblock,
    /// A place of the journal with one good block of two.
    #[error("one of two blocks at place {0} of the journal is bad")]
    Copy(u64),
    /// A place of the journal that a checkpoint has replaced.
    #[error("place {0} of the journal is bad, which is in a checkpoint, too")]
    Replaced(u64),
    /// No checkpoint is whole.
    #[error("both checkpoints are bad: what was on record of most zones is gone")]
    Checkpoints,
    /// The newest checkpoint is not whole, or the journal is not of this image.
    #[error("the journal is newer than the checkpoints: some changes of zones are gone")]
    Newer,
    /// A place of the journal before its end.
    #[error("place {0} of the journal is bad: changes of up to {RECORDS} zones are gone")]
    Place(u64),
    /// So many words of the live table.
    #[error("the live table is bad for {0} zones: what was not flushed of them is gone")]
    Live(u32),
    /// So many bytes.
    #[error("the file is {0} bytes shorter than it was made")]
    Short(u64),
}

impl Finding {
    /// How bad it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::Killed | Self::HostStopped | Self::Torn(_) | Self::OldCheckpoint(_) => Severity::Trace,
            Self::Superblock | Self::Copy(_) | Self::Replaced(_) => Severity::Spare,
            Self::Checkpoints | Self::Newer | Self::Place(_) | Self::Live(_) | Self::Short(_) => {
                Severity::Loss
            }
        }
    }
}

impl Check {
    /// Reads all metadata of the image in `file`, which is open for reading and nobody else's, and
    /// changes nothing.
    ///
    /// # Errors
    /// It is no image, a newer one, or its shape is not known any more: no repair can help.
    pub fn of(file: &File) -> Result<Self, ImageError> {
        let (superblock, bad) = recover::superblock(file)?;
        let zones = recover::fresh(&superblock);
        let mut check = Self {
            superblock,
            checkpoint: 0,
            epoch: 0,
            unsure: vec![false; zones.len()],
            zones,
            findings: Vec::new(),
            changes: Vec::new(),
        };
        if bad > 0 {
            check.findings.push(Finding::Superblock);
        }
        check.checkpoints(file)?;
        check.journal(file)?;
        if check.findings.iter().any(|finding| finding.severity() == Severity::Loss) {
            check.unsure.fill(true);
        }
        let len = file.metadata().map_err(ImageError::reading)?.len();
        if len >= superblock.layout.data {
            check.live(file)?;
        }
        check.data(file, len).map_err(ImageError::reading)?;
        Ok(check)
    }

    /// All that was found.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The worst of what was found.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(Finding::severity).max()
    }

    /// Zones that a repair makes full, because where they were written to is not known, or offline,
    /// because the file ends before their data does.
    #[must_use]
    pub fn changes(&self) -> &[(u32, Condition)] {
        &self.changes
    }

    /// Writes all metadata of the image in `file` anew, which is the one that was checked, is open for
    /// reading and writing, and nobody else's.
    ///
    /// # Errors
    /// What the host says; the image can be checked again.
    pub fn repair(&self, file: &File) -> Result<(), ImageError> {
        let Superblock { geometry, layout, .. } = self.superblock;
        if self.epoch > LAST_EPOCH {
            return Err(ImageError::Damaged("its count of checkpoints is at its end"));
        }
        // The first one does not replace the checkpoint that counts.
        let first = self.epoch + 1 + u64::from((self.epoch + 1) % 2 == self.checkpoint % 2);
        let mut zones = self.zones.clone();
        for &(zone, condition) in &self.changes {
            let record = &mut zones[zone as usize];
            record.condition = condition;
            if condition == Condition::Full {
                // What lies beyond a write pointer is not read.
                record.pointer = geometry.capacity_of(zone);
            }
        }
        let write = || -> io::Result<()> {
            let end = layout.data + geometry.capacity;
            if file.metadata()?.len() < end {
                file.set_len(end)?;
            }
            for copy in 0..SUPERBLOCKS {
                Store::write(file, copy * BLOCK as u64, &self.superblock.block()[..])?;
            }
            file.sync_all()?;
            journal::write_checkpoint(file, &self.superblock, first, &zones)?;
            file.sync_all()?;
            live::clear(file, layout.live)?;
            journal::write_checkpoint(file, &self.superblock, first + 1, &zones)?;
            file.sync_all()?;
            let journal = vec![0; BLOCK * (COPIES * layout.places) as usize];
            Store::write(file, layout.journal, &journal)?;
            file.sync_all()
        };
        write().map_err(ImageError::writing)
    }

    fn checkpoints(&mut self, file: &File) -> Result<(), ImageError> {
        let one = |which| match recover::checkpoint(file, &self.superblock, which) {
            Err(ImageError::Damaged(_)) => Ok(None),
            other => other,
        };
        let both = [one(0)?, one(1)?];
        let Some((epoch, zones)) = both.iter().flatten().max_by_key(|(epoch, _)| epoch) else {
            self.findings.push(Finding::Checkpoints);
            return Ok(());
        };
        (self.checkpoint, self.epoch, self.zones) = (*epoch, *epoch, zones.clone());
        for (which, checkpoint) in (0..).zip(&both) {
            // A new image has one.
            if checkpoint.is_none() && !is_blank(file, self.superblock.layout.checkpoint(which))? {
                self.findings.push(Finding::OldCheckpoint(which));
            }
        }
        Ok(())
    }

    /// Takes what the journal has, whether its places follow one another or not.
    fn journal(&mut self, file: &File) -> Result<(), ImageError> {
        let (mut found, mut bad, mut single) = (Vec::new(), Vec::new(), Vec::new());
        for place in 0..self.superblock.layout.places {
            let copies = recover::copies(file, &self.superblock, place)?;
            let current = |copy: &&recover::Copy| {
                copy.as_ref().is_ok_and(|(header, records)| {
                    let possible =
                        || records.iter().all(|record| record.is_possible(&self.superblock.geometry));
                    header.epoch >= self.checkpoint && header.sequence == place && possible()
                })
            };
            let newest = copies.iter().filter(current).flatten().max_by_key(|(header, _)| header.epoch);
            if let Some((header, records)) = newest {
                found.push((header.epoch, place, records.clone()));
                if copies[0] != copies[1] {
                    single.push(place);
                }
            } else {
                for (copy, block) in (0..).zip(&copies) {
                    let at = self.superblock.layout.place(place, copy);
                    if block.is_err() && !is_blank(file, at)? && !bad.contains(&place) {
                        bad.push(place);
                    }
                }
            }
        }
        found.sort_by_key(|(epoch, place, _)| (*epoch, *place));
        let Some(&(newest, last, _)) = found.last() else {
            // The first one may have been being written.
            let finding = |place| if place == 0 { Finding::Torn(place) } else { Finding::Replaced(place) };
            self.findings.extend(bad.into_iter().map(finding));
            return Ok(());
        };
        if self.checkpoint != 0 {
            let newer = (newest > self.checkpoint).then_some(Finding::Newer);
            let is_there = |place: &u64| found.iter().any(|(_, there, _)| there == place);
            let holes = (0..last).filter(|place| !is_there(place)).map(Finding::Place);
            let torn = single.contains(&last) || bad.contains(&(last + 1));
            let copies = single.iter().filter(|place| **place != last).map(|place| Finding::Copy(*place));
            self.findings.extend(newer.into_iter().chain(holes).chain(copies));
            self.findings.extend(torn.then_some(Finding::Torn(last + u64::from(bad.contains(&(last + 1))))));
        }
        for record in found.iter().flat_map(|(_, _, records)| records) {
            self.zones[record.zone as usize] = *record;
        }
        self.epoch = self.epoch.max(newest);
        Ok(())
    }

    /// Takes what the live table has, if it is of this boot of the host.
    fn live(&mut self, file: &File) -> Result<(), ImageError> {
        let Superblock { uuid, geometry, layout } = self.superblock;
        if !live::is_current(file, layout.live, uuid).map_err(ImageError::reading)? {
            if !live::is_clear(file, layout.live).map_err(ImageError::reading)? {
                self.findings.push(Finding::HostStopped);
            }
            return Ok(());
        }
        self.findings.push(Finding::Killed);
        let words = look::words(file, &layout, &geometry)?;
        let mut bad = 0;
        for (zone, word) in (0..).zip(words) {
            let record = word.map(|word| {
                let condition = word.condition.at_rest(word.pointer);
                Record { zone, condition, pointer: word.pointer }
            });
            let record = record.filter(|record| record.is_possible(&geometry));
            self.unsure[zone as usize] = record.is_none();
            bad += u32::from(record.is_none());
            self.zones[zone as usize] = record.unwrap_or(self.zones[zone as usize]);
        }
        self.findings.extend((bad > 0).then_some(Finding::Live(bad)));
        Ok(())
    }

    /// Holds zones against what is in the file, which is `len` bytes long.
    fn data(&mut self, file: &File, len: u64) -> io::Result<()> {
        let Superblock { geometry, layout, .. } = self.superblock;
        let end = layout.data + geometry.capacity;
        self.findings.extend((len < end).then(|| Finding::Short(end - len)));
        for (record, unsure) in self.zones.iter().zip(&self.unsure) {
            let start = layout.data + geometry.start_of(record.zone);
            let (written, all) = (start + record.pointer, start + geometry.capacity_of(record.zone));
            let is_open = matches!(record.condition, Condition::Empty | Condition::Closed);
            if written > len && record.pointer > 0 && record.condition != Condition::Offline {
                self.changes.push((record.zone, Condition::Offline));
            } else if *unsure && is_open && has_data(file, written, all)? {
                self.changes.push((record.zone, Condition::Full));
            }
        }
        Ok(())
    }
}

/// Whether nobody ever wrote the block at `offset`.
fn is_blank(file: &File, offset: u64) -> Result<bool, ImageError> {
    Ok(recover::read(file, offset)?.iter().all(|byte| *byte == 0))
}

/// Whether anything but zeroes is in a range of `file`.
fn has_data(file: &File, mut from: u64, to: u64) -> io::Result<bool> {
    let mut bytes = vec![0; 1 << 20];
    while let Some(data) = sys::next_data(file, from)?.filter(|data| *data < to) {
        let wanted = usize::try_from(to - data).unwrap_or(usize::MAX).min(bytes.len());
        let got = file.read_at(&mut bytes[..wanted], data)?;
        if got == 0 || bytes[..got].iter().any(|byte| *byte != 0) {
            return Ok(got != 0);
        }
        from = data + got as u64;
    }
    Ok(false)
}
