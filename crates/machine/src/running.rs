//! A machine at work: how it pauses, restarts and ends.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tracing::{debug, info, warn};

use crate::bus::Effect;
use crate::error::Error;
use crate::parts::Core;
use crate::platform::x86_64::Entry;
use crate::processors::{Processors, Stop};
use crate::shape::{OnPanic, OnReset};
use crate::vcpu::Vcpu;

/// A machine at work. Every method may be called from any thread.
///
/// Somebody has to [`wait`](Self::wait) for it: that is when its processors' threads are taken back
/// and its devices finish what they began. Dropping it pulls the plug first.
///
/// Closing a machine takes the kernel 10 ms and more. A process that ends anyway need not wait for
/// that: it calls [`leave`](Self::leave), and exits without dropping this.
pub struct RunningMachine(Arc<Inner>);

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The guest switched itself off.
    PoweredOff,
    /// The guest asked to be reset, and [`crate::Shape::on_reset`] says to stop then.
    Reset,
    /// The guest said that it has panicked, and [`crate::Shape::on_panic`] says to stop then.
    Panicked,
    /// It was stopped from outside, by [`RunningMachine::stop`].
    Stopped,
    /// The machine could not go on.
    Failed(Report),
}

/// Why a machine could not go on: all there is to know, over several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report(pub(crate) String);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// Lock order: `life`, then `outcome`. A processor's thread takes `outcome` only, so that whoever
// holds `life` can wait for processors.
struct Inner {
    core: Core,
    life: Mutex<Life>,
    outcome: Mutex<Option<Outcome>>,
    ended: Condvar,
    /// The guest has asked to be reset and a thread is on its way to do it.
    resetting: AtomicBool,
}

struct Life {
    /// None once the machine has ended and somebody has waited for it.
    processors: Option<Processors>,
    paused: bool,
}

impl RunningMachine {
    pub(crate) fn start(core: Core, vcpus: Vec<Vcpu>, entry: Entry) -> Result<Self, Error> {
        let inner = Arc::new(Inner {
            core,
            life: Mutex::new(Life { processors: None, paused: false }),
            outcome: Mutex::new(None),
            ended: Condvar::new(),
            resetting: AtomicBool::new(false),
        });
        let mut life = lock(&inner.life); // so that a reset the guest asks for at once finds them
        life.processors = Some(inner.start_processors(vcpus, &entry, false)?);
        drop(life);
        let running = Self(inner);
        // Only now: to start a thread takes as long as half of what KVM does for a machine.
        if let Some(serial) = &running.0.core.board.serial {
            serial.start().map_err(Error::host("start the serial port's thread"))?;
        }
        Ok(running)
    }

    /// Stops the processors, then the devices' queues. Harmless when paused already.
    ///
    /// # Errors
    /// The machine has ended.
    pub fn pause(&self) -> Result<(), Error> {
        let mut life = lock(&self.0.life);
        let processors = life.processors.as_ref().filter(|_| !self.0.has_ended()).ok_or(Error::Ended)?;
        if !life.paused {
            processors.hold();
            self.0.core.board.pci.stop_queues();
            life.paused = true;
        }
        Ok(())
    }

    /// Goes on after a pause. Harmless when running already.
    ///
    /// # Errors
    /// The machine has ended.
    pub fn resume(&self) -> Result<(), Error> {
        let mut life = lock(&self.0.life);
        let processors = life.processors.as_ref().filter(|_| !self.0.has_ended()).ok_or(Error::Ended)?;
        if life.paused {
            self.0.core.board.pci.start_queues();
            processors.release();
            life.paused = false;
        }
        Ok(())
    }

    /// Presses the power button: a guest that listens shuts itself down.
    ///
    /// # Errors
    /// The guest cannot be told.
    pub fn power_button(&self) -> Result<(), Error> {
        self.0.core.board.power_button.press().map_err(Error::host("press the power button"))
    }

    /// Ends the machine as pulling the plug does. A machine that has ended stays as it did.
    pub fn stop(&self) {
        self.0.end(Outcome::Stopped);
    }

    /// Waits until the machine has ended, its processors are gone and its devices have completed what
    /// they took. Whoever asks again gets the same answer.
    #[must_use]
    pub fn wait(&self) -> Outcome {
        let Inner { core, life, outcome, ended, resetting: _ } = &*self.0;
        let mut slot = lock(outcome);
        let outcome = loop {
            match &*slot {
                Some(outcome) => break outcome.clone(),
                None => slot = ended.wait(slot).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(slot);
        let mut life = lock(life);
        if let Some(processors) = life.processors.take() {
            processors.end();
            core.board.pci.stop_queues();
            if let Some(serial) = &core.board.serial {
                serial.finish();
            }
        }
        outcome
    }

    /// Has the kernel close a machine that has ended, and was waited for, after the end of this process.
    /// A host that does not do this has the process wait.
    pub fn leave(&self) {
        if let Err(error) = self.0.core.vm.close_after_process() {
            debug!(%error, "the process ends when the machine is closed");
        }
    }
}

impl Drop for RunningMachine {
    fn drop(&mut self) {
        self.stop();
        let _ = self.wait();
    }
}

impl Inner {
    fn start_processors(
        self: &Arc<Self>,
        vcpus: Vec<Vcpu>,
        entry: &Entry,
        held: bool,
    ) -> Result<Processors, Error> {
        self.core.set_up(&vcpus, entry)?;
        let inner = Arc::clone(self);
        let Core { shape, board, .. } = &self.core;
        Processors::start(vcpus, &shape.affinity, &board.buses, held, move |vcpu, stop| {
            inner.on_stop(vcpu, stop)
        })
    }

    /// On a processor's thread: what its stop means for the machine, and whether it goes on.
    fn on_stop(self: &Arc<Self>, vcpu: &Vcpu, stop: Stop) -> bool {
        let Inner { core, .. } = &**self;
        match stop {
            Stop::Effect(Effect::None) => return true,
            Stop::Effect(Effect::Panicked) if core.shape.on_panic == OnPanic::Continue => {
                warn!("the guest says that it has panicked");
                return true;
            }
            Stop::Effect(Effect::Panicked) => self.end(Outcome::Panicked),
            Stop::Effect(Effect::PowerOff) => self.end(Outcome::PoweredOff),
            Stop::Effect(Effect::Reset) if core.shape.on_reset == OnReset::Stop => self.end(Outcome::Reset),
            Stop::Effect(Effect::Reset) => self.reset(),
            Stop::Broken(fault)
                if fault.is_of_memory() && vcpu.may_try_again(core.board.pci.give_up_memory()) =>
            {
                return true;
            }
            Stop::Broken(fault) => self.end(Outcome::Failed(Report(vcpu.describe(&fault, core.vm.memory())))),
        }
        false
    }

    /// Has the machine reset by a thread of its own: a processor cannot wait for its own end.
    fn reset(self: &Arc<Self>) {
        if self.resetting.swap(true, Ordering::AcqRel) {
            return;
        }
        let inner = Arc::clone(self);
        let thread = thread::Builder::new().name("reset".to_owned()).spawn(move || {
            if let Err(error) = inner.restart() {
                inner.end(Outcome::Failed(Report(describe(&error))));
            }
        });
        if let Err(source) = thread {
            self.end(Outcome::Failed(Report(describe(&Error::Host {
                doing: "start a thread for the reset",
                source,
            }))));
        }
    }

    fn restart(self: &Arc<Self>) -> Result<(), Error> {
        let mut life = lock(&self.life);
        let Some(processors) = life.processors.take() else { return Ok(()) };
        info!("the guest restarts");
        processors.end();
        self.resetting.store(false, Ordering::Release);
        if self.has_ended() {
            life.processors = Some(Processors::none());
            return Ok(());
        }
        self.core.board.pci.stop_queues();
        let renewed = self.core.renew().and_then(|(vcpus, entry)| {
            if !life.paused {
                self.core.board.pci.start_queues();
            }
            self.start_processors(vcpus, &entry, life.paused)
        });
        let (processors, result) = match renewed {
            Ok(processors) => (processors, Ok(())),
            Err(error) => (Processors::none(), Err(error)),
        };
        life.processors = Some(processors);
        result
    }

    fn has_ended(&self) -> bool {
        lock(&self.outcome).is_some()
    }

    /// The first to say how the machine ends is believed.
    fn end(&self, how: Outcome) {
        lock(&self.outcome).get_or_insert(how);
        self.ended.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error with its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
