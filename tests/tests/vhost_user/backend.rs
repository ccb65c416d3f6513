//! A back-end: a process that has a device and waits for front-ends at a socket.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::bench::{Bench, child, until};

/// A network of its own, where an interface can be made without being in anyone's way.
const NETWORK: &str = "ip tuntap add tap0 mode tap vnet_hdr multi_queue && ip addr add 192.0.2.1/24 dev tap0 && \
                       ip link set tap0 up && exec \"$@\"";

/// A running back-end.
pub(crate) struct Backend {
    child: Child,
    words: Vec<OsString>,
    socket: PathBuf,
    log: PathBuf,
}

impl Backend {
    /// `parador device MODEL` with `keys`, at the socket `NAME.sock`.
    pub(crate) fn parador(bench: &Bench, name: &str, model: &str, keys: &[&str]) -> Result<Self> {
        Self::parador_in(&[], Stdio::null(), bench, name, model, keys)
    }

    /// Our disk with the serial number `data`.
    pub(crate) fn disk(bench: &Bench, name: &str, image: &Path, keys: &[&str]) -> Result<Self> {
        let path = format!("path={}", image.display());
        let keys: Vec<_> = [&path, "ser=data"].into_iter().chain(keys.iter().copied()).collect();
        Self::parador(bench, name, "blk", &keys)
    }

    /// As [`Backend::disk`], for an open image. Locks are an open file's: whoever has the same one
    /// has the same lock, and two back-ends can take turns with it.
    pub(crate) fn disk_of(bench: &Bench, name: &str, image: &File, keys: &[&str]) -> Result<Self> {
        let keys: Vec<_> =
            ["fd=3", "path=shared", "ser=data"].into_iter().chain(keys.iter().copied()).collect();
        let before = ["sh", "-c", "exec \"$@\" 3<&0 </dev/null", "sh"];
        Self::parador_in(&before, image.try_clone()?.into(), bench, name, "blk", &keys)
    }

    /// As [`Backend::parador`], in a network of its own: it has 192.0.2.1 at `tap0`.
    pub(crate) fn networked(bench: &Bench, name: &str, model: &str, keys: &[&str]) -> Result<Self> {
        let before = ["unshare", "--net", "sh", "-c", NETWORK, "sh"];
        Self::parador_in(&before, Stdio::null(), bench, name, model, keys)
    }

    fn parador_in(
        before: &[&str],
        input: Stdio,
        bench: &Bench,
        name: &str,
        model: &str,
        keys: &[&str],
    ) -> Result<Self> {
        let mut words: Vec<OsString> = before.iter().map(OsString::from).collect();
        words.extend([xtask::lab::build("lab")?.into(), "device".into(), model.into()]);
        for key in keys {
            words.extend(["-o".into(), key.into()]);
        }
        let socket = bench.path(&format!("{name}.sock"));
        words.extend(["--socket-path".into(), socket.clone().into()]);
        Self::start(bench, name, words, socket, input)
    }

    fn start(bench: &Bench, name: &str, words: Vec<OsString>, socket: PathBuf, input: Stdio) -> Result<Self> {
        let log = bench.path(&format!("{name}.log"));
        let child = child(&words, &log)?.stdin(input).spawn().context("cannot start setpriv")?;
        let mut backend = Self { child, words, socket, log };
        backend.listens()?;
        Ok(backend)
    }

    /// Where it waits.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a crash would, at once and whatever it does.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Whether a front-end is there.
    pub(crate) fn serves(&self) -> Result<bool> {
        // SS_CONNECTED is 3, and the end that was accepted has the name of the socket.
        self.has_socket(" 03 ")
    }

    /// Starts it again after [`Backend::kill`].
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.child = child(&self.words, &self.log)?.spawn()?;
        self.listens()
    }

    /// Asks it to end, which must be a success.
    pub(crate) fn end(mut self) -> Result<()> {
        let status = Command::new("kill").arg(self.id().to_string()).status()?;
        ensure!(status.success(), "the back-end had ended already");
        let child = &mut self.child;
        let status = until("the back-end's end", || Ok(child.try_wait()?))?;
        ensure!(status.success(), "the back-end ended with {status}");
        Ok(())
    }

    /// Waits until it listens: that its socket is there is not enough.
    fn listens(&mut self) -> Result<()> {
        until("a back-end that listens", || {
            if let Some(status) = self.child.try_wait()? {
                bail!("the back-end ended with {status}");
            }
            // Its flags say that it accepts: __SO_ACCEPTCON.
            Ok(self.has_socket(" 00010000 ")?.then_some(()))
        })
    }

    /// Whether this machine has a socket of this name in such a state.
    fn has_socket(&self, state: &str) -> Result<bool> {
        let sockets = fs::read_to_string(format!("/proc/{}/net/unix", self.id()))?;
        let name = self.socket.to_string_lossy();
        Ok(sockets.lines().any(|line| line.ends_with(&*name) && line.contains(state)))
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
