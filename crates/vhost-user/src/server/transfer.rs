//! The device's state on its way out or in, a piece at a time beside the session's messages.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use parador_virtio::MAX_STATE;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::PATIENCE;
use crate::wait::wait;

/// Bytes moved at a time.
const PIECE: usize = 1 << 16;

/// A device's state underway.
#[derive(Default)]
pub(super) enum Transfer {
    /// None was asked for.
    #[default]
    None,
    /// The first bytes of it have been written.
    Save { to: File, state: Vec<u8>, done: usize },
    /// The first bytes of it have been read.
    Load { from: File, state: Vec<u8> },
    /// All of it was written, and the other end told so.
    Saved,
    /// All of it was read.
    Loaded(Vec<u8>),
    /// It did not come through.
    Failed(io::Error),
}

impl Transfer {
    /// Begins to write `state`.
    pub(super) fn save(state: Vec<u8>, to: OwnedFd) -> io::Result<Self> {
        Ok(Self::Save { to: nonblocking(to)?, state, done: 0 })
    }

    /// Begins to read a state.
    pub(super) fn load(from: OwnedFd) -> io::Result<Self> {
        Ok(Self::Load { from: nonblocking(from)?, state: Vec::new() })
    }

    /// What to wait for before the next [`Transfer::step`].
    pub(super) fn waits_for(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match self {
            Self::Save { to, .. } => Some((to.as_fd(), PollFlags::OUT)),
            Self::Load { from, .. } => Some((from.as_fd(), PollFlags::IN)),
            Self::None | Self::Saved | Self::Loaded(_) | Self::Failed(_) => None,
        }
    }

    /// Moves one piece.
    pub(super) fn step(&mut self) {
        *self = match mem::take(self) {
            Self::Save { mut to, state, mut done } => {
                let piece = &state[done..state.len().min(done + PIECE)];
                match to.write(piece) {
                    _ if piece.is_empty() => Self::Saved,
                    Ok(0) => Self::Failed(ErrorKind::WriteZero.into()),
                    Ok(count) => {
                        done += count;
                        if done == state.len() { Self::Saved } else { Self::Save { to, state, done } }
                    }
                    Err(error) if is_for_now(&error) => Self::Save { to, state, done },
                    Err(error) => Self::Failed(error),
                }
            }
            Self::Load { mut from, mut state } => {
                let before = state.len();
                state.resize(before + PIECE, 0);
                let got = from.read(&mut state[before..]);
                state.truncate(before + got.as_ref().unwrap_or(&0));
                match got {
                    Ok(0) => Self::Loaded(state),
                    Ok(_) if state.len() > MAX_STATE => Self::Failed(ErrorKind::FileTooLarge.into()),
                    Err(error) if !is_for_now(&error) => Self::Failed(error),
                    Ok(_) | Err(_) => Self::Load { from, state },
                }
            }
            over => over,
        };
    }

    /// Moves the rest, for as long as the front-end has patience. What it was is forgotten.
    pub(super) fn finish(&mut self) -> Self {
        let end = Instant::now() + PATIENCE;
        while let Some((fd, flags)) = self.waits_for() {
            match wait(&mut [PollFd::from_borrowed_fd(fd, flags)], Some(end)) {
                Ok(0) => *self = Self::Failed(ErrorKind::TimedOut.into()),
                Ok(_) => self.step(),
                Err(error) => *self = Self::Failed(error),
            }
        }
        mem::take(self)
    }
}

/// The descriptor as a file that never keeps the session waiting.
fn nonblocking(fd: OwnedFd) -> io::Result<File> {
    fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
    Ok(File::from(fd))
}

fn is_for_now(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
