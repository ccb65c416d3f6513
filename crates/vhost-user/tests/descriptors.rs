//! Messages that make no sense, a thousand times each: no descriptor and no mapping is left behind.
//!
//! A program of its own with one test, as it counts what its process has open.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs::{File, read_dir, read_to_string};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::thread;

use parador_vhost_user::message::{
    FrontendRequest as R, Inflight, Log, LogBase, MemoryRegion, Message, ProtocolFeatures as F, VringFd,
    VringState,
};
use parador_vhost_user::server::Server;
use parador_vhost_user::socket::Connection;
use parador_virtio::{EventFd, Identity, QueueSetup, QueueState, VirtioDevice};

/// A device whose queues do nothing.
struct Idle(Identity);

impl VirtioDevice for Idle {
    fn identity(&self) -> &Identity {
        &self.0
    }
    fn read_config(&self, _offset: usize, data: &mut [u8]) {
        data.fill(0);
    }
    fn start_queue(&mut self, _setup: QueueSetup) -> io::Result<()> {
        Err(io::ErrorKind::InvalidInput.into())
    }
    fn stop_queue(&mut self, _index: u16) -> Option<QueueState> {
        None
    }
}

/// What a front-end that means no good sends, each with as many descriptors as it takes or not.
fn classes() -> Vec<(&'static str, Message, usize)> {
    let region = |guest_address, size, user_address, mmap_offset| MemoryRegion {
        guest_address,
        size,
        user_address,
        mmap_offset,
    };
    let good = region(0, 4096, 0, 0);
    let ring = |index, has_fd| VringFd { index, has_fd };
    let state = |index, num| VringState { index, num };
    let inflight = Inflight { mmap_size: 1 << 40, mmap_offset: 0, queues: 1, queue_size: 128 };
    let with = |message: Message, flags, size| Message { flags, size, ..message };
    let features = R::GetFeatures.message();
    vec![
        ("another version", with(features.clone(), 2, 0), 0),
        ("a reply", with(features.clone(), 5, 0), 0),
        ("longer than any", with(features.clone(), 1, u32::MAX), 3),
        ("a payload that does not come", with(features, 1, 100), 3),
        ("unknown", Message::new(99, vec![0; 64]), 8),
        ("too short", Message::new(8, vec![0; 3]), 1),
        ("too long", Message::new(8, vec![0; 300]), 32),
        ("descriptors for nothing", R::SetOwner.message(), 32),
        ("no descriptor", R::SetVringKick(ring(0, true)).message(), 0),
        ("two descriptors", R::SetVringKick(ring(0, true)).message(), 2),
        ("one that was not announced", R::SetVringCall(ring(0, false)).message(), 1),
        ("no such ring", R::SetVringKick(ring(200, true)).message(), 1),
        ("no such ring to stop", R::GetVringBase(state(77, 0)).message(), 0),
        ("no such size", R::SetVringNum(state(0, 3)).message(), 0),
        ("an empty table", Message::new(5, vec![0; 8]), 0),
        ("a table of nine", Message::new(5, [&[9][..], &[0; 7 + 9 * 32]].concat()), 9),
        ("a table with too few", R::SetMemTable(vec![good; 3]).message(), 2),
        ("regions that overlap", R::SetMemTable(vec![good; 2]).message(), 2),
        ("a region that wraps", R::AddMemReg(region(u64::MAX - 4095, 8192, 0, 0)).message(), 1),
        ("a region beyond its file", R::AddMemReg(region(0, 1 << 30, 0, 0)).message(), 1),
        ("an offset beyond its file", R::AddMemReg(region(0, 4096, 0, 1 << 50)).message(), 1),
        ("two descriptors for a region", R::AddMemReg(good).message(), 2),
        ("a region that is not there", R::RemMemReg(good).message(), 1),
        (
            "a log beyond its file",
            R::SetLogBase(LogBase::Shared(Log { size: 1 << 40, offset: 0 })).message(),
            1,
        ),
        ("inflight beyond its file", R::SetInflightFd(inflight).message(), 1),
        ("no queues in flight", R::GetInflightFd(Inflight::default()).message(), 0),
        ("a channel that is none", R::SetBackendReqFd.message(), 1),
        ("a state at no time", Message::new(42, [[0; 4], [1; 4]].concat()), 1),
        ("features nobody offered", R::SetFeatures(u64::MAX).message(), 0),
        ("not offered", R::GpuSetSocket.message(), 1),
    ]
}

fn open() -> usize {
    read_dir("/proc/self/fd").unwrap().count()
}

fn mapped() -> usize {
    read_to_string("/proc/self/maps").unwrap().lines().filter(|line| line.contains("/memfd:")).count()
}

#[test]
fn what_makes_no_sense_leaves_nothing_behind() {
    const TRIES: usize = 1000;
    let identity = Identity { kind: 4, queue_sizes: [64].into(), ..Identity::default() };
    let mut server = Server::new(Box::new(Idle(identity)));
    let stop = EventFd::new(0).unwrap();
    let memory = File::from(rustix::fs::memfd_create("a test", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    memory.set_len(1 << 20).unwrap();
    let before = (open(), mapped());
    for (class, message, count) in classes() {
        let fds: Vec<BorrowedFd<'_>> = vec![memory.as_fd(); count];
        let (ours, theirs) = UnixStream::pair().unwrap();
        let front = Connection::new(ours);
        thread::scope(|scope| {
            let session = scope.spawn(|| server.serve(theirs, &stop));
            let protocol = F::REPLY_ACK | F::LOG_SHMFD;
            front.send(&R::SetProtocolFeatures(protocol.0).message(), &[]).unwrap();
            // As many as one session takes: it may answer no, or end.
            let mut tries = 0;
            while tries < TRIES && front.send(&message.clone().with_need_reply(), &fds).is_ok() {
                tries += 1;
                if message.size as usize > message.payload.len() {
                    front.shut_down();
                }
                match front.receive() {
                    Ok(Some((reply, _))) => {
                        assert_eq!(reply.request, message.request, "{class}");
                        assert_ne!(reply.payload, [0; 8], "{class} is not acknowledged as done");
                    }
                    Ok(None) | Err(_) => break,
                }
            }
            drop(front);
            drop(session.join().unwrap());
        });
        // Where one ended the session, each of the others is a session of its own.
        for _ in 0..TRIES {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let front = Connection::new(ours);
            front.send(&message, &fds).unwrap();
            front.shut_down();
            drop(server.serve(theirs, &stop));
        }
        assert_eq!((open(), mapped()), before, "{class}");
    }
}
