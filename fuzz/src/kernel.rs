//! Kernels that contradict themselves.
//!
//! Shared by the fuzz target and by a replay among the tests of the crate.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use parador_machine::platform::x86_64::{Source as Image, Sources, load};
use parador_virtio::testing::hostile::Source;
use parador_virtio::{GuestAddress, GuestMemory};

const MEMORY: usize = 64 << 20;
/// Changes to a sound kernel in one input.
const CHANGES: usize = 24;
/// Numbers that lengths and offsets go wrong with.
const ODD: [u64; 8] = [0, 1, 0xFFF, 1 << 20, 1 << 31, u32::MAX as u64, 1 << 63, u64::MAX];

/// A sound kernel with some changes, given to the loader; says whether it was loaded.
///
/// # Panics
/// The loader does.
pub fn exercise(bytes: &[u8]) -> bool {
    let mut source = Source::new(bytes);
    let mut image = if source.below(2) == 0 { bzimage() } else { elf() };
    for _ in 0..source.below(CHANGES) {
        let at = source.below(image.len());
        let value = if source.below(2) == 0 { source.choose(&ODD) } else { source.u64() };
        let size = source.choose(&[1, 2, 4, 8]).min(image.len() - at);
        image[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
    }
    if source.below(8) == 0 {
        image.truncate(source.below(image.len()));
    }
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY)]).expect("64 MiB of memory");
    let kernel = file(&image);
    let kernel = Image { file: &kernel, path: Path::new("kernel") };
    load(&Sources { kernel, initrd: Some(kernel), cmdline: "quiet" }, &memory).is_ok()
}

/// A file without a name.
fn file(bytes: &[u8]) -> File {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("parador-kernel-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).expect("a new file");
    std::fs::remove_file(&path).expect("it was just made");
    file.write_all(bytes).expect("room for a small file");
    file
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// One setup sector, 1 KiB of kernel.
fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 0x800];
    put(&mut image, 0x1F1, &[1]);
    put(&mut image, 0x1F4, &64_u32.to_le_bytes());
    put(&mut image, 0x200, b"\xEB\x6AHdrS\x0F\x02");
    put(&mut image, 0x211, &[1]);
    put(&mut image, 0x22C, &0x7FFF_FFFF_u32.to_le_bytes());
    put(&mut image, 0x234, &[1, 0, 0x3F]);
    put(&mut image, 0x238, &2047_u32.to_le_bytes());
    put(&mut image, 0x258, &(16_u64 << 20).to_le_bytes());
    put(&mut image, 0x260, &(8_u32 << 20).to_le_bytes());
    image
}

/// Two segments at 16 MiB, and notes with an entry.
fn elf() -> Vec<u8> {
    let mut image = vec![0; 0x400];
    put(&mut image, 0, b"\x7FELF\x02\x01");
    put(&mut image, 16, &[2, 0, 62]);
    put(&mut image, 24, &(16_u64 << 20).to_le_bytes());
    put(&mut image, 32, &64_u64.to_le_bytes());
    put(&mut image, 54, &[56, 0, 3]);
    let segments: [[u64; 5]; 3] =
        [[1, 0x200, 16 << 20, 0x100, 0x100], [1, 0x300, 17 << 20, 0x100, 0x2000], [4, 0x180, 0, 20, 20]];
    for (index, [kind, offset, address, in_file, in_memory]) in segments.into_iter().enumerate() {
        let at = 64 + 56 * index;
        put(&mut image, at, &kind.to_le_bytes()[..4]);
        for (position, value) in [(8, offset), (24, address), (32, in_file), (40, in_memory)] {
            put(&mut image, at + position, &value.to_le_bytes());
        }
    }
    put(&mut image, 0x180, b"\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0\0\0\0\x01");
    image
}
