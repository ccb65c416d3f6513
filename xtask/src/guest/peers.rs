//! What the tests hold ours against and no machine has installed.

use std::path::PathBuf;

use anyhow::Result;

use super::apt::{Apt, FORMER};
use super::tools::{Need, ensure};
use crate::cache;

/// What these recipes make; a change makes it again.
const SCHEMA: &str = "libvirt-common of the stable release, 1";
const NBDKIT: &str = "nbdkit, libblkio1 and libc6 of the stable release, 1";
const LINUX: &str = "user-mode-linux of the release before, 1";
const DAEMON: &str = "qemu-system-common of the release before, 1";

/// The RELAX NG schema of libvirt's `<domain>`, fetched on the first call; xmllint reads it.
pub fn domain_schema() -> Result<PathBuf> {
    ensure(&[Need::Test])?;
    let dir =
        cache::entry("libvirt-schema", &[SCHEMA], |dir| Apt::for_guests()?.unpack("libvirt-common", dir))?;
    Ok(dir.join("usr/share/libvirt/schemas/domain.rng"))
}

/// The qemu-storage-daemon of the release before the stable one, QEMU 7.2. It runs where a newer QEMU
/// is installed.
pub fn former_storage_daemon() -> Result<PathBuf> {
    ensure(&[Need::Lab])?;
    let dir = cache::entry("storage-daemon", &[DAEMON], |dir| {
        Apt::for_suite(FORMER)?.unpack("qemu-system-common", dir)
    })?;
    Ok(dir.join("usr/bin/qemu-storage-daemon"))
}

/// Debian's Linux in user mode, of the release before the stable one: `usr/bin/linux.uml` and its modules.
pub fn user_mode_linux() -> Result<PathBuf> {
    cache::entry("user-mode-linux", &[LINUX], |dir| Apt::for_suite(FORMER)?.unpack("user-mode-linux", dir))
}

/// nbdkit with its blkio plugin, and the C library it wants: `usr/bin/nbdkit` and `usr/lib`.
pub fn nbdkit() -> Result<PathBuf> {
    cache::entry("nbdkit", &[NBDKIT], |dir| {
        let apt = Apt::for_guests()?;
        ["nbdkit", "libblkio1", "libc6"].iter().try_for_each(|package| apt.unpack(package, dir))
    })
}
