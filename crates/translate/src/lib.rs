//! Other systems' words for a virtual machine, to and from one flat tree of keys.
//!
//! The tree is the hub, every format a spoke: [`import`] reads one into a tree, [`export`] writes
//! a tree as one, and each returns what it lost on the way ([`Loss`]). What a format cannot say is
//! never dropped in silence; options of another system that have no key are kept under
//! `engine.<name>.arg.<n>`, in order, and come back when the tree is exported to that system again.
//!
//! Each format also says, pattern by pattern, which keys of the table it maps and which it refuses
//! and why ([`Format::fates`]); a test holds those lists against the table.
//!
//! ```
//! use parador_translate::{Format, Input, export, import};
//!
//! let flat = Input::Text { name: "web.conf", bytes: b"name=web\ncpus=2\nmemory.size=1G\n" };
//! let imported = import(Format::Flat, flat).expect("it is well written");
//! assert_eq!(imported.tree.setting("cpus").map(|cpus| cpus.value.as_str()), Some("2"));
//! assert!(imported.losses.is_empty());
//! let exported = export(Format::Flat, &imported.tree).expect("every tree has this form");
//! assert_eq!(exported.output.to_string(), "cpus=2\nmemory.size=1G\nname=web\n");
//! ```

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test stops at the first surprise"))]

pub mod bhyve;
mod cloud_hypervisor;
mod crosvm;
mod fates;
mod firecracker;
mod flat;
mod format;
mod guess;
mod json;
mod keys;
mod libvirt;
mod parts;
mod qemu;
mod reading;
mod structured;
mod text;
mod words;
mod writing;

pub use fates::{Fate, Fates};
pub use format::{Exported, Format, Imported, Input, Load, Loss, Output, export, import, import_with};
pub use keys::Keys;
