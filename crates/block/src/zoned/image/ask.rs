//! Asking the process that has an image open to make a zone fail: `letterbox.rs`, in the block before the live words.

use std::fs::File;
use std::io;
use std::time::Duration;

use super::super::letterbox::{Asked, Letter, Letterbox};
use super::super::mapped::Mapped;
use super::{ImageError, recover};
use crate::{Image, sys};

/// Where in the block the words are.
const AT: usize = 64;

/// Whoever asks has a lock on this byte of the file, so that there is one of them.
const ASKER: i64 = 99;
/// How often and how long somebody is waited for who starts, or asks something else.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);
/// How often an answer is waited for.
const WAITS: u32 = 300;

/// Asks the process that has the image in `file` open, which is open for reading and writing, to make
/// `zone`, which exists, read-only or offline, and waits for it.
///
/// # Errors
/// It is no image, or cannot be mapped.
pub fn ask(file: &File, zone: u32, offline: bool) -> Result<Asked, ImageError> {
    let (superblock, _) = recover::superblock(file)?;
    if file.metadata().map_err(ImageError::reading)?.len() < superblock.layout.data {
        return Err(ImageError::Damaged("the file ends in its metadata"));
    }
    let letterbox = letterbox(file, superblock.layout.live).map_err(ImageError::reading)?;
    let mut tries = 0..TRIES;
    while !sys::lock(file, true, ASKER, 1).map_err(ImageError::reading)? || !letterbox.is_read() {
        if tries.next().is_none() {
            return Ok(Asked::Nobody);
        }
        std::thread::sleep(PAUSE);
    }
    let letter = Letter { zone, offline };
    if !letterbox.put(letter) {
        return Ok(Asked::Nobody);
    }
    for _ in 0..WAITS {
        match letterbox.answer_to(letter) {
            Some(asked) => return Ok(asked),
            None if Image::is_locked(file, false).unwrap_or(true) => {}
            None => return Ok(letterbox.answer_to(letter).unwrap_or(Asked::Nobody)),
        }
    }
    Ok(Asked::NoAnswer)
}

/// The letterbox of the image whose live table is at `live` in `file`.
pub(super) fn letterbox(file: &File, live: u64) -> io::Result<Letterbox> {
    Ok(Letterbox::new(Mapped::new(file, live, AT, 2)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoned::Geometry;
    use crate::zoned::image::Metadata;
    use crate::zoned::letterbox::Failure;

    fn image() -> File {
        let file = tempfile::tempfile().unwrap();
        let len = Metadata::create(&file, Geometry::new(1 << 20, 64 << 10), [1; 16]).unwrap();
        file.set_len(len).unwrap();
        file
    }

    fn letterbox(file: &File) -> Letterbox {
        let (superblock, _) = recover::superblock(file).unwrap();
        super::letterbox(file, superblock.layout.live).unwrap()
    }

    #[test]
    fn a_letter_comes_back_and_is_no_other_ones() {
        let file = image();
        let letterbox = letterbox(&file);
        let letter = Letter { zone: 7, offline: true };
        assert!(!letterbox.put(letter), "nobody reads it");
        letterbox.open();
        for (outcome, expected) in
            [(Ok(()), "Done"), (Err(Failure::Refused), "Refused"), (Err(Failure::Host(libc::EIO)), "Failed")]
        {
            assert!(letterbox.put(Letter { zone: 3, offline: false }), "of somebody who is gone");
            assert_eq!(letterbox.next(), Some(Letter { zone: 3, offline: false }));
            assert!(letterbox.put(letter));
            letterbox.answer(Letter { zone: 3, offline: false }, Ok(()));
            assert_eq!(letterbox.next(), Some(letter));
            letterbox.answer(letter, outcome);
            let answer = format!("{:?}", letterbox.answer_to(letter).unwrap());
            assert!(answer.starts_with(expected), "{answer}");
        }
        letterbox.close();
        assert_eq!(letterbox.next(), None);
        assert!(matches!(letterbox.answer_to(letter), Some(Asked::Nobody)));
    }

    #[test]
    fn no_letter_is_left_lying_by_one_who_sleeps() {
        let file = image();
        let asker = letterbox(&file);
        let reader = letterbox(&file);
        reader.open();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while let Some(letter) = reader.next() {
                    reader.answer(letter, Ok(()));
                }
            });
            for zone in 0..2000 {
                let letter = Letter { zone, offline: zone % 2 == 0 };
                assert!(asker.put(letter));
                let answer = std::iter::repeat_with(|| asker.answer_to(letter)).flatten().next();
                assert!(matches!(answer, Some(Asked::Done)), "{answer:?}");
            }
            reader.close();
        });
        assert!(!asker.put(Letter { zone: 0, offline: false }));
    }

    /// A file with a name, which can be opened twice, and another description of it with the image's lock.
    fn locked() -> (tempfile::NamedTempFile, File) {
        let file = tempfile::NamedTempFile::new().unwrap();
        io::copy(&mut image(), &mut file.as_file()).unwrap();
        let other = File::options().read(true).write(true).open(file.path()).unwrap();
        assert!(Image::try_lock(&other).unwrap());
        (file, other)
    }

    #[test]
    fn who_asks_a_process_that_is_killed_before_it_answers_is_told() {
        let (file, other) = locked();
        let letterbox = letterbox(&other);
        letterbox.open();
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| ask(file.as_file(), 3, true));
            assert_eq!(letterbox.next(), Some(Letter { zone: 3, offline: true }));
            // A mapping has the file open, too.
            drop((letterbox, other));
            assert!(matches!(asked.join().unwrap(), Ok(Asked::Nobody)));
        });
    }

    #[test]
    fn who_asks_a_process_that_is_started_anew_is_told() {
        let (file, other) = locked();
        let first = letterbox(&other);
        first.open();
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| ask(file.as_file(), 3, true));
            assert!(first.next().is_some());
            letterbox(&other).open();
            assert!(matches!(asked.join().unwrap(), Ok(Asked::Nobody)));
        });
    }

    #[test]
    fn who_asks_a_process_that_is_gone_is_told() {
        let file = image();
        letterbox(&file).open();
        assert!(matches!(ask(&file, 3, true), Ok(Asked::Nobody)), "nobody has it locked");
        file.set_len(4 * 4096).unwrap();
        assert!(matches!(ask(&file, 3, true), Err(ImageError::Damaged(_))));
    }
}
