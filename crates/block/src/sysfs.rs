//! What the kernel says of a block device in sysfs.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// A limit of the queue of the block device with this metadata, as text; `None` when this kernel does
/// not know it.
pub(crate) fn queue(device: &Metadata, name: &str) -> Option<String> {
    let (major, minor) = (libc::major(device.rdev()), libc::minor(device.rdev()));
    let device = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    // A partition's limits are its disk's.
    let text = std::fs::read_to_string(device.join("queue").join(name))
        .or_else(|_| std::fs::read_to_string(device.join("../queue").join(name)));
    Some(text.ok()?.trim().to_owned())
}
