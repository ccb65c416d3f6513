//! Other spellings of keys: `pci.B.S.F.<key>` of bhyve_config(5), and the synonyms of the table.

use std::borrow::Cow;

use crate::keys;
use crate::value::PciAddress;

/// The key that `path` stands for: itself, if it is no alias.
pub(crate) fn canonical(path: &str) -> Cow<'_, str> {
    if let Some((address, field)) = pci(path) {
        let field = if field == ".device" { ".model" } else { field };
        return Cow::Owned(format!("device.{}{field}", id(address)));
    }
    Cow::Borrowed(keys::synonym(path).map_or(path, |(_, key)| key))
}

/// The address in `pci.B.S.F`, and what follows it: nothing, or a dot and more.
pub(crate) fn pci(path: &str) -> Option<(PciAddress, &str)> {
    let rest = path.strip_prefix("pci.")?;
    let end = rest.match_indices('.').nth(2).map_or(rest.len(), |(at, _)| at);
    let mut parts = rest[..end].split('.');
    let mut number = |max: u8| {
        let part = parts.next()?;
        let plain = part == "0" || !part.starts_with('0');
        part.parse().ok().filter(|n: &u8| plain && *n <= max && part.bytes().all(|b| b.is_ascii_digit()))
    };
    let address = PciAddress { bus: number(255)?, slot: number(31)?, function: number(7)? };
    Some((address, &rest[end..]))
}

/// What a device is called that has no name but its address.
pub(crate) fn id(address: PciAddress) -> String {
    format!("pci-{}-{}-{}", address.bus, address.slot, address.function)
}

/// The key `path` in the spelling that was used in `written` for one of the same device.
pub(crate) fn respelt(path: &str, written: &str) -> String {
    let ours = pci(written).map(|(address, _)| (address, format!("device.{}.", id(address))));
    match ours.as_ref().and_then(|(address, prefix)| Some((address, path.strip_prefix(prefix.as_str())?))) {
        Some((PciAddress { bus, slot, function }, field)) => {
            let field = if field == "model" { "device" } else { field };
            format!("pci.{bus}.{slot}.{function}.{field}")
        }
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pci_path_is_a_device_at_that_address() {
        assert_eq!(canonical("pci.0.4.0.device"), "device.pci-0-4-0.model");
        assert_eq!(canonical("pci.255.31.7.port.0.path"), "device.pci-255-31-7.port.0.path");
        assert_eq!(canonical("pci.0.4.0"), "device.pci-0-4-0");
        assert_eq!(canonical("lpc.com1.path"), "console");
        for other in ["pci.0.32.0.device", "pci.256.0.0.x", "pci.0.04.0.x", "pci.0.+4.0.x", "pci.0.4", "pci"]
        {
            assert_eq!(canonical(other), other);
        }
    }

    #[test]
    fn a_key_is_shown_in_the_spelling_of_its_neighbour() {
        assert_eq!(respelt("device.pci-0-4-0.path", "pci.0.4.0.pth"), "pci.0.4.0.path");
        assert_eq!(respelt("device.pci-0-4-0.model", "pci.0.4.0.type"), "pci.0.4.0.device");
        assert_eq!(respelt("device.disk0.path", "device.disk0.pth"), "device.disk0.path");
    }
}
