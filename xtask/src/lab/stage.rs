//! What a scenario finds in `$LAB`, and the variables that name it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Options;
use super::scenario::{Need, Scenario};
use crate::cpio::Archive;
use crate::{command, guest};

/// The files of one run, by their path under `$LAB`.
pub(super) struct Stage {
    files: Vec<(String, PathBuf)>,
    /// The root file system's image, if the scenario needs it: too large to be a file here.
    pub rootfs: Option<PathBuf>,
}

impl Stage {
    /// Collects what `scenario` needs, making what is not there yet.
    pub(super) fn new(scenario: &Scenario, parador: PathBuf) -> Result<Stage> {
        let mut files = vec![
            ("scenario.sh".to_owned(), scenario.script.clone()),
            ("lib.sh".to_owned(), command::root().join("tests/lib/host.sh")),
            ("guest.sh".to_owned(), command::root().join("tests/lib/guest.sh")),
            ("bin/parador".to_owned(), parador),
        ];
        for file in &scenario.files {
            let name = file.file_name().context("a file has a name")?.to_string_lossy().into_owned();
            files.push((name, file.clone()));
        }
        let mut rootfs = None;
        for need in &scenario.needs {
            match need {
                Need::BzImage => files.push(("bzImage".to_owned(), guest::kernel()?.bzimage)),
                Need::Vmlinux => files.push(("vmlinux".to_owned(), guest::kernel()?.vmlinux)),
                Need::Initramfs => files.push(("initramfs.cpio".to_owned(), guest::initramfs()?)),
                Need::Rootfs => rootfs = Some(guest::rootfs()?),
                Need::Poweroff => files.push(("poweroff.cpio".to_owned(), guest::poweroff()?)),
                Need::Qemu => {
                    files.extend(runnable("qemu", Path::new(QEMU))?);
                    files.extend(inside("qemu", FIRMWARE.iter().map(PathBuf::from))?);
                }
                Need::StorageDaemon => files.extend(runnable("daemon", &guest::former_storage_daemon()?)?),
                Need::Judge => files.push(("bin/judge".to_owned(), super::build_judge()?)),
            }
        }
        Ok(Stage { files, rootfs })
    }

    /// The stage as an archive whose files lie under `/lab`, with `environment` beside them.
    pub(super) fn pack<W: Write>(&self, out: W, options: Options) -> Result<W> {
        let mut archive = Archive::new(out);
        archive.folder("lab")?;
        archive.folder("lab/bin")?;
        archive.folder("lab/qemu")?;
        archive.folder("lab/daemon")?;
        for (name, source) in &self.files {
            archive.copy(&format!("lab/{name}"), source)?;
        }
        let rootfs = self.rootfs.is_some().then_some("/dev/vda");
        archive.file(
            "lab/environment",
            0o644,
            environment("/lab", "/scratch", rootfs, options).as_bytes(),
        )?;
        archive.finish()
    }

    /// The stage as links in the folder `lab`, for a run on this machine itself. `work` is where the
    /// scenario may write.
    pub(super) fn link(&self, lab: &Path, work: &Path, options: Options) -> Result<()> {
        fs::create_dir_all(lab.join("bin"))?;
        fs::create_dir_all(lab.join("qemu"))?;
        fs::create_dir_all(lab.join("daemon"))?;
        fs::create_dir_all(work)?;
        for (name, source) in &self.files {
            symlink(source, lab.join(name))?;
        }
        // The same small userland as in the outer machine, so that a scenario means one thing.
        let busybox = guest::busybox()?;
        for applet in command::output_text(std::process::Command::new(&busybox).arg("--list"))?.lines() {
            symlink(&busybox, lab.join("bin").join(applet))?;
        }
        let rootfs = match &self.rootfs {
            Some(image) => {
                let copy = work.join("root.ext4");
                command::run_quiet(
                    std::process::Command::new("cp")
                        .args(["--sparse=always", "--reflink=auto"])
                        .arg(image)
                        .arg(&copy),
                )?;
                Some(copy.display().to_string())
            }
            None => None,
        };
        let text =
            environment(&lab.display().to_string(), &work.display().to_string(), rootfs.as_deref(), options);
        Ok(fs::write(lab.join("environment"), text)?)
    }
}

const QEMU: &str = "/usr/bin/qemu-system-x86_64";
const FIRMWARE: &[&str] = &[
    "/usr/share/seabios/bios-microvm.bin",
    "/usr/share/seabios/bios-256k.bin",
    "/usr/share/qemu/linuxboot_dma.bin",
    "/usr/share/qemu/pvh.bin",
    "/usr/share/qemu/kvmvapic.bin",
];

/// A program with the libraries of this machine that it needs, all in `folder`.
fn runnable(folder: &str, program: &Path) -> Result<Vec<(String, PathBuf)>> {
    // ldd prints `name => path (address)`, and the loader without an arrow.
    let libraries = command::output_text(std::process::Command::new("ldd").arg(program))?;
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    inside(folder, libraries.chain([program.to_owned()]))
}

/// `paths` as files in `folder`.
fn inside(folder: &str, paths: impl Iterator<Item = PathBuf>) -> Result<Vec<(String, PathBuf)>> {
    paths
        .map(|path| {
            let name = path.file_name().context("a file has a name")?.to_string_lossy().into_owned();
            Ok((format!("{folder}/{name}"), path.canonicalize()?))
        })
        .collect()
}

/// The variables every scenario has.
fn environment(lab: &str, work: &str, rootfs: Option<&str>, options: Options) -> String {
    let rootfs = rootfs.unwrap_or_default();
    let interactive = if options.interactive { "1" } else { "" };
    let long = if options.long { "1" } else { "" };
    format!(
        "export LAB='{lab}' WORK='{work}' PATH='{lab}/bin':\"$PATH\"\n\
         export PARADOR='{lab}/bin/parador' BZIMAGE='{lab}/bzImage' VMLINUX='{lab}/vmlinux'\n\
         export POWEROFF='{lab}/poweroff.cpio' JUDGE='{lab}/bin/judge' QEMU_DATA='{lab}/qemu'\n\
         export QEMU='{lab}/qemu/ld-linux-x86-64.so.2 --library-path {lab}/qemu {lab}/qemu/qemu-system-x86_64'\n\
         export STORAGE_DAEMON='{lab}/daemon/ld-linux-x86-64.so.2 --library-path {lab}/daemon {lab}/daemon/qemu-storage-daemon'\n\
         export INITRAMFS='{lab}/initramfs.cpio' ROOTFS='{rootfs}' LAB_INTERACTIVE='{interactive}' LONG='{long}'\n"
    )
}
