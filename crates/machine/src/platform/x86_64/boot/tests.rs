use std::io::Write;
use std::path::PathBuf;

use linux_loader::loader::bootparam::boot_params;
use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use proptest::prelude::*;

use super::tables::{MemoryKind, memory_map};
use super::*;
use crate::platform::x86_64::layout::{GIB, MIB, PVH_START_INFO, RSDP, ZERO_PAGE, ram_ranges};

fn memory(size: u64) -> GuestMemory {
    let ranges: Vec<_> = ram_ranges(size)
        .into_iter()
        .map(|range| (GuestAddress(range.start), (range.end - range.start) as usize))
        .collect();
    GuestMemory::from_ranges(&ranges).unwrap()
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn boot(
    kernel: &File,
    initrd: Option<&File>,
    cmdline: &str,
    memory: &GuestMemory,
) -> Result<Entry, BootError> {
    let initrd = initrd.map(|file| Source { file, path: Path::new("initrd.img") });
    load(&Sources { kernel: Source { file: kernel, path: Path::new("vmlinuz") }, initrd, cmdline }, memory)
}

fn fault(kernel: &[u8]) -> Fault {
    let result = boot(&file(kernel), None, "", &memory(256 * MIB));
    let Err(BootError::File { path, fault }) = result else { unreachable!("{result:?}") };
    assert_eq!(path, PathBuf::from("vmlinuz"));
    fault
}

/// A bzImage with three setup sectors and a payload of 8 KiB of 0xB2.
fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 4 * 512];
    image[0x1F1] = 3;
    image[0x1F4..0x1F8].copy_from_slice(&(8192u32 / 16).to_le_bytes());
    image[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
    image[0x200..0x202].copy_from_slice(&[0xEB, 0x6A]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020Fu16.to_le_bytes());
    image[0x211] = 1;
    image[0x214..0x218].copy_from_slice(&0x10_0000u32.to_le_bytes());
    image[0x22C..0x230].copy_from_slice(&0x7FFF_FFFFu32.to_le_bytes());
    image[0x230..0x234].copy_from_slice(&0x20_0000u32.to_le_bytes());
    image[0x234] = 1;
    image[0x236..0x238].copy_from_slice(&0x3Fu16.to_le_bytes());
    image[0x238..0x23C].copy_from_slice(&2047u32.to_le_bytes());
    image[0x258..0x260].copy_from_slice(&(16 * MIB).to_le_bytes());
    image[0x260..0x264].copy_from_slice(&(40 * MIB as u32).to_le_bytes());
    image.extend_from_slice(&[0xB2; 8192]);
    image
}

const NOTE: [u8; 20] = *b"\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0\x40\0\0\x01";

/// An ELF file with one segment of 4 KiB of 0xE1 at 16 MiB (8 KiB in memory), and `notes`.
fn elf(notes: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 0x1000];
    image[..6].copy_from_slice(b"\x7FELF\x02\x01");
    image[16..18].copy_from_slice(&2u16.to_le_bytes());
    image[18..20].copy_from_slice(&62u16.to_le_bytes());
    image[24..32].copy_from_slice(&(16 * MIB + 0x10).to_le_bytes());
    image[32..40].copy_from_slice(&64u64.to_le_bytes());
    image[54..56].copy_from_slice(&56u16.to_le_bytes());
    image[56..58].copy_from_slice(&2u16.to_le_bytes());
    segment(&mut image, 0, [1, 0x1000, 16 * MIB, 0x1000, 0x2000]);
    segment(&mut image, 1, [4, 0x800, 0, notes.len() as u64, notes.len() as u64]);
    image[0x800..0x800 + notes.len()].copy_from_slice(notes);
    image.extend_from_slice(&[0xE1; 0x1000]);
    image
}

fn segment(image: &mut [u8], index: usize, [kind, offset, address, in_file, in_memory]: [u64; 5]) {
    let at = 64 + 56 * index;
    image[at..at + 4].copy_from_slice(&(kind as u32).to_le_bytes());
    for (position, value) in [(8, offset), (24, address), (32, in_file), (40, in_memory)] {
        image[at + position..at + position + 8].copy_from_slice(&value.to_le_bytes());
    }
}

#[test]
fn a_bzimage_is_entered_in_long_mode() {
    let memory = memory(6 * GIB);
    let initrd = file(&[0x1D; 5000]);
    let entry = boot(&file(&bzimage()), Some(&initrd), "console=ttyS0 quiet", &memory).unwrap();
    assert_eq!(entry, Entry::Linux64 { rip: 0x10_0200 });

    let mut payload = [0; 8193];
    memory.read_slice(&mut payload, GuestAddress(0x10_0000)).unwrap();
    assert!(payload[..8192].iter().all(|&byte| byte == 0xB2) && payload[8192] == 0);

    let page: boot_params = memory.read_obj(GuestAddress(ZERO_PAGE)).unwrap();
    let (image, size, loader) = (page.hdr.ramdisk_image, page.hdr.ramdisk_size, page.hdr.type_of_loader);
    assert_eq!((image, size, loader), (0x8000_0000 - 8192, 5000, 0xFF));
    let (rsdp, version, magic) = (page.acpi_rsdp_addr, page.hdr.version, page.hdr.header);
    assert_eq!((rsdp, version, magic), (RSDP, 0x020F, u32::from_le_bytes(*b"HdrS")));
    let start: [u8; 5] = memory.read_obj(GuestAddress(u64::from(image) + 4998)).unwrap();
    assert_eq!(start, [0x1D, 0x1D, 0, 0, 0]);

    let cmdline: [u8; 20] = memory.read_obj(GuestAddress(u64::from(page.hdr.cmd_line_ptr))).unwrap();
    assert_eq!(&cmdline, b"console=ttyS0 quiet\0");

    let entries: Vec<_> = page.e820_table[..usize::from(page.e820_entries)]
        .iter()
        .map(|entry| (entry.addr, entry.size, entry.r#type))
        .collect();
    let map: Vec<_> =
        memory_map(&memory).iter().map(|&(start, size, kind)| (start, size, kind as u32)).collect();
    assert_eq!(entries, map);
}

#[test]
fn the_memory_map_has_a_hole() {
    use MemoryKind::{Acpi, Ram, Reserved};
    let expected = [
        (0, 0x9_FC00, Ram),
        (0xE_0000, 0x2_0000, Acpi),
        (MIB, 3 * GIB - MIB, Ram),
        (0xE000_0000, MIB, Reserved),
        (4 * GIB, 3 * GIB, Ram),
    ];
    assert_eq!(memory_map(&memory(6 * GIB)), expected);
    assert_eq!(memory_map(&memory(256 * MIB))[2], (MIB, 255 * MIB, Ram));
    let halves = [(GuestAddress(0), 64 << 20), (GuestAddress(64 << 20), 64 << 20)];
    let map = memory_map(&GuestMemory::from_ranges(&halves).unwrap());
    assert_eq!(map[2], (MIB, 127 * MIB, Ram), "two nodes, one stretch");
}

#[test]
fn an_elf_file_with_a_note_is_entered_through_pvh() {
    let memory = memory(256 * MIB);
    let initrd = file(b"initrd");
    let notes = [b"\x04\0\0\0\x05\0\0\0\x01\0\0\0GNU\0abcde\0\0\0".as_slice(), &NOTE].concat();
    let entry = boot(&file(&elf(&notes)), Some(&initrd), "quiet", &memory).unwrap();
    assert_eq!(entry, Entry::Pvh { eip: 0x100_0040 });
    assert_eq!(memory.read_obj::<u8>(GuestAddress(16 * MIB + 0xFFF)).unwrap(), 0xE1);

    let info: hvm_start_info = memory.read_obj(GuestAddress(PVH_START_INFO)).unwrap();
    assert_eq!((info.magic, info.version, info.nr_modules), (0x336E_C578, 1, 1));
    assert_eq!((info.rsdp_paddr, info.cmdline_paddr), (RSDP, CMDLINE));
    let module: hvm_modlist_entry = memory.read_obj(GuestAddress(info.modlist_paddr)).unwrap();
    assert_eq!((module.paddr, module.size), (256 * MIB - 4096, 6));
    let last = info.memmap_paddr + u64::from(info.memmap_entries - 1) * 24;
    let entry: hvm_memmap_table_entry = memory.read_obj(GuestAddress(last)).unwrap();
    assert_eq!((entry.addr, entry.type_), (0xE000_0000, 2));
}

#[test]
fn an_elf_file_without_a_note_is_entered_where_it_says() {
    let memory = memory(64 * MIB);
    let entry = boot(&file(&elf(b"")), None, "", &memory).unwrap();
    assert_eq!(entry, Entry::Linux64 { rip: 16 * MIB + 0x10 });
    let page: boot_params = memory.read_obj(GuestAddress(ZERO_PAGE)).unwrap();
    let (magic, image) = (page.hdr.header, page.hdr.ramdisk_image);
    assert_eq!((magic, image), (u32::from_le_bytes(*b"HdrS"), 0));
}

#[test]
fn a_second_start_is_like_the_first() {
    let memory = memory(128 * MIB);
    let (kernel, initrd) = (file(&bzimage()), file(&[1; 100]));
    let first = boot(&kernel, Some(&initrd), "a", &memory).unwrap();
    memory.write_slice(&[0; 8192], GuestAddress(0x10_0000)).unwrap();
    assert_eq!(boot(&kernel, Some(&initrd), "a", &memory).unwrap(), first);
    assert_eq!(memory.read_obj::<u8>(GuestAddress(0x10_0000 + 8191)).unwrap(), 0xB2);
}

#[test]
fn what_is_no_kernel_is_called_by_its_name() {
    assert_eq!(fault(b""), Fault::Empty);
    assert_eq!(fault(b"#!/bin/sh\n"), Fault::NotAKernel);
    assert_eq!(fault(b"\x1F\x8B\x08 and so on"), Fault::Compressed { format: "gzip", tool: "gunzip" });
    assert_eq!(fault(b"\x28\xB5\x2F\xFD"), Fault::Compressed { format: "zstd", tool: "unzstd" });
    let mut arm = vec![0; 100];
    arm[0x38..0x3C].copy_from_slice(b"ARM\x64");
    assert_eq!(fault(&arm), Fault::OtherMachine("64-bit Arm"));
    assert_eq!(fault(b"MZ\0\0zimg"), Fault::OtherMachine("64-bit Arm or RISC-V (EFI zboot)"));

    let mut old = bzimage();
    old[0x236] = 0;
    assert_eq!(fault(&old), Fault::Only32Bit);
    let mut short = bzimage();
    short.truncate(3000);
    assert_eq!(fault(&short), Fault::Truncated { have: 3000, needed: 2048 + 8192 });
    assert_eq!(fault(&bzimage()[..0x210]), Fault::Truncated { have: 0x210, needed: 0x26C });

    let change = |at: usize, bytes: &[u8]| {
        let mut image = elf(&NOTE);
        image[at..at + bytes.len()].copy_from_slice(bytes);
        fault(&image)
    };
    assert_eq!(change(18, &[183, 0]), Fault::OtherMachine("64-bit Arm"));
    assert_eq!(change(18, &[3, 0]), Fault::Only32Bit);
    assert_eq!(change(4, &[1]), Fault::Only32Bit);
    assert_eq!(change(16, &[1]), Fault::Malformed("an object file, not yet linked"));
    assert_eq!(change(56, &[65, 0]), Fault::Malformed("no program headers, or more than 64"));
    assert_eq!(change(56, &[0xFF, 0xFF]), Fault::Malformed("no program headers, or more than 64"));
    assert_eq!(fault(b"\x7FELF\x02\x01"), Fault::Truncated { have: 6, needed: 64 });
}

#[test]
fn segments_stay_inside_file_and_memory() {
    let with = |values: [u64; 5]| {
        let mut image = elf(&NOTE);
        segment(&mut image, 0, values);
        fault(&image)
    };
    assert_eq!(with([1, 0x1000, 0x7000, 0x1000, 0x1000]), Fault::LoadedTooLow { start: 0x7000 });
    assert_eq!(
        with([1, 0x1000, 250 * MIB, 0x1000, 10 * MIB]),
        Fault::TooLarge { needed: 260 * MIB, have: 256 * MIB }
    );
    assert_eq!(
        with([1, 0x1000, u64::MAX - 10, 0x1000, 0x1000]),
        Fault::Malformed("a segment that ends after all addresses")
    );
    assert_eq!(
        with([1, 0x1000, 16 * MIB, 0x1001, 0x2000]),
        Fault::Truncated { have: 0x2000, needed: 0x2001 }
    );
    assert_eq!(with([1, u64::MAX, 16 * MIB, 0x1000, 0x1000]), Fault::Malformed("an offset beyond any file"));
    assert_eq!(
        with([1, 0x1000, 16 * MIB, 0x1000, 0xFFF]),
        Fault::Malformed("a segment larger in the file than in memory")
    );
    assert_eq!(with([0; 5]), Fault::Malformed("nothing to load"));
    assert_eq!(
        with([1, 0x1000, 2 * MIB, 0x1000, 0x1000]),
        Fault::Malformed("an entry outside of what is loaded")
    );
}

#[test]
fn overlapping_segments_do_not_read_for_ever() {
    // 64 segments of 64 MiB each, all of them the same bytes of a sparse file.
    let mut image = elf(&NOTE);
    image[56] = 64;
    image[54] = 56;
    for index in 0..64 {
        if index * 56 + 120 < 0x800 || index * 56 + 64 > 0x900 {
            segment(&mut image, index, [1, 0x2000, 16 * MIB, 64 * MIB, 64 * MIB]);
        }
    }
    let kernel = file(&image);
    kernel.set_len(65 * MIB).unwrap();
    let error = boot(&kernel, None, "", &memory(128 * MIB)).unwrap_err();
    assert!(error.to_string().ends_with("segments that overlap"), "{error}");
}

#[test]
fn broken_notes_are_no_way_in() {
    let endless = b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x12\0\0\0";
    assert!(matches!(boot(&file(&elf(endless)), None, "", &memory(64 * MIB)), Ok(Entry::Linux64 { .. })));
    assert_eq!(fault(&elf(&NOTE[..16])), Fault::Malformed("a PVH note without an address"));
    let zeros = [0; 0x700];
    assert!(matches!(boot(&file(&elf(&zeros)), None, "", &memory(64 * MIB)), Ok(Entry::Linux64 { .. })));
    let mut outside = NOTE;
    outside[19] = 0x7F;
    assert_eq!(fault(&elf(&outside)), Fault::Malformed("an entry outside of what is loaded"));
}

#[test]
fn too_little_memory_says_how_much_is_needed() {
    let error = boot(&file(&bzimage()), None, "", &memory(32 * MIB)).unwrap_err().to_string();
    assert_eq!(
        error,
        "vmlinuz: the kernel needs memory up to 0x3800000 (56 MiB), and the guest's ends at 0x2000000; \
         give the guest more memory"
    );
    let initrd = tempfile::tempfile().unwrap();
    initrd.set_len(9 * MIB).unwrap();
    let error = boot(&file(&bzimage()), Some(&initrd), "", &memory(64 * MIB)).unwrap_err().to_string();
    assert!(error.starts_with("initrd.img: the initrd has 9437184 bytes"), "{error}");
    assert!(boot(&file(&bzimage()), Some(&initrd), "", &memory(65 * MIB)).is_ok());
}

#[test]
fn files_that_are_no_files_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let open = File::open(directory.path()).unwrap();
    let error = boot(&open, None, "", &memory(64 * MIB)).unwrap_err().to_string();
    assert_eq!(error, "vmlinuz: this is a directory, not a file");
    let null = File::open("/dev/null").unwrap();
    let error = boot(&file(&bzimage()), Some(&null), "", &memory(64 * MIB)).unwrap_err().to_string();
    assert_eq!(error, "initrd.img: this is not a regular file");
}

#[test]
fn a_command_line_must_fit_the_kernel() {
    let memory = memory(64 * MIB);
    let kernel = file(&bzimage());
    assert!(boot(&kernel, None, &"x".repeat(2047), &memory).is_ok());
    let error = boot(&kernel, None, &"x".repeat(2048), &memory).unwrap_err();
    assert!(matches!(error, BootError::CmdlineTooLong { length: 2048, max: 2047 }));
    let error = boot(&kernel, None, "a\0b", &memory).unwrap_err();
    assert!(matches!(error, BootError::CmdlineZero { position: 1 }));
}

proptest! {
    /// Whatever the bytes, loading ends, and nothing panics.
    #[test]
    fn changed_kernels_are_loaded_or_refused(
        which in any::<bool>(),
        changes in prop::collection::vec((0usize..0x900, any::<u8>()), 0..16),
        length in 0usize..0x2800,
    ) {
        let mut image = if which { bzimage() } else { elf(&NOTE) };
        for (at, byte) in changes {
            image[at] = byte;
        }
        image.truncate(length);
        let memory = memory(64 * MIB);
        drop(boot(&file(&image), None, "quiet", &memory));
    }
}
