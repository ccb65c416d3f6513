//! The front-end against back-ends that are not ours.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod fake;
mod misbehave;
mod negotiate;
mod reverse;
mod rust_vmm;
