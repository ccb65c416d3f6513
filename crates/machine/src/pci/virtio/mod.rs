//! Virtio over PCI: the modern interface (virtio 1.3 §4.1).
//!
//! The registers say what the driver wants; the device's queues are started when it sets DRIVER_OK
//! and stopped when it resets. In between, kicks go from the guest to the queue's thread through an
//! ioeventfd and interrupts back through an irqfd, and nothing here runs.
//!
//! There is no INTx: a driver without MSI-X polls, and ISR status tells it what happened.

mod common;
mod layout;
mod memory_bar;
mod rings;
mod shared;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use parador_virtio::{EventFd, GuestMemory, Interrupt, LogLimit, SharedRegion, VirtioDevice};
use tracing::warn;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK};

use self::common::{Action, Common, NO_VECTOR};
use self::layout::{BAR, BAR_SHAPE, Capabilities, MEMORY_BAR, Region, SharedLayout};
use self::memory_bar::MemoryBar;
use self::rings::{Rings, Start};
use self::shared::{ISR_QUEUE, Shared};
use super::config::{self, BARS, Bar, ConfigSpace};
use super::msix::{self, Msix};
use super::root::Function;
use super::{AttachError, Host, Windows};

/// A virtio device as a PCI function.
pub(super) struct VirtioFunction {
    device: Box<dyn VirtioDevice>,
    config: ConfigSpace,
    capabilities: Capabilities,
    common: Common,
    config_len: usize,
    msix: Msix,
    rings: Rings,
    shared: Arc<Shared>,
    /// Signalled by queues without a vector while MSI-X is off; ISR status shows it.
    unmapped: Option<Interrupt>,
    /// For a device that has shared memory.
    memory_bar: Option<MemoryBar>,
    host: Arc<dyn Host>,
    memory: Arc<GuestMemory>,
    windows: Windows,
}

impl VirtioFunction {
    /// Makes a function of `device`. Nothing but addresses is asked of the host before a driver does.
    pub(super) fn new(
        mut device: Box<dyn VirtioDevice>,
        host: Arc<dyn Host>,
        memory: Arc<GuestMemory>,
        windows: Windows,
    ) -> Result<Self, AttachError> {
        let identity = device.identity();
        if identity.queue_sizes.len() > layout::MAX_QUEUES || identity.config_len > layout::MAX_CONFIG {
            return Err(AttachError::TooLarge {
                queues: identity.queue_sizes.len(),
                config_len: identity.config_len,
            });
        }
        let memory_bar = memory_bar(&identity.shared_memory)?;
        let msix = Msix::new(layout::vectors(identity));
        let (config, capabilities) =
            layout::config_space(identity, memory_bar.as_ref().map(MemoryBar::layout), &msix);
        let common = Common::new(identity);
        let rings = Rings::new(identity.queue_sizes.len());
        let config_len = identity.config_len;
        let shared = Shared::new();
        device.on_config_change(shared.config_changed());
        if let Some(bar) = &memory_bar {
            device.on_shared_memory(bar.access());
        }
        Ok(Self {
            device,
            config,
            capabilities,
            common,
            config_len,
            msix,
            rings,
            shared,
            unmapped: None,
            memory_bar,
            host,
            memory,
            windows,
        })
    }

    // --- The BAR ---------------------------------------------------------------------------------

    fn read_region(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match layout::region(offset) {
            (Region::Common, at) => {
                self.common.read(at, data, self.shared.needs_reset(), self.shared.generation());
            }
            (Region::Isr, 0) => data[0] = self.take_isr(),
            (Region::Device, at) if at < self.config_len => {
                let len = data.len().min(self.config_len - at);
                self.device.read_config(at, &mut data[..len]);
            }
            (Region::Pending, at) => self.msix.read_pending(at, data),
            (Region::Table, at) => self.msix.read_table(at, data),
            (Region::Isr | Region::Device | Region::Notify, _) => {}
        }
    }

    fn write_region(&mut self, offset: u64, data: &[u8]) {
        match layout::region(offset) {
            (Region::Common, at) => {
                for touched in common::touched(at, data.len()) {
                    let action = self.common.write(touched, at, data);
                    self.act(action);
                }
            }
            (Region::Device, at) if at < self.config_len => {
                let len = data.len().min(self.config_len - at);
                self.device.write_config(at, &data[..len]);
            }
            // What is written does not matter: each queue has its own address (§4.1.5.2).
            (Region::Notify, at) => self.rings.kick(at / layout::NOTIFY_MULTIPLIER as usize),
            (Region::Table, at) => self.msix.write_table(at, data, &*self.host),
            (Region::Isr | Region::Device | Region::Pending, _) => {}
        }
    }

    fn take_isr(&self) -> u8 {
        let used = self.unmapped.as_ref().and_then(Interrupt::as_eventfd).is_some_and(|fd| fd.read().is_ok());
        self.shared.take_isr() | if used { ISR_QUEUE } else { 0 }
    }

    /// Where the BAR answers: where the guest put it, as long as that is in a window. Elsewhere
    /// accesses do not come here, and a kick registered there could take another device's writes.
    fn bar(&self) -> Option<Range<u64>> {
        self.config.decoded(BAR).filter(|range| self.windows.contain(range))
    }

    // --- What the driver asks for ------------------------------------------------------------------

    fn act(&mut self, action: Action) {
        match action {
            Action::Nothing => {}
            Action::Reset => self.reset_device(),
            Action::Start => self.start_device(),
            Action::MapConfig(vector) => {
                let (vector, interrupt) = self.map(vector);
                self.common.set_config_vector(vector);
                if self.common.is_driver_ok() {
                    self.shared.set_driver(interrupt);
                }
            }
            Action::MapQueue { queue, vector } => {
                let (vector, _) = self.map(vector);
                let moved = self.common.queue_vector(queue) != vector;
                self.common.set_queue_vector(queue, vector);
                // Pause is stop: the queue goes on with its new interrupt.
                if moved && self.rings.is_started(queue) && self.pause_queue(queue) {
                    self.start_queue(queue);
                }
            }
            Action::StartQueue(queue) => {
                if self.start_queue(queue) {
                    self.register_kicks();
                }
            }
            Action::ResetQueue(queue) => self.rings.stop(queue, &mut *self.device),
        }
    }

    /// What `vector` signals, and the vector the driver reads back: none if it cannot be had
    /// (§4.1.5.1.2.1).
    fn map(&mut self, vector: u16) -> (u16, Interrupt) {
        if vector == NO_VECTOR {
            return (NO_VECTOR, Interrupt::nobody());
        }
        match self.msix.open(vector, &*self.host) {
            Ok(Some(interrupt)) => (vector, interrupt),
            Ok(None) => (NO_VECTOR, Interrupt::nobody()),
            Err(error) => {
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(dropped) = LIMIT.pass() {
                    warn!(vector, %error, dropped, "a virtio device gets no interrupt");
                }
                (NO_VECTOR, Interrupt::nobody())
            }
        }
    }

    fn start_device(&mut self) {
        let (_, interrupt) = self.map(self.common.config_vector());
        self.shared.set_driver(interrupt);
        self.start_queues_that(|function, queue| function.common.enabled(queue).is_some());
    }

    fn start_queues_that(&mut self, should: impl Fn(&Self, usize) -> bool) {
        for queue in 0..self.queue_count() {
            if should(self, queue) && !self.start_queue(queue) {
                return;
            }
        }
        self.register_kicks();
    }

    /// Starts queue `queue`. If the device refuses, as it does when the ring is not in memory,
    /// says no, and nothing runs until the driver resets.
    fn start_queue(&mut self, queue: usize) -> bool {
        let Some(layout) = self.common.enabled(queue) else { return true };
        let result = self.call(queue).and_then(|call| {
            let start = Start {
                device: &mut *self.device,
                memory: &self.memory,
                features: self.common.features(),
                layout,
                call,
                error: self.shared.broken(),
            };
            self.rings.start(queue, start)
        });
        let Err(error) = result else { return true };
        static LIMIT: LogLimit = LogLimit::new();
        if let Some(dropped) = LIMIT.pass() {
            let kind = self.device.identity().kind;
            warn!(kind, queue, %error, dropped, "a virtio device cannot start and needs a reset");
        }
        self.stop_all();
        self.shared.set_needs_reset();
        false
    }

    /// Stops queue `queue` for a while. A device that does not say where it stopped, as one whose
    /// other end is gone may, cannot go on: no.
    fn pause_queue(&mut self, queue: usize) -> bool {
        let knows = self.rings.pause(queue, &mut *self.device);
        if !knows {
            self.shared.set_needs_reset();
        }
        knows
    }

    /// What tells the driver that queue `queue` was used.
    fn call(&mut self, queue: usize) -> io::Result<Interrupt> {
        let vector = self.common.queue_vector(queue);
        if vector != NO_VECTOR || self.msix.is_enabled() {
            return Ok(self.map(vector).1);
        }
        if self.unmapped.is_none() {
            self.unmapped = Some(Interrupt::from_eventfd(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?));
        }
        Ok(self.unmapped.clone().unwrap_or_else(Interrupt::nobody))
    }

    fn register_kicks(&mut self) {
        let bar = self.bar();
        self.rings.register(bar.as_ref(), &*self.host);
    }

    fn stop_all(&mut self) {
        for queue in 0..self.queue_count() {
            self.rings.stop(queue, &mut *self.device);
        }
    }

    /// Reset as the driver asks for it (§2.4). Configuration space and MSI-X table are not the
    /// device's and stay.
    fn reset_device(&mut self) {
        self.stop_all();
        self.shared.reset();
        self.unmapped = None;
        self.device.reset();
        self.common.reset();
        self.device.on_config_change(self.shared.config_changed());
        if let Some(bar) = &mut self.memory_bar {
            bar.reset(&*self.host);
            self.device.on_shared_memory(bar.access());
        }
    }

    fn queue_count(&self) -> usize {
        self.device.identity().queue_sizes.len()
    }

    // --- The window in configuration space (§4.1.4.9) ------------------------------------------------

    /// The access that the driver set up, if its data are among `len` bytes at `offset`: offset in
    /// the BAR and length in bytes.
    fn window_access(&self, offset: usize, len: usize) -> Option<(u64, usize)> {
        let at = self.capabilities.pci_cfg;
        let data = at + layout::PCI_CFG_DATA..at + layout::PCI_CFG_DATA + 4;
        if offset >= data.end || offset + len <= data.start {
            return None;
        }
        let bar = self.config.u32(at + layout::PCI_CFG_BAR) as u8;
        let from = u64::from(self.config.u32(at + layout::PCI_CFG_OFFSET));
        let width = self.config.u32(at + layout::PCI_CFG_LENGTH);
        let fits = matches!(width, 1 | 2 | 4)
            && usize::from(bar) == BAR
            && from.is_multiple_of(u64::from(width))
            && from + u64::from(width) <= BAR_SHAPE.size;
        fits.then_some((from, width as usize))
    }
}

/// The BAR for `regions` of shared memory, if there are any.
fn memory_bar(regions: &[SharedRegion]) -> Result<Option<MemoryBar>, AttachError> {
    if regions.is_empty() {
        return Ok(None);
    }
    let layout = SharedLayout::new(regions).ok_or_else(|| AttachError::SharedMemory(regions.into()))?;
    let size = layout.bar.size;
    MemoryBar::new(layout).map(Some).map_err(|source| AttachError::NoAddresses { size, source })
}

impl Function for VirtioFunction {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn bars(&self) -> Vec<(usize, Bar)> {
        let memory = self.memory_bar.as_ref().map(|bar| (MEMORY_BAR, bar.layout().bar));
        [(BAR, BAR_SHAPE)].into_iter().chain(memory).collect()
    }

    fn on_placed(&mut self, ranges: &[Option<Range<u64>>; BARS]) {
        if let Some(bar) = &mut self.memory_bar {
            bar.place(ranges[MEMORY_BAR].as_ref(), &*self.host);
        }
    }

    fn give_up_memory(&mut self) -> bool {
        let given_up = self.memory_bar.as_mut().is_some_and(|bar| bar.give_up(&*self.host));
        if given_up {
            static LIMIT: LogLimit = LogLimit::new();
            if let Some(dropped) = LIMIT.pass() {
                let kind = self.device.identity().kind;
                warn!(
                    kind,
                    dropped, "a guest touched what it cannot of a device's shared memory and loses it"
                );
            }
            self.shared.set_needs_reset();
        }
        given_up
    }

    fn read_config(&mut self, offset: usize, data: &mut [u8]) {
        if let Some((from, width)) = self.window_access(offset, data.len()) {
            let mut value = [0; 4];
            self.read_region(from, &mut value[..width]);
            self.config.put(self.capabilities.pci_cfg + layout::PCI_CFG_DATA, &value);
        }
        self.config.read(offset, data);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.config.write(offset, data);
        let control = self.config.u16(self.capabilities.msix + msix::CONTROL);
        self.msix.set_control(control, &*self.host);
        if config::touches_decoding(offset, data.len()) {
            self.register_kicks();
        }
        if let Some((to, width)) = self.window_access(offset, data.len()) {
            let value = self.config.u32(self.capabilities.pci_cfg + layout::PCI_CFG_DATA);
            self.write_region(to, &value.to_le_bytes()[..width]);
        }
    }

    fn read_bar(&mut self, bar: usize, offset: u64, data: &mut [u8]) {
        match bar {
            BAR => self.read_region(offset, data),
            // Shared memory that the guest does not see itself.
            _ => data.fill(0xFF),
        }
    }

    fn write_bar(&mut self, bar: usize, offset: u64, data: &[u8]) {
        if bar == BAR {
            self.write_region(offset, data);
        }
    }

    fn stop_queues(&mut self) {
        self.rings.set_paused(true);
        for queue in 0..self.queue_count() {
            self.pause_queue(queue);
        }
    }

    fn start_queues(&mut self) {
        self.rings.set_paused(false);
        self.start_queues_that(|function, queue| function.rings.is_paused(queue));
    }

    fn reset(&mut self) {
        self.reset_device();
        self.rings.release(&*self.host);
        self.msix.reset(&*self.host);
        self.config.reset();
    }
}
