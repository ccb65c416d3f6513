//! Any answers and requests for a vhost-user front-end.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| parador_fuzz::vhost_user_frontend::exercise(bytes));
