//! What a back-end offers, and what of it is taken.

use parador_virtio::SharedRegion;

use super::RemoteError;
use super::channel::{Channel, Reverse};
use super::link::Link;
use crate::message::{
    Config, ConfigFlags, F_PROTOCOL_FEATURES, FrontendRequest as R, MAX_CONFIG, ProtocolFeatures as F,
    SharedMemoryConfig,
};

/// Protocol features that are used here. Those that need others are dropped without them.
const KNOWN: F = F(F::MQ.0
    | F::LOG_SHMFD.0
    | F::REPLY_ACK.0
    | F::BACKEND_REQ.0
    | F::CONFIG.0
    | F::BACKEND_SEND_FD.0
    | F::INFLIGHT_SHMFD.0
    | F::RESET_DEVICE.0
    | F::CONFIGURE_MEM_SLOTS.0
    | F::STATUS.0
    | F::DEVICE_STATE.0
    | F::GET_VRING_BASE_INFLIGHT.0
    | F::SHMEM.0
    | F::GET_VRING_BASE_SKIP_DRAIN.0);

/// Features, and those that each needs.
const NEEDS: [(F, F); 4] = [
    (F::GET_VRING_BASE_INFLIGHT, F::INFLIGHT_SHMFD),
    (F::GET_VRING_BASE_SKIP_DRAIN, F(F::INFLIGHT_SHMFD.0 | F::GET_VRING_BASE_INFLIGHT.0)),
    (F::BACKEND_SEND_FD, F::BACKEND_REQ),
    (F::SHMEM, F::BACKEND_REQ),
];

/// What a back-end has said of its device.
pub(super) struct Offer {
    /// How many queues it has, if it says so.
    pub(super) queues: Option<u64>,
    pub(super) shared_memory: Box<[SharedRegion]>,
}

impl Link {
    /// Agrees with the back-end on features and sets up the channel for its own requests.
    pub(super) fn negotiate(&mut self, reverse: Reverse) -> Result<Offer, RemoteError> {
        self.offered = self.ask(&R::GetFeatures)?;
        if self.offered & F_PROTOCOL_FEATURES != 0 {
            let offered = F(self.ask(&R::GetProtocolFeatures)?);
            let wanted = choose(offered);
            // It is acknowledged only if it was negotiated before, so no acknowledgement is asked for.
            self.mention(&R::SetProtocolFeatures(wanted.0))?;
            self.protocol = wanted;
        }
        let queues = self.if_known(F::MQ, |link| link.ask(&R::GetQueueNum))?;
        self.slots = self.if_known(F::CONFIGURE_MEM_SLOTS, |link| link.ask(&R::GetMaxMemSlots))?.unwrap_or(0);
        if self.protocol.contains(F::BACKEND_REQ) {
            self.open_channel(reverse)?;
        }
        self.tell(&R::SetOwner, &[])?;
        let shared_memory = self.if_known(F::SHMEM, Self::shared_regions)?.unwrap_or_default();
        Ok(Offer { queues, shared_memory })
    }

    /// The configuration space, all of it: back-ends that do not look at the offset are right, too.
    /// `None` if the back-end has none.
    pub(super) fn config(&self, len: usize) -> Result<Option<Vec<u8>>, RemoteError> {
        if len == 0 || len > MAX_CONFIG || !self.protocol.contains(F::CONFIG) {
            return Ok(None);
        }
        let request = R::GetConfig(Config { offset: 0, flags: ConfigFlags::Writable, data: vec![0; len] });
        let reply = self.ask_for_bytes(&request, &[])?;
        // Nothing at all means no.
        let data = reply.get(12..).filter(|data| data.len() >= len);
        data.map(|data| Some(data[..len].into()))
            .ok_or(RemoteError::Refused { request: request.name(), code: 0 })
    }

    fn if_known<T>(
        &mut self,
        feature: F,
        ask: impl FnOnce(&mut Self) -> Result<T, RemoteError>,
    ) -> Result<Option<T>, RemoteError> {
        if self.protocol.contains(feature) { ask(self).map(Some) } else { Ok(None) }
    }

    fn open_channel(&mut self, reverse: Reverse) -> Result<(), RemoteError> {
        let acks = self.protocol.contains(F::REPLY_ACK);
        let (channel, theirs) = Channel::open(reverse, self.protocol, acks)?;
        self.tell(&R::SetBackendReqFd, &[std::os::fd::AsFd::as_fd(&theirs)])?;
        self.channel = Some(channel);
        Ok(())
    }

    fn shared_regions(&mut self) -> Result<Box<[SharedRegion]>, RemoteError> {
        let SharedMemoryConfig { sizes } = self.ask(&R::GetShmemConfig)?;
        if sizes.iter().any(|size| !size.is_multiple_of(PAGE)) {
            return Err(RemoteError::Impossible(
                R::GetShmemConfig.name(),
                "regions that are not whole pages",
            ));
        }
        let region = |(id, &size)| SharedRegion { id, size };
        Ok((0..=u8::MAX).zip(sizes.iter()).map(region).filter(|region| region.size != 0).collect())
    }
}

/// Bytes in a page of memory.
pub(super) const PAGE: u64 = 4096;

/// Those of `offered` that are known and make sense.
fn choose(offered: F) -> F {
    let mut chosen = offered & KNOWN;
    for (feature, needs) in NEEDS {
        if !chosen.contains(needs) {
            chosen = F(chosen.0 & !feature.0);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_without_what_they_need_are_not_taken() {
        assert_eq!(choose(F(u64::MAX)), KNOWN);
        assert_eq!(choose(F::GET_VRING_BASE_SKIP_DRAIN | F::INFLIGHT_SHMFD), F::INFLIGHT_SHMFD);
        assert_eq!(choose(F::GET_VRING_BASE_SKIP_DRAIN | F::GET_VRING_BASE_INFLIGHT), F(0));
        assert_eq!(choose(F::SHMEM | F::BACKEND_SEND_FD), F(0));
        // Postcopy, in-band notifications, Xen, shared objects, guest addresses.
        assert_eq!(choose(F(1 << 8 | 1 << 14 | 1 << 17 | 1 << 18 | 1 << 21)), F(0));
    }
}
