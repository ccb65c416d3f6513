//! A raw image at work: one open file, and every request done on the calling thread.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::{Buffer, Op, Topology, buffer, sys};

/// Memory of one bounce buffer, and the most written at once when zeroes are written, in bytes.
pub(crate) const BOUNCE_LEN: usize = 256 << 10;

/// How often a transfer that gets nowhere is tried again.
pub(crate) const MAX_RETRIES: u32 = 64;

/// An open image, shared by its queues.
#[derive(Debug)]
pub(crate) struct RawFile {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    /// Bytes that requests may reach; whole logical blocks. Changes only when the image is resized.
    pub(crate) size: AtomicU64,
    pub(crate) read_only: bool,
    pub(crate) block_device: bool,
    /// Reading and writing it is copying memory: there is nothing to wait for.
    pub(crate) in_memory: bool,
    pub(crate) direct: Option<Alignment>,
    pub(crate) topology: Topology,
    /// Bytes; `None` when the host cannot discard, or was asked not to.
    pub(crate) discard: Option<u32>,
    pub(crate) can: Abilities,
}

/// What direct I/O wants, in bytes; both powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Alignment {
    pub(crate) memory: usize,
    /// Of offsets, and of the length of each piece.
    pub(crate) offset: u64,
}

/// What `fallocate` can do here, as far as we know: starts with everything, learns from refusals.
#[derive(Debug)]
pub(crate) struct Abilities {
    punch: AtomicBool,
    zero_range: AtomicBool,
}

impl Default for Abilities {
    fn default() -> Self {
        Self { punch: AtomicBool::new(true), zero_range: AtomicBool::new(true) }
    }
}

/// What a thread that executes requests reuses from one to the next.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    buffers: Vec<Buffer>,
    bounce: Vec<u8>,
}

pub(crate) const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
pub(crate) const ZERO_RANGE: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;

impl RawFile {
    /// Whether `op` may be done at all, and how many bytes it moves.
    pub(crate) fn admit(&self, op: &Op<'_>) -> io::Result<u64> {
        let (offset, len, writes) = match op {
            Op::Read { offset, buffers } => (*offset, length(buffers)?, false),
            Op::Write { offset, buffers } => (*offset, length(buffers)?, true),
            Op::Flush => return Ok(0),
            Op::Append { .. } | Op::Zone { .. } => return Err(io::ErrorKind::Unsupported.into()),
            Op::Discard { offset, len } | Op::WriteZeroes { offset, len, .. } => (*offset, *len, true),
        };
        if writes && self.read_only {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let end = offset.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
        let aligned = self.direct.is_none_or(|direct| (offset | len) & (direct.offset - 1) == 0);
        if end > self.size.load(Ordering::Relaxed) || !aligned {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(len)
    }

    /// Whether direct I/O cannot use this memory as it is.
    pub(crate) fn needs_bounce(&self, buffers: &[Buffer]) -> bool {
        self.direct.is_some_and(|direct| {
            let length_mask = usize::try_from(direct.offset - 1).unwrap_or(usize::MAX);
            buffers
                .iter()
                .any(|buffer| buffer.address() & (direct.memory - 1) != 0 || buffer.len() & length_mask != 0)
        })
    }

    /// Does a request, to its end.
    pub(crate) fn execute(&self, op: Op<'_>, scratch: &mut Scratch) -> io::Result<()> {
        if self.admit(&op)? == 0 && !matches!(op, Op::Flush) {
            return Ok(());
        }
        self.execute_admitted(op, scratch)
    }

    /// As [`RawFile::execute`], of what was admitted and moves something.
    pub(crate) fn execute_admitted(&self, op: Op<'_>, scratch: &mut Scratch) -> io::Result<()> {
        match op {
            Op::Read { offset, buffers } if self.needs_bounce(buffers) => {
                self.read_bounced(offset, buffers, scratch)
            }
            Op::Write { offset, buffers } if self.needs_bounce(buffers) => {
                self.write_bounced(offset, buffers, scratch)
            }
            Op::Read { offset, buffers } => {
                transfer(buffers, offset, scratch, |buffers, offset| sys::preadv(&self.file, buffers, offset))
            }
            Op::Write { offset, buffers } => transfer(buffers, offset, scratch, |buffers, offset| {
                sys::pwritev(&self.file, buffers, offset)
            }),
            Op::Flush => self.file.sync_data(),
            Op::Discard { offset, len } => self.discard(offset, len),
            Op::WriteZeroes { offset, len, unmap } => self.write_zeroes(offset, len, unmap, scratch),
            Op::Append { .. } | Op::Zone { .. } => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let result = if self.block_device {
            sys::block_discard(&self.file, offset, len)
        } else {
            sys::fallocate(&self.file, PUNCH, offset, len)
        };
        // What is read afterwards is unspecified, so the old data will do.
        result.or_else(|error| if is_unsupported(&error) { Ok(()) } else { Err(error) })
    }

    /// The `fallocate` mode to try first for zeroes, if any is known to work.
    pub(crate) fn zeroes_mode(&self, unmap: bool) -> Option<i32> {
        if unmap && self.can.punch.load(Ordering::Relaxed) {
            return Some(PUNCH);
        }
        self.can.zero_range.load(Ordering::Relaxed).then_some(ZERO_RANGE)
    }

    /// Remembers that the host refused `mode`.
    pub(crate) fn refused(&self, mode: i32) {
        let ability = if mode == PUNCH { &self.can.punch } else { &self.can.zero_range };
        ability.store(false, Ordering::Relaxed);
    }

    pub(crate) fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        unmap: bool,
        scratch: &mut Scratch,
    ) -> io::Result<()> {
        while let Some(mode) = self.zeroes_mode(unmap) {
            match sys::fallocate(&self.file, mode, offset, len) {
                Err(error) if is_unsupported(&error) => self.refused(mode),
                result => return result,
            }
        }
        // tmpfs punches but has no ZERO_RANGE: punch, then take the space again, because a guest that
        // did not say `unmap` must not run out of it later.
        if !self.block_device && self.can.punch.load(Ordering::Relaxed) {
            match sys::fallocate(&self.file, PUNCH, offset, len) {
                Err(error) if is_unsupported(&error) => self.refused(PUNCH),
                Err(error) => return Err(error),
                Ok(()) => match sys::fallocate(&self.file, libc::FALLOC_FL_KEEP_SIZE, offset, len) {
                    Err(error) if is_unsupported(&error) => {}
                    result => return result,
                },
            }
        }
        self.store_zeroes(offset, len, scratch)
    }

    fn store_zeroes(&self, mut offset: u64, mut len: u64, scratch: &mut Scratch) -> io::Result<()> {
        let zeroes = scratch.bounce();
        zeroes.fill(0);
        while len > 0 {
            let chunk = usize::try_from(len).unwrap_or(usize::MAX).min(BOUNCE_LEN);
            self.file.write_all_at(&zeroes[..chunk], offset)?;
            offset += chunk as u64;
            len -= chunk as u64;
        }
        Ok(())
    }

    fn read_bounced(&self, offset: u64, buffers: &[Buffer], scratch: &mut Scratch) -> io::Result<()> {
        scratch.bounced(offset, buffers, |data, offset, buffers| {
            self.file.read_exact_at(data, offset)?;
            let mut copied = 0;
            for buffer in buffers {
                copied += buffer.fill_from(&data[copied..]);
            }
            Ok(())
        })
    }

    fn write_bounced(&self, offset: u64, buffers: &[Buffer], scratch: &mut Scratch) -> io::Result<()> {
        scratch.bounced(offset, buffers, |data, offset, buffers| {
            let mut copied = 0;
            for buffer in buffers {
                copied += buffer.copy_to(&mut data[copied..]);
            }
            self.file.write_all_at(data, offset)
        })
    }
}

impl Scratch {
    /// Takes `buffers` through the bounce buffer, a chunk at a time: `transfer` gets the chunk, its
    /// offset in the file, and the buffers from there on.
    fn bounced(
        &mut self,
        mut offset: u64,
        buffers: &[Buffer],
        mut transfer: impl FnMut(&mut [u8], u64, &[Buffer]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut buffers_left = std::mem::take(&mut self.buffers);
        buffers_left.clear();
        buffers_left.extend_from_slice(buffers);
        let mut rest = buffers_left.as_mut_slice();
        let mut result = Ok(());
        while let Some(chunk) = next_chunk(rest) {
            result = transfer(&mut self.bounce()[..chunk], offset, rest);
            if result.is_err() {
                break;
            }
            rest = buffer::advance(rest, chunk);
            offset += chunk as u64;
        }
        self.buffers = buffers_left;
        result
    }

    /// [`BOUNCE_LEN`] bytes aligned to 4 KiB, which suits every direct I/O known.
    pub(crate) fn bounce(&mut self) -> &mut [u8] {
        const ALIGN: usize = 4096;
        if self.bounce.is_empty() {
            self.bounce = vec![0; BOUNCE_LEN + ALIGN];
        }
        let start = self.bounce.as_ptr().align_offset(ALIGN).min(ALIGN);
        &mut self.bounce[start..start + BOUNCE_LEN]
    }
}

/// Whether the host has no such operation, rather than failing at it.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENODEV | libc::ENOTTY))
}

fn length(buffers: &[Buffer]) -> io::Result<u64> {
    buffer::total(buffers).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// How much of `buffers` goes through the bounce buffer next; `None` at the end.
fn next_chunk(buffers: &[Buffer]) -> Option<usize> {
    let total = usize::try_from(buffer::total(buffers)?).unwrap_or(usize::MAX);
    (total > 0).then_some(total.min(BOUNCE_LEN))
}

/// Repeats `call` until all of `buffers` has been moved.
fn transfer(
    buffers: &[Buffer],
    mut offset: u64,
    scratch: &mut Scratch,
    call: impl Fn(&[Buffer], u64) -> io::Result<usize>,
) -> io::Result<()> {
    let mut retries = 0;
    let mut step = |rest: &[Buffer], offset: u64| loop {
        match call(rest, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted && retries < MAX_RETRIES => retries += 1,
            result => return result,
        }
    };
    let mut moved = 0;
    if buffers.len() <= sys::MAX_PIECES {
        moved = step(buffers, offset)?;
        if moved as u64 == length(buffers)? {
            return Ok(());
        }
    }
    scratch.buffers.clear();
    scratch.buffers.extend_from_slice(buffers);
    let mut rest = scratch.buffers.as_mut_slice();
    loop {
        // Drops emptied pieces too: a call that is given nothing but those would look like the end.
        rest = buffer::advance(rest, moved);
        offset += moved as u64;
        if rest.is_empty() {
            return Ok(());
        }
        moved = step(rest, offset)?;
    }
}
