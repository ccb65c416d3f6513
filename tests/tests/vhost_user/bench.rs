//! What a test works with: a folder for sockets, images and logs, which are shown when it fails.

use std::ffi::OsString;
use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// How long anything may take that a test waits for: a bound for what is stuck.
const PATIENCE: Duration = Duration::from_secs(600);
/// How much of each log a failure shows, in bytes.
const TAIL: usize = 4000;

/// A folder of the test's own.
pub(crate) struct Bench {
    dir: TempDir,
}

impl Bench {
    /// Runs a test; what fails is shown with the end of everything that was logged in the folder.
    #[expect(clippy::panic, reason = "this is how a test fails")]
    pub(crate) fn run(test: impl FnOnce(&Bench) -> Result<()>) {
        let bench = Bench { dir: tempfile::tempdir().expect("there is a place for temporary files") };
        if let Err(error) = test(&bench) {
            panic!("{error:#}\n{}", bench.tails());
        }
    }

    /// The path of `name` in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An image of `mib` MiB without a block.
    pub(crate) fn image(&self, name: &str, mib: u64) -> Result<PathBuf> {
        let path = self.path(name);
        File::create(&path)?.set_len(mib << 20)?;
        Ok(path)
    }

    fn tails(&self) -> String {
        let mut text = String::new();
        let entries = fs::read_dir(self.dir.path()).into_iter().flatten().flatten();
        let mut logs: Vec<_> = entries.map(|entry| entry.path()).collect();
        logs.retain(|path| path.extension().is_some_and(|end| end == "log"));
        logs.sort();
        for log in logs {
            let bytes = fs::read(&log).unwrap_or_default();
            let end = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(TAIL)..]).into_owned();
            let _ = write!(text, "\n--- {}\n{end}", log.file_name().unwrap_or_default().display());
        }
        text
    }
}

/// Waits until `done` has something.
pub(crate) fn until<T>(what: &str, mut done: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = done().with_context(|| format!("while waiting for {what}"))? {
            return Ok(found);
        }
        if start.elapsed() > PATIENCE {
            bail!("{what}: not within {} s", PATIENCE.as_secs());
        }
        sleep(Duration::from_millis(10));
    }
}

/// A command that ends with the thread that starts it, and appends what it says to `log`.
pub(crate) fn child(words: &[OsString], log: &Path) -> Result<Command> {
    let out = || File::options().create(true).append(true).open(log);
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).args(words);
    command.stdin(Stdio::null()).stdout(out()?).stderr(out()?);
    Ok(command)
}
