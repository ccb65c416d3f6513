//! The host's end of the first serial port.

#![expect(unsafe_code, reason = "makes pseudo-terminals")]

use std::ffi::{CStr, OsStr};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use parador_config::Endpoint;
use parador_devices::socket::Socket;
use parador_machine::SerialLine;

use crate::launch::Stdio;

/// Connects a serial port, unless nothing is at its other end; and the name of that end, if it is a
/// pseudo-terminal.
///
/// # Errors
/// What the host says to making or opening it.
pub(crate) fn serial(
    endpoint: &Endpoint,
    stdio: &mut Stdio,
) -> io::Result<(Option<SerialLine>, Option<PathBuf>)> {
    let mut terminal = None;
    let serial = match endpoint {
        Endpoint::None => None,
        Endpoint::Stdio => match stdio.output.take() {
            Some(output) => {
                Some(SerialLine { output: output.into(), input: stdio.input.take().map(File::from) })
            }
            None => None,
        },
        Endpoint::Pty => {
            let (file, name) = pseudo_terminal()?;
            terminal = Some(name);
            Some(SerialLine { input: Some(file.try_clone()?), output: file })
        }
        Endpoint::File(path) => {
            let output = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
            Some(SerialLine { output, input: None })
        }
        Endpoint::Unix(path) => {
            let file = socket(Path::new(path))?;
            Some(SerialLine { input: Some(file.try_clone()?), output: file })
        }
    };
    Ok((serial, terminal))
}

/// A new pseudo-terminal in raw mode: our end, and the name of the other.
fn pseudo_terminal() -> io::Result<(File, PathBuf)> {
    // SAFETY: no pointers.
    let fd =
        unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC | libc::O_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor just made, which nobody else has.
    let ours = unsafe { File::from_raw_fd(fd) };
    let mut name = [0; 64];
    // SAFETY: the buffer and its length; both calls before need no pointers.
    let refused = unsafe {
        libc::grantpt(fd) != 0
            || libc::unlockpt(fd) != 0
            || libc::ptsname_r(fd, name.as_mut_ptr(), name.len()) != 0
    };
    if refused {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: ptsname_r has put a terminated string there.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    let name = PathBuf::from(OsStr::from_bytes(name.to_bytes()));
    let theirs = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(&name)?;
    // SAFETY: all zeroes is a value of this plain data.
    let mut modes: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the structure outlives the calls.
    unsafe {
        libc::tcgetattr(theirs.as_raw_fd(), &raw mut modes);
        libc::cfmakeraw(&raw mut modes);
        libc::tcsetattr(theirs.as_raw_fd(), libc::TCSANOW, &raw const modes);
    }
    // Without anybody at the other end our reads would fail, rather than wait for somebody.
    std::mem::forget(theirs);
    Ok((ours, name))
}

/// A UNIX socket at `path` that takes one client after the other, and our end of what it says.
fn socket(path: &Path) -> io::Result<File> {
    let socket = Socket::listen(path)?;
    let (ours, relayed) = UnixStream::pair()?;
    relayed.set_nonblocking(true)?;
    std::thread::Builder::new()
        .name("console".to_owned())
        .stack_size(64 << 10)
        .spawn(move || relay(socket.listener(), relayed))?;
    Ok(File::from(OwnedFd::from(ours)))
}

/// Passes bytes between the guest and one client at a time. What is not read is dropped, so that
/// neither can hold the other.
fn relay(listener: &UnixListener, mut guest: UnixStream) {
    let mut client: Option<UnixStream> = None;
    let mut bytes = [0; 4096];
    loop {
        let waiting = match &client {
            Some(client) => client.as_raw_fd(),
            None => listener.as_raw_fd(),
        };
        let [from_guest, from_client] = readable([guest.as_raw_fd(), waiting]);
        if from_guest {
            match guest.read(&mut bytes) {
                Ok(0) => return,
                Ok(count) => {
                    if let Some(client) = &mut client {
                        // Not `write_all`: a client that does not read must not hold the guest.
                        let _ = client.write(&bytes[..count]);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
        if !from_client {
            continue;
        }
        client = match client.take() {
            None => listener.accept().ok().and_then(|(client, _)| {
                client.set_nonblocking(true).ok()?;
                Some(client)
            }),
            Some(mut client) => match client.read(&mut bytes) {
                Ok(0) => None,
                Ok(count) => {
                    // What a guest does not read is lost, as on any serial line.
                    let _ = guest.write(&bytes[..count]);
                    Some(client)
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Some(client),
                Err(_) => None,
            },
        };
    }
}

fn readable<const N: usize>(fds: [libc::c_int; N]) -> [bool; N] {
    let mut polled = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    // SAFETY: the array and its length; it outlives the call. After a failure (EINTR) nothing is ready.
    unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, -1) };
    polled.map(|polled| polled.revents != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(endpoint: &Endpoint) -> (SerialLine, Option<PathBuf>) {
        let mut stdio = Stdio { input: None, output: None, size: None };
        let (serial, terminal) = serial(endpoint, &mut stdio).unwrap();
        (serial.unwrap(), terminal)
    }

    #[test]
    fn a_pseudo_terminal_passes_bytes_as_they_are_and_outlives_who_opens_it() {
        let (mut line, name) = connect(&Endpoint::Pty);
        let name = name.unwrap();
        for _ in 0..2 {
            let mut other = OpenOptions::new().read(true).write(true).open(&name).unwrap();
            line.output.write_all(b"a\nb").unwrap();
            let mut read = [0; 3];
            other.read_exact(&mut read).unwrap();
            assert_eq!(&read, b"a\nb", "no CR is added");
            other.write_all(b"\x03").unwrap();
            let input = line.input.as_mut().unwrap();
            while let Err(e) = input.read_exact(&mut read[..1]) {
                assert_eq!(e.kind(), io::ErrorKind::WouldBlock, "it never fails and never waits");
                std::thread::yield_now();
            }
            assert_eq!(read[0], 3, "and Ctrl-C is a byte");
        }
    }

    #[test]
    fn a_socket_takes_one_client_after_the_other_and_the_place_of_a_dead_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("com1");
        drop(UnixListener::bind(&path).unwrap());
        let (mut line, _) = connect(&Endpoint::Unix(path.to_str().unwrap().to_owned()));
        line.output.write_all(b"nobody hears this").unwrap();
        for _ in 0..2 {
            let mut client = UnixStream::connect(&path).unwrap();
            client.write_all(b"in").unwrap();
            let mut read = [0; 2];
            line.input.as_mut().unwrap().read_exact(&mut read).unwrap();
            assert_eq!(&read, b"in");
            line.output.write_all(b"ou").unwrap();
            // The first may still find what was said before anybody listened.
            let mut heard = Vec::new();
            while !heard.ends_with(b"ou") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                heard.push(byte[0]);
            }
        }
    }

    #[test]
    fn nobody_takes_a_socket_that_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("com1");
        let _held = UnixListener::bind(&path).unwrap();
        let mut stdio = Stdio { input: None, output: None, size: None };
        let error = serial(&Endpoint::Unix(path.to_str().unwrap().to_owned()), &mut stdio).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let file = folder.path().join("precious");
        std::fs::write(&file, "data").unwrap();
        assert!(serial(&Endpoint::Unix(file.to_str().unwrap().to_owned()), &mut stdio).is_err());
        assert_eq!(std::fs::read(&file).unwrap(), b"data", "a file that is no socket stays");
    }
}
