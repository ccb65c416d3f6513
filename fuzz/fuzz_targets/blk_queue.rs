//! A whole disk queue: any requests in any chains, on any ring, over a disk that checks what reaches it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| parador_devices::blk::testing::exercise_requests(bytes));
