//! Where a PCI function is: bus, slot and function number.

use std::fmt;
use std::str::FromStr;

/// Slots of a bus.
pub const SLOTS: u8 = 32;
/// Functions of a slot.
pub const FUNCTIONS: u8 = 8;

/// The address of a PCI function, written `bus:slot.function` in decimal (`0:5.0`).
///
/// ```
/// use parador_machine::pci::PciAddress;
/// let address: PciAddress = "5".parse()?;
/// assert_eq!(address, PciAddress::new(0, 5, 0).expect("in range"));
/// assert_eq!(address.to_string(), "0:5.0");
/// # Ok::<(), parador_machine::pci::ParseAddressError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    bus: u8,
    slot: u8,
    function: u8,
}

/// A text that is not the address of a PCI function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a PCI address: write bus:slot.function with a bus to 255, a slot to 31, a function to 7, \
     as in 0:5.0; bus and function may be left out"
)]
pub struct ParseAddressError(pub String);

impl PciAddress {
    /// An address; `None` if slot (0-31) or function (0-7) is out of range.
    #[must_use]
    pub const fn new(bus: u8, slot: u8, function: u8) -> Option<Self> {
        if slot < SLOTS && function < FUNCTIONS { Some(Self { bus, slot, function }) } else { None }
    }

    /// The function whose slot and function number are packed in `devfn`, as configuration cycles
    /// have them: slot in bits 7 to 3, function in bits 2 to 0.
    #[must_use]
    pub(super) const fn from_devfn(bus: u8, devfn: u8) -> Self {
        Self { bus, slot: devfn >> 3, function: devfn & 7 }
    }

    /// Slot in bits 7 to 3, function in bits 2 to 0.
    #[must_use]
    pub(super) const fn devfn(self) -> u8 {
        self.slot << 3 | self.function
    }

    /// Bus number.
    #[must_use]
    pub const fn bus(self) -> u8 {
        self.bus
    }

    /// Slot (the specification's "device") on the bus, 0 to 31.
    #[must_use]
    pub const fn slot(self) -> u8 {
        self.slot
    }

    /// Function in the slot, 0 to 7.
    #[must_use]
    pub const fn function(self) -> u8 {
        self.function
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}.{}", self.bus, self.slot, self.function)
    }
}

impl FromStr for PciAddress {
    type Err = ParseAddressError;

    /// Reads `bus:slot.function`; a bus or function left out is 0.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (bus, rest) = text.split_once(':').unwrap_or(("0", text));
            let (slot, function) = rest.split_once('.').unwrap_or((rest, "0"));
            Self::new(number(bus)?, number(slot)?, number(function)?)
        };
        parse().ok_or_else(|| ParseAddressError(text.to_owned()))
    }
}

/// Digits only: `u8::from_str` would take a sign.
fn number(text: &str) -> Option<u8> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_prints_as_it_parses() {
        for bus in [0, 1, 255] {
            for devfn in 0..=255 {
                let address = PciAddress::from_devfn(bus, devfn);
                assert_eq!(address.devfn(), devfn);
                assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }

    #[test]
    fn what_is_left_out_is_zero() {
        assert_eq!("7".parse(), Ok(PciAddress { bus: 0, slot: 7, function: 0 }));
        assert_eq!("7.3".parse(), Ok(PciAddress { bus: 0, slot: 7, function: 3 }));
        assert_eq!("2:7".parse(), Ok(PciAddress { bus: 2, slot: 7, function: 0 }));
    }

    #[test]
    fn what_is_no_address_is_named() {
        for text in
            ["", ":", "32", "0:32.0", "0:5.8", "256:0.0", "+1", "0:-1.0", "1.2.3", "a", "0:5. 0", "0x5"]
        {
            let error = text.parse::<PciAddress>().expect_err(text);
            assert!(error.to_string().contains(&format!("'{text}'")));
        }
    }
}
