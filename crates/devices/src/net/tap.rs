//! TAP interfaces: making them, checking those that were given, and telling the kernel what the
//! driver can do.
#![expect(unsafe_code, reason = "a TAP is configured by ioctl")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::sys;

/// Length of the header before each frame: `virtio_net_hdr_v1` (virtio 1.3 §5.1.6).
pub(crate) const HEADER_LEN: usize = 12;

/// Longest name of a network interface.
pub const MAX_NAME_LEN: usize = libc::IFNAMSIZ - 1;

const NEEDED: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// A TAP interface is not to be had, or is not usable.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// A name is empty, too long, or has a slash or a null in it.
    #[error("{0:?} is not a name for a network interface (1 to {MAX_NAME_LEN} characters, no '/')")]
    Name(String),
    /// The kernel refuses; the text says what was asked of it.
    #[error("cannot {0}")]
    Refused(String, #[source] io::Error),
    /// A descriptor was given that is something else.
    #[error("the descriptor is not a TAP interface")]
    NotATap(#[source] io::Error),
    /// A descriptor was given of a TAP that was made with other flags.
    #[error("the TAP interface must be made with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR (it has flags {0:#x})")]
    Flags(libc::c_int),
}

/// Whether this network namespace has an interface `name`.
#[must_use]
pub fn exists(name: &str) -> bool {
    // SAFETY: a terminated string that outlives the call.
    CString::new(name).is_ok_and(|name| unsafe { libc::if_nametoindex(name.as_ptr()) != 0 })
}

/// One queue of a TAP interface: frames written to it arrive on the host's side, and back.
#[derive(Debug)]
pub struct Tap {
    file: File,
    name: String,
    multi_queue: bool,
}

impl Tap {
    /// Makes a TAP interface, or opens an existing one, with `queues` queues. A `name` with `%d` in
    /// it is completed by the kernel. One that was made here vanishes with its last queue.
    ///
    /// # Errors
    /// The name is no name, or the kernel refuses: no such device, no permission, another number of
    /// queues, in use.
    pub fn open(name: &str, queues: usize) -> Result<Vec<Tap>, TapError> {
        Self::open_queues(name, queues, 0)
    }

    /// As [`Tap::open`], but an interface that is there already is in the way (`EBUSY`).
    ///
    /// # Errors
    /// As [`Tap::open`].
    pub fn make(name: &str, queues: usize) -> Result<Vec<Tap>, TapError> {
        Self::open_queues(name, queues, libc::IFF_TUN_EXCL)
    }

    /// Takes open files of a macvtap interface (`/dev/tapN`), one for each queue.
    ///
    /// # Errors
    /// One of them is something else.
    pub fn from_macvtap(files: Vec<OwnedFd>) -> Result<Vec<Tap>, TapError> {
        let flags = NEEDED | if files.len() > 1 { libc::IFF_MULTI_QUEUE } else { 0 };
        let queue = |file: OwnedFd| {
            let mut request = empty_request();
            request.ifr_ifru.ifru_flags = flags as libc::c_short;
            // SAFETY: TUNSETIFF takes an ifreq.
            unsafe { sys::ioctl(file.as_fd(), libc::TUNSETIFF, &mut request) }.map_err(TapError::NotATap)?;
            Self::from_fd(file)
        };
        files.into_iter().map(queue).collect()
    }

    fn open_queues(name: &str, queues: usize, exclusive: libc::c_int) -> Result<Vec<Tap>, TapError> {
        let mut name = name.to_owned();
        let mut taps = Vec::with_capacity(queues);
        let multi_queue = if queues > 1 { libc::IFF_MULTI_QUEUE } else { 0 };
        for index in 0..queues.max(1) {
            // The first queue makes the interface, others join it.
            let exclusive = if index == 0 { exclusive } else { 0 };
            let tap = Self::open_queue(&name, NEEDED | multi_queue | exclusive)?;
            name.clone_from(&tap.name);
            taps.push(tap);
        }
        Ok(taps)
    }

    fn open_queue(name: &str, flags: libc::c_int) -> Result<Tap, TapError> {
        let refused = |what: String| move |source| TapError::Refused(what, source);
        if name.is_empty() || name.len() > MAX_NAME_LEN || name.contains(['/', '\0']) {
            return Err(TapError::Name(name.to_owned()));
        }
        let device = sys::open(Path::new("/dev/net/tun"), libc::O_RDWR | libc::O_NONBLOCK)
            .map_err(refused("open /dev/net/tun".to_owned()))?;
        let mut request = empty_request();
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        // IFF_TUN_EXCL is the highest bit of the field.
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        // SAFETY: TUNSETIFF takes an ifreq.
        unsafe { sys::ioctl(device.as_fd(), libc::TUNSETIFF, &mut request) }
            .map_err(refused(format!("open TAP interface {name}")))?;
        Self::from_fd(device)
    }

    /// Takes a descriptor of a TAP that somebody else made and checks that it can be used.
    ///
    /// # Errors
    /// It is not a TAP, or one without the header that offloads need.
    pub fn from_fd(fd: OwnedFd) -> Result<Tap, TapError> {
        let mut request = empty_request();
        // SAFETY: TUNGETIFF takes an ifreq.
        unsafe { sys::ioctl(fd.as_fd(), libc::TUNGETIFF, &mut request) }.map_err(TapError::NotATap)?;
        // SAFETY: TUNGETIFF has filled the flags; any bits are a number.
        let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags }) & 0xffff;
        if flags & NEEDED != NEEDED {
            return Err(TapError::Flags(flags));
        }
        let name = request.ifr_name.iter().map(|&byte| byte.cast_unsigned());
        let name: Vec<u8> = name.take_while(|&byte| byte != 0).collect();
        let tap = Tap {
            file: File::from(fd),
            name: String::from_utf8_lossy(&name).into_owned(),
            multi_queue: flags & libc::IFF_MULTI_QUEUE != 0,
        };
        let refused = |what: &str| {
            let what = format!("{what} TAP interface {}", tap.name);
            move |source| TapError::Refused(what, source)
        };
        sys::set_nonblocking(tap.as_fd()).map_err(refused("use"))?;
        let mut length = HEADER_LEN as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ takes a pointer to an int.
        unsafe { sys::ioctl(tap.as_fd(), libc::TUNSETVNETHDRSZ, &mut length) }
            .map_err(refused("set the header's length of"))?;
        Ok(tap)
    }

    /// The interface's name on the host.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the interface can have more than one queue.
    #[must_use]
    pub fn is_multi_queue(&self) -> bool {
        self.multi_queue
    }

    /// Lets the user with this number open more queues of the interface.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_owner(&self, user: u32) -> Result<(), TapError> {
        // SAFETY: TUNSETOWNER takes a number.
        unsafe { sys::ioctl_value(self.as_fd(), libc::TUNSETOWNER, user.into()) }
            .map_err(|source| TapError::Refused(format!("give TAP interface {} away", self.name), source))
    }

    /// Tells the kernel which unfinished frames (`TUN_F_*`) may be given to us. For all queues.
    pub(crate) fn set_offload(&self, flags: libc::c_uint) -> io::Result<()> {
        // SAFETY: TUNSETOFFLOAD takes a number.
        unsafe { sys::ioctl_value(self.as_fd(), libc::TUNSETOFFLOAD, flags.into()) }
    }

    /// Takes this queue in or out of those over which the kernel spreads what comes in.
    pub(crate) fn set_attached(&self, attached: bool) -> io::Result<()> {
        let mut request = empty_request();
        let flags = if attached { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        // SAFETY: TUNSETQUEUE takes an ifreq.
        unsafe { sys::ioctl(self.as_fd(), libc::TUNSETQUEUE, &mut request) }
    }

    /// Has the kernel drop frames that are for none of `addresses`; with none, everything is taken.
    /// For all queues.
    pub(crate) fn set_filter(&self, all_multicast: bool, addresses: &[[u8; 6]]) -> io::Result<()> {
        let mut filter = Filter {
            flags: if all_multicast { libc::TUN_FLT_ALLMULTI as u16 } else { 0 },
            count: 0,
            addresses: [[0; 6]; MAX_FILTER],
        };
        if addresses.len() > MAX_FILTER {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        filter.addresses[..addresses.len()].copy_from_slice(addresses);
        filter.count = addresses.len() as u16;
        // SAFETY: TUNSETTXFILTER takes a tun_filter followed by `count` addresses.
        unsafe { sys::ioctl(self.as_fd(), libc::TUNSETTXFILTER, &mut filter) }
    }
}

impl From<Tap> for OwnedFd {
    fn from(tap: Tap) -> Self {
        tap.file.into()
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The most addresses a filter has; the kernel compares the first eight exactly and hashes the rest.
pub(crate) const MAX_FILTER: usize = 64;

/// `struct tun_filter` of linux/if_tun.h with room for its addresses.
#[repr(C)]
struct Filter {
    flags: u16,
    count: u16,
    addresses: [[u8; 6]; MAX_FILTER],
}

fn empty_request() -> libc::ifreq {
    // SAFETY: an all-zero ifreq is valid: an empty name and zero flags.
    unsafe { std::mem::zeroed() }
}
