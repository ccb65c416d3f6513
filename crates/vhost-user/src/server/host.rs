//! A front-end's descriptors as what they are to the host: files to map, eventfds to signal.

#![expect(unsafe_code, reason = "maps files of another process, and takes descriptors for eventfds")]

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use parador_virtio::{EventFd, Interrupt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fstatfs};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, MmapRegion};

/// What a mapping of an ordinary file starts at a multiple of.
const PAGE: u64 = 4096;
/// `HUGETLBFS_MAGIC`: such files are mapped in pages of their own size, which is that of a block.
const HUGETLBFS: i64 = 0x958458f6;

/// A descriptor as an eventfd. One that is something else fails when it is used.
pub(super) fn event_fd(fd: OwnedFd) -> EventFd {
    // SAFETY: the descriptor is ours, and ownership goes on to the eventfd.
    unsafe { EventFd::from_raw_fd(fd.into_raw_fd()) }
}

/// An interrupt that adds one to an eventfd, and never waits for whoever should read it.
pub(super) fn interrupt(fd: OwnedFd) -> io::Result<Interrupt> {
    if fcntl_getfl(&fd)?.contains(OFlags::NONBLOCK) {
        return Ok(Interrupt::from_eventfd(event_fd(fd)));
    }
    // The flag is shared with the front-end, which may want to wait when it reads.
    Ok(Interrupt::from_fn(move || {
        let mut ready = [PollFd::new(&fd, PollFlags::OUT)];
        if poll(&mut ready, Some(&Timespec::default())) == Ok(1) {
            let _ = rustix::io::write(&fd, &1u64.to_ne_bytes());
        }
    }))
}

/// A piece of a file in our memory, which goes away after this when nobody uses it any more.
pub(super) struct Mapping {
    region: Arc<MmapRegion>,
    start: usize,
    len: usize,
    /// Bytes of the region before what was asked for.
    pub(super) slack: u64,
}

/// A mapping that was dropped: its region, where it starts, how long it is.
type Dropped = (Arc<MmapRegion>, usize, usize);

/// Those whose memory a device still holds, if only to say later where its rings were.
static HELD: Mutex<Vec<Dropped>> = Mutex::new(Vec::new());

impl Mapping {
    /// Maps `size` bytes of `file` from `offset`, of any alignment: what can only be mapped in
    /// larger pages is, and `slack` bytes come before.
    pub(super) fn new(file: File, offset: u64, size: u64) -> io::Result<Self> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let end = offset.checked_add(size).filter(|_| size > 0).ok_or_else(invalid)?;
        let about = file.metadata()?;
        if about.is_file() && about.len() < end {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the file is shorter than the region"));
        }
        let system = fstatfs(&file)?;
        let block = if system.f_type == HUGETLBFS { system.f_bsize as u64 } else { PAGE };
        let from = offset - offset % block;
        let slack = offset % PAGE;
        let len = (end - from).checked_next_multiple_of(block).and_then(|len| usize::try_from(len).ok());
        let len = len.ok_or_else(invalid)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at an address of the kernel's choice, changes no memory that there is.
        let start = unsafe {
            mmap(ptr::null_mut(), len, protection, MapFlags::SHARED | MapFlags::NORESERVE, &file, from)
        }?;
        let shown = start.cast::<u8>().wrapping_add((offset - slack - from) as usize);
        let unmap = |error| {
            // SAFETY: it was mapped above, and nobody has seen it yet.
            let _ = unsafe { munmap(start, len) };
            io::Error::other(error)
        };
        let builder = MmapRegionBuilder::new((size + slack) as usize)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_SHARED)
            .with_file_offset(FileOffset::new(file, offset - slack));
        // SAFETY: from `shown` on, the mapping has that many bytes; it stays while the region does.
        let region = unsafe { builder.with_raw_mmap_pointer(shown) }.build().map_err(unmap)?;
        Ok(Self { region: Arc::new(region), start: start.addr(), len, slack })
    }

    /// The memory.
    pub(super) fn region(&self) -> Arc<MmapRegion> {
        Arc::clone(&self.region)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        held.push((Arc::clone(&self.region), self.start, self.len));
        // The one here, and that of the mapping being dropped.
        let ours = |region: &Arc<MmapRegion>| if Arc::ptr_eq(region, &self.region) { 2 } else { 1 };
        held.retain(|(region, start, len)| {
            if Arc::strong_count(region) > ours(region) {
                return true;
            }
            // SAFETY: it was mapped there and once, and these are the only handles to the region, so
            // that nobody has a pointer into it.
            let _ = unsafe { munmap(ptr::without_provenance_mut(*start), *len) };
            false
        });
    }
}

/// Waits until something happens to one of `fds`: to which?
pub(super) fn wait<const N: usize>(fds: [Option<(BorrowedFd<'_>, PollFlags)>; N]) -> io::Result<[bool; N]> {
    let polled = fds.iter().flatten();
    let mut polled: Vec<_> = polled.map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
    crate::wait::wait(&mut polled, None)?;
    let mut happened = polled.iter().map(|fd| !fd.revents().is_empty());
    Ok(fds.map(|fd| fd.is_some() && happened.next().unwrap_or(false)))
}
