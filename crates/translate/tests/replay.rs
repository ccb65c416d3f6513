//! Real files with some of their bytes changed: each is read or refused, and what was read can be
//! written, in every format. The fuzz target `translate` does the same for longer;
//! `structured` makes files that include each other.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "../../../fuzz/src/translate.rs"]
#[expect(unreachable_pub, reason = "public for the fuzz targets")]
mod translate;

#[path = "../../../fuzz/src/structured.rs"]
#[expect(unreachable_pub, reason = "public for the fuzz targets")]
mod structured;

use std::cell::Cell;
use std::fs;
use std::path::Path;

use parador_translate::Format;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// All files of `tests/golden`, each after its two bytes.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (number, format) in Format::ALL.iter().enumerate() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format.name());
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            let mut seed = vec![u8::try_from(number).unwrap(), 0];
            seed.extend(fs::read(path).unwrap());
            seeds.push(seed);
        }
    }
    seeds.sort();
    seeds
}

/// Bytes that mean something to one format or another.
const ODD: &[u8] = b"<>&;,=\"'[]{}:.%/\\-@\n\t 09\0\xff";

#[test]
fn changed_files_are_read_or_refused() {
    let seeds = seeds();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(ODD)), 0..6);
    let config = ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&(prop::sample::select(seeds), changes), |(mut bytes, changes)| {
            for (index, byte) in changes {
                let at = 2 + index.index(bytes.len() - 2);
                bytes[at] = byte;
            }
            translate::exercise(&bytes);
            Ok(())
        })
        .unwrap();
}

#[test]
fn files_that_include_each_other_are_read_or_refused() {
    let bytes = prop::collection::vec(any::<u8>(), 0..12);
    let config = ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() };
    let read = Cell::new(0);
    TestRunner::new(config)
        .run(&bytes, |bytes| {
            read.set(read.get() + usize::from(structured::exercise(&bytes)));
            Ok(())
        })
        .unwrap();
    assert!((100..1900).contains(&read.get()), "some can be read, some cannot: {}", read.get());
}
