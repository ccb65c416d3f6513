//! The system calls that devices need and the standard library does not wrap. Nothing here knows virtio.
#![expect(
    unsafe_code,
    reason = "vectored I/O into guest memory, epoll, madvise and terminals are C interfaces"
)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use parador_virtio::{GuestMemory, Reader, Segment, Writer};
use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap};

/// The most pieces one vectored call takes (`IOV_MAX`).
pub(crate) const MAX_PIECES: usize = 1024;

/// Pieces of guest memory for one vectored call, kept for its storage.
///
/// It is filled and used within one turn of a handler, while the chains the pieces belong to are
/// held; whoever fills it again begins with [`Pieces::clear`].
#[derive(Default)]
pub(crate) struct Pieces {
    segments: Vec<Segment>,
    vector: Vec<libc::iovec>,
}

// SAFETY: the vectors hold addresses that are only ever given to the kernel, by the thread that put
// them there and in the same turn.
unsafe impl Send for Pieces {}

impl Pieces {
    pub(crate) fn clear(&mut self) {
        self.segments.clear();
    }

    /// How many bytes all pieces are. A call takes [`MAX_PIECES`] of them.
    pub(crate) fn bytes(&self) -> usize {
        self.segments.iter().map(Segment::len).sum()
    }

    /// Keeps the first `count` pieces.
    pub(crate) fn truncate(&mut self, count: usize) {
        self.segments.truncate(count);
    }

    /// Adds the next `count` bytes of room; `None`, with nothing added, when there is less.
    pub(crate) fn add_room(&mut self, writer: &mut Writer<'_>, count: usize) -> Option<()> {
        writer.take_segments(count, &mut self.segments)
    }

    /// Adds the next `count` bytes to read; `None`, with nothing added, when there are fewer.
    pub(crate) fn add_data(&mut self, reader: &mut Reader<'_>, count: usize) -> Option<()> {
        reader.take_segments(count, &mut self.segments)
    }

    fn vector(&mut self) -> &mut Vec<libc::iovec> {
        self.vector.clear();
        self.vector.extend(self.segments.iter().map(Segment::as_iovec));
        &mut self.vector
    }
}

/// Reads into `head`, then into `pieces`, then into `tail`, in one call; the number of bytes read.
pub(crate) fn read_scattered(
    fd: BorrowedFd<'_>,
    head: &mut [u8],
    pieces: &mut Pieces,
    tail: &mut [u8],
) -> io::Result<usize> {
    let vector = &mut pieces.vector;
    vector.clear();
    vector.push(iovec(head.as_mut_ptr(), head.len()));
    vector.extend(pieces.segments.iter().map(Segment::as_iovec));
    vector.push(iovec(tail.as_mut_ptr(), tail.len()));
    // SAFETY: head and tail are borrowed for the call; the pieces between are guest memory that a
    // chain held by the caller keeps mapped.
    check(unsafe { libc::readv(fd.as_raw_fd(), vector.as_ptr(), count(vector)) })
}

/// Reads into `pieces`; the number of bytes read.
pub(crate) fn read_pieces(fd: BorrowedFd<'_>, pieces: &mut Pieces) -> io::Result<usize> {
    let vector = pieces.vector();
    // SAFETY: the pieces are guest memory that a chain held by the caller keeps mapped.
    check(unsafe { libc::readv(fd.as_raw_fd(), vector.as_ptr(), count(vector)) })
}

/// Writes from `pieces`; the number of bytes written.
pub(crate) fn write_pieces(fd: BorrowedFd<'_>, pieces: &mut Pieces) -> io::Result<usize> {
    let vector = pieces.vector();
    // SAFETY: the pieces are guest memory that a chain held by the caller keeps mapped.
    check(unsafe { libc::writev(fd.as_raw_fd(), vector.as_ptr(), count(vector)) })
}

/// As [`write_pieces`] on a socket; a peer that has gone is an error, not a signal.
pub(crate) fn send_pieces(fd: BorrowedFd<'_>, pieces: &mut Pieces) -> io::Result<usize> {
    let vector = pieces.vector();
    // SAFETY: an all-zero msghdr is a valid empty one.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vector.as_mut_ptr();
    message.msg_iovlen = vector.len().min(MAX_PIECES);
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the pieces are guest memory that a chain held by the caller keeps mapped.
    check(unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, flags) })
}

/// Fills `pieces` with random bytes from the kernel; the number of bytes filled.
pub(crate) fn random_pieces(pieces: &mut Pieces) -> io::Result<usize> {
    let mut filled = 0;
    for piece in pieces.vector() {
        // SAFETY: the piece is guest memory that a chain held by the caller keeps mapped.
        let got = check(unsafe { libc::getrandom(piece.iov_base, piece.iov_len, 0) })?;
        filled += got;
        if got < piece.iov_len {
            break;
        }
    }
    Ok(filled)
}

/// Looks at the next bytes of a socket without taking them.
pub(crate) fn peek(fd: BorrowedFd<'_>, data: &mut [u8]) -> io::Result<usize> {
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: `data` is borrowed for the call.
    check(unsafe { libc::recv(fd.as_raw_fd(), data.as_mut_ptr().cast(), data.len(), flags) })
}

/// Connects to a UNIX socket without ever waiting: a listener whose backlog is full is `WouldBlock`.
pub(crate) fn connect_now(path: &Path) -> io::Result<UnixStream> {
    let bytes = path.as_os_str().as_bytes();
    // SAFETY: an all-zero sockaddr_un is valid.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    if bytes.len() >= address.sun_path.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = from.cast_signed();
    }
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    let fd = check_fd(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })?;
    let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: the address is initialised, null-terminated, and of the length given.
    check_int(unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(UnixStream::from(fd))
}

/// Which conditions of a descriptor are of interest; hang-ups always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    Readable,
    Writable,
    Both,
}

/// What happened to a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    /// The number given to [`Epoll::add`].
    pub(crate) token: u64,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// Both directions are closed, or there was an error.
    pub(crate) hang_up: bool,
}

/// Many descriptors behind one, edge-triggered.
#[derive(Debug)]
pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        Ok(Self(check_fd(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?))
    }

    /// Watches `fd`, which closing removes. `PermissionDenied` for what is always ready (files).
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, interest: Interest, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, interest, token)
    }

    /// Watches a descriptor that is watched for something else now; what is so already is told again.
    pub(crate) fn modify(&self, fd: BorrowedFd<'_>, interest: Interest, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, interest, token)
    }

    fn control(&self, what: i32, fd: BorrowedFd<'_>, interest: Interest, token: u64) -> io::Result<()> {
        let wanted = match interest {
            Interest::Readable => libc::EPOLLIN,
            Interest::Writable => libc::EPOLLOUT,
            Interest::Both => libc::EPOLLIN | libc::EPOLLOUT,
        };
        let mut event = libc::epoll_event { events: (wanted | libc::EPOLLET).cast_unsigned(), u64: token };
        // SAFETY: the event is borrowed for the call.
        check_int(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), what, fd.as_raw_fd(), &raw mut event) })
            .map(drop)
    }

    /// What happened since the last call, without waiting; at most `N` events.
    pub(crate) fn poll<const N: usize>(&self) -> io::Result<impl Iterator<Item = Event> + use<N>> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; N];
        let most = i32::try_from(N).unwrap_or(i32::MAX);
        // SAFETY: room for `most` events, borrowed for the call.
        let count = check_int(unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), most, 0) })?;
        Ok(events.into_iter().take(usize::try_from(count).unwrap_or(0)).map(|event| {
            let has = |flag: i32| event.events & flag.cast_unsigned() != 0;
            Event {
                token: event.u64,
                readable: has(libc::EPOLLIN),
                writable: has(libc::EPOLLOUT),
                hang_up: has(libc::EPOLLHUP) || has(libc::EPOLLERR),
            }
        }))
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether the other side of `fd` has hung up: a terminal nobody has open, a socket closed.
pub(crate) fn is_hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one pollfd, borrowed for the call.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready > 0 && poll.revents & libc::POLLHUP != 0
}

/// Makes a descriptor's file description non-blocking, for everybody who shares it.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    let flags = check_int(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: no pointers.
    check_int(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(drop)
}

/// A new pseudo-terminal in raw mode, with nobody at its other end: the controlling side,
/// non-blocking, and the path of the other.
pub(crate) fn open_pty() -> io::Result<(File, String)> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: no pointers.
    let pty = check_fd(unsafe { libc::posix_openpt(flags) })?;
    // SAFETY: no pointers.
    check_int(unsafe { libc::grantpt(pty.as_raw_fd()) })?;
    // SAFETY: no pointers.
    check_int(unsafe { libc::unlockpt(pty.as_raw_fd()) })?;
    let mut name = [0u8; 64];
    // SAFETY: room for `name.len()` bytes, borrowed for the call.
    let error = unsafe { libc::ptsname_r(pty.as_raw_fd(), name.as_mut_ptr().cast(), name.len()) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let length = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    let path = String::from_utf8_lossy(&name[..length]).into_owned();

    // SAFETY: an all-zero termios is valid; tcgetattr fills it.
    let mut termios: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the termios is borrowed for the call.
    check_int(unsafe { libc::tcgetattr(pty.as_raw_fd(), &raw mut termios) })?;
    // SAFETY: the termios is borrowed for the call.
    unsafe { libc::cfmakeraw(&raw mut termios) };
    // SAFETY: the termios is borrowed for the call.
    check_int(unsafe { libc::tcsetattr(pty.as_raw_fd(), libc::TCSANOW, &raw const termios) })?;
    // A pseudo-terminal says that nobody is there only after somebody has been.
    drop(open(Path::new(&path), libc::O_RDWR | libc::O_NOCTTY)?);
    Ok((File::from(pty), path))
}

/// Opens a path with exactly these flags (and close-on-exec).
pub(crate) fn open(path: &Path, flags: libc::c_int) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a C string, borrowed for the call.
    check_fd(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) })
}

/// Returns guest memory from `start` to the host; it reads as zero when touched again. A range
/// that is not wholly in guest memory is refused (`InvalidInput`), and then nothing was done.
///
/// Whatever the guest had there is lost: that is the caller's decision.
pub(crate) fn discard(memory: &GuestMemory, start: u64, length: u64) -> io::Result<()> {
    if !memory.check_range(GuestAddress(start), usize::try_from(length).unwrap_or(usize::MAX)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let (mut at, mut left) = (start, length);
    while left > 0 {
        let region = memory.find_region(GuestAddress(at)).ok_or(io::ErrorKind::InvalidInput)?;
        let offset = at - region.start_addr().raw_value();
        let step = left.min(region.len() - offset);
        discard_in(region, offset, step)?;
        (at, left) = (at.wrapping_add(step), left - step);
    }
    Ok(())
}

/// As [`discard`], for the whole pages in a piece of a chain.
pub(crate) fn discard_segment(memory: &GuestMemory, segment: &Segment) -> io::Result<()> {
    let piece = segment.as_iovec();
    let first = (piece.iov_base.addr() as u64).next_multiple_of(page_size());
    let end = piece.iov_base.addr() as u64 + piece.iov_len as u64;
    let length = end.saturating_sub(first) / page_size() * page_size();
    let base = |region: &GuestRegionMmap| region.as_ptr().addr() as u64;
    let region = memory.iter().find(|region| (base(region)..base(region) + region.len()).contains(&first));
    match region {
        Some(region) if length > 0 => discard_in(region, first - base(region), length),
        Some(_) | None => Ok(()),
    }
}

/// Discards a range that is inside the region.
fn discard_in(region: &GuestRegionMmap, offset: u64, length: u64) -> io::Result<()> {
    let end = offset.checked_add(length).filter(|&end| end <= region.len());
    let (Some(_), Ok(offset), Ok(length)) = (end, usize::try_from(offset), usize::try_from(length)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // Of a shared mapping only the file's own pages count; a private one has its own.
    let shared = region.flags() & libc::MAP_SHARED != 0;
    let advice = if shared { libc::MADV_REMOVE } else { libc::MADV_DONTNEED };
    // SAFETY: the range was checked to be inside the region, which the caller's reference keeps
    // mapped; the guest expects its contents to go, and nobody holds Rust references into it.
    check_int(unsafe { libc::madvise(region.as_ptr().add(offset).cast(), length, advice) }).map(drop)
}

fn page_size() -> u64 {
    // SAFETY: no pointers.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// A descriptor that threads wake each other by.
pub(crate) struct Doorbell(OwnedFd);

impl Doorbell {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        Ok(Self(check_fd(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?))
    }

    pub(crate) fn ring(&self) {
        // SAFETY: eight bytes, borrowed for the call. A counter that is full has rung already.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const ONE).cast(), size_of::<u64>()) };
    }

    /// Whether it was rung since this was asked last.
    pub(crate) fn answer(&self) -> bool {
        let mut count = 0u64;
        // SAFETY: room for eight bytes, borrowed for the call.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) > 0 }
    }
}

static ONE: u64 = 1;

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Calls `ioctl` with a pointer to `argument`, which it may change.
///
/// # Safety
/// `request` must take a pointer to a `T`.
pub(crate) unsafe fn ioctl<T>(fd: BorrowedFd<'_>, request: libc::Ioctl, argument: &mut T) -> io::Result<()> {
    // SAFETY: the caller vouches for the type; it is borrowed for the call.
    check_int(unsafe { libc::ioctl(fd.as_raw_fd(), request, std::ptr::from_mut(argument)) }).map(drop)
}

/// Calls `ioctl` with a number.
///
/// # Safety
/// `request` must take a number.
pub(crate) unsafe fn ioctl_value(
    fd: BorrowedFd<'_>,
    request: libc::Ioctl,
    value: libc::c_ulong,
) -> io::Result<()> {
    // SAFETY: the caller vouches that the kernel takes the argument for a number.
    check_int(unsafe { libc::ioctl(fd.as_raw_fd(), request, value) }).map(drop)
}

fn iovec(base: *mut u8, len: usize) -> libc::iovec {
    libc::iovec { iov_base: base.cast(), iov_len: len }
}

fn count(pieces: &[libc::iovec]) -> libc::c_int {
    pieces.len().min(MAX_PIECES) as libc::c_int
}

fn check(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn check_int(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_fd(result: libc::c_int) -> io::Result<OwnedFd> {
    let fd = check_int(result)?;
    // SAFETY: a call that makes a descriptor has just returned this one; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
