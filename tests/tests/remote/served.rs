//! Devices behind sockets, in threads of a test.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use parador_vhost_user::frontend::{Remote, RemoteOptions};
use parador_vhost_user::server::Server;
use parador_virtio::testing::{Arena, Harness};
use parador_virtio::{EventFd, Identity, VirtioDevice};

/// A device that is served at a socket until this is dropped.
pub(crate) struct Served {
    directory: tempfile::TempDir,
    identity: Identity,
    stop: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    pub(crate) fn new(device: impl VirtioDevice + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let stop = EventFd::new(0).unwrap();
        let stopped = stop.try_clone().unwrap();
        let identity = device.identity().clone();
        let mut server = Server::new(Box::new(device));
        let thread = Some(thread::spawn(move || server.accept(&listener, &stopped).unwrap()));
        Self { directory, identity, stop, thread }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// The device, over the socket. What its type has by itself is not said.
    pub(crate) fn connect(&self) -> Remote {
        let Identity { kind, queue_sizes, config_len, .. } = &self.identity;
        let mut options = options(*kind, self.path());
        if *kind == parador_virtio::ids::VIRTIO_ID_BALLOON {
            (options.queue_sizes, options.config_len) = (Some(queue_sizes.clone()), *config_len);
        }
        Remote::connect(options).unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.write(1).unwrap();
        let result = self.thread.take().unwrap().join();
        assert!(thread::panicking() || result.is_ok(), "the server ends well");
    }
}

pub(crate) fn options(kind: u32, path: PathBuf) -> RemoteOptions {
    RemoteOptions { kind, path, name: "remote".to_owned(), ..RemoteOptions::default() }
}

/// Runs `check` with the device itself, with it over a socket, and over a socket behind a socket.
pub(crate) fn three_ways<D: VirtioDevice + 'static>(
    make: impl Fn() -> D,
    check: impl Fn(Box<dyn VirtioDevice>, &str),
) {
    let device = make();
    let identity = device.identity().clone();
    check(Box::new(device), "direct");
    let served = Served::new(make());
    let remote = served.connect();
    same(&identity, remote.identity());
    check(Box::new(remote), "over a socket");
    let proxy = Served::new(served.connect());
    let remote = proxy.connect();
    same(&identity, remote.identity());
    check(Box::new(remote), "over two sockets");
    drop(proxy);
    drop(served);
}

/// A model driver of `device`.
pub(crate) fn drive(device: Box<dyn VirtioDevice>) -> Harness {
    let identity = device.identity();
    let features = identity.features | identity.ring_features;
    Harness::with(device, features, Arena::new(16 << 20))
}

fn same(direct: &Identity, remote: &Identity) {
    assert_eq!(direct.kind, remote.kind);
    assert_eq!(direct.features, remote.features, "{:#x} {:#x}", direct.features, remote.features);
    assert_eq!(direct.ring_features, remote.ring_features);
    assert_eq!(direct.queue_sizes.len(), remote.queue_sizes.len());
    assert_eq!(direct.config_len, remote.config_len);
    assert_eq!(direct.shared_memory, remote.shared_memory);
}
