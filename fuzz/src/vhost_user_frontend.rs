//! A whole session of the vhost-user front-end: a back-end answers anything, and asks anything itself.
//!
//! Shared by the fuzz target and by a replay among the tests of the crate.

use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use parador_vhost_user::frontend::{Remote, RemoteOptions};
use parador_vhost_user::message::{FrontendRequest as R, Message, Payload};
use parador_vhost_user::socket::Connection;
use parador_virtio::testing::hostile::Source;
use parador_virtio::testing::{Arena, Driver};
use parador_virtio::{Interrupt, QueueState, SharedMemory, SharedPiece, VirtioDevice, ids};

const KINDS: [u32; 8] = [
    ids::VIRTIO_ID_NET,
    ids::VIRTIO_ID_BLOCK,
    ids::VIRTIO_ID_CONSOLE,
    ids::VIRTIO_ID_SCSI,
    ids::VIRTIO_ID_INPUT,
    ids::VIRTIO_ID_VSOCK,
    ids::VIRTIO_ID_FS,
    ids::VIRTIO_ID_SOUND,
];
const FEATURES: u64 = 1 << 32 | 1 << 30 | 1 << 29 | 1 << 28 | 1 << 26 | 1 << 22 | 1 << 17 | 1 << 12;
const ALL: u64 = (1 << 24) - 1;

/// Takes what is mapped, and has nothing behind it.
struct Nowhere;

impl SharedMemory for Nowhere {
    fn map(&self, _: SharedPiece, _: &File, _: u64, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn unmap(&self, _: SharedPiece) -> io::Result<()> {
        Ok(())
    }
}

/// Drives a device whose back-end says what is in `bytes`.
pub fn exercise(bytes: &[u8]) {
    let Ok((ours, theirs)) = UnixStream::pair() else { return };
    let mut source = Source::new(bytes);
    let kind = KINDS[usize::from(source.u8()) % KINDS.len()];
    let rest = bytes.get(1..).unwrap_or_default().to_vec();
    let back_end = thread::spawn(move || answer(&theirs, &rest));
    let options =
        RemoteOptions { kind, stream: Some(ours), name: "fuzz".to_owned(), ..RemoteOptions::default() };
    if let Ok(remote) = Remote::connect(options) {
        drive(remote);
    }
    drop(back_end.join());
}

/// All that a driver does, whatever comes of it.
fn drive(mut remote: Remote) {
    let identity = remote.identity().clone();
    let arena = Arena::new(1 << 20);
    remote.on_config_change(Interrupt::nobody());
    remote.on_shared_memory(Arc::new(Nowhere));
    let count = u16::try_from(identity.queue_sizes.len()).unwrap_or(u16::MAX).min(3);
    let driver = Driver::on(&arena, 16, identity.features | identity.ring_features);
    for round in 0..2 {
        for index in 0..count {
            drop(remote.start_queue(driver.setup(index, QueueState::default())));
        }
        remote.write_config(round, &[1, 2, 3]);
        for index in 0..count {
            remote.stop_queue(index);
            assert_eq!(remote.stop_queue(index), None);
        }
        let saved = remote.save();
        drop(remote.load(&saved.unwrap_or_default()));
        remote.reset();
        let mut config = [0; 128];
        remote.read_config(0, &mut config);
    }
}

/// Answers each request as `bytes` say, and hangs up when they are over.
fn answer(stream: &UnixStream, bytes: &[u8]) {
    let Ok(clone) = stream.try_clone() else { return };
    let connection = Connection::new(clone);
    let mut source = Source::new(bytes);
    while let Ok(Some((message, files))) = connection.receive() {
        let how = source.u8();
        let Ok(request) = R::parse(&message) else { break };
        if matches!(request, R::SetBackendReqFd) {
            ask(files, &mut source);
        }
        let file = File::open("/dev/null").map(OwnedFd::from).ok().filter(|_| how & 1 == 1);
        let file: Vec<BorrowedFd<'_>> = file.iter().map(AsFd::as_fd).collect();
        let sent = match how {
            // As it should be, mostly; without an end, the bytes would soon be out of step.
            0..0xe0 if request.has_reply() => connection.send(&message.reply(good(&request, how)), &file),
            0..0xe0 if message.needs_reply() => connection.send(&message.ack(u64::from(how / 0xdf)), &[]),
            0..0xe0 => Ok(()),
            0xe0..0xf0 => {
                let payload = (0..source.u8() % 80).map(|_| source.u8()).collect();
                connection.send(&Message { flags: 5, ..Message::new(message.request, payload) }, &file)
            }
            0xf0.. => {
                let raw: Vec<u8> = (0..source.u8() % 40).map(|_| source.u8()).collect();
                // Nothing comes after that: what is missing would be waited for.
                drop(connection.send_bytes(&raw, &file));
                break;
            }
        };
        if sent.is_err() || source.is_empty() {
            break;
        }
    }
    drop(stream.shutdown(Shutdown::Both));
}

/// What a good back-end says.
fn good(request: &R, how: u8) -> Vec<u8> {
    match request {
        R::GetFeatures => FEATURES.payload(),
        R::GetProtocolFeatures => (ALL & !(u64::from(how & 0x1e) << 9)).payload(),
        R::GetConfig(config) => config.payload(),
        R::GetVringBase(state) | R::GetVringBaseSkipDrain(state) => state.payload(),
        R::GetInflightFd(wanted) => {
            let mut region = *wanted;
            region.mmap_size = u64::from(how);
            region.payload()
        }
        R::GetShmemConfig => {
            let mut sizes = Box::new([0; 256]);
            sizes[usize::from(how)] = 1 << 20;
            parador_vhost_user::message::SharedMemoryConfig { sizes }.payload()
        }
        R::SetDeviceStateFd(_) => (u64::from(how & 1) | 1 << 8).payload(),
        R::GetQueueNum | R::GetMaxMemSlots => u64::from(how).payload(),
        _ => 0u64.payload(),
    }
}

/// Asks things on the back-end's own channel.
fn ask(files: Vec<OwnedFd>, source: &mut Source<'_>) {
    let Some(file) = files.into_iter().next() else { return };
    let channel = Connection::new(UnixStream::from(file));
    for _ in 0..source.u8() % 8 {
        let payload: Vec<u8> = (0..source.u8() % 48).map(|_| source.u8()).collect();
        let request = Message::new(u32::from(source.u8() % 12), payload).with_need_reply();
        let file = File::open("/dev/null").map(OwnedFd::from).ok();
        let file: Vec<BorrowedFd<'_>> = file.iter().map(AsFd::as_fd).collect();
        if channel.send(&request, &file).is_err() {
            return;
        }
    }
}
