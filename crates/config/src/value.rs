//! Values: what a key's text means.

use std::fmt;

use crate::keys::Kind;

/// A value of the type its key asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Yes or no.
    Bool(bool),
    /// A number, or a size in bytes.
    Int(u64),
    /// Text, or a path.
    Text(String),
    /// One of the words its key allows.
    Word(&'static str),
    /// An Ethernet address.
    Mac([u8; 6]),
    /// Processors, ascending, each once.
    Cpus(Vec<u32>),
    /// Where a device sits on the PCI buses.
    Address(PciAddress),
    /// A machine's identity.
    Uuid([u8; 16]),
    /// What a console is connected to.
    Endpoint(Endpoint),
    /// Descriptors, each once, in order.
    Descriptors(Vec<i32>),
}

impl Value {
    /// What `text` means for a key of `kind`.
    ///
    /// # Errors
    /// What it should have been, to follow "it is".
    pub fn parse(kind: Kind, text: &str) -> Result<Self, String> {
        parse(kind, text)
    }
}

/// Bus, slot and function of a PCI device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PciAddress {
    /// 0 to 255.
    pub bus: u8,
    /// 0 to 31.
    pub slot: u8,
    /// 0 to 7.
    pub function: u8,
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}.{}", self.bus, self.slot, self.function)
    }
}

/// What a console is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Nothing: output is dropped, there is no input.
    None,
    /// Standard input and output of the process.
    Stdio,
    /// A new pseudo-terminal, whose name is logged.
    Pty,
    /// A file, made anew, for output.
    File(String),
    /// A UNIX socket to listen on, one client at a time.
    Unix(String),
}

/// The value of `text` for a key of `kind`; otherwise what it should have been.
pub(crate) fn parse(kind: Kind, text: &str) -> Result<Value, String> {
    match kind {
        Kind::Bool => parse_bool(text).map(Value::Bool).ok_or_else(|| "`true` or `false`".to_owned()),
        Kind::Int { min, max } => {
            parse_int(text).filter(|n| (min..=max).contains(n)).map(Value::Int).ok_or_else(|| {
                let octal = digits_only(text, 10) && text.starts_with('0');
                let not = if octal && text != "0" { ", without zeros before it" } else { "" };
                format!("a number from {min} to {max}{not}")
            })
        }
        Kind::Size { min, max } => {
            in_range(parse_size(text), min, max).ok_or_else(|| expected_size(min, max, "bytes"))
        }
        Kind::Memory { min, max } => {
            let bytes = parse_size(text).map(|n| match parse_int(text) {
                Some(plain) if plain < 1 << 20 => plain << 20,
                Some(_) | None => n,
            });
            in_range(bytes, min, max).ok_or_else(|| expected_size(min, max, "MiB"))
        }
        Kind::Text { max } => {
            if text.len() > max {
                return Err(format!("at most {max} bytes of text"));
            }
            if text.contains('\0') {
                return Err("text without NUL".to_owned());
            }
            Ok(Value::Text(text.to_owned()))
        }
        Kind::Path => parse_path(text).map(Value::Text).ok_or_else(|| "a path".to_owned()),
        Kind::Word(words) => {
            let word = words.iter().find(|word| *word == text);
            word.map(Value::Word).ok_or_else(|| format!("one of {}", words.join(", ")))
        }
        Kind::Mac => parse_mac(text)
            .map(Value::Mac)
            .ok_or_else(|| "a unicast Ethernet address such as 52:54:00:12:34:56".to_owned()),
        Kind::Cpus => {
            parse_cpus(text).map(Value::Cpus).ok_or_else(|| "a list of processors such as 0-3,6".to_owned())
        }
        Kind::Address => parse_address(text)
            .map(Value::Address)
            .ok_or_else(|| "BUS:SLOT.FUNCTION in decimal, such as 0:4.0".to_owned()),
        Kind::Uuid => parse_uuid(text)
            .map(Value::Uuid)
            .ok_or_else(|| "a UUID such as 12345678-9abc-4def-8123-456789abcdef".to_owned()),
        Kind::Endpoint => parse_endpoint(text)
            .map(Value::Endpoint)
            .ok_or_else(|| "one of stdio, none, pty, file:PATH, unix:PATH".to_owned()),
        Kind::Descriptors => parse_descriptors(text)
            .map(Value::Descriptors)
            .ok_or_else(|| "a list of descriptors such as 3,4, each once".to_owned()),
    }
}

fn in_range(bytes: Option<u64>, min: u64, max: u64) -> Option<Value> {
    bytes.filter(|n| (min..=max).contains(n)).map(Value::Int)
}

fn expected_size(min: u64, max: u64, unit: &str) -> String {
    format!(
        "a size from {} to {}, such as 64K, 512M or 2G; a plain number is in {unit}",
        size(min),
        size(max)
    )
}

/// `bytes` as a value of a key: in the largest unit that leaves no rest.
#[must_use]
pub fn size(bytes: u64) -> String {
    [(40, "T"), (30, "G"), (20, "M"), (10, "K")]
        .iter()
        .find(|(shift, _)| bytes != 0 && bytes.is_multiple_of(1 << shift))
        .map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Some(true),
        "false" | "off" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// Decimal, or hexadecimal after `0x`. A leading zero is refused: some readers take it for octal.
fn parse_int(text: &str) -> Option<u64> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return digits_only(digits, 16).then(|| u64::from_str_radix(digits, 16).ok())?;
    }
    if !digits_only(text, 10) || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.parse().ok()
}

fn digits_only(text: &str, radix: u32) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_digit(radix))
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_lowercase();
    if digits.is_empty() || text.starts_with("0x") || text.starts_with("0X") {
        return parse_int(text);
    }
    let shift = match unit.as_str() {
        "" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return None,
    };
    parse_int(digits)?.checked_mul(1 << shift)
}

fn parse_path(text: &str) -> Option<String> {
    (!text.is_empty() && !text.contains('\0')).then(|| text.to_owned())
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2 && digits_only(part, 16))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    (parts.next().is_none() && mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
}

/// Processors of one machine are numbered below this.
const MAX_CPUS: u32 = 4096;

fn parse_cpus(text: &str) -> Option<Vec<u32>> {
    let mut cpus = std::collections::BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| u32::try_from(parse_int(text)?).ok().filter(|n| *n < MAX_CPUS);
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus.into_iter().collect())
}

/// `BUS:SLOT.FUNCTION` in decimal; bus and function are 0 when they are left out.
pub(crate) fn parse_address(text: &str) -> Option<PciAddress> {
    let (bus, rest) = text.split_once(':').unwrap_or(("0", text));
    let (slot, function) = rest.split_once('.').unwrap_or((rest, "0"));
    let number = |text: &str, max: u64| {
        let n = parse_int(text).filter(|n| *n <= max && digits_only(text, 10))?;
        u8::try_from(n).ok()
    };
    Some(PciAddress { bus: number(bus, 255)?, slot: number(slot, 31)?, function: number(function, 7)? })
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    if lengths != [8, 4, 4, 4, 12] || !groups.iter().all(|group| digits_only(group, 16)) {
        return None;
    }
    u128::from_str_radix(&groups.concat(), 16).ok().map(u128::to_be_bytes)
}

fn parse_descriptors(text: &str) -> Option<Vec<i32>> {
    let mut fds = Vec::new();
    for part in text.split(',') {
        let fd = parse_int(part).filter(|n| (3..=65_535).contains(n)).and_then(|n| i32::try_from(n).ok())?;
        if fds.contains(&fd) {
            return None;
        }
        fds.push(fd);
    }
    Some(fds)
}

fn parse_endpoint(text: &str) -> Option<Endpoint> {
    match text {
        "stdio" => Some(Endpoint::Stdio),
        "none" => Some(Endpoint::None),
        "pty" => Some(Endpoint::Pty),
        _ => match text.split_once(':')? {
            ("file", path) => parse_path(path).map(Endpoint::File),
            ("unix", path) => parse_path(path).map(Endpoint::Unix),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units_and_do_not_wrap() {
        let kind = Kind::Size { min: 0, max: u64::MAX };
        assert_eq!(parse(kind, "64K"), Ok(Value::Int(65536)));
        assert_eq!(parse(kind, "2GiB"), Ok(Value::Int(2 << 30)));
        assert_eq!(parse(kind, "0x1000"), Ok(Value::Int(4096)));
        for bad in
            ["", "K", "-1", "1.5G", "1 G", "99999999T", "18446744073709551616", "1X", "010", "0x", "+1"]
        {
            assert!(parse(kind, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_plain_memory_size_below_a_mebibyte_counts_mebibytes() {
        let kind = Kind::Memory { min: 1 << 20, max: 1 << 40 };
        assert_eq!(parse(kind, "256"), Ok(Value::Int(256 << 20)));
        assert_eq!(parse(kind, "0x100"), Ok(Value::Int(256 << 20)));
        assert_eq!(parse(kind, "268435456"), Ok(Value::Int(256 << 20)));
        assert!(parse(kind, "1K").is_err(), "a unit is taken at its word");
    }

    #[test]
    fn addresses_of_hardware_are_strict() {
        assert_eq!(parse_mac("52:54:00:12:34:56"), Some([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        for bad in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "01:00:00:00:00:00",
            "00:00:00:00:00:00",
            "5:4:0:1:3:6",
        ] {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
        assert_eq!(parse_address("0:31.7"), Some(PciAddress { bus: 0, slot: 31, function: 7 }));
        assert_eq!(parse_address("4"), Some(PciAddress { bus: 0, slot: 4, function: 0 }));
        for bad in ["", "0:", "4.", "0:32.0", "256:0.0", "0:1.8", "00:1f.0", "0:0x4.0"] {
            assert_eq!(parse_address(bad), None, "{bad}");
        }
        assert!(parse_uuid("12345678-9abc-4def-8123-456789abcdef").is_some());
        assert_eq!(parse_uuid("123456789abc4def8123456789abcdef"), None);
    }

    #[test]
    fn lists_of_processors_are_bounded() {
        assert_eq!(parse_cpus("0-2,7,1"), Some(vec![0, 1, 2, 7]));
        for bad in ["", "3-1", "0-4294967295", "0-", ",", "4096"] {
            assert_eq!(parse_cpus(bad), None, "{bad}");
        }
    }

    #[test]
    fn descriptors_are_not_those_of_the_standard_streams() {
        assert_eq!(parse_descriptors("3,17,4"), Some(vec![3, 17, 4]));
        for bad in ["", "2", "3,", "3,3", "3-5", "65536", "-1"] {
            assert_eq!(parse_descriptors(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_print_in_the_largest_whole_unit() {
        assert_eq!([size(0), size(1536), size(1 << 20), size(3 << 30)], ["0", "1536", "1M", "3G"]);
    }
}
