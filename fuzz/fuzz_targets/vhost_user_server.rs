//! Any messages and descriptors for a vhost-user back-end.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| parador_fuzz::vhost_user_server::exercise(bytes));
