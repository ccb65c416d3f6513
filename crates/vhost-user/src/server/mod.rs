//! The back-end: any [`VirtioDevice`], for front-ends of any virtual machine monitor.
//!
//! It takes messages in any order that leads somewhere, and says no in one way: what a front-end
//! asked to have acknowledged is answered with a number that is not zero, and for anything else the
//! connection ends. The next front-end finds the device as the first one did.
//!
//! | file | what it has |
//! |---|---|
//! | session | one front-end's messages, and what each does |
//! | ring | rings, and what they run on |
//! | memory, host | the front-end's memory, mapped |
//! | channel | what the back-end asks of the front-end |
//! | transfer | the device's state on its way out or in |

mod channel;
mod discard;
mod host;
mod memory;
mod ring;
mod session;
mod transfer;

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use parador_virtio::{EventFd, VirtioDevice};
use rustix::event::PollFlags;

use crate::message::{F_LOG_ALL, F_PROTOCOL_FEATURES, MessageError, ProtocolFeatures as F};
use crate::wait::borrow;
use host::wait;
use session::Session;

/// How long a front-end may take in the middle of something that keeps others waiting.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves a device to front-ends.
pub struct Server {
    device: Box<dyn VirtioDevice>,
}

/// Why a front-end was not served until it hung up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The connection broke, or carried what is no message.
    #[error("the connection broke: {0}")]
    Connection(#[from] io::Error),
    /// It asked for what it cannot have, and not for an acknowledgement.
    #[error("{request} was refused: {why}")]
    Refused {
        /// Which request.
        request: String,
        /// Why.
        #[source]
        why: Refusal,
    },
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It is none, or has not what it should have.
    #[error("{0}")]
    Message(#[from] MessageError),
    /// It asks for what there is not.
    #[error("{0}")]
    Value(&'static str),
    /// The host does not allow it.
    #[error("{0}: {1}")]
    Host(&'static str, #[source] io::Error),
}

impl Server {
    /// A server of `device`, whose queues are stopped. It is reset after each front-end.
    #[must_use]
    pub fn new(device: Box<dyn VirtioDevice>) -> Self {
        Self { device }
    }

    /// The features that front-ends are offered: those of the device, its rings and the log of dirty
    /// pages; and those of the protocol.
    #[must_use]
    pub fn offered(&self) -> (u64, F) {
        offered(&*self.device)
    }

    /// Serves one front-end until it hangs up or `stop` fires, which stays fired. The device's queues
    /// have been drained and stopped then.
    ///
    /// # Errors
    /// The connection broke, or the front-end sent what cannot be answered. It has been closed.
    pub fn serve(&mut self, stream: UnixStream, stop: &EventFd) -> Result<(), SessionError> {
        Session::new(&mut *self.device, stream)?.run(stop)
    }

    /// Serves front-ends one after another until `stop` fires, which stays fired. While there is one,
    /// the next waits in the listener's backlog.
    ///
    /// # Errors
    /// The listener fails. What a front-end does is only logged.
    pub fn accept(&mut self, listener: &UnixListener, stop: &EventFd) -> io::Result<()> {
        loop {
            let both = [borrow(stop), listener.as_fd()].map(|fd| Some((fd, PollFlags::IN)));
            let [stopped, _] = wait(both)?;
            if stopped {
                return Ok(());
            }
            let (stream, _) = match listener.accept() {
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                accepted => accepted?,
            };
            tracing::info!("a front-end is there");
            match self.serve(stream, stop) {
                Ok(()) => tracing::info!("the front-end is gone"),
                Err(error) => tracing::warn!("the front-end is gone: {error}"),
            }
        }
    }
}

fn offered(device: &dyn VirtioDevice) -> (u64, F) {
    let identity = device.identity();
    let features = identity.features | identity.ring_features | F_LOG_ALL | F_PROTOCOL_FEATURES;
    let protocol = F::MQ
        | F::LOG_SHMFD
        | F::REPLY_ACK
        | F::BACKEND_REQ
        | F::CONFIG
        | F::INFLIGHT_SHMFD
        | F::RESET_DEVICE
        | F::CONFIGURE_MEM_SLOTS
        | F::STATUS
        | F::DEVICE_STATE
        | F::GET_VRING_BASE_INFLIGHT
        | F::GET_VRING_BASE_SKIP_DRAIN;
    (features, protocol.with_if(!identity.shared_memory.is_empty(), F::SHMEM))
}
