//! The memory balloon (virtio 1.3 §5.5): memory the guest does not need goes back to the host.
//!
//! Two ways: the host sets a target and the guest's driver gives up as many pages ([`Control`]); and
//! the driver reports pages as they become free, which come back by themselves when touched.

mod queues;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parador_virtio::ids::VIRTIO_ID_BALLOON;
use parador_virtio::{Identity, Interrupt, Lane, QueueSetup, QueueState, VirtioDevice};

use crate::config_space;
use crate::sys::Doorbell;
pub use queues::Stats;
use queues::{Deflate, Inflate, Report, StatsQueue};

/// Feature bits (§5.5.3).
const F_STATS_VQ: u64 = 1 << 1;
const F_DEFLATE_ON_OOM: u64 = 1 << 2;
const F_PAGE_POISON: u64 = 1 << 4;
const F_PAGE_REPORTING: u64 = 1 << 5;

/// num_pages, actual, free_page_hint_cmd_id, poison_val: le32 (§5.5.4).
const CONFIG_LEN: usize = 16;
const ACTUAL: usize = 4;
const POISON_VAL: usize = 12;

/// The unit of the device, whatever the guest's pages are (§5.5.6).
pub const PAGE_SIZE: u64 = 4096;

const QUEUE_SIZE: u16 = 128;
/// The queue of statistics carries one buffer at a time.
const STATS_QUEUE_SIZE: u16 = 16;

/// How a balloon is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BalloonOptions {
    /// How many bytes the guest is asked to give up from the start; whole pages count.
    pub target: u64,
    /// Whether the guest may take memory back by itself before it kills a process.
    pub deflate_on_oom: bool,
    /// Whether the guest reports pages that have become free.
    pub free_page_reporting: bool,
}

impl Default for BalloonOptions {
    /// Nothing is asked for, and whatever is free comes back.
    fn default() -> Self {
        Self { target: 0, deflate_on_oom: true, free_page_reporting: true }
    }
}

/// A memory balloon.
pub struct Balloon {
    identity: Identity,
    control: Control,
    inflate: Lane<Inflate>,
    deflate: Lane<Deflate>,
    stats: Lane<StatsQueue>,
    report: Lane<Report>,
    /// The features the order of queues was last asked for with.
    features: u64,
}

impl Balloon {
    /// Makes a balloon.
    ///
    /// # Errors
    /// The host refuses a descriptor.
    pub fn new(options: BalloonOptions) -> io::Result<Self> {
        let BalloonOptions { target, deflate_on_oom, free_page_reporting } = options;
        let mut features = F_STATS_VQ;
        let mut queue_sizes = vec![QUEUE_SIZE, QUEUE_SIZE, STATS_QUEUE_SIZE];
        if deflate_on_oom {
            features |= F_DEFLATE_ON_OOM;
        }
        if free_page_reporting {
            // A kernel that poisons free pages reports none unless it can say with what.
            features |= F_PAGE_REPORTING | F_PAGE_POISON;
            queue_sizes.push(QUEUE_SIZE);
        }
        let shared = Arc::new(Shared {
            target: AtomicU32::new(pages(target)),
            actual: AtomicU32::new(0),
            poison: AtomicU32::new(0),
            stats: Mutex::default(),
            ask_for_stats: Doorbell::new()?,
            changed: Mutex::new(Interrupt::nobody()),
        });
        let identity = Identity {
            kind: VIRTIO_ID_BALLOON,
            features,
            required: 0,
            queue_sizes: queue_sizes.into(),
            config_len: CONFIG_LEN,
            ..Identity::default()
        };
        Ok(Self {
            identity,
            inflate: Lane::new(Inflate::default()),
            deflate: Lane::new(Deflate),
            stats: Lane::new(StatsQueue::new(Arc::clone(&shared))),
            report: Lane::new(Report::new(Arc::clone(&shared))),
            control: Control(shared),
            features,
        })
    }

    /// A handle to set the target and to see what has become of it.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// What queue `index` is for: those that were not negotiated are left out of the count (§5.5.2).
    fn role(&self, index: u16, features: u64) -> Option<Role> {
        let stats = features & F_STATS_VQ != 0;
        let report = features & F_PAGE_REPORTING != 0;
        match index {
            0 => Some(Role::Inflate),
            1 => Some(Role::Deflate),
            2 if stats => Some(Role::Stats),
            2 if report => Some(Role::Report),
            3 if stats && report => Some(Role::Report),
            _ => None,
        }
    }
}

enum Role {
    Inflate,
    Deflate,
    Stats,
    Report,
}

/// Sets how much memory the guest is to give up, from any thread. Clones are the same balloon.
#[derive(Clone)]
pub struct Control(Arc<Shared>);

struct Shared {
    /// What the driver is asked for, and what it says it has given up, in pages.
    target: AtomicU32,
    actual: AtomicU32,
    /// What the driver fills free pages with.
    poison: AtomicU32,
    stats: Mutex<Stats>,
    ask_for_stats: Doorbell,
    /// Never held across a call out of this file.
    changed: Mutex<Interrupt>,
}

impl Control {
    /// Asks the guest to give up `bytes` of its memory in all; whole pages count.
    pub fn set_target(&self, bytes: u64) {
        let target = pages(bytes);
        if self.0.target.swap(target, Ordering::Relaxed) != target {
            let changed = lock(&self.0.changed).clone();
            changed.signal();
        }
    }

    /// What the guest is asked to give up, in bytes.
    #[must_use]
    pub fn target(&self) -> u64 {
        u64::from(self.0.target.load(Ordering::Relaxed)) * PAGE_SIZE
    }

    /// What the guest says it has given up, in bytes. It can say anything.
    #[must_use]
    pub fn actual(&self) -> u64 {
        u64::from(self.0.actual.load(Ordering::Relaxed)) * PAGE_SIZE
    }

    /// What the guest last told of its memory (§5.5.6.3), and asks it to tell again.
    ///
    /// Numbers are the guest's own; the first call finds what it told at the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.ask_for_stats.ring();
        *lock(&self.0.stats)
    }
}

impl VirtioDevice for Balloon {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let Shared { target, actual, poison, .. } = &*self.control.0;
        let mut space = [0; CONFIG_LEN];
        space[0..4].copy_from_slice(&target.load(Ordering::Relaxed).to_le_bytes());
        space[4..8].copy_from_slice(&actual.load(Ordering::Relaxed).to_le_bytes());
        space[12..16].copy_from_slice(&poison.load(Ordering::Relaxed).to_le_bytes());
        config_space::read(&space, offset, data);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        let Ok(value) = data.try_into().map(u32::from_le_bytes) else { return };
        match offset {
            ACTUAL => self.control.0.actual.store(value, Ordering::Relaxed),
            POISON_VAL => self.control.0.poison.store(value, Ordering::Relaxed),
            _ => {}
        }
    }

    fn on_config_change(&mut self, interrupt: Interrupt) {
        *lock(&self.control.0.changed) = interrupt;
    }

    fn start_queue(&mut self, setup: QueueSetup) -> io::Result<()> {
        self.features = setup.features;
        match self.role(setup.index, setup.features).ok_or(io::ErrorKind::InvalidInput)? {
            Role::Inflate => {
                if let Some(inflate) = self.inflate.handler() {
                    inflate.set_memory(&setup.memory);
                }
                self.inflate.start("balloon-inflate", setup)
            }
            Role::Deflate => self.deflate.start("balloon-deflate", setup),
            Role::Stats => self.stats.start("balloon-stats", setup),
            Role::Report => {
                if let Some(report) = self.report.handler() {
                    report.set_memory(&setup.memory);
                }
                self.report.start("balloon-report", setup)
            }
        }
    }

    fn stop_queue(&mut self, index: u16) -> Option<QueueState> {
        match self.role(index, self.features)? {
            Role::Inflate => self.inflate.stop(),
            Role::Deflate => self.deflate.stop(),
            Role::Stats => self.stats.stop(),
            Role::Report => self.report.stop(),
        }
    }

    fn reset(&mut self) {
        let Shared { target: _, actual, poison, stats, ask_for_stats: _, changed: _ } = &*self.control.0;
        actual.store(0, Ordering::Relaxed);
        poison.store(0, Ordering::Relaxed);
        *lock(stats) = Stats::default();
    }
}

/// Whole pages in `bytes`, as many as the device can ask for.
fn pages(bytes: u64) -> u32 {
    u32::try_from(bytes / PAGE_SIZE).unwrap_or(u32::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
