//! A whole session of the vhost-user back-end: a front-end sends any messages with any descriptors.
//!
//! Shared by the fuzz target and by a replay among the tests of the crate.

use std::fs::File;
use std::io::{self, pipe};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use parador_vhost_user::message::{FrontendRequest, Message};
use parador_vhost_user::server::Server;
use parador_vhost_user::socket::Connection;
use parador_virtio::testing::hostile::Source;
use parador_virtio::{
    EventFd, Identity, Lane, Queue, QueueHandler, QueueSetup, QueueState, RingError, VirtioDevice,
};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, memfd_create};

/// Messages in one session: their replies fit into the socket, as nobody reads them.
const MOST: usize = 40;
const MEMORY_LEN: u64 = 1 << 20;
const WORDS: [u64; 16] = [
    0,
    1,
    2,
    3,
    4096,
    8192,
    MEMORY_LEN,
    MEMORY_LEN - 4096,
    0x7f00_0000_0000,
    1 << 26 | 1 << 30 | 1 << 32,
    1 << 32,
    0x99_b22b | 1 << 12,
    1 << 8,
    u64::MAX - 4095,
    u64::MAX,
    0x0010_0000_0000_0001,
];
/// Bytes of payload of messages 0 to 46.
const SIZES: [u8; 47] = [
    0, 0, 8, 0, 0, 40, 16, 0, 8, 40, 8, 8, 8, 8, 8, 0, 8, 0, 8, 8, 8, 0, 32, 8, 20, 20, 0, 8, 0, 0, 0, 24,
    24, 0, 0, 8, 0, 40, 40, 8, 0, 16, 8, 0, 0, 8, 0,
];

/// Gives every chain back as it is.
struct Device {
    identity: Identity,
    lanes: Vec<Lane<Idle>>,
}

struct Idle;

impl QueueHandler for Idle {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        while let Some(chain) = queue.pop()? {
            queue.push(chain, 0);
        }
        Ok(())
    }
}

impl VirtioDevice for Device {
    fn identity(&self) -> &Identity {
        &self.identity
    }
    fn read_config(&self, _offset: usize, data: &mut [u8]) {
        data.fill(0);
    }
    fn start_queue(&mut self, setup: QueueSetup) -> io::Result<()> {
        self.lanes[usize::from(setup.index)].start("idle", setup)
    }
    fn stop_queue(&mut self, index: u16) -> Option<QueueState> {
        self.lanes[usize::from(index)].stop()
    }
    fn abandon_queue(&mut self, index: u16) -> Option<QueueState> {
        self.lanes[usize::from(index)].abandon()
    }
}

/// What a front-end may send along.
struct Descriptors {
    memory: File,
    event: OwnedFd,
    /// Both ends of it: outside of Rust's own main function, a write to one alone ends the process.
    sockets: (UnixStream, UnixStream),
    null: File,
    pipe: OwnedFd,
}

impl Descriptors {
    fn new(contents: &[u8]) -> Self {
        let memory = File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("the host has memory"));
        memory.set_len(MEMORY_LEN).expect("the host has memory");
        memory.write_all_at(contents, 4096).expect("the host has memory");
        let (pipe, _) = pipe().expect("the host has descriptors");
        Self {
            memory,
            event: eventfd(1, EventfdFlags::CLOEXEC).expect("the host has descriptors"),
            sockets: UnixStream::pair().expect("the host has descriptors"),
            null: File::open("/dev/null").expect("the host has one"),
            pipe: pipe.into(),
        }
    }

    /// Some of them. A device's state does not come from where nothing ever comes or ends: it would
    /// be waited for.
    fn choose(&self, source: &mut Source<'_>, request: u32) -> BorrowedFd<'_> {
        match source.below(8) {
            0 => self.null.as_fd(),
            1 => self.pipe.as_fd(),
            2 if request != 42 => self.sockets.0.as_fd(),
            3 | 4 if request != 42 => self.event.as_fd(),
            _ => self.memory.as_fd(),
        }
    }
}

/// A message that is mostly what it should be.
fn message(source: &mut Source<'_>) -> Message {
    let request = source.below(SIZES.len()) as u32;
    let mut payload = Vec::new();
    let len = usize::from(SIZES[request as usize]);
    if request == 5 {
        payload.extend(1u64.to_ne_bytes());
    }
    while payload.len() < len {
        match source.below(4) {
            0 => payload.push(source.u8()),
            1 => payload.extend(u32::from(source.u8() % 5).to_ne_bytes()),
            _ => payload.extend(source.choose(&WORDS).to_ne_bytes()),
        }
    }
    if source.below(16) != 15 {
        payload.truncate(len);
    }
    let message = Message::new(request, payload);
    match source.below(32) {
        31 => Message { flags: source.u32(), ..message },
        30 => Message { size: source.u32() % 10_000, ..message },
        even if even % 2 == 0 => message.with_need_reply(),
        _ => message,
    }
}

/// Plays the session in `bytes`, and sees that the next front-end is served.
///
/// # Panics
/// The back-end does, or does not serve the next one.
pub fn exercise(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let kind = source.choose(&[1, 4]);
    let identity = Identity { kind, queue_sizes: [256; 3].into(), config_len: 8, ..Identity::default() };
    let lanes = (0..3).map(|_| Lane::new(Idle)).collect();
    let mut server = Server::new(Box::new(Device { identity, lanes }));
    let stop = EventFd::new(0).expect("the host has descriptors");
    let descriptors = Descriptors::new(bytes);

    let (ours, theirs) = UnixStream::pair().expect("the host has descriptors");
    let front = Connection::new(ours.try_clone().expect("the host has descriptors"));
    for _ in 0..MOST {
        if source.is_empty() {
            break;
        }
        let message = message(&mut source);
        let wanted = FrontendRequest::parse(&message).map_or(0, |request| *request.descriptors().start());
        let count = if source.below(16) == 15 { source.below(12) } else { wanted };
        let fds: Vec<_> = (0..count).map(|_| descriptors.choose(&mut source, message.request)).collect();
        front.send(&message, &fds).expect("there is room for it");
    }
    ours.shutdown(Shutdown::Write).expect("it is open");
    drop(server.serve(theirs, &stop));

    let (ours, theirs) = UnixStream::pair().expect("the host has descriptors");
    let front = Connection::new(ours);
    front.send(&FrontendRequest::GetFeatures.message(), &[]).expect("there is room for it");
    stop.write(1).expect("an eventfd takes a count");
    drop(server.serve(theirs, &stop));
}
