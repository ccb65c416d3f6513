//! Rings: starting them at a back-end, and where they stopped.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use parador_virtio::{GuestAddress, GuestMemory, Interrupt, QueueSetup, QueueState};
use vm_memory::Bytes;

use super::RemoteError;
use super::link::Link;
use super::memory::Table;
use super::relay::{Relay, Relayed};
use crate::message::{FrontendRequest as R, ProtocolFeatures as F, VringAddr, VringFd, VringState};
use crate::wait::borrow;

/// The largest ring there is (virtio 1.3 §2.7).
pub(super) const MAX_SIZE: u16 = 32768;
/// How much longer than any other answer a back-end may take to finish the requests it has.
const DRAIN: u32 = 6;
/// How long requests may still finish after a back-end has said that a ring is stopped: some say so
/// too early. Then it is believed.
const SETTLE: Duration = Duration::from_secs(1);

/// A ring that a driver wants to run.
pub(super) struct Ring {
    pub(super) setup: QueueSetup,
    index: u8,
    addr: VringAddr,
    call: Option<Relayed>,
    error: Option<Relayed>,
}

impl Ring {
    /// A ring that no back-end knows of yet.
    ///
    /// # Errors
    /// `InvalidInput`: it is not in guest memory; or guest memory cannot be shared, or the host has
    /// no descriptors.
    pub(super) fn new(setup: QueueSetup, relay: &Relay, name: &str) -> io::Result<Self> {
        let table = Table::of(&setup.memory)?;
        let index = u8::try_from(setup.index).map_err(|_| io::ErrorKind::InvalidInput)?;
        let addr = address(&setup, &table).ok_or(io::ErrorKind::InvalidInput)?;
        if let Some(dirty) = &setup.dirty
            && !covers(dirty.log.file(), table.end())
        {
            return Err(RemoteError::Log("the log does not cover guest memory").into());
        }
        let descriptor = |interrupt: &Interrupt| {
            let heard = !interrupt.is_nobody();
            heard.then(|| relay.descriptor(interrupt, name)).transpose()
        };
        let (call, error) = (descriptor(&setup.call)?, descriptor(&setup.error)?);
        Ok(Self { setup, index, addr, call, error })
    }

    /// Where the ring is if nobody is at work in it: behind the last request that was completed.
    pub(super) fn completed(&self) -> QueueState {
        QueueState { next_available: used_index(&self.setup.memory, self.setup.layout.used) }
    }

    /// Lets the driver look: whoever completed requests may have ended before it said so.
    pub(super) fn signal(&self) {
        self.setup.call.signal();
    }

    /// Starts it at `base`. The back-end knows memory and features.
    pub(super) fn start(&self, link: &Link, base: QueueState) -> Result<(), RemoteError> {
        let index = u32::from(self.index);
        let state = |num: u16| VringState { index, num: u32::from(num) };
        link.tell(&R::SetVringNum(state(self.setup.layout.size)), &[])?;
        link.tell(&R::SetVringBase(state(base.next_available)), &[])?;
        link.tell(&R::SetVringAddr(self.addr), &[])?;
        // Call before kick: the kick starts the ring, and not everybody takes them the other way round.
        self.pass(link, R::SetVringCall, self.call.as_ref().map(Relayed::event))?;
        if let Some(error) = &self.error {
            self.pass(link, R::SetVringErr, Some(error.event()))?;
        }
        self.pass(link, R::SetVringKick, self.setup.kick.as_ref())?;
        if link.enables_rings() {
            link.tell(&R::SetVringEnable(VringState { index, num: 1 }), &[])?;
        }
        if let Some(kick) = &self.setup.kick {
            // Requests that are there already may have been kicked for long ago. A counter that is
            // full has been kicked.
            drop(kick.write(1));
        }
        Ok(())
    }

    /// Stops it, and says where it was. The back-end completes what it has, unless it may `skip`.
    pub(super) fn stop(&self, link: &Link, skip: bool) -> Result<QueueState, RemoteError> {
        let which = VringState { index: u32::from(self.index), num: 0 };
        let skip = skip && link.told.inflight && link.protocol.contains(F::GET_VRING_BASE_SKIP_DRAIN);
        let request = if skip { R::GetVringBaseSkipDrain(which) } else { R::GetVringBase(which) };
        let (base, _): (VringState, _) = link.ask_with(&request, &[], DRAIN)?;
        let next_available = u16::try_from(base.num)
            .map_err(|_| RemoteError::Impossible(request.name(), "no split ring is there"))?;
        if base.index != which.index {
            return Err(RemoteError::Impossible(request.name(), "another ring"));
        }
        let state = QueueState { next_available };
        if !skip {
            let patience = Instant::now() + SETTLE;
            while self.completed() != state && Instant::now() < patience {
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(state)
    }

    fn pass(
        &self,
        link: &Link,
        request: fn(VringFd) -> R,
        event: Option<&parador_virtio::EventFd>,
    ) -> Result<(), RemoteError> {
        let descriptor: Vec<BorrowedFd<'_>> = event.map(borrow).into_iter().collect();
        link.tell(&request(VringFd { index: self.index, has_fd: event.is_some() }), &descriptor)
    }
}

/// What a back-end is told of where the ring is; `None` if it is not in guest memory.
fn address(setup: &QueueSetup, table: &Table) -> Option<VringAddr> {
    let layout = &setup.layout;
    let entries = u64::from(layout.size);
    if !layout.size.is_power_of_two() || layout.size > MAX_SIZE {
        return None;
    }
    let used_log = setup.dirty.as_ref().and_then(|dirty| dirty.used_ring);
    Some(VringAddr {
        index: u32::from(setup.index),
        flags: if used_log.is_some() { VringAddr::F_LOG } else { 0 },
        // The two rings end in an event index each, whether or not the feature is there.
        descriptor: table.user_address(layout.descriptors, 16 * entries, 16)?,
        available: table.user_address(layout.available, 6 + 2 * entries, 2)?,
        used: table.user_address(layout.used, 6 + 8 * entries, 4)?,
        log: used_log.unwrap_or(0),
    })
}

/// The device's index in the used ring at `used`, which is in guest memory.
fn used_index(memory: &GuestMemory, used: u64) -> u16 {
    let index = used.checked_add(2).map(GuestAddress);
    index.and_then(|at| memory.load(at, Ordering::Acquire).ok()).map_or(0, u16::from_le)
}

/// Whether a log of that many bytes has a bit for each page below `end`; one without a file does not.
fn covers(file: Option<(&std::fs::File, u64, u64)>, end: u64) -> bool {
    file.is_some_and(|(_, _, len)| len.saturating_mul(8 * super::negotiate::PAGE) >= end)
}
