//! The system calls that neither std nor the io-uring crate wraps.
#![expect(unsafe_code, reason = "raw system calls; each is one function with a safe signature")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use crate::{Buffer, ZoneAction};

/// The kernel takes at most this many pieces per vectored call (`IOV_MAX`).
pub(crate) const MAX_PIECES: usize = 1024;

// linux/fs.h, for the ioctl encoding that x86, Arm and RISC-V share; libc lacks these.
const BLKGETSIZE64: libc::Ioctl = 0x8008_1272_u32 as libc::Ioctl;
const BLKIOMIN: libc::Ioctl = 0x1278;
const BLKALIGNOFF: libc::Ioctl = 0x127a;
const BLKDISCARD: libc::Ioctl = 0x1277;
// linux/blkzoned.h
const BLKREPORTZONE: libc::Ioctl = 0xc010_1282_u32 as libc::Ioctl;
const BLKRESETZONE: libc::Ioctl = 0x4010_1283;
const BLKOPENZONE: libc::Ioctl = 0x4010_1286;
const BLKCLOSEZONE: libc::Ioctl = 0x4010_1287;
const BLKFINISHZONE: libc::Ioctl = 0x4010_1288;
const BLK_ZONE_REP_CAPACITY: u32 = 1;

/// What the kernel says of a zone: `struct blk_zone`, all sizes in sectors of 512 bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BlkZone {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) write_pointer: u64,
    pub(crate) kind: u8,
    pub(crate) condition: u8,
    pub(crate) non_sequential: u8,
    pub(crate) reset: u8,
    pub(crate) reserved: [u8; 4],
    pub(crate) capacity: u64,
    pub(crate) more: [u8; 24],
}

/// Zones in one report.
const REPORT_ZONES: usize = 256;

/// `struct blk_zone_report`, with room.
#[repr(C)]
struct BlkZoneReport {
    sector: u64,
    count: u32,
    flags: u32,
    zones: [BlkZone; REPORT_ZONES],
}

/// Reads into `buffers`, at most [`MAX_PIECES`] of them; how many bytes.
pub(crate) fn preadv(file: &File, buffers: &[Buffer], offset: u64) -> io::Result<usize> {
    let pieces = pieces(buffers);
    let offset = signed(offset)?;
    // SAFETY: `Buffer` is a transparent iovec whose range is valid for the request by the promise of
    // `Buffer::new`, and `pieces` does not exceed the slice.
    size(unsafe { libc::preadv64(file.as_raw_fd(), buffers.as_ptr().cast(), pieces, offset) })
}

/// Writes `buffers`, at most [`MAX_PIECES`] of them; how many bytes.
pub(crate) fn pwritev(file: &File, buffers: &[Buffer], offset: u64) -> io::Result<usize> {
    let pieces = pieces(buffers);
    let offset = signed(offset)?;
    // SAFETY: as in `preadv`.
    size(unsafe { libc::pwritev64(file.as_raw_fd(), buffers.as_ptr().cast(), pieces, offset) })
}

/// `fallocate(2)`, tried again when a signal came in between.
pub(crate) fn fallocate(file: &File, mode: i32, offset: u64, len: u64) -> io::Result<()> {
    let (offset, len) = (signed(offset)?, signed(len)?);
    loop {
        // SAFETY: no memory is involved.
        match done(unsafe { libc::fallocate64(file.as_raw_fd(), mode, offset, len) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Where the first data of `file` is from `offset` on; `None` if only holes follow.
pub(crate) fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    let offset = signed(offset)?;
    // SAFETY: no memory is involved.
    let found = unsafe { libc::lseek64(file.as_raw_fd(), offset, libc::SEEK_DATA) };
    match u64::try_from(found) {
        Ok(found) => Ok(Some(found)),
        Err(_) => {
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::ENXIO) { Ok(None) } else { Err(error) }
        }
    }
}

/// Discards a range of a block device.
pub(crate) fn block_discard(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let range = [offset, len];
    // SAFETY: the kernel reads two u64 from `range`, which outlives the call.
    done(unsafe { libc::ioctl(file.as_raw_fd(), BLKDISCARD, range.as_ptr()) })
}

/// Size of a block device in bytes.
pub(crate) fn block_device_size(file: &File) -> io::Result<u64> {
    let mut bytes = 0u64;
    // SAFETY: the kernel writes one u64 to `bytes`, which outlives the call.
    done(unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64, &raw mut bytes) })?;
    Ok(bytes)
}

/// Some zones of a block device, from the one at `sector` on; none behind the last one.
pub(crate) fn report_zones(file: &File, sector: u64) -> io::Result<Vec<BlkZone>> {
    let zones = [BlkZone::default(); REPORT_ZONES];
    let mut report = Box::new(BlkZoneReport { sector, count: REPORT_ZONES as u32, flags: 0, zones });
    // SAFETY: the kernel reads the header and writes as many zones as it says there is room for.
    done(unsafe { libc::ioctl(file.as_raw_fd(), BLKREPORTZONE, &raw mut *report) })?;
    let count = usize::try_from(report.count).unwrap_or(0).min(REPORT_ZONES);
    let mut zones = report.zones[..count].to_vec();
    if report.flags & BLK_ZONE_REP_CAPACITY == 0 {
        zones.iter_mut().for_each(|zone| zone.capacity = zone.len);
    }
    Ok(zones)
}

/// Does `action` to the zones in a range of a block device, in bytes.
pub(crate) fn change_zones(file: &File, action: ZoneAction, offset: u64, len: u64) -> io::Result<()> {
    let request = match action {
        ZoneAction::Open => BLKOPENZONE,
        ZoneAction::Close => BLKCLOSEZONE,
        ZoneAction::Finish => BLKFINISHZONE,
        ZoneAction::Reset | ZoneAction::ResetAll => BLKRESETZONE,
    };
    let range = [offset / 512, len / 512];
    // SAFETY: the kernel reads two u64 from `range`, which outlives the call.
    done(unsafe { libc::ioctl(file.as_raw_fd(), request, range.as_ptr()) })
}

/// What a block device says about its blocks, in bytes: logical, physical, offset of the first
/// aligned one, minimum and optimal I/O.
pub(crate) fn block_device_topology(file: &File) -> io::Result<[u32; 5]> {
    let mut values = [0u32; 5];
    let requests = [libc::BLKSSZGET, libc::BLKPBSZGET, BLKALIGNOFF, BLKIOMIN, libc::BLKIOOPT];
    for (value, request) in values.iter_mut().zip(requests) {
        // SAFETY: each of these writes one int to `value`, which outlives the call.
        done(unsafe { libc::ioctl(file.as_raw_fd(), request, &raw mut *value) })?;
    }
    Ok(values)
}

/// Alignment of memory and of offsets that direct I/O on `file` wants, in bytes; `None` when the
/// kernel (before 6.1) or the file system does not say.
pub(crate) fn direct_alignment(file: &File) -> Option<(u32, u32)> {
    // SAFETY: statx is plain numbers, for which zeroes are a value.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a C string, `stat` is a statx the kernel fills.
    let result = unsafe {
        libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN, &raw mut stat)
    };
    let known = result == 0 && stat.stx_mask & libc::STATX_DIOALIGN != 0;
    (known && stat.stx_dio_mem_align != 0 && stat.stx_dio_offset_align != 0)
        .then_some((stat.stx_dio_mem_align, stat.stx_dio_offset_align))
}

/// Takes a lock on bytes `start..start + len` for this open file description: exclusive or shared.
/// `false` when somebody else's is in the way.
pub(crate) fn lock(file: &File, exclusive: bool, start: i64, len: i64) -> io::Result<bool> {
    let mut flock = ofd_lock(exclusive, start, len);
    // SAFETY: the kernel reads `flock`, which outlives the call.
    match done(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut flock) }) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether somebody else holds a lock, shared or exclusive, on any byte of `start..start + len`.
pub(crate) fn is_locked(file: &File, start: i64, len: i64) -> io::Result<bool> {
    let mut flock = ofd_lock(true, start, len);
    // SAFETY: the kernel reads and writes `flock`, which outlives the call.
    done(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut flock) })?;
    Ok(i32::from(flock.l_type) != libc::F_UNLCK)
}

/// Turns direct I/O on for an open file.
pub(crate) fn set_direct(file: &File) -> io::Result<()> {
    // SAFETY: no memory is involved.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    done(flags.min(0))?;
    // SAFETY: no memory is involved.
    done(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_DIRECT) })
}

/// Whether `file` is a regular one, of a file system that has no other place than memory (and swap).
pub(crate) fn is_in_memory(file: &File) -> bool {
    // A device is said to be of the file system that its name is in, which is one in memory.
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return false;
    }
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the kernel fills `stat` in, if it says so.
    let magic = unsafe {
        match libc::fstatfs(file.as_raw_fd(), stat.as_mut_ptr()) {
            0 => Some(stat.assume_init().f_type),
            _ => None,
        }
    };
    magic == Some(libc::TMPFS_MAGIC)
}

/// The access mode and status flags of an open file.
pub(crate) fn open_flags(file: &File) -> io::Result<i32> {
    // SAFETY: no memory is involved.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    done(flags.min(0))?;
    Ok(flags)
}

/// An eventfd that never blocks.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    done(fd.min(0))?;
    // SAFETY: the kernel just made it and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds one to an eventfd. One that is full has been signalled already.
pub(crate) fn signal(eventfd: BorrowedFd<'_>) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: eight bytes that outlive the call.
    let _ = unsafe { libc::write(eventfd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

/// Sleeps until somebody wakes who waits for `word`, as long as that is `expected`, or until `timeout`; or
/// for no reason. Memory that is shared with other processes is waited for across them.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let until = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the kernel compares `word`, which outlives the call, and reads the time, if there is one.
    let result = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, until) };
    if result >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR | libc::ETIMEDOUT) => Ok(()),
        _ => Err(error),
    }
}

/// Wakes all who wait for `word`.
pub(crate) fn futex_wake(word: &AtomicU32) {
    // SAFETY: the kernel uses the address only.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

/// An epoll that is readable when one of `fds` is.
pub(crate) fn epoll<'a>(fds: impl Iterator<Item = BorrowedFd<'a>>) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    done(fd.min(0))?;
    // SAFETY: the kernel just made it and nobody else knows it.
    let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
    for fd in fds {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        // SAFETY: the kernel reads `event`, which outlives the call.
        done(unsafe {
            libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event)
        })?;
    }
    Ok(epoll)
}

/// Blocks until `fd` is readable or a signal came.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>) {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd that outlives the call.
    let _ = unsafe { libc::poll(&raw mut poll, 1, -1) };
}

fn ofd_lock(exclusive: bool, start: i64, len: i64) -> libc::flock {
    let kind = if exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
    // SAFETY: flock is plain numbers, for which zeroes are a value.
    let mut flock: libc::flock = unsafe { std::mem::zeroed() };
    flock.l_type = kind as libc::c_short;
    flock.l_whence = libc::SEEK_SET as libc::c_short;
    flock.l_start = start;
    flock.l_len = len;
    flock
}

fn pieces(buffers: &[Buffer]) -> i32 {
    i32::try_from(buffers.len().min(MAX_PIECES)).unwrap_or(1)
}

fn signed(value: u64) -> io::Result<i64> {
    i64::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

fn size(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn done(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_not_in_the_memory_that_its_name_is_in() {
        let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        assert!(is_in_memory(file.as_file()));
        assert!(!is_in_memory(&File::open("/dev/null").unwrap()));
    }

    #[test]
    fn zones_are_as_large_as_the_kernel_has_them() {
        assert_eq!((size_of::<BlkZone>(), std::mem::offset_of!(BlkZone, capacity)), (64, 32));
        assert_eq!(std::mem::offset_of!(BlkZoneReport, zones), 16);
    }
}
