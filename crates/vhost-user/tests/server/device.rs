//! A device that does as little as a device can, and can be told to take its time.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use parador_virtio::{
    Chain, EventFd, GuestMemory, Identity, Interrupt, Lane, Queue, QueueHandler, QueueSetup, QueueState,
    RingError, SharedMemory, VirtioDevice, ids,
};
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use crate::borrow::borrow;

/// Answers each chain with what it says.
pub(crate) struct Echo {
    pub(crate) identity: Identity,
    /// The configuration space; its first four bytes can be written.
    pub(crate) config: Vec<u8>,
    pub(crate) lanes: Vec<Lane<Handler>>,
    pub(crate) seen: Arc<Seen>,
    /// Bytes of state, the first four of which are those that can be written.
    pub(crate) state_len: usize,
}

/// What a test sees of the device, and tells it.
#[derive(Default)]
pub(crate) struct Seen {
    /// Chains are kept until this is no more.
    pub(crate) hold: AtomicBool,
    /// Chains taken.
    pub(crate) chains: AtomicUsize,
    pub(crate) resets: AtomicUsize,
    pub(crate) change: Mutex<Option<Interrupt>>,
    pub(crate) memory: Mutex<Option<Arc<dyn SharedMemory>>>,
    /// Guest memory of the queue that started last.
    pub(crate) guest: Mutex<Option<Arc<GuestMemory>>>,
    wakes: Mutex<Vec<EventFd>>,
}

impl Seen {
    /// Lets go of the chains that are kept.
    pub(crate) fn release(&self) {
        self.hold.store(false, Ordering::SeqCst);
        self.wakes.lock().unwrap().iter().for_each(|wake| wake.write(1).unwrap());
    }
}

pub(crate) struct Handler {
    seen: Arc<Seen>,
    held: Vec<Chain>,
    wake: EventFd,
}

pub(crate) const QUEUES: usize = 4;
pub(crate) const CONFIG: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

impl Echo {
    pub(crate) fn new() -> Self {
        Self::of_kind(ids::VIRTIO_ID_RNG)
    }

    pub(crate) fn of_kind(kind: u32) -> Self {
        let seen = Arc::new(Seen::default());
        let handler = || {
            let wake = EventFd::new(EFD_NONBLOCK).unwrap();
            seen.wakes.lock().unwrap().push(wake.try_clone().unwrap());
            Lane::new(Handler { seen: Arc::clone(&seen), held: Vec::new(), wake })
        };
        let lanes = (0..QUEUES).map(|_| handler()).collect();
        let identity = Identity {
            kind,
            features: 1 << 5,
            queue_sizes: [256; QUEUES].into(),
            config_len: CONFIG.len(),
            ..Identity::default()
        };
        Self { identity, config: CONFIG.into(), lanes, seen, state_len: 4 }
    }
}

impl VirtioDevice for Echo {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let bytes = self.config.iter().copied().skip(offset).chain(std::iter::repeat(0));
        data.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        let writable = self.config[..4].iter_mut().skip(offset);
        writable.zip(data).for_each(|(to, from)| *to = *from);
    }

    fn on_config_change(&mut self, interrupt: Interrupt) {
        *self.seen.change.lock().unwrap() = Some(interrupt);
    }

    fn on_shared_memory(&mut self, memory: Arc<dyn SharedMemory>) {
        *self.seen.memory.lock().unwrap() = Some(memory);
    }

    fn start_queue(&mut self, setup: QueueSetup) -> io::Result<()> {
        *self.seen.guest.lock().unwrap() = Some(Arc::clone(&setup.memory));
        self.lanes[usize::from(setup.index)].start("echo", setup)
    }

    fn stop_queue(&mut self, index: u16) -> Option<QueueState> {
        self.lanes[usize::from(index)].stop()
    }

    fn reset(&mut self) {
        self.seen.resets.fetch_add(1, Ordering::SeqCst);
        self.config = CONFIG.into();
    }

    fn abandon_queue(&mut self, index: u16) -> Option<QueueState> {
        self.lanes[usize::from(index)].abandon()
    }

    fn save(&mut self) -> io::Result<Vec<u8>> {
        let mut state = self.config[..4].to_vec();
        state.resize(self.state_len, 0);
        Ok(state)
    }

    fn load(&mut self, state: &[u8]) -> io::Result<()> {
        if state.len() != self.state_len {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.config[..4].copy_from_slice(&state[..4]);
        Ok(())
    }
}

impl Handler {
    fn complete(queue: &mut Queue, chain: Chain) {
        let mut data = vec![0; chain.readable_len()];
        chain.reader().read_exact(&mut data).unwrap();
        let written = chain.writer().write(&data);
        queue.push(chain, written as u32);
    }
}

impl QueueHandler for Handler {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        drop(self.wake.read());
        while let Some(chain) = queue.pop()? {
            self.held.push(chain);
            self.seen.chains.fetch_add(1, Ordering::SeqCst);
        }
        if !self.seen.hold.load(Ordering::SeqCst) {
            self.drain(queue)?;
        }
        Ok(())
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(borrow(&self.wake))
    }

    fn drain(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        self.held.drain(..).for_each(|chain| Self::complete(queue, chain));
        Ok(())
    }

    fn abandon(&mut self, _queue: &mut Queue) -> Result<(), RingError> {
        self.held.clear();
        Ok(())
    }
}
