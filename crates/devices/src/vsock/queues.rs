//! The three queues of the socket device (virtio 1.3 §5.10.2).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use parador_virtio::{Queue, QueueHandler, RingError};

use super::lock;
use super::muxer::Muxer;
use super::packet::HEADER_LEN;
use crate::sys::Doorbell;

/// Packets for the guest.
pub(super) struct Receive {
    muxer: Arc<Mutex<Muxer>>,
    /// The muxer's own, to wait for without its lock.
    wake: OwnedFd,
    /// Wakes the transmit queue.
    bell: Arc<Doorbell>,
}

impl Receive {
    pub(super) fn new(muxer: Arc<Mutex<Muxer>>, bell: Arc<Doorbell>) -> io::Result<Self> {
        let wake = lock(&muxer).wake().try_clone_to_owned()?;
        Ok(Self { muxer, wake, bell })
    }
}

impl QueueHandler for Receive {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        let mut muxer = lock(&self.muxer);
        muxer.poll();
        while muxer.has_next() {
            let Some(chain) = queue.pop()? else { break };
            if chain.writer().remaining() < HEADER_LEN {
                return Err(RingError::Request);
            }
            let Some(length) = muxer.send(&chain) else {
                queue.undo_pop(chain);
                break;
            };
            queue.push(chain, u32::try_from(length).expect("a packet is short"));
        }
        if muxer.ends_stall() {
            self.bell.ring();
        }
        Ok(())
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wake.as_fd())
    }
}

/// Packets of the guest.
pub(super) struct Transmit {
    muxer: Arc<Mutex<Muxer>>,
    /// Rings when answers have been sent that no more packets could be taken before.
    bell: Arc<Doorbell>,
}

impl Transmit {
    pub(super) fn new(muxer: Arc<Mutex<Muxer>>, bell: Arc<Doorbell>) -> Self {
        Self { muxer, bell }
    }
}

impl QueueHandler for Transmit {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        let mut muxer = lock(&self.muxer);
        while muxer.has_room() {
            let Some(chain) = queue.pop()? else { break };
            muxer.take(chain.reader());
            queue.push(chain, 0);
        }
        muxer.ring();
        Ok(())
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.bell.as_fd())
    }
}

/// Events for the guest. None are sent: the guest's buffers stay in the ring.
pub(super) struct Events;

impl QueueHandler for Events {
    fn run(&mut self, _queue: &mut Queue) -> Result<(), RingError> {
        Ok(())
    }
}
