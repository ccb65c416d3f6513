//! The host's end of a TAP, for tests.
#![expect(unsafe_code, reason = "namespaces, packet sockets and interface flags are C interfaces")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::{OUR_MAC, OUR_TYPE};

/// Moves this thread to a network namespace of its own. `false`: not on this machine.
pub(super) fn enter_namespace() -> bool {
    // SAFETY: no pointers; only this thread moves.
    let moved = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
    if !moved || File::options().read(true).write(true).open("/dev/net/tun").is_err() {
        eprintln!("skipped: there is no /dev/net/tun, or no privilege for a network namespace");
        return false;
    }
    // The kernel's own announcements would be in the way.
    drop(std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"));
    true
}

/// The host's end of a TAP: a packet socket with the same header as the device's.
pub(super) struct Wire {
    fd: OwnedFd,
    address: libc::sockaddr_ll,
}

impl Wire {
    pub(super) fn new(name: &str) -> Self {
        let protocol = u16::from_ne_bytes(OUR_TYPE);
        // SAFETY: no pointers.
        let fd = unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(protocol))
        };
        assert!(fd >= 0);
        // SAFETY: just made, so nobody else's.
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        let cname = CString::new(name).unwrap();
        // SAFETY: all zero is valid for both.
        let (mut request, mut address): (libc::ifreq, libc::sockaddr_ll) = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_PROMISC) as libc::c_short;
        // SAFETY: SIOCSIFFLAGS takes an ifreq.
        assert_eq!(unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS, &raw const request) }, 0);
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        // SAFETY: a C string.
        address.sll_ifindex = unsafe { libc::if_nametoindex(cname.as_ptr()) }.cast_signed();
        let length = size_of_val(&address) as u32;
        // SAFETY: the address is of the length given.
        assert_eq!(unsafe { libc::bind(fd, (&raw const address).cast(), length) }, 0);
        let on: libc::c_int = 1;
        // SAFETY: the option is an int.
        let set = unsafe {
            libc::setsockopt(fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, (&raw const on).cast(), 4)
        };
        assert_eq!(set, 0);
        // The kernel finds out itself what is sent.
        address.sll_protocol = 0;
        Self { fd: owned, address }
    }

    /// Sends a frame to the guest; `header` is the first ten bytes of the device's.
    pub(super) fn send(&self, header: [u8; 10], frame: &[u8]) {
        let data = [&header, frame].concat();
        let (to, length) = ((&raw const self.address).cast(), size_of_val(&self.address) as u32);
        let fd = self.fd.as_raw_fd();
        // SAFETY: data and address are borrowed for the call and of the lengths given.
        let sent = unsafe { libc::sendto(fd, data.as_ptr().cast(), data.len(), 0, to, length) };
        assert_eq!(sent, data.len() as isize, "{}", io::Error::last_os_error());
    }

    /// A frame from the guest with its header, if one comes within `timeout`.
    pub(super) fn receive(&self, timeout: Duration) -> Option<Vec<u8>> {
        let end = Instant::now() + timeout;
        let mut data = vec![0; 70_000];
        loop {
            let flags = libc::MSG_DONTWAIT;
            // SAFETY: room for as many bytes, borrowed for the call.
            let got = unsafe { libc::recv(self.fd.as_raw_fd(), data.as_mut_ptr().cast(), data.len(), flags) };
            if let Ok(got) = usize::try_from(got) {
                // What the test itself sent passes here too.
                if data[10..16] != OUR_MAC {
                    data.truncate(got);
                    return Some(data);
                }
            } else if Instant::now() > end {
                return None;
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
