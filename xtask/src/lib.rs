//! The chores of the project, as functions: `cargo xtask` calls them, and so do the tests that boot
//! real guests.
//!
//! ```
//! // Every scenario declares what it needs in its first lines.
//! for name in xtask::lab::names()? {
//!     xtask::lab::Scenario::open(&name)?;
//! }
//! # Ok::<(), anyhow::Error>(())
//! ```

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test stops at the first surprise"))]

pub mod bench;
pub mod cache;
pub mod command;
pub mod cpio;
pub mod demo;
pub mod docs;
pub mod fuzz;
pub mod guest;
pub mod lab;
pub mod soak;
mod tally;
pub mod test;
pub mod tidy;
