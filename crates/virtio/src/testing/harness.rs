//! Any device, run by the model driver.

use std::collections::BTreeMap;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Arena, Driver, PATIENCE};
use crate::{Interrupt, QueueState, VirtioDevice};

/// Guest memory of a harness that was not given any, in bytes.
const MEMORY_LEN: usize = 16 << 20;
/// Descriptors of a queue for which the device allows more.
const QUEUE_SIZE: u16 = 256;

/// A device and a model driver for each of its queues, which start when they are first used.
///
/// Its methods panic when the device does not behave: it is for tests.
pub struct Harness {
    device: Box<dyn VirtioDevice>,
    features: u64,
    arena: Arena,
    queues: BTreeMap<u16, Running>,
    config_change: EventFd,
}

struct Running {
    driver: Driver,
    /// Where the queue is while it is stopped.
    paused: Option<QueueState>,
}

/// What a device answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Bytes the device says it wrote.
    pub written: u32,
    /// All of the writable buffers, in order; [`super::UNTOUCHED`] where nothing was written.
    pub data: Vec<u8>,
}

impl Reply {
    /// The bytes the device says it wrote.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.data[..self.written as usize]
    }
}

impl Harness {
    /// Drives `device` with every feature it offers, those of rings among them.
    #[must_use]
    pub fn new(device: impl VirtioDevice + 'static) -> Self {
        let identity = device.identity();
        let features = identity.features | identity.ring_features;
        Self::with(Box::new(device), features, Arena::new(MEMORY_LEN))
    }

    /// Drives `device` with exactly these features, in this memory.
    ///
    /// # Panics
    /// The host has no descriptors.
    #[must_use]
    pub fn with(mut device: Box<dyn VirtioDevice>, features: u64, arena: Arena) -> Self {
        let config_change = EventFd::new(EFD_NONBLOCK).expect("the host has descriptors");
        let interrupt = config_change.try_clone().expect("the host has descriptors");
        device.on_config_change(Interrupt::from_eventfd(interrupt));
        Self { device, features, arena, queues: BTreeMap::new(), config_change }
    }

    /// The device, to look at its configuration space or to call it behind the driver's back.
    pub fn device(&mut self) -> &mut dyn VirtioDevice {
        &mut *self.device
    }

    /// `len` bytes of the configuration space from `offset`.
    #[must_use]
    pub fn config(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.device.read_config(offset, &mut data);
        data
    }

    /// Whether the device announced a change of its configuration since this was asked last.
    #[must_use]
    pub fn config_changed(&self) -> bool {
        self.config_change.read().is_ok()
    }

    /// The driver of a queue, which is started if it was not.
    ///
    /// # Panics
    /// The device has no such queue, or refuses to start it.
    pub fn driver(&mut self, queue: u16) -> &mut Driver {
        let sizes = &self.device.identity().queue_sizes;
        let size = sizes.get(usize::from(queue)).expect("the device has this queue");
        let size = QUEUE_SIZE.min(*size);
        let running = self.queues.entry(queue).or_insert_with(|| Running {
            driver: Driver::on(&self.arena, size, self.features),
            paused: Some(QueueState::default()),
        });
        if let Some(state) = running.paused.take() {
            self.device.start_queue(running.driver.setup(queue, state)).expect("the queue starts");
        }
        &mut running.driver
    }

    /// Starts every queue, as a driver does that has just set up the device.
    pub fn start(&mut self) {
        for queue in 0..self.device.identity().queue_sizes.len() {
            self.driver(u16::try_from(queue).expect("few queues"));
        }
    }

    /// Sends `readable` to the device with room of the lengths in `writable` for an answer, and
    /// waits for it.
    ///
    /// # Panics
    /// No answer comes, or another one.
    pub fn request(&mut self, queue: u16, readable: &[&[u8]], writable: &[usize]) -> Reply {
        let driver = self.driver(queue);
        let head = driver.add(readable, writable).expect("the ring has room");
        driver.kick();
        let used = driver.wait_used(PATIENCE);
        assert!(!driver.is_broken(), "the device found the ring broken");
        assert!(used.is_some(), "the device does not answer on queue {queue}: {:#?}", self.drivers());
        let used = used.expect("checked above");
        assert_eq!(used.head, head, "the device answers the one request it has");
        Reply { written: used.written, data: used.data }
    }

    /// What each driver sees, for who reads a test's failure.
    fn drivers(&self) -> BTreeMap<u16, &Driver> {
        self.queues.iter().map(|(&queue, running)| (queue, &running.driver)).collect()
    }

    /// Stops every queue, as a pause does. Using one starts it again where it was.
    ///
    /// # Panics
    /// The device does not stop a queue, or says it is elsewhere in the ring than it can be.
    pub fn pause(&mut self) {
        for (&queue, running) in &mut self.queues {
            if running.paused.is_none() {
                let state = self.device.stop_queue(queue).expect("a queue that runs stops");
                assert_eq!(self.device.stop_queue(queue), None, "a queue stops once");
                running.paused = Some(state);
            }
        }
    }

    /// Resets the device: all queues stop and are forgotten.
    pub fn reset(&mut self) {
        self.pause();
        self.queues.clear();
        self.device.reset();
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        for &queue in self.queues.keys() {
            self.device.stop_queue(queue);
        }
    }
}
