//! Keys of the process that is the machine, and of how its keys are read.

use super::Kind;
use super::row::{Row, key, number, switch, text};

const NO_CONTROL: &str = "there is no control socket yet; SIGTERM presses the power button";

pub(super) const KEYS: &[Row] = &[
    key(
        "log.level",
        Kind::Word(&["error", "warn", "info", "debug", "trace"]),
        "What is written to standard error; by default PARADOR_LOG, or warn.",
    )
    .cloud_hypervisor("-v")
    .firecracker("--level")
    .crosvm("--log-level"),
    number("kvm.fd", 3, 65_535, "Descriptor of the open /dev/kvm."),
    switch("sandbox", "Whether the process gives up what it does not need.")
        .or("false")
        .only(&["false"], "there is no sandbox yet; leave it out")
        .qemu("-sandbox")
        .cloud_hypervisor("--seccomp")
        .firecracker("--no-seccomp")
        .crosvm("--disable-sandbox"),
    key("control.path", Kind::Path, "UNIX socket to control the machine by.")
        .refused(NO_CONTROL)
        .qemu("-qmp")
        .cloud_hypervisor("--api-socket")
        .firecracker("--api-sock")
        .crosvm("--socket"),
    number("control.fd", 3, 65_535, "Descriptor of a socket to control the machine by.")
        .refused(NO_CONTROL)
        .cloud_hypervisor("--api-socket fd="),
    key("control.ch_api", Kind::Path, "UNIX socket that speaks Cloud Hypervisor's HTTP.").refused(NO_CONTROL),
    key("control.fc_api", Kind::Path, "UNIX socket that speaks Firecracker's HTTP.").refused(NO_CONTROL),
    key("stats.path", Kind::Path, "UNIX socket that tells counters.")
        .refused("counters are not told yet; leave it out")
        .firecracker("--metrics-path"),
    text(
        "config.optional",
        "Keys that are left out where they are unknown or refused: patterns such as device.*.new, separated by commas.",
    ),
    key(
        "config.unknown",
        Kind::Word(&["error", "warn", "ignore"]),
        "What an unknown key is; bhyve ignores them.",
    )
    .or("error"),
    switch("config.dump", "Whether the keys are printed, and no machine is started.").or("false"),
    key(
        "engine.*.arg.*",
        Kind::Text { max: 65_536 },
        "An option of another system that has no key, kept for when the keys are translated to it again.",
    )
    .no_effect("it is an option of another system"),
];
