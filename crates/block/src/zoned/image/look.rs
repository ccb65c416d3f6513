//! What an image says to whoever only looks: it may be in use, and is not changed.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::format::{BLOCK, Layout, Record, Superblock};
use super::{ImageError, live, recover};
use crate::zoned::word::Word;
use crate::zoned::{Condition, Geometry, Zone};

/// An image as it was a moment ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The image's own name.
    pub uuid: [u8; 16],
    /// The shape of the disk.
    pub geometry: Geometry,
    /// Where the data of the disk's first byte is in the file.
    pub data_offset: u64,
    /// Whether nobody has closed it since this host was started: somebody has it open, or was killed.
    /// Zones are as they are now; otherwise as they would be when it is opened.
    pub live: bool,
    /// All zones, in order.
    pub zones: Vec<Zone>,
}

impl Look {
    /// Looks at the image in `file`, which is open for reading, and may be somebody's at the same time.
    ///
    /// # Errors
    /// See [`ImageError`]. What is damaged may be what somebody else is changing: another look tells.
    pub fn at(file: &File) -> Result<Self, ImageError> {
        let States { superblock: Superblock { uuid, geometry, layout }, live, zones } = States::of(file)?;
        let zone = |(zone, (condition, pointer))| Zone::new(&geometry, zone, condition, pointer);
        let zones = (0..).zip(zones).map(zone).collect();
        Ok(Self { uuid, geometry, data_offset: layout.data, live, zones })
    }
}

/// The shape of the disk in the image in `file`, which may be somebody's.
///
/// # Errors
/// It is none, or not a sound one.
pub fn geometry(file: &File) -> Result<Geometry, ImageError> {
    recover::superblock(file).map(|(superblock, _)| superblock.geometry)
}

/// What is in the metadata of an image at a moment.
pub(crate) struct States {
    pub(crate) superblock: Superblock,
    /// See [`Look::live`].
    live: bool,
    /// The condition of each zone, and how much of it is written.
    pub(crate) zones: Vec<(Condition, u64)>,
}

impl States {
    /// As [`Look::at`].
    pub(crate) fn of(file: &File) -> Result<Self, ImageError> {
        let (superblock, _) = recover::superblock(file)?;
        let Superblock { uuid, geometry, layout } = superblock;
        let live = live::is_current(file, layout.live, uuid).map_err(ImageError::reading)?;
        let zones = if live {
            let words = (0..).zip(words(file, &layout, &geometry)?);
            let state = |(zone, word): (u32, Option<Word>)| {
                let Word { condition, pointer, .. } = word?;
                let record = Record { zone, condition: condition.at_rest(pointer), pointer };
                record.is_possible(&geometry).then_some((condition, pointer))
            };
            let states: Option<Vec<_>> = words.map(state).collect();
            states.ok_or(ImageError::Damaged("the live table says what no zone can be"))?
        } else {
            let zones = recover::recover(file)?.zones;
            zones.iter().map(|record| (record.condition, record.pointer)).collect()
        };
        Ok(Self { superblock, live, zones })
    }
}

/// How often a word is read that does not make sense: it may be changing.
const ATTEMPTS: usize = 3;

/// The live words of all zones; `None` for what is no word.
pub(super) fn words(
    file: &File,
    layout: &Layout,
    geometry: &Geometry,
) -> Result<Vec<Option<Word>>, ImageError> {
    let first = layout.live + BLOCK as u64;
    let mut bytes = vec![0; 8 * geometry.zones() as usize];
    file.read_exact_at(&mut bytes, first).map_err(ImageError::reading)?;
    let mut words = Vec::with_capacity(geometry.zones() as usize);
    for (zone, word) in (0..).zip(bytes.chunks_exact_mut(8)) {
        let mut found = None;
        for _ in 0..ATTEMPTS {
            found = Word::verified(u64::from_le_bytes((&*word).try_into().expect("8 bytes")), zone);
            if found.is_some() {
                break;
            }
            file.read_exact_at(word, first + 8 * u64::from(zone)).map_err(ImageError::reading)?;
        }
        words.push(found);
    }
    Ok(words)
}
