//! Values: the same thing in the tree's words and in QEMU's.

use super::bag::Value;

/// How a value is written on either side.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// The same text.
    Text,
    /// A number.
    Int,
    /// A number that QEMU wants as text.
    IntText,
    /// A switch.
    Switch,
    /// The opposite of our switch, as the text `on` or `off`; it may also be `auto`.
    OffOn,
    /// Bytes.
    Size,
    /// Bytes; a number without a unit counts MiB.
    Memory,
    /// A PCI address on the root bus.
    Slot,
    /// Words of ours, and of QEMU's: the first pair that fits counts.
    Words(&'static [(&'static str, &'static str)]),
}

impl Form {
    /// QEMU's value for ours, if it has one.
    pub(super) fn export(self, ours: &str) -> Option<Value> {
        Some(match self {
            Self::Text => Value::from(ours),
            Self::Int => Value::Int(number(ours)?),
            Self::IntText => Value::Text(number(ours)?.to_string()),
            Self::Switch => Value::Bool(switch(ours)?),
            Self::OffOn => Value::from(if switch(ours)? { "off" } else { "on" }),
            Self::Size => Value::Int(bytes(ours, 1)?),
            Self::Memory => {
                let size = size(memory(ours)?);
                Value::Text(if size.ends_with(|c: char| c.is_ascii_digit()) {
                    format!("{size}B")
                } else {
                    size
                })
            }
            Self::Slot => Value::Text(slot(ours)?),
            Self::Words(words) => Value::from(words.iter().find(|(word, _)| *word == ours)?.1),
        })
    }

    /// Our value for QEMU's, if there is one.
    pub(super) fn import(self, theirs: &str) -> Option<String> {
        Some(match self {
            Self::Text => theirs.to_owned(),
            Self::Int | Self::IntText => number(theirs)?.to_string(),
            Self::Switch => switch(theirs)?.to_string(),
            Self::OffOn => (!switch(theirs)?).to_string(),
            Self::Size => size(bytes(theirs, 1)?),
            Self::Memory => size(bytes(theirs, 1 << 20)?),
            Self::Slot => {
                let (slot, function) = theirs.split_once('.').unwrap_or((theirs, "0"));
                let hex = |text: &str| u8::from_str_radix(text.trim_start_matches("0x"), 16).ok();
                let (slot, function) = (hex(slot)?, hex(function)?);
                (slot < 32 && function < 8).then(|| format!("0:{slot}.{function}"))?
            }
            Self::Words(words) => words.iter().find(|(_, word)| *word == theirs)?.0.to_owned(),
        })
    }
}

/// A decimal or hexadecimal number.
pub(super) fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A switch, in the words of either side.
pub(super) fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "yes" | "true" | "y" | "1" => Some(true),
        "off" | "no" | "false" | "n" | "0" => Some(false),
        _ => None,
    }
}

/// The bytes of a size such as `4G` or `1.5G`; a number without a unit counts `unit`.
pub(super) fn bytes(text: &str, unit: u64) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" => unit,
        "B" => 1,
        "K" | "KIB" => 1 << 10,
        "M" | "MIB" => 1 << 20,
        "G" | "GIB" => 1 << 30,
        "T" | "TIB" => 1 << 40,
        "P" => 1 << 50,
        _ => return None,
    };
    match digits.split_once('.') {
        None => number(digits)?.checked_mul(unit),
        Some((whole, fraction)) => {
            let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
            let parts = number(fraction)?.checked_mul(unit)?;
            number(whole)?.checked_mul(unit)?.checked_add(parts / scale)
        }
    }
}

/// The bytes of a key that counts small numbers in MiB.
pub(super) fn memory(text: &str) -> Option<u64> {
    match text.parse::<u64>() {
        Ok(plain) if plain < 1 << 20 => Some(plain << 20),
        Ok(plain) => Some(plain),
        Err(_) => bytes(text, 1),
    }
}

/// Bytes in the largest unit that leaves no rest.
pub(super) fn size(bytes: u64) -> String {
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    let unit = units.iter().find(|(shift, _)| bytes != 0 && bytes.is_multiple_of(1 << shift));
    unit.map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

/// `05.0` for `0:5.0`, if it is on the root bus and q35 leaves that slot free.
fn slot(address: &str) -> Option<String> {
    let (slot, function) = place(address)?;
    (1..31).contains(&slot).then(|| format!("{slot:02x}.{function}"))
}

/// Slot and function of an address on the root bus.
pub(super) fn place(address: &str) -> Option<(u8, u8)> {
    let (bus, rest) = address.split_once(':')?;
    let (slot, function) = rest.split_once('.')?;
    let (slot, function) = (slot.parse().ok()?, function.parse().ok()?);
    (bus == "0" && slot < 32 && function < 8).then_some((slot, function))
}
