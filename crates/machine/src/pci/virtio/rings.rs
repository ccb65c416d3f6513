//! The queues of a virtio function at work: their kicks, and starting, pausing and stopping them.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use parador_virtio::{EventFd, GuestMemory, Interrupt, QueueLayout, QueueSetup, QueueState, VirtioDevice};
use tracing::debug;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK};

use super::layout;
use crate::pci::Host;

/// The queues of a function.
///
/// A queue's kick stays registered when the queue stops, for the next time: taking an ioeventfd away
/// makes KVM wait for all its readers, which was seen to take milliseconds. A kick meanwhile costs
/// the guest no exit and is one too many when the queue starts again, which is allowed.
pub(super) struct Rings {
    /// `None` for a queue that never started.
    rings: Box<[Option<Ring>]>,
    paused: bool,
}

struct Ring {
    kick: EventFd,
    /// Guest-physical address at which the kernel kicks for us.
    registered: Option<u64>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Stopped,
    Running,
    /// To be started there when the machine goes on.
    Paused(QueueState),
}

/// What a queue is started with.
pub(super) struct Start<'a> {
    pub device: &'a mut dyn VirtioDevice,
    pub memory: &'a Arc<GuestMemory>,
    pub features: u64,
    pub layout: QueueLayout,
    pub call: Interrupt,
    pub error: Interrupt,
}

impl Rings {
    pub(super) fn new(count: usize) -> Self {
        Self { rings: (0..count).map(|_| None).collect(), paused: false }
    }

    /// Whether queue `index` was started and not stopped since. It may be paused.
    pub(super) fn is_started(&self, index: usize) -> bool {
        self.state(index) != State::Stopped
    }

    /// Whether queue `index` waits to be started where it was.
    pub(super) fn is_paused(&self, index: usize) -> bool {
        matches!(self.state(index), State::Paused(_))
    }

    fn state(&self, index: usize) -> State {
        self.rings[index].as_ref().map_or(State::Stopped, |ring| ring.state)
    }

    /// Whether what is started from now on waits until this is taken back.
    pub(super) fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Starts queue `index`, at its beginning or where it was paused. While the machine is paused
    /// it is only put down to be started.
    ///
    /// # Errors
    /// What the device says. The queue does not run then.
    pub(super) fn start(&mut self, index: usize, start: Start<'_>) -> io::Result<()> {
        let ring = match &mut self.rings[index] {
            Some(ring) => ring,
            none => none.insert(Ring {
                kick: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
                registered: None,
                state: State::Stopped,
            }),
        };
        let resume = match ring.state {
            State::Stopped => QueueState::default(),
            State::Paused(at) => at,
            State::Running => return Ok(()),
        };
        if self.paused {
            ring.state = State::Paused(resume);
            return Ok(());
        }
        let Start { device, memory, features, layout, call, error } = start;
        let kick = Some(ring.kick.try_clone()?);
        let memory = Arc::clone(memory);
        let index = index as u16;
        let (inflight, dirty) = (None, None);
        device.start_queue(QueueSetup {
            index,
            features,
            layout,
            resume,
            memory,
            kick,
            call,
            error,
            inflight,
            dirty,
        })?;
        ring.state = State::Running;
        Ok(())
    }

    /// Stops queue `index` and remembers where it was. Says whether the device knew: a queue that
    /// it did not keep is stopped for good.
    pub(super) fn pause(&mut self, index: usize, device: &mut dyn VirtioDevice) -> bool {
        if let Some(ring) = &mut self.rings[index]
            && ring.state == State::Running
        {
            ring.state = device.stop_queue(index as u16).map_or(State::Stopped, State::Paused);
            return ring.state != State::Stopped;
        }
        true
    }

    /// Stops queue `index` for good.
    pub(super) fn stop(&mut self, index: usize, device: &mut dyn VirtioDevice) {
        if let Some(ring) = &mut self.rings[index] {
            if ring.state == State::Running {
                device.stop_queue(index as u16);
            }
            ring.state = State::Stopped;
        }
    }

    /// Gives everything back to the host. All queues have been stopped.
    pub(super) fn release(&mut self, host: &dyn Host) {
        self.register(None, host);
        self.rings.fill_with(|| None);
    }

    /// Kicks queue `index` by hand: the kernel did not do it.
    pub(super) fn kick(&self, index: usize) {
        if let Some(Some(ring)) = self.rings.get(index) {
            // A counter that is full has kicked already.
            drop(ring.kick.write(1));
        }
    }

    /// Has the kernel kick for us where the BAR answers now, if it does. Where it refuses, the
    /// guest's writes come to [`Rings::kick`].
    pub(super) fn register(&mut self, bar: Option<&Range<u64>>, host: &dyn Host) {
        for (index, ring) in self.rings.iter_mut().enumerate() {
            let Some(ring) = ring else { continue };
            let wanted = bar.map(|bar| layout::notify_address(bar, index));
            // A queue that is stopped may stay where it is, but is not moved: a kernel that was
            // started by another one switches decoding off and on for each BAR it measures.
            let moves = ring.state != State::Stopped;
            ring.register(wanted.filter(|_| moves || ring.registered == wanted), host);
        }
    }
}

impl Ring {
    fn register(&mut self, address: Option<u64>, host: &dyn Host) {
        if self.registered == address {
            return;
        }
        if let Some(old) = self.registered.take()
            && let Err(error) = host.set_ioeventfd(old, &self.kick, false)
        {
            debug!(address = old, %error, "cannot unregister a kick");
        }
        if let Some(new) = address {
            match host.set_ioeventfd(new, &self.kick, true) {
                Ok(()) => self.registered = Some(new),
                Err(error) => debug!(address = new, %error, "kicks come by hand"),
            }
        }
    }
}
