//! Why an image cannot be opened.

use std::io;
use std::path::{Path, PathBuf};

use crate::zoned::DeviceError;
use crate::zoned::image::ImageError;

/// Why an image cannot be opened, with the path and the cause in its message and what to do about
/// it in [`Error::hint`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing is there.
    #[error("disk image {} does not exist", .path.display())]
    Missing {
        /// The image.
        path: PathBuf,
    },
    /// It is there and may not be opened this way.
    #[error("no permission to open disk image {} for {}", .path.display(), access(*.read_only))]
    Permission {
        /// The image.
        path: PathBuf,
        /// Whether it was to be opened read-only.
        read_only: bool,
    },
    /// A directory is no disk.
    #[error("disk image {} is a directory", .path.display())]
    Directory {
        /// The image.
        path: PathBuf,
    },
    /// A pipe, a socket, a character device.
    #[error("disk image {} is a {kind}, neither a regular file nor a block device", .path.display())]
    NotADisk {
        /// The image.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// It holds less than one sector of 512 bytes.
    #[error("disk image {} is empty ({bytes} bytes; a disk has at least one block of {block})", .path.display())]
    Empty {
        /// The image.
        path: PathBuf,
        /// Its length in bytes.
        bytes: u64,
        /// The least that is a disk, in bytes.
        block: u32,
    },
    /// Somebody else has it open.
    #[error("disk image {} is in use: {}", .path.display(), in_use(*.read_only))]
    Locked {
        /// The image.
        path: PathBuf,
        /// Whether it was to be opened read-only.
        read_only: bool,
    },
    /// The file system has no direct I/O.
    #[error("disk image {} cannot be opened with direct I/O", .path.display())]
    NoDirect {
        /// The image.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// It has no zones, or none that this program can serve.
    #[error("cannot use {} as a zoned disk image", .path.display())]
    Zoned {
        /// The image.
        path: PathBuf,
        /// Why not.
        source: ImageError,
    },
    /// It is no block device with zones, or has them in a way that this program cannot serve.
    #[error("cannot pass the zones of {} through", .path.display())]
    ZonedDevice {
        /// The device.
        path: PathBuf,
        /// Why not.
        source: DeviceError,
    },
    /// Opening a zoned image means writing to it.
    #[error("zoned disk image {} cannot be opened read-only", .path.display())]
    ZonedReadOnly {
        /// The image.
        path: PathBuf,
    },
    /// Anything else the kernel says.
    #[error("cannot {action} disk image {}", .path.display())]
    Host {
        /// The image.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
}

impl Error {
    /// What the user can do about it, as a sentence without a full stop.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { path } => {
                Some(format!("check the path, or make an empty disk with `truncate -s 10G {}`", path.display()))
            }
            Self::Permission { read_only: false, .. } => {
                Some("give this user write access to it, or open it read-only".into())
            }
            Self::Permission { read_only: true, .. } => Some("give this user read access to it".into()),
            Self::Directory { .. } => Some("name a file in it; a directory is shared, not attached as a disk".into()),
            Self::NotADisk { .. } => Some("name a regular file or a block device".into()),
            Self::Empty { path, .. } => Some(format!("give it a size with `truncate -s 10G {}`", path.display())),
            Self::Locked { read_only: false, .. } => Some(
                "stop the other virtual machine or tool; several may share an image only if all open it read-only"
                    .into(),
            ),
            Self::Locked { read_only: true, .. } => {
                Some("stop whoever writes to it: a disk that changes underneath a guest looks corrupt".into())
            }
            Self::NoDirect { .. } => Some("turn direct I/O off for this disk".into()),
            Self::Zoned { source, .. } => match source {
                ImageError::NotAnImage => Some("make one with `parador image create`".into()),
                ImageError::Newer(_) => Some("use the version of this program that made it, or a newer one".into()),
                ImageError::Damaged(_) => Some("keep a copy of it as it is; `parador image check` says more".into()),
                ImageError::Host { .. } => None,
            },
            Self::ZonedDevice { source, .. } => source.hint(),
            Self::ZonedReadOnly { .. } => Some("open it for writing, or a copy of it".into()),
            Self::Host { .. } => None,
        }
    }

    /// The image it is about.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Missing { path }
            | Self::Permission { path, .. }
            | Self::Directory { path }
            | Self::NotADisk { path, .. }
            | Self::Empty { path, .. }
            | Self::Locked { path, .. }
            | Self::NoDirect { path, .. }
            | Self::Zoned { path, .. }
            | Self::ZonedDevice { path, .. }
            | Self::ZonedReadOnly { path }
            | Self::Host { path, .. } => path,
        }
    }
}

fn access(read_only: bool) -> &'static str {
    if read_only { "reading" } else { "reading and writing" }
}

fn in_use(read_only: bool) -> &'static str {
    if read_only { "somebody has it open for writing" } else { "somebody else has it open" }
}
