//! The part of a virtio function that queue threads reach: announcing a change of the configuration,
//! and that a queue is broken. No lock of the function is needed for it, so a thread that does so
//! never waits for the vCPU that is about to stop it.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use parador_virtio::Interrupt;

/// ISR status: a queue was used (virtio 1.3 §4.1.4.5).
pub(super) const ISR_QUEUE: u8 = 1 << 0;
/// ISR status: the configuration changed.
pub(super) const ISR_CONFIG: u8 = 1 << 1;

/// What queue threads and the registers share.
pub(super) struct Shared {
    generation: AtomicU8,
    isr: AtomicU8,
    needs_reset: AtomicBool,
    /// What the driver mapped changes to; nobody before DRIVER_OK. Held for a signal only.
    driver: Mutex<Interrupt>,
}

impl Shared {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            generation: AtomicU8::new(0),
            isr: AtomicU8::new(0),
            needs_reset: AtomicBool::new(false),
            driver: Mutex::new(Interrupt::nobody()),
        })
    }

    /// An interrupt that announces a change of the device's configuration (§2.5, §4.1.5.4).
    pub(super) fn config_changed(self: &Arc<Self>) -> Interrupt {
        let shared = Arc::clone(self);
        Interrupt::from_fn(move || {
            shared.generation.fetch_add(1, Ordering::Release);
            shared.notify();
        })
    }

    /// An interrupt that says that the device is broken until it is reset (§2.1.2).
    pub(super) fn broken(self: &Arc<Self>) -> Interrupt {
        let shared = Arc::clone(self);
        Interrupt::from_fn(move || shared.set_needs_reset())
    }

    pub(super) fn set_needs_reset(&self) {
        if !self.needs_reset.swap(true, Ordering::AcqRel) {
            self.notify();
        }
    }

    pub(super) fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    pub(super) fn generation(&self) -> u8 {
        self.generation.load(Ordering::Acquire)
    }

    /// Sets whom changes are announced to. A change from before is announced now: the driver may
    /// have read the configuration before it.
    pub(super) fn set_driver(&self, interrupt: Interrupt) {
        let mut driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        if self.isr.load(Ordering::Acquire) & ISR_CONFIG != 0 {
            interrupt.signal();
        }
        *driver = interrupt;
    }

    /// ISR status, which reading clears.
    pub(super) fn take_isr(&self) -> u8 {
        self.isr.swap(0, Ordering::AcqRel)
    }

    /// As after creation. The generation goes on, so that no driver mistakes new for old.
    pub(super) fn reset(&self) {
        let Self { generation: _, isr, needs_reset, driver } = self;
        *driver.lock().unwrap_or_else(PoisonError::into_inner) = Interrupt::nobody();
        isr.store(0, Ordering::Release);
        needs_reset.store(false, Ordering::Release);
    }

    fn notify(&self) {
        let driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        self.isr.fetch_or(ISR_CONFIG, Ordering::AcqRel);
        driver.signal();
    }
}
