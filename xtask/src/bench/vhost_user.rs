//! A disk in a process of its own: 4 KiB random reads and writes over vhost-user, of our back-end and
//! of qemu-storage-daemon, beside plain io_uring on the same file, which knows no rings at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::example_file;
use crate::{command, lab};

const FILE_LEN: usize = 1 << 30;
/// Each figure is of so many pieces, one of each contender after the other.
const ROUNDS: usize = 3;
const PIECE_MS: u64 = 500;
/// A disk without requests is watched for so long.
const IDLE: Duration = Duration::from_secs(10);
/// In `/proc/PID/stat`, on every architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Starts the back-ends and prints their figures.
pub(super) fn vhost_user() -> Result<()> {
    if !command::exists("qemu-storage-daemon") {
        bail!("there is no qemu-storage-daemon to compare with\nhint: apt install qemu-system-common");
    }
    let parador = lab::build("release")?;
    let load = example_file("parador-vhost-user", "load")?;
    println!("4 KiB random, file of 1 GiB; IOPS, and seconds of processor time for a million requests");
    let on_disk = load.parent().context("an example is in a folder")?;
    for (place, folder) in [("in memory", Path::new("/dev/shm")), ("on disk", on_disk)] {
        let room = Room::new(folder)?;
        let contenders = [room.ours(&parador)?, room.theirs()?, room.plain()];
        let kinds = ["read", "write"];
        let shapes = [(1, 1), (32, 1), (128, 1), (1, 2), (32, 2), (128, 2)];
        for (kind, (depth, queues)) in kinds.iter().flat_map(|kind| shapes.map(|shape| (kind, shape))) {
            let [ours, theirs, plain] = measure(&load, &contenders, kind, depth, queues)?;
            println!(
                "  {place:9} {kind:5} depth {depth:3} x {queues}: {ours}; qemu-storage-daemon {theirs}: {:.1} times; \
                 io_uring {plain}: {:.2} times",
                ours.iops / theirs.iops,
                ours.iops / plain.iops,
            );
        }
        // Connected, with queues that have nothing to do.
        let guests = contenders.each_ref().map(|contender| contender.guest(&load));
        sleep(Duration::from_secs(1));
        let before = contenders.each_ref().map(Contender::processor_time);
        sleep(IDLE);
        let [ours, theirs, _] = contenders.each_ref().map(Contender::processor_time);
        for mut guest in guests.into_iter().flatten() {
            guest.kill()?;
            guest.wait()?;
        }
        let percent = |now: f64, before: f64| (now - before) / IDLE.as_secs_f64() * 100.0;
        println!(
            "  {place:9} idle: {:.1} % of a processor; qemu-storage-daemon {:.1} %",
            percent(ours, before[0]),
            percent(theirs, before[1]),
        );
    }
    Ok(())
}

/// What a contender did.
#[derive(Default)]
struct Figures {
    requests: f64,
    seconds: f64,
    processor: f64,
    iops: f64,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} ({:.2} s)", self.iops, self.processor / self.requests * 1e6)
    }
}

/// Somebody who does I/O on a file.
struct Contender {
    /// What the load goes to.
    target: Vec<String>,
    process: Option<Child>,
}

impl Contender {
    /// Seconds that its process has used so far; none, if the load does the work itself.
    fn processor_time(&self) -> f64 {
        let Some(process) = &self.process else { return 0.0 };
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap_or_default();
        // After the name, which may have anything in it: state, ten more, then user and system time.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
    }
}

impl Contender {
    /// Starts somebody who asks for little and then stays.
    fn guest(&self, load: &Path) -> Option<Child> {
        self.process.as_ref()?;
        let mut command = Command::new(load);
        command.args(&self.target).args(["read", "1", "2", "100", "60000"]);
        command.stdout(Stdio::null()).spawn().ok()
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Two files of the same contents, as no two may write to one, and the sockets beside them.
struct Room(PathBuf);

impl Room {
    fn new(folder: &Path) -> Result<Self> {
        let room = Self(folder.join(format!("parador-bench-{}", std::process::id())));
        fs::create_dir(&room.0)?;
        let chunk: Vec<u8> =
            (0..1 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for name in ["ours", "theirs"] {
            let mut file = File::create(room.0.join(name))?;
            (0..FILE_LEN).step_by(chunk.len()).try_for_each(|_| file.write_all(&chunk))?;
            file.sync_all()?;
        }
        Ok(room)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn ours(&self, parador: &Path) -> Result<Contender> {
        let path = format!("path={}", self.path("ours"));
        let mut command = Command::new(parador);
        command.args(["device", "blk", "-o", &path, "-o", "queues=2", "-o", "queue_size=512"]);
        command.args(["--socket-path", &self.path("ours.sock")]);
        self.start(command, "ours.sock")
    }

    fn theirs(&self) -> Result<Contender> {
        let mut command = command::program("qemu-storage-daemon");
        let file = format!("driver=file,node-name=disk,aio=io_uring,filename={}", self.path("theirs"));
        let export = format!(
            "vhost-user-blk,id=disk,node-name=disk,writable=on,num-queues=2,iothread=io,\
             addr.type=unix,addr.path={}",
            self.path("theirs.sock")
        );
        command.args(["--blockdev", &file, "--object", "iothread,id=io", "--export", &export]);
        self.start(command, "theirs.sock")
    }

    fn plain(&self) -> Contender {
        Contender { target: vec!["--file".into(), self.path("ours")], process: None }
    }

    /// Starts a back-end and waits for its socket.
    fn start(&self, mut command: Command, socket: &str) -> Result<Contender> {
        let process = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let contender = Contender { target: vec![self.path(socket)], process: Some(process) };
        for _ in 0..500 {
            if Path::new(&self.path(socket)).exists() {
                return Ok(contender);
            }
            sleep(Duration::from_millis(20));
        }
        bail!("{command:?} does not listen")
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Lets the contenders do the same, by turns.
fn measure(
    load: &Path,
    contenders: &[Contender; 3],
    kind: &str,
    depth: usize,
    queues: usize,
) -> Result<[Figures; 3]> {
    let mut figures = <[Figures; 3]>::default();
    for _ in 0..ROUNDS {
        for (contender, figures) in contenders.iter().zip(&mut figures) {
            let before = contender.processor_time();
            let mut command = Command::new(load);
            command.args(&contender.target).arg(kind);
            command.args([depth.to_string(), queues.to_string(), PIECE_MS.to_string()]);
            let output = command::output_text(&mut command)?;
            let field = |name: &str| {
                let value = output.split_whitespace().find_map(|word| word.strip_prefix(name));
                value
                    .and_then(|value| value.parse::<f64>().ok())
                    .with_context(|| format!("no {name} in {output}"))
            };
            figures.requests += field("requests=")?;
            figures.seconds += field("seconds=")?;
            figures.processor += match contender.process {
                Some(_) => contender.processor_time() - before,
                None => field("cpu=")?,
            };
        }
    }
    for figures in &mut figures {
        figures.iops = figures.requests / figures.seconds;
    }
    Ok(figures)
}
