//! What a disk image is: raw files and block devices, read and written by positional I/O on the
//! caller's thread, a few threads, or io_uring.
//!
//! [`Image::open`] finds out what an image is, how big, and that nobody else writes to it;
//! [`Image::queue`] makes a [`Disk`] of it, one per virtqueue. There is no virtio in here: a request
//! is an [`Op`] with a [`Tag`], its memory a list of [`Buffer`]s.
//!
//! ```
//! use parador_block::{Aio, Disk, Image, Op, RawOptions, Submitted};
//!
//! let file = tempfile::NamedTempFile::new()?;
//! file.as_file().set_len(1 << 20)?;
//!
//! let options = RawOptions { aio: Aio::Sync, ..RawOptions::new(file.path()) };
//! let image = Image::open(&options)?;
//! assert_eq!(image.size(), 1 << 20);
//!
//! let mut disk = image.queue(1)?;
//! let zeroes = Op::WriteZeroes { offset: 4096, len: 8192, unmap: true };
//! assert!(matches!(disk.submit(zeroes, 7), Submitted::Done(Ok(_))));
//!
//! // A second writer is refused, and told what to do.
//! let error = Image::open(&options).unwrap_err();
//! assert!(error.to_string().ends_with("is in use: somebody else has it open"));
//! assert!(error.hint().is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test stops at the first surprise"))]

// Loom looks at zones and letters, which is all it understands of this crate.
#[cfg(not(loom))]
mod buffer;
#[cfg(not(loom))]
mod disk;
#[cfg(not(loom))]
mod engine;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod image;
#[cfg(not(loom))]
mod raw;
#[cfg(not(loom))]
mod sys;
#[cfg(not(loom))]
mod sysfs;
pub mod zoned;

#[cfg(not(loom))]
pub use buffer::Buffer;
#[cfg(not(loom))]
pub use disk::{Aio, Disk, Fault, Op, Outcome, Submitted, Tag, ZoneAction};
#[cfg(not(loom))]
pub use error::Error;
#[cfg(not(loom))]
pub use image::{Image, RawOptions, SECTOR, Topology};
