//! Requests of the back-end, on a channel of their own.

use std::ops::RangeInclusive;

use super::{
    Iotlb, Message, MessageError, Mmap, Payload, ProtocolFeatures as F, Uuid, VringArea, VringState,
};

/// What a back-end asks. Each is acknowledged if it asks for that, except
/// [`BackendRequest::SharedObjectLookup`], which has a reply of its own: a descriptor and zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendRequest {
    /// 1 `BACKEND_IOTLB_MSG`: a translation is missing, or an access failed.
    Iotlb(Iotlb),
    /// 2 `BACKEND_CONFIG_CHANGE_MSG`: the configuration space has changed.
    ConfigChange,
    /// 3 `BACKEND_VRING_HOST_NOTIFIER_MSG`: where a ring's kicks can go.
    HostNotifier(VringArea),
    /// 4 `BACKEND_VRING_CALL`: a ring was used.
    VringCall(VringState),
    /// 5 `BACKEND_VRING_ERR`: a ring is broken.
    VringErr(VringState),
    /// 6 `BACKEND_SHARED_OBJECT_ADD`: there is a shared object.
    SharedObjectAdd(Uuid),
    /// 7 `BACKEND_SHARED_OBJECT_REMOVE`: there is not any more.
    SharedObjectRemove(Uuid),
    /// 8 `BACKEND_SHARED_OBJECT_LOOKUP`: asks for another back-end's.
    SharedObjectLookup(Uuid),
    /// 9 `BACKEND_SHMEM_MAP`: shows a piece of a file in shared memory.
    ShmemMap(Mmap),
    /// 10 `BACKEND_SHMEM_UNMAP`: takes it away.
    ShmemUnmap(Mmap),
}

impl BackendRequest {
    /// What `message` means. Descriptors are not looked at.
    ///
    /// # Errors
    /// It is no request, none that there is, or its payload is not one of that request.
    pub fn parse(message: &Message) -> Result<Self, MessageError> {
        if message.is_reply() {
            return Err(MessageError::Unexpected { request: message.request });
        }
        Ok(match message.request {
            1 => Self::Iotlb(message.payload()?),
            2 => message.no_payload().map(|()| Self::ConfigChange)?,
            3 => Self::HostNotifier(message.payload()?),
            4 => Self::VringCall(message.payload()?),
            5 => Self::VringErr(message.payload()?),
            6 => Self::SharedObjectAdd(message.payload()?),
            7 => Self::SharedObjectRemove(message.payload()?),
            8 => Self::SharedObjectLookup(message.payload()?),
            9 => Self::ShmemMap(message.payload()?),
            10 => Self::ShmemUnmap(message.payload()?),
            unknown => return Err(MessageError::Unknown(unknown)),
        })
    }

    /// It as a message.
    #[must_use]
    pub fn message(&self) -> Message {
        let (number, payload) = match self {
            Self::Iotlb(iotlb) => (1, iotlb.payload()),
            Self::ConfigChange => (2, Vec::new()),
            Self::HostNotifier(area) => (3, area.payload()),
            Self::VringCall(ring) => (4, ring.payload()),
            Self::VringErr(ring) => (5, ring.payload()),
            Self::SharedObjectAdd(uuid) => (6, uuid.payload()),
            Self::SharedObjectRemove(uuid) => (7, uuid.payload()),
            Self::SharedObjectLookup(uuid) => (8, uuid.payload()),
            Self::ShmemMap(piece) => (9, piece.payload()),
            Self::ShmemUnmap(piece) => (10, piece.payload()),
        };
        Message::new(number, payload)
    }

    /// How many descriptors come with it.
    #[must_use]
    pub fn descriptors(&self) -> RangeInclusive<usize> {
        match self {
            Self::ShmemMap(_) => 1..=1,
            Self::HostNotifier(area) => {
                let count = usize::from(area.index & (1 << 8) == 0);
                count..=count
            }
            Self::Iotlb(_)
            | Self::ConfigChange
            | Self::VringCall(_)
            | Self::VringErr(_)
            | Self::SharedObjectAdd(_)
            | Self::SharedObjectRemove(_)
            | Self::SharedObjectLookup(_)
            | Self::ShmemUnmap(_) => 0..=0,
        }
    }

    /// The protocol features without which it is not sent, beside [`F::BACKEND_REQ`].
    #[must_use]
    pub fn gate(&self) -> F {
        match self {
            Self::Iotlb(_) => F(0),
            Self::ConfigChange => F::CONFIG,
            Self::HostNotifier(_) => F::HOST_NOTIFIER,
            Self::VringCall(_) | Self::VringErr(_) => F::INBAND_NOTIFICATIONS,
            Self::SharedObjectAdd(_) | Self::SharedObjectRemove(_) | Self::SharedObjectLookup(_) => {
                F::SHARED_OBJECT
            }
            Self::ShmemMap(_) | Self::ShmemUnmap(_) => F::SHMEM,
        }
    }
}
