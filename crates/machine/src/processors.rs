//! The threads that processors run on, and the gate that stops them.

#![expect(unsafe_code, reason = "sends a thread a signal")]

use std::collections::BTreeMap;
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::affinity::within;
use crate::board::Buses;
use crate::bus::Effect;
use crate::error::Error;
use crate::vcpu::{Exit, Fault, Vcpu, enable_kicks, kick_signal};

/// Enough for a device's register access in a debug build, with a log event's formatting in it.
const STACK_BYTES: usize = 256 << 10;

/// What a processor's stop means for the machine.
pub(crate) enum Stop {
    /// A device's effect, never [`Effect::None`]; or the kernel's own event of the same meaning.
    Effect(Effect),
    /// The machine cannot go on.
    Broken(Fault),
}

/// Processors at work, each on its thread.
pub(crate) struct Processors {
    gate: Arc<Gate>,
    threads: Vec<JoinHandle<()>>,
}

impl Processors {
    /// Starts `vcpus`; with `held`, they wait for [`Processors::release`] first. `on_stop` is called
    /// on the processor's thread, and says whether that goes on.
    pub(crate) fn start(
        vcpus: Vec<Vcpu>,
        affinity: &BTreeMap<u32, Vec<u32>>,
        buses: &Arc<Buses>,
        held: bool,
        on_stop: impl Fn(&Vcpu, Stop) -> bool + Clone + Send + 'static,
    ) -> Result<Self, Error> {
        enable_kicks().map_err(Error::host("start a processor's thread"))?;
        let order = if held { Order::Hold } else { Order::Run };
        let gate = Arc::new(Gate::new(order, vcpus.len()));
        let mut processors = Self { gate, threads: Vec::with_capacity(vcpus.len()) };
        for mut vcpu in vcpus {
            let (gate, buses, on_stop) = (Arc::clone(&processors.gate), Arc::clone(buses), on_stop.clone());
            let index = vcpu.index();
            let builder = thread::Builder::new().name(format!("vcpu{index}")).stack_size(STACK_BYTES);
            let start = || {
                builder.spawn(move || {
                    vcpu.settle();
                    run(&mut vcpu, &gate, &buses, &on_stop);
                    vcpu.unsettle();
                    gate.leave();
                })
            };
            let thread = match affinity.get(&index) {
                Some(cpus) => within(cpus, start).map_err(|source| Error::Affinity { index, source }),
                None => start().map_err(Error::host("start a processor's thread")),
            };
            match thread {
                Ok(thread) => processors.threads.push(thread),
                Err(error) => {
                    processors.end();
                    return Err(error);
                }
            }
        }
        Ok(processors)
    }

    /// No processors: those of a machine that has ended.
    pub(crate) fn none() -> Self {
        Self { gate: Arc::new(Gate::new(Order::End, 0)), threads: Vec::new() }
    }

    /// Stops all of them between two instructions, and waits until they have.
    pub(crate) fn hold(&self) {
        self.gate.order(Order::Hold);
        self.kick();
        self.gate.wait_for_all();
    }

    /// Lets them go on.
    pub(crate) fn release(&self) {
        self.gate.order(Order::Run);
    }

    /// Ends their threads and waits for that; the processors are gone then.
    pub(crate) fn end(self) {
        self.gate.order(Order::End);
        self.kick();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a processor's thread panicked");
            }
        }
    }

    /// Makes every processor look at the gate.
    fn kick(&self) {
        for thread in &self.threads {
            // SAFETY: the thread has not been joined, so its identifier is its own. The signal's
            // handler is in place.
            unsafe { libc::pthread_kill(thread.as_pthread_t(), kick_signal()) };
        }
    }
}

fn run(vcpu: &mut Vcpu, gate: &Gate, buses: &Buses, on_stop: &dyn Fn(&Vcpu, Stop) -> bool) {
    while gate.pass(vcpu) {
        let stop = match vcpu.run() {
            Exit::PortRead { port, size } => {
                for data in vcpu.data().chunks_mut(size) {
                    buses.ports.read(u64::from(port), data);
                }
                continue;
            }
            Exit::PortWrite { port, size } => {
                // What one element does to the machine does not keep the others from being written.
                let mut all = Effect::None;
                for data in vcpu.data().chunks(size) {
                    let effect = buses.ports.write(u64::from(port), data);
                    all = if all == Effect::None { effect } else { all };
                }
                match all {
                    Effect::None => continue,
                    effect => Stop::Effect(effect),
                }
            }
            Exit::MemoryRead { address } => {
                buses.memory.read(address, vcpu.data());
                continue;
            }
            Exit::MemoryWrite { address } => match buses.memory.write(address, vcpu.data()) {
                Effect::None => continue,
                effect => Stop::Effect(effect),
            },
            Exit::Interrupted => continue,
            Exit::TripleFault => {
                // Rare enough for a line of its own: each costs the guest a boot.
                tracing::warn!(
                    "processor {} stopped with a triple fault: the machine is reset",
                    vcpu.index()
                );
                Stop::Effect(Effect::Reset)
            }
            Exit::Reset => Stop::Effect(Effect::Reset),
            Exit::PowerOff => Stop::Effect(Effect::PowerOff),
            Exit::Crashed => Stop::Effect(Effect::Panicked),
            Exit::Broken(fault) => Stop::Broken(fault),
        };
        if !on_stop(vcpu, stop) {
            return;
        }
    }
}

/// What processors are to do. In a byte, so that passing the gate costs one load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Order {
    Run,
    Hold,
    End,
}

/// Where processors look before they run.
struct Gate {
    order: AtomicU8, // written with `state` locked
    state: Mutex<State>,
    opened: Condvar,
    stopped: Condvar,
}

struct State {
    order: Order,
    /// Processors that may be in the guest.
    moving: usize,
}

impl Gate {
    fn new(order: Order, processors: usize) -> Self {
        Self {
            order: AtomicU8::new(order as u8),
            state: Mutex::new(State { order, moving: processors }),
            opened: Condvar::new(),
            stopped: Condvar::new(),
        }
    }

    fn order(&self, order: Order) {
        let mut state = self.state();
        if state.order != Order::End {
            state.order = order;
            self.order.store(order as u8, Ordering::Release);
            self.opened.notify_all();
        }
    }

    /// Waits while the gate is held; whether the processor is to run.
    fn pass(&self, vcpu: &Vcpu) -> bool {
        if self.order.load(Ordering::Acquire) == Order::Run as u8 {
            return true;
        }
        let mut state = self.state();
        if state.order == Order::Hold {
            state.moving -= 1;
            self.stopped.notify_all();
            while state.order == Order::Hold {
                state = self.opened.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.moving += 1;
            vcpu.was_paused();
        }
        state.order == Order::Run
    }

    /// A processor's last word.
    fn leave(&self) {
        self.state().moving -= 1;
        self.stopped.notify_all();
    }

    fn wait_for_all(&self) {
        let mut state = self.state();
        while state.moving > 0 && state.order != Order::Run {
            state = self.stopped.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
