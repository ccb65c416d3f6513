//! What our devices do.
//!
//! Each is a [`parador_virtio::VirtioDevice`]: whoever drives it (a register transport, a vhost-user
//! server, the model driver of the tests) hands it rings, and knows nothing else about it.
//!
//! | module | device | at the host's end |
//! |---|---|---|
//! | [`balloon`] | memory balloon, virtio 1.3 §5.5 | guest memory itself |
//! | [`blk`] | disk, §5.2 | an image of the crate `parador-block` |
//! | [`console`] | console, §5.3 | descriptors, a pseudo-terminal, a file, a socket |
//! | [`net`] | network interface, §5.1 | queues of a TAP interface |
//! | [`rng`] | entropy, §5.4 | the kernel, or a file |
//! | [`vsock`] | sockets, §5.10 | UNIX sockets |
//!
//! ```
//! use parador_block::{Image, RawOptions};
//! use parador_devices::blk::{Blk, BlkOptions};
//! use parador_virtio::testing::Harness;
//!
//! let file = tempfile::NamedTempFile::new()?;
//! file.as_file().set_len(1 << 20)?;
//! let image = Image::open(&RawOptions::new(file.path()))?;
//! let disk = Blk::new(BlkOptions { serial: "disk-0".into(), ..BlkOptions::new(image) })?;
//!
//! // A driver asks for the serial number: type 8, and room for 20 bytes and a status.
//! let mut header = [0; 16];
//! header[0] = 8;
//! let reply = Harness::new(disk).request(0, &[&header], &[20, 1]);
//! assert!(reply.data.starts_with(b"disk-0\0"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test stops at the first surprise"))]

pub mod balloon;
pub mod blk;
pub mod console;
pub mod net;
pub mod rng;
pub mod socket;
pub mod vsock;

mod config_space;
mod sys;
