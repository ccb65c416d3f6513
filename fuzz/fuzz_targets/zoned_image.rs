//! Any changes to a zoned image, with checksums that are right.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    parador_fuzz::zoned_image::exercise(bytes);
});
