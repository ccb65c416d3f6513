//! The host's sockets behind the connections of a guest: carries out what [`Table`] says.
//!
//! One lock holds all of it. Both queues' threads take it for a packet or a turn at a time, and no
//! call in here waits.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use parador_virtio::{Chain, Reader};

use super::packet::{HEADER_LEN, Header, NO_RECEIVE, NO_SEND};
use super::table::{Effect, MAX_CONNECTIONS, Next, Ports, Table};
use crate::socket::Socket;
use crate::sys::{self, Doorbell, Epoll, Interest, Pieces};

/// The most payload of one packet to the guest, as in Linux.
const MAX_PAYLOAD: usize = 64 << 10;
/// The longest line a client begins with: `CONNECT 4294967295\n`, and some spaces.
const MAX_GREETING: usize = 32;
/// The most clients that have not said yet where they want to go.
const MAX_GREETINGS: usize = MAX_CONNECTIONS;
/// Events that are taken at a time, and how often in one turn.
const EVENTS: usize = 64;
const MAX_POLLS: usize = 32;

const LISTENER: u64 = 0;
const BELL: u64 = 1;
const FIRST_CLIENT: u64 = 2;

/// All sockets of one device.
pub(super) struct Muxer {
    table: Table,
    socket: Socket,
    streams: HashMap<Ports, Stream>,
    /// Clients that have not said yet where they want to go.
    greetings: HashMap<u64, UnixStream>,
    /// Which connection an event is for.
    by_token: HashMap<u64, Ports>,
    next_token: u64,
    epoll: Epoll,
    /// Wakes the receive queue when the transmit queue has left something to send.
    bell: Doorbell,
    /// The transmit queue waits for answers to be sent.
    is_stalled: bool,
    pieces: Pieces,
}

/// The socket of a connection.
struct Stream {
    socket: UnixStream,
    token: u64,
    /// What the host process had no room for; never more than the credit the guest was given.
    waiting: VecDeque<u8>,
}

impl Muxer {
    pub(super) fn new(guest_cid: u64, path: &Path) -> io::Result<Self> {
        let (socket, epoll, bell) = (Socket::listen(path)?, Epoll::new()?, Doorbell::new()?);
        epoll.add(socket.as_fd(), Interest::Readable, LISTENER)?;
        epoll.add(bell.as_fd(), Interest::Readable, BELL)?;
        Ok(Self {
            table: Table::new(guest_cid),
            socket,
            streams: HashMap::new(),
            greetings: HashMap::new(),
            by_token: HashMap::new(),
            next_token: FIRST_CLIENT,
            epoll,
            bell,
            is_stalled: false,
            pieces: Pieces::default(),
        })
    }

    /// Ends all connections, as if the device had just been made.
    pub(super) fn reset(&mut self, guest_cid: u64) {
        self.table = Table::new(guest_cid);
        self.streams.clear();
        self.greetings.clear();
        self.by_token.clear();
        self.is_stalled = false;
    }

    /// Fires when there may be something to send.
    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Looks at what happened to the sockets.
    pub(super) fn poll(&mut self) {
        for _ in 0..MAX_POLLS {
            let Ok(events) = self.epoll.poll::<EVENTS>() else { return };
            let mut count = 0;
            for event in events {
                count += 1;
                match event.token {
                    LISTENER => self.accept_clients(),
                    BELL => {}
                    token => self.client_event(token, event.readable || event.hang_up, event.writable),
                }
            }
            if count < EVENTS {
                return;
            }
        }
        // There is no end of it; the ring has a turn before the rest.
        self.bell.ring();
    }

    /// Whether there is something to send to the guest.
    pub(super) fn has_next(&self) -> bool {
        self.table.has_next()
    }

    /// Puts the next packet for the guest in `chain`, which has room for a header, and says how long
    /// it is. `None`: there is none.
    pub(super) fn send(&mut self, chain: &Chain) -> Option<usize> {
        loop {
            match self.table.next()? {
                Next::Packet(header) => {
                    chain.writer().write_all(&header.encode())?;
                    return Some(HEADER_LEN);
                }
                Next::Data { ports, credit } => {
                    if let Some(length) = self.send_data(chain, ports, credit) {
                        return Some(length);
                    }
                }
            }
        }
    }

    /// Whether the transmit queue waited for answers to be sent and can go on.
    pub(super) fn ends_stall(&mut self) -> bool {
        let ends = self.is_stalled && self.table.has_room();
        self.is_stalled &= !ends;
        ends
    }

    /// Whether another packet of the guest can be taken; if not, [`Muxer::ends_stall`] tells when.
    pub(super) fn has_room(&mut self) -> bool {
        self.is_stalled = !self.table.has_room();
        !self.is_stalled
    }

    /// Wakes the receive queue if there is something for it to do.
    pub(super) fn ring(&self) {
        if self.table.has_next() {
            self.bell.ring();
        }
    }

    /// Takes a packet of the guest.
    pub(super) fn take(&mut self, mut reader: Reader<'_>) {
        let mut header = [0; HEADER_LEN];
        if reader.read_exact(&mut header).is_none() {
            tracing::trace!("a packet is too short for its header");
            return;
        }
        let header = Header::parse(&header);
        match self.table.take(&header, reader.remaining()) {
            Effect::Nothing => {}
            Effect::Connect(ports) => self.connect(ports),
            Effect::Accepted(ports) => self.greet(ports),
            Effect::Data(ports) => self.deliver(ports, reader, header.len as usize),
            Effect::Shutdown(ports) => self.shut_down(ports),
            Effect::Closed(ports) => self.close(ports),
        }
    }

    fn send_data(&mut self, chain: &Chain, ports: Ports, credit: u32) -> Option<usize> {
        let Some(stream) = self.streams.get(&ports) else {
            self.table.drained(ports);
            return None;
        };
        let mut writer = chain.writer();
        writer.skip(HEADER_LEN);
        let room = writer.remaining().min(MAX_PAYLOAD).min(usize::try_from(credit).unwrap_or(usize::MAX));
        self.pieces.clear();
        self.pieces.add_room(&mut writer, room)?;
        match sys::read_pieces(stream.socket.as_fd(), &mut self.pieces) {
            Ok(0) => {
                self.host_ended(ports);
                None
            }
            Ok(count) => {
                let header = self.table.sent(ports, u32::try_from(count).expect("at most MAX_PAYLOAD"));
                chain.writer().write_all(&header.encode())?;
                Some(HEADER_LEN + count)
            }
            Err(error) if is_temporary(&error) => {
                self.table.drained(ports);
                None
            }
            Err(error) => {
                tracing::trace!(%error, ?ports, "a host process is gone");
                self.table.reset(ports);
                self.close(ports);
                None
            }
        }
    }

    /// The host process has written all it ever will.
    fn host_ended(&mut self, ports: Ports) {
        let is_gone = self.streams.get(&ports).is_none_or(|stream| sys::is_hung_up(stream.socket.as_fd()));
        if is_gone {
            // The guest still has to agree; the socket is of no more use.
            self.table.host_shutdown(ports, NO_SEND | NO_RECEIVE);
            self.close(ports);
        } else {
            self.table.host_shutdown(ports, NO_SEND);
        }
    }

    fn connect(&mut self, ports: Ports) {
        let path = numbered(self.socket.path(), ports.host);
        match sys::connect_now(&path).and_then(|socket| self.watch(socket, ports)) {
            Ok(()) => self.table.accept(ports),
            Err(error) => {
                tracing::trace!(%error, path = %path.display(), "nobody listens to the guest");
                self.table.reset(ports);
            }
        }
    }

    fn watch(&mut self, socket: UnixStream, ports: Ports) -> io::Result<()> {
        let token = self.new_token();
        self.epoll.add(socket.as_fd(), Interest::Readable, token)?;
        self.by_token.insert(token, ports);
        self.streams.insert(ports, Stream { socket, token, waiting: VecDeque::new() });
        Ok(())
    }

    /// Tells a client of ours that the guest has accepted, and on which port it is itself.
    fn greet(&mut self, ports: Ports) {
        let Some(stream) = self.streams.get_mut(&ports) else { return };
        let line = format!("OK {}\n", ports.host);
        // Nothing was written to it before, so there is room.
        if stream.socket.write_all(line.as_bytes()).is_err() {
            self.table.reset(ports);
            self.close(ports);
        } else {
            // It may have gone on talking without waiting for us.
            self.table.has_data(ports);
        }
    }

    /// Gives `length` bytes of the guest to the host process; what it has no room for waits.
    fn deliver(&mut self, ports: Ports, mut reader: Reader<'_>, length: usize) {
        let Some(stream) = self.streams.get_mut(&ports) else {
            // It has gone and the guest does not know yet.
            self.table.forwarded(ports, length);
            return;
        };
        let mut sent = 0;
        if stream.waiting.is_empty() {
            self.pieces.clear();
            self.pieces.add_data(&mut reader.clone(), length).expect("as much as the table was told");
            match sys::send_pieces(stream.socket.as_fd(), &mut self.pieces) {
                Ok(count) => sent = count,
                Err(error) if is_temporary(&error) => {}
                Err(_) => {
                    self.table.forwarded(ports, length);
                    self.table.host_shutdown(ports, NO_RECEIVE);
                    return;
                }
            }
        }
        reader.skip(sent);
        if sent < length {
            let mut left = length - sent;
            let mut bytes = [0; 4096];
            while left > 0 {
                let most = left.min(bytes.len());
                let count = reader.read(&mut bytes[..most]);
                stream.waiting.extend(&bytes[..count]);
                left -= count.max(1);
            }
            drop(self.epoll.modify(stream.socket.as_fd(), Interest::Both, stream.token));
        }
        self.table.forwarded(ports, sent);
    }

    /// Writes what waits; the host process has room again.
    fn flush(&mut self, ports: Ports) {
        let Some(stream) = self.streams.get_mut(&ports) else { return };
        while !stream.waiting.is_empty() {
            match stream.socket.write(stream.waiting.as_slices().0) {
                Ok(count) => {
                    stream.waiting.drain(..count);
                    self.table.forwarded(ports, count);
                }
                Err(error) if is_temporary(&error) => return,
                Err(_) => {
                    self.table.forwarded(ports, stream.waiting.len());
                    self.table.host_shutdown(ports, NO_RECEIVE);
                    stream.waiting.clear();
                }
            }
        }
        // Memory was only needed while the process was slow.
        stream.waiting = VecDeque::new();
        drop(self.epoll.modify(stream.socket.as_fd(), Interest::Readable, stream.token));
        self.shut_down(ports);
    }

    /// Does to the socket what the guest has done to the connection, once all before it is delivered.
    fn shut_down(&mut self, ports: Ports) {
        let Some(stream) = self.streams.get(&ports) else { return };
        if !stream.waiting.is_empty() {
            return;
        }
        let directions = self.table.guest_shutdown(ports);
        if directions == NO_SEND | NO_RECEIVE {
            self.table.reset(ports);
            self.close(ports);
        } else if directions & NO_SEND != 0 {
            drop(stream.socket.shutdown(Shutdown::Write));
        } else if directions & NO_RECEIVE != 0 {
            drop(stream.socket.shutdown(Shutdown::Read));
        }
    }

    fn close(&mut self, ports: Ports) {
        if let Some(stream) = self.streams.remove(&ports) {
            self.by_token.remove(&stream.token);
        }
    }

    fn accept_clients(&mut self) {
        // As many as there can be; what comes after waits for the next event.
        loop {
            let Ok(client) = self.socket.accept() else { return };
            if self.greetings.len() >= MAX_GREETINGS {
                tracing::debug!("a client is refused: too many have not said where they want to go");
                continue;
            }
            let token = self.new_token();
            if self.epoll.add(client.as_fd(), Interest::Readable, token).is_ok() {
                self.greetings.insert(token, client);
            }
        }
    }

    fn client_event(&mut self, token: u64, readable: bool, writable: bool) {
        if let Some(&ports) = self.by_token.get(&token) {
            if writable {
                self.flush(ports);
            }
            if readable {
                self.read_event(ports);
            }
        } else if let Some(client) = self.greetings.remove(&token) {
            match port_wanted(&client) {
                Greeting::Incomplete => drop(self.greetings.insert(token, client)),
                Greeting::Nonsense => {}
                Greeting::Port(port) => self.open(client, token, port),
            }
        }
    }

    fn read_event(&mut self, ports: Ports) {
        let Some(stream) = self.streams.get(&ports) else { return };
        let socket = stream.socket.as_fd();
        // Data is fetched when the guest has room for it. A process that is gone and left none is not
        // waited for until then, nor is one that left before the guest had answered.
        let left_nothing = || matches!(sys::peek(socket, &mut [0]), Ok(0));
        if sys::is_hung_up(socket) && (!self.table.is_established(ports) || left_nothing()) {
            self.host_ended(ports);
        } else {
            self.table.has_data(ports);
        }
    }

    fn open(&mut self, client: UnixStream, token: u64, port: u32) {
        // Without room the client finds its socket closed.
        let Some(ports) = self.table.open(port) else { return };
        self.by_token.insert(token, ports);
        self.streams.insert(ports, Stream { socket: client, token, waiting: VecDeque::new() });
    }

    fn new_token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token - 1
    }
}

/// What a client has said so far.
enum Greeting {
    Incomplete,
    Nonsense,
    Port(u32),
}

/// Reads the line `CONNECT port` off a client, and not a byte more.
fn port_wanted(mut client: &UnixStream) -> Greeting {
    let mut bytes = [0; MAX_GREETING];
    let length = match sys::peek(client.as_fd(), &mut bytes) {
        Ok(0) => return Greeting::Nonsense,
        Ok(length) => length,
        Err(error) if is_temporary(&error) => return Greeting::Incomplete,
        Err(_) => return Greeting::Nonsense,
    };
    let Some(end) = bytes[..length].iter().position(|&byte| byte == b'\n') else {
        return if length < bytes.len() { Greeting::Incomplete } else { Greeting::Nonsense };
    };
    if client.read_exact(&mut bytes[..=end]).is_err() {
        return Greeting::Nonsense;
    }
    let line = str::from_utf8(&bytes[..end]).unwrap_or_default();
    let mut words = line.split_ascii_whitespace();
    match (words.next(), words.next().map(str::parse), words.next()) {
        (Some(word), Some(Ok(port)), None) if word.eq_ignore_ascii_case("connect") => Greeting::Port(port),
        _ => Greeting::Nonsense,
    }
}

/// The socket on which the host listens for what the guest sends to `port`.
fn numbered(path: &Path, port: u32) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(format!("_{port}"));
    PathBuf::from(path)
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
