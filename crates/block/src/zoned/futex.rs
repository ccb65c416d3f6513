//! Words that others share and that are waited for: those of a mapped file; or, as loom knows no futex, what one
//! promises, made of what it does know.

use std::io;
use std::ops::Deref;
use std::time::Duration;

use super::sync::AtomicU32;
#[cfg(loom)]
use super::sync::{Condvar, Mutex};
#[cfg(not(loom))]
use crate::sys;

#[cfg(not(loom))]
pub(crate) type Futexes = super::mapped::Mapped<Futex>;
#[cfg(loom)]
pub(crate) type Futexes = std::sync::Arc<[Futex; 2]>;

/// A word to wait for.
#[cfg(not(loom))]
#[repr(transparent)]
pub(crate) struct Futex(AtomicU32);

#[cfg(not(loom))]
impl Futex {
    /// Sleeps until somebody wakes who waits for this, as long as it is `expected`, or until `timeout`; or for no
    /// reason.
    ///
    /// # Errors
    /// The host cannot wait.
    pub(crate) fn wait(&self, expected: u32, timeout: Option<Duration>) -> io::Result<()> {
        sys::futex_wait(&self.0, expected, timeout)
    }

    /// Wakes all who wait for this.
    pub(crate) fn wake(&self) {
        sys::futex_wake(&self.0);
    }
}

/// A word to wait for, without timeouts: what needs one to go on waits for ever, and loom says so.
#[cfg(loom)]
#[derive(Default)]
pub(crate) struct Futex(AtomicU32, Mutex<()>, Condvar);

#[cfg(loom)]
impl Futex {
    pub(crate) fn wait(&self, expected: u32, _timeout: Option<Duration>) -> io::Result<()> {
        let awake = self.1.lock().expect("nobody panics with it");
        if self.load(super::sync::Ordering::Relaxed) == expected {
            drop(self.2.wait(awake).expect("nobody panics with it"));
        }
        Ok(())
    }

    pub(crate) fn wake(&self) {
        let _awake = self.1.lock().expect("nobody panics with it");
        self.2.notify_all();
    }
}

impl Deref for Futex {
    type Target = AtomicU32;

    fn deref(&self) -> &AtomicU32 {
        &self.0
    }
}
