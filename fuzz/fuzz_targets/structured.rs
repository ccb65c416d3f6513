//! TOML files that include each other and apply templates.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    parador_fuzz::structured::exercise(bytes);
});
