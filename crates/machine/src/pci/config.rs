//! Configuration space of a function: the Type 0 header and its capabilities (PCI 3.0 §6.1, §6.7).
//!
//! Each byte has a mask of the bits a guest may change; all else reads as it was made. That alone
//! answers BAR sizing (§6.2.5.1): the address bits below a BAR's size cannot be changed.

use std::ops::Range;

/// Bytes of configuration space that exist. What ECAM shows beyond reads as all ones, which tells a
/// guest that there is no extended space and spares it the searches there.
const SIZE: usize = 256;
/// The number of Base Address Registers of a Type 0 header.
pub(super) const BARS: usize = 6;

// The Type 0 header, PCI 3.0 §6.1, figure 6-1.
const VENDOR: usize = 0x00;
const DEVICE: usize = 0x02;
pub(super) const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const REVISION: usize = 0x08;
const CACHE_LINE_SIZE: usize = 0x0C;
const HEADER_TYPE: usize = 0x0E;
pub(super) const BAR0: usize = 0x10;
pub(super) const BARS_END: usize = BAR0 + 4 * BARS;
const SUBSYSTEM_VENDOR: usize = 0x2C;
const SUBSYSTEM: usize = 0x2E;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3C;
const FIRST_CAPABILITY: u8 = 0x40;

/// Command: the function answers in its memory BARs (§6.2.2).
pub(super) const COMMAND_MEMORY: u16 = 1 << 1;
/// Command: the function may be a bus master. Kept for the driver to read; nothing hangs on it.
const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// Command: no INTx. There is none here in the first place.
const COMMAND_INTX_DISABLE: u16 = 1 << 10;
/// Status: there is a capability list (§6.2.3).
const STATUS_CAPABILITIES: u16 = 1 << 4;
/// Header type: the slot has more than one function (§6.2.1).
const HEADER_MULTIFUNCTION: u8 = 1 << 7;
/// BAR: 64 bits wide, and prefetchable: reading has no side effects (§6.2.5.1).
const BAR_64: u32 = 0b1100;

/// What a function says it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub vendor: u16,
    pub device: u16,
    pub revision: u8,
    /// Base class, sub-class and programming interface, in bits 23 to 0.
    pub class: u32,
    pub subsystem_vendor: u16,
    pub subsystem: u16,
}

/// A memory BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bar {
    /// Bytes, a power of two from 16 up; up to 2 GiB in a 32-bit BAR.
    pub size: u64,
    /// Whether it is plain memory, which can be above 4 GiB. Such a BAR takes the next register too.
    pub wide: bool,
}

/// Configuration space of one function.
pub(super) struct ConfigSpace {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
    bars: [Option<PlacedBar>; BARS],
    /// Where the offset of the next capability goes.
    link: usize,
    /// First byte after the last capability.
    end: u8,
}

#[derive(Clone, Copy)]
struct PlacedBar {
    bar: Bar,
    /// Where it is at power-on.
    address: u64,
}

impl ConfigSpace {
    pub(super) fn new(header: Header) -> Self {
        let mut space = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            bars: [None; BARS],
            link: CAPABILITIES,
            end: FIRST_CAPABILITY,
        };
        space.put(VENDOR, &header.vendor.to_le_bytes());
        space.put(DEVICE, &header.device.to_le_bytes());
        space.put(REVISION, &(header.class << 8 | u32::from(header.revision)).to_le_bytes());
        space.put(SUBSYSTEM_VENDOR, &header.subsystem_vendor.to_le_bytes());
        space.put(SUBSYSTEM, &header.subsystem.to_le_bytes());
        let command = COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_INTX_DISABLE;
        space.writable[COMMAND..COMMAND + 2].copy_from_slice(&command.to_le_bytes());
        // Registers for the software's own notes: they read as written.
        space.writable[CACHE_LINE_SIZE] = 0xFF;
        space.writable[INTERRUPT_LINE] = 0xFF;
        space
    }

    /// Says in the header that this slot has more than one function.
    pub(super) fn set_multifunction(&mut self, on: bool) {
        self.bytes[HEADER_TYPE] = if on { HEADER_MULTIFUNCTION } else { 0 };
    }

    /// Adds a capability to the list and says where it is. `body` follows the identifier and the
    /// link; what is set in `writable`, from the body's start, the guest may change.
    pub(super) fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> usize {
        let at = usize::from(self.end);
        self.put(STATUS, &STATUS_CAPABILITIES.to_le_bytes());
        self.bytes[self.link] = self.end;
        self.link = at + 1;
        self.bytes[at] = id;
        self.put(at + 2, body);
        self.writable[at + 2..at + 2 + writable.len()].copy_from_slice(writable);
        let end = (at + 2 + body.len()).next_multiple_of(4);
        self.end = u8::try_from(end).expect("a function's few capabilities fit behind the header");
        at
    }

    /// Adds BAR `index` at `address`, where it will be at power-on.
    pub(super) fn add_bar(&mut self, index: usize, bar: Bar, address: u64) {
        let at = BAR0 + 4 * index;
        let mask = !(bar.size - 1);
        if bar.wide {
            self.writable[at..at + 8].copy_from_slice(&mask.to_le_bytes());
        } else {
            self.writable[at..at + 4].copy_from_slice(&(mask as u32).to_le_bytes());
        }
        self.bars[index] = Some(PlacedBar { bar, address });
        self.place_bars();
    }

    /// Guest-physical range in which BAR `index` answers now; `None` while memory decoding is off.
    pub(super) fn decoded(&self, index: usize) -> Option<Range<u64>> {
        let PlacedBar { bar, .. } = self.bars[index]?;
        if self.u16(COMMAND) & COMMAND_MEMORY == 0 {
            return None;
        }
        let at = BAR0 + 4 * index;
        let high = if bar.wide { u64::from(self.u32(at + 4)) } else { 0 };
        let start = (high << 32 | u64::from(self.u32(at))) & !(bar.size - 1);
        Some(start..start.checked_add(bar.size)?)
    }

    /// Fills `data` from `offset`; all ones beyond what exists.
    pub(super) fn read(&self, offset: usize, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = self.bytes.get(offset + index).copied().unwrap_or(0xFF);
        }
    }

    /// Takes the bits of `data` that may change.
    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        for (index, value) in (offset..SIZE).zip(data) {
            let writable = self.writable[index];
            self.bytes[index] = self.bytes[index] & !writable | value & writable;
        }
    }

    /// Brings everything back to power-on: decoding off, BARs where they were put.
    pub(super) fn reset(&mut self) {
        // Whatever a guest can write is zero at power-on, but for the addresses of the BARs.
        for (byte, writable) in self.bytes.iter_mut().zip(&self.writable) {
            *byte &= !writable;
        }
        self.place_bars();
    }

    /// Sets bytes whatever their masks say.
    pub(super) fn put(&mut self, offset: usize, data: &[u8]) {
        self.bytes[offset..offset + data.len()].copy_from_slice(data);
    }

    pub(super) fn u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.bytes[offset], self.bytes[offset + 1]])
    }

    pub(super) fn u32(&self, offset: usize) -> u32 {
        u32::from(self.u16(offset)) | u32::from(self.u16(offset + 2)) << 16
    }

    fn place_bars(&mut self) {
        for index in 0..BARS {
            let Some(PlacedBar { bar, address }) = self.bars[index] else { continue };
            let at = BAR0 + 4 * index;
            if bar.wide {
                self.put(at, &(address | u64::from(BAR_64)).to_le_bytes());
            } else {
                self.put(at, &(address as u32).to_le_bytes());
            }
        }
    }
}

/// Whether a write at `offset` of `len` bytes can change where the function answers.
pub(super) fn touches_decoding(offset: usize, len: usize) -> bool {
    offset < BARS_END && offset + len > COMMAND && !(offset >= COMMAND + 2 && offset + len <= BAR0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn space() -> ConfigSpace {
        let header = Header {
            vendor: 0x1AF4,
            device: 0x1042,
            revision: 1,
            class: 0x01_8000,
            subsystem_vendor: 0x1AF4,
            subsystem: 0x40,
        };
        let mut space = ConfigSpace::new(header);
        space.add_bar(0, Bar { size: 0x8000, wide: false }, 0xC000_0000);
        space.add_bar(2, Bar { size: 1 << 33, wide: true }, 0x10_0000_0000);
        space.add_capability(0x11, &[0; 10], &[0x00, 0xC0]);
        space.add_capability(0x09, &[14, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]);
        space
    }

    fn size_of_bar(space: &mut ConfigSpace, at: usize) -> u32 {
        let before = space.u32(at);
        space.write(at, &[0xFF; 4]);
        let sized = space.u32(at);
        space.write(at, &before.to_le_bytes());
        assert_eq!(space.u32(at), before);
        sized
    }

    #[test]
    fn bars_answer_the_sizing_protocol() {
        let mut space = space();
        assert_eq!(size_of_bar(&mut space, 0x10), 0xFFFF_8000);
        assert_eq!(size_of_bar(&mut space, 0x14), 0);
        assert_eq!(size_of_bar(&mut space, 0x18), 0b1100);
        assert_eq!(size_of_bar(&mut space, 0x1C), 0xFFFF_FFFE);
        assert_eq!(size_of_bar(&mut space, 0x30), 0, "no expansion ROM");
    }

    #[test]
    fn a_bar_answers_where_the_guest_puts_it_while_decoding_is_on() {
        let mut space = space();
        assert_eq!(space.decoded(0), None);
        space.write(COMMAND, &[0x02]);
        assert_eq!(space.decoded(0), Some(0xC000_0000..0xC000_8000));
        assert_eq!(space.decoded(1), None);
        assert_eq!(space.decoded(2), Some(0x10_0000_0000..0x12_0000_0000));
        space.write(0x10, &0xD000_1234u32.to_le_bytes());
        assert_eq!(space.decoded(0), Some(0xD000_0000..0xD000_8000));
        space.write(0x1C, &[0x20]);
        assert_eq!(space.decoded(2), Some(0x20_0000_0000..0x22_0000_0000));
        space.write(0x18, &[0xFF; 8]);
        assert_eq!(space.decoded(2), None, "a BAR that wraps answers nowhere");
    }

    #[test]
    fn capabilities_are_a_list_that_ends() {
        let space = space();
        let mut seen = Vec::new();
        let mut at = usize::from(space.bytes[0x34]);
        while at != 0 {
            seen.push((at, space.bytes[at]));
            at = usize::from(space.bytes[at + 1]);
        }
        assert_eq!(seen, [(0x40, 0x11), (0x4C, 0x09)]);
        assert_eq!(space.u16(STATUS) & STATUS_CAPABILITIES, STATUS_CAPABILITIES);
    }

    #[test]
    fn reset_is_power_on() {
        let fresh = space();
        let mut used = space();
        used.write(0, &[0xA5; SIZE]);
        used.set_multifunction(false);
        assert_ne!(used.bytes, fresh.bytes);
        used.reset();
        assert_eq!(used.bytes, fresh.bytes);
    }

    proptest! {
        #[test]
        fn only_what_is_writable_changes(
            writes in prop::collection::vec((0usize..0x1100, prop::collection::vec(any::<u8>(), 1..=8)), 0..64)
        ) {
            let fresh = space();
            let mut space = space();
            for (offset, data) in &writes {
                let ranges = [0, 2].map(|bar| space.decoded(bar));
                space.write(*offset, data);
                if !touches_decoding(*offset, data.len()) {
                    prop_assert_eq!(ranges, [0, 2].map(|bar| space.decoded(bar)));
                }
                let mut read = [0; 8];
                space.read(*offset, &mut read);
            }
            for index in 0..SIZE {
                let fixed = !space.writable[index];
                prop_assert_eq!(space.bytes[index] & fixed, fresh.bytes[index] & fixed);
            }
        }
    }
}
