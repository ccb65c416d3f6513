//! An ELF file (`vmlinux`, or another kernel): its loadable segments, and its PVH note if it has one.

use std::fs::File;
use std::os::unix::fs::FileExt;

use linux_loader::loader::bootparam::setup_header;
use parador_virtio::GuestMemory;

use super::error::{Fault, FileFault};
use super::{DEFAULT_CMDLINE, DEFAULT_INITRD_END, Kernel, check_room, low_memory_end, read_into};
use crate::platform::x86_64::registers::Entry;

/// Most program headers of a file; Linux has five.
const MAX_SEGMENTS: usize = 64;
/// Most bytes of notes that are searched; Linux has some hundred.
const MAX_NOTES: u64 = 64 << 10;

const HEADER_SIZE: usize = 64;
const SEGMENT_SIZE: usize = 56;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const EXECUTABLE: u16 = 2;
const SHARED_OBJECT: u16 = 3;
const MACHINE_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

pub(super) fn load(
    file: &File,
    file_size: u64,
    head: &[u8],
    memory: &GuestMemory,
) -> Result<Kernel, FileFault> {
    let header = Header::parse(head, file_size)?;
    let mut end = 0;
    let mut total = 0;
    let mut pvh_entry = None;
    for segment in header.segments(file, file_size)? {
        match segment.kind {
            PT_LOAD if segment.memory_size > 0 => {
                check_room(segment.address, segment.memory_size, memory)?;
                // Segments that overlap could otherwise ask for any amount of reading.
                total += segment.file_size;
                if total > low_memory_end(memory) {
                    return Err(Fault::Malformed("segments that overlap").into());
                }
                read_into(file, segment.offset, memory, segment.address, segment.file_size)?;
                end = end.max(segment.address + segment.memory_size);
            }
            PT_NOTE if pvh_entry.is_none() => {
                let mut notes = vec![0; segment.file_size.min(MAX_NOTES) as usize];
                file.read_exact_at(&mut notes, segment.offset)?;
                pvh_entry = find_pvh_entry(&notes)?;
            }
            _ => {}
        }
    }
    if end == 0 {
        return Err(Fault::Malformed("nothing to load").into());
    }
    let (entry, first) = match pvh_entry {
        Some(eip) => (Entry::Pvh { eip }, u64::from(eip)),
        None => (Entry::Linux64 { rip: header.entry }, header.entry),
    };
    if first >= end {
        return Err(Fault::Malformed("an entry outside of what is loaded").into());
    }
    Ok(Kernel {
        entry,
        end,
        initrd_end: DEFAULT_INITRD_END,
        max_cmdline: DEFAULT_CMDLINE,
        header: made_up_header(),
    })
}

struct Header {
    entry: u64,
    segments_offset: u64,
    segments: usize,
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    file_size: u64,
    memory_size: u64,
}

impl Header {
    fn parse(head: &[u8], file_size: u64) -> Result<Self, Fault> {
        let truncated = Fault::Truncated { have: file_size, needed: HEADER_SIZE as u64 };
        let head = head.first_chunk::<HEADER_SIZE>().ok_or(truncated)?;
        match u16_at(head, 18) {
            MACHINE_X86_64 => {}
            3 => return Err(Fault::Only32Bit),
            40 => return Err(Fault::OtherMachine("32-bit Arm")),
            183 => return Err(Fault::OtherMachine("64-bit Arm")),
            243 => return Err(Fault::OtherMachine("RISC-V")),
            _ => return Err(Fault::OtherMachine("another processor")),
        }
        if head[4] != CLASS_64 {
            return Err(Fault::Only32Bit);
        }
        if head[5] != LITTLE_ENDIAN {
            return Err(Fault::OtherMachine("a big-endian processor"));
        }
        match u16_at(head, 16) {
            EXECUTABLE | SHARED_OBJECT => {}
            1 => return Err(Fault::Malformed("an object file, not yet linked")),
            _ => return Err(Fault::Malformed("an ELF file of an unknown type")),
        }
        let segments = usize::from(u16_at(head, 56));
        if segments == 0 || segments > MAX_SEGMENTS {
            return Err(Fault::Malformed("no program headers, or more than 64"));
        }
        if usize::from(u16_at(head, 54)) != SEGMENT_SIZE {
            return Err(Fault::Malformed("program headers of a wrong size"));
        }
        Ok(Self { entry: u64_at(head, 24), segments_offset: u64_at(head, 32), segments })
    }

    fn segments(&self, file: &File, file_size: u64) -> Result<Vec<Segment>, FileFault> {
        let mut bytes = vec![0; self.segments * SEGMENT_SIZE];
        check_range(self.segments_offset, bytes.len() as u64, file_size)?;
        file.read_exact_at(&mut bytes, self.segments_offset)?;
        let mut segments = Vec::with_capacity(self.segments);
        for bytes in bytes.chunks_exact(SEGMENT_SIZE) {
            let segment = Segment {
                kind: u32_at(bytes, 0),
                offset: u64_at(bytes, 8),
                address: u64_at(bytes, 24),
                file_size: u64_at(bytes, 32),
                memory_size: u64_at(bytes, 40),
            };
            if matches!(segment.kind, PT_LOAD | PT_NOTE) {
                check_range(segment.offset, segment.file_size, file_size)?;
            }
            if segment.kind == PT_LOAD && segment.file_size > segment.memory_size {
                return Err(Fault::Malformed("a segment larger in the file than in memory").into());
            }
            segments.push(segment);
        }
        Ok(segments)
    }
}

fn check_range(offset: u64, size: u64, file_size: u64) -> Result<(), Fault> {
    match offset.checked_add(size) {
        Some(end) if end <= file_size => Ok(()),
        Some(end) => Err(Fault::Truncated { have: file_size, needed: end }),
        None => Err(Fault::Malformed("an offset beyond any file")),
    }
}

/// Searches notes for Xen's PHYS32_ENTRY. Each step takes at least the 12 bytes of a note's header.
fn find_pvh_entry(mut notes: &[u8]) -> Result<Option<u32>, Fault> {
    let malformed = Fault::Malformed("a PVH note without an address");
    while let Some((header, rest)) = notes.split_first_chunk::<12>() {
        let name_size = u32_at(header, 0) as usize;
        let value_size = u32_at(header, 4) as usize;
        let value_at = name_size.next_multiple_of(4);
        if u32_at(header, 8) == XEN_ELFNOTE_PHYS32_ENTRY && rest.get(..name_size) == Some(b"Xen\0") {
            // The value is 4 bytes, or 8 whose upper half is zero.
            let value = rest.get(value_at..).and_then(|rest| rest.get(..value_size)).ok_or(malformed)?;
            return match value {
                [_, _, _, _] | [_, _, _, _, 0, 0, 0, 0] => Ok(Some(u32_at(value, 0))),
                _ => Err(Fault::Malformed("a PVH note whose address is not of 32 bits")),
            };
        }
        let next = value_at + value_size.next_multiple_of(4);
        notes = rest.get(next..).unwrap_or_default();
    }
    Ok(None)
}

/// What a bzImage would say of itself, for a kernel that is entered at its ELF entry.
fn made_up_header() -> setup_header {
    setup_header {
        boot_flag: 0xAA55,
        header: u32::from_le_bytes(*b"HdrS"),
        version: 0x020F,
        loadflags: 1,
        kernel_alignment: 16 << 20,
        ..Default::default()
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
