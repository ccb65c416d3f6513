//! What a back-end shows in its device's shared memory.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parador_virtio::{SharedMemory, SharedPiece, SharedRegion};

use super::negotiate::PAGE;
use crate::message::Mmap;

/// The most pieces that can be mapped at once: each is a mapping of the host's.
const MAX_PIECES: usize = 16384;

/// A device's shared memory, and what is mapped in it now. Any thread may call.
#[derive(Default)]
pub(super) struct Window(Mutex<State>);

/// Held while the host maps and unmaps, so that what is written down here is what there is.
#[derive(Default)]
struct State {
    memory: Option<Arc<dyn SharedMemory>>,
    regions: Box<[SharedRegion]>,
    mapped: Vec<SharedPiece>,
}

impl Window {
    /// Takes the way to map things; nothing is mapped there.
    pub(super) fn set(&self, memory: Arc<dyn SharedMemory>) {
        let mut state = self.lock();
        state.mapped.clear();
        state.memory = Some(memory);
    }

    /// Says which regions there are.
    pub(super) fn set_regions(&self, regions: Box<[SharedRegion]>) {
        self.lock().regions = regions;
    }

    /// Shows a piece of `file`.
    ///
    /// # Errors
    /// `InvalidInput`: the piece cannot be; `AlreadyExists`: something is there; or what the host says.
    pub(super) fn map(&self, mmap: &Mmap, file: &File) -> io::Result<()> {
        let mut state = self.lock();
        let piece = state.piece(mmap)?;
        if mmap.flags & !Mmap::F_WRITABLE != 0 || !mmap.fd_offset.is_multiple_of(PAGE) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if state.mapped.iter().any(|other| overlap(other, &piece)) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if state.mapped.len() >= MAX_PIECES {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let memory = state.memory.clone().ok_or(io::ErrorKind::NotFound)?;
        memory.map(piece, file, mmap.fd_offset, mmap.flags & Mmap::F_WRITABLE != 0)?;
        state.mapped.push(piece);
        Ok(())
    }

    /// Takes away what was mapped at exactly that piece.
    ///
    /// # Errors
    /// `NotFound`: nothing was; or what the host says.
    pub(super) fn unmap(&self, mmap: &Mmap) -> io::Result<()> {
        let mut state = self.lock();
        let piece = state.piece(mmap)?;
        let at = state.mapped.iter().position(|other| *other == piece).ok_or(io::ErrorKind::NotFound)?;
        let memory = state.memory.clone().ok_or(io::ErrorKind::NotFound)?;
        memory.unmap(piece)?;
        state.mapped.swap_remove(at);
        Ok(())
    }

    /// Takes everything away: the device was reset, or its back-end is another one.
    pub(super) fn clear(&self) {
        let mut state = self.lock();
        let mapped = std::mem::take(&mut state.mapped);
        if let Some(memory) = &state.memory {
            for piece in mapped {
                // Whoever owns the memory may have done so already.
                drop(memory.unmap(piece));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The piece that a request means: whole pages of a region that there is.
    fn piece(&self, mmap: &Mmap) -> io::Result<SharedPiece> {
        let piece = SharedPiece { region: mmap.shmid, offset: mmap.shm_offset, len: mmap.len };
        let region = self.regions.iter().find(|region| region.id == piece.region);
        let end = piece.offset.checked_add(piece.len);
        let inside = region.zip(end).is_some_and(|(region, end)| end <= region.size);
        let whole = piece.offset.is_multiple_of(PAGE) && piece.len.is_multiple_of(PAGE) && piece.len > 0;
        if inside && whole { Ok(piece) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }
}

fn overlap(left: &SharedPiece, right: &SharedPiece) -> bool {
    // Neither end overflows: both were checked to be inside a region.
    left.region == right.region
        && left.offset < right.offset + right.len
        && right.offset < left.offset + left.len
}
