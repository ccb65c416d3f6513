//! Where devices sit.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::alias;
use crate::diagnose::{Diagnostic, Diagnostics, Severity};
use crate::place::at_value;
use crate::tree::{Setting, Tree};
use crate::value::{PciAddress, parse_address};

/// Reports devices that are said to be in two places, and places that are said to have two devices.
pub(crate) fn check(tree: &Tree, diagnostics: &mut Diagnostics) {
    let mut fixed: BTreeMap<String, (PciAddress, &Setting)> = BTreeMap::new();
    let mut taken: BTreeMap<PciAddress, (&str, &Setting)> = BTreeMap::new();
    let all = tree.in_order();
    for (_, setting) in &all {
        if let Some((address, _)) = alias::pci(setting.spelt("")) {
            fixed.entry(alias::id(address)).or_insert((address, setting));
        }
    }
    for (path, setting) in all {
        let device = path.strip_prefix("device.").and_then(|rest| rest.strip_suffix(".addr"));
        let Some((device, address)) = device.zip(parse_address(&setting.value)) else { continue };
        let wrong = |message: String, other: &Setting| {
            at_value(Diagnostic::new(message), path, setting)
                .note(format!("the other is at {}", other.origin))
        };
        if let Some((own, other)) = fixed.get(device)
            && *own != address
        {
            diagnostics.add(Severity::Error, || {
                wrong(format!("a device named by its address {own} cannot be at {address}"), other)
                    .hint("leave `addr` out, or give the device a name of its own")
            });
        }
        match taken.entry(address) {
            Entry::Vacant(free) => drop(free.insert((device, setting))),
            Entry::Occupied(first) => diagnostics.add(Severity::Error, || {
                let (other, place) = first.get();
                wrong(format!("device `{device}` is at {address}, where device `{other}` is"), place)
                    .hint("give each its own slot; if they are one device, call it by one name")
            }),
        }
    }
}
