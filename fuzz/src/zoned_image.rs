//! Zoned images that contradict themselves, with checksums that are right.
//!
//! Shared by the fuzz target and by a replay among the tests of the crate.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};

use parador_block::zoned::Geometry;
use parador_block::zoned::image::{Check, ImageError, Look, Metadata};

const BLOCK: u64 = 4096;
const ZONE: u64 = 64 << 10;
/// The first block of the live table, behind superblocks, checkpoints and journal.
const LIVE: u64 = 4 + 512;
/// Changes to a sound image in one input.
const CHANGES: u8 = 8;
/// Numbers that sizes and places go wrong with.
const ODD: [u64; 8] = [0, 1, 0xFFF, 1 << 20, 1 << 31, u32::MAX as u64, 1 << 63, u64::MAX];

/// A sound image with some changes is looked at, checked, opened and repaired; says whether it opened
/// as it was.
///
/// # Panics
/// Something of that does, or a repaired image is not a sound one.
pub fn exercise(bytes: &[u8]) -> bool {
    let mut bytes = bytes.iter().copied();
    let mut next = || bytes.next().unwrap_or(0);
    let file = image();
    for _ in 0..next() % CHANGES {
        let block = match next() % 4 {
            0 => u64::from(next() % 4),
            1 | 2 => 4 + u64::from(next() % 8),
            _ => LIVE + u64::from(next() % 2),
        };
        let at = u64::from(next()).min(BLOCK - 8);
        let value = match next() % 4 {
            0 => ODD[usize::from(next() % 8)],
            1 => u64::from_le_bytes([(); 8].map(|()| next())),
            _ => u64::from(next()),
        };
        let size = [1, 2, 4, 8][usize::from(next() % 4)];
        file.write_all_at(&value.to_le_bytes()[..size], block * BLOCK + at).expect("room for a small file");
        if block < LIVE {
            seal(&file, block * BLOCK);
        }
    }
    if next() % 16 == 1 {
        file.set_len(u64::from(next()) << 12).expect("a shorter file");
    }
    let _ = Look::at(&file);
    let check = Check::of(&file);
    let opens = Metadata::open(&file).is_ok_and(|metadata| metadata.close().is_ok());
    match check {
        Err(_) => assert!(!opens, "it opens, and cannot be checked"),
        Ok(_) if opens => {}
        Ok(check) => match check.repair(&file) {
            // A file of any size cannot be, and epochs come to an end.
            Err(error) => {
                let expected = matches!(error, ImageError::Host { .. } | ImageError::Damaged(_));
                assert!(expected, "{error}");
            }
            Ok(()) => {
                assert_eq!(Check::of(&file).expect("it was repaired").findings(), []);
                Metadata::open(&file).expect("it was repaired").close().expect("a small file");
            }
        },
    }
    opens
}

/// Gives a block the checksum of what it says.
fn seal(file: &File, offset: u64) {
    let mut block = [0; BLOCK as usize];
    file.read_exact_at(&mut block, offset).expect("it is there");
    block[12..16].fill(0);
    let crc = crc32c::crc32c(&block);
    file.write_all_at(&crc.to_le_bytes(), offset + 12).expect("it is there");
}

/// Eight zones, three of them written to, and nobody closed it.
fn image() -> File {
    let file = unnamed();
    let geometry = Geometry { conventional: 1, ..Geometry::new(8 * ZONE, ZONE) };
    let len = Metadata::create(&file, geometry, [7; 16]).expect("a new image");
    file.set_len(len).expect("holes");
    let metadata = Metadata::open(&file).expect("it is new");
    for zone in 1..4 {
        let write = metadata.zones().append(zone * ZONE, BLOCK).expect("it is empty");
        file.write_all_at(&[zone as u8; 64], metadata.data_offset() + write.offset).expect("a small file");
        metadata.zones().complete(write);
        metadata.flush().expect("a small file");
    }
    file
}

/// A file without a name.
fn unnamed() -> File {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("parador-zoned-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let file = File::options().read(true).write(true).create_new(true).open(&path).expect("a new file");
    std::fs::remove_file(&path).expect("it was just made");
    file
}
