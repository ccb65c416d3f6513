//! One connection to a back-end: requests and their answers.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parador_virtio::EventFd;
use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::RemoteError;
use super::channel::Channel;
use super::memory::Table;
use crate::message::{F_PROTOCOL_FEATURES, FrontendRequest, Message, Payload, ProtocolFeatures as F};
use crate::socket::{Connection, Received};
use crate::wait::{borrow, wait};

/// A connection to a back-end, and what it has been told over it. Used from one thread.
pub(super) struct Link {
    connection: Connection,
    /// How long an answer may take.
    patience: Duration,
    /// Ends waiting for an answer when it is rung, while a connection is being set up.
    interrupt: Option<Arc<EventFd>>,
    /// What was negotiated.
    pub(super) protocol: F,
    /// Feature bits that the back-end offered; bit 30 is one of them.
    pub(super) offered: u64,
    /// Regions of memory it takes one by one.
    pub(super) slots: u64,
    pub(super) told: Told,
    /// The back-end's own requests.
    pub(super) channel: Option<Channel>,
}

/// What a back-end knows already.
#[derive(Default)]
pub(super) struct Told {
    pub(super) features: Option<u64>,
    pub(super) memory: Table,
    pub(super) inflight: bool,
    /// Address of the log it has.
    pub(super) log: Option<usize>,
    pub(super) status: u64,
}

/// A stream to whoever listens at `path`. Never blocks: a listener whose queue is full is not there.
pub(super) fn stream_to(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

impl Link {
    /// A connection over `stream` on which nothing was said yet.
    pub(super) fn new(stream: UnixStream, patience: Duration, interrupt: Option<Arc<EventFd>>) -> Self {
        Self {
            connection: Connection::new(stream),
            patience,
            interrupt,
            protocol: F(0),
            offered: 0,
            slots: 0,
            told: Told::default(),
            channel: None,
        }
    }

    /// From now on nothing but the back-end ends waiting for an answer.
    pub(super) fn settle(&mut self) {
        self.interrupt = None;
    }

    /// Asks something that has a reply of its own.
    ///
    /// # Errors
    /// All are the connection's end, except that the request is not one that was negotiated.
    pub(super) fn ask<T: Payload>(&self, request: &FrontendRequest) -> Result<T, RemoteError> {
        Ok(self.ask_with(request, &[], 1)?.0)
    }

    /// As [`Link::ask`], with descriptors both ways and `times` the patience.
    pub(super) fn ask_with<T: Payload>(
        &self,
        request: &FrontendRequest,
        descriptors: &[BorrowedFd<'_>],
        times: u32,
    ) -> Result<(T, Vec<OwnedFd>), RemoteError> {
        let (reply, received) = self.exchange(request, &request.message(), descriptors, times)?;
        let answer = reply.payload().map_err(|error| RemoteError::Rubbish(request.name(), error))?;
        Ok((answer, received))
    }

    /// Asks something whose reply may have any size, and says what was in it.
    pub(super) fn ask_for_bytes(
        &self,
        request: &FrontendRequest,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Vec<u8>, RemoteError> {
        Ok(self.exchange(request, &request.message(), descriptors, 1)?.0.payload)
    }

    /// Tells something, and waits until it is done where the back-end says so.
    ///
    /// # Errors
    /// As for [`Link::ask`], or the back-end refuses.
    pub(super) fn tell(
        &self,
        request: &FrontendRequest,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), RemoteError> {
        if !self.protocol.contains(F::REPLY_ACK) {
            self.check_gate(request)?;
            return self.send(request, &request.message(), descriptors, Instant::now() + self.patience);
        }
        let (reply, _) = self.exchange(request, &request.message().with_need_reply(), descriptors, 1)?;
        match reply.payload() {
            Ok(0u64) => Ok(()),
            Ok(code) => Err(RemoteError::Refused { request: request.name(), code }),
            Err(error) => Err(RemoteError::Rubbish(request.name(), error)),
        }
    }

    /// Tells something without waiting for anything.
    pub(super) fn mention(&self, request: &FrontendRequest) -> Result<(), RemoteError> {
        self.check_gate(request)?;
        self.send(request, &request.message(), &[], Instant::now() + self.patience)
    }

    /// The features to accept when the driver accepted `features`.
    pub(super) fn features_for(&self, features: u64) -> u64 {
        (features | F_PROTOCOL_FEATURES) & self.offered
    }

    /// Whether bit 30 was negotiated: rings are then disabled until they are enabled.
    pub(super) fn enables_rings(&self) -> bool {
        self.offered & F_PROTOCOL_FEATURES != 0
    }

    fn check_gate(&self, request: &FrontendRequest) -> Result<(), RemoteError> {
        let gated = !self.protocol.contains(request.gate());
        if gated { Err(RemoteError::Unknown(request.name())) } else { Ok(()) }
    }

    fn exchange(
        &self,
        request: &FrontendRequest,
        message: &Message,
        descriptors: &[BorrowedFd<'_>],
        times: u32,
    ) -> Result<Received, RemoteError> {
        self.check_gate(request)?;
        let patience = self.patience * times;
        let deadline = Instant::now() + patience;
        self.send(request, message, descriptors, deadline)?;
        let (reply, received) = self.receive(request, patience, deadline)?;
        let reply = reply.expect_reply_to(request.number());
        Ok((reply.map_err(|error| RemoteError::Rubbish(request.name(), error))?, received))
    }

    fn send(
        &self,
        request: &FrontendRequest,
        message: &Message,
        descriptors: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> Result<(), RemoteError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let sent = self
            .connection
            .set_patience(Some(left.max(Duration::from_millis(1))))
            .and_then(|()| self.connection.send(message, descriptors));
        sent.map_err(|error| lost(request, self.patience, error))
    }

    fn receive(
        &self,
        request: &FrontendRequest,
        patience: Duration,
        deadline: Instant,
    ) -> Result<Received, RemoteError> {
        if let Some(interrupt) = &self.interrupt {
            let mut fds = [
                PollFd::new(&self.connection, PollFlags::IN),
                PollFd::from_borrowed_fd(borrow(interrupt), PollFlags::IN),
            ];
            wait(&mut fds, Some(deadline))?;
            if !fds[1].revents().is_empty() {
                return Err(RemoteError::Interrupted);
            }
        }
        match self.connection.receive_until(deadline) {
            Ok(Some(received)) => Ok(received),
            Ok(None) => Err(RemoteError::HungUp(request.name())),
            Err(error) => Err(lost(request, patience, error)),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The channel's thread has a handle of its own.
        self.connection.shut_down();
    }
}

/// What an error of the socket says about the back-end.
fn lost(request: &FrontendRequest, patience: Duration, error: io::Error) -> RemoteError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            RemoteError::Silent { request: request.name(), seconds: patience.as_secs() }
        }
        io::ErrorKind::InvalidData => match error.downcast() {
            Ok(error) => RemoteError::Rubbish(request.name(), error),
            Err(_) => RemoteError::HungUp(request.name()),
        },
        _ => RemoteError::HungUp(request.name()),
    }
}
