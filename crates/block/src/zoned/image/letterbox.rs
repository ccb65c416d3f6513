//! Where a process asks the one that has an image open to make a zone fail: two words in the block before
//! the live ones. Only who has the image open changes zones and their records; whoever else wants that leaves
//! a letter, and rings.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::super::mapped::Mapped;
use super::{ImageError, recover};
use crate::{Image, sys};

/// Where in the block the words are.
const AT: usize = 64;

// What is in the second word: two bits that say what, and 30 of more.
const KIND: u32 = 3 << 30;
/// Nobody reads letters.
const NOBODY: u32 = 0;
/// Somebody does.
const LISTENS: u32 = 1 << 30;
/// A zone, and what becomes of it.
const ASKED: u32 = 2 << 30;
/// What came of it: 0, [`REFUSED`], or the number of the host's error.
const ANSWERED: u32 = 3 << 30;
const OFFLINE: u32 = 1 << 29;
const REFUSED: u32 = 1 << 29;

/// Whoever asks has a lock on this byte of the file, so that there is one of them.
const ASKER: i64 = 99;
/// How often and how long somebody is waited for who starts, or asks something else.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);
/// How often and how long an answer is waited for.
const WAITS: u32 = 300;
const WAIT: Duration = Duration::from_millis(100);

/// Both ends of it.
pub(crate) struct Letterbox {
    words: Mapped<AtomicU32>,
    closed: AtomicBool,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) zone: u32,
    pub(crate) offline: bool,
}

/// What came of asking.
#[derive(Debug)]
pub enum Asked {
    /// It is so, durably.
    Done,
    /// The zone is offline already.
    Refused,
    /// The host could not make it durable.
    Failed(io::Error),
    /// Nobody has the image open who could do it, or not any more.
    Nobody,
    /// It is asked for, and not answered after a long time.
    NoAnswer,
}

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
    let letterbox = Letterbox::new(file, superblock.layout.live).map_err(ImageError::reading)?;
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

impl Letterbox {
    /// That of the image whose live table is at `live` in `file`.
    pub(crate) fn new(file: &File, live: u64) -> io::Result<Self> {
        Ok(Self { words: Mapped::new(file, live, AT, 2)?, closed: AtomicBool::new(false) })
    }

    /// From now on letters are read. What lies there is of a process that was killed, and nobody's.
    pub(crate) fn open(&self) {
        self.word().store(LISTENS, Ordering::Release);
        // Who waits for an answer learns that there will be none.
        sys::futex_wake(self.word());
    }

    /// Blocks until there is a letter; `None` once this is closed, or the host cannot wait.
    pub(crate) fn next(&self) -> Option<Letter> {
        loop {
            // Before looking: whatever comes afterwards changes it.
            let rung = self.bell().load(Ordering::SeqCst);
            if self.closed.load(Ordering::SeqCst) {
                return None;
            }
            let word = self.word().load(Ordering::SeqCst);
            if word & KIND == ASKED {
                return Some(Letter { zone: word & !(KIND | OFFLINE), offline: word & OFFLINE != 0 });
            }
            if let Err(error) = sys::futex_wait(self.bell(), rung, None) {
                tracing::warn!("nobody can ask for zones to fail any more: {error}");
                return None;
            }
        }
    }

    /// Says what came of a letter, unless somebody has put another one there since.
    pub(crate) fn answer(&self, letter: Letter, outcome: Result<(), Failure>) {
        let answer = match outcome {
            Ok(()) => 0,
            Err(Failure::Refused) => REFUSED,
            Err(Failure::Host(number)) => number.unsigned_abs() & (REFUSED - 1),
        };
        let answered = ANSWERED | answer;
        let _ = self.word().compare_exchange(letter.word(), answered, Ordering::SeqCst, Ordering::SeqCst);
        sys::futex_wake(self.word());
    }

    /// No more letters are read. [`Letterbox::next`] ends.
    pub(crate) fn close(&self) {
        self.word().store(NOBODY, Ordering::SeqCst);
        sys::futex_wake(self.word());
        self.closed.store(true, Ordering::SeqCst);
        self.ring();
    }

    /// Whether letters are read.
    fn is_read(&self) -> bool {
        self.word().load(Ordering::SeqCst) != NOBODY
    }

    /// Leaves a letter, over one of somebody who is gone; whether anybody reads it.
    fn put(&self, letter: Letter) -> bool {
        let read = |word| (word != NOBODY).then_some(letter.word());
        let put = self.word().fetch_update(Ordering::SeqCst, Ordering::SeqCst, read).is_ok();
        self.ring();
        put
    }

    /// Waits some time for the answer to a letter.
    fn answer_to(&self, letter: Letter) -> Option<Asked> {
        // Its end is seen below.
        let _ = sys::futex_wait(self.word(), letter.word(), Some(WAIT));
        let word = self.word().load(Ordering::SeqCst);
        if word == letter.word() {
            return None;
        }
        if word & KIND != ANSWERED {
            return Some(Asked::Nobody);
        }
        let _ = self.word().compare_exchange(word, LISTENS, Ordering::SeqCst, Ordering::SeqCst);
        Some(match word & !KIND {
            0 => Asked::Done,
            REFUSED => Asked::Refused,
            number => Asked::Failed(io::Error::from_raw_os_error(number as i32)), // below 2^29
        })
    }

    fn ring(&self) {
        self.bell().fetch_add(1, Ordering::SeqCst);
        sys::futex_wake(self.bell());
    }

    /// Counts what there is to look at.
    fn bell(&self) -> &AtomicU32 {
        &self.words[0]
    }

    fn word(&self) -> &AtomicU32 {
        &self.words[1]
    }
}

impl Letter {
    fn word(self) -> u32 {
        let offline = if self.offline { OFFLINE } else { 0 };
        ASKED | offline | self.zone
    }
}

/// Why a zone did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Refused,
    /// The number of the host's error.
    Host(i32),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoned::Geometry;
    use crate::zoned::image::Metadata;

    fn image() -> File {
        let file = tempfile::tempfile().unwrap();
        let len = Metadata::create(&file, Geometry::new(1 << 20, 64 << 10), [1; 16]).unwrap();
        file.set_len(len).unwrap();
        file
    }

    fn letterbox(file: &File) -> Letterbox {
        let (superblock, _) = recover::superblock(file).unwrap();
        Letterbox::new(file, superblock.layout.live).unwrap()
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
