//! A QEMU whose guest runs a script and talks over its serial port.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use xtask::cpio::Archive;
use xtask::{command, guest};

use crate::bench::{Bench, child, until};
use crate::qmp::Qmp;

/// What a guest has of memory; back-ends map it.
const MEMORY: &str = "memory-backend-memfd,id=memory,size=256M,share=on";
/// What costs an emulated guest seconds and shows nothing is left out, and its timers are those that
/// come again when the emulator loses one.
const CMDLINE: &str = "console=ttyS0 panic=-1 quiet mitigations=off nokaslr cryptomgr.notests=1 \
                       random.trust_cpu=on no_timer_check nohz=off highres=off";

/// A guest that is not started yet.
pub(crate) struct Setup {
    name: String,
    script: String,
    words: Vec<OsString>,
}

impl Setup {
    /// A guest that runs `script` after `lib/guest.sh`, with the disk `debian` its programs are on.
    pub(crate) fn new(name: &str, script: &str) -> Self {
        Self { name: name.to_owned(), script: script.to_owned(), words: Vec::new() }
    }

    /// With more words for QEMU.
    pub(crate) fn with(mut self, words: &[&str]) -> Self {
        self.words.extend(words.iter().map(OsString::from));
        self
    }

    /// With words in which `END` is a character device connected to the back-end at `socket`.
    pub(crate) fn device(self, socket: &Path, words: &[&str]) -> Self {
        self.end(socket, "", words)
    }

    /// As [`Setup::device`], for one that may go: QEMU connects again until it is back. Not every
    /// device of QEMU can that.
    pub(crate) fn lasting_device(self, socket: &Path, words: &[&str]) -> Self {
        self.end(socket, ",reconnect-ms=10", words)
    }

    fn end(self, socket: &Path, how: &str, words: &[&str]) -> Self {
        let end = format!("end{}", self.words.len());
        let socket = format!("socket,id={end},path={}{how}", socket.display());
        let words: Vec<_> = words.iter().map(|word| word.replace("END", &end)).collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        self.with(&["-chardev", &socket]).with(&words)
    }

    /// That waits for another one to migrate here: see [`Guest::migrate`].
    pub(crate) fn incoming(self) -> Self {
        self.with(&["-incoming", "defer"])
    }

    /// Starts it.
    pub(crate) fn start(&self, bench: &Bench) -> Result<Guest> {
        let initrd = bench.path(&format!("{}.initrd", self.name));
        let prelude = fs::read_to_string(command::root().join("tests/lib/guest.sh"))?;
        let script = format!("{prelude}\n{}", self.script);
        fs::copy(guest::initramfs()?, &initrd)?;
        let mut archive = Archive::new(File::options().append(true).open(&initrd)?);
        archive.file("script", 0o644, script.as_bytes())?;
        archive.finish()?;

        let (socket, log) =
            (bench.path(&format!("{}.qmp", self.name)), bench.path(&format!("{}.log", self.name)));
        let debian = format!(
            "if=none,id=debian,format=raw,readonly=on,file.locking=off,file={}",
            guest::rootfs()?.display()
        );
        let mut qemu = child(&["qemu-system-x86_64".into()], &log)?;
        qemu.args(["-no-user-config", "-nodefaults", "-display", "none", "-accel", "tcg", "-cpu", "Nehalem"])
            .args([
                "-m",
                "256M",
                "-object",
                MEMORY,
                "-machine",
                "q35,memory-backend=memory",
                "-serial",
                "stdio",
            ])
            .args(["-append", CMDLINE, "-kernel"])
            .arg(guest::kernel()?.vmlinux)
            .arg("-initrd")
            .arg(&initrd)
            .args(["-qmp", &format!("unix:{},server=on,wait=off", socket.display())])
            .args(["-drive", &debian, "-device", "virtio-blk-pci,drive=debian,serial=debian"])
            .args(&self.words);
        let mut child = qemu.stdin(Stdio::piped()).spawn().context("cannot start setpriv")?;
        let input = child.stdin.take().context("it was asked for")?;
        // From here on whatever fails ends QEMU.
        let mut guest = Guest { child, input, qmp: None, log, seen: 0 };
        let stream = until("QEMU", || {
            guest.runs()?;
            Ok(UnixStream::connect(&socket).ok())
        })?;
        guest.qmp = Some(Qmp::new(stream)?);
        Ok(guest)
    }
}

/// A running guest.
pub(crate) struct Guest {
    child: Child,
    input: ChildStdin,
    qmp: Option<Qmp>,
    log: PathBuf,
    /// How much of the log was looked at, in bytes.
    seen: usize,
}

impl Guest {
    /// The QEMU's process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that the guest, and QEMU, said.
    pub(crate) fn said(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    /// Waits until the guest says a line that begins with `line`, after those that were waited for.
    pub(crate) fn says(&mut self, line: &str) -> Result<()> {
        until(&format!("`{line}` of the guest"), || {
            let ended = self.child.try_wait()?;
            if self.said_now(line)? {
                return Ok(Some(()));
            }
            ended.map_or(Ok(None), |status| bail!("QEMU ended with {status}"))
        })
    }

    /// Whether the guest said a line that begins with `line`, after those that were waited for.
    pub(crate) fn said_now(&mut self, line: &str) -> Result<bool> {
        let text = fs::read(&self.log)?;
        let mut at = self.seen;
        for found in text[self.seen..].split_inclusive(|byte| *byte == b'\n') {
            at += found.len();
            let found = String::from_utf8_lossy(found);
            if found.starts_with(line) && found.ends_with('\n') {
                self.seen = at;
                return Ok(true);
            }
            if ["FAILED", "Kernel panic", "guest: exit 1"].iter().any(|wrong| found.contains(wrong)) {
                bail!("the guest said: {}", found.trim_end());
            }
        }
        Ok(false)
    }

    /// Types a line at the guest's console.
    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        writeln!(self.input, "{line}").context("QEMU takes no input")
    }

    /// What a command of QMP returns.
    pub(crate) fn ask(&mut self, command: &str) -> Result<Value> {
        self.ask_with(command, &json!({}))
    }

    /// What a command of QMP returns.
    pub(crate) fn ask_with(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        self.qmp.as_mut().context("QEMU does not answer yet")?.ask(command, arguments)
    }

    /// Moves the running guest to `other`, which was made as this one was.
    pub(crate) fn migrate(mut self, other: &mut Self) -> Result<()> {
        let uri = json!({ "uri": format!("unix:{}", other.log.with_extension("migration").display()) });
        other.ask_with("migrate-incoming", &uri)?;
        self.ask_with(
            "migrate-set-parameters",
            &json!({ "max-bandwidth": 100 << 20, "downtime-limit": 1000 }),
        )?;
        self.ask_with("migrate", &uri)?;
        until("the migration", || {
            let state = self.ask("query-migrate")?;
            match state["status"].as_str() {
                Some("completed") => Ok(Some(())),
                Some("failed" | "cancelled") => bail!("the migration failed: {state}"),
                _ => Ok(None),
            }
        })?;
        until("the guest at its new place", || {
            Ok((other.ask("query-status")?["status"] == "running").then_some(()))
        })
    }

    /// Waits for the end of the script, which must be a success, and of QEMU, as well; returns all
    /// that was said.
    pub(crate) fn finish(mut self) -> Result<String> {
        self.says("guest: exit 0")?;
        let status = until("QEMU's end", || Ok(self.child.try_wait()?))?;
        ensure!(status.success(), "QEMU ended with {status}");
        self.said()
    }

    fn runs(&mut self) -> Result<()> {
        let status = self.child.try_wait()?;
        status.map_or(Ok(()), |status| bail!("QEMU ended with {status}"))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
