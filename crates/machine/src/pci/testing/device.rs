//! Devices that tests drive.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use parador_virtio::{
    Identity, Interrupt, Lane, Queue, QueueHandler, QueueSetup, QueueState, RingError, SharedMemory,
    SharedRegion, VirtioDevice,
};

/// A device that answers every request with the request's own bytes.
pub struct Echo {
    identity: Identity,
    lanes: Vec<Lane<EchoQueue>>,
}

impl Echo {
    /// With `queues` queues of up to 256 descriptors and no configuration.
    #[must_use]
    pub fn new(queues: usize) -> Self {
        let queue_sizes = vec![256; queues].into();
        let identity = Identity {
            kind: 42,
            features: 0,
            required: 0,
            queue_sizes,
            config_len: 0,
            ..Identity::default()
        };
        Self { identity, lanes: (0..queues).map(|_| Lane::new(EchoQueue)).collect() }
    }
}

impl VirtioDevice for Echo {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn read_config(&self, _offset: usize, data: &mut [u8]) {
        data.fill(0);
    }

    fn start_queue(&mut self, setup: QueueSetup) -> io::Result<()> {
        self.lanes[usize::from(setup.index)].start("echo", setup)
    }

    fn stop_queue(&mut self, index: u16) -> Option<QueueState> {
        self.lanes[usize::from(index)].stop()
    }
}

struct EchoQueue;

impl QueueHandler for EchoQueue {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        let mut data = [0; 4096];
        while let Some(chain) = queue.pop()? {
            let len = chain.reader().read(&mut data);
            let written = chain.writer().write(&data[..len]);
            queue.push(chain, written as u32);
        }
        Ok(())
    }
}

/// A device that does nothing.
pub struct Bare(Identity);

impl Bare {
    /// With `regions` of shared memory, and nothing else.
    #[must_use]
    pub fn with_shared_memory(regions: impl IntoIterator<Item = SharedRegion>) -> Self {
        let shared_memory = regions.into_iter().collect();
        Self(Identity { kind: 42, shared_memory, ..Identity::default() })
    }
}

impl VirtioDevice for Bare {
    fn identity(&self) -> &Identity {
        &self.0
    }

    fn read_config(&self, _offset: usize, data: &mut [u8]) {
        data.fill(0);
    }

    fn start_queue(&mut self, _setup: QueueSetup) -> io::Result<()> {
        Err(io::ErrorKind::InvalidInput.into())
    }

    fn stop_queue(&mut self, _index: u16) -> Option<QueueState> {
        None
    }
}

/// A device without threads that panics when it is driven against the contract.
pub struct Strict {
    identity: Identity,
    config: Vec<u8>,
    watch: Watch,
}

/// What a [`Strict`] device knows, for the test that gave it away. Clones watch the same device.
#[derive(Clone, Default)]
pub struct Watch(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    queues: Vec<Option<QueueSetup>>,
    starts: usize,
    resets: usize,
    config_change: Option<Interrupt>,
    shared_memory: Option<Arc<dyn SharedMemory>>,
    refuse: bool,
    forget: bool,
    gate: Option<Gate>,
}

/// Where a device waits that takes its time.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<(bool, bool)>, Condvar)>);

impl Gate {
    /// Waits until the device is there.
    pub fn wait_for_arrival(&self) {
        self.wait(|(arrived, _)| *arrived);
    }

    /// Lets the device go on.
    pub fn open(&self) {
        self.set(|(_, open)| *open = true);
    }

    fn pass(&self) {
        self.set(|(arrived, _)| *arrived = true);
        self.wait(|(_, open)| *open);
    }

    fn set(&self, change: impl FnOnce(&mut (bool, bool))) {
        change(&mut self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.1.notify_all();
    }

    fn wait(&self, until: impl Fn(&(bool, bool)) -> bool) {
        let state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.0.1.wait_while(state, |state| !until(state)));
    }
}

/// The shared memory of a [`Strict`] device: 4 MiB in all, as they are placed.
pub const REGIONS: [SharedRegion; 2] =
    [SharedRegion { id: 1, size: 3 << 12 }, SharedRegion { id: 200, size: 2 << 20 }];

impl Strict {
    /// Device type 43 with three queues, features 0 to 3 (of which it needs 0), 20 bytes of
    /// configuration, and the shared memory of [`REGIONS`].
    #[must_use]
    pub fn new() -> (Self, Watch) {
        let queue_sizes = [256, 16, 32768].into();
        let identity = Identity {
            kind: 43,
            features: 0xF,
            required: 0x1,
            queue_sizes,
            config_len: 20,
            shared_memory: REGIONS.into(),
            ..Identity::default()
        };
        let watch = Watch::default();
        watch.with(|seen| seen.queues.resize_with(3, || None));
        (Self { identity, config: (1..=20).collect(), watch: watch.clone() }, watch)
    }
}

impl Watch {
    /// Which queues run.
    #[must_use]
    pub fn running(&self) -> Vec<u16> {
        self.with(|seen| seen.queues.iter().flatten().map(|setup| setup.index).collect())
    }

    /// Looks at what queue `index` was started with.
    ///
    /// # Panics
    /// It does not run.
    pub fn setup<R>(&self, index: usize, look: impl FnOnce(&QueueSetup) -> R) -> R {
        self.with(|seen| look(seen.queues[index].as_ref().expect("the queue runs")))
    }

    /// How many times a queue was started, and the device reset.
    #[must_use]
    pub fn starts_and_resets(&self) -> (usize, usize) {
        self.with(|seen| (seen.starts, seen.resets))
    }

    /// Announces a change of the configuration. Says whether the device was told how, since it was
    /// made or reset.
    pub fn change_config(&self) -> bool {
        // Not while `seen` is locked: the device would not do so either.
        let interrupt = self.with(|seen| seen.config_change.clone());
        interrupt.inspect(Interrupt::signal).is_some()
    }

    /// The device's way to its shared memory.
    ///
    /// # Panics
    /// It was not given any since it was made or reset.
    #[must_use]
    pub fn shared_memory(&self) -> Arc<dyn SharedMemory> {
        self.with(|seen| seen.shared_memory.clone()).expect("a device with regions is told how to fill them")
    }

    /// Has every queue that runs say that it used a buffer.
    pub fn call(&self) {
        self.with(|seen| seen.queues.iter().flatten().for_each(|setup| setup.call.signal()));
    }

    /// Has every queue that runs say that its ring is broken.
    pub fn break_rings(&self) {
        self.with(|seen| seen.queues.iter().flatten().for_each(|setup| setup.error.signal()));
    }

    /// Has the device refuse to start queues, or no longer.
    pub fn refuse(&self, refuse: bool) {
        self.with(|seen| seen.refuse = refuse);
    }

    /// Has the device stop queues without saying where, or no longer.
    pub fn forget(&self, forget: bool) {
        self.with(|seen| seen.forget = forget);
    }

    /// Has the device wait at a gate the next time it stops a queue.
    #[must_use]
    pub fn hold_stops(&self) -> Gate {
        let gate = Gate::default();
        self.with(|seen| seen.gate = Some(gate.clone()));
        gate
    }

    fn with<R>(&self, act: impl FnOnce(&mut Seen) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl VirtioDevice for Strict {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        data.copy_from_slice(&self.config[offset..offset + data.len()]);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.config[offset..offset + data.len()].copy_from_slice(data);
    }

    fn on_config_change(&mut self, interrupt: Interrupt) {
        self.watch.with(|seen| seen.config_change = Some(interrupt));
    }

    fn on_shared_memory(&mut self, memory: Arc<dyn SharedMemory>) {
        self.watch.with(|seen| seen.shared_memory = Some(memory));
    }

    fn start_queue(&mut self, setup: QueueSetup) -> io::Result<()> {
        let index = usize::from(setup.index);
        let size = setup.layout.size;
        assert!(size.is_power_of_two() && size <= self.identity.queue_sizes[index], "{size}");
        assert_eq!(setup.features & 0xF & !self.identity.features, 0);
        assert_eq!(setup.features & self.identity.required, self.identity.required);
        assert_ne!(setup.features & parador_virtio::ids::VIRTIO_F_VERSION_1, 0);
        if self.watch.with(|seen| seen.refuse) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Queue::new(&setup).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.watch.with(|seen| {
            assert!(seen.queues[index].is_none(), "a queue that runs is never started");
            seen.queues[index] = Some(setup);
            seen.starts += 1;
        });
        Ok(())
    }

    fn stop_queue(&mut self, index: u16) -> Option<QueueState> {
        if let Some(gate) = self.watch.with(|seen| seen.gate.take()) {
            gate.pass();
        }
        // It takes no requests, so it is where it started.
        let (setup, forget) = self.watch.with(|seen| (seen.queues[usize::from(index)].take(), seen.forget));
        setup.filter(|_| !forget).map(|setup| setup.resume)
    }

    fn reset(&mut self) {
        assert!(self.watch.running().is_empty(), "queues are stopped before a reset");
        self.watch.with(|seen| {
            seen.resets += 1;
            seen.config_change = None;
            seen.shared_memory = None;
        });
        self.config = (1..=20).collect();
    }
}
