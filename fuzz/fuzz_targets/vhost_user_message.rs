//! Any bytes as a vhost-user message.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| parador_fuzz::vhost_user_message::exercise(bytes));
