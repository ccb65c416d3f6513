//! Descriptors (virtio 1.3 §2.7.5), followed and checked.

use crate::memory::{Area, Map};
use crate::{Chain, RingError};

/// Bytes of a descriptor.
pub(crate) const DESCRIPTOR: u32 = 16;
/// Descriptor flags.
const DESC_NEXT: u16 = 1;
const DESC_WRITE: u16 = 2;
const DESC_INDIRECT: u16 = 4;

/// The longest indirect table that is followed, if the ring is not larger. Linux makes tables longer
/// than a ring that is smaller than what it was told the device can take, whatever virtio 1.3
/// §2.7.5.3.1 says, and every VMM follows them.
const LONGEST_TABLE: u16 = 1024;

/// The descriptors of a ring, and what it takes to follow them.
pub(crate) struct Descriptors {
    pub(crate) map: Map,
    pub(crate) table: Area,
    pub(crate) size: u16,
    /// Whether indirect descriptors are allowed.
    pub(crate) indirect: bool,
    /// Whether chains remember the guest addresses of what the device writes.
    pub(crate) logs: bool,
}

/// A descriptor, read once.
struct Descriptor {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptors {
    /// Follows the descriptors from `chain.head` and fills in the rest of `chain`.
    pub(crate) fn follow(&self, chain: &mut Chain) -> Result<(), RingError> {
        let mut next = chain.head;
        let mut left = self.size;
        loop {
            left = left.checked_sub(1).ok_or(RingError::ChainLength)?;
            let descriptor = self.read(next);
            let has_next = descriptor.flags & DESC_NEXT != 0;
            if descriptor.flags & DESC_INDIRECT != 0 {
                if !self.indirect {
                    return Err(RingError::IndirectFeature);
                }
                if has_next {
                    return Err(RingError::IndirectNext);
                }
                // The descriptor of the table is none of the chain's buffers.
                return self.follow_indirect(chain, &descriptor, LONGEST_TABLE.max(left + 1));
            }
            self.add(chain, &descriptor)?;
            if !has_next {
                return Ok(());
            }
            next = descriptor.next;
            if next >= self.size {
                return Err(RingError::Next);
            }
        }
    }

    /// Follows the descriptors of an indirect table, at most `left` of them.
    fn follow_indirect(&self, chain: &mut Chain, table: &Descriptor, mut left: u16) -> Result<(), RingError> {
        let entries = u16::try_from(table.len / DESCRIPTOR).map_err(|_| RingError::IndirectLength)?;
        if entries == 0 || !table.len.is_multiple_of(DESCRIPTOR) {
            return Err(RingError::IndirectLength);
        }
        let table = self.map.table(table.addr, table.len).ok_or(RingError::Address)?;
        let mut next = 0;
        loop {
            left = left.checked_sub(1).ok_or(RingError::ChainLength)?;
            let bytes = table.read(next).ok_or(RingError::Address)?;
            let descriptor = Descriptor::parse(u128::from_le_bytes(bytes));
            if descriptor.flags & DESC_INDIRECT != 0 {
                return Err(RingError::IndirectNested);
            }
            self.add(chain, &descriptor)?;
            if descriptor.flags & DESC_NEXT == 0 {
                return Ok(());
            }
            next = descriptor.next;
            if next >= entries {
                return Err(RingError::Next);
            }
        }
    }

    /// Adds a descriptor's buffer to a chain.
    fn add(&self, chain: &mut Chain, descriptor: &Descriptor) -> Result<(), RingError> {
        let len = descriptor.len;
        if len == 0 {
            return Err(RingError::EmptyBuffer);
        }
        let writable = descriptor.flags & DESC_WRITE != 0;
        if !writable && chain.writable_len > 0 {
            return Err(RingError::ReadableAfterWritable);
        }
        // The sum of the two before was checked here.
        (chain.readable_len + chain.writable_len).checked_add(len).ok_or(RingError::ChainBytes)?;
        self.map.append(&mut chain.segments, descriptor.addr, len).ok_or(RingError::Address)?;
        if writable {
            chain.writable_len += len;
            if self.logs {
                chain.logged.push((descriptor.addr, len));
            }
        } else {
            chain.readable_len += len;
            chain.readable = chain.segments.as_slice().len();
        }
        Ok(())
    }

    fn read(&self, index: u16) -> Descriptor {
        let offset = DESCRIPTOR as usize * usize::from(index);
        let (low, high) = (self.table.load_u64(offset), self.table.load_u64(offset + 8));
        Descriptor::parse(u128::from(high) << 64 | u128::from(low))
    }
}

impl Descriptor {
    /// Takes a descriptor apart: le64 addr, le32 len, le16 flags, le16 next (virtio 1.3 §2.7.5).
    fn parse(raw: u128) -> Self {
        let [low, high] = [raw as u64, (raw >> 64) as u64];
        Self { addr: low, len: high as u32, flags: (high >> 32) as u16, next: (high >> 48) as u16 }
    }
}
