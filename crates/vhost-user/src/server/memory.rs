//! The front-end's memory table, and the guest memory it makes.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use parador_virtio::{GuestAddress, GuestMemory};
use vm_memory::GuestRegionMmap;

use super::Refusal;
use super::host::Mapping;
use crate::message::MemoryRegion;

/// How many regions there can be at once; never fewer than an earlier version had.
pub(super) const MAX_REGIONS: usize = 509;

/// Guest memory as the front-end described it. Changes make a new [`GuestMemory`]; what runs on the
/// old one has to be stopped before that is put in its place.
#[derive(Default)]
pub(super) struct Memory {
    // Fields are dropped in this order: the mappings when nobody uses them any more.
    guest: Option<Arc<GuestMemory>>,
    regions: Vec<Rc<Region>>,
}

struct Region {
    told: MemoryRegion,
    guest: Arc<GuestRegionMmap>,
    _mapping: Mapping,
}

impl Memory {
    /// All of it anew.
    pub(super) fn of_table(table: &[MemoryRegion], fds: Vec<OwnedFd>, gpa: bool) -> Result<Self, Refusal> {
        let regions = table.iter().zip(fds).map(|(told, fd)| Region::map(*told, fd, gpa).map(Rc::new));
        Self::of_regions(regions.collect::<Result<_, _>>()?)
    }

    /// This with one region more.
    pub(super) fn with(&self, told: MemoryRegion, fd: OwnedFd, gpa: bool) -> Result<Self, Refusal> {
        if self.regions.len() >= MAX_REGIONS {
            return Err(Refusal::Value("there are as many regions as there can be"));
        }
        let mut regions = self.regions.clone();
        regions.push(Rc::new(Region::map(told, fd, gpa)?));
        Self::of_regions(regions)
    }

    /// This without the region of that place, size and user address.
    pub(super) fn without(&self, told: &MemoryRegion) -> Result<Self, Refusal> {
        let key = |region: &MemoryRegion| (region.guest_address, region.size, region.user_address);
        let at = self.regions.iter().position(|region| key(&region.told) == key(told));
        let at = at.ok_or(Refusal::Value("there is no such region"))?;
        let mut regions = self.regions.clone();
        regions.remove(at);
        Self::of_regions(regions)
    }

    /// The memory; `None` while there is no region.
    pub(super) fn guest(&self) -> Option<&Arc<GuestMemory>> {
        self.guest.as_ref()
    }

    /// The guest's address of what the front-end has at `user_address`, if the `len` bytes from there
    /// are in one region.
    pub(super) fn translate(&self, user_address: u64, len: u64) -> Option<u64> {
        self.regions.iter().find_map(|region| {
            let offset = user_address.checked_sub(region.told.user_address)?;
            let inside = offset.checked_add(len)? <= region.told.size;
            inside.then(|| region.told.guest_address + offset) // checked not to wrap when it was mapped
        })
    }

    fn of_regions(mut regions: Vec<Rc<Region>>) -> Result<Self, Refusal> {
        regions.sort_by_key(|region| region.told.user_address);
        let apart =
            |pair: &[Rc<Region>]| pair[0].told.user_address + pair[0].told.size <= pair[1].told.user_address;
        if !regions.windows(2).all(apart) {
            return Err(Refusal::Value("two regions overlap in the front-end's addresses"));
        }
        regions.sort_by_key(|region| region.told.guest_address);
        if regions.is_empty() {
            return Ok(Self::default());
        }
        let guest = regions.iter().map(|region| Arc::clone(&region.guest)).collect();
        let guest = GuestMemory::from_arc_regions(guest)
            .map_err(|_| Refusal::Value("two regions overlap in the guest's addresses"))?;
        Ok(Self { guest: Some(Arc::new(guest)), regions })
    }
}

impl Region {
    fn map(told: MemoryRegion, fd: OwnedFd, gpa: bool) -> Result<Self, Refusal> {
        let MemoryRegion { guest_address, size, user_address, mmap_offset } = told;
        if size == 0
            || [guest_address, user_address, mmap_offset].iter().any(|at| at.checked_add(size).is_none())
        {
            return Err(Refusal::Value("a region is empty or reaches beyond 2^64"));
        }
        if gpa && guest_address != user_address {
            return Err(Refusal::Value("a region's user address is not the guest's"));
        }
        let mapping = Mapping::new(File::from(fd), mmap_offset, size)
            .map_err(|error| Refusal::Host("a region cannot be mapped", error))?;
        let start = guest_address.checked_sub(mapping.slack);
        let guest = start.and_then(|start| GuestRegionMmap::with_arc(mapping.region(), GuestAddress(start)));
        let unaligned = || io::Error::from(io::ErrorKind::InvalidInput);
        let guest = guest.ok_or_else(|| Refusal::Host("a region cannot be placed", unaligned()))?;
        Ok(Self { told, guest: Arc::new(guest), _mapping: mapping })
    }
}
