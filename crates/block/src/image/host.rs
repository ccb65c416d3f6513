//! What the host says of the file of an image: what it is, who else has it, what it is made of.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use super::{Image, RawOptions, SECTOR, Topology};
use crate::raw::Alignment;
use crate::{Error, raw, sys, sysfs};

/// Whether it is a block device; an error when it is neither that nor a regular file.
pub(super) fn check_kind(path: &Path, metadata: &std::fs::Metadata) -> Result<bool, Error> {
    let kind = metadata.file_type();
    let not_a_disk = |kind| Err(Error::NotADisk { path: path.into(), kind });
    if kind.is_block_device() || kind.is_file() {
        Ok(kind.is_block_device())
    } else if kind.is_dir() {
        Err(Error::Directory { path: path.into() })
    } else if kind.is_char_device() {
        not_a_disk("character device")
    } else if kind.is_fifo() {
        not_a_disk("pipe")
    } else {
        not_a_disk("socket")
    }
}

pub(super) fn open_error(options: &RawOptions, source: io::Error) -> Error {
    let path = options.path.clone();
    let read_only = options.read_only;
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => Error::Missing { path },
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => Error::Permission { path, read_only },
        Some(libc::EISDIR) => Error::Directory { path },
        Some(libc::EBUSY) => Error::Locked { path, read_only },
        _ => Error::Host { path, action: "open", source },
    }
}

/// How often, and after how long, an image in use is asked for again.
const RETRIES: u32 = 150;
const RETRY: Duration = Duration::from_millis(10);

/// What `attempt` gives, once that is no longer `busy`.
///
/// The kernel takes an io_uring apart after its process is gone, and only then lets go of the file in
/// it: up to a tenth of a second later, on a busy host more than half a second. Who restarts a machine does not wait.
pub(super) fn patiently<T>(attempt: impl Fn() -> T, busy: impl Fn(&T) -> bool) -> T {
    let mut result = attempt();
    for _ in 0..RETRIES {
        if !busy(&result) {
            break;
        }
        std::thread::sleep(RETRY);
        result = attempt();
    }
    result
}

/// Bytes 100 up and 200 up of an image are where QEMU locks what it does and what it forbids others:
/// 101-103 "I write", 201-203 "nobody else may write". With our locks in the same place, both keep
/// out of each other's way, and several readers of either kind get along.
pub(super) fn lock(file: &File, options: &RawOptions) -> Result<(), Error> {
    let attempt = || {
        if options.read_only {
            Ok(sys::lock(file, false, 201, 3)? && !Image::is_locked(file, true)?)
        } else {
            Image::try_lock(file)
        }
    };
    match patiently(attempt, |locked| matches!(locked, Ok(false))) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Locked { path: options.path.clone(), read_only: options.read_only }),
        Err(error) => {
            tracing::warn!(
                "disk image {}: the file system has no locks ({error}); make sure nobody else writes to it",
                options.path.display(),
            );
            Ok(())
        }
    }
}

pub(super) fn topology(
    file: &File,
    metadata: &std::fs::Metadata,
    block_device: bool,
    direct: bool,
) -> io::Result<Topology> {
    if block_device {
        let [logical, physical, offset, minimum_io, optimal_io] = sys::block_device_topology(file)?;
        let logical_block = logical.max(SECTOR);
        // A device that does not know its alignment says -1.
        let alignment_offset = if offset < physical { offset } else { 0 };
        let physical_block = physical.max(logical_block);
        return Ok(Topology { logical_block, physical_block, alignment_offset, minimum_io, optimal_io });
    }
    let file_block = u32::try_from(metadata.blksize()).unwrap_or(4096);
    let logical_block = if direct { direct_block(file, file_block) } else { SECTOR };
    let physical_block = if file_block.is_power_of_two() { file_block.clamp(SECTOR, 64 << 10) } else { 4096 }
        .max(logical_block);
    Ok(Topology {
        logical_block,
        physical_block,
        alignment_offset: 0,
        minimum_io: physical_block,
        optimal_io: 0,
    })
}

/// The offset alignment of direct I/O on a regular file: as the kernel says, else the file system's
/// block, which is always enough.
fn direct_block(file: &File, file_block: u32) -> u32 {
    let offset = sys::direct_alignment(file).map_or(file_block, |(_, offset)| offset);
    if offset.is_power_of_two() { offset.clamp(SECTOR, 64 << 10) } else { 4096 }
}

pub(super) fn alignment(file: &File, topology: &Topology) -> Alignment {
    let (memory, offset) =
        sys::direct_alignment(file).unwrap_or((topology.logical_block, topology.logical_block));
    Alignment {
        memory: usize::try_from(memory).unwrap_or(4096).next_power_of_two(),
        offset: u64::from(offset.next_power_of_two().max(topology.logical_block)),
    }
}

/// The unit of discards; `None` when the host has none.
pub(super) fn discard_granularity(file: &File, metadata: &std::fs::Metadata) -> Option<u32> {
    if metadata.file_type().is_block_device() {
        let number = |name| sysfs::queue(metadata, name)?.parse::<u64>().ok();
        number("discard_max_bytes").filter(|&most| most > 0)?;
        return Some(
            number("discard_granularity").and_then(|g| u32::try_from(g).ok()).unwrap_or(0).max(SECTOR),
        );
    }
    // Beyond the end there is nothing to lose, and asking is the only way to know.
    let beyond = metadata.len().next_multiple_of(4096);
    sys::fallocate(file, raw::PUNCH, beyond, 4096).ok()?;
    let block = u32::try_from(metadata.blksize()).unwrap_or(4096);
    // A huge st_blksize (network file systems) is a wish, not a unit.
    Some(if block.is_power_of_two() { block.clamp(SECTOR, 64 << 10) } else { 4096 })
}
