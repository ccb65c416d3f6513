//! Initramfs archives of busybox, kernel modules and an `/init`.

use std::collections::BTreeSet;
use std::fs;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::apt::{Apt, STABLE};
use super::kernel::{Kernel, kernel};
use crate::cpio::Archive;
use crate::{cache, command};

/// What a guest may need that the cloud kernel does not have built in.
const GUEST_MODULES: &[&str] = &[
    "virtio_blk",
    "virtio_net",
    "virtio_balloon",
    "virtio-rng",
    "vmw_vsock_virtio_transport",
    "pvpanic-mmio",
    "zonefs",
    "vfat",
    "nls_ascii",
    "nls_cp437",
];

const GUEST_INIT: &str = include_str!("init.sh");

/// The guests' initramfs, uncompressed (a nested guest unpacks nothing quickly). Another archive
/// with a `/script` may be appended to it: see `init.sh`.
pub fn initramfs() -> Result<PathBuf> {
    archive("initramfs", GUEST_MODULES, GUEST_INIT)
}

/// The smallest Linux there is: its init is one system call, which switches it off. Whoever measures
/// a machine with it measures no userspace.
pub fn poweroff() -> Result<PathBuf> {
    let init = poweroff_init();
    let dir = cache::entry("poweroff", &["2"], |dir| {
        let mut archive = Archive::new(fs::File::create(dir.join("initramfs.cpio"))?);
        archive.folder("dev")?;
        archive.character_device("dev/console", 5, 1)?;
        archive.file("init", 0o755, &init)?;
        archive.finish().map(drop)
    })?;
    Ok(dir.join("initramfs.cpio"))
}

/// An ELF file of one segment: `reboot(LINUX_REBOOT_CMD_POWER_OFF)`.
fn poweroff_init() -> Vec<u8> {
    const CODE: &[u8] = &[
        0xb8, 169, 0, 0, 0, // mov eax, 169 (reboot)
        0xbf, 0xad, 0xde, 0xe1, 0xfe, // mov edi, 0xfee1dead
        0xbe, 0x69, 0x19, 0x12, 0x28, // mov esi, 0x28121969
        0xba, 0xdc, 0xfe, 0x21, 0x43, // mov edx, 0x4321fedc
        0x0f, 0x05, // syscall
        0xeb, 0xfe, // here: jmp here
    ];
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]); // executable, x86-64
    elf.extend((BASE + HEADERS).to_le_bytes()); // entry
    elf.extend(64_u64.to_le_bytes()); // program headers
    elf.extend([0; 12]); // section headers, flags
    elf.extend([64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]); // load, read and execute
    let size = HEADERS + CODE.len() as u64;
    for word in [0, BASE, BASE, size, size, 4096] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(CODE);
    elf
}

/// Debian's statically linked busybox.
pub fn busybox() -> Result<PathBuf> {
    let dir = cache::entry("busybox", &[STABLE], |dir| {
        eprintln!("guest: fetching busybox-static");
        Apt::for_guests()?.unpack(&format!("busybox-static/{STABLE}"), dir)
    })?;
    let found = ["usr/bin/busybox", "bin/busybox"].map(|path| dir.join(path));
    found.into_iter().find(|path| path.exists()).context("busybox-static has no busybox")
}

/// An archive called `name` with busybox, `modules` with what they depend on, and `init`.
pub fn archive(name: &str, modules: &[&str], init: &str) -> Result<PathBuf> {
    let kernel = kernel()?;
    let busybox = busybox()?;
    let recipe = [&kernel.version, &modules.join(" "), init, "1"];
    let dir = cache::entry(name, &recipe, |dir| {
        let tree = dir.join("tree");
        copy_modules(&kernel, modules, &tree)?;
        let out = fs::File::create(dir.join("initramfs.cpio"))?;
        let mut archive = Archive::new(BufWriter::new(out));
        for folder in ["bin", "dev"] {
            archive.folder(folder)?;
        }
        // Without it the kernel starts init with no standard input and output.
        archive.character_device("dev/console", 5, 1)?;
        archive.copy("bin/busybox", &busybox)?;
        archive.copy("lib", &tree.join("lib"))?;
        archive.file("init", 0o755, init.as_bytes())?;
        archive.finish()?;
        cache::remove(&tree)
    })?;
    Ok(dir.join("initramfs.cpio"))
}

/// Copies `modules` and what they depend on to `tree`, unpacked and indexed.
fn copy_modules(kernel: &Kernel, modules: &[&str], tree: &Path) -> Result<()> {
    let folder = Path::new("lib/modules").join(&kernel.version);
    let (from, to) = (kernel.tree.join(&folder), tree.join(&folder));
    let index = fs::read_to_string(from.join("modules.dep"))?;
    fs::create_dir_all(&to)?;
    for path in closure(&index, modules)? {
        let target = to.join(path.trim_end_matches(".xz"));
        fs::create_dir_all(target.parent().context("a module lies in a folder")?)?;
        let source = from.join(&path);
        if path.ends_with(".xz") {
            fs::write(&target, command::output(command::program("xz").arg("-dc").arg(source))?)?;
        } else {
            fs::copy(source, &target)?;
        }
    }
    for name in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        fs::copy(from.join(name), to.join(name))?;
    }
    command::run_quiet(command::program("depmod").arg("--basedir").arg(tree).arg(&kernel.version))
}

/// The paths of `modules` and of everything they depend on, from the text of `modules.dep`.
fn closure(index: &str, modules: &[&str]) -> Result<BTreeSet<String>> {
    let mut paths = BTreeSet::new();
    for module in modules {
        let line = index.lines().find(|line| {
            let name = line.split(".ko").next().and_then(|path| path.rsplit('/').next());
            name.is_some_and(|name| name.replace('-', "_") == module.replace('-', "_"))
        });
        let line = line.with_context(|| format!("the kernel has no module {module}"))?;
        // modules.dep lists what is depended on in full, so one step is enough.
        paths.extend(line.split([':', ' ']).filter(|path| !path.is_empty()).map(str::to_owned));
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_brings_what_it_depends_on() {
        let index = "kernel/a/virtio-rng.ko.xz: kernel/b/rng-core.ko.xz\nkernel/b/rng-core.ko.xz:\n\
                     kernel/c/other.ko.xz:\n";
        let paths = closure(index, &["virtio_rng"]).unwrap();
        assert_eq!(
            paths.into_iter().collect::<Vec<_>>(),
            ["kernel/a/virtio-rng.ko.xz", "kernel/b/rng-core.ko.xz"]
        );
        assert!(closure(index, &["rng"]).is_err());
    }
}
