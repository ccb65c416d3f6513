//! What a machine will be, decided before anything is opened.

use std::collections::BTreeMap;
use std::path::PathBuf;

use parador_config::{Checked, Diagnostic, Diagnostics, Endpoint, Severity, Value};

use crate::device::{self, DevicePlan, Model};

/// A machine, decided: types instead of text, relations between keys checked. Nothing of the host
/// has been looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What the machine is called.
    pub name: String,
    /// Its identity, if one was given.
    pub uuid: Option<[u8; 16]>,
    /// How its processors sit together.
    pub processors: Processors,
    /// Processors of the host that some of them run on, by index.
    pub affinity: BTreeMap<u32, Vec<u32>>,
    /// Its memory.
    pub memory: Memory,
    /// Its NUMA domains; empty for a machine that has none.
    pub domains: Vec<Domain>,
    /// What it starts.
    pub boot: Boot,
    /// The descriptor of /dev/kvm, where it is open already.
    pub kvm: Option<i32>,
    /// What its first serial port is connected to.
    pub console: Endpoint,
    /// Its devices, in order.
    pub devices: Vec<DevicePlan>,
    /// Whether a reset by the guest starts it anew, rather than ending it.
    pub reboot: bool,
    /// Whether a panic of the guest ends the machine.
    pub stop_on_panic: bool,
}

/// Counts of processors, each at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Processors {
    /// Packages.
    pub sockets: u32,
    /// Cores in each package.
    pub cores: u32,
    /// Threads of each core.
    pub threads: u32,
}

/// The guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes.
    pub size: u64,
    /// What it is made of.
    pub backing: Backing,
    /// Whether other processes can map it.
    pub shared: bool,
    /// Whether it is put on transparent huge pages.
    pub transparent_huge_pages: bool,
    /// Whether all of it is allocated before the guest starts.
    pub prefault: bool,
    /// Whether it is locked in the host's.
    pub wired: bool,
}

/// What memory is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// Anonymous memory.
    Anonymous,
    /// A memory file.
    Memfd,
    /// Huge pages of 2 MiB from the host's pool.
    Huge2M,
    /// Huge pages of 1 GiB from the host's pool.
    Huge1G,
}

/// A NUMA domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Bytes of memory.
    pub size: u64,
    /// Its processors, ascending.
    pub cpus: Vec<u32>,
}

/// A file of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFile {
    /// Its name; for messages only, when it is open already.
    pub path: PathBuf,
    /// The descriptor at which it is open.
    pub fd: Option<i32>,
}

/// What a machine starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The kernel.
    pub kernel: HostFile,
    /// The initial RAM disk.
    pub initrd: Option<HostFile>,
    /// The kernel's command line.
    pub cmdline: String,
}

impl Plan {
    /// Decides what the machine that `keys` describe will be. `None` when `diagnostics` then has
    /// errors, of here or of before.
    #[must_use]
    pub fn new(keys: &Checked, diagnostics: &mut Diagnostics) -> Option<Self> {
        keys.judge_support(diagnostics);
        let mut check = Check { keys, diagnostics };
        let processors = processors(&mut check);
        let affinity = affinity(&mut check, processors);
        let memory = memory(&mut check);
        let domains = domains(&mut check, processors, memory);
        let boot = boot(&mut check);
        let kvm = check.descriptor("kvm.fd");
        let console = keys.endpoint("console").unwrap_or(Endpoint::None);
        let devices = device::plan(&mut check, &console);
        let memory = shared(&mut check, memory, &devices);
        if memory.wired && devices.iter().any(|device| matches!(device.model, Model::Balloon(_))) {
            let hint = "leave the balloon out, or do not lock the memory";
            check.error("memory.wired", "a balloon cannot take back memory that is locked", hint);
        }
        let uuid = keys
            .value("uuid")
            .and_then(|value| if let Value::Uuid(uuid) = value { Some(uuid) } else { None });
        let plan = Self {
            name: keys.text("name").unwrap_or_default(),
            uuid,
            processors,
            affinity,
            memory,
            domains,
            boot: boot?,
            kvm,
            console,
            devices,
            reboot: keys.word("on_reset") != Some("stop"),
            stop_on_panic: keys.word("on_panic") != Some("ignore"),
        };
        (diagnostics.errors() == 0).then_some(plan)
    }
}

impl Plan {
    /// Whether a console is on standard input and output.
    #[must_use]
    pub fn uses_stdio(&self) -> bool {
        let on_stdio = |device: &DevicePlan| device.model == Model::Console(Endpoint::Stdio);
        self.console == Endpoint::Stdio || self.devices.iter().any(on_stdio)
    }
}

/// The keys, and where findings about them go.
pub(crate) struct Check<'a> {
    pub(crate) keys: &'a Checked,
    pub(crate) diagnostics: &'a mut Diagnostics,
}

impl Check<'_> {
    /// Finds that `key` makes the machine impossible.
    pub(crate) fn error(&mut self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.diagnostics.add(Severity::Error, || self.keys.about(key, message).code("impossible").hint(hint));
    }

    /// The descriptor that `key` gives.
    pub(crate) fn descriptor(&self, key: &str) -> Option<i32> {
        self.keys.int(key).and_then(|fd| i32::try_from(fd).ok())
    }

    /// Finds that `key` changes nothing.
    pub(crate) fn without_effect(&mut self, key: &str, because: &str) {
        if self.keys.is_set(key) {
            self.diagnostics.add(Severity::Warning, || {
                self.keys.about(key, format!("`{key}` has no effect")).code("no-effect").hint(because)
            });
        }
    }
}

/// The counts given, and those that follow: processors not accounted for are cores of one package.
fn processors(check: &mut Check<'_>) -> Processors {
    let count = |key| check.keys.int(key).and_then(|n| u32::try_from(n).ok());
    let (cpus, sockets, cores, threads) = (count("cpus"), count("sockets"), count("cores"), count("threads"));
    let given = sockets.unwrap_or(1) * threads.unwrap_or(1);
    let cores = cores.unwrap_or_else(|| (cpus.unwrap_or(given) / given).max(1));
    let processors = Processors { sockets: sockets.unwrap_or(1), cores, threads: threads.unwrap_or(1) };
    if let Some(cpus) = cpus
        && cpus != processors.count()
    {
        let Processors { sockets, cores, threads } = processors;
        check.error(
            "cpus",
            format!("{cpus} processors are not {sockets} sockets of {cores} cores of {threads} threads"),
            "leave `cpus` out, or make it the product of the three",
        );
    }
    processors
}

impl Processors {
    /// Processors in all.
    #[must_use]
    pub fn count(self) -> u32 {
        self.sockets * self.cores * self.threads
    }
}

/// Where processors run, of those that do not run anywhere.
fn affinity(check: &mut Check<'_>, processors: Processors) -> BTreeMap<u32, Vec<u32>> {
    let keys = check.keys;
    let mut affinity = BTreeMap::new();
    for number in keys.children("vcpu") {
        let key = format!("vcpu.{number}.cpuset");
        match (number.parse().ok().filter(|index| *index < processors.count()), keys.value(&key)) {
            (Some(index), Some(Value::Cpus(cpus))) => drop(affinity.insert(index, cpus)),
            (Some(_), _) => {}
            (None, _) => {
                let hint = format!("this machine has processors 0 to {}", processors.count() - 1);
                check.error(&key, format!("there is no processor {number}"), hint);
            }
        }
    }
    affinity
}

fn memory(check: &mut Check<'_>) -> Memory {
    let keys = check.keys;
    let page = keys.int("memory.page_size");
    let backing = match keys.word("memory.backing") {
        Some("memfd") => Backing::Memfd,
        Some("hugetlb") if page == Some(2 << 20) => Backing::Huge2M,
        Some("hugetlb") if page == Some(1 << 30) => Backing::Huge1G,
        Some("hugetlb") => {
            check.error("memory.page_size", "there are no huge pages of that size", "it is 2M or 1G");
            Backing::Huge2M
        }
        _ => Backing::Anonymous,
    };
    if let Backing::Anonymous | Backing::Memfd = backing {
        check.without_effect("memory.page_size", "it is for memory.backing=hugetlb");
    } else {
        check.without_effect("memory.thp", "it is not for memory.backing=hugetlb");
    }
    Memory {
        size: keys.int("memory.size").unwrap_or(0),
        backing,
        shared: keys.bool("memory.shared"),
        transparent_huge_pages: keys.bool("memory.thp"),
        prefault: keys.bool("memory.prefault"),
        wired: keys.bool("memory.wired"),
    }
}

/// The memory that `devices` need: what works in it in another process has to see it.
fn shared(check: &mut Check<'_>, mut memory: Memory, devices: &[DevicePlan]) -> Memory {
    let Some(device) = devices.iter().find(|device| device.shares_memory()) else { return memory };
    let keys = check.keys;
    let refused =
        [("memory.shared", !memory.shared), ("memory.backing", memory.backing == Backing::Anonymous)];
    for (key, cannot) in refused {
        if cannot && keys.is_set(key) {
            let message = format!("another process does the work of device `{}` in this memory", device.id);
            check.error(key, message, format!("leave `{key}` out: memory is then a shared file"));
        }
    }
    memory.shared = true;
    if memory.backing == Backing::Anonymous {
        memory.backing = Backing::Memfd;
    }
    memory
}

/// The NUMA domains, which must be all of the memory and all of the processors, each once.
fn domains(check: &mut Check<'_>, processors: Processors, memory: Memory) -> Vec<Domain> {
    let keys = check.keys;
    let mut owner = BTreeMap::new();
    let mut domains = Vec::new();
    for (index, number) in keys.children("domains").into_iter().enumerate() {
        let (size_key, cpus_key) = (format!("domains.{number}.size"), format!("domains.{number}.cpus"));
        if number != index.to_string() {
            let key = if keys.is_set(&size_key) { size_key } else { cpus_key };
            check.error(
                &key,
                format!("there is no domain {index}"),
                "domains are numbered from 0, without gaps",
            );
            return Vec::new();
        }
        let Some(size) = keys.int(&size_key) else {
            check.error(&cpus_key, format!("domain {number} has no memory"), format!("set `{size_key}`"));
            continue;
        };
        let cpus = if let Some(Value::Cpus(cpus)) = keys.value(&cpus_key) { cpus } else { Vec::new() };
        for cpu in &cpus {
            if *cpu >= processors.count() {
                let hint = format!("this machine has processors 0 to {}", processors.count() - 1);
                check.error(&cpus_key, format!("there is no processor {cpu}"), hint);
            } else if let Some(other) = owner.insert(*cpu, number) {
                let message = format!("processor {cpu} is in domain {other} too");
                check.error(&cpus_key, message, "a processor is in one domain");
            }
        }
        domains.push(Domain { size, cpus });
    }
    if domains.is_empty() || check.diagnostics.errors() > 0 {
        return domains;
    }
    let sum = domains.iter().map(|domain| domain.size).fold(0, u64::saturating_add);
    if sum != memory.size {
        let message =
            format!("the domains have {} MiB of memory, the machine {}", sum >> 20, memory.size >> 20);
        check.error("domains.0.size", message, "make `memory.size` the sum of `domains.*.size`");
    }
    if let Some(cpu) = (0..processors.count()).find(|cpu| !owner.contains_key(cpu)) {
        let message = format!("processor {cpu} is in no domain");
        check.error("domains.0.cpus", message, "name every processor in one `domains.*.cpus`");
    }
    domains
}

fn boot(check: &mut Check<'_>) -> Option<Boot> {
    let Some(kernel) = check.keys.text("boot.kernel") else {
        if !check.keys.is_set("boot.kernel") {
            check.diagnostics.add(Severity::Error, || {
                Diagnostic::new("the machine has no kernel to start")
                    .hint("set `boot.kernel` to a bzImage or an ELF vmlinux, such as /boot/vmlinuz")
            });
        }
        return None;
    };
    if !check.keys.is_set("boot.initrd") {
        check.without_effect("boot.initrd_fd", "it is for boot.initrd");
    }
    Some(Boot {
        kernel: HostFile { path: kernel.into(), fd: check.descriptor("boot.kernel_fd") },
        initrd: check
            .keys
            .text("boot.initrd")
            .map(|initrd| HostFile { path: initrd.into(), fd: check.descriptor("boot.initrd_fd") }),
        cmdline: check.keys.text("boot.cmdline").unwrap_or_default(),
    })
}
