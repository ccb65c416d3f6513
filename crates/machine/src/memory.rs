//! The guest's memory: what it is made of on the host, and where the guest finds it.

#![expect(unsafe_code, reason = "creates and advises mappings")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::Arc;

use parador_virtio::GuestMemory;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap, MmapRegion,
};

use crate::platform::x86_64::layout::ram_ranges;

/// What the guest's memory is made of.
///
/// ```
/// use parador_machine::{Backing, MemoryShape};
/// use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
///
/// let memory = MemoryShape { backing: Backing::Memfd, shared: true, ..MemoryShape::new(4 << 30) }.build()?;
/// let regions: Vec<(u64, u64)> = memory.iter().map(|region| (region.start_addr().0, region.len())).collect();
/// assert_eq!(regions, [(0, 3 << 30), (4 << 30, 1 << 30)]);
/// # Ok::<(), parador_machine::MemoryError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryShape {
    /// Bytes; a multiple of the backing's page size, at least [`MemoryShape::SMALLEST`].
    pub size: u64,
    /// Where the pages come from.
    pub backing: Backing,
    /// Whether other processes (vhost-user back-ends) can map it. Shared anonymous memory is a memfd.
    pub shared: bool,
    /// Asks for transparent huge pages; without effect on [`Backing::Huge`].
    pub transparent_huge_pages: bool,
    /// Takes every page from the host at once, rather than as the guest touches it.
    pub prefault: bool,
    /// Takes every page from the host at once, and keeps it from being swapped out.
    pub locked: bool,
}

/// Where the pages of guest memory come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// Ordinary anonymous memory.
    Anonymous,
    /// A memory file, which has a descriptor to hand to other processes.
    Memfd,
    /// A memory file of huge pages from the host's pool.
    Huge(HugePage),
}

/// A size of huge page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HugePage {
    /// 2 MiB.
    Size2M,
    /// 1 GiB.
    Size1G,
}

/// Why there is no memory for the guest.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Less than any guest can start in.
    #[error("{size} bytes of memory are too few: at least {} are needed", MemoryShape::SMALLEST)]
    TooSmall {
        /// Bytes asked for.
        size: u64,
    },
    /// Not a whole number of pages.
    #[error("{size} bytes of memory are not a multiple of the page size, {page_size}")]
    NotWholePages {
        /// Bytes asked for.
        size: u64,
        /// Bytes in a page of the backing.
        page_size: u64,
    },
    /// More than the host has, where its policy is not to give out more than that.
    #[error("{} MiB of memory are more than the {} MiB this host has", size >> 20, host >> 20)]
    HostTooSmall {
        /// Bytes asked for.
        size: u64,
        /// Bytes of memory and swap in the host.
        host: u64,
    },
    /// The host's pool has not enough huge pages free.
    #[error("the host has not {pages} free huge pages of {} MiB", page_size >> 20)]
    NoHugePages {
        /// Pages needed.
        pages: u64,
        /// Bytes in each.
        page_size: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// Any other refusal of the host.
    #[error("cannot {doing} {} MiB of guest memory", size >> 20)]
    Host {
        /// What was tried.
        doing: &'static str,
        /// Bytes asked for.
        size: u64,
        /// What the kernel said.
        source: io::Error,
    },
}

impl MemoryError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::TooSmall { .. } | Self::NotWholePages { .. } => None,
            Self::HostTooSmall { .. } => Some("give the guest less memory".to_owned()),
            Self::NoHugePages { pages, page_size, .. } => Some(format!(
                "reserve them with: echo {pages} > /sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages",
                page_size >> 10
            )),
            Self::Host { .. } => Some("see the limits of this process (ulimit -a) and its cgroup".to_owned()),
        }
    }
}

impl HugePage {
    /// Bytes in a page.
    #[must_use]
    pub fn size(self) -> u64 {
        match self {
            Self::Size2M => 2 << 20,
            Self::Size1G => 1 << 30,
        }
    }

    fn memfd_flag(self) -> libc::c_uint {
        match self {
            Self::Size2M => libc::MFD_HUGETLB | libc::MFD_HUGE_2MB,
            Self::Size1G => libc::MFD_HUGETLB | libc::MFD_HUGE_1GB,
        }
    }
}

impl MemoryShape {
    /// The least memory a machine has: below it is no room for a boot loader's tables.
    pub const SMALLEST: u64 = 2 << 20;

    /// `size` bytes of ordinary private memory with transparent huge pages.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self {
            size,
            backing: Backing::Anonymous,
            shared: false,
            transparent_huge_pages: true,
            prefault: false,
            locked: false,
        }
    }

    /// Bytes in a page of the backing.
    #[must_use]
    pub fn page_size(&self) -> u64 {
        match self.backing {
            Backing::Anonymous | Backing::Memfd => 4096,
            Backing::Huge(page) => page.size(),
        }
    }

    /// Takes the memory from the host.
    ///
    /// # Errors
    /// The size cannot be had, or the host refuses; [`MemoryError::hint`] says what to do.
    pub fn build(&self) -> Result<Arc<GuestMemory>, MemoryError> {
        self.check()?;
        let file = self.file()?;
        let mut regions = Vec::with_capacity(2);
        let mut offset = 0;
        for range in ram_ranges(self.size) {
            let size = range.end - range.start;
            regions.push(self.region(file.as_ref(), offset, range.start, size)?);
            offset += size;
        }
        let memory = GuestMemory::from_regions(regions).expect("ranges in order, apart");
        Ok(Arc::new(memory))
    }

    fn check(&self) -> Result<(), MemoryError> {
        let size = self.size;
        if size < Self::SMALLEST {
            return Err(MemoryError::TooSmall { size });
        }
        if !size.is_multiple_of(self.page_size()) {
            return Err(MemoryError::NotWholePages { size, page_size: self.page_size() });
        }
        let host = host_memory();
        if size > host && !overcommits() {
            return Err(MemoryError::HostTooSmall { size, host });
        }
        Ok(())
    }

    /// The file behind the memory, unless there is none.
    fn file(&self) -> Result<Option<Arc<File>>, MemoryError> {
        let flags = match self.backing {
            Backing::Anonymous if !self.shared => return Ok(None),
            Backing::Anonymous | Backing::Memfd => 0,
            Backing::Huge(page) => page.memfd_flag(),
        };
        // SAFETY: the name is a C string; the call touches nothing else of ours.
        let fd = unsafe { libc::memfd_create(c"guest memory".as_ptr(), libc::MFD_CLOEXEC | flags) };
        if fd < 0 {
            return Err(self.refused("create a file for", io::Error::last_os_error()));
        }
        // SAFETY: the descriptor is new and nobody else's.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(self.size).map_err(|error| self.refused("reserve", error))?;
        Ok(Some(Arc::new(file)))
    }

    fn region(
        &self,
        file: Option<&Arc<File>>,
        offset: u64,
        address: u64,
        size: u64,
    ) -> Result<GuestRegionMmap, MemoryError> {
        let mapping = self.map(file, offset, size)?;
        self.advise(&mapping)?;
        Ok(GuestRegionMmap::new(mapping, GuestAddress(address)).expect("guest memory ends below 2^64"))
    }

    fn map(&self, file: Option<&Arc<File>>, offset: u64, size: u64) -> Result<MmapRegion, MemoryError> {
        let len = usize::try_from(size).expect("a 64-bit host");
        // Huge pages are reserved here and now: running out of them later would be a bus error.
        let mut flags = if matches!(self.backing, Backing::Huge(_)) { 0 } else { libc::MAP_NORESERVE };
        flags |= if self.shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
        flags |= if file.is_none() { libc::MAP_ANONYMOUS } else { 0 };
        let map = || {
            let builder = MmapRegionBuilder::new(len)
                .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
                .with_mmap_flags(flags);
            match file {
                Some(file) => builder.with_file_offset(FileOffset::from_arc(Arc::clone(file), offset)),
                None => builder,
            }
            .build()
            .map_err(|_| self.refused("map", io::Error::last_os_error()))
        };
        let mapping = map()?;
        let excess = mapping.as_ptr() as usize % THP_SIZE;
        if excess == 0 || !self.transparent_huge_pages {
            return Ok(mapping);
        }
        // A huge page of the host backs one of the guest only when both are aligned alike. Kernels
        // before 6.7 do not see to that: they fill the address space downwards, so a pad as long as
        // the excess puts the next mapping right.
        drop(mapping);
        let _pad = MmapRegionBuilder::<()>::new(excess)
            .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE)
            .build();
        map()
    }

    fn advise(&self, mapping: &MmapRegion) -> Result<(), MemoryError> {
        if self.transparent_huge_pages && !matches!(self.backing, Backing::Huge(_)) {
            // The first huge page stays small ones: it holds boot tables and little else, and clearing
            // all of it is half of a short start. A kernel without huge pages says EINVAL.
            let _ = advise(mapping, THP_SIZE.min(mapping.size()), libc::MADV_HUGEPAGE);
        }
        if self.prefault {
            advise(mapping, 0, libc::MADV_POPULATE_WRITE).map_err(|error| self.refused("prefault", error))?;
        }
        if self.locked {
            lock(mapping).map_err(|error| self.refused("lock", error))?;
        }
        Ok(())
    }

    fn refused(&self, doing: &'static str, source: io::Error) -> MemoryError {
        match self.backing {
            Backing::Huge(page) if source.raw_os_error() == Some(libc::ENOMEM) => {
                MemoryError::NoHugePages { pages: self.size / page.size(), page_size: page.size(), source }
            }
            Backing::Anonymous | Backing::Memfd | Backing::Huge(_) => {
                MemoryError::Host { doing, size: self.size, source }
            }
        }
    }
}

/// Makes all of `memory` read as zero, and gives its pages back to the host.
pub(crate) fn clear(memory: &GuestMemory) -> io::Result<()> {
    for region in memory.iter() {
        // A private mapping's own pages, then those of the file behind it.
        advise(region, 0, libc::MADV_DONTNEED).or_else(|_| advise(region, 0, DONTNEED_LOCKED))?;
        if let Some(file) = region.file_offset() {
            let at = |value: u64| libc::off_t::try_from(value).map_err(io::Error::other);
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            // SAFETY: the descriptor is open; the call changes the file only.
            let result = unsafe {
                libc::fallocate(file.file().as_raw_fd(), mode, at(file.start())?, at(region.len())?)
            };
            if result < 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

/// The size that a transparent huge page has on every host we run on.
const THP_SIZE: usize = 2 << 20;

/// As `MADV_DONTNEED`, for memory that is locked (Linux 5.18).
const DONTNEED_LOCKED: libc::c_int = 24;

/// Takes all of `mapping` from the host and keeps it there.
fn lock(mapping: &MmapRegion) -> io::Result<()> {
    // SAFETY: the range is a mapping of ours; its contents stay.
    let result = unsafe { libc::mlock(mapping.as_ptr().cast(), mapping.size()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Advises the kernel on all of `mapping` from `start` on, which is not after its end.
fn advise(mapping: &MmapRegion, start: usize, advice: libc::c_int) -> io::Result<()> {
    // SAFETY: the range is a part of a mapping of ours, and what is in it is the guest's: Rust holds
    // no reference into it, whatever the advice does to its contents.
    let result = unsafe { libc::madvise(mapping.as_ptr().add(start).cast(), mapping.size() - start, advice) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether this host gives out more memory than it has, whatever is asked for (vm.overcommit_memory).
fn overcommits() -> bool {
    std::fs::read("/proc/sys/vm/overcommit_memory").is_ok_and(|policy| policy.starts_with(b"1"))
}

/// Bytes of memory and swap in this host; without limit if it does not say.
fn host_memory() -> u64 {
    // SAFETY: an all-zero sysinfo is a valid one, and the call fills it.
    let (result, info) = unsafe {
        let mut info: libc::sysinfo = std::mem::zeroed();
        (libc::sysinfo(&raw mut info), info)
    };
    if result < 0 {
        return u64::MAX;
    }
    info.totalram.saturating_add(info.totalswap).saturating_mul(u64::from(info.mem_unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    fn layout(memory: &GuestMemory) -> Vec<(u64, u64)> {
        memory.iter().map(|region| (region.start_addr().0, region.len())).collect()
    }

    #[test]
    fn memory_above_three_gib_goes_on_at_four() {
        for (size, expected) in [
            (2 << 20, vec![(0, 2 << 20)]),
            (3 << 30, vec![(0, 3 << 30)]),
            ((3 << 30) + 4096, vec![(0, 3 << 30), (4 << 30, 4096)]),
            (6 << 30, vec![(0, 3 << 30), (4 << 30, 3 << 30)]),
        ] {
            assert_eq!(layout(&MemoryShape::new(size).build().unwrap()), expected);
        }
    }

    #[test]
    fn shared_memory_is_one_file_with_the_hole_left_out() {
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let shape = MemoryShape { backing, shared: true, ..MemoryShape::new(4 << 30) };
            let memory = shape.build().unwrap();
            memory.write_obj(0x5aa5_u16, GuestAddress((4 << 30) + 2)).unwrap();
            let offsets: Vec<u64> =
                memory.iter().map(|region| region.file_offset().expect("a file").start()).collect();
            assert_eq!(offsets, [0, 3 << 30]);
            let file = memory.iter().next().unwrap().file_offset().unwrap().arc().clone();
            let mut data = [0; 2];
            std::os::unix::fs::FileExt::read_exact_at(&*file, &mut data, (3 << 30) + 2).unwrap();
            assert_eq!(data, [0xa5, 0x5a]);
        }
    }

    #[test]
    fn cleared_memory_is_zero_again() {
        for (backing, shared) in
            [(Backing::Anonymous, false), (Backing::Memfd, false), (Backing::Memfd, true)]
        {
            let memory = MemoryShape { backing, shared, ..MemoryShape::new(4 << 20) }.build().unwrap();
            memory.write_obj(7_u8, GuestAddress(0x20_0000)).unwrap();
            clear(&memory).unwrap();
            assert_eq!(memory.read_obj::<u8>(GuestAddress(0x20_0000)).unwrap(), 0, "{backing:?} {shared}");
        }
    }

    #[test]
    fn huge_page_alignment_does_not_depend_on_the_kernel() {
        let other = MmapRegionBuilder::<()>::new(4096).build().unwrap();
        let memory = MemoryShape::new(16 << 20).build().unwrap();
        let region = memory.iter().next().unwrap();
        assert_eq!(region.as_ptr() as usize % THP_SIZE, 0);
        drop(other);
    }

    #[test]
    fn sizes_that_cannot_be_are_refused_with_the_reason() {
        let build = |shape: MemoryShape| shape.build().unwrap_err();
        assert!(matches!(build(MemoryShape::new(1 << 20)), MemoryError::TooSmall { .. }));
        assert!(matches!(build(MemoryShape::new((8 << 20) + 1)), MemoryError::NotWholePages { .. }));
        let huge = Backing::Huge(HugePage::Size1G);
        let error = build(MemoryShape { backing: huge, ..MemoryShape::new(512 << 20) });
        assert!(matches!(error, MemoryError::NotWholePages { page_size: 0x4000_0000, .. }));
        if overcommits() {
            return;
        }
        let error = build(MemoryShape::new(1 << 52));
        assert!(matches!(error, MemoryError::HostTooSmall { .. }), "{error}");
        assert!(error.to_string().starts_with("4294967296 MiB of memory are more than"), "{error}");
    }

    #[test]
    fn huge_pages_the_host_has_not_are_named_with_the_remedy() {
        let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages");
        if free.is_ok_and(|free| free.trim() != "0") {
            eprintln!("skipped: this host has huge pages of 1 GiB");
            return;
        }
        let shape = MemoryShape { backing: Backing::Huge(HugePage::Size1G), ..MemoryShape::new(1 << 30) };
        match shape.build() {
            Err(error @ MemoryError::NoHugePages { pages: 1, .. }) => {
                assert!(error.hint().unwrap().contains("hugepages-1048576kB/nr_hugepages"));
            }
            // A host without that page size at all.
            Err(MemoryError::Host { source, .. }) => assert_eq!(source.raw_os_error(), Some(libc::ENODEV)),
            other => assert!(other.is_err(), "there was no such page"),
        }
    }

    #[test]
    fn locked_memory_can_be_cleared() {
        let memory = MemoryShape { locked: true, ..MemoryShape::new(2 << 20) }.build().unwrap();
        memory.write_obj(1_u8, GuestAddress(4096)).unwrap();
        clear(&memory).unwrap();
        assert_eq!(memory.read_obj::<u8>(GuestAddress(4096)).unwrap(), 0);
    }

    #[test]
    fn prefaulted_memory_is_resident() {
        let memory = MemoryShape { prefault: true, ..MemoryShape::new(4 << 20) }.build().unwrap();
        let region = memory.iter().next().unwrap();
        let mut pages = vec![0_u8; region.size() / 4096];
        // SAFETY: the range is the mapping, and there is a byte for each page of it.
        let result = unsafe { libc::mincore(region.as_ptr().cast(), region.size(), pages.as_mut_ptr()) };
        assert_eq!(result, 0);
        assert!(pages.iter().all(|page| page & 1 == 1));
    }
}
