//! Zones as they are now, in pages of the image's file that every process on this running host sees:
//! where a process that takes over from one that was killed finds write pointers nobody flushed.
//!
//! One block says whether the rest means anything: which boot of the host wrote it, and whether
//! the image was closed. After it comes one word for each zone (`word.rs`).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::format::BLOCK;
use crate::raw::is_unsupported;
use crate::sys;

/// Bytes for the live table of `zones` zones.
pub(crate) fn bytes(zones: u32) -> u64 {
    (BLOCK as u64 + 8 * u64::from(zones)).next_multiple_of(BLOCK as u64)
}

/// Takes the space for the table of `zones` zones at `live`.
pub(crate) fn allocate(file: &File, live: u64, zones: u32) -> io::Result<()> {
    match sys::fallocate(file, libc::FALLOC_FL_KEEP_SIZE, live, bytes(zones)) {
        // There it is taken word by word.
        Err(error) if is_unsupported(&error) => Ok(()),
        result => result,
    }
}

const MAGIC: [u8; 8] = *b"ParaLive";

/// The block before the words: magic, uuid of the image, boot of the host, checksum.
fn stamp(uuid: [u8; 16], boot: [u8; 16]) -> [u8; 44] {
    let mut bytes = [0; 44];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..24].copy_from_slice(&uuid);
    bytes[24..40].copy_from_slice(&boot);
    let crc = crc32c::crc32c(&bytes[..40]);
    bytes[40..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Whether the words at `live` are of this boot of the host, and of an image that nobody closed.
pub(crate) fn is_current(file: &File, live: u64, uuid: [u8; 16]) -> io::Result<bool> {
    let mut found = [0; 44];
    file.read_exact_at(&mut found, live)?;
    Ok(found == stamp(uuid, boot()?))
}

/// Whether they mean nothing: the image was closed, or never opened.
pub(crate) fn is_clear(file: &File, live: u64) -> io::Result<bool> {
    let mut found = [0; 44];
    file.read_exact_at(&mut found, live)?;
    Ok(found == [0; 44])
}

/// Says that they are from now on.
pub(crate) fn set_current(file: &File, live: u64, uuid: [u8; 16]) -> io::Result<()> {
    file.write_all_at(&stamp(uuid, boot()?), live)
}

/// Says that they mean nothing.
pub(crate) fn clear(file: &File, live: u64) -> io::Result<()> {
    file.write_all_at(&[0; 44], live)
}

/// Which boot of the host this is.
fn boot() -> io::Result<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let mut digits = text.bytes().filter_map(|byte| char::from(byte).to_digit(16));
    let mut id = [0; 16];
    for byte in &mut id {
        let pair = digits.next().zip(digits.next()).ok_or(io::ErrorKind::InvalidData)?;
        *byte = (pair.0 * 16 + pair.1) as u8;
    }
    Ok(id)
}
