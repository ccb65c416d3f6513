//! One thread per queue, one wait in it.
//!
//! The wait is an edge-triggered epoll of the kick, the stop descriptor and the handler's wake
//! descriptor. An eventfd that is never read fires once per write, and once when it is registered
//! with a count, so a kick costs no read and none is lost. The obligation that brings, to look
//! again after having asked for the next kick, is met by [`Queue::end_turn`]. A driver that does not
//! kick has a timer in its place.
//!
//! After a turn that found work the thread looks at the ring for a while before it sleeps, as long as
//! that has been worth it, and is not kicked meanwhile.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};
use vmm_sys_util::timerfd::TimerFd;

use crate::polling::Polling;
use crate::queue::Turn;
use crate::{Interrupt, LogLimit, Queue, QueueSetup, QueueState, RingError, signals};

/// What a device does with one queue, on the queue's own thread.
pub trait QueueHandler: Send + 'static {
    /// Does all there is to do: pops until the ring is empty (or the device can take no more) and
    /// reads `wake` until it would block. Called when the driver kicks, when `wake` fires, and once
    /// at the start. Both are edge-triggered: what is left undone here waits for the next event.
    /// The driver is asked to kick again only if the last pop found the ring empty (for what comes
    /// after, even if chains were undone): a handler that stops earlier is brought back by `wake`.
    /// Work per call is bounded by the queue's budget; the worker calls again while it was spent.
    ///
    /// # Errors
    /// The ring's own error, passed on with `?`: the queue is latched and its driver told.
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError>;

    /// A descriptor to wait for (to be readable) beside the kick: a tap, an io_uring, an epoll of
    /// many. Asked once per start.
    fn wake(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Completes every chain taken and not yet pushed; the queue stops afterwards.
    fn drain(&mut self, _queue: &mut Queue) -> Result<(), RingError> {
        Ok(())
    }

    /// As [`QueueHandler::drain`], but chains whose work can be given up are dropped instead:
    /// [`QueueSetup::inflight`] has them for whoever goes on. None may be worked on afterwards.
    fn abandon(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        self.drain(queue)
    }
}

/// How long a ring without kicks is left alone: after a turn with work, and at most, when one turn
/// after the other finds none.
const PAUSE: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(1));

/// A queue's handler, at rest in the device or at work on its thread.
///
/// A device keeps one per queue: what the handler owns (a file, a tap) goes to the thread at
/// [`Lane::start`] and comes back at [`Lane::stop`]. Dropping a lane stops it.
pub struct Lane<H> {
    rest: Option<H>,
    worker: Option<Worker<H>>,
}

impl<H: QueueHandler> Lane<H> {
    /// A handler at rest.
    pub fn new(handler: H) -> Self {
        Self { rest: Some(handler), worker: None }
    }

    /// Starts the queue on a thread called `name` (15 bytes are visible to the host). The first
    /// turn comes at once, whether the driver has kicked or not.
    ///
    /// # Errors
    /// The ring is not in guest memory (`InvalidInput`), it runs already (`AlreadyExists`), or the
    /// host refuses a thread or descriptor. The handler stays at rest.
    pub fn start(&mut self, name: &str, setup: QueueSetup) -> io::Result<()> {
        let handler = self.rest.take().ok_or(io::ErrorKind::AlreadyExists)?;
        match Worker::spawn(name, setup, handler) {
            Ok(worker) => self.worker = Some(worker),
            Err((error, handler)) => {
                self.rest = Some(handler);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Drains and stops the queue and takes the handler back. `None` when it was at rest.
    ///
    /// # Panics
    /// The handler panicked on its thread (in a build that unwinds): the panic goes on here.
    pub fn stop(&mut self) -> Option<QueueState> {
        self.end(How::Drain)
    }

    /// As [`Lane::stop`], but what can be given up is: see [`QueueHandler::abandon`].
    ///
    /// # Panics
    /// As [`Lane::stop`].
    pub fn abandon(&mut self) -> Option<QueueState> {
        self.end(How::Abandon)
    }

    fn end(&mut self, how: How) -> Option<QueueState> {
        match self.worker.take()?.stop(how) {
            Ok((handler, state)) => {
                self.rest = Some(handler);
                Some(state)
            }
            Err(payload) => panic::resume_unwind(payload),
        }
    }

    /// Whether the queue has been started and not stopped. A queue with a broken ring still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.worker.is_some()
    }

    /// The handler, while it is at rest.
    pub fn handler(&mut self) -> Option<&mut H> {
        self.rest.as_mut()
    }
}

impl<H> Drop for Lane<H> {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            // A handler's panic was reported by its thread; another one from here could abort.
            drop(worker.stop(How::Drain));
        }
    }
}

/// A running thread and how to end it.
struct Worker<H> {
    stop: Arc<Stop>,
    thread: JoinHandle<(H, QueueState)>,
}

/// Asks a thread to stop: the first flag says so between turns, the descriptor ends its wait.
struct Stop {
    asked: AtomicBool,
    abandon: AtomicBool,
    fd: EventFd,
}

/// What becomes of the requests of a queue that stops.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Drain,
    Abandon,
}

impl<H> Worker<H> {
    fn stop(self, how: How) -> thread::Result<(H, QueueState)> {
        self.stop.abandon.store(how == How::Abandon, Ordering::Relaxed);
        self.stop.asked.store(true, Ordering::Release);
        // Written once in the life of this descriptor, so it can neither block nor overflow.
        drop(self.stop.fd.write(1));
        self.thread.join()
    }
}

impl<H: QueueHandler> Worker<H> {
    /// Starts a thread, or gives the handler back.
    fn spawn(name: &str, setup: QueueSetup, handler: H) -> Result<Self, (io::Error, H)> {
        let (give, take) = mpsc::sync_channel::<Job<H>>(1);
        let prepared = prepare(&setup, &handler).and_then(|(queue, wait)| {
            let stop = Arc::clone(&wait.stop);
            // A thread's name has no NUL in it, whatever the caller's configuration says.
            let thread = thread::Builder::new().name(name.replace('\0', ""));
            // The handler follows only when the thread exists: a refused spawn would drop it.
            let thread =
                signals::blocked(|| thread.spawn(move || take.recv().expect("a job follows").run()))?;
            Ok((queue, wait, stop, thread))
        });
        match prepared {
            Err(error) => Err((error, handler)),
            Ok((queue, wait, stop, thread)) => {
                let QueueSetup { index, kick, error, .. } = setup;
                let job = Job { index, queue, handler, wait, error, _kick: kick };
                give.send(job).map_err(|_| ()).expect("the thread waits for its job");
                Ok(Self { stop, thread })
            }
        }
    }
}

/// Checks the ring and collects what the thread waits for.
fn prepare(setup: &QueueSetup, handler: &impl QueueHandler) -> io::Result<(Queue, Wait)> {
    let queue = Queue::new(setup).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let stop = Stop {
        asked: AtomicBool::new(false),
        abandon: AtomicBool::new(false),
        fd: EventFd::new(EFD_CLOEXEC)?,
    };
    let (epoll, timer) = (Epoll::new()?, setup.kick.is_none().then(TimerFd::new).transpose()?);
    let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
    let kick = setup.kick.as_ref().map(AsRawFd::as_raw_fd).or(timer.as_ref().map(AsRawFd::as_raw_fd));
    let wake = handler.wake().map(|fd| fd.as_raw_fd());
    for fd in [kick, Some(stop.fd.as_raw_fd()), wake].into_iter().flatten() {
        epoll.ctl(ControlOperation::Add, fd, event)?;
    }
    Ok((queue, Wait { epoll, polling: Polling::new(), timer, pause: PAUSE.0, stop: Arc::new(stop) }))
}

/// What a queue's thread waits for.
struct Wait {
    epoll: Epoll,
    polling: Polling,
    /// For a driver that does not kick, and how long to leave it alone.
    timer: Option<TimerFd>,
    pause: Duration,
    stop: Arc<Stop>,
}

impl Wait {
    /// Looks for something to do. Says whether there is.
    fn look(&mut self, queue: &Queue) -> bool {
        let Self { epoll, polling, .. } = self;
        // What the handler waits for may only come when this thread is in the kernel.
        polling.look(|| {
            queue.has_news() || epoll.wait(0, &mut [EpollEvent::default()]).is_ok_and(|count| count > 0)
        })
    }

    /// Waits, after a turn that found work or not. Whatever fires, a turn looks at everything; an
    /// interrupted wait is one turn more.
    fn sleep(&mut self, worked: bool) {
        let mut timeout_ms = -1;
        if let Some(timer) = &mut self.timer {
            self.pause = if worked { PAUSE.0 } else { PAUSE.1.min(self.pause * 2) };
            // Should it fail, the timeout is there.
            let _ = timer.reset(self.pause, None);
            timeout_ms = 1;
        }
        let Self { epoll, polling, .. } = self;
        polling.sleep(|| drop(epoll.wait(timeout_ms, &mut [EpollEvent::default()])));
    }

    fn is_over(&self) -> bool {
        self.stop.asked.load(Ordering::Acquire)
    }
}

/// What a queue's thread owns.
struct Job<H> {
    index: u16,
    queue: Queue,
    handler: H,
    wait: Wait,
    error: Interrupt,
    /// Registered in `wait`, so it has to stay open.
    _kick: Option<EventFd>,
}

impl<H: QueueHandler> Job<H> {
    fn run(mut self) -> (H, QueueState) {
        let result = self.turns();
        let drained = match self.wait.stop.abandon.load(Ordering::Relaxed) {
            true => self.handler.abandon(&mut self.queue),
            false => self.handler.drain(&mut self.queue),
        };
        self.queue.flush();
        if let Err(error) = result.and(drained) {
            self.break_off(error);
        }
        // A broken ring stays broken, but whoever drives the device still stops it in its own time.
        while !self.wait.is_over() {
            drop(self.wait.stop.fd.read());
        }
        (self.handler, self.queue.state())
    }

    /// Runs turns until the thread is asked to stop; at least one, as the requests that another
    /// process left are ours already.
    fn turns(&mut self) -> Result<(), RingError> {
        loop {
            let before = self.queue.progress();
            self.queue.begin_turn();
            self.handler.run(&mut self.queue)?;
            let worked = self.queue.progress() != before;
            let again = worked && self.queue.was_emptied() && {
                self.queue.flush();
                self.wait.look(&self.queue)
            };
            if !again && self.queue.end_turn()? == Turn::Wait {
                self.wait.sleep(worked);
            }
            if self.wait.is_over() {
                return Ok(());
            }
        }
    }

    /// Latches the queue and tells whoever drives the device.
    fn break_off(&mut self, error: RingError) {
        // A guest can break a ring, reset the device and start over, as often as it likes.
        static LIMIT: LogLimit = LogLimit::new();
        self.queue.latch(error);
        self.error.signal();
        if let Some(dropped) = LIMIT.pass() {
            let thread = thread::current();
            let name = thread.name().unwrap_or_default();
            tracing::warn!(queue = self.index, thread = name, dropped, "the driver broke its ring: {error}");
        }
    }
}
