//! What a virtio device is: the contract between a device and whoever drives it.
//!
//! A device is a worker over rings. Whoever drives it (a register transport in a VMM, a vhost-user
//! server, a test) hands it four things per queue: guest memory, a ring, a *kick* and a *call*
//! ([`QueueSetup`]). The device runs a [`QueueHandler`] on each queue's own thread and gives the
//! ring's position back when it is asked to stop ([`QueueState`]): pause, reset, a change of the
//! memory table, reconnection and snapshot are all that one pair.
//!
//! # A whole device
//!
//! One queue; each chain the driver adds is filled with bytes that are as random as those of a
//! counter. The model driver of the `testing` feature plays the guest.
//!
//! ```
//! use std::io;
//! use parador_virtio::testing::Harness;
//! use parador_virtio::{
//!     Identity, Lane, Queue, QueueHandler, QueueSetup, QueueState, RingError, VirtioDevice, ids,
//! };
//!
//! struct Counter {
//!     identity: Identity,
//!     lane: Lane<Fill>,
//! }
//!
//! struct Fill(u8);
//!
//! impl QueueHandler for Fill {
//!     fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
//!         while let Some(chain) = queue.pop()? {
//!             let mut writer = chain.writer();
//!             while writer.write_all(&[self.0]).is_some() {
//!                 self.0 = self.0.wrapping_add(1);
//!             }
//!             let written = writer.written() as u32; // a chain is shorter than 2^32
//!             queue.push(chain, written);
//!         }
//!         Ok(())
//!     }
//! }
//!
//! impl VirtioDevice for Counter {
//!     fn identity(&self) -> &Identity {
//!         &self.identity
//!     }
//!     fn read_config(&self, _offset: usize, _data: &mut [u8]) {}
//!     fn start_queue(&mut self, setup: QueueSetup) -> io::Result<()> {
//!         self.lane.start("counter", setup)
//!     }
//!     fn stop_queue(&mut self, _index: u16) -> Option<QueueState> {
//!         self.lane.stop()
//!     }
//! }
//!
//! let kind = ids::VIRTIO_ID_RNG;
//! let identity = Identity { kind, queue_sizes: [64].into(), ..Identity::default() };
//! let mut harness = Harness::new(Counter { identity, lane: Lane::new(Fill(7)) });
//!
//! assert_eq!(harness.request(0, &[], &[3]).bytes(), [7, 8, 9]);
//! harness.pause();
//! assert_eq!(harness.request(0, &[], &[1, 1]).bytes(), [10, 11]);
//! ```

pub mod ids;

mod chain;
mod descriptors;
mod device;
mod dirty;
mod error;
mod inflight;
mod interrupt;
mod log_limit;
mod memory;
mod polling;
mod queue;
mod signals;
mod worker;

#[cfg(feature = "testing")]
pub mod testing;

pub use chain::{Chain, Reader, Segment, Writer};
pub use device::{
    Identity, MAX_STATE, QueueLayout, QueueSetup, QueueState, RING_FEATURES, SharedMemory, SharedPiece,
    SharedRegion, VirtioDevice,
};
pub use dirty::{Dirty, DirtyLog};
pub use error::RingError;
pub use inflight::{Inflight, InflightRegion};
pub use interrupt::Interrupt;
pub use log_limit::LogLimit;
pub use queue::Queue;
pub use vm_memory::{ByteValued, GuestAddress};
pub use vmm_sys_util::eventfd::EventFd;
pub use worker::{Lane, QueueHandler};

/// The guest's memory as a device sees it. It never changes under a running queue.
pub type GuestMemory = vm_memory::GuestMemoryMmap;
