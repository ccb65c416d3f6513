//! What can go wrong with a back-end.

use std::io;
use std::path::PathBuf;

use crate::message::MessageError;

/// A device cannot be had from a back-end, or an exchange with it failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// The socket cannot be connected to, and waiting does not help.
    #[error("cannot connect to {}", .0.display())]
    Connect(PathBuf, #[source] io::Error),
    /// Neither a path nor a connection was given.
    #[error("no socket to connect to")]
    NoSocket,
    /// Of this type of device nothing is known, and the options do not say how many queues it has.
    #[error("device type {0} is none that is known: the sizes of its queues have to be given")]
    Kind(u32),
    /// The sizes of queues in the options are impossible.
    #[error("{0} is not the size of a queue: a power of two up to 32768")]
    QueueSize(u16),
    /// The options ask for queues that cannot be.
    #[error("a device of type {kind} cannot have {queues} queues")]
    Queues {
        /// Type of device.
        kind: u32,
        /// Queues asked for.
        queues: usize,
    },
    /// The back-end has fewer queues than the device needs.
    #[error("the back-end has {has} queues, not {wanted}")]
    TooFewQueues {
        /// What it says.
        has: u64,
        /// What the device has.
        wanted: usize,
    },
    /// The back-end lacks features that the device cannot do without.
    #[error("the back-end does not offer feature bits {0:#x}")]
    Features(u64),
    /// Guest memory is not in files that other processes can map.
    #[error("guest memory cannot be shared with the back-end (hint: set memory.shared=true)")]
    PrivateMemory,
    /// Guest memory has more regions than the back-end takes.
    #[error("guest memory has {regions} regions; the back-end takes {slots}")]
    Slots {
        /// Regions of guest memory.
        regions: usize,
        /// What it takes.
        slots: u64,
    },
    /// The log of dirty pages cannot be handed to the back-end.
    #[error("the back-end cannot mark the pages it writes to: {0}")]
    Log(&'static str),
    /// The back-end refuses a request.
    #[error("the back-end refuses {request} ({code})")]
    Refused {
        /// The request's name.
        request: &'static str,
        /// What it said.
        code: u64,
    },
    /// The request needs a protocol feature that was not negotiated.
    #[error("the back-end does not know {0}")]
    Unknown(&'static str),
    /// The connection ended.
    #[error("the back-end hung up at {0}")]
    HungUp(&'static str),
    /// An answer did not come in time.
    #[error("the back-end does not answer {request} within {seconds} s")]
    Silent {
        /// The request's name.
        request: &'static str,
        /// How long it had.
        seconds: u64,
    },
    /// What came is no answer.
    #[error("the back-end answers {0} with rubbish")]
    Rubbish(&'static str, #[source] MessageError),
    /// What the answer says cannot be.
    #[error("the back-end's answer to {0}: {1}")]
    Impossible(&'static str, &'static str),
    /// The back-end's own requests make no sense.
    #[error("the back-end's own request")]
    Channel(#[source] MessageError),
    /// There is something else to do than to wait for the back-end.
    #[error("interrupted")]
    Interrupted,
    /// The host refuses something.
    #[error("the host refuses what the device needs")]
    Host(#[from] io::Error),
}

impl RemoteError {
    /// Whether the connection is as good as before: the back-end said no, or was not asked.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. }
                | Self::Unknown(_)
                | Self::Log(_)
                | Self::Slots { .. }
                | Self::PrivateMemory
                | Self::Features(_)
                | Self::Host(_)
        )
    }
}

impl From<RemoteError> for io::Error {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Host(error) => error,
            RemoteError::Unknown(_) | RemoteError::Log(_) => Self::new(io::ErrorKind::Unsupported, error),
            other => Self::other(other),
        }
    }
}
