//! The outer machine: QEMU's TCG emulating a processor that can run KVM.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::scenario::{Clock, Scenario};
use super::stage::Stage;
use super::{Options, Report};
use crate::guest;

/// What the outer machine's kernel loads to be one that runs scenarios.
const MODULES: &[&str] = &["kvm-amd", "tun", "virtio_blk", "loop", "bridge", "macvtap", "null_blk"];

/// SVM with nested paging, and a family that kvm-amd knows; less what TCG lacks of an EPYC, so that
/// it does not warn about each.
const CPU: &str = "EPYC,+svm,+npt,-fxsr-opt,-misalignsse,-osvw,-topoext,-nrip-save,-xsavec";

const INIT: &str = include_str!("outer-init.sh");

/// How often a scenario is started when the outer machine resets itself, or stands still, without a word.
/// A scenario is not a part of its kernel and cannot make it do that; TCG's SVM can, about once in twenty
/// runs on a busy host. A kernel that panics says so, and is a failure at once.
const ATTEMPTS: u32 = 3;

/// A machine in virtual time that says nothing for so long has a guest that stands still
/// (docs/decisions/0004): its clock does, too, so nothing in it can notice.
const STILL: Duration = Duration::from_secs(240);

/// What a kernel says in the end.
const PANIC: &str = "Kernel panic - not syncing";

/// How much of a log a failure shows.
const TAIL_LINES: usize = 60;

/// Runs `scenario` in an outer machine whose parts lie in `dir`.
pub(super) fn run(scenario: &Scenario, stage: &Stage, dir: &Path, options: Options) -> Result<Report> {
    let initrd = dir.join("initrd");
    // The kernel unpacks archives that follow each other one over the other.
    fs::copy(guest::archive("outer", MODULES, INIT)?, &initrd)?;
    let mut packed = File::options().append(true).open(&initrd)?;
    packed.write_all(&stage.pack(Vec::new(), options)?)?;
    drop(packed);

    let status = dir.join("status");
    // It ends with this process, however that ends.
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]);
    // One processor: with two, emulated SVM loses its way now and then (docs/decisions/0004).
    qemu.args(["-smp", "1"]);
    match scenario.clock {
        Clock::Wall => qemu.args(["-accel", "tcg"]),
        Clock::Virtual | Clock::VirtualTicks => {
            qemu.args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"])
        }
    };
    qemu.args(["-cpu", CPU]);
    qemu.args(["-machine", "q35", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    qemu.arg("-m").arg(scenario.memory_mib.to_string());
    qemu.arg("-kernel").arg(guest::kernel()?.bzimage).arg("-initrd").arg(&initrd);
    let loglevel = if options.verbose { "loglevel=7" } else { "quiet" };
    // A timer interrupt that is asked for once, and lost once (docs/decisions/0004), is a processor
    // that sleeps for ever; one that ticks comes again.
    let timer = if scenario.clock == Clock::Virtual { "" } else { "nohz=off highres=off" };
    // On a busy host the emulated processor may not run while the kernel checks that timers tick.
    qemu.arg("-append").arg(format!("console=ttyS0 panic=-1 no_timer_check {timer} {loglevel}"));
    // The scenario's own interrupt key must reach it.
    qemu.args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
    qemu.arg("-serial").arg(format!("file:{}", status.display()));
    if let Some(image) = &stage.rootfs {
        let drive = "if=none,id=root,format=raw,snapshot=on,cache=unsafe,file=";
        qemu.arg("-drive").arg(format!("{drive}{}", image.display()));
        qemu.args(["-device", "virtio-blk-pci,drive=root"]);
    }
    if !options.interactive {
        qemu.stdin(Stdio::null());
    }
    fs::write(dir.join("command"), format!("{qemu:?}\n"))?;

    let log = dir.join("console.log");
    let mut attempt = 1;
    loop {
        let (ended, output) = watch(&mut qemu, scenario, &log, options)?;
        let report = fs::read_to_string(&status).unwrap_or_default();
        let code = report.lines().find_map(|line| line.trim().strip_prefix("exit "));
        if let Some(code) = code {
            let status = code.parse().with_context(|| format!("a status of `{code}`"))?;
            return Ok(Report { status, output });
        }
        let died = format!("the outer machine of `{}` died before the scenario ended", scenario.name);
        if attempt == ATTEMPTS || output.contains(PANIC) || options.interactive {
            bail!("{died} (QEMU: {ended})\n{}", tail(&output));
        }
        eprintln!("lab: {died}, without a word: once more");
        attempt += 1;
    }
}

/// Runs `command` until it ends or the scenario's time is over, copying its output to `log` and,
/// as it comes, to the terminal.
pub(super) fn watch(
    command: &mut Command,
    scenario: &Scenario,
    log: &Path,
    options: Options,
) -> Result<(ExitStatus, String)> {
    let name = command.get_program().to_string_lossy().into_owned();
    if options.interactive {
        let status = command.status().with_context(|| format!("cannot start {name}"))?;
        return Ok((status, String::new()));
    }
    // In a process group of its own, so that what it leaves running ends with it.
    let child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).process_group(0).spawn();
    let mut child = Running(child.with_context(|| format!("cannot start {name}"))?);
    let mut pipe = child.0.stdout.take().context("no pipe")?;
    let (sender, output) = mpsc::channel::<Vec<u8>>();
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });

    let deadline = Instant::now() + scenario.timeout;
    let silence = if scenario.clock == Clock::Wall { scenario.timeout } else { STILL };
    let mut log = File::create(log)?;
    let mut text = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match output.recv_timeout(left.min(silence).max(Duration::from_millis(1))) {
            Ok(part) => {
                log.write_all(&part)?;
                if !options.quiet {
                    let mut terminal = std::io::stdout().lock();
                    terminal.write_all(&part)?;
                    terminal.flush()?;
                }
                text.extend(part);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) if Instant::now() < deadline => {
                child.end();
                break;
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                drop(child);
                let text = String::from_utf8_lossy(&text);
                bail!("`{}` was not over after {:?}\n{}", scenario.name, scenario.timeout, tail(&text));
            }
        }
    }
    let _ = reader.join();
    Ok((child.0.wait()?, String::from_utf8_lossy(&text).into_owned()))
}

/// A process group that ends with its owner.
struct Running(Child);

impl Running {
    fn end(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let group = format!("-{}", self.0.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            let _ = self.0.wait();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// The last lines of a log, for a failure.
pub(super) fn tail(text: &str) -> String {
    let lines = text.lines().collect::<Vec<_>>();
    let from = lines.len().saturating_sub(TAIL_LINES);
    let mut tail = String::from("--- the log ends with ---\n");
    for line in &lines[from..] {
        tail.push_str(line.trim_end());
        tail.push('\n');
    }
    tail
}
