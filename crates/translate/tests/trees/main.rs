//! For each format: a tree that it can say comes back from it as it was.
//!
//! A format adds a module that says which subset that is ([`generate::Subset`]) and calls
//! [`come_back`].

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod bhyve;
mod flat;
mod generate;
mod libvirt;
mod qemu;
mod structured;
mod vmms;

use std::collections::BTreeMap;

use parador_config::{Diagnostics, Tree};
use parador_translate::{Format, Input, Output, export, import};
use proptest::test_runner::{Config, TestRunner};

use generate::{Subset, trees};

/// Every key with what its value means.
fn leaves(tree: &Tree) -> BTreeMap<String, String> {
    let mut diagnostics = Diagnostics::default();
    let tree = tree.expand(&mut diagnostics);
    assert_eq!(diagnostics.to_string(), "");
    tree.in_order().into_iter().map(|(key, setting)| (key.to_owned(), setting.value.clone())).collect()
}

/// The devices, in the order that decides where they sit.
fn devices(tree: &Tree) -> Vec<&str> {
    let mut devices = Vec::new();
    for (key, _) in tree.in_order() {
        if let Some((id, _)) = key.strip_prefix("device.").and_then(|rest| rest.split_once('.'))
            && !devices.contains(&id)
        {
            devices.push(id);
        }
    }
    devices
}

/// Writes and reads many trees of `subset`; none may lose anything.
fn come_back(format: Format, subset: &Subset) {
    come_back_as(format, subset, Tree::clone);
}

/// As [`come_back`], of what `form` makes of each tree.
fn come_back_as(format: Format, subset: &Subset, form: impl Fn(&Tree) -> Tree) {
    let mut runner = TestRunner::new(Config { cases: 100, failure_persistence: None, ..Config::default() });
    runner
        .run(&trees(subset), |tree| {
            let tree = form(&tree);
            let exported = export(format, &tree).unwrap_or_else(|wrong| panic!("{wrong}"));
            assert!(exported.losses.is_empty(), "{:?}", exported.losses);
            let shown = exported.output.to_string();
            let input = match &exported.output {
                Output::Text(text) => Input::Text { name: "tree", bytes: text.as_bytes() },
                Output::Arguments(words) => Input::Arguments { first: 1, words: &words[1..] },
            };
            let imported = import(format, input).unwrap_or_else(|wrong| panic!("{wrong}\n{shown}"));
            assert!(imported.losses.is_empty(), "{:?}\n{shown}", imported.losses);
            assert_eq!(leaves(&imported.tree), leaves(&tree), "{shown}");
            if subset.ordered {
                assert_eq!(devices(&imported.tree), devices(&tree), "{shown}");
            }
            if matches!(exported.output, Output::Arguments(_)) {
                let input = Input::Text { name: "script", bytes: shown.as_bytes() };
                let again = import(format, input).unwrap_or_else(|wrong| panic!("{wrong}\n{shown}"));
                assert_eq!(leaves(&again.tree), leaves(&tree), "from a file: {shown}");
            }
            Ok(())
        })
        .unwrap();
}
