//! Where front-ends come from: a socket that is made, or one this process was started with.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use parador_config::Diagnostic;
use parador_engine::{Socket, inherited};
use rustix::net::{AddressFamily, SocketType, sockopt};

use super::words;

/// Where front-ends come from.
pub(super) enum Door {
    /// To a socket whose file goes away with it.
    Named(Socket),
    /// To a socket somebody else has made.
    Listening(UnixListener),
    /// One is there already.
    Connected(UnixStream),
}

/// The first descriptor of a process that was activated (sd_listen_fds(3)).
const FIRST: i32 = 3;

impl Door {
    /// Opens `door`, or finds the one that the process was activated for.
    pub(super) fn open(door: Option<&words::Door>) -> Result<Self, Diagnostic> {
        match door {
            Some(words::Door::Path(path)) => Socket::listen(path).map(Self::Named).map_err(|e| {
                let hint = match e.kind() {
                    std::io::ErrorKind::AddrInUse => {
                        "a process listens there, or it is a file that is no socket; name another"
                    }
                    _ => "its folder must exist, and this user may write there",
                };
                Diagnostic::new(format!("cannot listen at {}", path.display())).cause(&e).hint(hint)
            }),
            Some(words::Door::Descriptor(fd)) => Self::inherited(*fd),
            None => match activated()? {
                Some(fd) => Self::inherited(fd),
                None => Err(Diagnostic::new("nobody can come to this device")
                    .hint("name a socket, as in --socket-path /run/disk.sock")),
            },
        }
    }

    fn inherited(fd: i32) -> Result<Self, Diagnostic> {
        let wrong = |what: &str| Diagnostic::new(format!("descriptor {fd} {what}"));
        let hint = "it is a UNIX stream socket, listening or connected";
        let socket: OwnedFd = inherited(fd).map_err(|e| {
            wrong("cannot be taken")
                .cause(&e)
                .hint("whoever starts this process opens it and lets it be inherited")
        })?;
        let refused = |e: rustix::io::Errno| wrong("is no socket").cause(&e).hint(hint);
        let family = sockopt::socket_domain(&socket).map_err(refused)?;
        let kind = sockopt::socket_type(&socket).map_err(refused)?;
        if (family, kind) != (AddressFamily::UNIX, SocketType::STREAM) {
            return Err(wrong("is another kind of socket").hint(hint));
        }
        Ok(if sockopt::socket_acceptconn(&socket).map_err(refused)? {
            Self::Listening(socket.into())
        } else {
            Self::Connected(socket.into())
        })
    }
}

/// The descriptor that this process was activated with, if it was.
fn activated() -> Result<Option<i32>, Diagnostic> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(None);
    }
    match number("LISTEN_FDS") {
        None | Some(0) => Ok(None),
        Some(1) => Ok(Some(FIRST)),
        Some(count) => Err(Diagnostic::new(format!("{count} sockets for one device"))
            .hint("a device has one; give each its own ListenStream= unit")),
    }
}
