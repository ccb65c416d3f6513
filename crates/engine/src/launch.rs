//! From a plan to a machine at work.

use std::error::Error;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use parador_block::Image;
use parador_config::{Checked, Diagnostic, Endpoint};
use parador_devices::console::{Resizer, Size};
use parador_machine::platform::x86_64::BootError;
use parador_machine::{
    Boot, BootFile, HugePage, Machine, MemoryShape, NumaNode, OnPanic, OnReset, Outcome, RunningMachine,
    SerialLine, Shape, Topology, hardware_virtualization,
};

use crate::attach::{Attached, attach};
use crate::console;
use crate::inherited;
use crate::plan::{Backing, HostFile, Plan, Processors};

/// What consoles on `stdio` are connected to.
#[derive(Debug)]
pub struct Stdio {
    /// What is typed.
    pub input: Option<OwnedFd>,
    /// What is shown; without it there is no such console.
    pub output: Option<OwnedFd>,
    /// Size of the terminal, in columns and rows, where there is one.
    pub size: Option<(u16, u16)>,
}

/// A machine at work. Every method may be called from any thread.
pub struct Running {
    machine: RunningMachine,
    resizers: Vec<Resizer>,
    terminals: Vec<(String, PathBuf)>,
    images: Vec<Image>,
}

/// A kernel of more bytes is taken for an operating system's; payloads of tests are small.
const STOCK_KERNEL: u64 = 1 << 20;

/// Puts the machine together and starts it. `keys` are those that `plan` was made of.
///
/// # Errors
/// The host lacks what the machine needs; nothing is left running.
pub fn launch(plan: &Plan, keys: &Checked, mut stdio: Stdio) -> Result<Running, Diagnostic> {
    let boot = boot(plan, keys)?;
    let (serial, terminal) = serial(plan, keys, &mut stdio)?;
    let shape = shape(plan, keys, serial)?;
    let mut machine = Machine::new(shape).map_err(|e| machine_error(keys, &e))?;
    let Attached { resizers, mut terminals, images } = attach(&mut machine, plan, keys, &mut stdio)?;
    terminals.extend(terminal.map(|name| ("console".to_owned(), name)));
    machine.load(boot).map_err(|e| machine_error(keys, &e))?;
    let machine = machine.start().map_err(|e| machine_error(keys, &e))?;
    Ok(Running { machine, resizers, terminals, images })
}

impl Running {
    /// Presses the power button: a guest that listens shuts down.
    pub fn power_button(&self) {
        if let Err(e) = self.machine.power_button() {
            tracing::warn!("the power button does not work: {e}");
        }
    }

    /// Ends the machine as pulling the plug does.
    pub fn stop(&self) {
        self.machine.stop();
    }

    /// Tells consoles on `stdio` that their terminal has another size now.
    pub fn resize(&self, columns: u16, rows: u16) {
        for resizer in &self.resizers {
            resizer.resize(Size { cols: columns, rows });
        }
    }

    /// Pseudo-terminals that were made: the key that asked for each, and its name.
    #[must_use]
    pub fn terminals(&self) -> &[(String, PathBuf)] {
        &self.terminals
    }

    /// Waits until the machine has ended, and says how. Whoever asks again gets the same answer. The process
    /// is to end then, without taking anything down.
    #[must_use]
    pub fn wait(&self) -> Outcome {
        let outcome = self.machine.wait();
        for image in &self.images {
            if let Err(e) = image.close() {
                tracing::error!(
                    "disk image {}: its last writes may not be durable: {e}",
                    image.path().display()
                );
            }
        }
        self.machine.leave();
        outcome
    }
}

/// Opens what the guest starts with.
fn boot(plan: &Plan, keys: &Checked) -> Result<Boot, Diagnostic> {
    let kernel = open_boot_file(keys, "boot.kernel", &plan.boot.kernel)?;
    let initrd = match &plan.boot.initrd {
        Some(file) => Some(open_boot_file(keys, "boot.initrd", file)?),
        None => None,
    };
    let stock = kernel.file.metadata().is_ok_and(|file| file.len() > STOCK_KERNEL);
    if stock && !hardware_virtualization() {
        tracing::warn!(
            "the processor shows no virtualization extensions (vmx, svm): if this host's KVM is made of \
             software, {} will not get through its boot; run it on hardware, or ask whoever runs this \
             machine for nested virtualization",
            plan.boot.kernel.path.display()
        );
    }
    Ok(Boot { kernel, initrd, cmdline: plan.boot.cmdline.clone() })
}

/// Opens the kernel or the initial RAM disk, which `key` names.
pub(crate) fn open_boot_file(keys: &Checked, key: &str, file: &HostFile) -> Result<BootFile, Diagnostic> {
    let what = if key == "boot.kernel" { "kernel" } else { "initial RAM disk" };
    let HostFile { path, fd } = file;
    if let Some(fd) = fd {
        let file = inherited::take(keys, &format!("{key}_fd"), *fd)?.into();
        return Ok(BootFile { path: path.clone(), file });
    }
    BootFile::open(path).map_err(|e| {
        let hint = match e.kind() {
            std::io::ErrorKind::NotFound => {
                format!("`{key}` names a file of this host, relative to where this command was started")
            }
            std::io::ErrorKind::PermissionDenied => {
                "let this user read it; distributions often keep /boot for root".to_owned()
            }
            _ => format!("`{key}` names a regular file"),
        };
        keys.about(key, format!("cannot open the {what} {}", path.display())).cause(&e).hint(hint)
    })
}

/// The serial port's other end, and its name if it is a pseudo-terminal.
fn serial(
    plan: &Plan,
    keys: &Checked,
    stdio: &mut Stdio,
) -> Result<(Option<SerialLine>, Option<PathBuf>), Diagnostic> {
    console::serial(&plan.console, stdio).map_err(|e| {
        let hint = match &plan.console {
            Endpoint::File(path) | Endpoint::Unix(path) => {
                format!("can this user write to {path}, and is it nobody else's?")
            }
            Endpoint::None | Endpoint::Stdio | Endpoint::Pty => "`console=none` does without".to_owned(),
        };
        keys.about("console", "cannot connect the console").cause(&e).hint(hint)
    })
}

fn shape(plan: &Plan, keys: &Checked, serial: Option<SerialLine>) -> Result<Shape, Diagnostic> {
    let memory = MemoryShape {
        size: plan.memory.size,
        backing: match plan.memory.backing {
            Backing::Anonymous => parador_machine::Backing::Anonymous,
            Backing::Memfd => parador_machine::Backing::Memfd,
            Backing::Huge2M => parador_machine::Backing::Huge(HugePage::Size2M),
            Backing::Huge1G => parador_machine::Backing::Huge(HugePage::Size1G),
        },
        shared: plan.memory.shared,
        transparent_huge_pages: plan.memory.transparent_huge_pages,
        prefault: plan.memory.prefault,
        locked: plan.memory.wired,
    };
    let Processors { sockets, cores, threads } = plan.processors;
    let topology = Topology::new(sockets, cores, threads).map_err(|e| {
        let key = ["sockets", "cores", "threads"].into_iter().find(|key| keys.is_set(key)).unwrap_or("cpus");
        about(keys, key, &e, Some("give the guest fewer processors".to_owned()))
    })?;
    let kvm = plan.kvm.map(|fd| inherited::take(keys, "kvm.fd", fd)).transpose()?;
    let on_reset = if plan.reboot { OnReset::Restart } else { OnReset::Stop };
    let on_panic = if plan.stop_on_panic { OnPanic::Stop } else { OnPanic::Continue };
    let nodes = plan.domains.iter().map(|domain| NumaNode { memory: domain.size, cpus: domain.cpus.clone() });
    let affinity = plan.affinity.clone();
    Ok(Shape { kvm, topology, memory, nodes: nodes.collect(), affinity, serial, on_reset, on_panic })
}

pub(crate) fn machine_error(keys: &Checked, error: &parador_machine::Error) -> Diagnostic {
    use parador_machine::{Error as Machine, KvmError, MemoryError};
    let key = match error {
        Machine::Affinity { index, .. } => {
            let hint = Some("`nproc` counts those there are; they are numbered from 0".to_owned());
            return about(keys, &format!("vcpu.{index}.cpuset"), error, hint);
        }
        Machine::Kvm(KvmError::TooManyProcessors { .. }) => "cpus",
        Machine::Memory(MemoryError::NoHugePages { .. }) => "memory.backing",
        Machine::Memory(_) | Machine::Tables(_) => "memory.size",
        Machine::Boot(e) => boot_key(keys, e),
        Machine::Kvm(_)
        | Machine::Attach(_)
        | Machine::NothingToBoot
        | Machine::Ended
        | Machine::Host { .. } => "",
    };
    let hint = error.hint().or_else(|| match key {
        "memory.size" => Some("give the guest more memory, such as memory.size=256M".to_owned()),
        "boot.kernel" => {
            Some("a kernel is what distributions keep as /boot/vmlinuz, or an ELF vmlinux".to_owned())
        }
        _ => None,
    });
    about(keys, key, error, hint)
}

/// The key to blame when the guest's software cannot be loaded.
fn boot_key(keys: &Checked, error: &BootError) -> &'static str {
    match error {
        BootError::File { path, .. } | BootError::Read { path, .. } => {
            let initrd = keys.text("boot.initrd").is_some_and(|initrd| Path::new(&initrd) == path);
            if initrd { "boot.initrd" } else { "boot.kernel" }
        }
        BootError::CmdlineTooLong { .. } | BootError::CmdlineZero { .. } => "boot.cmdline",
        BootError::Memory(_) => "memory.size",
    }
}

/// A finding that says `error`, about `key` where it was set.
pub(crate) fn about(keys: &Checked, key: &str, error: &dyn Error, hint: Option<String>) -> Diagnostic {
    let mut diagnostic = keys.about(key, error.to_string());
    if let Some(source) = error.source() {
        diagnostic = diagnostic.cause(source);
    }
    match hint {
        Some(hint) => diagnostic.hint(hint),
        None => diagnostic,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use parador_config::{Source, Tree};
    use parador_machine::{Error, KvmError, MemoryError};

    use super::*;

    /// What is said about `error` when `text` was asked for.
    fn said(text: &str, error: impl Into<Error>) -> String {
        let file = Source::File { name: "web.conf", bytes: text.as_bytes() };
        let (tree, mut diagnostics) = Tree::from_sources(&[file]);
        let keys = tree.check(&mut diagnostics);
        machine_error(&keys, &error.into()).to_string()
    }

    #[test]
    fn a_host_without_kvm_is_told_what_to_do() {
        let absent = said("", KvmError::Absent);
        assert!(absent.starts_with("there is no /dev/kvm\nhint: "), "{absent}");
        let refused = said("", KvmError::NoPermission);
        assert!(refused.contains("/dev/kvm") && refused.contains("hint: "), "{refused}");
        let other = said("", KvmError::Open(io::Error::from_raw_os_error(libc::EMFILE)));
        assert!(other.ends_with("cause: Too many open files (os error 24)\n"), "{other}");
    }

    #[test]
    fn what_is_too_much_for_the_host_names_its_key() {
        let processors = said("cpus=200\n", KvmError::TooManyProcessors { asked: 200, limit: 64 });
        assert!(processors.contains("web.conf:1:6"), "{processors}");
        let memory =
            said("cpus=1\nmemory.size=1T\n", MemoryError::HostTooSmall { size: 1 << 40, host: 1 << 30 });
        assert!(memory.contains("web.conf:2:13") && memory.contains("hint: "), "{memory}");
        let source = io::Error::from_raw_os_error(libc::ENOMEM);
        let huge = said(
            "memory.backing=hugetlb\n",
            MemoryError::NoHugePages { pages: 128, page_size: 2 << 20, source },
        );
        assert!(huge.contains("web.conf:1:16") && huge.contains("nr_hugepages"), "{huge}");
    }

    #[test]
    fn a_processor_that_cannot_be_pinned_names_its_key() {
        let error = Error::Affinity { index: 1, source: io::ErrorKind::InvalidInput.into() };
        let text = said("cpus=2\nvcpu.1.cpuset=1000\n", error);
        assert!(text.contains("web.conf:2:15") && text.contains("nproc"), "{text}");
    }

    #[test]
    fn a_kernel_or_an_initrd_is_blamed_by_its_path() {
        let keys = "boot.kernel=k\nboot.initrd=i\n";
        let read =
            |path: &str| BootError::Read { path: path.into(), source: io::ErrorKind::UnexpectedEof.into() };
        assert!(said(keys, read("k")).contains("web.conf:1:13"));
        assert!(said(keys, read("i")).contains("web.conf:2:13"));
        let text = said(
            "boot.kernel=k\nboot.cmdline=quiet\n",
            BootError::CmdlineTooLong { length: 5000, max: 2047 },
        );
        assert!(text.contains("web.conf:2:14"), "{text}");
    }
}
