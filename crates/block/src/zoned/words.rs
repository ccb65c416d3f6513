//! The zones' words: in this process's memory, or in a file that outlives it.

use std::ops::Deref;

#[cfg(not(loom))]
use super::mapped::Mapped;
use super::sync::AtomicU64;

/// One word for each zone.
pub(super) enum Words {
    Own(Box<[AtomicU64]>),
    #[cfg(not(loom))]
    Mapped(Mapped<AtomicU64>),
}

impl Deref for Words {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        match self {
            Self::Own(words) => words,
            #[cfg(not(loom))]
            Self::Mapped(words) => words,
        }
    }
}
