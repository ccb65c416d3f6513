//! Interrupts that have no descriptor to pass to another process: an eventfd each, and one thread
//! that hears them all.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use parador_virtio::{EventFd, Interrupt};
use rustix::event::{PollFd, PollFlags};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK};

use crate::wait::{borrow, wait};

/// A descriptor for an interrupt, and what becomes of its signals.
pub(super) struct Relayed {
    event: EventFd,
    line: Option<(Arc<Line>, Relay)>,
}

/// The thread that relays; it begins with the first line and ends with the last handle.
#[derive(Clone, Default)]
pub(super) struct Relay(Arc<Mutex<Option<Thread>>>);

struct Thread(Arc<Shared>);

struct Shared {
    lines: Mutex<Vec<Arc<Line>>>,
    /// Rung when `lines` changed or `ended` is set.
    bell: EventFd,
    ended: AtomicBool,
}

struct Line {
    event: EventFd,
    to: Interrupt,
}

impl Relay {
    /// A descriptor that signals `interrupt` when it is written to, until the result is dropped.
    ///
    /// # Errors
    /// The host has no descriptors or threads.
    pub(super) fn descriptor(&self, interrupt: &Interrupt, name: &str) -> io::Result<Relayed> {
        if let Some(event) = interrupt.as_eventfd() {
            return Ok(Relayed { event: event.try_clone()?, line: None });
        }
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let line = Arc::new(Line { event: event.try_clone()?, to: interrupt.clone() });
        let shared = self.shared(name)?;
        lock(&shared.lines).push(Arc::clone(&line));
        drop(shared.bell.write(1));
        Ok(Relayed { event, line: Some((line, self.clone())) })
    }

    /// What the thread sees; starts it if there is none.
    fn shared(&self, name: &str) -> io::Result<Arc<Shared>> {
        let mut slot = lock(&self.0);
        if let Some(Thread(shared)) = &*slot {
            return Ok(Arc::clone(shared));
        }
        let shared = Arc::new(Shared {
            lines: Mutex::default(),
            bell: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            ended: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        let name = format!("{name} calls").replace('\0', "");
        thread::Builder::new().name(name).spawn(move || theirs.run())?;
        *slot = Some(Thread(Arc::clone(&shared)));
        Ok(shared)
    }
}

impl Relayed {
    /// The descriptor to pass.
    pub(super) fn event(&self) -> &EventFd {
        &self.event
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        let Some((line, relay)) = self.line.take() else { return };
        if let Some(Thread(shared)) = &*lock(&relay.0) {
            lock(&shared.lines).retain(|other| !Arc::ptr_eq(other, &line));
            drop(shared.bell.write(1));
        }
        // What the thread has not heard is not lost.
        line.pass_on();
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // The thread holds no handle of its own, so this is the last one.
        self.0.ended.store(true, Ordering::Release);
        drop(self.0.bell.write(1));
    }
}

impl Shared {
    fn run(&self) {
        while !self.ended.load(Ordering::Acquire) {
            drop(self.bell.read());
            let lines = lock(&self.lines).clone();
            let mut fds: Vec<PollFd<'_>> = [&self.bell]
                .into_iter()
                .chain(lines.iter().map(|line| &line.event))
                .map(|event| PollFd::from_borrowed_fd(borrow(event), PollFlags::IN))
                .collect();
            // It cannot fail but for lack of memory, and then again is as good as anything.
            drop(wait(&mut fds, None));
            for line in &lines {
                line.pass_on();
            }
        }
    }
}

impl Line {
    fn pass_on(&self) {
        if self.event.read().is_ok() {
            self.to.signal();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
