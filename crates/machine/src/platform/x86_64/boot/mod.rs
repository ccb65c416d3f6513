//! From a kernel on disk to a kernel in guest memory, with everything it wants to find beside it.
//!
//! [`load`] recognises a kernel by what is in it, never by its name: a bzImage is entered through the
//! 64-bit boot protocol, an ELF file through its PVH note or, without one, where it says.

mod bzimage;
mod elf;
mod error;
mod tables;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use linux_loader::loader::bootparam::setup_header;
use parador_virtio::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

pub use self::error::BootError;
use self::error::{Fault, FileFault};
use super::layout::{CMDLINE, CMDLINE_SIZE, HIGH_MEMORY, LOW_RAM_END};
use super::registers::Entry;

/// What the guest starts with. Loaded anew at every start of the guest.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// The kernel.
    pub kernel: Source<'a>,
    /// The initial RAM file system, or several of them one after the other in one file.
    pub initrd: Option<Source<'a>>,
    /// The kernel's command line.
    pub cmdline: &'a str,
}

/// An open file, and what it is called in messages.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The file. Its position is moved.
    pub file: &'a File,
    /// What the user called it.
    pub path: &'a Path,
}

/// Loads kernel, initrd and command line and all that the kernel reads of them before it knows ACPI
/// (zero page or PVH start info, memory map, first page tables), and says how to enter it.
///
/// `memory` reads as zero where nothing was loaded yet, and starts at address 0. The kernel finds the
/// ACPI tables at [`super::layout::RSDP`], where they must be by then.
///
/// # Errors
/// The error names the file and says what is wrong with it.
pub fn load(sources: &Sources<'_>, memory: &GuestMemory) -> Result<Entry, BootError> {
    let kernel = Kernel::load(sources.kernel, memory).map_err(|fault| sources.kernel.fault(fault))?;
    write_cmdline(sources.cmdline, kernel.max_cmdline, memory)?;
    let initrd = match sources.initrd {
        Some(source) => Some(load_initrd(source, &kernel, memory).map_err(|fault| source.fault(fault))?),
        None => None,
    };
    match kernel.entry {
        Entry::Linux64 { .. } => tables::write_zero_page(memory, &kernel, initrd),
        Entry::Pvh { .. } => tables::write_start_info(memory, initrd),
    }
    .and_then(|()| kernel.entry.write_tables(memory))
    .map_err(BootError::Memory)?;
    Ok(kernel.entry)
}

/// A kernel in guest memory.
struct Kernel {
    entry: Entry,
    /// Memory up to here is the kernel's own, for unpacking too.
    end: u64,
    /// The initrd ends here at the latest.
    initrd_end: u64,
    /// Most bytes of the command line that this kernel reads, without the terminating zero.
    max_cmdline: u64,
    /// What the kernel's file said about itself; made up for an ELF file.
    header: setup_header,
}

/// Where the initrd is.
#[derive(Debug, Clone, Copy)]
struct Initrd {
    start: u64,
    size: u64,
}

/// Most bytes of a command line, and the highest initrd, where the kernel's file does not say.
const DEFAULT_CMDLINE: u64 = 2047;
const DEFAULT_INITRD_END: u64 = 0x8000_0000;

/// Enough of a file to recognise everything we know.
const HEAD: usize = 1024;

impl Kernel {
    fn load(source: Source<'_>, memory: &GuestMemory) -> Result<Self, FileFault> {
        let size = source.size()?;
        let mut head = [0; HEAD];
        let length = source.read_head(&mut head)?;
        let head = &head[..length];
        if head.starts_with(b"\x7FELF") {
            elf::load(source.file, size, head, memory)
        } else if head.get(0x202..0x206) == Some(b"HdrS") {
            bzimage::load(source.file, size, head, memory)
        } else {
            Err(not_a_kernel(head).into())
        }
    }
}

/// Says what a file is that is no kernel for this machine.
fn not_a_kernel(head: &[u8]) -> Fault {
    let compressed: [(&[u8], &str, &str); 6] = [
        (b"\x1F\x8B", "gzip", "gunzip"),
        (b"\x28\xB5\x2F\xFD", "zstd", "unzstd"),
        (b"\xFD7zXZ\0", "xz", "unxz"),
        (b"BZh", "bzip2", "bunzip2"),
        (b"\x02\x21\x4C\x18", "lz4", "unlz4"),
        (b"\x04\x22\x4D\x18", "lz4", "unlz4"),
    ];
    if head.is_empty() {
        return Fault::Empty;
    }
    for (magic, format, tool) in compressed {
        if head.starts_with(magic) {
            return Fault::Compressed { format, tool };
        }
    }
    match head.get(0x38..0x3C) {
        Some(b"ARM\x64") => return Fault::OtherMachine("64-bit Arm"),
        Some(b"RSC\x05") => return Fault::OtherMachine("RISC-V"),
        _ => {}
    }
    match head.get(4..8) {
        Some(b"zimg") if head.starts_with(b"MZ") => Fault::OtherMachine("64-bit Arm or RISC-V (EFI zboot)"),
        _ => Fault::NotAKernel,
    }
}

/// Puts the initrd as high as the kernel allows, so that it is out of the way of unpacking.
fn load_initrd(source: Source<'_>, kernel: &Kernel, memory: &GuestMemory) -> Result<Initrd, FileFault> {
    let size = source.size()?;
    if size == 0 {
        return Err(Fault::Empty.into());
    }
    let limit = low_memory_end(memory).min(kernel.initrd_end);
    let room = limit.saturating_sub(kernel.end);
    let start = limit.checked_sub(size).map(|start| start & !0xFFF).filter(|&start| start >= kernel.end);
    let Some(start) = start else {
        return Err(Fault::InitrdTooLarge { size, room }.into());
    };
    read_into(source.file, 0, memory, start, size)?;
    Ok(Initrd { start, size })
}

fn write_cmdline(cmdline: &str, max: u64, memory: &GuestMemory) -> Result<(), BootError> {
    let max = max.min(CMDLINE_SIZE - 1);
    let length = cmdline.len() as u64;
    if length > max {
        return Err(BootError::CmdlineTooLong { length, max });
    }
    if let Some(position) = cmdline.bytes().position(|byte| byte == 0) {
        return Err(BootError::CmdlineZero { position });
    }
    memory
        .write_slice(cmdline.as_bytes(), GuestAddress(CMDLINE))
        .and_then(|()| memory.write_obj(0u8, GuestAddress(CMDLINE + length)))
        .map_err(BootError::Memory)
}

/// The first address after the memory that starts at 0.
fn low_memory_end(memory: &GuestMemory) -> u64 {
    let mut end = 0;
    for region in memory.iter() {
        if region.start_addr().0 != end {
            break;
        }
        end += region.len();
    }
    end.min(LOW_RAM_END)
}

/// Checks that `start..start + size` is memory that a kernel may have.
fn check_room(start: u64, size: u64, memory: &GuestMemory) -> Result<(), Fault> {
    let have = low_memory_end(memory);
    if start < HIGH_MEMORY {
        return Err(Fault::LoadedTooLow { start });
    }
    match start.checked_add(size) {
        Some(end) if end <= have => Ok(()),
        Some(end) => Err(Fault::TooLarge { needed: end, have }),
        None => Err(Fault::Malformed("a segment that ends after all addresses")),
    }
}

/// Reads `size` bytes of `file` at `offset` into guest memory, without a copy in between.
fn read_into(
    file: &File,
    offset: u64,
    memory: &GuestMemory,
    address: u64,
    size: u64,
) -> Result<(), FileFault> {
    let count = usize::try_from(size).map_err(|_| Fault::Malformed("a size beyond all memory"))?;
    let mut file = file;
    file.seek(SeekFrom::Start(offset))?;
    match memory.read_exact_volatile_from(GuestAddress(address), &mut file, count) {
        Ok(()) => Ok(()),
        Err(vm_memory::GuestMemoryError::IOError(error)) => Err(error.into()),
        Err(error) => Err(std::io::Error::other(error).into()),
    }
}

impl Source<'_> {
    fn fault(&self, fault: FileFault) -> BootError {
        fault.of(self.path)
    }

    fn size(&self) -> Result<u64, FileFault> {
        let metadata = self.file.metadata()?;
        if metadata.is_dir() {
            return Err(Fault::Directory.into());
        }
        if !metadata.is_file() {
            return Err(Fault::NotAFile.into());
        }
        Ok(metadata.len())
    }

    /// Reads the beginning of the file, less than `head` only if the file is shorter.
    fn read_head(&self, head: &mut [u8]) -> Result<usize, FileFault> {
        let mut length = 0;
        while length < head.len() {
            match self.file.read_at(&mut head[length..], length as u64) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(length)
    }
}
