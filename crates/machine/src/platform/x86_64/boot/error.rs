//! What can be wrong with what a guest is to start with.

use std::io;
use std::path::{Path, PathBuf};

use vm_memory::GuestMemoryError;

/// Why a guest cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A file is not what it should be.
    #[error("{}: {fault}", path.display())]
    File {
        /// What the user called it.
        path: PathBuf,
        /// What is wrong.
        fault: Fault,
    },
    /// The host cannot read a file.
    #[error("{}: cannot read", path.display())]
    Read {
        /// What the user called it.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The command line is longer than the kernel reads.
    #[error("the kernel command line has {length} bytes, and this kernel reads {max} at most")]
    CmdlineTooLong {
        /// Bytes it has.
        length: u64,
        /// Bytes it may have.
        max: u64,
    },
    /// The command line has a zero in it, where the kernel would think it ends.
    #[error("the kernel command line has a zero byte at position {position}")]
    CmdlineZero {
        /// Where.
        position: usize,
    },
    /// There is no guest memory where the kernel wants to find its parameters.
    #[error("the guest has no memory for the kernel's parameters")]
    Memory(#[source] GuestMemoryError),
}

/// What is wrong with a kernel or an initrd.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Fault {
    /// It has no bytes.
    #[error("the file is empty")]
    Empty,
    /// It is a directory.
    #[error("this is a directory, not a file")]
    Directory,
    /// It is a device, a pipe or a socket.
    #[error("this is not a regular file")]
    NotAFile,
    /// It is nothing we know.
    #[error("this is not a Linux kernel: neither a bzImage nor an ELF file")]
    NotAKernel,
    /// It may be a kernel, but packed from outside.
    #[error("the file is {format}-compressed; unpack it with {tool} first")]
    Compressed {
        /// The format's name.
        format: &'static str,
        /// What unpacks it.
        tool: &'static str,
    },
    /// It is a kernel for another processor.
    #[error("this is a kernel for {0}, and the machine is x86-64")]
    OtherMachine(&'static str),
    /// It is a kernel that can be entered in 32-bit mode only.
    #[error("this kernel has no 64-bit entry (it is 32-bit, or older than Linux 3.8)")]
    Only32Bit,
    /// It ends too early.
    #[error("the file is truncated: it has {have} bytes and should have at least {needed}")]
    Truncated {
        /// Bytes it has.
        have: u64,
        /// Bytes it should have.
        needed: u64,
    },
    /// It contradicts itself.
    #[error("the file is malformed: {0}")]
    Malformed(&'static str),
    /// It wants to be loaded where this machine has its tables.
    #[error("the kernel wants to be loaded at {start:#x}, below 1 MiB")]
    LoadedTooLow {
        /// Where.
        start: u64,
    },
    /// The guest has too little memory for it.
    #[error("the kernel needs memory up to {needed:#x} ({} MiB), and the guest's ends at {have:#x}; give the \
             guest more memory", needed.div_ceil(1 << 20))]
    TooLarge {
        /// First address after what it needs.
        needed: u64,
        /// First address after what there is.
        have: u64,
    },
    /// The guest has too little memory for the initrd beside the kernel.
    #[error(
        "the initrd has {size} bytes, and beside the kernel there is room for {room}; give the guest more \
             memory"
    )]
    InitrdTooLarge {
        /// Bytes it has.
        size: u64,
        /// Bytes there is room for.
        room: u64,
    },
}

/// What went wrong with a file whose name the caller knows.
pub(super) enum FileFault {
    Fault(Fault),
    Io(io::Error),
}

impl FileFault {
    pub(super) fn of(self, path: &Path) -> BootError {
        let path = path.to_owned();
        match self {
            FileFault::Fault(fault) => BootError::File { path, fault },
            FileFault::Io(source) => BootError::Read { path, source },
        }
    }
}

impl From<Fault> for FileFault {
    fn from(fault: Fault) -> Self {
        FileFault::Fault(fault)
    }
}

impl From<io::Error> for FileFault {
    fn from(error: io::Error) -> Self {
        FileFault::Io(error)
    }
}
