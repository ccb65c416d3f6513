//! Any changes to a kernel that the machine would boot.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    parador_fuzz::kernel::exercise(bytes);
});
