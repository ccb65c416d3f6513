//! A back-end by hand: it answers as a good one does, unless a test says otherwise, and writes down
//! what it was asked.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parador_vhost_user::frontend::{Remote, RemoteError, RemoteOptions};
use parador_vhost_user::message::{
    FrontendRequest as R, HEADER_LEN, Inflight, MAX_SHARED_REGIONS, Message, Payload, ProtocolFeatures as F,
    SharedMemoryConfig, VringState,
};
use parador_vhost_user::socket::Connection;
use parador_virtio::ids::{VIRTIO_F_VERSION_1, VIRTIO_ID_RNG};
use parador_virtio::testing::PATIENCE;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

/// Bits 30 and 26, those of rings, and one of the device.
pub(crate) const FEATURES: u64 = 1 << 30 | 1 << 26 | 1 << 29 | 1 << 28 | VIRTIO_F_VERSION_1 | 1 << 5;
pub(crate) const CONFIG: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
/// The size of its one region of shared memory, which is number 3.
pub(crate) const SHARED: u64 = 1 << 20;

/// What a back-end offers.
#[derive(Clone)]
pub(crate) struct Offer {
    pub(crate) features: u64,
    pub(crate) protocol: F,
    pub(crate) queues: u64,
    pub(crate) slots: u64,
    pub(crate) config: Vec<u8>,
    /// What it answers with is shown in one go, or byte by byte.
    pub(crate) slowly: bool,
}

/// Everything that there is.
pub(crate) fn everything() -> Offer {
    Offer {
        features: FEATURES,
        protocol: F((1 << 24) - 1),
        queues: 2,
        slots: 32,
        config: CONFIG.into(),
        slowly: false,
    }
}

/// Something it was asked.
#[derive(Clone)]
pub(crate) struct Asked {
    /// On which connection, the first being zero.
    pub(crate) connection: usize,
    pub(crate) request: R,
    pub(crate) message: Message,
    pub(crate) files: Vec<Arc<OwnedFd>>,
}

/// What it does when it is asked.
pub(crate) enum Reaction {
    Answer,
    HangUp,
    Silence,
    Send(Message),
    SendWith(Message, OwnedFd),
    Bytes(Vec<u8>),
    /// Bytes, and nothing after them.
    End(Vec<u8>),
    /// What a good one says, with that long between its bytes.
    Trickle(Duration),
}

pub(crate) type Script = Box<dyn FnMut(&Asked) -> Reaction + Send>;

pub(crate) struct Fake {
    directory: tempfile::TempDir,
    pub(crate) shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

pub(crate) struct Shared {
    pub(crate) offer: Mutex<Offer>,
    asked: Mutex<Vec<Asked>>,
    news: Condvar,
    script: Mutex<Script>,
    /// The connection there is, and the back-end's own channel.
    connection: Mutex<Option<Connection>>,
    pub(crate) channel: Mutex<Option<Connection>>,
    has_ended: Mutex<bool>,
}

impl Fake {
    pub(crate) fn new(offer: Offer) -> Self {
        Self::with(offer, |_| Reaction::Answer)
    }

    pub(crate) fn with(offer: Offer, script: impl FnMut(&Asked) -> Reaction + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let shared = Arc::new(Shared {
            offer: Mutex::new(offer),
            asked: Mutex::default(),
            news: Condvar::new(),
            script: Mutex::new(Box::new(script)),
            connection: Mutex::default(),
            channel: Mutex::default(),
            has_ended: Mutex::new(false),
        });
        let theirs = Arc::clone(&shared);
        let thread = Some(thread::spawn(move || theirs.run(&listener)));
        Self { directory, shared, thread }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    pub(crate) fn options(&self) -> RemoteOptions {
        RemoteOptions {
            kind: VIRTIO_ID_RNG,
            path: self.path(),
            name: "fake".to_owned(),
            queue_sizes: Some([256, 256].into()),
            config_len: CONFIG.len(),
            patience: Some(PATIENCE),
            ..RemoteOptions::default()
        }
    }

    pub(crate) fn connect(&self) -> Result<Remote, RemoteError> {
        Remote::connect(self.options())
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// The names of what it was asked so far.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.asked().iter().map(|asked| asked.request.name()).collect()
    }

    /// Forgets what it was asked.
    pub(crate) fn forget(&self) {
        self.shared.asked.lock().unwrap().clear();
    }

    /// Waits until it was asked something that `wanted` says yes to.
    pub(crate) fn wait(&self, wanted: impl Fn(&Asked) -> bool) -> Asked {
        let asked = self.shared.asked.lock().unwrap();
        let is_there = |asked: &mut Vec<Asked>| !asked.iter().any(&wanted);
        let (asked, timeout) = self.shared.news.wait_timeout_while(asked, PATIENCE, is_there).unwrap();
        let names: Vec<_> = asked.iter().map(|asked| asked.request.name()).collect();
        assert!(!timeout.timed_out(), "it was not asked that but {names:?}");
        asked.iter().find(|asked| wanted(asked)).unwrap().clone()
    }

    pub(crate) fn script(&self, script: impl FnMut(&Asked) -> Reaction + Send + 'static) {
        *self.shared.script.lock().unwrap() = Box::new(script);
    }

    /// Ends the connection there is.
    pub(crate) fn hang_up(&self) {
        if let Some(connection) = &*self.shared.connection.lock().unwrap() {
            connection.shut_down();
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        *self.shared.has_ended.lock().unwrap() = true;
        self.hang_up();
        drop(std::os::unix::net::UnixStream::connect(self.path()));
        let result = self.thread.take().unwrap().join();
        assert!(thread::panicking() || result.is_ok(), "the fake ends well");
    }
}

impl Shared {
    fn run(&self, listener: &UnixListener) {
        for number in 0.. {
            let (stream, _) = listener.accept().unwrap();
            let connection = Connection::new(stream.try_clone().unwrap());
            let ours = connection.try_clone().unwrap();
            {
                let mut slot = self.connection.lock().unwrap();
                *slot = Some(ours);
                if *self.has_ended.lock().unwrap() {
                    return;
                }
            }
            while let Ok(Some((message, files))) = connection.receive() {
                let request = R::parse(&message).unwrap();
                assert!(request.descriptors().contains(&files.len()), "{request:?} with {}", files.len());
                let files: Vec<_> = files.into_iter().map(Arc::new).collect();
                let asked = Asked { connection: number, request, message, files };
                let reaction = (self.script.lock().unwrap())(&asked);
                let mut seen = asked.clone();
                if matches!(seen.request, R::SetDeviceStateFd(_)) {
                    // Whoever reads the other end waits until nobody has this one.
                    seen.files.clear();
                }
                self.asked.lock().unwrap().push(seen);
                self.news.notify_all();
                let (mut pause, mut end) = (None, false);
                let (bytes, file) = match reaction {
                    Reaction::Answer | Reaction::Trickle(_) => {
                        let Some((reply, file)) = self.answer(&asked) else { continue };
                        if let Reaction::Trickle(between) = reaction {
                            pause = Some(between);
                        }
                        (reply.bytes(), file)
                    }
                    Reaction::End(bytes) => {
                        end = true;
                        (bytes, None)
                    }
                    Reaction::HangUp => break,
                    Reaction::Silence => continue,
                    Reaction::Send(message) => (message.bytes(), None),
                    Reaction::SendWith(message, file) => (message.bytes(), Some(file)),
                    Reaction::Bytes(bytes) => (bytes, None),
                };
                let files: Vec<_> = file.iter().map(AsFd::as_fd).collect();
                let slowly = pause.is_some() || self.offer.lock().unwrap().slowly;
                let step = if slowly { 1 } else { bytes.len().max(HEADER_LEN) };
                for (at, piece) in bytes.chunks(step).enumerate() {
                    // The front-end may have gone.
                    drop(connection.send_bytes(piece, if at == 0 { &files } else { &[] }));
                    pause.into_iter().for_each(thread::sleep);
                }
                if end {
                    break;
                }
            }
            connection.shut_down();
            *self.channel.lock().unwrap() = None;
        }
    }

    /// What a good back-end says.
    fn answer(&self, asked: &Asked) -> Option<(Message, Option<OwnedFd>)> {
        let offer = self.offer.lock().unwrap();
        let mut file = None;
        let payload = match &asked.request {
            R::GetFeatures => offer.features.payload(),
            R::GetProtocolFeatures => offer.protocol.0.payload(),
            R::GetQueueNum => offer.queues.payload(),
            R::GetMaxMemSlots => offer.slots.payload(),
            R::GetConfig(config) => {
                let mut config = config.clone();
                let from = offer.config.iter().skip(config.offset as usize).chain(std::iter::repeat(&0));
                config.data.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                config.payload()
            }
            R::GetVringBase(state) | R::GetVringBaseSkipDrain(state) => {
                VringState { num: 0, ..*state }.payload()
            }
            R::GetInflightFd(wanted) => {
                file = Some(memfd(8192));
                Inflight { mmap_size: 8192, ..*wanted }.payload()
            }
            R::GetShmemConfig => {
                let mut sizes = Box::new([0; MAX_SHARED_REGIONS]);
                sizes[3] = SHARED;
                SharedMemoryConfig { sizes }.payload()
            }
            R::SetDeviceStateFd(_) => (1u64 << 8).payload(),
            R::SetBackendReqFd => {
                let stream = asked.files[0].try_clone().unwrap();
                *self.channel.lock().unwrap() = Some(Connection::new(stream.into()));
                return asked.message.needs_reply().then(|| (asked.message.ack(0), None));
            }
            other if other.has_reply() => 0u64.payload(),
            _ => return asked.message.needs_reply().then(|| (asked.message.ack(0), None)),
        };
        Some((asked.message.reply(payload), file))
    }
}

pub(crate) fn memfd(len: u64) -> OwnedFd {
    let file = memfd_create("a test", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, len).unwrap();
    file
}

/// Puts `bytes` into `file` and ends it.
pub(crate) fn write_all(file: &OwnedFd, bytes: &[u8]) {
    File::from(file.try_clone().unwrap()).write_all(bytes).unwrap();
}
