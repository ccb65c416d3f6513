//! Rings, and what they run on.
//!
//! A ring is what its messages made of it so far, in any order; it runs as soon as all of it is there.
//! Every change of a running ring is a stop and a start: [`Rings::change`] for what is one ring's,
//! [`Rings::change_all`] for what all of them share.

use std::mem;
use std::sync::Arc;

use parador_virtio::ids::{VIRTIO_F_VERSION_1, VIRTIO_ID_NET};
use parador_virtio::{
    Dirty, DirtyLog, EventFd, InflightRegion, Interrupt, Lane, QueueLayout, QueueSetup, QueueState,
    VirtioDevice,
};

use super::Refusal;
use super::discard::Discard;
use super::memory::Memory;
use crate::message::{F_LOG_ALL, VringAddr};

/// A device's rings.
pub(super) struct Rings<'a> {
    pub(super) device: &'a mut dyn VirtioDevice,
    pub(super) shared: Shared,
    list: Vec<Ring>,
}

/// What all rings run on.
#[derive(Default)]
pub(super) struct Shared {
    /// Accepted features, protocol and log included.
    pub(super) features: u64,
    pub(super) memory: Memory,
    pub(super) log: Option<Arc<DirtyLog>>,
    pub(super) inflight: Option<InflightRegion>,
}

/// What the front-end said of a ring. Two states are independent: started (it has a kick, or is
/// to be polled) and enabled.
pub(super) struct Ring {
    pub(super) size: Option<u16>,
    pub(super) address: Option<VringAddr>,
    pub(super) base: u16,
    pub(super) kick: Option<Kick>,
    pub(super) call: Interrupt,
    pub(super) error: Interrupt,
    pub(super) enabled: bool,
    run: Run,
}

/// How a started ring is kicked.
pub(super) enum Kick {
    Fd(EventFd),
    Poll,
}

/// Who works on a ring.
enum Run {
    Nobody,
    Device,
    /// It is started and disabled, and what a network card sends then is lost.
    Discard(Lane<Discard>),
}

impl Default for Ring {
    fn default() -> Self {
        let [call, error] = [Interrupt::nobody(), Interrupt::nobody()];
        Self { size: None, address: None, base: 0, kick: None, call, error, enabled: false, run: Run::Nobody }
    }
}

impl<'a> Rings<'a> {
    pub(super) fn new(device: &'a mut dyn VirtioDevice) -> Self {
        let list = device.identity().queue_sizes.iter().map(|_| Ring::default()).collect();
        Self { device, shared: Shared::default(), list }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    /// The number of a ring that there is.
    pub(super) fn index(&self, index: u32) -> Result<u16, Refusal> {
        let known = u16::try_from(index).ok().filter(|index| usize::from(*index) < self.list.len());
        known.ok_or(Refusal::Value("there is no such ring"))
    }

    /// Whether all rings are stopped, so that the front-end hears nothing from us.
    pub(super) fn are_suspended(&self) -> bool {
        self.list.iter().all(|ring| ring.kick.is_none())
    }

    /// Changes one ring.
    pub(super) fn change(&mut self, index: u16, change: impl FnOnce(&mut Ring)) -> Result<(), Refusal> {
        self.pause(index, false);
        change(&mut self.list[usize::from(index)]);
        self.settle(index)
    }

    /// Changes what all rings run on, and perhaps the rings.
    pub(super) fn change_all(
        &mut self,
        change: impl FnOnce(&mut Shared, &mut [Ring]),
    ) -> Result<(), Refusal> {
        let all = 0..self.list.len() as u16; // checked where the device was made
        all.clone().for_each(|index| self.pause(index, false));
        change(&mut self.shared, &mut self.list);
        // One that does not start leaves the others alone.
        all.map(|index| self.settle(index)).fold(Ok(()), Result::and)
    }

    /// Stops a ring and says where it is. `at_once` leaves requests in flight behind, if they are
    /// written down.
    pub(super) fn stop(&mut self, index: u16, at_once: bool) -> u16 {
        self.pause(index, at_once);
        let ring = &mut self.list[usize::from(index)];
        ring.kick = None;
        ring.base
    }

    /// Stops all rings.
    pub(super) fn stop_all(&mut self) {
        for index in 0..self.list.len() as u16 {
            self.stop(index, false);
        }
    }

    /// Stops all rings and resets the device. Who is signalled stays, as a front-end says it only
    /// once; and where rings are, unless they are `forgotten`: some front-ends ask for that last.
    pub(super) fn reset(&mut self, forgotten: bool) {
        self.stop_all();
        for ring in &mut self.list {
            let [call, error] = [&mut ring.call, &mut ring.error]
                .map(|interrupt| mem::replace(interrupt, Interrupt::nobody()));
            let base = if forgotten { 0 } else { ring.base };
            *ring = Ring { call, error, base, ..Ring::default() };
        }
        self.shared.inflight = None;
        self.device.reset();
    }

    /// Where a ring of `size` is, if all three areas of it are in guest memory, aligned as they must be.
    pub(super) fn layout(&self, size: u16, address: &VringAddr) -> Option<QueueLayout> {
        let entries = u64::from(size);
        let area = |at, len, align| self.shared.memory.translate(at, len).filter(|at| at % align == 0);
        Some(QueueLayout {
            size,
            descriptors: area(address.descriptor, 16 * entries, 16)?,
            available: area(address.available, 6 + 2 * entries, 2)?,
            used: area(address.used, 6 + 8 * entries, 4)?,
        })
    }

    /// What was said of a ring.
    pub(super) fn ring(&self, index: u16) -> &Ring {
        &self.list[usize::from(index)]
    }

    fn pause(&mut self, index: u16, at_once: bool) {
        let ring = &mut self.list[usize::from(index)];
        let state = match mem::replace(&mut ring.run, Run::Nobody) {
            Run::Nobody => None,
            Run::Device if at_once && self.shared.inflight.is_some() => self.device.abandon_queue(index),
            Run::Device => self.device.stop_queue(index),
            Run::Discard(mut lane) => lane.stop(),
        };
        if let Some(state) = state {
            ring.base = state.next_available;
        }
    }

    /// Starts a stopped ring if it is to run and all that takes is there. Without its memory it waits.
    fn settle(&mut self, index: u16) -> Result<(), Refusal> {
        let ring = &self.list[usize::from(index)];
        let (Some(kick), Some(size), Some(address)) = (&ring.kick, ring.size, &ring.address) else {
            return Ok(());
        };
        let Shared { features, memory, log, inflight } = &self.shared;
        let (Some(layout), Some(memory)) = (self.layout(size, address), memory.guest()) else {
            return Ok(());
        };
        let sends = self.device.identity().kind == VIRTIO_ID_NET && index % 2 == 1;
        if !ring.enabled && !sends {
            return Ok(());
        }
        // Of other features that were left out, the device makes what it can: a driver that finds a
        // ring dead waits for it.
        if features & VIRTIO_F_VERSION_1 == 0 {
            return Err(Refusal::Value("the driver left out VIRTIO_F_VERSION_1"));
        }
        let kick = match kick {
            Kick::Fd(fd) => Some(fd.try_clone().map_err(|error| Refusal::Host("no descriptor", error))?),
            Kick::Poll => None,
        };
        let logged = log.as_ref().filter(|_| features & F_LOG_ALL != 0);
        let setup = QueueSetup {
            index,
            features: *features,
            layout,
            resume: QueueState { next_available: ring.base },
            memory: Arc::clone(memory),
            kick,
            call: ring.call.clone(),
            error: ring.error.clone(),
            inflight: inflight.as_ref().and_then(|region| region.queue(index)),
            dirty: logged.map(|log| Dirty {
                log: Arc::clone(log),
                used_ring: (address.flags & VringAddr::F_LOG != 0).then_some(address.log),
            }),
        };
        let run = if ring.enabled {
            self.device.start_queue(setup).map(|()| Run::Device)
        } else {
            let mut lane = Lane::new(Discard);
            lane.start("discard", setup).map(|()| Run::Discard(lane))
        };
        let ring = &mut self.list[usize::from(index)];
        ring.run = run.map_err(|error| Refusal::Host("the ring does not start", error))?;
        // Whoever ran it before may have owed one, and not lived to send it.
        ring.call.signal();
        Ok(())
    }
}
