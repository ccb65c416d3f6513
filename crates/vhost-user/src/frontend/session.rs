//! The one thread that talks to a device's back-end: it does what the device is asked for, one
//! thing after the other, and connects again when the back-end was gone.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use parador_virtio::{EventFd, Identity, Interrupt, LogLimit, QueueSetup, QueueState};
use rustix::event::{PollFd, PollFlags};
use tracing::{info, warn};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK};

use super::RemoteError;
use super::channel::Reverse;
use super::kinds::Kind;
use super::link::{Link, stream_to};
use super::overlay::{Overlay, check_queues};
use super::relay::Relay;
use super::rings::Ring;
use super::wanted::Wanted;
use super::window::Window;
use crate::message::{Config, ConfigFlags, FrontendRequest as R, ProtocolFeatures as F};
use crate::wait::{borrow, wait};

/// How long to wait before a back-end that was gone is looked for again: at first, and at most.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(10);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Something for the session's thread to do.
type Ask = Box<dyn FnOnce(&mut Session) + Send>;

/// The way to have the session's thread do things. Any thread may use it.
#[derive(Clone)]
pub(super) struct Asks {
    sender: mpsc::Sender<Ask>,
    bell: Arc<EventFd>,
    /// A change of the configuration was announced and not looked at yet.
    config_changed: Arc<AtomicBool>,
}

impl Asks {
    /// A way to ask, and where what is asked for comes out.
    pub(super) fn new() -> io::Result<(Self, mpsc::Receiver<Ask>)> {
        let (sender, receiver) = mpsc::channel();
        let bell = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        Ok((Self { sender, bell, config_changed: Arc::default() }, receiver))
    }

    /// Rings when there is something to do.
    pub(super) fn bell(&self) -> &Arc<EventFd> {
        &self.bell
    }

    /// Has `ask` done some time.
    pub(super) fn post(&self, ask: impl FnOnce(&mut Session) + Send + 'static) {
        // Nobody there: the device is gone.
        drop(self.sender.send(Box::new(ask)));
        drop(self.bell.write(1));
    }

    /// Has `ask` done and waits for what it says; `None` if the device is gone.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Session) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.post(move |session| drop(answer.send(ask(session))));
        answered.recv().ok()
    }

    /// The back-end at the other end of connection `connection` has another configuration.
    pub(super) fn config_changed(&self, connection: u64) {
        // However often it says so, it is looked at once.
        if !self.config_changed.swap(true, Ordering::AcqRel) {
            self.post(move |session| session.refresh_config(connection));
        }
    }

    /// The back-end at the other end of connection `connection` says what makes no sense.
    pub(super) fn misbehaved(&self, connection: u64, error: RemoteError) {
        self.post(move |session| {
            if session.connection == connection {
                session.lose(&error);
            }
        });
    }
}

/// What a session is made of.
pub(super) struct Session {
    pub(super) name: Arc<str>,
    pub(super) kind: u32,
    /// Where the back-end listens; without it, one that is gone is gone for ever.
    pub(super) path: Option<PathBuf>,
    pub(super) patience: Duration,
    pub(super) identity: Arc<Identity>,
    /// Features that are not the back-end's but added here.
    pub(super) overlay: Overlay,
    /// The configuration space as the driver reads it. Held for a copy only.
    pub(super) config: Arc<Mutex<Vec<u8>>>,
    pub(super) window: Arc<Window>,
    pub(super) asks: Asks,
    pub(super) inbox: mpsc::Receiver<Ask>,
    pub(super) link: Option<Link>,
    /// Which connection it is, the first being zero.
    pub(super) connection: u64,
    pub(super) wanted: Wanted,
    pub(super) config_interrupt: Interrupt,
    pub(super) relay: Relay,
    pub(super) has_ended: bool,
    pub(super) limit: LogLimit,
}

impl Session {
    /// Does what is asked until the device is gone.
    pub(super) fn run(mut self) {
        let mut next_wait = FIRST_WAIT;
        while !self.has_ended {
            let retry = self.link.is_none() && self.path.is_some();
            if self.rest(retry.then_some(next_wait)) {
                self.do_asks();
            } else if self.link.is_some() {
                self.lose(&RemoteError::HungUp("no request"));
            } else if self.reconnect() {
                next_wait = FIRST_WAIT;
            } else {
                next_wait = LONGEST_WAIT.min(next_wait * 2);
            }
        }
    }

    /// Waits until there is something to do, and says whether it is in the inbox. Otherwise the
    /// connection has ended, or there is none and `patience` has passed.
    fn rest(&self, patience: Option<Duration>) -> bool {
        let mut fds = vec![PollFd::from_borrowed_fd(borrow(self.asks.bell()), PollFlags::IN)];
        // A back-end says nothing unless it is asked: whatever comes here is an end.
        fds.extend(self.link.as_ref().map(|link| PollFd::new(link, PollFlags::IN | PollFlags::RDHUP)));
        let deadline = patience.map(|patience| Instant::now() + patience);
        if wait(&mut fds, deadline).is_err() {
            // For lack of memory; a moment later there may be some.
            std::thread::sleep(FIRST_WAIT);
            return true;
        }
        !fds[0].revents().is_empty()
    }

    fn do_asks(&mut self) {
        drop(self.asks.bell.read());
        while let Ok(ask) = self.inbox.try_recv() {
            ask(self);
        }
    }

    /// Has an exchange with the back-end. `None` if there is none, or not any more.
    fn exchange<T>(
        &mut self,
        exchange: impl FnOnce(&mut Link, &mut Wanted) -> Result<T, RemoteError>,
    ) -> Result<Option<T>, RemoteError> {
        let Some(link) = &mut self.link else { return Ok(None) };
        match exchange(link, &mut self.wanted) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.is_refusal() => Err(error),
            Err(error) => {
                self.lose(&error);
                Ok(None)
            }
        }
    }

    /// Ends the connection, and says why.
    pub(super) fn lose(&mut self, error: &RemoteError) {
        if self.link.take().is_none() {
            return;
        }
        self.window.clear();
        if let Some(dropped) = self.limit.pass() {
            let (name, more) = (&*self.name, Chain(error));
            let then = if self.path.is_some() { "waiting for it" } else { "it cannot come back" };
            warn!(name, dropped, "lost the back-end, {then}: {more}");
        }
    }

    /// Tries once to have the back-end back as it was. An ask that comes meanwhile ends the try.
    fn reconnect(&mut self) -> bool {
        let Some(path) = &self.path else { return false };
        let Ok(stream) = stream_to(path) else { return false };
        let mut link = Link::new(stream, self.patience, Some(Arc::clone(self.asks.bell())));
        match self.restore(&mut link) {
            Ok(config) => {
                link.settle();
                self.link = Some(link);
                self.wanted.signal();
                self.take_config(config);
                info!(name = &*self.name, "the back-end is back");
                true
            }
            Err(error) => {
                drop(link);
                self.window.clear();
                if !matches!(error, RemoteError::Interrupted)
                    && let Some(dropped) = self.limit.pass()
                {
                    warn!(name = &*self.name, dropped, "the back-end cannot go on: {}", Chain(&error));
                }
                false
            }
        }
    }

    /// Brings a new connection to where the last one was, and says what its configuration is.
    fn restore(&mut self, link: &mut Link) -> Result<Option<Vec<u8>>, RemoteError> {
        self.connection += 1;
        let offer = link.negotiate(self.reverse())?;
        let lost = self.identity.features & !self.overlay.features() & !link.offered;
        if let Some(accepted) = self.wanted.features
            && accepted & lost != 0
        {
            return Err(RemoteError::Features(accepted & lost));
        }
        let wanted = self.identity.queue_sizes.len();
        check_queues(Kind::of(self.kind).as_ref(), offer.queues, wanted)?;
        if offer.shared_memory != self.identity.shared_memory {
            return Err(RemoteError::Impossible(R::GetShmemConfig.name(), "other regions than before"));
        }
        let config = link.config(self.identity.config_len)?;
        self.wanted.restore(link, &self.identity)?;
        Ok(config)
    }

    pub(super) fn reverse(&self) -> Reverse {
        Reverse {
            name: Arc::clone(&self.name),
            connection: self.connection,
            asks: self.asks.clone(),
            window: Arc::clone(&self.window),
        }
    }

    /// Takes what a back-end says its configuration is; tells the driver if that is news.
    fn take_config(&mut self, config: Option<Vec<u8>>) {
        let Some(mut config) = config else { return };
        self.overlay.apply(&mut config);
        let mut current = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *current != config;
        *current = config;
        drop(current);
        if is_news {
            self.config_interrupt.signal();
        }
    }

    // --- What a device is asked for --------------------------------------------------------------

    pub(super) fn start(&mut self, setup: QueueSetup) -> io::Result<()> {
        let index = setup.index;
        let slot = self.wanted.rings.get(usize::from(index)).ok_or(io::ErrorKind::InvalidInput)?;
        if slot.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let ring = Ring::new(setup, &self.relay, &self.name)?;
        let identity = Arc::clone(&self.identity);
        self.wanted.take(ring);
        let started = self.exchange(|link, wanted| wanted.start(link, &identity, index));
        if let Err(error) = started {
            self.wanted.remove(index);
            return Err(error.into());
        }
        Ok(())
    }

    pub(super) fn stop(&mut self, index: u16, skip: bool) -> Option<QueueState> {
        let ring = self.wanted.remove(index)?;
        let stopped = self.exchange(|link, _| ring.stop(link, skip));
        Some(match stopped {
            Ok(Some(state)) => state,
            // The back-end is gone or does not say: what it has not completed is done again, by
            // whoever starts the ring next.
            Ok(None) | Err(_) => {
                ring.signal();
                ring.completed()
            }
        })
    }

    pub(super) fn reset(&mut self) {
        self.wanted.reset();
        self.window.clear();
        // One that cannot be reset is asked for nothing it has not been asked for before.
        let done = self.exchange(|link, _| {
            link.told.inflight = false;
            link.told.status = 0;
            link.told.features = None;
            if link.protocol.contains(F::STATUS) {
                link.tell(&R::SetStatus(0), &[])?;
            }
            if link.protocol.contains(F::RESET_DEVICE) {
                link.tell(&R::ResetDevice, &[])?;
            }
            Ok(())
        });
        drop(done);
        self.read_config();
    }

    pub(super) fn write_config(&mut self, offset: u32, data: Vec<u8>) {
        let request = R::SetConfig(Config { offset, flags: ConfigFlags::Writable, data });
        // A back-end that refuses has not changed anything.
        drop(self.exchange(|link, _| link.tell(&request, &[])));
        self.read_config();
    }

    fn refresh_config(&mut self, connection: u64) {
        self.asks.config_changed.store(false, Ordering::Release);
        if self.connection == connection {
            self.read_config();
            // It said that there are news, even if this has been read since.
            self.config_interrupt.signal();
        }
    }

    fn read_config(&mut self) {
        let len = self.identity.config_len;
        if let Ok(Some(Some(mut config))) = self.exchange(|link, _| link.config(len)) {
            self.overlay.apply(&mut config);
            *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
        }
    }

    pub(super) fn save(&mut self) -> io::Result<Vec<u8>> {
        let needs_state = Kind::of(self.kind).is_some_and(|kind| kind.has_state);
        let saved = self.exchange(|link, _| link.save_state(needs_state))?;
        saved.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    pub(super) fn load(&mut self, state: &[u8]) -> io::Result<()> {
        let loaded = self.exchange(|link, _| link.load_state(state))?;
        loaded.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

/// An error and what caused it, in one line.
pub(super) struct Chain<'a>(pub(super) &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
