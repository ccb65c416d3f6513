//! Why a machine cannot be put together, or does not do what it is asked.

use std::io;

use vm_memory::GuestMemoryError;

use crate::kvm::KvmError;
use crate::memory::MemoryError;
use crate::pci::AttachError;
use crate::platform::x86_64::BootError;

/// Why a machine cannot be put together, or does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// KVM does not do it.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// There is no memory for it.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// What it is to boot cannot be.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Its tables do not fit into its memory.
    #[error("the guest's memory has no room for its ACPI tables")]
    Tables(#[source] GuestMemoryError),
    /// A device cannot be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// There is nothing to boot.
    #[error("the machine has nothing to boot: it was given no kernel")]
    NothingToBoot,
    /// A processor cannot run where [`crate::Shape::affinity`] says.
    #[error(
        "processor {index} cannot run there: the host, or what this process may use of it, has no such processor"
    )]
    Affinity {
        /// Which of the guest's processors.
        index: u32,
        /// What the host said.
        source: io::Error,
    },
    /// It has ended.
    #[error("the machine has ended")]
    Ended,
    /// The host refuses something else.
    #[error("cannot {doing}")]
    Host {
        /// What was tried.
        doing: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

impl Error {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Kvm(error) => error.hint(),
            Self::Memory(error) => error.hint(),
            Self::Boot(_)
            | Self::Tables(_)
            | Self::Attach(_)
            | Self::NothingToBoot
            | Self::Affinity { .. }
            | Self::Ended
            | Self::Host { .. } => None,
        }
    }

    pub(crate) fn host(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Host { doing, source }
    }
}
