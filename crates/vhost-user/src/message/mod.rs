//! Messages as bytes: every request and reply of the protocol, without any socket.
//!
//! A [`Message`] is a header and a payload, as they are on the wire; [`FrontendRequest`] and
//! [`BackendRequest`] are what valid ones mean. Parsing goes by the size in the header and says what
//! is wrong; [`Message`] can hold anything, so that a test can send what is malformed.
//!
//! Descriptors travel beside the bytes. What a message must carry is [`FrontendRequest::descriptors`]
//! and [`BackendRequest::descriptors`]; the socket keeps them together.
//!
//! ```
//! use parador_vhost_user::message::{FrontendRequest, Message, Payload, VringState};
//!
//! let request = FrontendRequest::SetVringNum(VringState { index: 1, num: 256 });
//! let message = request.message().with_need_reply();
//! let bytes = message.bytes();
//! assert_eq!(bytes[..12], [8, 0, 0, 0, 0x9, 0, 0, 0, 8, 0, 0, 0]);
//!
//! let parsed = FrontendRequest::parse(&message)?;
//! assert_eq!(parsed, request);
//! assert_eq!(message.ack(0).payload, 0u64.payload());
//! # Ok::<(), parador_vhost_user::message::MessageError>(())
//! ```

mod backend;
mod features;
mod frontend;
mod payload;

pub use backend::BackendRequest;
pub use features::ProtocolFeatures;
pub use frontend::FrontendRequest;
pub use payload::{
    Config, ConfigFlags, DeviceStateTransfer, Inflight, Iotlb, Log, LogBase, MAX_SHARED_REGIONS,
    MemoryRegion, Mmap, Payload, SharedMemoryConfig, StateDirection, Uuid, VringAddr, VringArea, VringFd,
    VringState, Wrong,
};

/// Bytes of a header.
pub const HEADER_LEN: usize = 12;
/// The most bytes of payload a message may have: the largest one defined has 4108.
pub const MAX_PAYLOAD: usize = 8192;
/// The most descriptors beside a message (`VHOST_MEMORY_BASELINE_NREGIONS`).
pub const MAX_DESCRIPTORS: usize = 8;
/// The most regions in one memory table.
pub const MAX_TABLE_REGIONS: usize = 8;
/// The most bytes of configuration space in one message.
pub const MAX_CONFIG: usize = 4096;
/// Feature bit that says there are protocol features (`VHOST_USER_F_PROTOCOL_FEATURES`). It is
/// between the two ends and never reaches a guest.
pub const F_PROTOCOL_FEATURES: u64 = 1 << 30;
/// Feature bit that asks for the log of dirty pages (`VHOST_F_LOG_ALL`).
pub const F_LOG_ALL: u64 = 1 << 26;

const VERSION_MASK: u32 = 0x3;
const VERSION: u32 = 0x1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// A message as it is on the wire: header and payload, not necessarily valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Which request it is, or answers.
    pub request: u32,
    /// Version (bits 0 and 1), reply (bit 2) and need_reply (bit 3).
    pub flags: u32,
    /// What the header says of the payload's size, in bytes.
    pub size: u32,
    /// The payload. Its length is `size`, unless a test says otherwise.
    pub payload: Vec<u8>,
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Not version 1 of the protocol.
    #[error("message {request} has version {version}; 1 is the only one there is")]
    Version {
        /// Which message.
        request: u32,
        /// The version in its flags.
        version: u32,
    },
    /// A reply where a request was expected, or the other way round, or to another request.
    #[error("message {request} is not the one that was expected")]
    Unexpected {
        /// Which message came.
        request: u32,
    },
    /// A request that the protocol does not have.
    #[error("there is no request {0}")]
    Unknown(u32),
    /// A payload that is longer than any.
    #[error("message {request} announces {size} bytes, more than any message has")]
    TooLong {
        /// Which message.
        request: u32,
        /// Bytes announced.
        size: u32,
    },
    /// A payload of the wrong size.
    #[error("message {request} has {size} bytes, not {expected}")]
    Size {
        /// Which message.
        request: u32,
        /// Bytes it has.
        size: usize,
        /// Bytes it should have.
        expected: usize,
    },
    /// A field with a value that it cannot have.
    #[error("message {request}: {what}")]
    Value {
        /// Which message.
        request: u32,
        /// The field, and what is wrong with it.
        what: &'static str,
    },
    /// Too few or too many descriptors beside it.
    #[error("message {request} comes with {count} descriptors")]
    Descriptors {
        /// Which message.
        request: u32,
        /// How many came.
        count: usize,
    },
}

impl Message {
    /// A request.
    #[must_use]
    pub fn new(request: u32, payload: Vec<u8>) -> Self {
        let size = payload.len() as u32; // payloads are short
        Self { request, flags: VERSION, size, payload }
    }

    /// The same, asking for an answer even if its kind has none (`VHOST_USER_PROTOCOL_F_REPLY_ACK`).
    #[must_use]
    pub fn with_need_reply(self) -> Self {
        Self { flags: self.flags | NEED_REPLY, ..self }
    }

    /// The reply to this request.
    #[must_use]
    pub fn reply(&self, payload: Vec<u8>) -> Self {
        Self { flags: VERSION | REPLY, ..Self::new(self.request, payload) }
    }

    /// The acknowledgement of this request: zero for success.
    #[must_use]
    pub fn ack(&self, code: u64) -> Self {
        self.reply(code.payload())
    }

    /// Whether an answer was asked for.
    #[must_use]
    pub fn needs_reply(&self) -> bool {
        self.flags & NEED_REPLY != 0
    }

    /// Whether it is a reply.
    #[must_use]
    pub fn is_reply(&self) -> bool {
        self.flags & REPLY != 0
    }

    /// Header and payload.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.payload.len());
        for field in [self.request, self.flags, self.size] {
            bytes.extend(field.to_ne_bytes());
        }
        bytes.extend(&self.payload);
        bytes
    }

    /// A message of which only the header is there yet: [`Message::size`] bytes of payload follow.
    ///
    /// # Errors
    /// It is of another version, or its payload longer than [`MAX_PAYLOAD`].
    pub fn from_header(header: [u8; HEADER_LEN]) -> Result<Self, MessageError> {
        let field = |at: usize| {
            let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
            u32::from_ne_bytes(bytes)
        };
        let (request, flags, size) = (field(0), field(4), field(8));
        if flags & VERSION_MASK != VERSION {
            return Err(MessageError::Version { request, version: flags & VERSION_MASK });
        }
        if size as usize > MAX_PAYLOAD {
            return Err(MessageError::TooLong { request, size });
        }
        Ok(Self { request, flags, size, payload: Vec::new() })
    }

    /// The message, if it is the reply to `request`; its payload may have any size.
    ///
    /// # Errors
    /// It is no reply, or one to another request.
    pub fn expect_reply_to(self, request: u32) -> Result<Self, MessageError> {
        if !self.is_reply() || self.request != request {
            return Err(MessageError::Unexpected { request: self.request });
        }
        Ok(self)
    }

    /// The payload as `T`.
    pub(crate) fn payload<T: Payload>(&self) -> Result<T, MessageError> {
        T::parse(&self.payload).map_err(|wrong| wrong.about(self))
    }

    /// That there is no payload.
    fn no_payload(&self) -> Result<(), MessageError> {
        match self.payload.len() {
            0 => Ok(()),
            size => Err(MessageError::Size { request: self.request, size, expected: 0 }),
        }
    }
}

#[cfg(test)]
mod tests;
