//! The socket device against the model driver, with real sockets at the host's end.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use parador_virtio::GuestAddress;
use parador_virtio::testing::hostile::Source;
use parador_virtio::testing::{Harness, PATIENCE, seeds};
use vm_memory::Bytes;

use super::packet::*;
use super::table::{BUF_ALLOC, MAX_CONNECTIONS, MAX_RESETS};
use super::*;

const A_WHILE: Duration = Duration::from_millis(100);
const CID: u64 = 5;
const GUEST_PORT: u32 = 1234;
const HOST_PORT: u32 = 52;

/// A guest, as far as its driver goes.
struct Guest {
    harness: Harness,
    directory: tempfile::TempDir,
    buf_alloc: u32,
    fwd_cnt: u32,
}

impl Guest {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("vsock");
        let harness = Harness::new(Vsock::new(VsockOptions { cid: CID, socket }).unwrap());
        let mut guest = Self { harness, directory, buf_alloc: 64 << 10, fwd_cnt: 0 };
        guest.give_buffers(32);
        guest
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("vsock")
    }

    fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.directory.path().join(format!("vsock_{port}"))).unwrap()
    }

    fn give_buffers(&mut self, count: usize) {
        let driver = self.harness.driver(RECEIVE);
        for _ in 0..count {
            driver.add(&[], &[HEADER_LEN, 4096]).unwrap();
        }
        driver.kick();
    }

    fn header(&self, op: u16, ports: (u32, u32), len: usize) -> Header {
        Header {
            src_cid: CID,
            dst_cid: HOST_CID,
            src_port: ports.0,
            dst_port: ports.1,
            len: len as u32,
            kind: TYPE_STREAM,
            op,
            flags: 0,
            buf_alloc: self.buf_alloc,
            fwd_cnt: self.fwd_cnt,
        }
    }

    fn send(&mut self, op: u16, ports: (u32, u32), flags: u32, payload: &[u8]) {
        let header = Header { flags, ..self.header(op, ports, payload.len()) }.encode();
        let parts: [&[u8]; 2] = [&header, payload];
        let parts = if payload.is_empty() { &parts[..1] } else { &parts[..] };
        self.harness.request(TRANSMIT, parts, &[]);
    }

    /// The next packet for the guest, if one comes within `timeout`; its buffer is replaced.
    fn receive_within(&mut self, timeout: Duration) -> Option<(Header, Vec<u8>)> {
        let used = self.harness.driver(RECEIVE).wait_used(timeout)?;
        let data = &used.data[..used.written as usize];
        let (header, payload) = data.split_first_chunk().unwrap();
        let header = Header::parse(header);
        assert_eq!(header.len as usize, payload.len());
        assert_eq!((header.src_cid, header.dst_cid), (HOST_CID, CID));
        let payload = payload.to_vec();
        self.give_buffers(1);
        Some((header, payload))
    }

    fn receive(&mut self) -> (Header, Vec<u8>) {
        self.receive_within(PATIENCE).unwrap()
    }

    /// The next packet, which is `op`.
    fn expect(&mut self, op: u16) -> (Header, Vec<u8>) {
        let (header, payload) = self.receive();
        assert_eq!(header.op, op, "{header:?}");
        (header, payload)
    }

    /// A connection from the guest, and its other end.
    fn connect(&mut self) -> UnixStream {
        let listener = self.listen(HOST_PORT);
        self.send(OP_REQUEST, (GUEST_PORT, HOST_PORT), 0, &[]);
        let (header, _) = self.expect(OP_RESPONSE);
        assert_eq!((header.src_port, header.dst_port), (HOST_PORT, GUEST_PORT));
        listener.accept().unwrap().0
    }
}

const PORTS: (u32, u32) = (GUEST_PORT, HOST_PORT);

fn text(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 3) as u8 ^ seed).collect()
}

#[test]
fn a_guest_reaches_a_host_process() {
    let mut guest = Guest::new();
    let mut host = guest.connect();
    guest.send(OP_RW, PORTS, 0, b"hello host");
    let mut heard = [0; 10];
    host.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello host");
    host.write_all(b"hello guest").unwrap();
    assert_eq!(guest.expect(OP_RW).1, b"hello guest");

    // The process has said all it will, and still listens.
    host.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(guest.expect(OP_SHUTDOWN).0.flags, NO_SEND);
    guest.send(OP_RW, PORTS, 0, b"bye");
    guest.send(OP_SHUTDOWN, PORTS, NO_SEND | NO_RECEIVE, &[]);
    guest.expect(OP_RST);
    let mut rest = Vec::new();
    host.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"bye");
}

#[test]
fn a_host_process_reaches_a_guest() {
    let mut guest = Guest::new();
    let mut host = UnixStream::connect(guest.path()).unwrap();
    // In pieces, and with what it wants to say right behind.
    host.write_all(b"CONN").unwrap();
    std::thread::sleep(A_WHILE / 10);
    host.write_all(b"ECT 80\nGET /").unwrap();
    let (request, _) = guest.expect(OP_REQUEST);
    assert_eq!(request.dst_port, 80);
    let ports = (80, request.src_port);
    guest.send(OP_RESPONSE, ports, 0, &[]);
    let mut answer = vec![0; format!("OK {}\n", ports.1).len()];
    host.read_exact(&mut answer).unwrap();
    assert_eq!(answer, format!("OK {}\n", ports.1).as_bytes());
    assert_eq!(guest.expect(OP_RW).1, b"GET /");
    guest.send(OP_RW, ports, 0, b"200");
    let mut heard = [0; 3];
    host.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"200");
    drop(host);
    assert_eq!(guest.expect(OP_SHUTDOWN).0.flags, NO_SEND | NO_RECEIVE);
    // What it sends meanwhile is nobody's.
    guest.send(OP_RW, ports, 0, b"too late");
    guest.send(OP_RST, ports, 0, &[]);
    assert!(guest.receive_within(A_WHILE).is_none());
}

#[test]
fn who_is_refused_is_told() {
    let mut guest = Guest::new();
    guest.send(OP_REQUEST, PORTS, 0, &[]);
    guest.expect(OP_RST);

    let mut host = UnixStream::connect(guest.path()).unwrap();
    host.write_all(b"CONNECT 9\n").unwrap();
    let (request, _) = guest.expect(OP_REQUEST);
    guest.send(OP_RST, (9, request.src_port), 0, &[]);
    assert_eq!(host.read(&mut [0]).unwrap(), 0);

    for nonsense in ["GET / HTTP/1.1\n", "CONNECT\n", "CONNECT 1 2\n", "CONNECT -1\n", "CONNECT 4294967296\n"]
    {
        let mut host = UnixStream::connect(guest.path()).unwrap();
        host.write_all(nonsense.as_bytes()).unwrap();
        assert_eq!(host.read(&mut [0]).unwrap_or(0), 0, "{nonsense}");
    }
    let mut host = UnixStream::connect(guest.path()).unwrap();
    drop(host.write_all(&[b'x'; 100]));
    assert_eq!(host.read(&mut [0]).unwrap_or(0), 0);
    assert!(guest.receive_within(A_WHILE).is_none());

    // One that leaves before the guest has answered.
    let mut host = UnixStream::connect(guest.path()).unwrap();
    host.write_all(b"connect 9\nhello").unwrap();
    let (request, _) = guest.expect(OP_REQUEST);
    drop(host);
    assert_eq!(guest.expect(OP_RST).0.src_port, request.src_port);
}

#[test]
fn much_goes_both_ways_at_once() {
    const LENGTH: usize = 3 << 20;
    let mut guest = Guest::new();
    let host = guest.connect();
    let (up, down) = (text(1, LENGTH), text(2, LENGTH));
    let writer = std::thread::spawn({
        let (mut host, down) = (host.try_clone().unwrap(), down.clone());
        move || host.write_all(&down).unwrap()
    });
    let reader = std::thread::spawn(move || {
        let (mut host, mut all) = (host, vec![0; LENGTH]);
        host.read_exact(&mut all).unwrap();
        (host, all)
    });
    let (mut sent, mut free, mut forwarded) = (0, BUF_ALLOC as usize, 0);
    let mut got = Vec::new();
    while sent < LENGTH || got.len() < LENGTH {
        let step = (LENGTH - sent).min(free - (sent - forwarded)).min(4096);
        if step > 0 {
            guest.fwd_cnt = got.len() as u32;
            guest.send(OP_RW, PORTS, 0, &up[sent..sent + step]);
            sent += step;
        }
        let timeout = if step > 0 { Duration::ZERO } else { PATIENCE };
        if let Some((header, payload)) = guest.receive_within(timeout) {
            got.extend(payload);
            (free, forwarded) = (header.buf_alloc as usize, header.fwd_cnt as usize);
            if header.op == OP_CREDIT_REQUEST || got.len() - guest.fwd_cnt as usize > 16 << 10 {
                guest.fwd_cnt = got.len() as u32;
                guest.send(OP_CREDIT_UPDATE, PORTS, 0, &[]);
            }
        }
    }
    writer.join().unwrap();
    let (_host, all) = reader.join().unwrap();
    assert!(all == up && got == down);
}

#[test]
fn a_process_that_does_not_read_is_given_its_credit_and_no_more() {
    let mut guest = Guest::new();
    let mut host = guest.connect();
    let data = text(7, 4096);
    let mut forwarded = 0;
    let mut sent = 0;
    // Until the guest has no credit left, whatever the socket holds by itself.
    while sent - forwarded < BUF_ALLOC as usize {
        guest.send(OP_RW, PORTS, 0, &data);
        sent += data.len();
        while let Some((header, _)) = guest.receive_within(Duration::from_millis(2)) {
            assert_eq!(header.op, OP_CREDIT_UPDATE);
            forwarded = header.fwd_cnt as usize;
        }
    }
    // A pause in between loses nothing.
    guest.harness.pause();
    guest.give_buffers(0);
    let before = processor_time();
    std::thread::sleep(3 * A_WHILE);
    assert!(processor_time() - before < A_WHILE / 2, "a device that waits does not work");

    let mut all = vec![0; sent];
    host.read_exact(&mut all).unwrap();
    assert!(all == data.repeat(sent / data.len()));
    assert_eq!(guest.expect(OP_CREDIT_UPDATE).0.op, OP_CREDIT_UPDATE);

    // And one byte more than its credit ends it.
    let rest = vec![0; BUF_ALLOC as usize + 1];
    let header = guest.header(OP_RW, PORTS, rest.len()).encode();
    guest.harness.request(TRANSMIT, &[&header, &rest], &[]);
    loop {
        if guest.receive().0.op == OP_RST {
            break;
        }
    }
    assert_eq!(host.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_guest_that_does_not_read_holds_up_the_process() {
    let mut guest = Guest::new();
    guest.buf_alloc = 1000;
    let mut host = guest.connect();
    host.set_nonblocking(true).unwrap();
    while host.write(&[1; 4096]).is_ok() {}
    let mut got = 0;
    // All it has room for, and then no more.
    while let Some((header, payload)) = guest.receive_within(if got < 1000 { PATIENCE } else { A_WHILE }) {
        got += payload.len();
        assert!(matches!(header.op, OP_RW | OP_CREDIT_REQUEST));
    }
    assert_eq!(got, 1000);
    let before = processor_time();
    std::thread::sleep(3 * A_WHILE);
    assert!(processor_time() - before < A_WHILE / 2, "a device that waits does not work");
    guest.fwd_cnt = 1000;
    guest.send(OP_CREDIT_UPDATE, PORTS, 0, &[]);
    assert_eq!(guest.expect(OP_RW).1.len(), 1000);
}

#[test]
fn answers_wait_for_buffers_and_packets_for_answers() {
    let mut guest = Guest::new();
    // More packets of no connection than there are buffers and answers kept.
    const COUNT: usize = MAX_RESETS + 100;
    let header = guest.header(OP_RW, (1, 2), 0).encode();
    let mut sent = 0;
    let driver = guest.harness.driver(TRANSMIT);
    while sent < COUNT {
        if driver.add(&[&header], &[]).is_some() {
            sent += 1;
        } else {
            driver.kick();
            if driver.wait_used(A_WHILE).is_none() {
                break;
            }
        }
    }
    driver.kick();
    assert!(sent < COUNT || guest.harness.driver(TRANSMIT).in_flight() > 0, "the rest waits in the ring");
    for _ in 0..sent {
        guest.expect(OP_RST);
    }
    assert!(guest.receive_within(A_WHILE).is_none(), "each is answered once");
}

#[test]
fn hostile_packets_end_connections_and_nothing_else() {
    let mut guest = Guest::new();
    let header = guest.header(OP_RW, PORTS, 0).encode();
    guest.harness.request(TRANSMIT, &[&header[..43]], &[]);
    guest.harness.request(TRANSMIT, &[&[0]], &[]);
    guest.harness.request(TRANSMIT, &[], &[44]);
    assert!(guest.receive_within(A_WHILE).is_none());
    for len in [5, 4096, u32::MAX] {
        let host = guest.connect();
        let header = Header { len, ..guest.header(OP_RW, PORTS, 0) }.encode();
        guest.harness.request(TRANSMIT, &[&header, b"four"], &[]);
        guest.expect(OP_RST);
        drop(host);
        std::fs::remove_file(guest.directory.path().join(format!("vsock_{HOST_PORT}"))).unwrap();
    }
}

#[test]
fn a_header_that_changes_while_it_is_read_is_read_once() {
    let mut guest = Guest::new();
    let listener = guest.listen(HOST_PORT);
    // Another processor of the guest flips the length between good ones and bad ones.
    let target: Arc<Mutex<Option<u64>>> = Arc::default();
    let memory = Arc::clone(guest.harness.driver(TRANSMIT).arena().memory());
    let flipper = Arc::downgrade(&target);
    let flipper = std::thread::spawn(move || {
        while let Some(target) = flipper.upgrade() {
            if let Some(header) = *target.lock().unwrap() {
                for len in [16u32, u32::MAX, 8, 4000, 16, 16, 16] {
                    memory.write_slice(&len.to_le_bytes(), GuestAddress(header + 24)).unwrap();
                }
            }
            std::thread::yield_now();
        }
    });
    for _ in 0..200 {
        guest.send(OP_REQUEST, PORTS, 0, &[]);
        // What was wrong the last time has been answered by then.
        while guest.receive().0.op == OP_RST {}
        let (mut host, _) = listener.accept().unwrap();
        for _ in 0..8 {
            let header = guest.header(OP_RW, PORTS, 16).encode();
            let driver = guest.harness.driver(TRANSMIT);
            let head = driver.add(&[&header, &[b'p'; 16]], &[]).unwrap();
            let descriptor = driver.layout().descriptors + 16 * u64::from(head);
            *target.lock().unwrap() = Some(driver.memory().read_obj(GuestAddress(descriptor)).unwrap());
            driver.kick();
            driver.wait_used(PATIENCE).unwrap();
            *target.lock().unwrap() = None;
        }
        guest.send(OP_RST, PORTS, 0, &[]);
        let mut heard = Vec::new();
        host.read_to_end(&mut heard).unwrap();
        assert!(heard.len() <= 8 * 16 && heard.iter().all(|&byte| byte == b'p'), "{heard:?}");
    }
    drop(target);
    flipper.join().unwrap();
}

#[test]
fn any_packets_leave_a_device_that_works() {
    let mut guest = Guest::new();
    let listeners = [guest.listen(1), guest.listen(2)];
    listeners.iter().for_each(|listener| listener.set_nonblocking(true).unwrap());
    let mut hosts: Vec<UnixStream> = Vec::new();
    for bytes in seeds(500, 400) {
        let mut source = Source::new(&bytes);
        while !source.is_empty() {
            let ports = (source.below(3) as u32, source.below(4) as u32);
            let (op, flags) = (source.choose(&[1, 1, 2, 3, 4, 5, 5, 5, 5, 6, 7, 99]), source.below(4) as u32);
            guest.buf_alloc = source.choose(&[0, 1, 4096, u32::MAX]);
            guest.fwd_cnt = source.choose(&[0, 0, 1, 4096, u32::MAX]);
            let payload = vec![b'x'; if op == OP_RW { source.below(256) * source.below(30) } else { 0 }];
            // The device takes no more packets while too many answers wait for buffers.
            while guest.receive_within(Duration::ZERO).is_some() {}
            guest.send(op, ports, flags, &payload);
            hosts
                .extend(listeners.iter().filter_map(|listener| listener.accept().ok()).map(|(host, _)| host));
            let Some(mut host) =
                (!hosts.is_empty()).then(|| hosts.swap_remove(source.below(hosts.len().min(256))))
            else {
                continue;
            };
            host.set_nonblocking(true).unwrap();
            // Write, read, close one direction, or leave.
            match source.below(6) {
                0 => drop(host.write(&vec![b'y'; 5000])),
                1 | 2 => drop(host.read(&mut vec![0; 70_000])),
                3 => drop(host.shutdown(std::net::Shutdown::Write)),
                4 => drop(host.shutdown(std::net::Shutdown::Read)),
                _ => continue,
            }
            hosts.push(host);
        }
    }
    hosts.clear();
    guest.harness.reset();
    guest.give_buffers(8);
    (guest.buf_alloc, guest.fwd_cnt) = (4096, 0);
    let mut host = guest.connect();
    guest.send(OP_RW, PORTS, 0, b"alive");
    let mut heard = [0; 5];
    host.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"alive");
}

#[test]
fn there_is_an_end_to_clients() {
    let mut guest = Guest::new();
    // As many as may be silent; one more is closed at once.
    let silent: Vec<_> = (0..MAX_CONNECTIONS).map_while(|_| UnixStream::connect(guest.path()).ok()).collect();
    if silent.len() < MAX_CONNECTIONS {
        eprintln!("skipped: this machine allows too few connections");
        return;
    }
    std::thread::sleep(A_WHILE);
    let mut one_more = UnixStream::connect(guest.path()).unwrap();
    one_more.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(one_more.read(&mut [0]).unwrap_or(0), 0);
    drop(silent);
    std::thread::sleep(A_WHILE);
    let mut client = UnixStream::connect(guest.path()).unwrap();
    client.write_all(b"CONNECT 1\n").unwrap();
    guest.expect(OP_REQUEST);
}

#[test]
fn a_reset_ends_everything() {
    let mut guest = Guest::new();
    let mut host = guest.connect();
    guest.harness.reset();
    assert_eq!(host.read(&mut [0]).unwrap(), 0);
    guest.give_buffers(8);
    std::fs::remove_file(guest.directory.path().join(format!("vsock_{HOST_PORT}"))).unwrap();
    guest.connect();
    let path = guest.path();
    drop(guest.harness);
    assert!(!path.exists());
}

#[test]
fn what_cannot_be_is_refused() {
    for cid in [0, 1, 2, 0xffff_ffff, u64::MAX] {
        let options = VsockOptions { cid, socket: "/nowhere".into() };
        assert!(matches!(Vsock::new(options), Err(VsockError::Cid(_))));
    }
    let options = VsockOptions { cid: 3, socket: "/no/such/directory/vsock".into() };
    let error = Vsock::new(options).err().unwrap();
    assert!(error.to_string().contains("/no/such/directory/vsock"));
    let directory = tempfile::tempdir().unwrap();
    let device = Vsock::new(VsockOptions { cid: 0x1234, socket: directory.path().join("v") }).unwrap();
    assert_eq!(Harness::new(device).config(0, 8), [0x34, 0x12, 0, 0, 0, 0, 0, 0]);
    assert!(!Path::new(&directory.path().join("v")).exists());
}

/// Processor time of this process. The test runner gives each test its own.
fn processor_time() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("schedstat")).ok())
        .filter_map(|stat| stat.split(' ').next()?.parse().ok())
        .map(Duration::from_nanos)
        .sum()
}
