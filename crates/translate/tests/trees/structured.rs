//! TOML and JSON.

use std::collections::BTreeMap;

use parador_config::{Origin, Tree};
use parador_translate::{Format, Input, export, import};
use proptest::prelude::*;
use proptest::sample::select;

use crate::generate::{Subset, text};
use crate::{come_back, devices};

#[test]
fn every_tree_comes_back_from_toml() {
    come_back(Format::Toml, &Subset::ALL);
    come_back(Format::Toml, &Subset { named: false, own: false, ..Subset::ALL });
}

#[test]
fn every_tree_comes_back_from_json() {
    come_back(Format::Json, &Subset::ALL);
    come_back(Format::Json, &Subset { named: false, own: false, ..Subset::ALL });
}

/// Every key with its value as it is written.
fn written(tree: &Tree) -> BTreeMap<String, String> {
    tree.in_order().into_iter().map(|(key, setting)| (key.to_owned(), setting.raw().into_owned())).collect()
}

/// Parts of keys that mean something to a structured file.
const PARTS: &[&str] = &[
    "0",
    "00",
    "1",
    "a",
    "apply",
    "arg",
    "args",
    "auto",
    "boot",
    "bridge",
    "device",
    "disk",
    "disk0",
    "engine",
    "fs0",
    "id",
    "include",
    "kernel",
    "memory",
    "model",
    "net",
    "net0",
    "params",
    "path",
    "q",
    "share",
    "sharename",
    "size",
    "tap",
    "template",
    "var",
];

fn any_tree() -> impl Strategy<Value = Tree> {
    let part = || select(PARTS);
    let key = prop_oneof![
        proptest::collection::vec(part(), 1..5).prop_map(|parts| parts.join(".")),
        (
            select(vec!["device.disk0", "device.net0", "device.fs0", "engine.q", "engine.q.arg", "memory"]),
            part()
        )
            .prop_map(|(head, part)| format!("{head}.{part}")),
    ];
    let value = prop_oneof![
        select(PARTS).prop_map(str::to_owned),
        select(vec!["virtio-9p", "virtio-blk"]).prop_map(str::to_owned),
        text(20)
    ];
    let leaves = proptest::collection::vec((key, value), 0..12);
    let device = select(vec![
        "",
        "disk0 model virtio-blk path x",
        "net0 model virtio-net backend tap tap.create auto tap.bridge br0",
        "fs0 model virtio-9p sharename a.b path /p",
    ]);
    let devices = proptest::collection::vec(device, 0..3);
    (devices, leaves).prop_map(|(devices, leaves)| {
        let mut tree = Tree::default();
        for device in devices {
            let words: Vec<&str> = device.split(' ').collect();
            for pair in words[1..].chunks(2) {
                tree.set_raw(
                    &format!("device.{}.{}", words[0], pair[0]),
                    pair[1].to_owned(),
                    Origin::Argument(1),
                );
            }
        }
        for (key, value) in leaves {
            tree.set_raw(&key, value, Origin::Argument(1));
        }
        tree
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Keys that no table has come back as well, however they clash with the words of a file; but for
    /// those that are such words, which are said to be lost.
    #[test]
    fn keys_that_clash_come_back_or_are_lost(tree in any_tree()) {
        for format in [Format::Toml, Format::Json] {
            let exported = export(format, &tree).unwrap();
            let shown = exported.output.to_string();
            let imported = import(format, Input::Text { name: "tree", bytes: shown.as_bytes() });
            let imported = imported.unwrap_or_else(|wrong| panic!("{wrong}\n{shown}"));
            let mut expected = written(&tree);
            for loss in &exported.losses {
                let key = loss.what.split('=').next().unwrap();
                prop_assert!(!key.contains('.') && expected.remove(key).is_some(), "{}", loss.what);
            }
            prop_assert_eq!(written(&imported.tree), expected, "{}", shown);
            if !written(&tree).keys().any(|key| key.split('.').nth(2) == Some("id")) {
                prop_assert_eq!(devices(&imported.tree), devices(&tree), "{}", shown);
            }
        }
    }
}
