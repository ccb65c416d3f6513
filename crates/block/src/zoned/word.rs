//! All that changes of a zone, in one word: so that a write reserves its place with one
//! compare-and-swap.

/// What state a zone is in. Numbers are those that ZBC, ZNS and virtio (1.3 §5.2.6) share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Condition {
    /// Conventional: it has no write pointer.
    NotWritePointer = 0,
    /// Nothing is written.
    Empty = 1,
    /// Open because something was written.
    ImplicitlyOpen = 2,
    /// Open because it was asked to be.
    ExplicitlyOpen = 3,
    /// Partly written, not open.
    Closed = 4,
    /// It can be read, and nothing else.
    ReadOnly = 13,
    /// Written to its end, or finished.
    Full = 14,
    /// Lost.
    Offline = 15,
}

impl Condition {
    /// Whether it counts against the limit of open zones.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::ImplicitlyOpen | Self::ExplicitlyOpen)
    }

    /// Whether it counts against the limit of active zones.
    #[must_use]
    pub fn is_active(self) -> bool {
        self.is_open() || self == Self::Closed
    }

    /// The condition with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::NotWritePointer,
            1 => Self::Empty,
            2 => Self::ImplicitlyOpen,
            3 => Self::ExplicitlyOpen,
            4 => Self::Closed,
            13 => Self::ReadOnly,
            14 => Self::Full,
            15 => Self::Offline,
            _ => return None,
        })
    }
}

/// A zone's word, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) condition: Condition,
    /// Somebody is about to reset or finish it: it takes no writes.
    pub(super) held: bool,
    /// Writes that have a place in it and are not over.
    pub(super) writes: u16,
    /// Bytes from the zone's start to where the next write goes.
    pub(super) pointer: u64,
}

/// The most writes in flight in one zone.
pub(super) const MAX_WRITES: u16 = (1 << 11) - 1;
/// One write, in the word.
pub(super) const ONE_WRITE: u64 = 1 << WRITES;

const WRITES: u32 = 48;
const HELD: u32 = 59;
const CONDITION: u32 = 60;
const POINTER_MASK: u64 = (1 << WRITES) - 1;

impl Word {
    pub(super) fn new(condition: Condition, pointer: u64) -> Self {
        Self { condition, held: false, writes: 0, pointer }
    }

    pub(super) fn pack(self) -> u64 {
        let Self { condition, held, writes, pointer } = self;
        u64::from(condition as u8) << CONDITION
            | u64::from(held) << HELD
            | u64::from(writes) << WRITES
            | pointer & POINTER_MASK
    }

    pub(super) fn unpack(word: u64) -> Self {
        Self {
            condition: Condition::from_number((word >> CONDITION) as u8)
                .expect("only words of `pack` are stored"),
            held: word >> HELD & 1 != 0,
            writes: (word >> WRITES) as u16 & MAX_WRITES,
            pointer: word & POINTER_MASK,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_comes_back() {
        for condition in (0..16).filter_map(Condition::from_number) {
            for (held, writes, pointer) in
                [(false, 0, 0), (true, MAX_WRITES, 1 << 40), (false, 1, POINTER_MASK)]
            {
                let word = Word { condition, held, writes, pointer };
                assert_eq!(Word::unpack(word.pack()), word);
            }
        }
        let word = Word::new(Condition::Closed, 4096);
        assert_eq!(Word::unpack(word.pack() + ONE_WRITE).writes, 1);
    }
}
