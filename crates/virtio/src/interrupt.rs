//! How a device gets somebody's attention.

use std::fmt;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

/// A way to signal the driver: an eventfd (KVM's irqfd, a vhost-user call descriptor) or a function.
///
/// Cheap to clone; may be signalled from any thread.
#[derive(Clone)]
pub struct Interrupt(Arc<Kind>);

enum Kind {
    Nobody,
    EventFd(EventFd),
    Call(Box<dyn Fn() + Send + Sync>),
}

impl Interrupt {
    /// An interrupt nobody hears: a driver that polls, or one that chose no vector.
    #[must_use]
    pub fn nobody() -> Self {
        Self(Arc::new(Kind::Nobody))
    }

    /// An interrupt that adds one to `fd`, which is non-blocking: otherwise a counter that nobody
    /// reads could block the device one day.
    #[must_use]
    pub fn from_eventfd(fd: EventFd) -> Self {
        Self(Arc::new(Kind::EventFd(fd)))
    }

    /// An interrupt that calls `f`, on whichever thread signals.
    pub fn from_fn(f: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Kind::Call(Box::new(f))))
    }

    /// Signals. Never blocks: an eventfd whose counter is full has been signalled already.
    pub fn signal(&self) {
        match &*self.0 {
            Kind::Nobody => {}
            Kind::EventFd(fd) => drop(fd.write(1)),
            Kind::Call(f) => f(),
        }
    }

    /// Whether nobody hears it.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        matches!(&*self.0, Kind::Nobody)
    }

    /// The eventfd behind this interrupt, for those who pass it to another process.
    #[must_use]
    pub fn as_eventfd(&self) -> Option<&EventFd> {
        match &*self.0 {
            Kind::EventFd(fd) => Some(fd),
            Kind::Nobody | Kind::Call(_) => None,
        }
    }
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &*self.0 {
            Kind::Nobody => "Interrupt(nobody)",
            Kind::EventFd(_) => "Interrupt(eventfd)",
            Kind::Call(_) => "Interrupt(call)",
        })
    }
}
