//! What `parador run` would do, in words: decided, and nothing of it done.

use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

use parador_config::{Dump, Endpoint, Tree};
use parador_engine::{
    Aio, Backing, Create, DevicePlan, Interface, InterfaceKind, Memory, Model, Net, Openable, Opening, Plan,
    Processors, Remote, Tap,
};

use super::backends;
use crate::run::Description;

/// What is done for the machine of `plan`: `processes` are started, the machine's with `keys`, which
/// have the numbers of the descriptors, on a host with `machine_id`.
pub(super) fn text(plan: &Plan, keys: &Tree, processes: &[String], machine_id: &[u8]) -> String {
    let mut text = Text::default();
    text.section("machine", machine(plan));
    text.section("devices", plan.devices.iter().map(|device| self::device(plan, device, machine_id)));
    let openings = plan.openings();
    text.section("opened", openings.iter().map(|opening| opened(opening, keys)));
    let made = |opening: &Opening<'_>| match opening.what {
        Openable::Interface { net, .. } => interface(net),
        Openable::Kvm | Openable::Boot(_) | Openable::Image(_) | Openable::Inherited(_) => None,
    };
    text.section("interfaces", openings.iter().filter_map(made));
    text.section("listened at, or written to", listened(plan));
    text.section("processes", processes.iter().cloned());
    text.section("keys, at descriptor 3", keys.dump(Dump::Raw, false).lines().map(str::to_owned));
    text.0
}

/// What is started: the machine's process with `arguments`, and those of its devices at `sockets`.
pub(super) fn processes(
    description: &Description,
    arguments: &[&str],
    sockets: &[(String, PathBuf)],
    machine_id: &[u8],
) -> Vec<String> {
    let mut lines = vec![format!("parador {}", arguments.join(" "))];
    for (device, (id, socket)) in backends::of(&description.plan).zip(sockets) {
        let line = match backends::folder(device) {
            Some(folder) => {
                let program = backends::virtiofsd().unwrap_or_else(PathBuf::from);
                format!("{} {}", program.display(), backends::sharing(&program, folder).join(" "))
            }
            None => match super::recipe(description, device, machine_id) {
                Ok(recipe) => format!("parador {}", recipe.arguments.join(" ")),
                Err(_) => continue,
            },
        };
        lines.push(format!("{line}  for {id}, at {}", socket.display()));
    }
    lines
}

/// Headings, and lines below them.
#[derive(Default)]
pub(super) struct Text(pub(super) String);

impl Text {
    /// Adds `lines` below `title`, if there are any.
    pub(super) fn section(&mut self, title: &str, lines: impl IntoIterator<Item = String>) {
        let mut lines = lines.into_iter().peekable();
        if lines.peek().is_some() {
            let _ = writeln!(self.0, "{title}:");
        }
        for line in lines {
            // Names of files can have anything in them; a terminal should not obey it.
            let clean: String = line.chars().flat_map(printable).collect();
            let _ = writeln!(self.0, "  {clean}");
        }
    }
}

fn printable(c: char) -> impl Iterator<Item = char> {
    let (plain, escaped) = if c.is_control() { (None, Some(c.escape_default())) } else { (Some(c), None) };
    plain.into_iter().chain(escaped.into_iter().flatten())
}

fn machine(plan: &Plan) -> Vec<String> {
    let Plan { name, uuid, processors, affinity, memory, domains, boot, console, .. } = plan;
    let Processors { sockets, cores, threads } = processors;
    let mut lines = vec![format!("name        {name}")];
    if let Some(uuid) = uuid {
        lines.push(format!("uuid        {:032x}", u128::from_be_bytes(*uuid)));
    }
    lines.push(format!(
        "processors  {} (sockets {sockets}, cores {cores}, threads {threads})",
        processors.count()
    ));
    for (number, cpus) in affinity {
        lines.push(format!("processor {number} runs on {}", list(cpus)));
    }
    lines.push(format!("memory      {}", self::memory(*memory)));
    for (number, domain) in domains.iter().enumerate() {
        lines.push(format!("domain {number}    {}, processors {}", Bytes(domain.size), list(&domain.cpus)));
    }
    lines.push(format!("kernel      {}", boot.kernel.path.display()));
    lines.extend(boot.initrd.iter().map(|initrd| format!("initrd      {}", initrd.path.display())));
    if !boot.cmdline.is_empty() {
        lines.push(format!("cmdline     {}", boot.cmdline));
    }
    lines.push(format!("console     {}", endpoint(console)));
    lines.push(format!("on reset    {}", if plan.reboot { "it starts anew" } else { "it ends" }));
    lines
}

fn list<T: ToString>(numbers: &[T]) -> String {
    numbers.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

fn memory(memory: Memory) -> String {
    let Memory { size, backing, shared, transparent_huge_pages, prefault, wired } = memory;
    let mut text = Bytes(size).to_string();
    text += match backing {
        Backing::Anonymous => ", anonymous",
        Backing::Memfd => ", a memory file",
        Backing::Huge2M => ", of huge pages of 2M",
        Backing::Huge1G => ", of huge pages of 1G",
    };
    for (is, word) in [
        (shared, ", shared"),
        (
            transparent_huge_pages && matches!(backing, Backing::Anonymous | Backing::Memfd),
            ", on transparent huge pages",
        ),
        (prefault, ", allocated before it starts"),
        (wired, ", locked"),
    ] {
        if is {
            text += word;
        }
    }
    text
}

/// A number of bytes, in the largest unit that leaves no rest.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
        match unit.iter().find(|(shift, _)| self.0 != 0 && self.0.is_multiple_of(1 << shift)) {
            Some((shift, unit)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

fn endpoint(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::None => "nothing".to_owned(),
        Endpoint::Stdio => "standard input and output".to_owned(),
        Endpoint::Pty => "a new pseudo-terminal".to_owned(),
        Endpoint::File(path) => format!("the file {path}"),
        Endpoint::Unix(path) => format!("the socket {path}"),
    }
}

fn device(plan: &Plan, device: &DevicePlan, machine_id: &[u8]) -> String {
    let DevicePlan { id, address, model, isolated } = device;
    let (model, rest) = match model {
        Model::Block(block) => {
            let aio = match block.aio {
                Aio::IoUring => "io_uring",
                Aio::Threads => "threads",
                Aio::Sync => "synchronous",
            };
            let zoned = if block.zones.is_some() { ", zoned" } else { "" };
            let queues = count(block.queues, "queue");
            ("virtio-blk", format!("{}{zoned}, {aio}, {queues}", block.image.path.display()))
        }
        Model::Net(net) => {
            let mac: Vec<_> = parador_engine::mac(plan, id, net, machine_id)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let tap = match &net.tap {
                Tap::Interface(interface) => interface.name.clone(),
                Tap::Descriptors(_) => "descriptors".to_owned(),
            };
            ("virtio-net", format!("{} on {tap}, {}", mac.join(":"), count(net.queue_pairs, "queue pair")))
        }
        Model::Rng(path) => {
            let path = path.as_deref().unwrap_or(Path::new("the host's kernel"));
            ("virtio-rnd", format!("randomness of {}", path.display()))
        }
        Model::Console(end) => ("virtio-console", endpoint(end)),
        Model::Vsock(vsock) => ("virtio-vsock", format!("address {}", vsock.cid)),
        Model::Balloon(balloon) => ("virtio-balloon", Bytes(balloon.size).to_string()),
        Model::Remote(remote) => ("vhost-user", self::remote(remote)),
    };
    let own = if *isolated { ", in a process of its own" } else { "" };
    format!("{:<7} {id:<8} {model:<15} {rest}{own}", address.to_string())
}

/// A device that another process is.
fn remote(remote: &Remote) -> String {
    let mut text = match &remote.folder {
        Some(folder) => format!("the folder {}", folder.display()),
        None => format!("virtio type {} of the process at {}", remote.kind, remote.socket.display()),
    };
    if let Some(tag) = &remote.tag {
        let _ = write!(text, ", `{tag}`");
    }
    let queues = remote.queue_sizes.as_ref().map(Vec::len).or(remote.queues.map(usize::from));
    if let Some(queues) = queues.and_then(|queues| u16::try_from(queues).ok()) {
        let _ = write!(text, ", {}", count(queues, "queue"));
    }
    text
}

fn count(number: u16, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// What is opened and how, and the descriptors it becomes.
fn opened(opening: &Opening<'_>, keys: &Tree) -> String {
    let fds = keys.setting(&opening.key).map_or("", |setting| &setting.value);
    let what = match &opening.what {
        Openable::Kvm => "rw  /dev/kvm".to_owned(),
        Openable::Boot(file) => format!("ro  {}", file.path.display()),
        Openable::Image(block) => {
            let mode = if block.read_only { "ro" } else { "rw" };
            let mut text = format!("{mode}  {}", block.image.path.display());
            for (is, word) in [
                (block.direct, ", O_DIRECT"),
                (block.sync, ", durable writes"),
                (!block.read_only, ", locked against others"),
                (block.read_only, ", locked against writers"),
            ] {
                if is {
                    text += word;
                }
            }
            text
        }
        Openable::Interface { net, .. } => match &net.tap {
            Tap::Interface(Interface { name, kind: InterfaceKind::Macvtap { .. }, .. }) => {
                format!("rw  the /dev/tapN of {name}")
            }
            Tap::Interface(Interface { name, .. }) => format!("rw  /dev/net/tun, as {name}"),
            Tap::Descriptors(_) => "what is open already".to_owned(),
        },
        Openable::Inherited(fds) => {
            format!("what is open here at {}", list(fds))
        }
    };
    let whose = opening.isolated.map_or(String::new(), |id| format!(", for the process of {id}"));
    format!("{fds:<6} {what}{whose}")
}

/// An interface of the host, and what becomes of it.
fn interface(net: &Net) -> Option<String> {
    let Tap::Interface(Interface { name, create, kind }) = &net.tap else { return None };
    let made = match create {
        Create::IfMissing => "used if it is there, or made and gone with the machine",
        Create::Always => "made, and gone with the machine",
        Create::Never => "used as it is there",
    };
    let mut text = match kind {
        InterfaceKind::Tap { .. } => format!("{name}  TAP, {made}"),
        InterfaceKind::Macvtap { link, mode } => {
            format!("{name}  macvtap over {link} in mode {mode}, {made}")
        }
    };
    if let InterfaceKind::Tap { bridge, owner } = kind {
        text += &bridge.as_ref().map_or(String::new(), |bridge| format!(", joins bridge {bridge}"));
        text += &owner.as_ref().map_or(String::new(), |owner| format!(", may be opened by {owner}"));
    }
    text += &net.mtu.map_or(String::new(), |mtu| format!(", MTU {mtu}"));
    Some(text)
}

/// What the machine's process makes by path.
fn listened(plan: &Plan) -> Vec<String> {
    let of = |end: &Endpoint| match end {
        Endpoint::Unix(path) => Some(format!("socket {path}, one client after the other")),
        Endpoint::File(path) => Some(format!("file {path}, made anew")),
        Endpoint::None | Endpoint::Stdio | Endpoint::Pty => None,
    };
    let mut lines: Vec<_> = of(&plan.console).into_iter().collect();
    for device in &plan.devices {
        match &device.model {
            Model::Console(end) => lines.extend(of(end)),
            Model::Vsock(vsock) => {
                lines.push(format!("socket {}, for connections into the guest", vsock.socket.display()));
            }
            Model::Block(_) | Model::Net(_) | Model::Rng(_) | Model::Balloon(_) | Model::Remote(_) => {}
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use parador_config::{Diagnostics, Source};

    use super::*;
    use crate::handover;

    /// The plan for what `text` describes; `UPDATE_SNAPSHOTS=1` writes it anew.
    fn planned(name: &str, text: &str) {
        let (tree, mut diagnostics) =
            Tree::from_sources(&[Source::File { name: "web.conf", bytes: text.as_bytes() }]);
        let keys = tree.check(&mut diagnostics);
        let plan = Plan::new(&keys, &mut diagnostics);
        assert_eq!(diagnostics.to_string(), Diagnostics::default().to_string());
        let plan = plan.unwrap();
        let description = Description { tree, keys, plan };
        let given = super::super::given(&description);
        let Description { tree, plan, .. } = &description;
        let sockets = backends::sockets(plan, Path::new("/run/parador-PID"));
        let keys = handover::keys(tree, plan, b"host", &given, &sockets);
        let processes = processes(&description, &["vmm", "--config-fd", "3"], &sockets, b"host");
        let text = super::text(plan, &keys, &processes, b"host");
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name).with_extension("txt");
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(&path).unwrap_or_default(), "{} differs", path.display());
    }

    #[test]
    fn a_plan_says_everything_that_would_be_done() {
        planned("plan_first", "name=web\nboot.kernel=/boot/vmlinuz\n");
        planned(
            "plan_all",
            "name=a-database-server\nvar.dir=/vm\ncpus=4\nthreads=2\nmemory.size=4G\nmemory.backing=hugetlb\n\
             memory.prefault=yes\nuuid=12345678-9abc-4def-8123-456789abcdef\ndomains.0.size=1G\n\
             domains.0.cpus=0-1\ndomains.1.size=3G\ndomains.1.cpus=2-3\nboot.kernel=%(var.dir)/vmlinuz\n\
             boot.initrd=/vm/initrd\nboot.cmdline=quiet 100%%\nconsole=unix:/run/com1\non_reset=stop\n\
             device.root.model=virtio-blk\ndevice.root.path=/vm/root.img\ndevice.root.nocache=yes\n\
             device.cd.model=virtio-blk\ndevice.cd.path=/vm/cd.iso\ndevice.cd.ro=yes\ndevice.cd.addr=0:7.0\n\
             device.lan.model=virtio-net\ndevice.lan.tap.bridge=br0\ndevice.lan.queues=2\ndevice.lan.mtu=9000\n\
             device.wan.model=virtio-net\ndevice.wan.backend=macvtap\ndevice.wan.tap.link=eth0\n\
             device.old.model=virtio-net\ndevice.old.tap.name=tap7\ndevice.old.tap.create=no\n\
             device.fd.model=virtio-net\ndevice.fd.backend=fd\ndevice.fd.fd=8,9\n\
             device.r.model=virtio-rnd\ndevice.c.model=virtio-console\ndevice.c.port.0.path=file:/log\n\
             device.v.model=virtio-vsock\ndevice.v.cid=3\ndevice.v.socket=/run/v\n\
             device.b.model=virtio-balloon\ndevice.b.size=64M\n",
        );
        planned(
            "plan_remote",
            "name=web\nboot.kernel=/boot/vmlinuz\ndevice.d.model=virtio-blk\ndevice.d.backend=vhost-user\n\
             device.d.socket=/run/d\ndevice.d.queues=4\ndevice.n.model=virtio-net\ndevice.n.backend=vhost-user\n\
             device.n.socket=/run/n\ndevice.f.model=virtio-fs\ndevice.f.sharename=data\ndevice.f.socket=/run/f\n\
             device.g.model=vhost-user\ndevice.g.virtio_type=gpio\ndevice.g.socket=/run/g\n\
             device.g.queue_sizes=64,64\n",
        );
        planned(
            "plan_isolated",
            "name=web\nboot.kernel=/boot/vmlinuz\ndevice.d.model=virtio-blk\ndevice.d.path=d.img\n\
             device.d.addr=0:4.0\ndevice.d.isolation=process\ndevice.n.model=virtio-net\n\
             device.n.tap.bridge=br0\ndevice.n.isolation=process\ndevice.b.model=virtio-balloon\n\
             device.b.isolation=process\ndevice.r.model=virtio-rnd\n",
        );
    }
}
