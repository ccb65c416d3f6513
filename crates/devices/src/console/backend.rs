//! The host's end of a console: where its bytes go ([`Sink`]) and come from ([`Source`]).
//!
//! Neither ever waits. A reader that is slow is waited for by the worker, with the driver's buffers
//! left in the ring; where nobody reads at all (a pseudo-terminal not open, a socket without a
//! client) output is dropped, since a kernel prints with interrupts off and would hang in there.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Backend, ConsoleError};
use crate::socket::Socket;
use crate::sys::{self, Epoll, Interest, Pieces};

/// The client of a socket back end, while there is one. Held only to look or to replace it.
type Client = Arc<Mutex<Option<Arc<UnixStream>>>>;

/// Both ends of a console, made from what the user asked for.
pub(super) struct Ends {
    pub(super) source: Source,
    pub(super) sink: Arc<Sink>,
    /// The path by which a pseudo-terminal is opened.
    pub(super) pty: Option<PathBuf>,
}

impl Ends {
    pub(super) fn new(backend: Backend) -> Result<Self, ConsoleError> {
        let failed = |what: &str, path: &Path| {
            let what = format!("{what} {}", path.display());
            move |source| ConsoleError { what, source }
        };
        let plain = |what: &str| {
            let what = what.to_owned();
            move |source| ConsoleError { what, source }
        };
        let room = Arc::new(Epoll::new().map_err(plain("watch its output"))?);
        let (mut source, mut pty) = (Source::Nothing, None);
        let target = match backend {
            Backend::Null => Target::Nothing,
            Backend::Stdio { input, output } => {
                let input = unblocked(input, libc::O_RDONLY).map_err(plain("use standard input"))?;
                source = Source::Descriptor { file: input, ended: false };
                let output = unblocked(output, libc::O_WRONLY).map_err(plain("use standard output"))?;
                Target::Descriptor(output)
            }
            Backend::Pty => {
                let (file, path) = sys::open_pty().map_err(plain("make a pseudo-terminal"))?;
                let file = Arc::new(file);
                source = Source::Pty(Arc::clone(&file));
                pty = Some(PathBuf::from(path));
                Target::Pty(file)
            }
            Backend::File(path) => {
                Target::Descriptor(open_output(&path).map_err(failed("open file", &path))?)
            }
            Backend::Socket(path) => {
                let client = Client::default();
                let clients = Clients::new(&path, Arc::clone(&client), Arc::clone(&room));
                source = Source::Socket(clients.map_err(failed("listen on socket", &path))?);
                Target::Socket(client)
            }
        };
        let sink = Arc::new(Sink::new(target, room).map_err(plain("watch its output"))?);
        Ok(Self { source, sink, pty })
    }
}

/// Where output goes. Shared by the transmit queue, the emergency register and the socket's listener.
pub(super) struct Sink {
    target: Target,
    /// Fires when a target that was full has room again, or nobody reads it any more.
    room: Arc<Epoll>,
}

enum Target {
    Nothing,
    Descriptor(File),
    Pty(Arc<File>),
    Socket(Client),
}

impl Sink {
    fn new(target: Target, room: Arc<Epoll>) -> io::Result<Self> {
        let watched = match &target {
            Target::Descriptor(file) => room.add(file.as_fd(), Interest::Writable, 0),
            Target::Pty(file) => room.add(file.as_fd(), Interest::Writable, 0),
            Target::Nothing | Target::Socket(_) => Ok(()),
        };
        match watched {
            // A file on disk always has room and cannot be watched.
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(error),
            _ => Ok(Self { target, room }),
        }
    }

    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.room.as_fd()
    }

    /// Sends `pieces`, `total` bytes of them, and says how many have been dealt with; `None` when
    /// there is no room and [`Sink::wake`] will tell when there is.
    pub(super) fn send(&self, pieces: &mut Pieces, total: usize) -> Option<usize> {
        match &self.target {
            Target::Nothing => Some(total),
            Target::Pty(file) if sys::is_hung_up(file.as_fd()) => Some(total),
            Target::Descriptor(file) => sent(sys::write_pieces(file.as_fd(), pieces), total),
            Target::Pty(file) => sent(sys::write_pieces(file.as_fd(), pieces), total),
            Target::Socket(client) => match current(client) {
                None => Some(total),
                Some(stream) => sent(sys::send_pieces(stream.as_fd(), pieces), total),
            },
        }
    }

    /// Sends one byte if there is room for it: what becomes of the emergency register.
    pub(super) fn send_byte(&self, byte: u8) {
        let result = match &self.target {
            Target::Nothing => Ok(()),
            Target::Descriptor(file) => (&mut &*file).write(&[byte]).map(drop),
            Target::Pty(file) if sys::is_hung_up(file.as_fd()) => Ok(()),
            Target::Pty(file) => (&mut &**file).write(&[byte]).map(drop),
            Target::Socket(client) => {
                current(client).map_or(Ok(()), |stream| (&mut &*stream).write(&[byte]).map(drop))
            }
        };
        if let Err(error) = result {
            tracing::trace!(%error, "an emergency byte is lost");
        }
    }
}

/// What a write achieved, of `total` bytes: a reader that is gone takes everything.
fn sent(result: io::Result<usize>, total: usize) -> Option<usize> {
    match result {
        Ok(0) => None,
        Ok(count) => Some(count),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => None,
        Err(error) => {
            tracing::trace!(%error, "console output is dropped");
            Some(total)
        }
    }
}

/// Where input comes from. Belongs to the receive queue.
pub(super) enum Source {
    Nothing,
    Descriptor { file: File, ended: bool },
    Pty(Arc<File>),
    Socket(Clients),
}

impl Source {
    pub(super) fn wake(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Source::Nothing => None,
            // A file on disk or /dev/null cannot be waited for; it is read at the driver's pace.
            Source::Descriptor { file, .. } => is_waitable(file).then(|| file.as_fd()),
            Source::Pty(file) => Some(file.as_fd()),
            Source::Socket(clients) => Some(clients.wake.as_fd()),
        }
    }

    /// Reads into `pieces` and says how many bytes; `None` when there is nothing now.
    pub(super) fn receive(&mut self, pieces: &mut Pieces) -> Option<usize> {
        match self {
            Source::Nothing | Source::Descriptor { ended: true, .. } => None,
            Source::Descriptor { file, ended } => match sys::read_pieces(file.as_fd(), pieces) {
                Ok(0) => {
                    *ended = true;
                    None
                }
                other => other.ok(),
            },
            // Whoever had it open has left (EIO); the next one makes it readable again.
            Source::Pty(file) => sys::read_pieces(file.as_fd(), pieces).ok().filter(|&count| count > 0),
            Source::Socket(clients) => clients.receive(pieces),
        }
    }
}

/// The clients of a socket: one at a time, others wait in its backlog.
pub(super) struct Clients {
    socket: Socket,
    client: Client,
    wake: Epoll,
    /// Where the sink waits for a client that was slow.
    room: Arc<Epoll>,
}

impl Clients {
    fn new(path: &Path, client: Client, room: Arc<Epoll>) -> io::Result<Self> {
        let socket = Socket::listen(path)?;
        let wake = Epoll::new()?;
        wake.add(socket.as_fd(), Interest::Readable, 0)?;
        Ok(Self { socket, client, wake, room })
    }

    fn receive(&mut self, pieces: &mut Pieces) -> Option<usize> {
        loop {
            let stream = match current(&self.client) {
                Some(stream) => stream,
                None => self.accept()?,
            };
            match sys::read_pieces(stream.as_fd(), pieces) {
                Ok(count) if count > 0 => return Some(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // It has nothing more to say but may still be listening.
                Ok(_) if !sys::is_hung_up(stream.as_fd()) => return None,
                _ => replace(&self.client, None),
            }
        }
    }

    fn accept(&mut self) -> Option<Arc<UnixStream>> {
        let stream = Arc::new(self.socket.accept().ok()?);
        let watched = (self.wake.add(stream.as_fd(), Interest::Readable, 0))
            .and_then(|()| self.room.add(stream.as_fd(), Interest::Writable, 0));
        if let Err(error) = watched {
            tracing::warn!(%error, "a client of the console is refused");
            return None;
        }
        replace(&self.client, Some(Arc::clone(&stream)));
        Some(stream)
    }
}

fn current(client: &Client) -> Option<Arc<UnixStream>> {
    client.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn replace(client: &Client, stream: Option<Arc<UnixStream>>) {
    *client.lock().unwrap_or_else(PoisonError::into_inner) = stream;
}

fn open_output(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    // Appending keeps what an earlier run wrote; non-blocking is for pipes and terminals.
    File::options().append(true).create(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// The same file without blocking, and without making it so for everybody who shares it (the shell,
/// for a terminal) where that can be had.
fn unblocked(fd: OwnedFd, mode: libc::c_int) -> io::Result<File> {
    let file = File::from(fd);
    if file.metadata()?.file_type().is_file() {
        // A file on disk never blocks for long; opened again, it would lose its position.
        return Ok(file);
    }
    let again = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    match sys::open(&again, mode | libc::O_NONBLOCK | libc::O_NOCTTY) {
        Ok(fd) => Ok(File::from(fd)),
        Err(error) => {
            tracing::debug!(%error, "the descriptor cannot be opened again and is made non-blocking");
            sys::set_nonblocking(file.as_fd())?;
            Ok(file)
        }
    }
}

fn is_waitable(file: &File) -> bool {
    Epoll::new().and_then(|epoll| epoll.add(file.as_fd(), Interest::Readable, 0)).is_ok()
}
