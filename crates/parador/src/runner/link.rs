//! Interfaces of the host, over route netlink (rtnetlink(7)): found, changed, made and removed.

#![expect(unsafe_code, reason = "a netlink socket is made by a system call")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::FromRawFd;

/// Interfaces of this network namespace.
pub(super) struct Links(File);

/// An interface, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// The kernel's number for it.
    pub(super) index: u32,
    /// What the kernel calls its kind, such as `bridge` or `tun`; empty for hardware.
    pub(super) kind: String,
    /// The number of the bridge it is in, or 0.
    pub(super) master: u32,
}

/// What an interface is to become; what is `None` stays.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Change {
    pub(super) address: Option<[u8; 6]>,
    pub(super) mtu: Option<u16>,
    /// The number of the bridge it joins.
    pub(super) master: Option<u32>,
}

/// A macvtap interface to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Macvtap<'a> {
    pub(super) name: &'a str,
    /// The number of the interface under it.
    pub(super) link: u32,
    pub(super) mode: &'static str,
    pub(super) address: [u8; 6],
    pub(super) mtu: Option<u16>,
}

// linux/if_link.h; libc lacks them.
const IFLA_MACVLAN_MODE: u16 = 1;
const MACVLAN_MODES: [(&str, u32); 4] = [("private", 1), ("vepa", 2), ("bridge", 4), ("passthru", 8)];

/// Of `struct nlmsghdr`, `struct ifinfomsg` and `struct rtattr`.
const MESSAGE_HEADER: usize = 16;
const LINK_HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;

/// The kernel's answers about one interface are a few KiB.
const ANSWER: usize = 64 << 10;

impl Links {
    pub(super) fn open() -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe {
            libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor just made, which nobody else has.
        Ok(Self(unsafe { File::from_raw_fd(fd) }))
    }

    /// The interface called `name`, if there is one.
    pub(super) fn find(&self, name: &str) -> io::Result<Option<Link>> {
        let mut message = Message::new(libc::RTM_GETLINK, 0, 0, false);
        message.text(libc::IFLA_IFNAME, name);
        match self.ask(message) {
            Ok(answer) => Ok(answer.as_deref().and_then(parse)),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Changes interface `index`, and brings it up.
    pub(super) fn change(&self, index: u32, change: Change) -> io::Result<()> {
        let Change { address, mtu, master } = change;
        let mut message = Message::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, index, true);
        if let Some(address) = address {
            message.attribute(libc::IFLA_ADDRESS, &address);
        }
        if let Some(mtu) = mtu {
            message.attribute(libc::IFLA_MTU, &u32::from(mtu).to_ne_bytes());
        }
        if let Some(master) = master {
            message.attribute(libc::IFLA_MASTER, &master.to_ne_bytes());
        }
        self.ask(message).map(drop)
    }

    /// Makes a macvtap interface and brings it up.
    pub(super) fn make_macvtap(&self, new: Macvtap<'_>) -> io::Result<()> {
        let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let mut message = Message::new(libc::RTM_NEWLINK, flags, 0, true);
        message.text(libc::IFLA_IFNAME, new.name);
        message.attribute(libc::IFLA_LINK, &new.link.to_ne_bytes());
        message.attribute(libc::IFLA_ADDRESS, &new.address);
        if let Some(mtu) = new.mtu {
            message.attribute(libc::IFLA_MTU, &u32::from(mtu).to_ne_bytes());
        }
        let mode = MACVLAN_MODES.iter().find(|(name, _)| *name == new.mode).map_or(4, |(_, mode)| *mode);
        message.nested(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "macvtap");
            info.nested(libc::IFLA_INFO_DATA, |data| {
                data.attribute(IFLA_MACVLAN_MODE, &mode.to_ne_bytes());
            });
        });
        self.ask(message).map(drop)
    }

    /// Removes interface `index`.
    pub(super) fn remove(&self, index: u32) -> io::Result<()> {
        self.ask(Message::new(libc::RTM_DELLINK, libc::NLM_F_ACK, index, false)).map(drop)
    }

    /// The answer to `message`: what follows its header, or nothing where it is an acknowledgement.
    fn ask(&self, message: Message) -> io::Result<Option<Vec<u8>>> {
        (&self.0).write_all(&message.finish())?;
        let mut answer = vec![0; ANSWER];
        let length = (&self.0).read(&mut answer)?;
        answer.truncate(length);
        let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let kind = answer.get(4..6).map(number16).ok_or_else(short)?;
        if i32::from(kind) != libc::NLMSG_ERROR {
            return Ok(Some(answer.split_off(MESSAGE_HEADER.min(length))));
        }
        match answer.get(MESSAGE_HEADER..MESSAGE_HEADER + 4).map(number32).ok_or_else(short)?.cast_signed() {
            0 => Ok(None),
            error => Err(io::Error::from_raw_os_error(error.wrapping_neg())),
        }
    }
}

/// A message to the kernel about an interface, being written.
struct Message(Vec<u8>);

impl Message {
    /// About interface `index`, or one named by an attribute; to bring it `up`, or leave that.
    fn new(kind: u16, flags: libc::c_int, index: u32, up: bool) -> Self {
        let flags = (libc::NLM_F_REQUEST | flags) as u16;
        let up = if up { libc::IFF_UP as u32 } else { 0 };
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]); // Sequence number and sender: one question at a time needs neither.
        bytes.extend([0; 4]); // Family and type.
        for word in [index, up, up] {
            bytes.extend(word.to_ne_bytes());
        }
        Self(bytes)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |message| message.0.extend(value));
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.nested(kind, |message| message.0.extend(value.bytes().chain([0])));
    }

    /// An attribute of what `write` writes.
    fn nested(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        write(self);
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// The interface that an answer of the kernel is about.
fn parse(answer: &[u8]) -> Option<Link> {
    let index = answer.get(4..8).map(number32)?;
    let mut link = Link { index, kind: String::new(), master: 0 };
    for (kind, value) in attributes(answer.get(LINK_HEADER..)?) {
        match kind {
            libc::IFLA_MASTER => link.master = value.get(..4).map(number32)?,
            libc::IFLA_LINKINFO => {
                let name = attributes(value).find(|(kind, _)| *kind == libc::IFLA_INFO_KIND);
                let name = name.map_or(&[][..], |(_, name)| name);
                link.kind = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
            }
            _ => {}
        }
    }
    Some(link)
}

/// The attributes in `bytes`: kind and value of each.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(bytes.get(..2).map(number16)?);
        let kind = bytes.get(2..4).map(number16)?;
        let value = bytes.get(ATTRIBUTE_HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The two highest bits say how the value is to be read, which we know.
        Some((kind & 0x3fff, value))
    })
}

fn number16(bytes: &[u8]) -> u16 {
    bytes.try_into().map_or(0, u16::from_ne_bytes)
}

fn number32(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found_and_others_are_not() {
        let links = Links::open().unwrap();
        assert_eq!(links.find("lo").unwrap(), Some(Link { index: 1, kind: String::new(), master: 0 }));
        assert_eq!(links.find("no-such-link").unwrap(), None);
    }

    #[test]
    fn attributes_that_lie_about_their_length_end_the_list() {
        let mut message = Message::new(libc::RTM_NEWLINK, 0, 7, false);
        message.nested(libc::IFLA_LINKINFO, |info| info.text(libc::IFLA_INFO_KIND, "bridge"));
        message.attribute(libc::IFLA_MASTER, &9_u32.to_ne_bytes());
        let bytes = message.finish();
        let whole = Link { index: 7, kind: "bridge".to_owned(), master: 9 };
        assert_eq!(parse(&bytes[MESSAGE_HEADER..]), Some(whole));
        for length in 0..bytes.len() - MESSAGE_HEADER {
            let cut = parse(&bytes[MESSAGE_HEADER..][..length]);
            assert!(cut.is_none_or(|link| link.index == 7));
        }
        assert_eq!(attributes(&[0, 0, 0, 0]).count(), 0, "no length is no progress");
    }
}
