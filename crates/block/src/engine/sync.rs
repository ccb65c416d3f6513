//! Every request on the caller's thread.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::disk::outcome;
use crate::raw::{RawFile, Scratch};
use crate::{Aio, Disk, Op, Outcome, Submitted, Tag};

pub(crate) struct SyncDisk {
    raw: Arc<RawFile>,
    scratch: Scratch,
}

impl SyncDisk {
    pub(crate) fn new(raw: Arc<RawFile>) -> Self {
        Self { raw, scratch: Scratch::default() }
    }
}

impl Disk for SyncDisk {
    fn submit(&mut self, op: Op<'_>, _tag: Tag) -> Submitted {
        Submitted::Done(outcome(self.raw.execute(op, &mut self.scratch)))
    }

    fn kick(&mut self) {}

    fn reap(&mut self) -> Option<(Tag, Outcome)> {
        None
    }

    fn wait(&mut self) {}

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn aio(&self) -> Aio {
        Aio::Sync
    }
}
