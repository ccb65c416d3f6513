//! Disks in processes of their own, and the program that asks as much of them as they can do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::example_file;
use crate::command;

/// In `/proc/PID/stat`, on every architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// The program, built.
pub(super) struct Load(PathBuf);

impl Load {
    pub(super) fn build() -> Result<Self> {
        Ok(Self(example_file("parador-vhost-user", "load")?))
    }

    /// A folder that is on a disk.
    pub(super) fn folder(&self) -> Result<&Path> {
        self.0.parent().context("an example is in a folder")
    }

    /// Has `contender` do what `words` say.
    pub(super) fn run(&self, contender: &Contender, words: &[&str]) -> Result<Figures> {
        let before = contender.processor_time();
        let mut command = Command::new(&self.0);
        let output = command::output_text(command.args(&contender.target).args(words))?;
        let field = |name: &str| {
            let value = output.split_whitespace().find_map(|word| word.strip_prefix(name));
            value
                .and_then(|value| value.parse::<f64>().ok())
                .with_context(|| format!("no {name} in {output}"))
        };
        let processor = match contender.process {
            Some(_) => contender.processor_time() - before,
            None => field("cpu=")?,
        };
        Ok(Figures::new(field("requests=")?, field("seconds=")?, processor))
    }

    /// Starts somebody who asks for little and then stays.
    pub(super) fn guest(&self, contender: &Contender) -> Option<Child> {
        contender.process.as_ref()?;
        let mut command = Command::new(&self.0);
        command.args(&contender.target).args(["read", "1", "2", "100", "rest=60000"]);
        command.stdout(Stdio::null()).spawn().ok()
    }
}

/// What a contender did.
#[derive(Default)]
pub(super) struct Figures {
    requests: f64,
    seconds: f64,
    processor: f64,
}

impl Figures {
    pub(super) fn new(requests: f64, seconds: f64, processor: f64) -> Self {
        Self { requests, seconds, processor }
    }

    pub(super) fn iops(&self) -> f64 {
        self.requests / self.seconds
    }
}

impl std::ops::AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.seconds += other.seconds;
        self.processor += other.processor;
    }
}

/// Requests a second, and seconds of processor time for a million of them.
impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} ({:.2} s)", self.iops(), self.processor / self.requests * 1e6)
    }
}

/// Somebody who does I/O on a file.
pub(super) struct Contender {
    /// What the load goes to.
    target: Vec<String>,
    process: Option<Child>,
}

impl Contender {
    /// The load itself, with io_uring.
    pub(super) fn plain(file: String) -> Self {
        Self { target: vec!["--file".into(), file], process: None }
    }

    /// Seconds that its process has used so far; none, if the load does the work itself.
    pub(super) fn processor_time(&self) -> f64 {
        let Some(process) = &self.process else { return 0.0 };
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap_or_default();
        // After the name, which may have anything in it: state, ten more, then user and system time.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
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

/// A folder of contenders' files and sockets, which goes when it is dropped.
pub(super) struct Room(PathBuf);

impl Room {
    pub(super) fn new(folder: &Path) -> Result<Self> {
        let room = Self(folder.join(format!("parador-bench-{}", std::process::id())));
        fs::create_dir(&room.0)?;
        Ok(room)
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Starts our disk, with some of its keys.
    pub(super) fn ours(&self, parador: &Path, keys: &[&str], socket: &str) -> Result<Contender> {
        let mut command = Command::new(parador);
        command.args(["device", "blk"]).args(keys.iter().flat_map(|key| ["-o", *key]));
        command.args(["--socket-path", &self.path(socket)]);
        self.start(command, socket)
    }

    /// Starts a back-end and waits for its socket.
    pub(super) fn start(&self, mut command: Command, socket: &str) -> Result<Contender> {
        let process = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let contender = Contender { target: vec![self.path(socket)], process: Some(process) };
        // Often, as this is also how long a start takes.
        for _ in 0..100_000 {
            if Path::new(&self.path(socket)).exists() {
                return Ok(contender);
            }
            sleep(Duration::from_micros(100));
        }
        bail!("{command:?} does not listen")
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
