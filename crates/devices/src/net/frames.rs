//! The receive and transmit queues: frames between guest memory and a TAP, not copied on the way.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use parador_virtio::{Chain, Queue, QueueHandler, RingError};

use super::F_MRG_RXBUF;
use super::tap::{HEADER_LEN, Tap};
use crate::sys::{self, Epoll, Interest, MAX_PIECES, Pieces};

/// Header and frame at their longest: 64 KiB of IP packet behind Ethernet and VLAN headers.
const MAX_FRAME: usize = HEADER_LEN + 18 + 65535;

/// Long enough for an allocator to map it by itself (128 KiB for glibc and musl): what is never spilled
/// into has no memory.
const SPILL_LEN: usize = 256 << 10;

/// Where the header tells in how many buffers a frame is (virtio 1.3 §5.1.6).
const NUM_BUFFERS: usize = 10;

/// Frames from the guest: each chain is one, written to the TAP where it lies.
pub(super) struct Transmit {
    tap: Arc<Tap>,
    pieces: Pieces,
}

impl Transmit {
    pub(super) fn new(tap: Arc<Tap>) -> Self {
        Self { tap, pieces: Pieces::default() }
    }
}

impl QueueHandler for Transmit {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        while let Some(chain) = queue.pop()? {
            let mut reader = chain.reader();
            let length = reader.remaining();
            self.pieces.clear();
            if length <= MAX_FRAME && self.pieces.add_data(&mut reader, length).is_some() {
                // The kernel takes its own copy of the header and judges that: a checksum beyond
                // the frame, a segment size of zero, no header at all. What it refuses is lost, as
                // on a wire, and so is what an interface that is down or gone does not take.
                if let Err(error) = sys::write_pieces(self.tap.as_fd(), &mut self.pieces) {
                    tracing::trace!(%error, length, "a frame from the guest is dropped");
                }
            }
            queue.push(chain, 0);
        }
        Ok(())
    }
}

/// Frames for the guest, read from the TAP to where the guest wants them.
///
/// A frame's length is known only once it has been read, so it is read into as many buffers as the
/// last frames needed and, where those are too few, into `spill`; then more buffers are taken and
/// what spilled is copied. Buffers taken and not needed are kept for the next frame.
pub(super) struct Receive {
    tap: Arc<Tap>,
    /// Between the TAP and the worker where the TAP's queue may be detached: one that is cannot be
    /// watched, and this keeps watching from before.
    wake: Option<Epoll>,
    pieces: Pieces,
    spill: Box<[u8]>,
    /// Taken from the ring, in order, and not given back yet.
    ready: VecDeque<Chain>,
    /// How long a frame to expect: the recent longest, slowly forgotten.
    expected: usize,
}

impl Receive {
    /// Made while the queue of the TAP is attached.
    pub(super) fn new(tap: Arc<Tap>) -> io::Result<Self> {
        let wake = if tap.is_multi_queue() {
            let epoll = Epoll::new()?;
            epoll.add(tap.as_fd(), Interest::Readable, 0)?;
            Some(epoll)
        } else {
            None
        };
        let spill = vec![0; SPILL_LEN].into_boxed_slice();
        Ok(Self { tap, wake, pieces: Pieces::default(), spill, ready: VecDeque::new(), expected: 0 })
    }

    /// Takes buffers until there is room for `wanted` bytes in the first of them, but no more than
    /// `most`; less room when `pop` finds no more.
    fn gather(
        &mut self,
        wanted: usize,
        most: usize,
        mut pop: impl FnMut() -> Result<Option<Chain>, RingError>,
    ) -> Result<Room, RingError> {
        let mut room = Room { bytes: 0, chains: 0 };
        while room.bytes < wanted.max(HEADER_LEN) && room.chains < most {
            if room.chains == self.ready.len() {
                let Some(chain) = pop()? else { break };
                if chain.writer().remaining() == 0 {
                    return Err(RingError::Request);
                }
                self.ready.push_back(chain);
            }
            room.bytes += self.ready[room.chains].writer().remaining();
            room.chains += 1;
        }
        Ok(room)
    }

    /// Reads one frame into the first `chains` of `ready`.
    fn read(&mut self, chains: usize) -> io::Result<Frame> {
        self.pieces.clear();
        let mut skip = HEADER_LEN;
        for chain in self.ready.iter().take(chains) {
            let mut writer = chain.writer();
            skip -= writer.skip(skip);
            let rest = writer.remaining();
            self.pieces.add_room(&mut writer, rest).expect("the rest of a chain is in it");
        }
        // What does not fit one call spills.
        self.pieces.truncate(MAX_PIECES - 2);
        let mut header = [0; HEADER_LEN];
        let tap = self.tap.as_fd();
        let length = sys::read_scattered(tap, &mut header, &mut self.pieces, &mut self.spill[..MAX_FRAME])?;
        let direct = length.min(HEADER_LEN + self.pieces.bytes());
        Ok(Frame { header, length, direct })
    }

    /// Gives a frame to the driver, in as many of the first chains as it needs. They have room for it.
    fn deliver(&mut self, queue: &mut Queue, frame: &mut Frame) {
        let (mut count, mut left) = (0u16, frame.length);
        for chain in &self.ready {
            left -= chain.writer().skip(left);
            count += 1;
            if left == 0 {
                break;
            }
        }
        frame.header[NUM_BUFFERS..].copy_from_slice(&count.to_le_bytes());

        let mut at = 0;
        for _ in 0..count {
            let chain = self.ready.pop_front().expect("as many were counted");
            let mut writer = chain.writer();
            let end = frame.length.min(at + writer.remaining());
            if at < HEADER_LEN {
                at += writer.write(&frame.header[at..end.min(HEADER_LEN)]);
            }
            if at < frame.direct {
                at += writer.skip(end.min(frame.direct) - at);
            }
            if at < end {
                at += writer.write(&self.spill[at - frame.direct..end - frame.direct]);
            }
            let written = writer.written();
            queue.push(chain, u32::try_from(written).expect("a frame is short"));
        }
    }
}

/// Room for a frame in the first chains of [`Receive::ready`].
struct Room {
    bytes: usize,
    chains: usize,
}

/// A frame that has been read.
struct Frame {
    header: [u8; HEADER_LEN],
    /// Of header and frame together.
    length: usize,
    /// How much of that is the header and what lies in the guest's buffers already; the rest spilled.
    direct: usize,
}

impl QueueHandler for Receive {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        let mergeable = queue.features() & F_MRG_RXBUF != 0;
        let most = if mergeable { usize::from(queue.size()) } else { 1 };
        loop {
            let room = self.gather(self.expected, most, || queue.pop())?;
            if room.bytes < HEADER_LEN {
                // The ring is empty; or it holds a buffer in which not even a header fits, and
                // buffers cannot be joined.
                return if room.chains < most { Ok(()) } else { Err(RingError::Request) };
            }
            // Nothing there; or a queue that is detached, an interface that is down or gone.
            let Ok(mut frame) = self.read(room.chains) else { return Ok(()) };
            self.expected = frame.length.max(self.expected - self.expected / 8);
            // The end of a turn is no reason to drop a frame.
            if self.gather(frame.length, most, || queue.pop_more())?.bytes >= frame.length {
                self.deliver(queue, &mut frame);
            } else {
                tracing::trace!(frame.length, "a frame is longer than the guest's buffers and dropped");
            }
        }
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wake.as_ref().map_or(self.tap.as_fd(), AsFd::as_fd))
    }

    fn drain(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        while let Some(chain) = self.ready.pop_back() {
            queue.undo_pop(chain);
        }
        Ok(())
    }
}
