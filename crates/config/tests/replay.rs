//! Short runs of what the fuzzer runs for long.

use proptest::collection::vec;
use proptest::prelude::*;

#[path = "../../../fuzz/src/config.rs"]
#[expect(unreachable_pub, reason = "public for the fuzz targets")]
mod config;

proptest! {
    // Some inputs grow to all that is allowed, which takes its time without optimization.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn files(parts in vec(prop_oneof![
        vec(any::<u8>(), 0..40),
        "(name|cpus|var.a|pci.0.4.0.path|device.d.ser)=[a-z%()\\\\.]{0,8}\n".prop_map(String::into_bytes),
        Just(vec![0xFF]),
    ], 0..20)) {
        config::exercise_files(&parts.concat());
    }

    #[test]
    fn references(bytes in vec(any::<u8>(), 0..60)) {
        config::exercise_references(&bytes);
    }
}

#[test]
fn some_values_can_be_expanded_and_some_cannot() {
    assert_eq!(config::exercise_references(b"\x00\x01\xC1\x60"), 0);
    assert_eq!(config::exercise_references(b"\x61\xC1\x60"), 1);
}
