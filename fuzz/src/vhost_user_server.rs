//! A whole session of the vhost-user back-end: a front-end sends any messages with any descriptors.
//!
//! Shared by the fuzz target and by a replay among the tests of the crate.

use std::fs::File;
use std::io::{self, pipe};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use parador_vhost_user::message::{
    DeviceStateTransfer, FrontendRequest as R, Inflight, Log, LogBase, MemoryRegion, Message, StateDirection,
    VringAddr, VringFd, VringState,
};
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
const QUEUES: usize = 3;
/// Where the front-end has its memory; where its rings are there, and how far apart.
const USER: u64 = 0x7f00_0000_0000;
const RINGS: u64 = 0x4_0000;
const RING: u64 = 0x4000;
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
        for ring in 0..QUEUES as u64 {
            // Three chains, of descriptors that may be good.
            let at = RINGS + ring * RING;
            let flags = contents.get(ring as usize).copied().unwrap_or(0);
            for (next, bits) in [flags & 3, flags >> 2 & 3, flags >> 4 & 2, 2].into_iter().enumerate() {
                let descriptor = u128::from(MEMORY_LEN - 0x1000)
                    | 64 << 64
                    | u128::from(bits) << 96
                    | (next as u128 + 1) << 112;
                memory
                    .write_all_at(&descriptor.to_le_bytes(), at + 16 * next as u64)
                    .expect("it is long enough");
            }
            memory.write_all_at(&[0, 0, 3, 0, 0, 0, 1, 0, 2, 0], at + 0x1000).expect("it is long enough");
        }
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
        match source.below(32) {
            0 => self.null.as_fd(),
            1 => self.pipe.as_fd(),
            2 if request != 42 => self.sockets.0.as_fd(),
            3.. if matches!(request, 12..=14) => self.event.as_fd(),
            _ => self.memory.as_fd(),
        }
    }
}

/// A request that makes sense, or nearly.
fn request(source: &mut Source<'_>) -> R {
    let index = if source.below(32) == 31 { source.u8() } else { source.below(QUEUES) as u8 };
    let state = |num| VringState { index: u32::from(index), num };
    let ring = VringFd { index, has_fd: source.below(8) != 7 };
    let guest_address = source.choose(&[0, 0, 0, MEMORY_LEN, 1 << 40]);
    let region =
        MemoryRegion { guest_address, size: MEMORY_LEN, user_address: USER + guest_address, mmap_offset: 0 };
    let inflight = Inflight { mmap_size: 3 * 4160, mmap_offset: 0, queues: 3, queue_size: 256 };
    let offset = if source.below(16) == 15 { source.choose(&WORDS) } else { 4096 };
    match source.below(26) {
        0 => R::SetFeatures(1 << 32 | source.choose(&[0, 1 << 26, 1 << 30, 1 << 26 | 1 << 30])),
        1 => R::SetMemTable(vec![region]),
        2 => R::AddMemReg(region),
        3 => R::RemMemReg(region),
        4 => R::SetLogBase(LogBase::Shared(Log { size: source.choose(&[32, 32, 32, 1]), offset })),
        5 => R::SetLogFd,
        6 | 7 => R::SetVringNum(state(source.choose(&[16, 16, 16, 256, 1, 3]))),
        8 | 9 => {
            let log = source.choose(&[0, 0x2000, u64::MAX]);
            R::SetVringAddr(address(index, u32::from(source.u8() % 2), log))
        }
        10 => R::SetVringBase(state(u32::from(source.u8() % 4))),
        11 | 12 => R::SetVringKick(ring),
        13 => R::SetVringCall(ring),
        14 => R::SetVringErr(ring),
        15 | 16 => R::SetVringEnable(state(u32::from(source.below(4) != 3))),
        17 => R::GetVringBase(state(0)),
        18 => R::GetVringBaseSkipDrain(state(0)),
        19 => R::SetInflightFd(Inflight { mmap_offset: offset, ..inflight }),
        20 => R::GetInflightFd(inflight),
        21 => R::SetStatus(source.choose(&[0, 8, 15])),
        22 => R::ResetDevice,
        23 => R::CheckDeviceState,
        24 => R::SetDeviceStateFd(DeviceStateTransfer { direction: StateDirection::Save, phase: 0 }),
        _ => R::SetProtocolFeatures(source.choose(&WORDS) | 1 << 3),
    }
}

/// A message whose number there is, and bytes after it.
fn message(source: &mut Source<'_>) -> Message {
    if source.below(8) != 7 {
        return request(source).message().with_need_reply();
    }
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

/// A session's usual begin, and `rings` rings that run.
fn begin(front: &Connection, descriptors: &Descriptors, rings: u8) {
    let say = |request: &R, fds: &[BorrowedFd<'_>]| {
        front.send(&request.message(), fds).expect("there is room for it");
    };
    let whole = MemoryRegion { size: MEMORY_LEN, user_address: USER, ..MemoryRegion::default() };
    say(&R::SetProtocolFeatures(0x99_b22b), &[]);
    say(&R::SetFeatures(1 << 32), &[]);
    say(&R::AddMemReg(whole), &[descriptors.memory.as_fd()]);
    for index in 0..rings {
        say(&R::SetVringNum(VringState { index: u32::from(index), num: 16 }), &[]);
        say(&R::SetVringAddr(address(index, 0, 0)), &[]);
        let ring = VringFd { index, has_fd: true };
        say(&R::SetVringKick(ring), &[descriptors.event.as_fd()]);
        say(&R::SetVringCall(ring), &[descriptors.event.as_fd()]);
    }
}

/// Where a ring is.
fn address(index: u8, flags: u32, log: u64) -> VringAddr {
    let at = USER + RINGS + u64::from(index) * RING;
    let [descriptor, available, used] = [at, at + 0x1000, at + 0x2000];
    VringAddr { index: u32::from(index), flags, descriptor, used, available, log }
}

/// Plays the session in `bytes`, and sees that the next front-end is served.
///
/// # Panics
/// The back-end does, or does not serve the next one.
pub fn exercise(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let kind = source.choose(&[1, 4]);
    let identity = Identity { kind, queue_sizes: [256; QUEUES].into(), config_len: 8, ..Identity::default() };
    let lanes = (0..QUEUES).map(|_| Lane::new(Idle)).collect();
    let mut server = Server::new(Box::new(Device { identity, lanes }));
    let stop = EventFd::new(0).expect("the host has descriptors");
    let descriptors = Descriptors::new(bytes);

    let (ours, theirs) = UnixStream::pair().expect("the host has descriptors");
    let front = Connection::new(ours.try_clone().expect("the host has descriptors"));
    if source.below(8) != 7 {
        begin(&front, &descriptors, source.below(QUEUES + 1) as u8);
    }
    for _ in 0..MOST {
        if source.is_empty() {
            break;
        }
        let message = message(&mut source);
        let wanted = R::parse(&message).map_or(0, |request| *request.descriptors().end());
        let count = if source.below(16) == 15 { source.below(12) } else { wanted };
        let fds: Vec<_> = (0..count).map(|_| descriptors.choose(&mut source, message.request)).collect();
        front.send(&message, &fds).expect("there is room for it");
    }
    ours.shutdown(Shutdown::Write).expect("it is open");
    drop(server.serve(theirs, &stop));

    let (ours, theirs) = UnixStream::pair().expect("the host has descriptors");
    let front = Connection::new(ours);
    front.send(&R::GetFeatures.message(), &[]).expect("there is room for it");
    stop.write(1).expect("an eventfd takes a count");
    drop(server.serve(theirs, &stop));
}
