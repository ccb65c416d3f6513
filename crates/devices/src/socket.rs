//! A listening UNIX socket that has a path while it lives and leaves none behind.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::sys;

/// A listening socket, non-blocking, whose file goes away with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens at `path`. A socket left there by a process that is gone is replaced; one that is
    /// alive is an error (`AddrInUse`), and so is any other file.
    ///
    /// # Errors
    /// Of bind(2).
    pub fn listen(path: &Path) -> io::Result<Self> {
        if is_dead_socket(path) {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        let socket = Self { listener, path: path.to_owned() };
        socket.listener.set_nonblocking(true)?;
        Ok(socket)
    }

    /// The next client, non-blocking; `WouldBlock` when there is none.
    pub(crate) fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// The socket itself.
    #[must_use]
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Gone already, or somebody else's by now: nothing to be done about either.
        drop(std::fs::remove_file(&self.path));
    }
}

fn is_dead_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
        && sys::connect_now(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::Socket;

    #[test]
    fn only_a_dead_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");

        let socket = Socket::listen(&path).unwrap();
        assert!(Socket::listen(&path).is_err(), "it is alive");
        drop(socket);
        assert!(!path.exists());

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind");
        drop(Socket::listen(&path).unwrap());

        std::fs::write(&path, "precious").unwrap();
        assert!(Socket::listen(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
