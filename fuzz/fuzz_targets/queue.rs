//! Any bytes as a split ring.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    parador_virtio::testing::hostile::exercise_queue(bytes);
});
