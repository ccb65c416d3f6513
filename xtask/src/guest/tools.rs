//! The programs of the system that the chores call, installed when they are missing.

use std::process::Command;

use anyhow::{Result, bail};

use super::apt::{Apt, codename};
use crate::command;

/// What a chore is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Run the tests.
    Test,
    /// Make kernels, archives and file systems.
    Guest,
    /// Run QEMU: the outer machine, and what is exported for it.
    Lab,
    /// Build fuzz targets.
    Fuzz,
}

/// The oldest QEMU whose emulated SVM can be trusted: 7.2 corrupted about one nested boot in nine.
const QEMU_MAJOR: u32 = 10;

const GUEST_TOOLS: &[(&str, &str)] = &[
    ("zstd", "zstd"),
    ("xz", "xz-utils"),
    ("depmod", "kmod"),
    ("mmdebstrap", "mmdebstrap"),
    ("mkfs.ext4", "e2fsprogs"),
    ("dpkg-deb", "dpkg"),
];

const TEST_TOOLS: &[(&str, &str)] = &[("groff", "groff-base"), ("xmllint", "libxml2-utils")];

/// Installs what `needs` asks for and the machine has not; as a user, says what to install.
pub fn ensure(needs: &[Need]) -> Result<()> {
    let mut packages = Vec::new();
    for (need, tools) in [(Need::Test, TEST_TOOLS), (Need::Guest, GUEST_TOOLS)] {
        let missing = tools.iter().filter(|(program, _)| needs.contains(&need) && !command::exists(program));
        packages.extend(missing.map(|(_, package)| *package));
    }
    // libFuzzer is C++.
    if needs.contains(&Need::Fuzz) && !command::exists("c++") {
        packages.push("g++");
    }
    install(&packages, None)?;
    if needs.contains(&Need::Lab) && qemu_major().is_none_or(|major| major < QEMU_MAJOR) {
        // The release before the current one has it in its backports.
        let backports = (codename()? == "bookworm").then_some("bookworm-backports");
        install(&["qemu-system-x86"], backports)?;
        if qemu_major().is_none_or(|major| major < QEMU_MAJOR) {
            bail!("the lab needs QEMU {QEMU_MAJOR} or newer, and this machine's archive has none");
        }
    }
    Ok(())
}

fn install(packages: &[&str], suite: Option<&str>) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    if !command::is_root() {
        let target = suite.map(|suite| format!(" -t {suite}")).unwrap_or_default();
        bail!(
            "missing on this machine: {names}\n\
             hint: as root, `apt-get install --no-install-recommends{target} {names}`"
        );
    }
    eprintln!("installing {names}");
    Apt::for_host(suite)?.install(packages, suite)
}

/// The major version of the system's QEMU, if it has one.
fn qemu_major() -> Option<u32> {
    let text = command::output_text(Command::new("qemu-system-x86_64").arg("--version")).ok()?;
    let version = text.split_whitespace().skip_while(|word| *word != "version").nth(1)?;
    version.split('.').next()?.parse().ok()
}
