//! The back-end's own requests, on a channel and a thread of their own: it may make them while it
//! is asked something.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::RemoteError;
use super::session::Asks;
use super::window::Window;
use crate::message::{BackendRequest as B, Message, MessageError, ProtocolFeatures as F};
use crate::socket::Connection;

/// The channel of one connection. Dropping it ends its thread.
pub(super) struct Channel {
    connection: Connection,
    thread: Option<JoinHandle<()>>,
}

/// Who the back-end's requests are for.
#[derive(Clone)]
pub(super) struct Reverse {
    /// Name of the device.
    pub(super) name: Arc<str>,
    /// Which of the device's connections it is.
    pub(super) connection: u64,
    pub(super) asks: Asks,
    pub(super) window: Arc<Window>,
}

impl Channel {
    /// A channel, and the back-end's end of it.
    ///
    /// # Errors
    /// The host has no descriptors or threads.
    pub(super) fn open(reverse: Reverse, protocol: F, acks: bool) -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let connection = Connection::new(ours);
        let job = Job { connection: connection.try_clone()?, reverse, protocol, acks };
        let name = format!("{} back", job.reverse.name).replace('\0', "");
        let thread = thread::Builder::new().name(name).spawn(move || job.run())?;
        Ok((Self { connection, thread: Some(thread) }, theirs))
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.connection.shut_down();
        if let Some(thread) = self.thread.take() {
            // It waits for nothing but the channel.
            drop(thread.join());
        }
    }
}

/// Acknowledgements of what is not done: errno values, of which peers only look at the sign.
const NO: u64 = libc::EINVAL as u64;
const UNKNOWN: u64 = libc::ENOSYS as u64;

struct Job {
    connection: Connection,
    reverse: Reverse,
    protocol: F,
    acks: bool,
}

impl Job {
    fn run(self) {
        loop {
            match self.connection.receive() {
                Ok(Some((message, descriptors))) => {
                    if self.take(&message, descriptors).is_err() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    if let Ok(error) = error.downcast::<MessageError>() {
                        self.complain(error);
                    }
                    break;
                }
            }
        }
        self.connection.shut_down();
    }

    /// Does what `message` asks. An error ends the channel.
    fn take(&self, message: &Message, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let code = match B::parse(message) {
            Ok(request) => self.serve(&request, descriptors),
            // There may be requests one day that are not known here: only malformed ones are an error.
            Err(MessageError::Unknown(_)) => UNKNOWN,
            Err(error) => {
                self.complain(error);
                return Err(io::ErrorKind::InvalidData.into());
            }
        };
        if self.acks && (message.needs_reply() || message.request == LOOKUP) {
            self.connection.send(&message.ack(code), &[])?;
        }
        Ok(())
    }

    /// What to acknowledge `request` with.
    fn serve(&self, request: &B, descriptors: Vec<OwnedFd>) -> u64 {
        if !self.protocol.contains(request.gate()) {
            return UNKNOWN;
        }
        let file = descriptors.into_iter().next().map(File::from);
        let done = match (request, file) {
            (B::ConfigChange, _) => {
                self.reverse.asks.config_changed(self.reverse.connection);
                return 0;
            }
            (B::ShmemMap(piece), Some(file)) => self.reverse.window.map(piece, &file),
            (B::ShmemUnmap(piece), _) => self.reverse.window.unmap(piece),
            (B::ShmemMap(_), None) => return NO,
            // Nothing here translates addresses, takes kicks elsewhere or shares objects: nobody
            // owns one, so none can be removed or found either.
            (
                B::Iotlb(_)
                | B::HostNotifier(_)
                | B::VringCall(_)
                | B::VringErr(_)
                | B::SharedObjectAdd(_)
                | B::SharedObjectRemove(_)
                | B::SharedObjectLookup(_),
                _,
            ) => return UNKNOWN,
        };
        match done {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().map_or(NO, |code| u64::from(code.unsigned_abs())),
        }
    }

    fn complain(&self, error: MessageError) {
        self.reverse.asks.misbehaved(self.reverse.connection, RemoteError::Channel(error));
    }
}

/// `BACKEND_SHARED_OBJECT_LOOKUP` has a reply of its own.
const LOOKUP: u32 = 8;
