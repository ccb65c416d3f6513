//! Values of keys that refer to each other.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    parador_fuzz::config::exercise_references(bytes);
});
