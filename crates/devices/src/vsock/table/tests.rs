//! The table by itself: every packet in and out of order, and any string of them.

use super::*;
use proptest::prelude::*;

const CID: u64 = 9;
const PORTS: Ports = Ports { guest: 1000, host: 52 };

fn from_guest(op: u16, ports: Ports) -> Header {
    Header {
        src_cid: CID,
        dst_cid: HOST_CID,
        src_port: ports.guest,
        dst_port: ports.host,
        kind: TYPE_STREAM,
        op,
        buf_alloc: 1000,
        ..Header::default()
    }
}

/// What is sent next, if it is a packet without payload.
fn next_packet(table: &mut Table) -> Option<Header> {
    match table.next()? {
        Next::Packet(header) => Some(header),
        Next::Data { .. } => None,
    }
}

fn next_op(table: &mut Table) -> Option<u16> {
    next_packet(table).map(|header| header.op)
}

fn established() -> Table {
    let mut table = Table::new(CID);
    assert_eq!(table.take(&from_guest(OP_REQUEST, PORTS), 0), Effect::Connect(PORTS));
    assert_eq!(table.next(), None, "nobody has been found yet");
    table.accept(PORTS);
    assert_eq!(next_op(&mut table), Some(OP_RESPONSE));
    table
}

#[test]
fn a_guest_is_refused_where_nobody_listens() {
    let mut table = Table::new(CID);
    table.take(&from_guest(OP_REQUEST, PORTS), 0);
    table.reset(PORTS);
    let answer = next_packet(&mut table).unwrap();
    assert_eq!((answer.op, answer.src_port, answer.dst_port), (OP_RST, PORTS.host, PORTS.guest));
    assert_eq!((answer.src_cid, answer.dst_cid), (HOST_CID, CID));
    // It may try again.
    assert_eq!(table.take(&from_guest(OP_REQUEST, PORTS), 0), Effect::Connect(PORTS));
}

#[test]
fn a_host_process_is_sent_on_when_the_guest_accepts() {
    let mut table = Table::new(CID);
    let ports = table.open(80).unwrap();
    assert_eq!(next_op(&mut table), Some(OP_REQUEST));
    table.has_data(ports);
    assert_eq!(table.next(), None, "not before it has accepted");
    assert_eq!(table.take(&from_guest(OP_RESPONSE, ports), 0), Effect::Accepted(ports));
    assert_eq!(table.next(), Some(Next::Data { ports, credit: 1000 }));
}

#[test]
fn the_guest_is_sent_no_more_than_it_has_room_for() {
    let mut table = established();
    table.has_data(PORTS);
    assert_eq!(table.next(), Some(Next::Data { ports: PORTS, credit: 1000 }));
    assert_eq!(table.sent(PORTS, 600).len, 600);
    assert_eq!(table.next(), Some(Next::Data { ports: PORTS, credit: 400 }));
    table.sent(PORTS, 400);
    assert_eq!(next_op(&mut table), Some(OP_CREDIT_REQUEST));
    assert_eq!(table.next(), None);

    let mut update = from_guest(OP_CREDIT_UPDATE, PORTS);
    update.fwd_cnt = 700;
    table.take(&update, 0);
    assert_eq!(table.next(), Some(Next::Data { ports: PORTS, credit: 700 }));
    // It says it passed on what it was never sent.
    update.fwd_cnt = 5000;
    table.take(&update, 0);
    assert_eq!(table.next(), None);
}

#[test]
fn the_guest_may_send_no_more_than_we_have_room_for() {
    let mut table = established();
    let mut data = from_guest(OP_RW, PORTS);
    data.len = BUF_ALLOC;
    assert_eq!(table.take(&data, BUF_ALLOC as usize), Effect::Data(PORTS));
    table.forwarded(PORTS, 10);
    assert_eq!(table.next(), None, "too little to tell");
    table.forwarded(PORTS, BUF_ALLOC as usize / 2);
    assert_eq!(next_op(&mut table), Some(OP_CREDIT_UPDATE));
    data.len = BUF_ALLOC / 2 + 11;
    assert_eq!(table.take(&data, data.len as usize), Effect::Closed(PORTS));
    assert_eq!(next_op(&mut table), Some(OP_RST));
}

#[test]
fn a_length_beyond_the_packet_ends_the_connection() {
    for (len, payload) in [(u32::MAX, 10), (11, 10), (1, 0)] {
        let mut table = established();
        let data = Header { len, ..from_guest(OP_RW, PORTS) };
        assert_eq!(table.take(&data, payload), Effect::Closed(PORTS));
    }
}

#[test]
fn what_is_out_of_order_is_answered_with_a_reset() {
    for op in [OP_RESPONSE, OP_RW, OP_SHUTDOWN, OP_CREDIT_UPDATE, OP_CREDIT_REQUEST, 0, 99] {
        let mut table = Table::new(CID);
        assert_eq!(table.take(&from_guest(op, PORTS), 0), Effect::Nothing);
        assert_eq!(next_op(&mut table), Some(OP_RST), "{op}");
    }
    let mut table = established();
    assert_eq!(table.take(&from_guest(OP_REQUEST, PORTS), 0), Effect::Closed(PORTS));
    assert_eq!(next_op(&mut table), Some(OP_RST));
    // Another kind of socket, another host; a reset is not answered, nor is a stranger.
    let seqpacket = Header { kind: 2, ..from_guest(OP_REQUEST, PORTS) };
    let elsewhere = Header { dst_cid: 7, ..from_guest(OP_REQUEST, PORTS) };
    for header in [seqpacket, elsewhere] {
        table.take(&header, 0);
        assert_eq!(table.next(), Some(Next::Packet(header.reset())));
    }
    table.take(&from_guest(OP_RST, PORTS), 0);
    table.take(&Header { src_cid: 4, ..from_guest(OP_REQUEST, PORTS) }, 0);
    assert_eq!(table.next(), None);
}

#[test]
fn an_end_comes_after_the_data() {
    let mut table = established();
    table.has_data(PORTS);
    assert!(matches!(table.next(), Some(Next::Data { .. })));
    table.sent(PORTS, 5);
    table.host_shutdown(PORTS, NO_SEND);
    let end = next_packet(&mut table).unwrap();
    assert_eq!((end.op, end.flags), (OP_SHUTDOWN, NO_SEND));
    table.host_shutdown(PORTS, NO_SEND);
    assert_eq!(table.next(), None, "once is enough");
    table.host_shutdown(PORTS, NO_RECEIVE);
    let end = next_packet(&mut table).unwrap();
    assert_eq!((end.op, end.flags), (OP_SHUTDOWN, NO_SEND | NO_RECEIVE));
}

#[test]
fn there_is_an_end_to_connections_and_to_answers() {
    let mut table = Table::new(CID);
    for guest in 0..MAX_CONNECTIONS as u32 {
        let ports = Ports { guest, host: 1 };
        assert_eq!(table.take(&from_guest(OP_REQUEST, ports), 0), Effect::Connect(ports));
        table.accept(ports);
    }
    assert_eq!(table.take(&from_guest(OP_REQUEST, PORTS), 0), Effect::Nothing);
    assert_eq!(table.open(1), None);
    assert_eq!(next_op(&mut table), Some(OP_RST));
    // One that both sides have left makes room.
    table.host_shutdown(Ports { guest: 7, host: 1 }, NO_SEND | NO_RECEIVE);
    assert!(table.open(1).is_some());
    assert_eq!(table.connections.len(), MAX_CONNECTIONS);

    let mut answers = 0;
    while table.has_room() {
        table.take(&from_guest(OP_RW, PORTS), 0);
        answers += 1;
    }
    assert_eq!(answers, MAX_RESETS);
    table.take(&from_guest(OP_RW, PORTS), 0);
    assert_eq!(table.resets.len(), MAX_RESETS);
    table.next();
    assert!(table.has_room());
}

proptest! {
    /// Whatever comes, in whatever order: nothing panics, nothing grows, everything is answered in
    /// the end, and no more is sent than there is credit for.
    #[test]
    fn any_packets(steps in prop::collection::vec((0u8..8, 0u16..9, 0u32..3, 0u32..3, any::<u32>()), 0..200)) {
        let mut table = Table::new(CID);
        for (what, op, guest, host, number) in steps {
            let ports = Ports { guest, host };
            match what {
                0 => drop(table.open(guest)),
                1 => table.has_data(ports),
                2 => table.host_shutdown(ports, number & 3),
                3 => {
                    if let Some(Next::Data { ports, credit }) = table.next() {
                        table.sent(ports, credit.min(number));
                    }
                }
                _ => {
                    let header = Header {
                        len: number >> 16, flags: number, buf_alloc: number, fwd_cnt: number / 2,
                        ..from_guest(op, ports)
                    };
                    let payload = (number & 0xffff) as usize;
                    match table.take(&header, payload) {
                        Effect::Connect(ports) if number & 1 == 0 => table.accept(ports),
                        Effect::Connect(ports) => table.reset(ports),
                        Effect::Data(ports) => table.forwarded(ports, (number >> 16) as usize),
                        Effect::Nothing | Effect::Accepted(_) | Effect::Shutdown(_) | Effect::Closed(_) => {}
                    }
                }
            }
            prop_assert!(table.turns.len() <= table.connections.len());
            prop_assert!(table.connections.len() <= MAX_CONNECTIONS);
        }
        let mut packets = 0;
        while let Some(next) = table.next() {
            if let Next::Data { ports, .. } = next {
                table.drained(ports);
            }
            packets += 1;
            prop_assert!(packets < 10_000, "there is an end to it");
        }
        prop_assert!(!table.has_next());
    }
}
