//! Where a process asks the one that has an image open to make a zone fail: two words that both have mapped. Only
//! who has the image open changes zones and their records; whoever else wants that leaves a letter, and rings.

use std::io;
use std::time::Duration;

use super::futex::{Futex, Futexes};
use super::sync::{AtomicBool, Ordering};

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

/// How long an answer is waited for at a time.
const WAIT: Duration = Duration::from_millis(100);

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

/// Both ends of it.
pub(crate) struct Letterbox {
    words: Futexes,
    closed: AtomicBool,
}

impl Letterbox {
    /// That of two words, a bell and a letter.
    pub(crate) fn new(words: Futexes) -> Self {
        Self { words, closed: AtomicBool::new(false) }
    }

    /// From now on letters are read: before the first [`Letterbox::next`], as what lies there is of a process that
    /// was killed, and nobody's.
    pub(crate) fn open(&self) {
        self.word().swap(LISTENS, Ordering::SeqCst);
        // Who waits for an answer learns that there will be none.
        self.word().wake();
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
            if let Err(error) = self.bell().wait(rung, None) {
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
        self.word().wake();
    }

    /// No more letters are read. [`Letterbox::next`] ends.
    pub(crate) fn close(&self) {
        self.word().swap(NOBODY, Ordering::SeqCst);
        self.word().wake();
        self.closed.store(true, Ordering::SeqCst);
        self.ring();
    }

    /// Whether letters are read.
    pub(crate) fn is_read(&self) -> bool {
        self.word().load(Ordering::SeqCst) != NOBODY
    }

    /// Leaves a letter, over one of somebody who is gone; whether anybody reads it.
    pub(crate) fn put(&self, letter: Letter) -> bool {
        let read = |word| (word != NOBODY).then_some(letter.word());
        let put = self.word().fetch_update(Ordering::SeqCst, Ordering::SeqCst, read).is_ok();
        self.ring();
        put
    }

    /// Waits some time for the answer to a letter.
    pub(crate) fn answer_to(&self, letter: Letter) -> Option<Asked> {
        // Its end is seen below.
        let _ = self.word().wait(letter.word(), Some(WAIT));
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
        self.bell().wake();
    }

    /// Counts what there is to look at.
    fn bell(&self) -> &Futex {
        &self.words[0]
    }

    fn word(&self) -> &Futex {
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

#[cfg(all(test, loom))]
mod tests;
