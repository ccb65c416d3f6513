//! Sizes and lists of processors, as libvirt writes them and as keys do.

/// `amount` in `unit`, in bytes. libvirt's own default unit is the KiB.
pub(super) fn bytes(amount: &str, unit: Option<&str>) -> Option<u64> {
    let unit = unit.unwrap_or("KiB");
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "b" | "byte" | "bytes" => 1,
        "kb" => 1000,
        "k" | "kib" => 1 << 10,
        "mb" => 1_000_000,
        "m" | "mib" => 1 << 20,
        "gb" => 1_000_000_000,
        "g" | "gib" => 1 << 30,
        "tb" => 1_000_000_000_000,
        "t" | "tib" => 1 << 40,
        _ => return None,
    };
    number(amount)?.checked_mul(scale)
}

/// A plain decimal number.
pub(super) fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// A number as addresses have it: decimal, or hexadecimal after `0x`.
pub(super) fn any_number(text: &str) -> Option<u64> {
    match text.trim().strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+')),
        None => number(text),
    }
}

/// `bytes` as the value of a key: in the largest unit that leaves no rest.
pub(super) fn size(bytes: u64) -> String {
    let (amount, unit) = largest(bytes);
    format!("{amount}{unit}")
}

/// `bytes` as libvirt has it: an amount and its unit.
pub(super) fn amount(bytes: u64) -> (String, &'static str) {
    let (amount, unit) = largest(bytes);
    let unit = match unit {
        "T" => "TiB",
        "G" => "GiB",
        "M" => "MiB",
        "K" => "KiB",
        _ => "b",
    };
    (amount.to_string(), unit)
}

fn largest(bytes: u64) -> (u64, &'static str) {
    [(40, "T"), (30, "G"), (20, "M"), (10, "K")]
        .into_iter()
        .find(|(shift, _)| bytes != 0 && bytes.is_multiple_of(1 << shift))
        .map_or((bytes, ""), |(shift, unit)| (bytes >> shift, unit))
}

/// The bytes that the value of a key of sizes means.
pub(super) fn value(text: &str) -> Option<u64> {
    match text.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G', 't', 'T']) {
        Some(amount) => bytes(amount, text.get(amount.len()..)),
        None => number(text),
    }
}

/// The bytes that the value of a key of memory means: a small plain number counts MiB.
pub(super) fn memory(text: &str) -> Option<u64> {
    let bytes = value(text)?;
    if text.ends_with(|c: char| c.is_ascii_digit()) && bytes < 1 << 20 {
        Some(bytes << 20)
    } else {
        Some(bytes)
    }
}

/// Largest number of a processor.
const MAX_CPU: u32 = 4095;

/// The processors of libvirt's list, such as `0-3,^2,6`: later parts change what earlier ones say.
pub(super) fn cpus(list: &str) -> Option<String> {
    let mut set = vec![false; MAX_CPU as usize + 1];
    for part in list.split(',') {
        let part = part.trim();
        let (wanted, part) = part.strip_prefix('^').map_or((true, part), |part| (false, part));
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let cpu = |text| number(text).and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= MAX_CPU);
        let (first, last) = (cpu(first)?, cpu(last)?);
        if first > last {
            return None;
        }
        set[first as usize..=last as usize].fill(wanted);
    }
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (cpu, _) in set.iter().enumerate().filter(|(_, wanted)| **wanted) {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => runs.push((cpu, cpu)),
        }
    }
    let run = |(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    (!runs.is_empty()).then(|| runs.iter().map(run).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_libvirts_units() {
        assert_eq!(bytes("219136", None), Some(219_136 << 10));
        assert_eq!(bytes(" 4 ", Some("G")), Some(4 << 30));
        assert_eq!(bytes("1", Some("GB")), Some(1_000_000_000));
        assert_eq!(bytes("1", Some("bytes")), Some(1));
        for (amount, unit) in
            [("-1", "M"), ("1.5", "G"), ("", "G"), ("1", "furlong"), ("18446744073709551615", "T")]
        {
            assert_eq!(bytes(amount, Some(unit)), None, "{amount} {unit}");
        }
    }

    #[test]
    fn values_of_keys_come_and_go() {
        assert_eq!(
            [value("4G"), value("512"), value("2m"), value("4X"), value("")],
            [Some(4 << 30), Some(512), Some(2 << 20), None, None]
        );
        assert_eq!(
            [memory("512"), memory("1048576"), memory("4G")],
            [Some(512 << 20), Some(1 << 20), Some(4 << 30)]
        );
        assert_eq!(size(3 << 29), "1536M");
        assert_eq!([amount(1000), amount(1 << 30)], [("1000".to_owned(), "b"), ("1".to_owned(), "GiB")]);
    }

    #[test]
    fn lists_of_processors_can_leave_some_out() {
        assert_eq!(cpus("1-4,^2").as_deref(), Some("1,3-4"));
        assert_eq!(cpus("0, 4").as_deref(), Some("0,4"));
        for bad in ["", "^1", "4-1", "a", "1,,2", "4096", "0-99999999999"] {
            assert_eq!(cpus(bad), None, "{bad}");
        }
    }
}
