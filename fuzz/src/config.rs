//! Files of keys: any bytes, and values that refer to each other.
//!
//! Shared by the fuzz targets and by replays among the tests of the crate.

use parador_config::{Diagnostics, Dump, Source, Tree};

/// More than all findings about anything may take to say.
const MAX_TEXT: usize = 1 << 20;
/// Keys of the second kind of file, beside `var.0` and so on.
const KEYS: [&str; 12] = [
    "name",
    "cpus",
    "boot.cmdline",
    "device.d.model",
    "device.d.path",
    "device.d.ser",
    "device.pci-0-4-0.ser",
    "pci.0.4.0.path",
    "pci.0.4.0.device",
    "lpc.com1.path",
    "unheard.of",
    "config.unknown",
];
/// What their values are made of, beside references to them.
const TOKENS: [&str; 16] = [
    "x",
    "%%",
    "\\%",
    "\\",
    "%",
    "%(",
    ")",
    "%(.ser)",
    "%(.id)",
    "%(.x)",
    "%(memory.size)",
    "%(pci.0.4.0.path)",
    "%(name)",
    "%(lpc.com1.path)",
    "virtio-blk",
    "a text of some length, so that it grows",
];

/// Any bytes as files, options, keys to unset and a name, parted by 0xFF. Returns the number of
/// errors.
///
/// # Panics
/// Something about the tree does not hold.
pub fn exercise_files(bytes: &[u8]) -> usize {
    let texts: Vec<_> =
        bytes.split(|byte| *byte == 0xFF).map(|part| (part, String::from_utf8_lossy(part))).collect();
    let sources: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(argument, (bytes, text))| match argument % 8 {
            1 | 2 => Source::Option { argument, text },
            3 => Source::Unset { argument, key: text },
            4 => Source::Name { argument, text },
            _ => Source::File { name: "f", bytes },
        })
        .collect();
    let (tree, diagnostics) = Tree::from_sources(&sources);
    exercise(&tree, diagnostics)
}

/// Bytes as a file whose values refer to each other. Returns the number of errors.
///
/// # Panics
/// Something about the tree does not hold.
pub fn exercise_references(bytes: &[u8]) -> usize {
    let mut text = String::from("var.0=");
    for &byte in bytes {
        let low = usize::from(byte & 0x1F);
        match byte >> 5 {
            0..=2 => text.push_str(TOKENS[low % TOKENS.len()]),
            3 | 4 => text.push_str(&format!("%(var.{low})")),
            5 => text.push_str(&format!("%({})", KEYS[low % KEYS.len()])),
            6 => text.push_str(&format!("\nvar.{low}=")),
            _ => text.push_str(&format!("\n{}=", KEYS[low % KEYS.len()])),
        }
    }
    let (tree, diagnostics) = Tree::from_sources(&[Source::File { name: "f", bytes: text.as_bytes() }]);
    exercise(&tree, diagnostics)
}

/// What holds of every tree.
fn exercise(tree: &Tree, mut diagnostics: Diagnostics) -> usize {
    let _ = tree.check(&mut diagnostics);
    assert!(diagnostics.to_string().len() < MAX_TEXT);
    let mut found = Diagnostics::default();
    let expanded = tree.expand(&mut found);
    let mut nothing = Diagnostics::default();
    assert!(expanded.expand(&mut nothing) == expanded, "an expanded tree is expanded");
    assert_eq!(nothing.errors() + nothing.warnings(), 0);
    let [raw, last] = [Dump::Raw, Dump::Expanded].map(|form| {
        let dump = tree.dump(form, true);
        assert_eq!(read(&dump).dump(form, true), without_comments(&dump), "the dump of a dump is itself");
        dump
    });
    let writable =
        |tree: &Tree| tree.in_order().iter().all(|(_, setting)| !setting.value.contains(['\n', '\r']));
    if tree.setting("config.dump").is_none() && writable(tree) && writable(&expanded) {
        assert!(read(&raw) == *tree, "what was dumped comes back");
    }
    if found.errors() == 0 {
        let mut nothing = Diagnostics::default();
        let _ = read(&last).expand(&mut nothing);
        assert_eq!(nothing.to_string(), "", "an expanded dump refers to nothing");
    }
    for form in [Dump::Origin, Dump::Json] {
        let _ = tree.dump(form, false);
    }
    diagnostics.errors()
}

fn read(text: &str) -> Tree {
    let (tree, diagnostics) = Tree::from_sources(&[Source::File { name: "dump", bytes: text.as_bytes() }]);
    assert_eq!(diagnostics.to_string(), "", "a dump is well written");
    tree
}

/// The lines that say why a key is not there are not said again.
fn without_comments(dump: &str) -> String {
    dump.split_inclusive('\n').filter(|line| !line.starts_with('#')).collect()
}
