//! Requests that wait: for a zone, or to start.

use crate::zoned::{Refusal, Write, Zones};
use crate::{Buffer, Tag};

/// A request for a zone that is busy, or may be.
pub(super) struct Kept {
    pub(super) tag: Tag,
    pub(super) kind: Kind,
    pub(super) buffers: Vec<Buffer>,
}

/// What may find a zone busy.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Write {
        offset: u64,
    },
    /// A write that may have been done before.
    Again {
        offset: u64,
    },
    Append {
        zone: u64,
    },
    /// An append that may have been done before.
    AppendAgain {
        zone: u64,
        at: u64,
    },
    Open {
        zone: u64,
    },
    Close {
        zone: u64,
    },
}

impl Kind {
    /// An offset in the zone it is about.
    pub(super) fn place(self) -> u64 {
        let (Self::Write { offset: place }
        | Self::Again { offset: place }
        | Self::Append { zone: place }
        | Self::AppendAgain { zone: place, .. }
        | Self::Open { zone: place }
        | Self::Close { zone: place }) = self;
        place
    }

    /// Whether it is answered with where its data is.
    pub(super) fn is_append(self) -> bool {
        matches!(self, Self::Append { .. } | Self::AppendAgain { .. })
    }

    /// Gives a request of `len` bytes its place, where it is about one.
    pub(super) fn reserve(self, zones: &Zones, len: u64) -> Result<Option<Write>, Refusal> {
        match self {
            Self::Write { offset } => zones.write(offset, len).map(Some),
            Self::Again { offset } => zones.write_again(offset, len).map(Some),
            Self::Append { zone } => zones.append(zone, len).map(Some),
            Self::AppendAgain { zone, at } => zones.append_again(zone, len, at).map(Some),
            Self::Open { zone } => zones.open(zone).map(|()| None),
            Self::Close { zone } => zones.close(zone).map(|()| None),
        }
    }

    /// Gives a request of `len` bytes its place right behind `other`, to be done with it.
    pub(super) fn join(self, zones: &Zones, other: &Write, len: u64) -> Result<Write, Refusal> {
        match self {
            Self::Write { offset } => zones.join_write(other, offset, len),
            Self::Append { zone } => zones.join_append(other, zone, len),
            Self::Again { .. } | Self::AppendAgain { .. } | Self::Open { .. } | Self::Close { .. } => {
                Err(Refusal::Busy)
            }
        }
    }
}

/// A request that has its place, and starts once that could be noted.
pub(super) struct Ready {
    pub(super) tag: Tag,
    pub(super) part: Part,
    pub(super) buffers: Vec<Buffer>,
    pub(super) joined: Vec<(Tag, Part)>,
}

/// A request's part of a write.
pub(super) struct Part {
    pub(super) write: Write,
    pub(super) len: u64,
    pub(super) append: bool,
}

impl Part {
    /// Where on the disk it ends.
    pub(super) fn end(&self) -> u64 {
        self.write.offset + self.len
    }

    /// What is said of it when it is done.
    pub(super) fn done(&self) -> u64 {
        if self.append { self.write.offset } else { 0 }
    }
}
