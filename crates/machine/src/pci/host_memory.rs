//! Host memory that a guest sees in a BAR: pieces of files, and zeroes between them.

#![expect(unsafe_code, reason = "maps files over a range of addresses that is ours")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

use vm_memory::MmapRegion;

/// A range of this process's addresses for a guest to see, all of it at once: what is in it comes and
/// goes without a word to the hypervisor. Any thread may use it.
///
/// Where nothing is mapped a guest reads zeroes, at no cost. It cannot write there, nor where a file is
/// mapped read-only, nor touch what lies beyond a file's end: the hypervisor then gives up on the
/// processor, and whoever shows the memory has to take it away.
pub struct HostMemory {
    mapping: MmapRegion,
    /// Where in the mapping it begins.
    start: usize,
    len: usize,
}

/// A guest has huge pages where its addresses and the host's are aligned alike.
const ALIGN: usize = 2 << 20;

/// What is where nothing is: pages of zeroes that are not there until read, and then are all the same.
const NOTHING: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

impl HostMemory {
    /// Takes a range of `len` bytes, whole pages, with nothing in it.
    ///
    /// # Errors
    /// The address space has no such range.
    pub(super) fn new(len: u64) -> io::Result<Self> {
        let none = || io::Error::from(io::ErrorKind::OutOfMemory);
        let len = usize::try_from(len).map_err(|_| none())?;
        let whole = len.checked_add(ALIGN).ok_or_else(none)?;
        let mapping = MmapRegion::build(None, whole, libc::PROT_READ, NOTHING).map_err(io::Error::other)?;
        let start = mapping.as_ptr().addr().next_multiple_of(ALIGN) - mapping.as_ptr().addr();
        Ok(Self { mapping, start, len })
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// Whether there is nothing of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it begins. It lives as long as `self`.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.mapping.as_ptr().wrapping_add(self.start)
    }

    /// Has `len` bytes at `offset` be those of `file` from `file_offset`, until something else is put there.
    ///
    /// # Errors
    /// The range is not inside, or the host refuses: the file is not open for this, is none that can
    /// be mapped, or an offset or the length is not a whole number of its pages.
    pub(super) fn map(
        &self,
        offset: u64,
        len: u64,
        file: &File,
        file_offset: u64,
        writable: bool,
    ) -> io::Result<()> {
        let (at, len) = self.range(offset, len)?;
        let from = libc::off_t::try_from(file_offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let access = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        // Elsewhere first. A mapping straight to its place that fails half-way would leave a gap here,
        // which any other mapping of this process could fall into, for the guest to see.
        // SAFETY: the kernel chooses where, so nothing that exists is changed.
        let made =
            unsafe { libc::mmap(ptr::null_mut(), len, access, libc::MAP_SHARED, file.as_raw_fd(), from) };
        if made == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: `made` was made just now and nobody knows of it. What it goes over is inside our
        // mapping, and Rust holds no reference into that.
        let moved = unsafe { libc::mremap(made, len, len, flags, at) };
        if moved != libc::MAP_FAILED {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        // SAFETY: it is still where it was made.
        unsafe { libc::munmap(made, len) };
        self.clear(offset, len as u64)?;
        Err(error)
    }

    /// Has nothing be in `len` bytes at `offset`.
    ///
    /// # Errors
    /// The range is not inside, or the host refuses. What was there may be there still.
    pub(super) fn clear(&self, offset: u64, len: u64) -> io::Result<()> {
        let (at, len) = self.range(offset, len)?;
        // SAFETY: the range is inside our mapping, and Rust holds no reference into that.
        let done = unsafe { libc::mmap(at, len, libc::PROT_READ, NOTHING | libc::MAP_FIXED, -1, 0) };
        if done == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Address and length of a range that is inside.
    fn range(&self, offset: u64, len: u64) -> io::Result<(*mut libc::c_void, usize)> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len());
        match (usize::try_from(offset), usize::try_from(len)) {
            (Ok(offset), Ok(len)) if inside && len > 0 => {
                Ok((self.as_ptr().wrapping_add(offset).cast(), len))
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

/// A guest's accesses, for a model of the hypervisor: what a processor cannot do is `EFAULT` here.
#[cfg(any(test, feature = "testing"))]
impl HostMemory {
    /// Reads from `offset`.
    ///
    /// # Errors
    /// There is no such memory.
    pub fn load(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let (at, len) = self.range(offset, data.len() as u64)?;
        let (file, len) = (scratch()?, len.min(data.len()));
        // SAFETY: the kernel looks at the range, which is inside our mapping, and fails where it cannot.
        let done = unsafe { libc::pwrite(file.as_raw_fd(), at, len, 0) };
        check(done, len)?;
        std::os::unix::fs::FileExt::read_exact_at(&file, data, 0)
    }

    /// Writes at `offset`.
    ///
    /// # Errors
    /// There is no such memory, or it cannot be written to.
    pub fn store(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (at, len) = self.range(offset, data.len() as u64)?;
        let file = scratch()?;
        std::os::unix::fs::FileExt::write_all_at(&file, data, 0)?;
        // SAFETY: the range is inside our mapping, Rust holds no reference into that, and the kernel
        // fails where it cannot write.
        let done = unsafe { libc::pread(file.as_raw_fd(), at, len, 0) };
        check(done, len)
    }
}

#[cfg(any(test, feature = "testing"))]
pub(super) fn scratch() -> io::Result<File> {
    // SAFETY: the name is a C string; the call touches nothing else of ours.
    let fd = unsafe { libc::memfd_create(c"scratch".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) })
}

#[cfg(any(test, feature = "testing"))]
fn check(done: isize, len: usize) -> io::Result<()> {
    match usize::try_from(done) {
        Ok(done) if done == len => Ok(()),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EFAULT)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}
