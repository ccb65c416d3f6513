//! Guest memory as a back-end is told of it.

use std::os::fd::{AsFd, BorrowedFd};

use parador_virtio::GuestMemory;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use super::RemoteError;
use super::link::Link;
use crate::message::{FrontendRequest as R, MAX_TABLE_REGIONS, MemoryRegion, ProtocolFeatures as F};

/// Regions of guest memory, by ascending address. User addresses are those of this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table(Vec<MemoryRegion>);

impl Table {
    /// The regions of `memory`.
    ///
    /// # Errors
    /// It is not in files that other processes can map.
    pub(super) fn of(memory: &GuestMemory) -> Result<Self, RemoteError> {
        let region = |region: &vm_memory::GuestRegionMmap| {
            let file = region.file_offset().filter(|_| region.flags() & libc::MAP_SHARED != 0);
            Some(MemoryRegion {
                guest_address: region.start_addr().raw_value(),
                size: region.len(),
                user_address: region.as_ptr().addr() as u64,
                mmap_offset: file?.start(),
            })
        };
        let regions: Option<Vec<_>> = memory.iter().map(region).collect();
        regions.map(Self).ok_or(RemoteError::PrivateMemory)
    }

    /// Where the `len` bytes at guest address `address` are in this process; `None` unless they lie
    /// in one region and are aligned to `align`.
    pub(super) fn user_address(&self, address: u64, len: u64, align: u64) -> Option<u64> {
        let region = self.0.iter().rfind(|region| region.guest_address <= address)?;
        let offset = address - region.guest_address;
        let inside = region.size.checked_sub(offset)? >= len && address.is_multiple_of(align);
        inside.then(|| region.user_address + offset)
    }

    /// The first address beyond all of guest memory.
    pub(super) fn end(&self) -> u64 {
        self.0.last().map_or(0, |region| region.guest_address.saturating_add(region.size))
    }
}

impl Link {
    /// Tells the back-end of `memory`, if it does not know it yet. No ring that runs is in what is
    /// taken away.
    pub(super) fn tell_memory(&mut self, memory: &GuestMemory) -> Result<(), RemoteError> {
        let table = Table::of(memory)?;
        if self.told.memory == table {
            return Ok(());
        }
        let count = table.0.len();
        let one_by_one = self.protocol.contains(F::CONFIGURE_MEM_SLOTS) && self.slots >= count as u64;
        if one_by_one {
            self.tell_regions(memory, &table)?;
        } else if count <= MAX_TABLE_REGIONS {
            let files: Vec<BorrowedFd<'_>> = memory.iter().filter_map(file).collect();
            self.tell(&R::SetMemTable(table.0.clone()), &files)?;
        } else {
            let slots = self.slots.max(MAX_TABLE_REGIONS as u64);
            return Err(RemoteError::Slots { regions: count, slots });
        }
        self.told.memory = table;
        Ok(())
    }

    /// Regions one by one: those that go first, so that none overlap at any time.
    fn tell_regions(&mut self, memory: &GuestMemory, table: &Table) -> Result<(), RemoteError> {
        let gone: Vec<_> = self.told.memory.0.extract_if(.., |region| !table.0.contains(region)).collect();
        for region in gone {
            self.tell(&R::RemMemReg(region), &[])?;
        }
        for (region, described) in memory.iter().zip(&table.0) {
            if self.told.memory.0.contains(described) {
                continue;
            }
            let file: Vec<BorrowedFd<'_>> = file(region).into_iter().collect();
            self.tell(&R::AddMemReg(*described), &file)?;
            self.told.memory.0.push(*described);
        }
        Ok(())
    }
}

fn file(region: &vm_memory::GuestRegionMmap) -> Option<BorrowedFd<'_>> {
    region.file_offset().map(|file| file.file().as_fd())
}
