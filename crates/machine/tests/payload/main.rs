//! A few instructions on the real `/dev/kvm`: what a guest does, and what becomes of it.
//!
//! Any KVM will do, also one that cannot run an ordinary kernel. Without one the tests say that they
//! are skipped.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod code;
mod guest;

mod devices;
mod ends;
mod interrupts;
mod life;
mod shared_memory;
mod virtio;
