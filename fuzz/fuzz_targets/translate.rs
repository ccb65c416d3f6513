//! Files and command lines of other systems.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    parador_fuzz::translate::exercise(bytes);
});
