//! Zones of a disk (virtio 1.3 §5.2.6): sequential ones are written from their start to their end,
//! and reset as a whole.
//!
//! [`Zones`] is the state machine, without any data in it. It says where a write goes, or why it
//! cannot; the data moves afterwards, and [`Zones::complete`] is told when it has.
//!
//! ```
//! use parador_block::zoned::{Condition, Geometry, Refusal, Zones};
//!
//! let geometry = Geometry { max_open: 2, ..Geometry::new(64 << 20, 4 << 20) }.checked()?;
//! let zones = Zones::new(geometry);
//!
//! let first = zones.append(4 << 20, 8192).expect("an empty zone takes an append");
//! assert_eq!(first.offset, 4 << 20);
//! assert_eq!(zones.write(4 << 20, 4096).unwrap_err(), Refusal::UnalignedWrite);
//! assert_eq!(zones.hold(4 << 20).err(), Some(Refusal::Busy), "a write is in flight");
//!
//! zones.complete(first);
//! zones.hold(4 << 20).expect("it is over").reset();
//! assert_eq!(zones.zone(1).condition, Condition::Empty);
//! # Ok::<(), parador_block::zoned::GeometryError>(())
//! ```

#[cfg(not(loom))]
pub mod convert;
#[cfg(not(loom))]
mod device;
#[cfg(not(loom))]
pub(crate) mod disk;
#[cfg(any(not(loom), test))]
mod futex;
mod geometry;
#[cfg(not(loom))]
pub mod image;
#[cfg(any(not(loom), test))]
mod letterbox;
#[cfg(not(loom))]
mod mapped;
mod word;
mod words;
mod zones;

#[cfg(not(loom))]
pub use device::DeviceError;
#[cfg(not(loom))]
pub use disk::Zoned;
pub use geometry::{Geometry, GeometryError, MAX_ZONES};
pub use word::Condition;
pub use zones::{Held, Write, Zone, Zones};

/// Why a request to a zoned disk is refused. Where several reasons apply, the first in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It reaches beyond the disk.
    #[error("beyond the end of the disk")]
    OutOfRange,
    /// The zone's kind or condition does not allow it, or it crosses zones.
    #[error("not possible in this zone, or across zones")]
    InvalidCommand,
    /// It is not whole blocks, or not where the zone's write pointer is.
    #[error("not at the write pointer, or not whole blocks")]
    UnalignedWrite,
    /// Too many zones are active.
    #[error("too many active zones")]
    ActiveResource,
    /// Too many zones are open.
    #[error("too many open zones")]
    OpenResource,
    /// Not now: writes are in flight, or the zone is being reset or finished. Asked again after
    /// those are over, the answer is another.
    #[error("the zone is busy")]
    Busy,
}

/// What is shared by threads and processes is made of these; loom's own when it checks every interleaving.
mod sync {
    #[cfg(all(loom, test))]
    pub(super) use loom::sync::Condvar;
    #[cfg(all(loom, test))]
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicU32};
    #[cfg(loom)]
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
    #[cfg(loom)]
    pub(super) use loom::sync::{Mutex, MutexGuard};
    #[cfg(not(loom))]
    pub(super) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
    #[cfg(not(loom))]
    pub(super) use std::sync::{Mutex, MutexGuard};
}
