//! The one table of what may be asked for.
//!
//! Names are those of bhyve_config(5) where it has one.

/// What a key is and what it takes.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The key's path; `*` stands for one part that the user chooses.
    pub pattern: &'static str,
    /// Models of devices that have it; empty for keys that are not of a device, or of all of them.
    pub models: &'static [&'static str],
    /// What its values are.
    pub kind: Kind,
    /// What it is when it is not set.
    pub default: Option<&'static str>,
    /// What it does, in one sentence.
    pub doc: &'static str,
}

/// The type of a key's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "min and max are the bounds, inclusive")]
pub enum Kind {
    /// `true`, `on`, `yes`, `1` or `false`, `off`, `no`, `0`, in any case.
    Bool,
    /// A number, decimal or hexadecimal after `0x`.
    Int { min: u64, max: u64 },
    /// A size in bytes, with a unit K, M, G or T (powers of 1024).
    Size { min: u64, max: u64 },
    /// As [`Kind::Size`], but a number below 1048576 without a unit counts MiB.
    Memory { min: u64, max: u64 },
    /// Any text of at most `max` bytes.
    Text { max: usize },
    /// The path of a file.
    Path,
    /// One of these words.
    Word(&'static [&'static str]),
    /// An Ethernet address of one interface.
    Mac,
    /// A list of processors, such as `0-3,6`.
    Cpus,
    /// A PCI address, `BUS:SLOT.FUNCTION`.
    Address,
    /// A UUID.
    Uuid,
    /// What a console is connected to: `stdio`, `none`, `pty`, `file:PATH`, `unix:PATH`.
    Endpoint,
}

const fn key(pattern: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { pattern, models: &[], kind, default: None, doc }
}

impl Key {
    const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    const fn of(mut self, models: &'static [&'static str]) -> Self {
        self.models = models;
        self
    }

    /// Whether `path` is a key of this pattern.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let mut parts = path.split('.');
        self.pattern.split('.').all(|want| parts.next().is_some_and(|part| want == "*" || want == part))
            && parts.next().is_none()
    }
}

const INDEX: Kind = Kind::Int { min: 1, max: 254 };
const BLK: &[&str] = &["virtio-blk"];
const NET: &[&str] = &["virtio-net"];
const RND: &[&str] = &["virtio-rnd"];
const CONSOLE: &[&str] = &["virtio-console"];
const VSOCK: &[&str] = &["virtio-vsock"];
const BALLOON: &[&str] = &["virtio-balloon"];

/// The models a device can be.
pub const MODELS: &[&str] =
    &["virtio-blk", "virtio-net", "virtio-rnd", "virtio-console", "virtio-vsock", "virtio-balloon"];

/// Every key there is, apart from `var.*`, which are the user's own.
pub const ALL: &[Key] = &[
    // The machine.
    key("name", Kind::Text { max: 64 }, "What the machine is called.").or("parador"),
    key(
        "uuid",
        Kind::Uuid,
        "The machine's identity: Ethernet addresses that are not set are derived from it.",
    ),
    key("cpus", INDEX, "Number of processors; the product of sockets, cores and threads when those are set."),
    key("sockets", INDEX, "Number of processor packages."),
    key("cores", INDEX, "Cores in each package."),
    key("threads", INDEX, "Threads of each core."),
    key(
        "on_reset",
        Kind::Word(&["reboot", "stop"]),
        "What a reset by the guest does: start it anew in this process, or end with status 3.",
    )
    .or("reboot"),
    key(
        "on_panic",
        Kind::Word(&["stop", "ignore"]),
        "What a panic reported by the guest does: end with status 4, or nothing.",
    )
    .or("stop"),
    // Memory.
    key("memory.size", Kind::Memory { min: 1 << 20, max: 16 << 40 }, "The guest's memory.").or("256M"),
    key("memory.backing", Kind::Word(&["anon", "memfd", "hugetlb"]), "What the guest's memory is made of.")
        .or("anon"),
    key(
        "memory.page_size",
        Kind::Size { min: 4 << 10, max: 1 << 30 },
        "Size of huge pages (hugetlb): 2M or 1G.",
    )
    .or("2M"),
    key("memory.shared", Kind::Bool, "Whether other processes can map the guest's memory (memfd, hugetlb).")
        .or("false"),
    key("memory.thp", Kind::Bool, "Whether the guest's memory is put on transparent huge pages.").or("true"),
    key("memory.prefault", Kind::Bool, "Whether all of the guest's memory is allocated before it starts.")
        .or("false"),
    key(
        "domains.*.size",
        Kind::Memory { min: 1 << 20, max: 16 << 40 },
        "Memory of a NUMA domain; the sizes add up to memory.size.",
    ),
    key("domains.*.cpus", Kind::Cpus, "Processors of a NUMA domain."),
    // What it starts.
    key("boot.kernel", Kind::Path, "The kernel: a bzImage, or an ELF vmlinux with a PVH entry."),
    key("boot.initrd", Kind::Path, "The initial RAM disk."),
    key("boot.cmdline", Kind::Text { max: 2047 }, "The kernel's command line."),
    key(
        "console",
        Kind::Endpoint,
        "What the first serial port (COM1) is connected to; also spelt lpc.com1.path.",
    )
    .or("stdio"),
    // Every device.
    key("device.*.model", Kind::Word(MODELS), "What kind of device it is."),
    key(
        "device.*.addr",
        Kind::Address,
        "Where it sits; by default the first free slot, in the order of the devices.",
    ),
    // Disks.
    key("device.*.path", Kind::Path, "The image or block device.").of(BLK),
    key("device.*.ro", Kind::Bool, "Whether the guest may only read.").of(BLK).or("false"),
    key("device.*.nocache", Kind::Bool, "Whether to go around the host's page cache (O_DIRECT).")
        .of(BLK)
        .or("false"),
    key("device.*.sync", Kind::Bool, "Whether every write is durable before it completes (O_DSYNC).")
        .of(BLK)
        .or("false"),
    key("device.*.aio", Kind::Word(&["io_uring", "threads", "sync"]), "How the host does the I/O.")
        .of(BLK)
        .or("io_uring"),
    key("device.*.queues", Kind::Int { min: 1, max: 64 }, "Number of request queues.").of(BLK).or("1"),
    key("device.*.queue_size", Kind::Int { min: 4, max: 1024 }, "Descriptors in each queue, a power of two.")
        .of(BLK)
        .or("256"),
    key("device.*.ser", Kind::Text { max: 20 }, "Serial number the guest reads.").of(BLK),
    key(
        "device.*.sectorsize",
        Kind::Word(&["512", "512/4096", "4096", "4096/4096"]),
        "Logical and physical block size; by default what the image has.",
    )
    .of(BLK),
    // Network interfaces.
    key(
        "device.*.backend",
        Kind::Word(&["tap", "fd"]),
        "A TAP interface opened by name, or passed as a descriptor.",
    )
    .of(NET)
    .or("tap"),
    key("device.*.tap.name", Kind::Text { max: 15 }, "Name of the TAP interface.").of(NET),
    key("device.*.fd", Kind::Int { min: 3, max: 65_535 }, "Descriptor of a TAP interface (backend=fd).")
        .of(NET),
    key(
        "device.*.mac",
        Kind::Mac,
        "Ethernet address; by default derived from the names of the machine and the device.",
    )
    .of(NET),
    key(
        "device.*.mtu",
        Kind::Int { min: 68, max: 65_535 },
        "Largest packet the guest is told to send, in bytes.",
    )
    .of(NET),
    key("device.*.queues", Kind::Int { min: 1, max: 16 }, "Number of queue pairs.").of(NET).or("1"),
    // Everything else.
    key("device.*.path", Kind::Path, "Where the randomness comes from; by default the host's kernel.")
        .of(RND),
    key("device.*.port.0.path", Kind::Endpoint, "What the console is connected to.").of(CONSOLE),
    key("device.*.cid", Kind::Int { min: 3, max: 0xffff_fffe }, "The guest's address.").of(VSOCK),
    key(
        "device.*.socket",
        Kind::Path,
        "UNIX socket for connections into the guest; those out of it go to PATH_PORT.",
    )
    .of(VSOCK),
    key(
        "device.*.size",
        Kind::Memory { min: 0, max: 16 << 40 },
        "How much memory the guest is asked to give back.",
    )
    .of(BALLOON)
    .or("0"),
    key(
        "device.*.deflate_on_oom",
        Kind::Bool,
        "Whether the guest may take memory back when it runs out of it.",
    )
    .of(BALLOON)
    .or("true"),
    key(
        "device.*.free_page_reporting",
        Kind::Bool,
        "Whether the guest tells which of its memory is free, for the host to take.",
    )
    .of(BALLOON)
    .or("true"),
    // The process.
    key(
        "log.level",
        Kind::Word(&["error", "warn", "info", "debug", "trace"]),
        "What is written to standard error; by default PARADOR_LOG, or warn.",
    ),
];

/// Other names of whole keys, which mean the same.
const SYNONYMS: &[(&str, &str)] = &[("lpc.com1.path", "console")];

/// Words for keys that other systems use: never accepted, but understood well enough to say the right one.
/// A key of a device is named by its last part.
pub(crate) const FOREIGN: &[(&str, &str)] = &[
    ("memory", "memory.size"),
    ("mem", "memory.size"),
    ("ram", "memory.size"),
    ("kernel", "boot.kernel"),
    ("initrd", "boot.initrd"),
    ("initramfs", "boot.initrd"),
    ("cmdline", "boot.cmdline"),
    ("append", "boot.cmdline"),
    ("smp", "cpus"),
    ("vcpus", "cpus"),
    ("hugepages", "memory.backing"),
    ("serial", "console"),
    ("device.*.readonly", "device.*.ro"),
    ("device.*.read_only", "device.*.ro"),
    ("device.*.serial", "device.*.ser"),
    ("device.*.file", "device.*.path"),
    ("device.*.filename", "device.*.path"),
    ("device.*.direct", "device.*.nocache"),
    ("device.*.type", "device.*.model"),
    ("device.*.device", "device.*.model"),
    ("device.*.driver", "device.*.model"),
    ("device.*.num_queues", "device.*.queues"),
    ("device.*.tap", "device.*.tap.name"),
    ("device.*.ifname", "device.*.tap.name"),
    ("device.*.host_mtu", "device.*.mtu"),
    ("device.*.guest_cid", "device.*.cid"),
    ("device.*.uds", "device.*.socket"),
    ("device.*.address", "device.*.addr"),
];

/// Words for values, likewise.
pub(crate) const FOREIGN_VALUES: &[(&str, &str)] = &[
    ("blk", "virtio-blk"),
    ("virtio-block", "virtio-blk"),
    ("net", "virtio-net"),
    ("rng", "virtio-rnd"),
    ("virtio-rng", "virtio-rnd"),
    ("console", "virtio-console"),
    ("serial", "virtio-console"),
    ("virtio-serial", "virtio-console"),
    ("vsock", "virtio-vsock"),
    ("balloon", "virtio-balloon"),
    ("huge", "hugetlb"),
    ("hugepages", "hugetlb"),
    ("warning", "warn"),
    ("native", "io_uring"),
    ("restart", "reboot"),
];

/// If `path` is a synonym: that, and the name under which it is kept.
pub(crate) fn synonym(path: &str) -> Option<(&'static str, &'static str)> {
    SYNONYMS.iter().find(|(other, _)| *other == path).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;

    #[test]
    fn the_table_is_consistent() {
        for (index, key) in ALL.iter().enumerate() {
            assert!(key.doc.ends_with('.'), "{}", key.pattern);
            if let Some(default) = key.default {
                assert!(value::parse(key.kind, default).is_ok(), "{}={default}", key.pattern);
            }
            assert!(key.models.iter().all(|model| MODELS.contains(model)), "{}", key.pattern);
            for other in &ALL[index + 1..] {
                let shared = key.models.iter().any(|model| other.models.contains(model))
                    || key.models.is_empty()
                    || other.models.is_empty();
                assert!(key.pattern != other.pattern || !shared, "{} is there twice", key.pattern);
            }
        }
    }

    #[test]
    fn words_of_other_systems_lead_to_keys_and_are_none_themselves() {
        for (word, key) in FOREIGN.iter().chain(SYNONYMS) {
            assert!(ALL.iter().any(|k| k.pattern == *key), "{key}");
            assert!(!ALL.iter().any(|k| k.pattern == *word), "{word}");
        }
        let words: Vec<&str> = ALL
            .iter()
            .flat_map(|key| match key.kind {
                Kind::Word(words) => words,
                _ => &[],
            })
            .copied()
            .collect();
        for (_, meant) in FOREIGN_VALUES {
            assert!(words.contains(meant), "{meant}");
        }
    }

    #[test]
    fn a_star_stands_for_exactly_one_part() {
        let key = key("device.*.port.*.path", Kind::Path, "");
        assert!(key.matches("device.a.port.0.path"));
        assert!(!key.matches("device.a.port.path"));
        assert!(!key.matches("device.a.port.0.path.x"));
        assert!(!key.matches("device.a.b.port.0.path"));
    }
}
