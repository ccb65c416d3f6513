//! Front-ends that come and go.

use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use parador_vhost_user::message::{FrontendRequest as R, MemoryRegion, Payload};
use parador_vhost_user::server::Server;
use parador_vhost_user::socket::Connection;
use parador_virtio::EventFd;

use crate::borrow::borrow;
use crate::device::Echo;
use crate::front::{FEATURES, Front, USER, clone_fd, echo, memfd};

fn ask_features(connection: &Connection) -> u64 {
    connection.send(&R::GetFeatures.message(), &[]).unwrap();
    u64::parse(&connection.receive().unwrap().expect("an answer").0.payload).unwrap()
}

#[test]
fn the_next_front_end_waits_until_the_first_is_gone() {
    // X5
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let stop = EventFd::new(0).unwrap();
    let fired = clone_fd(&stop);
    let server = thread::spawn(move || Server::new(Box::new(Echo::new())).accept(&listener, &fired));
    let connect = || Connection::new(UnixStream::connect(&path).unwrap());
    let first = connect();
    let features = ask_features(&first);
    let second = connect();
    second.send(&R::GetFeatures.message(), &[]).unwrap();
    assert_eq!(ask_features(&first), features, "undisturbed");
    drop(first);
    assert!(second.receive().unwrap().is_some());
    stop.write(1).unwrap();
    server.join().unwrap().unwrap();
    assert!(second.receive().unwrap().is_none(), "closed");
}

#[test]
fn a_session_that_is_stopped_has_completed_its_requests() {
    let front = Front::new(Echo::new());
    let mut driver = front.start(0);
    front.seen.hold.store(true, std::sync::atomic::Ordering::SeqCst);
    driver.add(&[b"kept"], &[4]);
    driver.kick();
    front.wait_taken(1);
    front.stop().unwrap();
    assert_eq!(driver.take_used().expect("complete").data, b"kept");
}

/// What QEMU 7.2 says to a disk of two queues from its firmware's start to a reset , with one ring in use.
fn golden() -> Vec<R> {
    use parador_vhost_user::message::{Config, ConfigFlags, Inflight, VringAddr, VringFd, VringState};
    let fd = |index| VringFd { index, has_fd: true };
    let state = |index, num| VringState { index, num };
    let config = Config { offset: 0, flags: ConfigFlags::Writable, data: vec![0; 57] };
    let inflight = Inflight { queues: 2, queue_size: 128, mmap_size: 2 * 2112, mmap_offset: 0 };
    let region = |page: u64| MemoryRegion {
        guest_address: page << 20,
        size: 1 << 20,
        user_address: USER + (page << 20),
        mmap_offset: page << 20,
    };
    let ring = VringAddr {
        index: 0,
        descriptor: USER + 0x1000,
        available: USER + 0x2000,
        used: USER + 0x3000,
        ..VringAddr::default()
    };
    let features = FEATURES | 1 << 5;
    let start = [R::SetVringNum(state(0, 128)), R::SetVringBase(state(0, 0)), R::SetVringAddr(ring)];
    let on = [R::SetVringKick(fd(0)), R::SetVringEnable(state(0, 1)), R::SetVringEnable(state(1, 1))];
    let on = [&start[..], &on, &[R::GetStatus, R::SetStatus(0xf)]].concat();
    let off = [0, 1].map(|ring| R::SetVringEnable(state(ring, 0)));
    [
        &[R::GetFeatures, R::GetProtocolFeatures, R::SetProtocolFeatures(0x99_b22b), R::GetQueueNum][..],
        &[R::GetMaxMemSlots, R::SetBackendReqFd, R::SetOwner, R::GetFeatures],
        &[R::SetVringCall(fd(0)), R::SetVringErr(fd(0)), R::SetVringCall(fd(1)), R::SetVringErr(fd(1))],
        &[R::GetConfig(config), R::SetFeatures(features), R::GetStatus, R::SetStatus(8)],
        &[R::GetInflightFd(inflight), R::SetInflightFd(inflight)],
        &[R::SetVringCall(fd(0)), R::SetVringCall(fd(1)), R::SetFeatures(features), R::GetStatus],
        &[R::AddMemReg(region(0)), R::AddMemReg(region(1))],
        &on,
        &[R::SetStatus(0)],
        &off,
        &[R::GetVringBase(state(0, 0))],
        &on,
    ]
    .concat()
}

#[test]
fn a_front_end_may_hang_up_at_any_message_and_the_next_one_is_served() {
    // X4, H5, R11, N13, N17: whole messages, and the first half of the next one.
    let trace = golden();
    let mut server = Server::new(Box::new(Echo::new()));
    let stop = EventFd::new(0).unwrap();
    for end in 0..=trace.len() {
        for half in [false, true] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let front = Connection::new(ours);
            let peer = thread::scope(|scope| {
                let session = scope.spawn(|| server.serve(theirs, &stop));
                for request in &trace[..end] {
                    say(&front, request);
                }
                if let Some(next) = trace.get(end).filter(|_| half) {
                    front.send_bytes(&next.message().bytes()[..7], &[]).unwrap();
                }
                front.shut_down();
                session.join().unwrap()
            });
            let cut = half && end < trace.len();
            assert_eq!(peer.is_err(), cut, "after {end} messages: {peer:?}");
        }
    }
    let front = Front::of(server, Default::default()).share();
    echo(&mut front.start(0), b"as if nobody had been there");
}

/// Says `request` with the descriptors it needs and waits for its answer.
fn say(front: &Connection, request: &R) {
    let memory = memfd(2 << 20);
    let (socket, _other) = UnixStream::pair().unwrap();
    let eventfd = EventFd::new(0).unwrap();
    let fd = match request {
        R::SetBackendReqFd => socket.as_fd(),
        R::AddMemReg(_) | R::SetInflightFd(_) => memory.as_fd(),
        _ => borrow(&eventfd),
    };
    let fds = vec![fd; *request.descriptors().start()];
    let acked = request.number() > 16 || request.has_reply();
    let message = request.message();
    front.send(&if acked { message.with_need_reply() } else { message }, &fds).unwrap();
    if acked {
        let (reply, _) = front.receive().unwrap().expect("an answer");
        assert_eq!((reply.request, reply.flags), (request.number(), 5));
        if !request.has_reply() {
            assert_eq!(reply.payload, 0u64.payload(), "{request:?}");
        }
    }
}
