//! Keys of the guest's memory.

use super::Kind;
use super::row::{Row, key, switch, text};

const MIN: u64 = 1 << 20;
const MAX: u64 = 16 << 40;

pub(super) const KEYS: &[Row] = &[
    key("memory.size", Kind::Memory { min: MIN, max: MAX }, "The guest's memory.")
        .or("256M")
        .bhyve("-m")
        .qemu("-m")
        .cloud_hypervisor("--memory size=")
        .firecracker("machine-config.mem_size_mib")
        .crosvm("--mem size=")
        .libvirt("memory"),
    key(
        "memory.max",
        Kind::Memory { min: MIN, max: MAX },
        "The most memory the guest can be given while it runs.",
    )
    .refused("memory cannot be added to a running guest; leave it out")
    .qemu("-m maxmem=")
    .cloud_hypervisor("--memory hotplug_size=")
    .firecracker("memory-hotplug")
    .libvirt("maxMemory"),
    key(
        "memory.backing",
        Kind::Word(&["anon", "memfd", "hugetlb", "file"]),
        "What the guest's memory is made of.",
    )
    .or("anon")
    .only(
        &["anon", "memfd", "hugetlb"],
        "memory cannot be a file; memory.backing=memfd can be shared as well",
    )
    .qemu("-object memory-backend-*")
    .cloud_hypervisor("--memory hugepages=")
    .firecracker("machine-config.huge_pages")
    .crosvm("--hugepages")
    .libvirt("memoryBacking"),
    key("memory.path", Kind::Path, "The file that the guest's memory is (backing=file).")
        .refused("memory cannot be a file; leave it out")
        .qemu("-object memory-backend-file,mem-path=")
        .cloud_hypervisor("--memory-zone file="),
    key(
        "memory.page_size",
        Kind::Size { min: 4 << 10, max: 1 << 30 },
        "Size of huge pages (hugetlb): 2M or 1G.",
    )
    .or("2M")
    .qemu("-object memory-backend-memfd,hugetlbsize=")
    .cloud_hypervisor("--memory hugepage_size=")
    .firecracker("machine-config.huge_pages")
    .libvirt("memoryBacking/hugepages/page"),
    switch("memory.shared", "Whether other processes can map the guest's memory (memfd, hugetlb).")
        .or("false")
        .qemu("-object memory-backend-*,share=")
        .cloud_hypervisor("--memory shared=")
        .libvirt("memoryBacking/access@mode"),
    switch("memory.thp", "Whether the guest's memory is put on transparent huge pages.")
        .or("true")
        .cloud_hypervisor("--memory thp="),
    switch("memory.prefault", "Whether all of the guest's memory is allocated before it starts.")
        .or("false")
        .qemu("-mem-prealloc")
        .cloud_hypervisor("--memory prefault=")
        .libvirt("memoryBacking/allocation"),
    switch("memory.wired", "Whether the guest's memory is locked in the host's (mlock).")
        .or("false")
        .bhyve("-S")
        .qemu("-overcommit mem-lock=")
        .crosvm("--lock-guest-memory")
        .libvirt("memoryBacking/locked"),
    switch("memory.guest_in_core", "Whether a core file of the process has the guest's memory in it.")
        .no_effect("/proc/PID/coredump_filter decides")
        .bhyve("-C")
        .qemu("-machine dump-guest-core=")
        .libvirt("memory@dumpCore"),
    key(
        "domains.*.size",
        Kind::Memory { min: MIN, max: MAX },
        "Memory of a NUMA domain, counted from 0; the sizes add up to memory.size.",
    )
    .bhyve("-n size=")
    .qemu("-numa node,memdev=")
    .cloud_hypervisor("--memory-zone size=")
    .libvirt("cpu/numa/cell@memory"),
    key("domains.*.cpus", Kind::Cpus, "Processors of a NUMA domain.")
        .bhyve("-n cpus=")
        .qemu("-numa node,cpus=")
        .cloud_hypervisor("--numa cpus=")
        .libvirt("cpu/numa/cell@cpus"),
    text("domains.*.domain_policy", "Where the host takes the memory of a NUMA domain from.")
        .refused("memory comes from where the host sees fit; leave it out, or start the command with numactl")
        .bhyve("-n domain_policy=")
        .qemu("-object memory-backend-*,host-nodes=,policy=")
        .cloud_hypervisor("--memory-zone host_numa_node=")
        .libvirt("numatune/memnode"),
];
