//! Interfaces of the host that a machine's network devices use: opened, made, joined to a bridge.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use parador_config::{Checked, Diagnostic};
use parador_engine::tap::{Tap, TapError};
use parador_engine::{Create, Interface, InterfaceKind, Net};

use super::link::{Change, Link, Links, Macvtap};

/// The interfaces of a machine. TAP interfaces made here vanish with their last descriptor; others
/// are removed when this is dropped.
#[derive(Default)]
pub(super) struct Network {
    remove: Vec<u32>,
}

impl Network {
    /// Opens the interface of the device `id`, whose Ethernet address is `mac`, or makes it: a
    /// descriptor for each pair of queues.
    pub(super) fn open(
        &mut self,
        keys: &Checked,
        id: &str,
        net: &Net,
        interface: &Interface,
        mac: [u8; 6],
    ) -> Result<Vec<OwnedFd>, Diagnostic> {
        let opener = Opener { keys, id, net, interface, mac, links: links()? };
        let taps = match &interface.kind {
            InterfaceKind::Tap { bridge, owner } => opener.tap(bridge.as_deref(), owner.as_deref())?,
            InterfaceKind::Macvtap { link, mode } => opener.macvtap(link, mode, &mut self.remove)?,
        };
        Ok(taps.into_iter().map(OwnedFd::from).collect())
    }
}

/// Whether the interface could be opened or made now.
pub(super) fn check(keys: &Checked, id: &str, net: &Net, interface: &Interface) -> Result<(), Diagnostic> {
    let opener = Opener { keys, id, net, interface, mac: [0; 6], links: links()? };
    let made = opener.is_made(opener.find(&interface.name)?.is_some())?;
    match &interface.kind {
        InterfaceKind::Tap { bridge, owner } => {
            bridge.as_ref().map(|bridge| opener.bridge(bridge)).transpose()?;
            owner.as_ref().map(|owner| opener.owner(owner)).transpose()?;
            let tun = File::options().read(true).write(true).open("/dev/net/tun");
            tun.map_err(|e| opener.refused(&TapError::Refused("open /dev/net/tun".to_owned(), e), made))?;
        }
        InterfaceKind::Macvtap { link, .. } => drop(opener.under(link)?),
    }
    if made && !may_make() {
        let error = TapError::Refused("make it".to_owned(), io::Error::from_raw_os_error(libc::EPERM));
        return Err(opener.refused(&error, made));
    }
    Ok(())
}

/// Whether this process has CAP_NET_ADMIN.
fn may_make() -> bool {
    const CAP_NET_ADMIN: u32 = 12;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    // What cannot be read is not held against the host.
    effective
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .is_none_or(|set| set >> CAP_NET_ADMIN & 1 == 1)
}

fn links() -> Result<Links, Diagnostic> {
    Links::open().map_err(|e| Diagnostic::new("the host's network interfaces cannot be looked at").cause(&e))
}

impl Drop for Network {
    fn drop(&mut self) {
        if self.remove.is_empty() {
            return;
        }
        let removed =
            Links::open().and_then(|links| self.remove.drain(..).try_for_each(|index| links.remove(index)));
        if let Err(e) = removed {
            tracing::warn!("an interface that was made for the machine is still there: {e}");
        }
    }
}

struct Opener<'a> {
    keys: &'a Checked,
    id: &'a str,
    net: &'a Net,
    interface: &'a Interface,
    mac: [u8; 6],
    links: Links,
}

impl Opener<'_> {
    fn tap(self, bridge: Option<&str>, owner: Option<&str>) -> Result<Vec<Tap>, Diagnostic> {
        let name = &self.interface.name;
        let bridge = bridge.map(|bridge| self.bridge(bridge)).transpose()?;
        let owner = owner.map(|owner| self.owner(owner)).transpose()?;
        let found = self.find(name)?;
        let queues = usize::from(self.net.queue_pairs);
        let made = self.is_made(found.is_some())?;
        let taps = if made { Tap::make(name, queues) } else { Tap::open(name, queues) };
        let taps = taps.map_err(|e| self.refused(&e, made))?;
        let now = self.find(name)?;
        let (Some(now), Some(first)) = (now, taps.first()) else { return Ok(taps) };
        if made && let Some(owner) = owner {
            first.set_owner(owner).map_err(|e| self.blame("tap.owner", &e))?;
        }
        let master = bridge.filter(|bridge| *bridge != now.master);
        if made || master.is_some() {
            // A bridge that has no address of its own takes the lowest of its ports'. Not this one's.
            let [_, rest @ ..] = self.mac;
            let [a, b, c, d, e] = rest;
            let address = made.then_some([0xfe, a, b, c, d, e]);
            let mtu = self.net.mtu.filter(|_| made);
            self.links.change(now.index, Change { address, mtu, master }).map_err(|e| {
                let key = if master.is_some() { "tap.bridge" } else { "tap.name" };
                self.blame(key, &e).hint("to bring an interface up, and into a bridge, takes CAP_NET_ADMIN")
            })?;
        }
        Ok(taps)
    }

    fn macvtap(self, link: &str, mode: &'static str, remove: &mut Vec<u32>) -> Result<Vec<Tap>, Diagnostic> {
        let name = &self.interface.name;
        let under = self.under(link)?;
        if self.is_made(self.find(name)?.is_some())? {
            let new = Macvtap { name, link: under.index, mode, address: self.mac, mtu: self.net.mtu };
            self.links.make_macvtap(new).map_err(|e| {
                let hint = match e.raw_os_error() {
                    Some(libc::EPERM) => "that takes CAP_NET_ADMIN: run this as root",
                    Some(libc::EOPNOTSUPP) => "the kernel has no macvtap: modprobe macvtap",
                    Some(libc::EBUSY) => "one in mode passthru, or a bridge, has that interface for itself",
                    _ => "`ip -d link` shows what there is",
                };
                let message = format!("macvtap interface {name} cannot be made over {link}");
                self.about("tap.link", message).cause(&e).hint(hint)
            })?;
            remove.extend(self.find(name)?.map(|link| link.index));
        }
        let index = self.find(name)?.map_or(0, |link| link.index);
        let device = format!("/dev/tap{index}");
        let queue = |_| File::options().read(true).write(true).open(Path::new(&device)).map(OwnedFd::from);
        let files: io::Result<Vec<_>> = (0..self.net.queue_pairs).map(queue).collect();
        let files = files.map_err(|e| {
            let message = format!("{device}, the device of interface {name}, does not open");
            let hint = "udev makes it; in a container there may be none, and this user may have to be root";
            self.about("tap.name", message).cause(&e).hint(hint)
        })?;
        Tap::from_macvtap(files).map_err(|e| self.refused(&e, false))
    }

    /// The interface under a macvtap interface.
    fn under(&self, link: &str) -> Result<Link, Diagnostic> {
        let absent = || self.about("tap.link", format!("there is no interface {link}"));
        self.find(link)?.ok_or_else(|| absent().hint("`ip link` lists those there are"))
    }

    /// Whether the interface has to be made; an error where that is not what was asked for.
    fn is_made(&self, there: bool) -> Result<bool, Diagnostic> {
        let name = &self.interface.name;
        match (self.interface.create, there) {
            (Create::Always, true) => {
                Err(self.about("tap.create", format!("there is an interface {name} already")).hint(
                    "is the machine running? another name is set with `tap.name`; tap.create=auto uses what is there",
                ))
            }
            (Create::Never, false) => {
                let message = format!("there is no interface {name}");
                let hint = "tap.create=auto makes it; or make it yourself: ip tuntap add";
                Err(self.absent("tap.name", &message, &format!("{hint} {name} mode tap vnet_hdr")))
            }
            (_, there) => Ok(!there),
        }
    }

    fn find(&self, name: &str) -> Result<Option<Link>, Diagnostic> {
        self.links.find(name).map_err(|e| self.blame("tap.name", &e))
    }

    /// The number of the bridge `name`.
    fn bridge(&self, name: &str) -> Result<u32, Diagnostic> {
        match self.find(name)? {
            Some(link) if link.kind == "bridge" => Ok(link.index),
            Some(_) => Err(self
                .about("tap.bridge", format!("interface {name} is no bridge"))
                .hint("`ip link show type bridge` lists them; for one over an interface, backend=macvtap")),
            None => Err(self.about("tap.bridge", format!("there is no bridge {name}")).hint(format!(
                "`ip link show type bridge` lists them; `ip link add {name} type bridge` makes one"
            ))),
        }
    }

    fn owner(&self, name: &str) -> Result<u32, Diagnostic> {
        if let Ok(number) = name.parse() {
            return Ok(number);
        }
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        user(&users, name).ok_or_else(|| {
            let message = format!("there is no user {}", name.escape_debug());
            self.about("tap.owner", message).hint("a number is taken as it is")
        })
    }

    /// What the kernel said to opening or making the interface.
    fn refused(&self, error: &TapError, made: bool) -> Diagnostic {
        let name = &self.interface.name;
        let source = if let TapError::Refused(_, source) = error { source.raw_os_error() } else { None };
        let hint = match source {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
                "there is no TAP device: modprobe tun; in a container, pass /dev/net/tun in".to_owned()
            }
            Some(libc::EPERM | libc::EACCES) if made => {
                format!(
                    "to make an interface takes CAP_NET_ADMIN: run this as root, or have root make it for you: \
                     ip tuntap add {name} mode tap vnet_hdr{} user $USER",
                    if self.net.queue_pairs > 1 { " multi_queue" } else { "" }
                )
            }
            Some(libc::EPERM | libc::EACCES) => {
                "it is another user's; run this as that user, or as root".to_owned()
            }
            Some(libc::EBUSY) => {
                "somebody has it open: is the machine running already? another name is set with `tap.name`"
                    .to_owned()
            }
            Some(libc::EINVAL) => {
                format!(
                    "{name} is no TAP interface, or has another number of queues; `ip -d link show {name}` tells"
                )
            }
            _ => format!("`ip -d link show {name}` tells what it is"),
        };
        self.blame("tap.name", error).hint(hint)
    }

    fn absent(&self, key: &str, message: &str, hint: &str) -> Diagnostic {
        self.about(key, message.to_owned()).hint(hint)
    }

    fn blame(&self, key: &str, error: &dyn std::error::Error) -> Diagnostic {
        let name = &self.interface.name;
        let diagnostic = self.about(key, format!("interface {name} cannot be used"));
        diagnostic.cause(error)
    }

    /// A finding about the key `name` of the device, or where that is not set, its model.
    fn about(&self, name: &str, message: String) -> Diagnostic {
        let key = format!("device.{}.{name}", self.id);
        let set = self.keys.is_set(&key);
        self.keys.about(&if set { key } else { format!("device.{}.model", self.id) }, message)
    }
}

/// The number of the user `name` in a passwd(5) file.
fn user(users: &str, name: &str) -> Option<u32> {
    let line = users.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split(':').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_numbers() {
        let users = "root:x:0:0:root:/root:/bin/sh\nroots:x:7:7::/:/bin/sh\n";
        assert_eq!((user(users, "root"), user(users, "roots"), user(users, "roo")), (Some(0), Some(7), None));
    }
}
