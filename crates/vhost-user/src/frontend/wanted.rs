//! What a driver wants of a device, as values: what a back-end is told, at first or again.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parador_virtio::{Dirty, GuestMemory, Identity, QueueState};

use super::RemoteError;
use super::link::Link;
use super::rings::Ring;
use crate::message::{
    F_LOG_ALL, F_PROTOCOL_FEATURES, FrontendRequest as R, Inflight, Log, LogBase, ProtocolFeatures as F,
};

/// virtio 1.3 §2.1: ACKNOWLEDGE and DRIVER; then FEATURES_OK; then DRIVER_OK.
const STATUS_DRIVER: u64 = 1 | 2;
const STATUS_FEATURES_OK: u64 = STATUS_DRIVER | 8;
const STATUS_DRIVER_OK: u64 = STATUS_FEATURES_OK | 4;

/// Features of the transport, which are no business of the back-end's: SR_IOV, NOTIFICATION_DATA,
/// NOTIF_CONFIG_DATA, RING_RESET, ADMIN_VQ (virtio 1.3 §6).
const TRANSPORT: u64 = 0b1_1111 << 37;

/// What a driver wants, whether a back-end is there or not.
pub(super) struct Wanted {
    /// Features added on this side, which no back-end has to know.
    added: u64,
    /// The features the driver accepted, while there is one.
    pub(super) features: Option<u64>,
    pub(super) rings: Vec<Option<Ring>>,
    memory: Option<Arc<GuestMemory>>,
    /// Where requests in flight are written down, from the first start until a reset.
    inflight: Option<(Inflight, OwnedFd)>,
}

impl Wanted {
    /// Nothing yet, of a device with that many queues.
    pub(super) fn new(queues: usize, added: u64) -> Self {
        let rings = std::iter::repeat_with(|| None).take(queues).collect();
        Self { added, features: None, rings, memory: None, inflight: None }
    }

    /// Wants `ring`, one of this device's, to run.
    pub(super) fn take(&mut self, ring: Ring) {
        self.features = Some(ring.setup.features & !(F_PROTOCOL_FEATURES | F_LOG_ALL));
        self.memory = Some(Arc::clone(&ring.setup.memory));
        let index = usize::from(ring.setup.index);
        self.rings[index] = Some(ring);
    }

    /// Does not want ring `index` to run any more.
    pub(super) fn remove(&mut self, index: u16) -> Option<Ring> {
        self.rings.get_mut(usize::from(index))?.take()
    }

    /// Lets the driver look at each ring.
    pub(super) fn signal(&self) {
        self.rings.iter().flatten().for_each(Ring::signal);
    }

    /// The driver is gone. Memory stays: the next one has the same.
    pub(super) fn reset(&mut self) {
        let Self { added: _, features, rings, memory: _, inflight } = self;
        *features = None;
        *inflight = None;
        rings.iter_mut().for_each(|ring| *ring = None);
    }

    /// Starts ring `index` where its driver says.
    pub(super) fn start(
        &mut self,
        link: &mut Link,
        identity: &Identity,
        index: u16,
    ) -> Result<(), RemoteError> {
        self.prepare(link, identity)?;
        let Some(ring) = &self.rings[usize::from(index)] else { return Ok(()) };
        if let Err(error) = ring.start(link, ring.setup.resume) {
            if error.is_refusal() {
                // It may have got as far as to run.
                ring.stop(link, false)?;
            }
            return Err(error);
        }
        set_status(link, STATUS_DRIVER_OK)
    }

    /// Starts all rings at a back-end that is new, where the last one left them.
    pub(super) fn restore(&mut self, link: &mut Link, identity: &Identity) -> Result<(), RemoteError> {
        if self.rings.iter().all(Option::is_none) {
            return Ok(());
        }
        self.prepare(link, identity)?;
        for ring in self.rings.iter().flatten() {
            // With a region of requests in flight the back-end finds those that are not done in it;
            // without one it does all from here on again.
            let base: QueueState = ring.completed();
            ring.start(link, base)?;
        }
        set_status(link, STATUS_DRIVER_OK)
    }

    /// Tells the back-end all that rings need.
    fn prepare(&mut self, link: &mut Link, identity: &Identity) -> Result<(), RemoteError> {
        let features = self.features.unwrap_or_default() & !TRANSPORT;
        let lost = features & !self.added & !link.offered;
        if lost != 0 {
            return Err(RemoteError::Features(lost));
        }
        let dirty = self.rings.iter().flatten().find_map(|ring| ring.setup.dirty.clone());
        let logs = link.told.log.is_some() && dirty.is_some();
        let before = link.features_for(features) | if logs { F_LOG_ALL } else { 0 };
        if link.told.features.is_none() {
            set_status(link, STATUS_DRIVER)?;
        }
        tell_features(link, before)?;
        set_status(link, STATUS_FEATURES_OK)?;
        self.tell_inflight(link, identity)?;
        if let Some(memory) = &self.memory {
            link.tell_memory(memory)?;
        }
        if let Some(dirty) = &dirty {
            tell_log(link, dirty)?;
            tell_features(link, before | F_LOG_ALL)?;
        }
        Ok(())
    }

    /// Gives the back-end the memory for requests in flight: that of the one before it, or its own.
    fn tell_inflight(&mut self, link: &mut Link, identity: &Identity) -> Result<(), RemoteError> {
        if link.told.inflight || !link.protocol.contains(F::INFLIGHT_SHMFD) {
            return Ok(());
        }
        if self.inflight.is_none() {
            let queues = u16::try_from(identity.queue_sizes.len()).unwrap_or(u16::MAX);
            let queue_size = identity.queue_sizes.iter().copied().max().unwrap_or_default();
            let request = R::GetInflightFd(Inflight { queues, queue_size, ..Inflight::default() });
            let (region, descriptors): (Inflight, _) = link.ask_with(&request, &[], 1)?;
            let Some(descriptor) = descriptors.into_iter().next().filter(|_| region.mmap_size > 0) else {
                return Err(RemoteError::Impossible(request.name(), "no memory comes with it"));
            };
            self.inflight = Some((Inflight { queues, queue_size, ..region }, descriptor));
        }
        if let Some((region, descriptor)) = &self.inflight {
            link.tell(&R::SetInflightFd(*region), &[descriptor.as_fd()])?;
            link.told.inflight = true;
        }
        Ok(())
    }
}

fn tell_features(link: &mut Link, features: u64) -> Result<(), RemoteError> {
    if link.told.features != Some(features) {
        link.tell(&R::SetFeatures(features), &[])?;
        link.told.features = Some(features);
    }
    Ok(())
}

fn set_status(link: &mut Link, status: u64) -> Result<(), RemoteError> {
    if link.protocol.contains(F::STATUS) && link.told.status < status {
        link.tell(&R::SetStatus(status), &[])?;
        link.told.status = status;
    }
    Ok(())
}

/// Passes the log, if it is not the one that the back-end has.
fn tell_log(link: &mut Link, dirty: &Dirty) -> Result<(), RemoteError> {
    let which = Arc::as_ptr(&dirty.log).addr();
    if link.told.log == Some(which) {
        return Ok(());
    }
    if !link.protocol.contains(F::LOG_SHMFD) || link.offered & F_LOG_ALL == 0 {
        return Err(RemoteError::Log("it does not offer to"));
    }
    let Some((file, offset, size)) = dirty.log.file() else {
        return Err(RemoteError::Log("the log is not in a file"));
    };
    // The answer may have any size: peers have three different opinions.
    link.ask_for_bytes(&R::SetLogBase(LogBase::Shared(Log { size, offset })), &[file.as_fd()])?;
    link.told.log = Some(which);
    Ok(())
}
