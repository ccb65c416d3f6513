//! A front-end by hand: it sends what a test says, and checks the form of every answer.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use parador_vhost_user::message::{
    F_PROTOCOL_FEATURES, FrontendRequest as R, MemoryRegion, Message, Payload, ProtocolFeatures as F,
    VringAddr, VringFd, VringState,
};
use parador_vhost_user::server::{Server, SessionError};
use parador_vhost_user::socket::Connection;
use parador_virtio::ids::VIRTIO_F_VERSION_1;
use parador_virtio::testing::{Arena, Driver, PATIENCE};
use parador_virtio::{EventFd, GuestAddress, GuestMemory};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vm_memory::FileOffset;

use crate::borrow::borrow;
use crate::device::{Echo, Seen};

/// Where the front-end has the guest's memory, beyond the guest's own addresses.
pub(crate) const USER: u64 = 0x7f00_0000_0000;
pub(crate) const MEMORY_LEN: usize = 4 << 20;
/// Features of the device that the front-end accepts.
pub(crate) const FEATURES: u64 = VIRTIO_F_VERSION_1 | F_PROTOCOL_FEATURES;

pub(crate) struct Front {
    pub(crate) connection: Connection,
    pub(crate) arena: Arena,
    pub(crate) file: File,
    pub(crate) seen: Arc<Seen>,
    pub(crate) offered: (u64, F),
    stop: EventFd,
    thread: Option<JoinHandle<Result<(), SessionError>>>,
}

/// A file of `len` zeroes.
pub(crate) fn memfd(len: u64) -> File {
    let file = memfd_create("a test", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, len).unwrap();
    File::from(file)
}

/// An arena in `file` from `offset`, at guest address `base`.
pub(crate) fn arena(file: &File, offset: u64, base: u64, len: usize) -> Arena {
    let file = FileOffset::new(file.try_clone().unwrap(), offset);
    let memory = GuestMemory::from_ranges_with_files([(GuestAddress(base), len, Some(file))]);
    Arena::of_memory(Arc::new(memory.unwrap()))
}

pub(crate) fn clone_fd(fd: &EventFd) -> EventFd {
    fd.try_clone().unwrap()
}

impl Front {
    /// Connected, and nothing said.
    pub(crate) fn connect(device: Echo) -> Self {
        let seen = Arc::clone(&device.seen);
        Self::of(Server::new(Box::new(device)), seen)
    }

    /// Connected to a server that may have been used before.
    pub(crate) fn of(mut server: Server, seen: Arc<Seen>) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let offered = server.offered();
        let stop = EventFd::new(0).unwrap();
        let fired = clone_fd(&stop);
        let thread = thread::spawn(move || server.serve(theirs, &fired));
        let file = memfd(MEMORY_LEN as u64);
        let connection = Connection::new(ours);
        connection.set_patience(Some(PATIENCE)).unwrap();
        let arena = arena(&file, 0, 0, MEMORY_LEN);
        Self { connection, arena, file, seen, offered, stop, thread: Some(thread) }
    }

    /// Features accepted, memory shared.
    pub(crate) fn new(device: Echo) -> Self {
        Self::connect(device).share()
    }

    /// As [`Front::new`], in the memory of one that is gone.
    pub(crate) fn after(device: Echo, (file, arena): (File, Arena)) -> Self {
        let front = Self::connect(device);
        Self { file, arena, ..front }.share()
    }

    /// Accepts features and shares memory.
    pub(crate) fn share(self) -> Self {
        self.negotiate();
        self.tell_with(&R::AddMemReg(self.region()), &[self.file.as_fd()]);
        self
    }

    pub(crate) fn negotiate(&self) {
        self.send(&R::SetProtocolFeatures(self.offered.1.0));
        self.tell(&R::SetFeatures(FEATURES));
    }

    /// All of the arena.
    pub(crate) fn region(&self) -> MemoryRegion {
        MemoryRegion { guest_address: 0, size: MEMORY_LEN as u64, user_address: USER, mmap_offset: 0 }
    }

    pub(crate) fn send(&self, request: &R) {
        self.connection.send(&request.message(), &[]).unwrap();
    }

    /// The payload of what comes next, which is a reply to `request` and nothing else (H1, H2, H3).
    pub(crate) fn reply_to(&self, request: u32) -> (Vec<u8>, Vec<OwnedFd>) {
        let (reply, fds) = self.connection.receive().unwrap().expect("an answer");
        assert_eq!((reply.request, reply.flags), (request, 0x5));
        (reply.payload, fds)
    }

    /// Asks for what has a reply of its own.
    pub(crate) fn ask(&self, request: &R) -> Vec<u8> {
        self.send(request);
        self.reply_to(request.number()).0
    }

    pub(crate) fn number(&self, request: &R) -> u64 {
        u64::parse(&self.ask(request)).unwrap()
    }

    /// What a request is acknowledged with.
    pub(crate) fn ack(&self, request: &R, fds: &[BorrowedFd<'_>]) -> u64 {
        self.ack_message(&request.message(), fds)
    }

    pub(crate) fn ack_message(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> u64 {
        self.connection.send(&message.clone().with_need_reply(), fds).unwrap();
        u64::parse(&self.reply_to(message.request).0).unwrap()
    }

    /// Says what is to be acknowledged.
    pub(crate) fn tell(&self, request: &R) {
        self.tell_with(request, &[]);
    }

    pub(crate) fn tell_with(&self, request: &R, fds: &[BorrowedFd<'_>]) {
        assert_eq!(self.ack(request, fds), 0, "{request:?}");
    }

    /// Says what is to be refused; the session goes on.
    pub(crate) fn refused(&self, request: &R, fds: &[BorrowedFd<'_>]) {
        assert_ne!(self.ack(request, fds), 0, "{request:?}");
    }

    /// Says what ends the session.
    pub(crate) fn ends_it(mut self, request: &Message, fds: &[BorrowedFd<'_>]) -> SessionError {
        // It may have been closed before all of it was sent.
        drop(self.connection.send(request, fds));
        assert!(self.is_closed(), "{request:?} is answered");
        self.thread.take().unwrap().join().unwrap().expect_err("an end with a reason")
    }

    /// Whether the back-end closes the connection without another word.
    pub(crate) fn is_closed(&self) -> bool {
        match self.connection.receive() {
            Ok(message) => message.is_none(),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// A driver of a ring, for which nothing has been said.
    pub(crate) fn driver(&self) -> Driver {
        Driver::on(&self.arena, 64, VIRTIO_F_VERSION_1)
    }

    /// The address of a driver's ring.
    pub(crate) fn address(&self, index: u32, driver: &Driver) -> VringAddr {
        let layout = driver.layout();
        VringAddr {
            index,
            flags: 0,
            descriptor: USER + layout.descriptors,
            used: USER + layout.used,
            available: USER + layout.available,
            log: 0,
        }
    }

    /// Everything about a ring but that it is enabled.
    pub(crate) fn set_ring(&self, index: u8, driver: &Driver) {
        let state = |num| VringState { index: u32::from(index), num };
        self.tell(&R::SetVringNum(state(u32::from(driver.layout().size))));
        self.tell(&R::SetVringBase(state(u32::from(driver.state().next_available))));
        self.tell(&R::SetVringAddr(self.address(u32::from(index), driver)));
        self.set_call(index, driver);
        self.set_kick(index, driver);
    }

    pub(crate) fn set_kick(&self, index: u8, driver: &Driver) {
        let setup = driver.setup(0, driver.state());
        let ring = VringFd { index, has_fd: true };
        self.tell_with(&R::SetVringKick(ring), &[borrow(&setup.kick.unwrap())]);
    }

    pub(crate) fn set_call(&self, index: u8, driver: &Driver) {
        let setup = driver.setup(0, driver.state());
        let ring = VringFd { index, has_fd: true };
        self.tell_with(&R::SetVringCall(ring), &[borrow(setup.call.as_eventfd().unwrap())]);
        self.tell_with(&R::SetVringErr(ring), &[borrow(setup.error.as_eventfd().unwrap())]);
    }

    pub(crate) fn enable(&self, index: u32, enabled: bool) {
        self.tell(&R::SetVringEnable(VringState { index, num: enabled.into() }));
    }

    /// A ring that runs.
    pub(crate) fn start(&self, index: u8) -> Driver {
        let driver = self.driver();
        self.set_ring(index, &driver);
        self.enable(u32::from(index), true);
        driver
    }

    /// Stops a ring: where was it?
    pub(crate) fn base(&self, index: u32) -> u32 {
        let reply = self.ask(&R::GetVringBase(VringState { index, num: 0 }));
        let state = VringState::parse(&reply).unwrap();
        assert_eq!(state.index, index);
        state.num
    }

    /// Waits until the device has taken `count` chains since it was made.
    pub(crate) fn wait_taken(&self, count: usize) {
        let end = Instant::now() + PATIENCE;
        while self.seen.chains.load(Ordering::SeqCst) < count {
            assert!(Instant::now() < end, "the device takes {count} chains");
            thread::yield_now();
        }
    }

    /// Hangs up: how does it end?
    pub(crate) fn hang_up(mut self) -> Result<(), SessionError> {
        self.connection.shut_down();
        self.thread.take().unwrap().join().unwrap()
    }

    /// Tells the back-end to stop: how does it end?
    pub(crate) fn stop(mut self) -> Result<(), SessionError> {
        self.stop.write(1).unwrap();
        self.thread.take().unwrap().join().unwrap()
    }
}

/// Sends `words` through a ring and checks that they come back.
pub(crate) fn echo(driver: &mut Driver, words: &[u8]) {
    let head = driver.add(&[words], &[words.len()]).unwrap();
    driver.kick();
    let used = driver.wait_used(PATIENCE).expect("an answer");
    assert_eq!((used.head, &used.data[..]), (head, words));
}
