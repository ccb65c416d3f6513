//! Messages and their descriptors over a UNIX stream socket.
//!
//! ```
//! use std::os::unix::net::UnixStream;
//! use parador_vhost_user::message::{FrontendRequest, Payload};
//! use parador_vhost_user::socket::Connection;
//!
//! let (ours, theirs) = UnixStream::pair()?;
//! let (front, back) = (Connection::new(ours), Connection::new(theirs));
//! front.send(&FrontendRequest::GetFeatures.message(), &[])?;
//! let (request, descriptors) = back.receive()?.expect("one was sent");
//! assert!(descriptors.is_empty());
//! back.send(&request.reply(7u64.payload()), &[])?;
//! assert_eq!(front.receive()?.expect("one was sent").0.payload, 7u64.payload());
//! # Ok::<(), std::io::Error>(())
//! ```

use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use crate::message::{HEADER_LEN, MAX_DESCRIPTORS, Message, MessageError};

/// Room for more descriptors than any message has, so that surplus ones are seen (and closed).
const ROOM: usize = 4 * MAX_DESCRIPTORS;

/// One end of a connection. Blocks, unless [`Connection::set_patience`] says how long at most.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
}

/// A message and the descriptors that came with it.
pub type Received = (Message, Vec<OwnedFd>);

impl Connection {
    /// A connection over `stream`, which is in blocking mode.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self { stream }
    }

    /// How long the other end may take to say or take each piece of a message; `None` is for ever.
    ///
    /// # Errors
    /// The host refuses.
    pub fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(patience)?;
        self.stream.set_write_timeout(patience)
    }

    /// Another handle to the same connection.
    ///
    /// # Errors
    /// The host has no descriptors left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()? })
    }

    /// Ends the connection for every handle to it: whoever waits for a message gets none.
    pub fn shut_down(&self) {
        // Fails only where it has ended already.
        drop(self.stream.shutdown(std::net::Shutdown::Both));
    }

    /// Sends a message; descriptors go with its first byte. They stay the caller's.
    ///
    /// # Errors
    /// The other end is gone, or takes nothing for too long.
    pub fn send(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_bytes(&message.bytes(), descriptors)
    }

    /// As [`Connection::send`], with bytes that need not be a message.
    ///
    /// # Errors
    /// As [`Connection::send`]; `InvalidInput` for more than 32 descriptors.
    pub fn send_bytes(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ROOM))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let sent =
            retry(|| sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL))?;
        (&self.stream).write_all(&bytes[sent..])
    }

    /// Receives the next message, in however many pieces it comes; `None` when the other end has
    /// hung up after a whole one. Descriptors that come with any byte of it are its own.
    ///
    /// # Errors
    /// The connection ends in the middle of a message (`UnexpectedEof`); it is silent for too long
    /// (`WouldBlock`); or what comes is no message (`InvalidData`, with a [`MessageError`] inside).
    /// In the last case the rest cannot be understood either.
    pub fn receive(&self) -> io::Result<Option<Received>> {
        self.receive_by(None)
    }

    /// As [`Connection::receive`], with the whole message there at `deadline`, however many pieces it
    /// comes in. The patience is another one afterwards.
    ///
    /// # Errors
    /// As [`Connection::receive`].
    pub fn receive_until(&self, deadline: Instant) -> io::Result<Option<Received>> {
        self.receive_by(Some(deadline))
    }

    fn receive_by(&self, deadline: Option<Instant>) -> io::Result<Option<Received>> {
        let mut descriptors = Vec::new();
        let mut header = [0; HEADER_LEN];
        if !self.fill(&mut header, &mut descriptors, deadline)? {
            return Ok(None);
        }
        let mut message = Message::from_header(header).map_err(invalid)?;
        message.payload.resize(message.size as usize, 0);
        if !message.payload.is_empty() && !self.fill(&mut message.payload, &mut descriptors, deadline)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some((message, descriptors)))
    }

    /// Fills `bytes`, which are not none; no if there were none at all.
    fn fill(
        &self,
        bytes: &mut [u8],
        descriptors: &mut Vec<OwnedFd>,
        deadline: Option<Instant>,
    ) -> io::Result<bool> {
        let mut done = 0;
        while done < bytes.len() {
            if let Some(deadline) = deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            }
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ROOM))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut room = [IoSliceMut::new(&mut bytes[done..])];
            let got =
                retry(|| recvmsg(&self.stream, &mut room, &mut control, RecvFlags::CMSG_CLOEXEC))?.bytes;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    // A peer can send them a few with each byte: those beyond any message's are closed.
                    descriptors.extend(rights);
                    descriptors.truncate(ROOM);
                }
            }
            match got {
                0 if done == 0 => return Ok(false),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                got => done += got,
            }
        }
        Ok(true)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Calls again after a signal.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// An error about what a message says.
pub(crate) fn invalid(error: MessageError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::thread;

    use super::*;
    use crate::message::{FrontendRequest, VringFd};

    fn pair() -> (Connection, Connection) {
        let (a, b) = UnixStream::pair().unwrap();
        (Connection::new(a), Connection::new(b))
    }

    fn kick() -> Message {
        FrontendRequest::SetVringKick(VringFd { index: 0, has_fd: true }).message()
    }

    fn null() -> File {
        File::open("/dev/null").unwrap()
    }

    #[test]
    fn a_message_comes_in_pieces() {
        let (front, back) = pair();
        let sender = thread::spawn(move || {
            let file = null();
            let (first, rest) = kick().bytes().split_at(1).into_vecs();
            front.send_bytes(&first, &[file.as_fd()]).unwrap();
            for byte in rest {
                front.send_bytes(&[byte], &[]).unwrap();
            }
            front
        });
        let (message, descriptors) = back.receive().unwrap().unwrap();
        assert_eq!((message, descriptors.len()), (kick(), 1));
        drop(sender.join().unwrap());
        assert!(back.receive().unwrap().is_none(), "hung up between messages");
    }

    trait IntoVecs {
        fn into_vecs(self) -> (Vec<u8>, Vec<u8>);
    }

    impl IntoVecs for (&[u8], &[u8]) {
        fn into_vecs(self) -> (Vec<u8>, Vec<u8>) {
            (self.0.to_vec(), self.1.to_vec())
        }
    }

    #[test]
    fn two_messages_in_one_write_are_two() {
        let (front, back) = pair();
        let bytes = [kick().bytes(), FrontendRequest::GetFeatures.message().bytes()].concat();
        front.send_bytes(&bytes, &[null().as_fd()]).unwrap();
        let (first, descriptors) = back.receive().unwrap().unwrap();
        assert_eq!((first, descriptors.len()), (kick(), 1));
        let (second, descriptors) = back.receive().unwrap().unwrap();
        assert_eq!((second.request, descriptors.len()), (1, 0));
    }

    #[test]
    fn an_end_in_the_middle_is_an_error() {
        for len in [1, 11, 12, 19] {
            let (front, back) = pair();
            front.send_bytes(&kick().bytes()[..len], &[]).unwrap();
            drop(front);
            assert_eq!(back.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{len} bytes");
        }
    }

    #[test]
    fn patience_ends() {
        let (_front, back) = pair();
        back.set_patience(Some(Duration::from_millis(1))).unwrap();
        assert_eq!(back.receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn descriptors_nobody_wants_are_closed() {
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let (front, back) = pair();
        let before = open();
        for _ in 0..100 {
            let file = null();
            let many = [file.as_fd(); ROOM];
            for byte in kick().bytes() {
                front.send_bytes(&[byte], &many).unwrap();
            }
            let (_, descriptors) = back.receive().unwrap().unwrap();
            assert_eq!(descriptors.len(), ROOM, "what is kept has a bound");
        }
        // Other tests of this process open and close theirs meanwhile.
        assert!(open() < before + 40);
    }
}
