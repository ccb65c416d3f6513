//! What is known of every connection, and what follows from a packet. No sockets, no rings, no clock:
//! whoever has those feeds events in, carries out the [`Effect`]s, and sends what is [`Next`].
//!
//! Everything a guest can make grow is bounded: connections by [`MAX_CONNECTIONS`], packets that
//! answer none of them by [`MAX_RESETS`], bytes on their way to the host by [`BUF_ALLOC`] each. What
//! a connection owes the guest is a set, not a queue.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};

use super::packet::{
    HOST_CID, Header, NO_RECEIVE, NO_SEND, OP_CREDIT_REQUEST, OP_CREDIT_UPDATE, OP_REQUEST, OP_RESPONSE,
    OP_RST, OP_RW, OP_SHUTDOWN, TYPE_STREAM,
};

/// The most connections there are at a time.
pub(super) const MAX_CONNECTIONS: usize = 512;
/// The most answers that wait for packets of no connection.
pub(super) const MAX_RESETS: usize = 256;
/// The most bytes of a connection that wait for a host process to read (§5.10.6.3).
pub(super) const BUF_ALLOC: u32 = 128 << 10;

/// The first port of the host's end of connections that the host began.
const FIRST_HOST_PORT: u32 = 1 << 30;

/// Which connection: there is one guest and one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ports {
    pub(super) guest: u32,
    pub(super) host: u32,
}

/// What a packet from the guest asks the host to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    /// Find a host process for this connection: then [`Table::accept`] or [`Table::reset`].
    Connect(Ports),
    /// The guest has accepted a connection that the host began.
    Accepted(Ports),
    /// The payload is for the host process; [`Table::forwarded`] as it takes it.
    Data(Ports),
    /// The guest has closed one or both directions: see [`Table::guest_shutdown`].
    Shutdown(Ports),
    /// The connection is no more.
    Closed(Ports),
}

/// What the guest is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// A packet without payload.
    Packet(Header),
    /// Up to `credit` bytes of the host process: then [`Table::sent`], [`Table::drained`] or
    /// [`Table::host_shutdown`].
    Data { ports: Ports, credit: u32 },
}

/// All connections of one guest.
pub(super) struct Table {
    guest_cid: u64,
    connections: HashMap<Ports, Connection>,
    /// Connections with something to send, each once, first come first served.
    turns: VecDeque<Ports>,
    /// Answers to packets of no connection.
    resets: VecDeque<Header>,
    next_host_port: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The guest asks; a host process is looked for.
    AskedByGuest,
    /// The host asks; the guest has not answered.
    AskedByHost,
    Established,
}

#[derive(Debug)]
struct Connection {
    state: State,
    /// Bytes from the guest: come here, passed on to the host process, and said to have been.
    received: u32,
    forwarded: u32,
    announced: u32,
    /// Bytes to the guest, and what it says of its buffer.
    sent: u32,
    peer_buf_alloc: u32,
    peer_fwd_cnt: u32,
    /// The host process has written something.
    has_data: bool,
    /// [`NO_SEND`] and [`NO_RECEIVE`] of either side.
    guest_shutdown: u32,
    host_shutdown: u32,
    owed: Owed,
    in_turns: bool,
}

/// Packets the guest is to be sent.
#[derive(Debug, Clone, Copy, Default)]
struct Owed {
    request: bool,
    response: bool,
    credit_update: bool,
    credit_request: bool,
    shutdown: bool,
    /// The last one; nothing else matters.
    reset: bool,
}

impl Table {
    pub(super) fn new(guest_cid: u64) -> Self {
        Self {
            guest_cid,
            connections: HashMap::new(),
            turns: VecDeque::new(),
            resets: VecDeque::new(),
            next_host_port: FIRST_HOST_PORT,
        }
    }

    /// Whether another packet of the guest can be taken: if not, it waits until some are sent.
    pub(super) fn has_room(&self) -> bool {
        self.resets.len() < MAX_RESETS
    }

    /// Whether there is something to send.
    pub(super) fn has_next(&self) -> bool {
        !self.turns.is_empty() || !self.resets.is_empty()
    }

    /// Takes a packet of the guest; `payload` is how many bytes really follow the header.
    pub(super) fn take(&mut self, header: &Header, payload: usize) -> Effect {
        let ports = Ports { guest: header.src_port, host: header.dst_port };
        if header.src_cid != self.guest_cid {
            // Nobody it could be answered to.
            return Effect::Nothing;
        }
        let ours = header.dst_cid == HOST_CID && header.kind == TYPE_STREAM;
        let Some(connection) = self.connections.get_mut(&ports).filter(|_| ours) else {
            return match header.op {
                OP_RST => Effect::Nothing,
                OP_REQUEST if ours && self.make_room() => {
                    self.connections.insert(ports, Connection::new(State::AskedByGuest, header));
                    Effect::Connect(ports)
                }
                _ => self.refuse(header),
            };
        };
        connection.peer_buf_alloc = header.buf_alloc;
        connection.peer_fwd_cnt = header.fwd_cnt;
        let effect = match (header.op, connection.state) {
            (OP_RST, _) => {
                self.forget(ports);
                return Effect::Closed(ports);
            }
            _ if connection.owed.reset => Effect::Nothing,
            (OP_RESPONSE, State::AskedByHost) => {
                connection.state = State::Established;
                Effect::Accepted(ports)
            }
            (OP_RW, State::Established) if connection.takes(header.len, payload) => {
                connection.received = connection.received.wrapping_add(header.len);
                if header.len == 0 { Effect::Nothing } else { Effect::Data(ports) }
            }
            (OP_SHUTDOWN, State::Established) => {
                connection.guest_shutdown |= header.flags & (NO_RECEIVE | NO_SEND);
                Effect::Shutdown(ports)
            }
            (OP_CREDIT_UPDATE, State::Established) => Effect::Nothing,
            (OP_CREDIT_REQUEST, State::Established) => {
                connection.owed.credit_update = true;
                Effect::Nothing
            }
            // Out of order, beyond its credit, or unknown.
            _ => {
                self.reset(ports);
                return Effect::Closed(ports);
            }
        };
        self.take_turn(ports);
        effect
    }

    /// Begins a connection to `guest_port` from the host. `None` when there are too many.
    pub(super) fn open(&mut self, guest_port: u32) -> Option<Ports> {
        if !self.make_room() {
            return None;
        }
        let ports = loop {
            let ports = Ports { guest: guest_port, host: self.next_host_port };
            self.next_host_port = self.next_host_port.checked_add(1).unwrap_or(FIRST_HOST_PORT);
            if !self.connections.contains_key(&ports) {
                break ports;
            }
        };
        let mut connection = Connection::new(State::AskedByHost, &Header::default());
        connection.owed.request = true;
        self.connections.insert(ports, connection);
        self.take_turn(ports);
        Some(ports)
    }

    /// A host process has been found for [`Effect::Connect`].
    pub(super) fn accept(&mut self, ports: Ports) {
        if let Some(connection) = self.connections.get_mut(&ports) {
            connection.state = State::Established;
            connection.owed.response = true;
            self.take_turn(ports);
        }
    }

    /// Ends a connection at once.
    pub(super) fn reset(&mut self, ports: Ports) {
        if let Some(connection) = self.connections.get_mut(&ports) {
            connection.owed = Owed { reset: true, ..Owed::default() };
            self.take_turn(ports);
        }
    }

    /// The host process has taken `count` bytes (or they are thrown away because it has gone).
    pub(super) fn forwarded(&mut self, ports: Ports, count: usize) {
        let Some(connection) = self.connections.get_mut(&ports) else { return };
        let count = u32::try_from(count).expect("no more than its credit was taken");
        connection.forwarded = connection.forwarded.wrapping_add(count);
        if connection.forwarded.wrapping_sub(connection.announced) >= BUF_ALLOC / 4 {
            connection.owed.credit_update = true;
            self.take_turn(ports);
        }
    }

    /// The host process has written something.
    pub(super) fn has_data(&mut self, ports: Ports) {
        if let Some(connection) = self.connections.get_mut(&ports) {
            connection.has_data = true;
            self.take_turn(ports);
        }
    }

    /// There is nothing of the host process now.
    pub(super) fn drained(&mut self, ports: Ports) {
        if let Some(connection) = self.connections.get_mut(&ports) {
            connection.has_data = false;
        }
    }

    /// The host process will not send or not receive any more ([`NO_SEND`], [`NO_RECEIVE`]).
    pub(super) fn host_shutdown(&mut self, ports: Ports, directions: u32) {
        let Some(connection) = self.connections.get_mut(&ports) else { return };
        if connection.state != State::Established {
            // It did not wait for the guest's answer.
            self.reset(ports);
            return;
        }
        connection.has_data &= directions & NO_SEND == 0;
        if connection.host_shutdown | directions != connection.host_shutdown && !connection.owed.reset {
            connection.host_shutdown |= directions;
            connection.owed.shutdown = true;
            self.take_turn(ports);
        }
    }

    /// Whether both sides have agreed to a connection.
    pub(super) fn is_established(&self, ports: Ports) -> bool {
        self.connections.get(&ports).is_some_and(|connection| connection.state == State::Established)
    }

    /// Which directions the guest has closed: [`NO_SEND`], [`NO_RECEIVE`].
    pub(super) fn guest_shutdown(&self, ports: Ports) -> u32 {
        self.connections.get(&ports).map_or(NO_SEND | NO_RECEIVE, |connection| connection.guest_shutdown)
    }

    /// What the guest is to be sent next. A packet counts as sent.
    pub(super) fn next(&mut self) -> Option<Next> {
        if let Some(reset) = self.resets.pop_front() {
            return Some(Next::Packet(reset));
        }
        while let Some(ports) = self.turns.pop_front() {
            let Some(connection) = self.connections.get_mut(&ports) else { continue };
            connection.in_turns = false;
            if let Some(op) = connection.owed.take(connection.has_data) {
                let header = connection.header(self.guest_cid, ports, op);
                if op == OP_RST {
                    self.forget(ports);
                } else {
                    self.take_turn(ports);
                }
                return Some(Next::Packet(header));
            }
            if let credit @ 1.. = connection.sendable() {
                // It stays in turn until it has been drained.
                self.take_turn(ports);
                return Some(Next::Data { ports, credit });
            }
        }
        None
    }

    /// The header for `count` bytes that are sent, at most the credit of [`Next::Data`].
    pub(super) fn sent(&mut self, ports: Ports, count: u32) -> Header {
        let connection = self.connections.get_mut(&ports).expect("nothing came between next and sent");
        connection.sent = connection.sent.wrapping_add(count);
        if connection.credit() == 0 {
            connection.owed.credit_request = true;
        }
        Header { len: count, ..connection.header(self.guest_cid, ports, OP_RW) }
    }

    /// Whether there may be one more connection. One that both sides have left, and of which the
    /// guest only has to say so, makes room for another.
    fn make_room(&mut self) -> bool {
        if self.connections.len() < MAX_CONNECTIONS {
            return true;
        }
        let left = |connection: &Connection| connection.host_shutdown == NO_SEND | NO_RECEIVE;
        let old = self.connections.iter().find(|(_, connection)| left(connection)).map(|(ports, _)| *ports);
        old.is_some_and(|ports| {
            self.forget(ports);
            true
        })
    }

    /// Answers that there is no such connection.
    fn refuse(&mut self, header: &Header) -> Effect {
        // The caller asked for room; whoever did not, loses an answer and no memory.
        if self.has_room() {
            self.resets.push_back(header.reset());
        }
        Effect::Nothing
    }

    /// Puts a connection in turn if it has something to send.
    fn take_turn(&mut self, ports: Ports) {
        if let Some(connection) = self.connections.get_mut(&ports)
            && !connection.in_turns
            && (connection.owed.any() || connection.sendable() > 0)
        {
            connection.in_turns = true;
            self.turns.push_back(ports);
        }
    }

    fn forget(&mut self, ports: Ports) {
        if let Some(connection) = self.connections.remove(&ports)
            && connection.in_turns
        {
            self.turns.retain(|turn| *turn != ports);
        }
    }
}

impl Connection {
    fn new(state: State, header: &Header) -> Self {
        Self {
            state,
            received: 0,
            forwarded: 0,
            announced: 0,
            sent: 0,
            peer_buf_alloc: header.buf_alloc,
            peer_fwd_cnt: header.fwd_cnt,
            has_data: false,
            guest_shutdown: 0,
            host_shutdown: 0,
            owed: Owed::default(),
            in_turns: false,
        }
    }

    /// Whether the guest may send `len` bytes, and has.
    fn takes(&self, len: u32, payload: usize) -> bool {
        let waiting = self.received.wrapping_sub(self.forwarded);
        let fits = waiting.checked_add(len).is_some_and(|waiting| waiting <= BUF_ALLOC);
        fits && len as usize <= payload && self.guest_shutdown & NO_SEND == 0
    }

    /// How many bytes the guest has room for. What makes no sense is none.
    fn credit(&self) -> u32 {
        self.peer_buf_alloc.saturating_sub(self.sent.wrapping_sub(self.peer_fwd_cnt))
    }

    /// How many bytes of the host process can be sent now.
    fn sendable(&self) -> u32 {
        let open = self.state == State::Established && self.guest_shutdown & NO_RECEIVE == 0;
        if open && self.has_data { self.credit() } else { 0 }
    }

    fn header(&mut self, guest_cid: u64, ports: Ports, op: u16) -> Header {
        self.announced = self.forwarded;
        self.owed.credit_update = false;
        Header {
            src_cid: HOST_CID,
            dst_cid: guest_cid,
            src_port: ports.host,
            dst_port: ports.guest,
            len: 0,
            kind: TYPE_STREAM,
            op,
            flags: if op == OP_SHUTDOWN { self.host_shutdown } else { 0 },
            buf_alloc: BUF_ALLOC,
            fwd_cnt: self.forwarded,
        }
    }
}

impl Owed {
    fn any(self) -> bool {
        let Self { request, response, credit_update, credit_request, shutdown, reset } = self;
        request || response || credit_update || credit_request || shutdown || reset
    }

    /// Takes the next packet that is owed. Data goes before the end of it.
    fn take(&mut self, has_data: bool) -> Option<u16> {
        let Self { request, response, credit_update, credit_request, shutdown, reset } = self;
        let (flag, op) = match () {
            () if *reset => (reset, OP_RST),
            () if *request => (request, OP_REQUEST),
            () if *response => (response, OP_RESPONSE),
            () if *credit_update => (credit_update, OP_CREDIT_UPDATE),
            () if *credit_request => (credit_request, OP_CREDIT_REQUEST),
            () if *shutdown && !has_data => (shutdown, OP_SHUTDOWN),
            () => return None,
        };
        *flag = false;
        Some(op)
    }
}
