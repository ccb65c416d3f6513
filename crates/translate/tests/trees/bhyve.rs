//! bhyve's command line and its files.

use parador_config::keys::{Key, Kind};
use parador_config::{Origin, Tree};
use parador_translate::{Fate, Format};
use proptest::prelude::*;
use proptest::sample::select;

use crate::come_back_as;
use crate::generate::{Subset, path, text};

const SUBSET: Subset = Subset {
    models: &[
        "ahci",
        "e1000",
        "fbuf",
        "hda",
        "nvme",
        "passthru",
        "uart",
        "virtio-9p",
        "virtio-blk",
        "virtio-console",
        "virtio-input",
        "virtio-net",
        "virtio-rnd",
        "virtio-scsi",
        "xhci",
    ],
    key: said,
    value: values,
    // What bhyve is always told.
    always: &[("name", "vm"), ("console", "stdio")],
    named: false,
    own: false,
    ordered: false,
};

/// Whether bhyve has this key.
fn said(key: &Key, model: Option<&str>) -> bool {
    let fits = |pattern: &str| {
        let mut parts = key.pattern.split('.');
        let (pattern, rest) = pattern.strip_suffix(".**").map_or((pattern, false), |pattern| (pattern, true));
        pattern.split('.').all(|want| parts.next().is_some_and(|part| want == "*" || want == part))
            && parts.next().is_some() == rest
    };
    let fate = Format::BhyveArgs.fates().rows().find(|(pattern, _)| fits(pattern));
    if fate.map(|(_, fate)| fate) != Some(Fate::Mapped) || key.pattern.starts_with("engine.") {
        return false;
    }
    let field = key.pattern.strip_prefix("device.*.").unwrap_or_default();
    match model {
        Some("virtio-net" | "e1000") => ["tap.name", "mac", "mtu", "bootindex"].contains(&field),
        Some("virtio-rnd") => false,
        Some("ahci") => field.starts_with("port."),
        Some("virtio-blk" | "nvme") => !["addr", "backend", "socket"].contains(&field),
        Some("passthru") => !["addr", "host"].contains(&field),
        _ => !["addr", "socket"].contains(&field),
    }
}

fn values(key: &Key, model: Option<&str>) -> Option<BoxedStrategy<String>> {
    let serial = || {
        prop_oneof![
            select(vec!["stdio", "tcp=127.0.0.1:1234", "/dev/nmdm0A"]).prop_map(str::to_owned),
            path(),
        ]
        .boxed()
    };
    match (key.pattern, model) {
        ("console" | "lpc.com2.path" | "lpc.com3.path" | "lpc.com4.path", _) => Some(serial()),
        ("device.*.path", Some("uart")) => Some(serial()),
        ("device.*.port.*.path" | "device.*.port.0.path", Some("virtio-console")) => {
            Some(path().prop_map(|path| format!("unix:{path}")).boxed())
        }
        // bhyve has no text of nothing.
        _ => match key.kind {
            Kind::Text { max } => Some(
                text(max).prop_filter("some text", |text| !text.is_empty() && !text.contains('\0')).boxed(),
            ),
            _ => None,
        },
    }
}

/// Every device at a place of its own, and called after it, as bhyve has them; and the bridges.
fn placed(tree: &Tree) -> Tree {
    let mut out = Tree::default();
    let mut nodes: Vec<String> = Vec::new();
    let here = || Origin::Argument(1);
    for (slot, model) in [(0, "hostbridge"), (31, "lpc")] {
        out.set(&format!("device.pci-0-{slot}-0.model"), model, here());
        out.set(&format!("device.pci-0-{slot}-0.addr"), format!("0:{slot}.0"), here());
    }
    for (key, setting) in tree.in_order() {
        let Some((id, field)) = key.strip_prefix("device.").and_then(|rest| rest.split_once('.')) else {
            out.set(key, setting.value.clone(), here());
            continue;
        };
        let index = nodes.iter().position(|known| known == id).unwrap_or_else(|| {
            nodes.push(id.to_owned());
            nodes.len() - 1
        });
        let (slot, function) = (1 + index / 3, index % 3);
        let node = format!("device.pci-0-{slot}-{function}");
        out.set(&format!("{node}.addr"), format!("0:{slot}.{function}"), here());
        out.set(&format!("{node}.{field}"), setting.value.clone(), here());
    }
    out
}

#[test]
fn a_command_line_of_bhyve_comes_back() {
    come_back_as(Format::BhyveArgs, &SUBSET, placed);
}

#[test]
fn a_file_of_bhyve_comes_back() {
    come_back_as(Format::BhyveConfig, &SUBSET, placed);
}
