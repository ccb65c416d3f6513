//! The zones' words: in this process's memory, or in a file that outlives it.
#![expect(unsafe_code, reason = "words in a mapped file are reached as atomics")]

use std::ops::Deref;

use super::sync::AtomicU64;
use crate::sys::Mapping;

/// One word for each zone.
pub(super) enum Words {
    Own(Box<[AtomicU64]>),
    #[cfg(not(loom))]
    Mapped(Mapped),
}

/// Words in a file, `offset` bytes into its mapping.
#[cfg(not(loom))]
pub(super) struct Mapped {
    mapping: Mapping,
    offset: usize,
    count: usize,
}

#[cfg(not(loom))]
impl Words {
    /// `count` words that start `offset` bytes into `mapping`.
    pub(super) fn mapped(mapping: Mapping, offset: usize, count: usize) -> Self {
        assert!(
            offset.is_multiple_of(8) && offset + 8 * count <= mapping.len(),
            "the words are in the mapping"
        );
        Self::Mapped(Mapped { mapping, offset, count })
    }
}

impl Deref for Words {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        match self {
            Self::Own(words) => words,
            #[cfg(not(loom))]
            Self::Mapped(Mapped { mapping, offset, count }) => {
                let first = mapping.start().wrapping_add(*offset).cast::<AtomicU64>();
                // SAFETY: `mapped` checked that the words are inside the mapping and aligned, the
                // mapping is readable and writable and lives as long as `self`, any bits are a u64, and
                // whoever else has the file mapped only touches the words as atomics, too.
                unsafe { std::slice::from_raw_parts(first, *count) }
            }
        }
    }
}
