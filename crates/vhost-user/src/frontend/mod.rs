//! The front-end: a device that is at the other end of a socket.
//!
//! [`Remote`] is a [`VirtioDevice`] like any other; its queues are run by a back-end in another
//! process, in the guest's memory. One thread per device talks to the back-end, a second one takes
//! the back-end's own requests; nothing of the data passes through either.
//!
//! # A back-end that goes away
//!
//! When the connection ends, the device stays: its rings are the driver's, which goes on to put
//! requests in them. The back-end is looked for for ever; when it is back it is told everything again,
//! goes on with each ring behind the last request that was completed, and is kicked. Where both sides
//! know `INFLIGHT_SHMFD`, requests that were taken and not completed are written down in memory that
//! is handed from one back-end to the next: each is done once. Without it, requests are done again
//! from the first one that is missing in the used ring on: right for a back-end that completes in
//! order, *at least once* for the others, where requests that had overtaken others are done twice
//! (and reported twice, which not every driver takes) while those they overtook are not done at all.
//!
//! A back-end that makes no sense or does not answer loses its connection, with one warning; then it
//! is as one that went away.

mod channel;
mod error;
mod kinds;
mod link;
mod memory;
mod negotiate;
mod overlay;
mod relay;
mod rings;
mod session;
mod state;
mod wanted;
mod window;

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parador_virtio::{Identity, Interrupt, LogLimit, QueueSetup, QueueState, SharedMemory, VirtioDevice};
use tracing::warn;

use channel::Reverse;
pub use error::RemoteError;
use link::{Link, stream_to};
use negotiate::Offer;
use overlay::Found;
use session::{Asks, Session};
use wanted::Wanted;
use window::Window;

/// How a device at the other end of a socket is to be found, and what it is.
#[derive(Debug, Default)]
pub struct RemoteOptions {
    /// Type of device of virtio 1.3 §5, one of [`parador_virtio::ids`].
    pub kind: u32,
    /// Where the back-end listens.
    pub path: PathBuf,
    /// A connection to the back-end that there is already. With an empty path there is no other
    /// one when it ends.
    pub stream: Option<UnixStream>,
    /// What the device is called in logs.
    pub name: String,
    /// The largest size of each queue; `None`: what this type of device has.
    pub queue_sizes: Option<Box<[u16]>>,
    /// How many queues; `None`: what this type of device has, or the back-end says.
    pub queues: Option<u16>,
    /// Length of the configuration space in bytes; zero: that of this type of device.
    pub config_len: usize,
    /// The address of a network device; `None`: what the back-end says. The back-end does not know of
    /// one that is set here, so the driver cannot have it filter frames.
    pub mac: Option<[u8; 6]>,
    /// The address of a network device whose back-end says none.
    pub spare_mac: Option<[u8; 6]>,
    /// The name of a file system, up to 36 bytes; `None`: what the back-end says.
    pub tag: Option<String>,
    /// How long the back-end may take over an answer, six times that over the requests it has
    /// when a queue stops; `None` is ten seconds.
    pub patience: Option<Duration>,
}

const PATIENCE: Duration = Duration::from_secs(10);

/// A virtio device whose back-end is another process.
///
/// Its methods wait for the back-end's answer, as long as [`RemoteOptions::patience`] says; while the
/// back-end is away they answer at once. Dropping it ends the connection and its threads.
pub struct Remote {
    identity: Arc<Identity>,
    config: Arc<Mutex<Vec<u8>>>,
    window: Arc<Window>,
    asks: Asks,
    has_config: bool,
    thread: Option<JoinHandle<()>>,
}

impl Remote {
    /// Connects to a back-end and agrees with it on what the device is. Waits for one that is not
    /// there yet, for ever, and says so once.
    ///
    /// # Errors
    /// The back-end cannot be the device that the options ask for, or the host refuses.
    pub fn connect(mut options: RemoteOptions) -> Result<Self, RemoteError> {
        let (asks, inbox) = Asks::new()?;
        let name: Arc<str> = options.name.as_str().into();
        let window = Arc::new(Window::default());
        let patience = options.patience.unwrap_or(PATIENCE);
        let reverse = Reverse {
            name: Arc::clone(&name),
            connection: 0,
            asks: asks.clone(),
            window: Arc::clone(&window),
        };
        let (link, offer) = reach(&mut options, patience, &reverse)?;
        let Found { identity, overlay, config } = overlay::find(&options, &link, offer)?;
        window.set_regions(identity.shared_memory.clone());
        let identity = Arc::new(identity);
        let config = Arc::new(Mutex::new(config));
        let has_config = link.protocol.contains(crate::message::ProtocolFeatures::CONFIG);
        let session = Session {
            name,
            kind: options.kind,
            path: Some(options.path).filter(|path| !path.as_os_str().is_empty()),
            patience,
            identity: Arc::clone(&identity),
            wanted: Wanted::new(identity.queue_sizes.len(), overlay.features()),
            overlay,
            config: Arc::clone(&config),
            window: Arc::clone(&window),
            asks: asks.clone(),
            inbox,
            link: Some(link),
            connection: 0,
            config_interrupt: Interrupt::nobody(),
            relay: relay::Relay::default(),
            has_ended: false,
            limit: LogLimit::new(),
        };
        let thread = thread::Builder::new().name(options.name.replace('\0', ""));
        let thread = thread.spawn(move || session.run())?;
        Ok(Self { identity, config, window, asks, has_config, thread: Some(thread) })
    }

    /// Has the session's thread do something and waits for it; an error if it is gone.
    fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Session) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.asks.wait(ask).unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into()))
    }
}

/// Connects to a back-end that says what it offers.
fn reach(
    options: &mut RemoteOptions,
    patience: Duration,
    reverse: &Reverse,
) -> Result<(Link, Offer), RemoteError> {
    if let Some(stream) = options.stream.take() {
        let mut link = Link::new(stream, patience, None);
        let offer = link.negotiate(reverse.clone())?;
        return Ok((link, offer));
    }
    let mut wait = session::FIRST_WAIT;
    loop {
        let mut link = Link::new(wait_for(options)?, patience, None);
        match link.negotiate(reverse.clone()) {
            // It ended with this connection in its backlog: the next one may take it.
            Err(RemoteError::HungUp(FIRST)) => thread::sleep(wait),
            offer => return Ok((link, offer?)),
        }
        wait = session::LONGEST_WAIT.min(wait * 2);
    }
}

/// What a back-end is asked first.
const FIRST: &str = "GET_FEATURES";

/// Connects, as soon as somebody listens.
fn wait_for(options: &RemoteOptions) -> Result<UnixStream, RemoteError> {
    if options.path.as_os_str().is_empty() {
        return Err(RemoteError::NoSocket);
    }
    let mut wait = session::FIRST_WAIT;
    let mut has_said = false;
    loop {
        match stream_to(&options.path) {
            Ok(stream) => return Ok(stream),
            Err(error) if is_late(&error) && !is_no_socket(&options.path) => {}
            Err(error) => return Err(RemoteError::Connect(options.path.clone(), error)),
        }
        if !has_said {
            warn!(name = options.name, path = %options.path.display(), "waiting for a back-end");
            has_said = true;
        }
        thread::sleep(wait);
        wait = session::LONGEST_WAIT.min(wait * 2);
    }
}

/// Whether there may be a back-end later.
fn is_late(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
    )
}

/// Whether there is something that nobody will ever listen at.
fn is_no_socket(path: &Path) -> bool {
    path.metadata().is_ok_and(|about| !about.file_type().is_socket())
}

impl VirtioDevice for Remote {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What the back-end said last, without asking it.
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let known = config.get(offset..).unwrap_or_default();
        let len = known.len().min(data.len());
        data[..len].copy_from_slice(&known[..len]);
        data[len..].fill(0);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        let len = self.identity.config_len.saturating_sub(offset).min(data.len());
        let Ok(offset) = u32::try_from(offset) else { return };
        if len > 0 && self.has_config {
            let data = data[..len].to_vec();
            self.asks.wait(move |session| session.write_config(offset, data));
        }
    }

    fn on_config_change(&mut self, interrupt: Interrupt) {
        self.asks.post(move |session| session.config_interrupt = interrupt);
    }

    /// As in the contract; while the back-end is away the queue starts when it is back. Where requests
    /// in flight are written down is between this and the back-end: the setup's own place is not used.
    fn start_queue(&mut self, setup: QueueSetup) -> io::Result<()> {
        self.ask(move |session| session.start(setup))
    }

    /// As in the contract; while the back-end is away, the queue is where its last completed
    /// request is, and requests that the back-end had taken are done again by whoever starts it next.
    fn stop_queue(&mut self, index: u16) -> Option<QueueState> {
        self.asks.wait(move |session| session.stop(index, false))?
    }

    fn abandon_queue(&mut self, index: u16) -> Option<QueueState> {
        self.asks.wait(move |session| session.stop(index, true))?
    }

    fn reset(&mut self) {
        self.asks.wait(Session::reset);
    }

    fn save(&mut self) -> io::Result<Vec<u8>> {
        self.ask(Session::save)
    }

    fn load(&mut self, state: &[u8]) -> io::Result<()> {
        let state = state.to_vec();
        self.ask(move |session| session.load(&state))
    }

    fn on_shared_memory(&mut self, memory: Arc<dyn SharedMemory>) {
        self.window.set(memory);
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.asks.post(|session| session.has_ended = true);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by it.
            drop(thread.join());
        }
    }
}
