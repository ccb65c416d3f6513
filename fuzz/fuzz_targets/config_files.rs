//! Any bytes as files of keys, options and names.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    parador_fuzz::config::exercise_files(bytes);
});
