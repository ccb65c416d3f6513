//! Keys on their way from `parador run` to `parador vmm`: a file of keys, and as comments in it where
//! each was written, so that a message of the second is one about the file of the user.
//!
//! ```text
//! #@ 3 13 web.conf
//! boot.kernel=/boot/vmlinuz
//! ```

use std::fmt::Write;
use std::path::PathBuf;

use parador_config::{Diagnostics, Origin, Setting, Source, Tree};
use parador_engine::{BALLOON_CONFIG, DevicePlan, Interface, Model, Net, Plan, Tap};

/// Begins a comment that says where the next key was written.
const MARK: &str = "#@ ";

/// Descriptors that are given to the machine's process: the key that tells of them, and their numbers.
pub(crate) type Given = (String, Vec<i32>);

/// Nobody wrote these; a message about one is about what is open already.
const OURS: Origin = Origin::Argument(0);

/// The keys of `tree` as the machine's process takes them: without references, with descriptors in
/// place of what `given` opened, the Ethernet addresses of `plan` on a host with `machine_id`, and
/// `sockets` in place of devices that have processes of their own.
pub(crate) fn keys(
    tree: &Tree,
    plan: &Plan,
    machine_id: &[u8],
    given: &[Given],
    sockets: &[(String, PathBuf)],
) -> Tree {
    let mut keys = plain(tree);
    for device in plan.devices.iter().filter(|device| !device.isolated) {
        if let Model::Net(net) = &device.model {
            let of_device = |name: &str| format!("device.{}.{name}", device.id);
            interface(&mut keys, &of_device, net, parador_engine::mac(plan, &device.id, net, machine_id));
        }
    }
    for (id, socket) in sockets {
        let Some(device) = plan.devices.iter().find(|device| device.id == *id) else { continue };
        let prefix = format!("device.{id}");
        if device.isolated {
            let origin = keys.setting(&format!("{prefix}.model")).map_or(OURS, |model| model.origin.clone());
            keys.unset(&prefix);
            // It comes last now, and would get another one.
            keys.set(&format!("{prefix}.addr"), device.address.to_string(), OURS);
            keys.set(&format!("{prefix}.model"), "vhost-user", origin);
            for (name, value) in remote(&device.model) {
                keys.set(&format!("{prefix}.{name}"), value, OURS);
            }
        }
        keys.unset(&format!("{prefix}.path"));
        keys.set(&format!("{prefix}.socket"), socket.to_string_lossy(), OURS);
    }
    for (key, fds) in given {
        keys.set(key, list(fds), OURS);
    }
    keys
}

/// The keys of `device` as its own process takes them, with `fds` in place of what is opened for it.
pub(crate) fn device_keys(
    tree: &Tree,
    plan: &Plan,
    device: &DevicePlan,
    machine_id: &[u8],
    fds: &[i32],
) -> Tree {
    let tree = plain(tree);
    let mut keys = tree.device(&device.id);
    for name in ["model", "addr", "isolation"] {
        keys.unset(name);
    }
    if let Model::Net(net) = &device.model {
        let mac = parador_engine::mac(plan, &device.id, net, machine_id);
        interface(&mut keys, &str::to_owned, net, mac);
    }
    if !fds.is_empty() {
        keys.set("fd", list(fds), OURS);
    }
    match tree.setting("log.level") {
        Some(level) => drop(keys.adopt("log.level", level.clone())),
        // Its user is not told what an administrator of back-ends is.
        None if std::env::var_os("PARADOR_LOG").is_none() => drop(keys.set("log.level", "warn", OURS)),
        None => {}
    }
    keys
}

/// The keys of `tree` without references.
fn plain(tree: &Tree) -> Tree {
    let expanded = tree.expand(&mut Diagnostics::default());
    let mut keys = Tree::default();
    for (key, setting) in expanded.in_order() {
        if !key.starts_with("var.") {
            keys.adopt(key, setting.clone());
        }
    }
    keys
}

/// Says that the interface of a device is open, and what its address is.
fn interface(keys: &mut Tree, key: &impl Fn(&str) -> String, net: &Net, mac: [u8; 6]) {
    let mac: Vec<_> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    if net.mac.is_none() {
        keys.set(&key("mac"), mac.join(":"), OURS);
    }
    if let Tap::Interface(Interface { .. }) = net.tap {
        keys.unset(&key("tap"));
        keys.set(&key("backend"), "fd", OURS);
    }
}

/// What the machine has to know of a device that has a process of its own.
fn remote(model: &Model) -> Vec<(&'static str, String)> {
    let Some(kind) = model.kind() else { return Vec::new() };
    let mut keys = vec![("virtio_type", kind.to_string())];
    if let Model::Balloon(balloon) = model {
        // Of this type nothing is known without asking.
        keys.push(("queue_sizes", list(&balloon.queue_sizes())));
        keys.push(("config_size", BALLOON_CONFIG.to_string()));
    }
    keys
}

fn list<T: ToString>(numbers: &[T]) -> String {
    numbers.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

/// `keys` as text, each after the place it was written at.
pub(crate) fn text(keys: &Tree) -> String {
    let mut text = String::new();
    for (key, setting) in keys.in_order() {
        // Writing to a string does not fail.
        let _ = match &setting.origin {
            Origin::File { name, line, column } => {
                let column = column + value_column(key, setting);
                writeln!(text, "{MARK}{line} {column} {}", name.escape_debug())
            }
            Origin::Argument(0) => Ok(()),
            Origin::Argument(number) => writeln!(text, "{MARK}{number}"),
        };
        let _ = writeln!(text, "{key}={}", setting.raw());
    }
    text
}

/// How far right of its origin the value of a setting stands.
fn value_column(key: &str, setting: &Setting) -> usize {
    if setting.is_assignment() { setting.spelt(key).len() + 1 } else { 0 }
}

/// The tree that `text` was made of. `None` after saying what is wrong with it.
pub(crate) fn read(name: &str, text: &[u8], diagnostics: &mut Diagnostics) -> Option<Tree> {
    let (mut tree, found) = Tree::from_sources(&[Source::File { name, bytes: text }]);
    diagnostics.append(&found);
    let mut place = None;
    for line in String::from_utf8_lossy(text).lines() {
        if let Some(mark) = line.strip_prefix(MARK) {
            place = origin(mark);
        } else if let Some((key, _)) = line.split_once('=').filter(|_| !line.starts_with('#'))
            && let Some(origin) = place.take()
            && let Some(raw) = tree.setting(key).map(|setting| setting.raw().into_owned())
        {
            tree.set_raw(key, raw, origin);
        }
    }
    (found.errors() == 0).then_some(tree)
}

/// The place that a comment says.
fn origin(mark: &str) -> Option<Origin> {
    let mut words = mark.splitn(3, ' ');
    let first = words.next()?.parse().ok()?;
    let Some(column) = words.next() else { return Some(Origin::Argument(first)) };
    Some(Origin::File { line: first, column: column.parse().ok()?, name: words.next()?.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> (Tree, Plan) {
        let (tree, mut diagnostics) = Tree::from_sources(&[
            Source::File { name: "web.conf", bytes: text.as_bytes() },
            Source::Option { argument: 3, text: "cpus=2" },
        ]);
        let keys = tree.check(&mut diagnostics);
        let plan = Plan::new(&keys, &mut diagnostics);
        assert_eq!(diagnostics.to_string(), "");
        (tree, plan.unwrap())
    }

    const WEB: &str = "name=web\nvar.dir=/vm\nboot.kernel=%(var.dir)/100%%\ndevice.n.model=virtio-net\n\
                       device.n.tap.bridge=br0\ndevice.n.queues=2\ndevice.f.model=virtio-net\n\
                       device.f.backend=fd\ndevice.f.fd=9\ndevice.f.mac=02:00:00:00:00:01\n";

    #[test]
    fn the_machines_process_gets_no_references_and_no_interfaces() {
        let (tree, plan) = tree(WEB);
        let given = [("device.n.fd".to_owned(), vec![4, 5]), ("device.f.fd".to_owned(), vec![6])];
        let text = text(&keys(&tree, &plan, b"host", &given, &[]));
        let expected = "#@ 1 6 web.conf\nname=web\n#@ 3 13 web.conf\nboot.kernel=/vm/100%%\n\
             #@ 4 16 web.conf\ndevice.n.model=virtio-net\n#@ 6 17 web.conf\ndevice.n.queues=2\n\
             #@ 7 16 web.conf\ndevice.f.model=virtio-net\n#@ 8 18 web.conf\ndevice.f.backend=fd\n\
             device.f.fd=6\n#@ 10 14 web.conf\ndevice.f.mac=02:00:00:00:00:01\n#@ 3\ncpus=2\n\
             device.n.mac=02:54:1d:a4:18:29\ndevice.n.backend=fd\ndevice.n.fd=4,5\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_wrong_is_said_about_the_file_of_the_user() {
        let (tree, _) = tree("boot.kernel=/vm/100%%\n");
        let mut diagnostics = Diagnostics::default();
        let again = read("<descriptor 3>", text(&tree).as_bytes(), &mut diagnostics).unwrap();
        assert!(again == tree, "{}", text(&again));
        let message = |tree: &Tree, key| tree.check(&mut Diagnostics::default()).about(key, "no").to_string();
        for key in ["boot.kernel", "cpus"] {
            assert_eq!(message(&again, key), message(&tree, key));
        }
        // Comments of others are comments.
        for odd in ["#@ \n", "#@ x\n", "#@ 1 x\n", "#@ 1 2\n", "#@ 99999999999999999999\n", "#@ 1 2 a b\n"] {
            assert!(read("f", format!("{odd}cpus=1\n{odd}").as_bytes(), &mut diagnostics).is_some());
        }
    }
}
