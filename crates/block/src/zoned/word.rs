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

    /// What becomes of it when nobody has the zone open any more, `written` bytes of it being written.
    #[must_use]
    pub fn at_rest(self, written: u64) -> Self {
        match self {
            open if open.is_open() && written == 0 => Self::Empty,
            open if open.is_open() => Self::Closed,
            other => other,
        }
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

// From the low end: 32 bits of pointer in units of 512 bytes, 4 of condition, 16 of checksum over
// those and the zone's number, 1 that says held, 11 that count writes.
const UNIT: u64 = 512;
const CONDITION: u32 = 32;
const CHECK: u32 = 36;
const HELD: u32 = 52;
const WRITES: u32 = 53;
/// What a checksum is over: it stays right while writes come and go.
#[cfg(not(loom))]
const STATE: u64 = (1 << CHECK) - 1;

impl Word {
    pub(super) fn new(condition: Condition, pointer: u64) -> Self {
        Self { condition, held: false, writes: 0, pointer }
    }

    /// The word of `zone`. The pointer is whole units of 512 bytes, at most 2^41 - 512.
    pub(super) fn pack(self, zone: u32) -> u64 {
        let Self { condition, held, writes, pointer } = self;
        debug_assert!(pointer.is_multiple_of(UNIT) && pointer / UNIT <= u64::from(u32::MAX));
        let state = (u64::from(condition as u8) << CONDITION) | (pointer / UNIT);
        state | (check(state, zone) << CHECK) | (u64::from(held) << HELD) | (u64::from(writes) << WRITES)
    }

    pub(super) fn unpack(word: u64) -> Self {
        Self {
            condition: condition(word).expect("only words of `pack` are stored"),
            held: word >> HELD & 1 != 0,
            writes: (word >> WRITES) as u16,
            pointer: (word & u64::from(u32::MAX)) * UNIT,
        }
    }

    /// The word of `zone` from memory that others could write to; `None` if it is none.
    #[cfg(not(loom))]
    pub(super) fn verified(word: u64, zone: u32) -> Option<Self> {
        condition(word)?;
        (word >> CHECK & 0xffff == check(word & STATE, zone)).then(|| Self::unpack(word))
    }
}

fn condition(word: u64) -> Option<Condition> {
    Condition::from_number((word >> CONDITION & 0xf) as u8)
}

/// The low half of CRC32C, continued from `zone`, over the eight bytes of `state`, of which only five are
/// ever anything but zero. By tables, as every write asks for it: a general one takes as long as all else
/// that a write does in its zone.
fn check(state: u64, zone: u32) -> u64 {
    let state = (state ^ u64::from(!zone)).to_le_bytes();
    let parts = TABLES.iter().zip(state).map(|(table, byte)| table[usize::from(byte)]);
    u64::from(!parts.fold(0, |sum, part| sum ^ part))
}

/// What a byte adds to the checksum that has 7, 6, 5, 4 and 3 more behind it.
static TABLES: [[u16; 256]; 5] = tables();

const fn tables() -> [[u16; 256]; 5] {
    let mut tables = [[0; 256]; 5];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bytes = 1;
        while bytes <= 8 {
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ (if crc & 1 == 0 { 0 } else { 0x82f6_3b78 });
                bit += 1;
            }
            if bytes >= 4 {
                tables[8 - bytes][byte] = crc as u16;
            }
            bytes += 1;
        }
        byte += 1;
    }
    tables
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_word_comes_back() {
        for condition in (0..16).filter_map(Condition::from_number) {
            for (held, writes, pointer) in [(false, 0, 0), (true, MAX_WRITES, 1 << 40), (false, 1, 512)] {
                let word = Word { condition, held, writes, pointer };
                assert_eq!(Word::unpack(word.pack(7)), word);
                assert_eq!(Word::verified(word.pack(7), 7), Some(word));
                assert_eq!(Word::verified(word.pack(7), 8), None, "it is another zone's");
            }
        }
        let word = Word::new(Condition::Closed, 4096);
        assert_eq!(Word::verified(word.pack(0) + ONE_WRITE, 0).unwrap().writes, 1);
    }

    #[test]
    fn the_checksum_is_crc32c() {
        for state in [0, 1, STATE, 0x8_1234_5678, 0x1_0000_0000, 0xe_ffff_fff8] {
            for zone in [0, 1, 77, 0xf_ffff, u32::MAX] {
                let expected = crc32c::crc32c_append(zone, &state.to_le_bytes()) & 0xffff;
                assert_eq!(check(state, zone), u64::from(expected), "{state:x} {zone}");
            }
        }
    }

    #[test]
    fn a_bit_of_a_zones_state_that_flips_is_seen() {
        for pointer in [0, 4096, 1 << 26] {
            let word = Word::new(Condition::Closed, pointer).pack(3);
            for bit in 0..HELD {
                assert_eq!(Word::verified(word ^ 1 << bit, 3), None, "bit {bit}");
            }
        }
    }
}
