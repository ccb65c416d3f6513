//! Front-ends that come and go.

use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use parador_vhost_user::message::{FrontendRequest as R, Payload};
use parador_vhost_user::server::Server;
use parador_vhost_user::socket::Connection;
use parador_virtio::EventFd;

use crate::device::Echo;
use crate::front::{Front, clone_fd};

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
