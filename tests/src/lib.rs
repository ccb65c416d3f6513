//! Tests that boot real guests. Each shell file under `scenarios/` is one test (`build.rs` writes the
//! list); `cargo xtask lab NAME` runs one by hand. `lib/` is what they share.
//!
//! ```
//! // A scenario's first comment block declares what it needs.
//! let scenario = xtask::lab::Scenario::open("lab")?;
//! assert!(scenario.needs.is_empty());
//! # Ok::<(), anyhow::Error>(())
//! ```
