//! What the back-end asks of the front-end.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parador_vhost_user::message::{
    BackendRequest, FrontendRequest as R, Mmap, Payload, ProtocolFeatures as F, SharedMemoryConfig,
};
use parador_vhost_user::socket::Connection;
use parador_virtio::testing::PATIENCE;
use parador_virtio::{Identity, SharedMemory, SharedPiece, SharedRegion};

use crate::device::Echo;
use crate::front::{FEATURES, Front, memfd};

fn open(front: &Front) -> Connection {
    let (ours, theirs) = UnixStream::pair().unwrap();
    front.tell_with(&R::SetBackendReqFd, &[theirs.as_fd()]);
    let channel = Connection::new(ours);
    channel.set_patience(Some(PATIENCE)).unwrap();
    channel
}

fn is_silent(channel: &Connection) -> bool {
    channel.set_patience(Some(Duration::from_millis(30))).unwrap();
    let silent = channel.receive().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
    channel.set_patience(Some(PATIENCE)).unwrap();
    silent
}

#[test]
fn a_change_of_configuration_is_told_unless_all_rings_are_stopped() {
    // C10, A8, R28
    let front = Front::new(Echo::new());
    front.refused(&R::SetBackendReqFd, &[memfd(1).as_fd()]);
    let channel = open(&front);
    let change = front.seen.change.lock().unwrap().clone().unwrap();
    change.signal();
    change.signal();
    assert!(is_silent(&channel));
    let _driver = front.start(0);
    let (message, _) = channel.receive().unwrap().expect("it is told");
    assert_eq!(BackendRequest::parse(&message), Ok(BackendRequest::ConfigChange));
    assert!(!message.needs_reply());
    assert!(is_silent(&channel), "once");
    change.signal();
    assert!(channel.receive().unwrap().is_some());
    front.base(0);
    change.signal();
    assert!(is_silent(&channel));
}

#[test]
fn a_change_of_configuration_is_told_only_to_those_who_read_it() {
    // C10
    let front = Front::new(Echo::new());
    front.tell(&R::SetProtocolFeatures((F::BACKEND_REQ | F::REPLY_ACK).0));
    let channel = open(&front);
    let _driver = front.start(0);
    front.seen.change.lock().unwrap().clone().unwrap().signal();
    front.tell(&R::SetOwner);
    assert!(is_silent(&channel));
}

const PIECE: SharedPiece = SharedPiece { region: 3, offset: 8192, len: 4096 };

fn with_memory() -> Echo {
    let echo = Echo::new();
    let shared_memory = [SharedRegion { id: 1, size: 4096 }, SharedRegion { id: 3, size: 1 << 20 }].into();
    Echo { identity: Identity { shared_memory, ..echo.identity.clone() }, ..echo }
}

fn memory_of(front: &Front) -> Arc<dyn SharedMemory> {
    front.seen.memory.lock().unwrap().clone().unwrap()
}

#[test]
fn regions_of_shared_memory_are_told() {
    // S1, S6
    let front = Front::new(with_memory());
    assert!(front.offered.1.contains(F(1 << 22)));
    for _ in 0..2 {
        let reply = front.ask(&R::GetShmemConfig);
        assert_eq!(reply[..8], 2u64.payload(), "regions that there are");
        let sizes = SharedMemoryConfig::parse(&reply).unwrap().sizes;
        assert_eq!((sizes[0], sizes[1], sizes[3], sizes[4]), (0, 4096, 1 << 20, 0));
    }
    Front::new(Echo::new()).ends_it(&R::GetShmemConfig.message(), &[]);
}

#[test]
fn files_are_shown_and_taken_away_if_the_front_end_says_yes() {
    let front = Front::new(with_memory());
    let channel = open(&front);
    let memory = memory_of(&front);
    let file = memfd(1 << 16);
    let device = thread::spawn(move || {
        let map = |writable| memory.map(PIECE, &file, 4096, writable);
        [map(true), map(false), memory.unmap(PIECE), memory.unmap(PIECE)].map(|result| result.is_ok())
    });
    let mut expected = Mmap { shmid: 3, fd_offset: 4096, shm_offset: 8192, len: 4096, flags: 1 };
    for (number, answer) in [0, 1, 0, 7].into_iter().enumerate() {
        let (message, fds) = channel.receive().unwrap().expect("a request");
        assert!(message.needs_reply());
        let request = BackendRequest::parse(&message).unwrap();
        assert!(request.descriptors().contains(&fds.len()));
        match number {
            0 => assert_eq!(request, BackendRequest::ShmemMap(expected)),
            1 => {
                expected.flags = 0;
                assert_eq!(request, BackendRequest::ShmemMap(expected));
            }
            _ => {
                expected.fd_offset = 0;
                assert_eq!(request, BackendRequest::ShmemUnmap(expected));
            }
        }
        channel.send(&message.ack(answer), &[]).unwrap();
    }
    assert_eq!(device.join().unwrap(), [true, false, true, false]);
}

#[test]
fn nobody_waits_for_answers_that_do_not_come() {
    let front = Front::new(with_memory());
    let memory = memory_of(&front);
    let file = File::open("/dev/zero").unwrap();
    let map = || memory.map(PIECE, &file, 0, false);
    assert!(map().is_err(), "there is no channel");
    front.send(&R::SetProtocolFeatures((F::BACKEND_REQ | F::SHMEM).0));
    let (ours, theirs) = UnixStream::pair().unwrap();
    front.connection.send(&R::SetBackendReqFd.message(), &[theirs.as_fd()]).unwrap();
    front.number(&R::GetFeatures);
    map().unwrap();
    let channel = Connection::new(ours);
    assert!(!channel.receive().unwrap().unwrap().0.needs_reply());
    drop(channel);
    assert!(map().is_err(), "it is gone");
    front.send(&R::SetProtocolFeatures(F::SHMEM.0));
    front.send(&R::SetFeatures(FEATURES));
    front.number(&R::GetFeatures);
    assert!(map().is_err(), "nobody asked for a channel");
    front.hang_up().unwrap();
    assert!(map().is_err(), "nobody is there");
}
