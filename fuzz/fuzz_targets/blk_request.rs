//! Any bytes as a disk request.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| parador_fuzz::blk_request::exercise(bytes));
