//! What an image says to whoever only looks: it may be in use, and is not changed.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::format::{BLOCK, Layout, Record, Superblock};
use super::{ImageError, live, recover};
use crate::zoned::word::Word;
use crate::zoned::{Geometry, Zone};

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
        let (Superblock { uuid, geometry, layout }, _) = recover::superblock(file)?;
        let live = live::is_current(file, layout.live, uuid).map_err(ImageError::reading)?;
        let zones = if live {
            let words: Option<Vec<Word>> = words(file, &layout, &geometry)?.into_iter().collect();
            let words = words.ok_or(ImageError::Damaged("the live table says what no zone can be"))?;
            let zone = |(zone, word): (u32, Word)| Zone::new(&geometry, zone, word.condition, word.pointer);
            (0..).zip(words).map(zone).collect()
        } else {
            let zone = |record: &Record| Zone::new(&geometry, record.zone, record.condition, record.pointer);
            recover::recover(file)?.zones.iter().map(zone).collect()
        };
        Ok(Self { uuid, geometry, data_offset: layout.data, live, zones })
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
