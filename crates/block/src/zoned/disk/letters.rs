//! The thread that makes zones fail because another process asks for it. It sleeps until then.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::{Core, is_refused};
use crate::zoned::letterbox::{Failure, Letterbox};

/// It reads letters until this is dropped.
pub(super) struct Letters {
    letterbox: Arc<Letterbox>,
    thread: Option<JoinHandle<()>>,
}

impl Letters {
    /// Begins to do what is asked of `core`.
    pub(super) fn read(core: &Arc<Core>, letterbox: Letterbox) -> io::Result<Self> {
        let (core, letterbox) = (Arc::clone(core), Arc::new(letterbox));
        let same = Arc::clone(&letterbox);
        letterbox.open();
        let thread = std::thread::Builder::new().name("letters".into()).spawn(move || core.attend(&same));
        let thread = thread.inspect_err(|_| letterbox.close())?;
        Ok(Self { letterbox, thread: Some(thread) })
    }
}

impl Drop for Letters {
    fn drop(&mut self) {
        self.letterbox.close();
        if let Some(thread) = self.thread.take() {
            // If it panicked it has reported so itself.
            let _ = thread.join();
        }
    }
}

impl Core {
    fn attend(&self, letterbox: &Letterbox) {
        while let Some(letter) = letterbox.next() {
            let number = |error: &io::Error| error.raw_os_error().unwrap_or(libc::EIO);
            let outcome = if letter.zone < self.zones().geometry().zones() {
                self.fail(letter.zone, letter.offline).map_err(|error| match is_refused(&error) {
                    true => Failure::Refused,
                    false => Failure::Host(number(&error)),
                })
            } else {
                Err(Failure::Host(libc::EINVAL))
            };
            let becomes = if letter.offline { "offline" } else { "read-only" };
            tracing::info!("disk {}: zone {} is to be {becomes}: {outcome:?}", self.name, letter.zone);
            letterbox.answer(letter, outcome);
        }
    }
}
