//! The socket device (virtio 1.3 §5.10), with UNIX sockets at the host's end.
//!
//! A guest that connects to port `P` of the host reaches whoever listens at `PATH_P`. A host process
//! that wants port `P` of the guest connects to `PATH`, writes `CONNECT P\n`, and reads `OK N\n` (`N`
//! is its own port) once the guest has accepted; from then on bytes are bytes. A connection that is
//! refused is closed. That is Firecracker's convention, so that what was written for it works here.
//!
//! A process that does not read holds up its own connection and nothing else: the guest may send as
//! much as it was given credit for, which is all that is ever kept here.

mod muxer;
mod packet;
mod queues;
mod table;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parador_virtio::ids::VIRTIO_ID_VSOCK;
use parador_virtio::{Identity, Lane, QueueSetup, QueueState, VirtioDevice};

use crate::config_space;
use crate::sys::Doorbell;
use muxer::Muxer;
use queues::{Events, Receive, Transmit};

/// Stream sockets (§5.10.3); without any feature there would be nothing else either.
const F_STREAM: u64 = 1 << 0;

/// guest_cid: le64 (§5.10.4).
const CONFIG_LEN: usize = 8;

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const EVENTS: u16 = 2;

/// The smallest address a guest can have; those below are taken (§5.10.4).
pub const MIN_CID: u64 = 3;
/// The largest: addresses have 32 bits, and all ones stands for any.
pub const MAX_CID: u64 = 0xffff_fffe;

/// How a socket device is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VsockOptions {
    /// The guest's address, [`MIN_CID`] to [`MAX_CID`].
    pub cid: u64,
    /// The path of the socket that host processes connect to, and the beginning of those that the
    /// guest reaches.
    pub socket: PathBuf,
}

/// A socket device cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// An address that no guest can have.
    #[error("{0} is not an address for a guest ({MIN_CID} to {MAX_CID})")]
    Cid(u64),
    /// The socket cannot be made.
    #[error("cannot listen on socket {}", .0.display())]
    Socket(PathBuf, #[source] io::Error),
}

/// A socket device.
pub struct Vsock {
    identity: Identity,
    cid: u64,
    muxer: Arc<Mutex<Muxer>>,
    receive: Lane<Receive>,
    transmit: Lane<Transmit>,
    events: Lane<Events>,
}

impl Vsock {
    /// Makes the socket, which host processes can connect to from now on.
    ///
    /// # Errors
    /// See [`VsockError`].
    pub fn new(options: VsockOptions) -> Result<Self, VsockError> {
        let VsockOptions { cid, socket } = options;
        if !(MIN_CID..=MAX_CID).contains(&cid) {
            return Err(VsockError::Cid(cid));
        }
        let parts = Muxer::new(cid, &socket).and_then(|muxer| {
            let muxer = Arc::new(Mutex::new(muxer));
            let bell = Arc::new(Doorbell::new()?);
            let receive = Receive::new(Arc::clone(&muxer), Arc::clone(&bell))?;
            Ok((receive, Transmit::new(Arc::clone(&muxer), bell), muxer))
        });
        let (receive, transmit, muxer) = parts.map_err(|error| VsockError::Socket(socket, error))?;
        let identity = Identity {
            kind: VIRTIO_ID_VSOCK,
            features: F_STREAM,
            required: 0,
            queue_sizes: Box::new([128, 128, 16]),
            config_len: CONFIG_LEN,
            ..Identity::default()
        };
        Ok(Self {
            identity,
            cid,
            muxer,
            receive: Lane::new(receive),
            transmit: Lane::new(transmit),
            events: Lane::new(Events),
        })
    }
}

impl VirtioDevice for Vsock {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        config_space::read(&self.cid.to_le_bytes(), offset, data);
    }

    fn start_queue(&mut self, setup: QueueSetup) -> io::Result<()> {
        match setup.index {
            RECEIVE => self.receive.start("vsock-rx", setup),
            TRANSMIT => self.transmit.start("vsock-tx", setup),
            EVENTS => self.events.start("vsock-event", setup),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn stop_queue(&mut self, index: u16) -> Option<QueueState> {
        match index {
            RECEIVE => self.receive.stop(),
            TRANSMIT => self.transmit.stop(),
            EVENTS => self.events.stop(),
            _ => None,
        }
    }

    fn reset(&mut self) {
        lock(&self.muxer).reset(self.cid);
    }
}

/// The one lock of the device; nothing that waits is done under it.
fn lock(muxer: &Mutex<Muxer>) -> MutexGuard<'_, Muxer> {
    muxer.lock().unwrap_or_else(PoisonError::into_inner)
}
