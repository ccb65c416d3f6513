//! What the back-end asks of the front-end, on a connection of its own.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parador_virtio::{SharedMemory, SharedPiece};

use super::PATIENCE;
use crate::message::{BackendRequest, Mmap, Payload, ProtocolFeatures as F};
use crate::socket::Connection;

/// The channel, once there is one. Any thread may ask; one asks at a time.
///
/// Lock order: `turn`, `state`. Only the former is held while somebody waits.
#[derive(Default)]
pub(super) struct Channel {
    turn: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<Arc<Connection>>,
    protocol: F,
}

impl Channel {
    /// Requests go here from now on.
    pub(super) fn open(&self, connection: Connection) -> io::Result<()> {
        connection.set_patience(Some(PATIENCE))?;
        self.state().connection = Some(Arc::new(connection));
        Ok(())
    }

    /// The front-end is gone, or has never been there.
    pub(super) fn close(&self) {
        *self.state() = State::default();
    }

    /// What was negotiated.
    pub(super) fn negotiated(&self, protocol: F) {
        self.state().protocol = protocol;
    }

    /// Whether there is somebody to take `request`.
    pub(super) fn takes(&self, request: &BackendRequest) -> bool {
        self.connection(request).is_ok()
    }

    /// Says it, and waits for nobody: the front-end may be waiting for whoever says it.
    pub(super) fn tell(&self, request: &BackendRequest) {
        if let Ok((connection, _)) = self.connection(request) {
            let told = connection.send(&request.message(), &[]);
            told.unwrap_or_else(|error| self.give_up(&connection, &error));
        }
    }

    /// Asks, and waits for the answer if one can be had.
    fn ask(&self, request: &BackendRequest, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (connection, answers) = self.connection(request)?;
        match exchange(&connection, request, fds, answers) {
            Ok(0) => Ok(()),
            Ok(code) => Err(io::Error::other(format!("the front-end says no ({code})"))),
            Err(error) => {
                self.give_up(&connection, &error);
                Err(error)
            }
        }
    }

    /// Where `request` goes, and whether it is answered.
    fn connection(&self, request: &BackendRequest) -> io::Result<(Arc<Connection>, bool)> {
        let state = self.state();
        if !state.protocol.contains(F::BACKEND_REQ | request.gate()) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let connection = state.connection.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        Ok((Arc::clone(connection), state.protocol.contains(F::REPLY_ACK)))
    }

    /// Later answers could be those to earlier questions.
    fn give_up(&self, connection: &Arc<Connection>, error: &io::Error) {
        tracing::warn!("the front-end's channel for requests is closed: {error}");
        self.state().connection.take_if(|open| Arc::ptr_eq(open, connection));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn exchange(
    connection: &Connection,
    request: &BackendRequest,
    fds: &[BorrowedFd<'_>],
    answers: bool,
) -> io::Result<u64> {
    let message = request.message();
    if !answers {
        return connection.send(&message, fds).map(|()| 0);
    }
    connection.send(&message.clone().with_need_reply(), fds)?;
    let (reply, _) = connection.receive()?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let reply = reply.expect_reply_to(message.request).map_err(crate::socket::invalid)?;
    u64::parse(&reply.payload).map_err(|_| io::ErrorKind::InvalidData.into())
}

impl SharedMemory for Channel {
    fn map(&self, piece: SharedPiece, file: &File, file_offset: u64, writable: bool) -> io::Result<()> {
        let flags = if writable { Mmap::F_WRITABLE } else { 0 };
        let request = Mmap { fd_offset: file_offset, flags, ..mmap(piece) };
        self.ask(&BackendRequest::ShmemMap(request), &[file.as_fd()])
    }

    fn unmap(&self, piece: SharedPiece) -> io::Result<()> {
        self.ask(&BackendRequest::ShmemUnmap(mmap(piece)), &[])
    }
}

fn mmap(piece: SharedPiece) -> Mmap {
    let SharedPiece { region, offset, len } = piece;
    Mmap { shmid: region, shm_offset: offset, len, ..Mmap::default() }
}
