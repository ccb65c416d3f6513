//! The back-end, message by message, against a front-end made of the codec alone.
//!
//! Names in comments (`R23`) are those of docs/vhost-user.md.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod borrow;
mod channel;
mod config;
mod device;
mod front;
mod header;
mod inflight;
mod memory;
mod migration;
mod peer;
mod rings;
mod sessions;
