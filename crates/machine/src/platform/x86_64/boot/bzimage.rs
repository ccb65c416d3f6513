//! A bzImage, through the 64-bit boot protocol (Linux Documentation/arch/x86/boot.rst).

use std::fs::File;

use linux_loader::loader::bootparam::setup_header;
use parador_virtio::GuestMemory;
use vm_memory::ByteValued;

use super::error::{Fault, FileFault};
use super::{DEFAULT_CMDLINE, Kernel, check_room, read_into};
use crate::platform::x86_64::layout::HIGH_MEMORY;
use crate::platform::x86_64::registers::Entry;

/// Where the header is in the file.
const HEADER: usize = 0x1F1;
/// The 64-bit entry, from the start of the protected-mode kernel.
const ENTRY_64: u64 = 0x200;
/// First version of the protocol that tells of a 64-bit entry (Linux 3.8).
const VERSION_64: u16 = 0x020C;

const LOADED_HIGH: u8 = 1;
const XLF_KERNEL_64: u16 = 1;

pub(super) fn load(
    file: &File,
    file_size: u64,
    head: &[u8],
    memory: &GuestMemory,
) -> Result<Kernel, FileFault> {
    let header = parse_header(head)?;
    let (version, flags) = (header.version, header.xloadflags);
    if version < VERSION_64 || header.loadflags & LOADED_HIGH == 0 || flags & XLF_KERNEL_64 == 0 {
        return Err(Fault::Only32Bit.into());
    }
    let setup_sectors = if header.setup_sects == 0 { 4 } else { u64::from(header.setup_sects) };
    let offset = (setup_sectors + 1) * 512;
    // In paragraphs of 16 bytes; what follows in the file is a signature at most.
    let payload = u64::from(header.syssize) * 16;
    // The last paragraph may be cut short.
    if payload == 0 || file_size + 15 < offset + payload {
        return Err(Fault::Truncated { have: file_size, needed: offset + payload }.into());
    }
    let size = payload.min(file_size - offset);
    // A relocatable kernel moves itself to where it prefers to be and needs `init_size` bytes there;
    // one that is not has to be loaded there.
    let (preferred, init_size) = (header.pref_address, u64::from(header.init_size));
    let start = if header.relocatable_kernel != 0 { HIGH_MEMORY } else { preferred };
    check_room(start, size, memory)?;
    check_room(start.max(preferred), init_size, memory)?;
    read_into(file, offset, memory, start, size)?;
    Ok(Kernel {
        entry: Entry::Linux64 { rip: start + ENTRY_64 },
        end: (start + size).max(start.max(preferred) + init_size),
        initrd_end: u64::from(header.initrd_addr_max) + 1,
        max_cmdline: if header.cmdline_size == 0 { DEFAULT_CMDLINE } else { u64::from(header.cmdline_size) },
        header: setup_header { code32_start: start.try_into().unwrap_or_default(), ..header },
    })
}

/// Reads the header, which is as long as the jump over it says (boot.rst, "the length of the header").
fn parse_header(head: &[u8]) -> Result<setup_header, FileFault> {
    let end = 0x202 + usize::from(head.get(0x201).copied().unwrap_or_default());
    let bytes =
        head.get(HEADER..end).ok_or(Fault::Truncated { have: head.len() as u64, needed: end as u64 })?;
    let mut header = setup_header::default();
    let target = header.as_mut_slice();
    let length = bytes.len().min(target.len());
    target[..length].copy_from_slice(&bytes[..length]);
    Ok(header)
}
