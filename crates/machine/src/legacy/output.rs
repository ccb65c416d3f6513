//! Writing to a file that may not take what it is given, without ever waiting for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// Most bytes that are kept for a reader that does not read; what comes after them is dropped.
pub(super) const LIMIT: usize = 64 << 10;
/// Most bytes of one write. A pipe that takes anything takes these without waiting (PIPE_BUF).
const CHUNK: usize = 4096;

/// A file, and what it has not taken yet.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    /// Says whether the file takes anything; `None` for a file that always does.
    readiness: Option<Epoll>,
    pending: Vec<u8>,
    blocked: bool,
    /// Bytes dropped since the reader last read.
    dropped: u64,
}

impl Output {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let file = unshared(file)?;
        let epoll = Epoll::new()?;
        let event = EpollEvent::new(EventSet::OUT, 0);
        let readiness = match epoll.ctl(ControlOperation::Add, file.as_raw_fd(), event) {
            Ok(()) => Some(epoll),
            // A regular file, or the like of /dev/null.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { file, readiness, pending: Vec::new(), blocked: false, dropped: 0 })
    }

    /// Bytes not written yet.
    pub(super) fn pending(&self) -> &[u8] {
        &self.pending
    }

    /// Whether the reader was in no hurry when it was last tried.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    pub(super) fn push(&mut self, byte: u8) {
        if self.pending.len() < LIMIT {
            self.pending.push(byte);
        } else {
            if self.dropped == 0 {
                tracing::warn!("nobody reads the serial port's output; it is dropped from here on");
            }
            self.dropped += 1;
        }
    }

    /// Writes what the file takes at once, and waits up to `patience_ms` for it to take some.
    pub(super) fn write_out(&mut self, patience_ms: i32) {
        let mut written = 0;
        self.blocked = false;
        while written < self.pending.len() {
            if !self.is_ready(patience_ms) {
                self.blocked = true;
                break;
            }
            let rest = &self.pending[written..];
            match self.file.write(&rest[..rest.len().min(CHUNK)]) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    break;
                }
                Err(error) => {
                    // The reader is gone. Another may come (a terminal), so go on with what is new.
                    tracing::debug!(%error, "the serial port's output cannot be written");
                    written = self.pending.len();
                }
            }
        }
        self.pending.drain(..written);
        if self.dropped > 0 && self.pending.is_empty() {
            tracing::warn!(bytes = self.dropped, "the serial port's output is read again; some was dropped");
            self.dropped = 0;
        }
    }

    fn is_ready(&self, patience_ms: i32) -> bool {
        let Some(epoll) = &self.readiness else { return true };
        let mut events = [EpollEvent::default()];
        // A failure to ask is no reason to risk waiting.
        epoll.wait(patience_ms, &mut events).is_ok_and(|count| count > 0)
    }
}

/// A terminal takes part of a write and then waits for room, unless it was opened not to; and that flag
/// would be seen by everyone who has the same open file, such as the shell. So a terminal is opened
/// anew.
fn unshared(file: File) -> io::Result<File> {
    /// Opening the multiplexer (device 5:2) would make another terminal.
    const PTMX: u64 = 5 << 8 | 2;
    let metadata = file.metadata()?;
    if !metadata.file_type().is_char_device() || metadata.st_rdev() == PTMX {
        return Ok(file);
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    // Without /proc, the file as it is will do; it is asked before each write.
    Ok(OpenOptions::new().write(true).custom_flags(flags).open(path).unwrap_or(file))
}
