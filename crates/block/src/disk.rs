//! What a disk is to a device: requests go in with a tag, the tag comes out with a result.

use std::io;
use std::os::fd::BorrowedFd;

use crate::Buffer;
use crate::zoned::Refusal;

/// Names a request in flight. Given by whoever submits, returned by [`Disk::reap`]; several requests
/// may carry the same one.
pub type Tag = u32;

/// What is asked of a disk. Offsets and lengths are in bytes.
#[derive(Debug, Clone, Copy)]
pub enum Op<'a> {
    /// Fills all of `buffers` from `offset` on.
    Read {
        /// Where to start.
        offset: u64,
        /// Where to put it; any number of pieces of any length.
        buffers: &'a [Buffer],
    },
    /// Stores all of `buffers` from `offset` on.
    Write {
        /// Where to start.
        offset: u64,
        /// What to store; any number of pieces of any length.
        buffers: &'a [Buffer],
    },
    /// Makes every write that completed before durable.
    Flush,
    /// Says that a range is no longer needed: what is read from it afterwards is unspecified.
    Discard {
        /// Where to start.
        offset: u64,
        /// How much.
        len: u64,
    },
    /// Makes a range read as zeroes.
    WriteZeroes {
        /// Where to start.
        offset: u64,
        /// How much.
        len: u64,
        /// Whether the host may give the space back, so that writing there again may find none.
        unmap: bool,
    },
    /// Stores all of `buffers` at the write pointer of a zone; the [`Outcome`] is where that was.
    Append {
        /// Where the zone starts.
        zone: u64,
        /// What to store; any number of pieces of any length.
        buffers: &'a [Buffer],
    },
    /// Changes the condition of a zone.
    Zone {
        /// What becomes of it.
        action: ZoneAction,
        /// Where the zone starts; nothing to [`ZoneAction::ResetAll`].
        zone: u64,
    },
}

/// What can be done to a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ZoneAction {
    /// Keeps it open until it is closed or full.
    Open,
    /// Ends that.
    Close,
    /// Makes it full, however much of it is written. Durable when it is over.
    Finish,
    /// Empties it. Durable when it is over.
    Reset,
    /// Empties all zones that can be. Durable when it is over.
    ResetAll,
}

/// How a request ended: for an append where its data is, in bytes from the start of the disk; 0 for
/// all others.
pub type Outcome = Result<u64, Fault>;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The host could not do it, or it may not be done to this image.
    #[error(transparent)]
    Host(#[from] io::Error),
    /// The zones it is about do not allow it; nothing has changed. Only disks with zones say so, and
    /// never that a zone is busy: they wait.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Fault {
    /// The same for another request: an error of the host cannot be cloned, but its number can.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Host(error) => Self::Host(again(error)),
            Self::Refused(refusal) => Self::Refused(*refusal),
        }
    }
}

/// The same error once more, as far as its number or its kind says it.
pub(crate) fn again(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

impl From<io::ErrorKind> for Fault {
    fn from(kind: io::ErrorKind) -> Self {
        Self::Host(kind.into())
    }
}

/// What came of a request that has nothing to say when it succeeds.
pub(crate) fn outcome(result: io::Result<()>) -> Outcome {
    result.map(|()| 0).map_err(Fault::Host)
}

/// What became of a submitted request.
#[derive(Debug)]
#[must_use]
pub enum Submitted {
    /// It is over; its tag will not be seen again.
    Done(Outcome),
    /// It goes on; [`Disk::reap`] will return its tag.
    InFlight,
}

/// How a disk moves its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aio {
    /// io_uring: requests of one turn enter the kernel together, completions need no system call.
    IoUring,
    /// A few threads per queue.
    Threads,
    /// On the caller's thread: [`Disk::submit`] always says [`Submitted::Done`], but for what has to wait
    /// for a zone, or is to be durable, on a disk with zones, and for all writes to a device with zones.
    Sync,
}

/// Where the blocks are: one queue of requests to an image.
///
/// One per virtqueue, used by one thread at a time. Requests in flight together are not ordered
/// among each other; [`Op::Flush`] covers what completed before it was submitted. Nothing allocates
/// per request once each slot has been used, but for what a disk with zones writes down of them. Dropping a disk waits for what is in flight.
pub trait Disk: Send {
    /// Takes a request. It may stay with the disk until the next [`Disk::kick`] or [`Disk::wait`].
    ///
    /// A request ends with an error, and the image is untouched, when it reaches beyond the end
    /// (`InvalidInput`), or writes to an image opened read-only (`PermissionDenied`). A read that
    /// meets the end of a file that was made shorter ends with `UnexpectedEof`. Without zones, an
    /// append and what changes a zone are `Unsupported`.
    fn submit(&mut self, op: Op<'_>, tag: Tag) -> Submitted;

    /// As [`Disk::submit`], for a request that another process took before it ended and may have done:
    /// in a zone, what was written then is written again where it is. Of an append `place` is what
    /// [`Disk::placed`] said. To be called with all of these, in their order, before anything that
    /// came later.
    fn resubmit(&mut self, op: Op<'_>, tag: Tag, _place: Option<u64>) -> Submitted {
        self.submit(op, tag)
    }

    /// The next append in flight that has got its place, in bytes from the disk's start; `None` when
    /// there is no other. To be asked after `submit`, and before `kick` and `wait`, which start them; or
    /// never.
    fn placed(&mut self) -> Option<(Tag, u64)> {
        None
    }

    /// Starts all that was submitted: as a rule one system call. Some of it may be over when this
    /// returns, without [`Disk::wake`] saying so: reap afterwards.
    fn kick(&mut self);

    /// The next request that is over, and how it went; `None` when there is none yet.
    fn reap(&mut self) -> Option<(Tag, Outcome)>;

    /// Kicks, then blocks until [`Disk::reap`] has something; or, with zones, may have after another wait.
    /// Returns at once when nothing is in flight.
    fn wait(&mut self);

    /// Gives up what is in flight, as far as that is possible: such requests end with an error, in
    /// [`Disk::reap`] as all others. Whether any of their work was done is unknown. The default gives
    /// up nothing.
    fn cancel(&mut self) {}

    /// Becomes readable when requests complete, or may be started that could not before: kick and reap then.
    /// To be watched edge-triggered, never to be read.
    /// `None` when no request is ever in flight.
    fn wake(&self) -> Option<BorrowedFd<'_>>;

    /// How this disk moves its data: not always what was asked for.
    fn aio(&self) -> Aio;
}
