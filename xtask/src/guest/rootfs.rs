//! A real Debian root file system: systemd, root logged in on the serial console.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::apt::{Apt, STABLE};
use super::kernel::{Kernel, kernel};
use crate::{cache, command};

const PACKAGES: &str = "systemd-sysv,udev,dbus,kmod,iproute2,iputils-ping,procps,pciutils,fio,socat,\
    virtiofsd,qemu-utils,btrfs-progs,zonefs-tools,dm-zoned-tools,dmsetup,e2fsprogs";

/// What is left out: nobody reads manuals in a test guest.
const WITHOUT: &[&str] =
    &["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"];

/// The size of the file system; the image file is sparse.
const SIZE: &str = "1536M";

/// What is written over Debian's own files.
const FILES: &[(&str, &str)] = &[
    ("etc/hostname", "debian\n"),
    ("etc/hosts", "127.0.0.1 localhost debian\n"),
    ("etc/fstab", "LABEL=debian / ext4 defaults 0 0\n"),
    ("etc/securetty", ""),
    ("etc/motd", ""),
    // Not a first boot, and nothing to rebuild: what systemd does then takes long in a nested guest.
    ("etc/machine-id", ""),
    ("etc/.updated", ""),
    ("var/.updated", ""),
    ("etc/systemd/system/serial-getty@.service.d/autologin.conf", AUTOLOGIN),
    ("etc/systemd/system/guest-script.service", SCRIPT_SERVICE),
    ("etc/systemd/network/80-wired.network", NETWORK),
];

const AUTOLOGIN: &str = "[Service]\nExecStart=\n\
    ExecStart=-/sbin/agetty --autologin root --keep-baud 115200,57600,38400,9600 - $TERM\n";

/// Runs what the initramfs left in /run/guest, once everything else is up.
const SCRIPT_SERVICE: &str = "[Unit]\nDescription=The script this guest was started with\n\
    ConditionPathExists=/run/guest/script\nAfter=multi-user.target\n\n\
    [Service]\nType=exec\nExecStart=/bin/sh /run/guest/script\n\
    StandardOutput=file:/dev/console\nStandardError=file:/dev/console\n\n\
    [Install]\nWantedBy=multi-user.target\n";

const NETWORK: &str = "[Match]\nType=ether\n\n[Network]\nDHCP=yes\n";

const LINKS: &[(&str, &str)] = &[
    ("etc/systemd/system/apt-daily.timer", "/dev/null"),
    ("etc/systemd/system/apt-daily-upgrade.timer", "/dev/null"),
    ("etc/systemd/system/dpkg-db-backup.timer", "/dev/null"),
    (
        "etc/systemd/system/multi-user.target.wants/guest-script.service",
        "/etc/systemd/system/guest-script.service",
    ),
    (
        "etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
        "/usr/lib/systemd/system/systemd-networkd.service",
    ),
];

/// The ext4 image, made on the first call. It is shared: write to a copy or a snapshot.
pub fn rootfs() -> Result<PathBuf> {
    let kernel = kernel()?;
    let mut recipe = vec![STABLE, PACKAGES, SIZE, &kernel.version];
    for (path, text) in FILES.iter().chain(LINKS) {
        recipe.extend([path, text]);
    }
    let dir = cache::entry("rootfs", &recipe, |dir| build(dir, &kernel))?;
    Ok(dir.join("root.ext4"))
}

fn build(dir: &Path, kernel: &Kernel) -> Result<()> {
    if !command::is_root() {
        bail!("making the Debian root file system needs root\nhint: run `cargo xtask guest` once as root");
    }
    eprintln!("guest: making a Debian {STABLE} root file system");
    let tree = dir.join("tree");
    let mut make = command::program("mmdebstrap");
    make.args(["--variant=minbase", "--mode=root", "--include", PACKAGES]);
    // The cache may lie where apt's own user cannot go.
    make.args(["--aptopt", "APT::Sandbox::User \"root\"", "--aptopt", "Acquire::Retries \"3\""]);
    for path in WITHOUT {
        make.arg("--dpkgopt").arg(format!("path-exclude={path}"));
    }
    make.arg(STABLE).arg(&tree).arg(Apt::for_guests()?.source(STABLE));
    command::run_quiet(&mut make)?;

    for (path, text) in FILES {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().context("a path with a folder")?)?;
        fs::write(path, text)?;
    }
    for (path, target) in LINKS {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().context("a path with a folder")?)?;
        let _ = fs::remove_file(&path);
        symlink(target, path)?;
    }
    let modules = Path::new("lib/modules").join(&kernel.version);
    fs::create_dir_all(tree.join("usr/lib/modules"))?;
    command::run_quiet(
        command::program("cp")
            .args(["--archive", "--no-target-directory"])
            .arg(kernel.tree.join(&modules))
            .arg(tree.join("usr").join(&modules)),
    )?;
    // An empty password: it is a guest for tests.
    let shadow = fs::read_to_string(tree.join("etc/shadow"))?;
    fs::write(tree.join("etc/shadow"), shadow.replace("root:*:", "root::"))?;

    let image = dir.join("root.ext4");
    command::run_quiet(
        command::program("mkfs.ext4").args(["-q", "-L", "debian", "-d"]).arg(&tree).arg(&image).arg(SIZE),
    )?;
    cache::remove(&tree)
}
