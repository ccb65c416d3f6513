//! A zoned block device of this Linux, without its page cache.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::ioctl::{self, Command, MAX_ZONES};
use crate::operation::Operation;

pub(crate) const SECTOR: u64 = 512;
/// What every address and length is a multiple of.
pub(crate) const BLOCK: u64 = 4096;
/// Sectors of it.
pub(crate) const BLOCK_SECTORS: u64 = BLOCK / SECTOR;

/// What a zone is in: `enum blk_zone_cond`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Conventional,
    Empty,
    ImplicitlyOpen,
    ExplicitlyOpen,
    Closed,
    ReadOnly,
    Full,
    Offline,
}

/// A zone as it is reported, in sectors.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Zone {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) capacity: u64,
    /// Of a condition that has one; else 0.
    pub(crate) pointer: u64,
    pub(crate) condition: Condition,
}

impl Zone {
    /// The sector behind the last one that can be written.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.capacity
    }

    pub(crate) fn is_active(&self) -> bool {
        self.is_open() || self.condition == Condition::Closed
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.condition, Condition::ImplicitlyOpen | Condition::ExplicitlyOpen)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Zone { start, len, capacity, pointer, condition } = self;
        write!(f, "{condition:?} {start}+{len}, capacity {capacity}, pointer {pointer}")
    }
}

/// An open disk. Its limits are those Linux has read, 0 for none.
pub(crate) struct Disk {
    file: File,
    pub(crate) max_open: u64,
    pub(crate) max_active: u64,
}

/// How an operation ended: with an errno, or with what was read.
pub(crate) type Answer = Result<Vec<u8>, i32>;

impl Disk {
    pub(crate) fn open(path: &Path) -> Result<Disk> {
        let open = || -> Result<Disk> {
            let file = File::options().read(true).write(true).custom_flags(libc::O_DIRECT).open(path)?;
            let number = file.metadata()?.rdev();
            let queue = format!("/sys/dev/block/{}:{}/queue", libc::major(number), libc::minor(number));
            let limit = |name: &str| -> Result<u64> {
                Ok(fs::read_to_string(format!("{queue}/{name}"))?.trim().parse()?)
            };
            Ok(Disk { max_open: limit("max_open_zones")?, max_active: limit("max_active_zones")?, file })
        };
        open().with_context(|| format!("cannot open {}", path.display()))
    }

    /// All zones.
    pub(crate) fn report(&self) -> Result<Vec<Zone>> {
        let raw = ioctl::report(&self.file).context("cannot report zones")?;
        if raw.is_empty() || raw.len() == MAX_ZONES {
            bail!("{} zones are told of, not 1 to {}", raw.len(), MAX_ZONES - 1);
        }
        raw.into_iter()
            .map(|zone| {
                let condition = condition(zone.kind, zone.cond)?;
                // The others have none: "not valid" in ZBC, ZNS and virtio; Linux's drivers fill in what they like.
                let has_pointer = matches!(
                    condition,
                    Condition::Empty
                        | Condition::ImplicitlyOpen
                        | Condition::ExplicitlyOpen
                        | Condition::Closed
                );
                let pointer = if has_pointer { zone.wp } else { 0 };
                Ok(Zone { start: zone.start, len: zone.len, capacity: zone.capacity, pointer, condition })
            })
            .collect()
    }

    /// Does what `operation` says; `pattern` is what a write writes.
    pub(crate) fn perform(&self, operation: &Operation, pattern: u64) -> Answer {
        let done = match *operation {
            Operation::Write { sector, sectors } => self.write(sector, sectors, pattern),
            Operation::Read { sector, sectors } => {
                return self.read(sector, sectors).map_err(|error| error.raw_os_error().unwrap_or(0));
            }
            Operation::Command { command, sector, sectors } => {
                ioctl::command(&self.file, command, sector, sectors)
            }
            Operation::ResetAll { sectors } => ioctl::command(&self.file, Command::Reset, 0, sectors),
            Operation::Sync => self.file.sync_all(),
        };
        done.map(|()| Vec::new()).map_err(|error| error.raw_os_error().unwrap_or(0))
    }

    /// Writes blocks of which each is different, and different with another `pattern`.
    pub(crate) fn write(&self, sector: u64, sectors: u64, pattern: u64) -> io::Result<()> {
        let mut buffer = Buffer::new((sectors * SECTOR) as usize);
        fill(buffer.bytes(), sector, pattern);
        match self.file.write_at(buffer.bytes(), sector * SECTOR)? {
            len if len as u64 == sectors * SECTOR => Ok(()),
            _ => Err(io::Error::from_raw_os_error(libc::ENODATA)),
        }
    }

    /// Reads sectors.
    pub(crate) fn read(&self, sector: u64, sectors: u64) -> io::Result<Vec<u8>> {
        let mut buffer = Buffer::new((sectors * SECTOR) as usize);
        match self.file.read_at(buffer.bytes(), sector * SECTOR)? {
            len if len as u64 == sectors * SECTOR => Ok(buffer.bytes().to_vec()),
            _ => Err(io::Error::from_raw_os_error(libc::ENODATA)),
        }
    }
}

fn condition(kind: u8, cond: u8) -> Result<Condition> {
    Ok(match (kind, cond) {
        (1, 0) => Condition::Conventional,
        (2, 1) => Condition::Empty,
        (2, 2) => Condition::ImplicitlyOpen,
        (2, 3) => Condition::ExplicitlyOpen,
        (2, 4) => Condition::Closed,
        (2, 13) => Condition::ReadOnly,
        (2, 14) => Condition::Full,
        (2, 15) => Condition::Offline,
        _ => bail!("a zone of type {kind} in condition {cond}"),
    })
}

/// Fills `bytes`, which go to `sector`, with words that say what they are.
pub(crate) fn fill(bytes: &mut [u8], sector: u64, pattern: u64) {
    for (index, word) in bytes.chunks_exact_mut(8).enumerate() {
        let place = sector * SECTOR + index as u64 * 8;
        word.copy_from_slice(&(pattern << 40 | place).to_le_bytes());
    }
}

/// Memory that begins at a block, as O_DIRECT asks.
pub(crate) struct Buffer {
    memory: Vec<u8>,
    from: usize,
    len: usize,
}

impl Buffer {
    pub(crate) fn new(len: usize) -> Buffer {
        let memory = vec![0; len + BLOCK as usize];
        let from = memory.as_ptr().align_offset(BLOCK as usize);
        Buffer { memory, from, len }
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..self.from + self.len]
    }
}
