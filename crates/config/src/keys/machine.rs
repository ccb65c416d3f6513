//! Keys of the machine as a whole.

use super::Kind;
use super::row::{Row, key, number, switch, text};

const NO_SMBIOS: &str = "there are no SMBIOS tables; leave it out";
const NO_TPM: &str = "there is no TPM; leave it out";
const NO_GDB: &str = "there is no debug server; leave it out";
const KVM_DECIDES: &str = "KVM decides when a processor that waits gives up its time";
const KVM_MSRS: &str = "the parameter ignore_msrs of the host's kvm module decides";

pub(super) const KEYS: &[Row] = &[
    key("name", Kind::Text { max: 64 }, "What the machine is called.")
        .or("parador")
        .bhyve("last argument")
        .qemu("-name")
        .libvirt("name"),
    key(
        "uuid",
        Kind::Uuid,
        "The machine's identity: Ethernet addresses that are not set are derived from it.",
    )
    .bhyve("-U")
    .qemu("-uuid")
    .cloud_hypervisor("--platform uuid=")
    .crosvm("--smbios uuid=")
    .libvirt("uuid"),
    number(
        "cpus",
        1,
        254,
        "Number of processors; the product of sockets, cores and threads when those are set.",
    )
    .bhyve("-c")
    .qemu("-smp")
    .cloud_hypervisor("--cpus boot=")
    .firecracker("machine-config.vcpu_count")
    .crosvm("--cpus num-cores=")
    .libvirt("vcpu"),
    number("sockets", 1, 254, "Number of processor packages.")
        .bhyve("-c sockets=")
        .qemu("-smp sockets=")
        .cloud_hypervisor("--cpus topology=")
        .libvirt("cpu/topology@sockets"),
    number("cores", 1, 254, "Cores in each package.")
        .bhyve("-c cores=")
        .qemu("-smp cores=")
        .cloud_hypervisor("--cpus topology=")
        .libvirt("cpu/topology@cores"),
    number("threads", 1, 254, "Threads of each core.")
        .bhyve("-c threads=")
        .qemu("-smp threads=")
        .cloud_hypervisor("--cpus topology=")
        .firecracker("machine-config.smt")
        .libvirt("cpu/topology@threads"),
    key(
        "vcpu.*.cpuset",
        Kind::Cpus,
        "Processors of the host that one processor of the guest, counted from 0, may run on.",
    )
    .bhyve("-p")
    .cloud_hypervisor("--cpus affinity=")
    .crosvm("--cpu-affinity")
    .libvirt("cputune/vcpupin"),
    key(
        "on_reset",
        Kind::Word(&["reboot", "stop"]),
        "What a reset by the guest does: start it anew in this process, or end with status 3.",
    )
    .or("reboot")
    .qemu("-no-reboot")
    .libvirt("on_reboot"),
    key(
        "on_panic",
        Kind::Word(&["stop", "ignore"]),
        "What a panic reported by the guest does: end with status 4, or nothing.",
    )
    .or("stop")
    .qemu("-action panic=")
    .libvirt("on_crash"),
    key("machine.type", Kind::Word(&["pc", "microvm", "virt"]), "What kind of computer it is.")
        .or("pc")
        .only(&["pc"], "there is one kind of machine, a PC with PCI Express")
        .qemu("-machine")
        .libvirt("os/type@machine"),
    text("cpu.model", "The processor the guest sees.")
        .or("host")
        .only(&["host"], "the guest sees the host's processor")
        .qemu("-cpu")
        .firecracker("cpu-config")
        .libvirt("cpu/model"),
    key(
        "cpu.features",
        Kind::Text { max: 4096 },
        "Features of the processor to add and to hide, as in +x2apic,-avx.",
    )
    .refused("the guest sees the features that the host's KVM offers; leave it out")
    .qemu("-cpu MODEL,+FEATURE")
    .cloud_hypervisor("--cpus features=")
    .firecracker("cpu-config")
    .libvirt("cpu/feature"),
    switch("acpi_tables", "Whether the guest is described by ACPI tables.")
        .or("true")
        .only(&["true"], "the ACPI tables are always there")
        .bhyve("-A")
        .qemu("-machine acpi=")
        .libvirt("features/acpi"),
    switch("acpi_tables_in_memory", "Whether the ACPI tables are in memory, rather than in the firmware.")
        .or("true")
        .only(&["true"], "the ACPI tables are always in memory"),
    switch("destroy_on_poweroff", "Whether nothing of the machine is left after it has powered off.")
        .always("a machine goes with its process")
        .bhyve("-D"),
    switch("monitor", "Whether a process watches over the machine and reboots it.")
        .always("a reset starts the guest anew in the same process, see `on_reset`")
        .bhyve("-M"),
    switch("virtio_msix", "Whether virtio devices have message-signalled interrupts (MSI-X).")
        .or("true")
        .only(&["true"], "devices have no other interrupts than MSI-X")
        .bhyve("-W"),
    switch("rtc.use_localtime", "Whether the clock shows local time, rather than UTC.")
        .or("false")
        .only(&["false"], "the clock shows UTC; set it to false and the time zone in the guest")
        .bhyve("-u")
        .qemu("-rtc base=")
        .libvirt("clock@offset"),
    switch("x86.x2apic", "Whether the guest starts with its interrupt controllers in x2APIC mode.")
        .no_effect("the guest chooses the mode")
        .bhyve("-x")
        .qemu("-cpu MODEL,+x2apic"),
    switch("x86.mptable", "Whether there is an MP table, by which old guests find their processors.")
        .no_effect("there is none; guests find their processors in the ACPI tables")
        .bhyve("-Y"),
    switch("x86.strictio", "Whether a guest that uses a port nobody has is stopped.")
        .only(&["false"], "ports that nobody has read as all ones; leave it out")
        .bhyve("-e"),
    switch("x86.strictmsr", "Whether a guest that uses an unknown model-specific register gets a fault.")
        .no_effect(KVM_MSRS)
        .bhyve("-w"),
    switch("x86.verbosemsr", "Whether uses of unknown model-specific registers are logged.")
        .no_effect(KVM_MSRS),
    switch("x86.vmexit_on_hlt", "Whether a guest's processor that halts gives up its time.")
        .no_effect(KVM_DECIDES)
        .bhyve("-H"),
    switch("x86.vmexit_on_pause", "Whether a guest's processor that spins gives up its time.")
        .no_effect(KVM_DECIDES)
        .bhyve("-P"),
    text("bios.vendor", "Maker of the firmware (SMBIOS type 0).").refused(NO_SMBIOS).qemu("-smbios type=0"),
    text("bios.version", "Version of the firmware.").refused(NO_SMBIOS).qemu("-smbios type=0"),
    text("bios.release_date", "Date of the firmware.").refused(NO_SMBIOS).qemu("-smbios type=0"),
    text("system.manufacturer", "Maker of the machine (SMBIOS type 1).")
        .refused(NO_SMBIOS)
        .qemu("-smbios type=1")
        .libvirt("sysinfo/system"),
    text("system.product_name", "Product name of the machine.")
        .refused(NO_SMBIOS)
        .qemu("-smbios type=1")
        .libvirt("sysinfo/system"),
    text("system.family_name", "Family of the machine.")
        .refused(NO_SMBIOS)
        .qemu("-smbios type=1")
        .libvirt("sysinfo/system"),
    text("system.version", "Version of the machine.")
        .refused(NO_SMBIOS)
        .qemu("-smbios type=1")
        .libvirt("sysinfo/system"),
    text("system.serial_number", "Serial number of the machine; cloud-init reads it.")
        .refused(NO_SMBIOS)
        .qemu("-smbios type=1,serial=")
        .cloud_hypervisor("--platform serial_number=")
        .libvirt("sysinfo/system"),
    text("system.sku", "Stock-keeping unit of the machine.")
        .refused(NO_SMBIOS)
        .qemu("-smbios type=1")
        .libvirt("sysinfo/system"),
    text("board.manufacturer", "Maker of the board (SMBIOS type 2).")
        .refused(NO_SMBIOS)
        .qemu("-smbios type=2"),
    text("board.product_name", "Product name of the board.").refused(NO_SMBIOS).qemu("-smbios type=2"),
    text("board.version", "Version of the board.").refused(NO_SMBIOS).qemu("-smbios type=2"),
    text("board.serial_number", "Serial number of the board.").refused(NO_SMBIOS).qemu("-smbios type=2"),
    text("board.asset_tag", "Asset tag of the board.").refused(NO_SMBIOS).qemu("-smbios type=2"),
    text("board.location", "Where the board sits in the chassis.").refused(NO_SMBIOS).qemu("-smbios type=2"),
    text("chassis.manufacturer", "Maker of the chassis (SMBIOS type 3).")
        .refused(NO_SMBIOS)
        .qemu("-smbios type=3"),
    text("chassis.version", "Version of the chassis.").refused(NO_SMBIOS).qemu("-smbios type=3"),
    text("chassis.serial_number", "Serial number of the chassis.").refused(NO_SMBIOS).qemu("-smbios type=3"),
    text("chassis.asset_tag", "Asset tag of the chassis.").refused(NO_SMBIOS).qemu("-smbios type=3"),
    text("chassis.sku", "Stock-keeping unit of the chassis.").refused(NO_SMBIOS).qemu("-smbios type=3"),
    key("tpm.type", Kind::Word(&["passthru", "swtpm"]), "Where the guest's TPM comes from.")
        .refused(NO_TPM)
        .bhyve("-l tpm,TYPE,PATH")
        .qemu("-tpmdev")
        .libvirt("tpm/backend@type"),
    key("tpm.path", Kind::Path, "The TPM's device, or the socket of swtpm.")
        .refused(NO_TPM)
        .bhyve("-l tpm,TYPE,PATH")
        .qemu("-chardev socket")
        .cloud_hypervisor("--tpm socket=")
        .libvirt("tpm/backend/device@path"),
    key("tpm.version", Kind::Word(&["1.2", "2.0"]), "Version of the TPM.")
        .or("2.0")
        .refused(NO_TPM)
        .bhyve("-l tpm,TYPE,PATH,version=")
        .libvirt("tpm/backend@version"),
    number("gdb.port", 0, 65_535, "TCP port of the debug server for gdb; 0 is none.")
        .refused(NO_GDB)
        .bhyve("-G")
        .qemu("-gdb")
        .cloud_hypervisor("--gdb")
        .crosvm("--gdb"),
    text("gdb.address", "Address the debug server listens at.").refused(NO_GDB).bhyve("-G").qemu("-gdb"),
    switch("gdb.wait", "Whether the guest waits for a debugger before its first instruction.")
        .refused(NO_GDB)
        .bhyve("-G w")
        .qemu("-S"),
    text("keyboard.layout", "Layout of the keyboard at the guest's screen.")
        .no_effect("there is no screen")
        .bhyve("-K")
        .qemu("-k")
        .libvirt("devices/graphics@keymap"),
];
