//! What a network interface will be, and what the host's end of it is called.

use std::fmt::Write;

use parador_config::Value;

use crate::device::{lacks, text};
use crate::plan::{Check, Plan};

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Net {
    /// The host's end.
    pub tap: Tap,
    /// Its address, if one was given.
    pub mac: Option<[u8; 6]>,
    /// The MTU the guest is told, and an interface that is made gets.
    pub mtu: Option<u16>,
    /// Pairs of queues.
    pub queue_pairs: u16,
}

/// The host's end of a network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tap {
    /// An interface of the host, opened or made.
    Interface(Interface),
    /// Queues of one that is open already, at these descriptors.
    Descriptors(Vec<i32>),
}

/// An interface of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// What it is called there.
    pub name: String,
    /// Whether it is made.
    pub create: Create,
    /// What it is.
    pub kind: InterfaceKind,
}

/// Whether an interface is made, to be gone with the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    /// If it is not there.
    IfMissing,
    /// It is, and must not be there.
    Always,
    /// It must be there.
    Never,
}

/// What an interface of the host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InterfaceKind {
    /// A TAP.
    Tap {
        /// The bridge it joins.
        bridge: Option<String>,
        /// Who else may open it: a user's name or number.
        owner: Option<String>,
    },
    /// A macvtap.
    Macvtap {
        /// The interface under it.
        link: String,
        /// The kernel's word for how those over one interface reach each other.
        mode: &'static str,
    },
}

/// Decides what the interface will be; `None` after saying what it lacks.
pub(crate) fn net(check: &mut Check<'_>, id: &str, key: &impl Fn(&str) -> String) -> Option<Net> {
    let keys = check.keys;
    let backend = keys.word(&key("backend")).unwrap_or("tap");
    for (name, of) in [
        ("fd", "fd"),
        ("tap.bridge", "tap"),
        ("tap.owner", "tap"),
        ("tap.link", "macvtap"),
        ("tap.mode", "macvtap"),
    ] {
        if backend != of {
            check.without_effect(&key(name), &format!("it is for backend={of}"));
        }
    }
    let queues = keys.int(&key("queues")).and_then(|n| u16::try_from(n).ok()).unwrap_or(1);
    let (tap, queue_pairs) = if backend == "fd" {
        for name in ["tap.name", "tap.create"] {
            check.without_effect(&key(name), "it is for backend=tap and backend=macvtap");
        }
        let fds = descriptors(check, key)?;
        if keys.is_set(&key("queues")) && usize::from(queues) != fds.len() {
            let message = format!("{} descriptors are not {queues} pairs of queues", fds.len());
            check.error(&key("queues"), message, "there is one descriptor for each pair; leave it out");
        }
        let pairs = u16::try_from(fds.len()).unwrap_or(u16::MAX);
        (Tap::Descriptors(fds), pairs)
    } else {
        (Tap::Interface(interface(check, id, backend, key)?), queues)
    };
    let mac = if let Some(Value::Mac(mac)) = keys.value(&key("mac")) { Some(mac) } else { None };
    let mtu = keys.int(&key("mtu")).and_then(|n| u16::try_from(n).ok());
    Some(Net { tap, mac, mtu, queue_pairs })
}

fn descriptors(check: &mut Check<'_>, key: &impl Fn(&str) -> String) -> Option<Vec<i32>> {
    match check.keys.value(&key("fd")) {
        Some(Value::Descriptors(fds)) => Some(fds),
        _ => lacks(check, key, "fd", "3"),
    }
}

fn interface(
    check: &mut Check<'_>,
    id: &str,
    backend: &str,
    key: &impl Fn(&str) -> String,
) -> Option<Interface> {
    let keys = check.keys;
    let name = match keys.text(&key("tap.name")) {
        Some(name) if is_name(&name) => name,
        Some(name) => {
            let message = format!("`{}` is not a name for a network interface", name.escape_debug());
            check.error(
                &key("tap.name"),
                message,
                "it is up to 15 characters without blanks, `/`, `:` and `%`",
            );
            return None;
        }
        None => interface_name(&keys.text("name").unwrap_or_default(), id),
    };
    let create = match keys.word(&key("tap.create")) {
        Some("yes") => Create::Always,
        Some("no") => Create::Never,
        _ => Create::IfMissing,
    };
    let kind = if backend == "macvtap" {
        InterfaceKind::Macvtap {
            link: text(check, key, "tap.link", "eth0")?,
            mode: keys.word(&key("tap.mode")).unwrap_or("bridge"),
        }
    } else {
        InterfaceKind::Tap { bridge: keys.text(&key("tap.bridge")), owner: keys.text(&key("tap.owner")) }
    };
    Some(Interface { name, create, kind })
}

/// Longest name of an interface, in bytes.
const MAX_NAME: usize = 15;

/// What the kernel takes for a name as it stands.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_graphic() && !"/:%".contains(c);
    (1..=MAX_NAME).contains(&name.len()) && name.chars().all(plain) && name != "." && name != ".."
}

/// The name of the interface of a machine's device: both, with a hyphen. What is too long or cannot
/// stand in such a name is cut, and then has a hash of the whole at its end, so that two stay two.
fn interface_name(machine: &str, id: &str) -> String {
    let whole = format!("{machine}-{id}");
    if is_name(&whole) && !machine.is_empty() {
        return whole;
    }
    let mut hash = Fnv::default();
    hash.add(whole.as_bytes());
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._".contains(c) { c } else { '-' };
    let mut name: String = whole.chars().map(plain).take(MAX_NAME - 6).collect();
    // Writing to a string does not fail.
    let _ = write!(name, "-{:05x}", hash.0 & 0xf_ffff);
    name
}

/// The Ethernet address of the interface `id` of `plan`: the one given, or one that stays the same
/// from one start to the next and differs between machines, so that nothing has to be stored.
/// `machine_id` is what the host tells itself apart by, the contents of /etc/machine-id.
#[must_use]
pub fn mac(plan: &Plan, id: &str, net: &Net, machine_id: &[u8]) -> [u8; 6] {
    net.mac.unwrap_or_else(|| spare_mac(plan, id, machine_id))
}

/// As [`mac`], if none is given.
pub(crate) fn spare_mac(plan: &Plan, id: &str, machine_id: &[u8]) -> [u8; 6] {
    derived(plan.uuid, &plan.name, id, machine_id)
}

/// As [`mac`], for an interface that has a process of its own: by the name of the host's end.
pub(crate) fn mac_alone(net: &Net, machine_id: &[u8]) -> [u8; 6] {
    let name = if let Tap::Interface(interface) = &net.tap { interface.name.as_str() } else { "" };
    net.mac.unwrap_or_else(|| derived(None, "", name, machine_id))
}

fn derived(uuid: Option<[u8; 16]>, name: &str, id: &str, machine_id: &[u8]) -> [u8; 6] {
    let mut hash = Fnv::default();
    match uuid {
        Some(uuid) => hash.add(&uuid),
        None => {
            // Two hosts with machines of one name share a network more often than not.
            hash.add(machine_id);
            hash.add(name.as_bytes());
        }
    }
    hash.add(&[0]);
    hash.add(id.as_bytes());
    let [.., a, b, c, d, e] = hash.0.to_be_bytes();
    // Locally administered, of one device.
    [0x02, a, b, c, d, e]
}

/// FNV-1a: of no strength, but the same in all versions.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Plan {
        let file = parador_config::Source::File { name: "f", bytes: text.as_bytes() };
        let (tree, mut diagnostics) = parador_config::Tree::from_sources(&[file]);
        let keys = tree.check(&mut diagnostics);
        Plan::new(&keys, &mut diagnostics).unwrap()
    }

    #[test]
    fn addresses_stay_and_differ() {
        let net = Net { tap: Tap::Descriptors(vec![3]), mac: None, mtu: None, queue_pairs: 1 };
        let plan = plan("boot.kernel=k\nuuid=12345678-9abc-4def-8123-456789abcdef\nname=a\n");
        let first = mac(&plan, "net0", &net, b"host");
        assert_eq!(first, [0x02, 0x9f, 0x1e, 0x24, 0xf4, 0x00], "stored nowhere, so it must not change");
        assert_ne!(first, mac(&plan, "net1", &net, b"host"));
        let named = |name| mac(&self::plan(&format!("boot.kernel=k\nname={name}\n")), "net0", &net, b"host");
        assert_ne!(named("a"), named("b"));
        assert_eq!(named("a"), named("a"));
        let given = Net { mac: Some([2, 0, 0, 0, 0, 1]), ..net };
        assert_eq!(mac(&plan, "net0", &given, b""), [2, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn names_are_cut_to_what_the_kernel_takes_and_stay_apart() {
        assert_eq!(interface_name("web", "net0"), "web-net0");
        assert_eq!(interface_name("exactly-10", "net0"), "exactly-10-net0");
        let long = interface_name("a-database-server", "net0");
        assert_eq!(long, "a-databas-bd6ec", "made anew at every start, so it must not change");
        assert_ne!(long, interface_name("a-database-server", "net1"));
        assert_ne!(interface_name("a b", "net0"), interface_name("a/b", "net0"));
        for machine in ["", "%d", "a/b", "vm:1", "\u{e9}t\u{e9}", "..............."] {
            let name = interface_name(machine, "net0");
            assert!(is_name(&name) && name.len() <= MAX_NAME, "{name}");
        }
        for bad in ["", ".", "..", "a b", "tap%d", "a/b", "sixteen-letters-"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
