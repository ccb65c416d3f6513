//! What a user may ask of a virtual machine: one flat tree of keys, judged by one table.
//!
//! Every way to describe a machine ends in the same leaves, `key=value` ([`Tree`]): files, options
//! of a command line, a name. [`keys::all`] is the one table of what may be asked; [`Tree::check`]
//! holds the tree against it and gives typed values ([`Checked`]) or says all that is wrong at
//! once ([`Diagnostics`]), each with its place and, where there is one, a way out.
//!
//! This crate reads what it is given and opens nothing.
//!
//! ```
//! use parador_config::{Source, Tree};
//!
//! let file = b"cpus=2\nmemory.size=512M\nboot.kernel=/boot/vmlinuz\n\
//!              device.root.model=virtio-blk\ndevice.root.path=/vm/root.img\n";
//! let (tree, mut diagnostics) = Tree::from_sources(&[
//!     Source::Option { argument: 2, text: "cpus=4" },
//!     Source::File { name: "web.conf", bytes: file },
//! ]);
//! let checked = tree.check(&mut diagnostics);
//! assert_eq!(diagnostics.errors(), 0);
//! assert_eq!(checked.int("cpus"), Some(4)); // options win over files, wherever they stand
//! assert_eq!(checked.int("memory.size"), Some(512 << 20));
//! assert_eq!(checked.devices()[0].model, "virtio-blk");
//!
//! let (tree, mut diagnostics) = Tree::from_sources(&[Source::Option { argument: 2, text: "memory=1G" }]);
//! tree.check(&mut diagnostics);
//! assert!(diagnostics.to_string().contains("did you mean `memory.size`?"));
//! ```

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test stops at the first surprise"))]

mod addresses;
mod alias;
mod check;
mod diagnose;
mod dump;
mod expand;
pub mod keys;
mod nearest;
mod origin;
mod parse;
mod place;
mod printable;
mod quote;
mod support;
mod tree;
mod unknown;
mod value;

pub use check::{Checked, Device};
pub use diagnose::{Diagnostic, Diagnostics, Severity};
pub use dump::Dump;
pub use origin::Origin;
pub use parse::Source;
pub use tree::{Setting, Tree};
pub use value::{Endpoint, PciAddress, Value, size};
