//! What a driver can do wrong.

/// What is wrong with a ring. The first error latches the queue: every later pop repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// Size not a power of two up to 32768, an area not aligned, or one outside guest memory.
    #[error("queue areas are not aligned or not in guest memory")]
    Layout,
    /// The available index is more than the ring's size ahead of what the device took.
    #[error("the available index jumped by more than the queue size")]
    AvailableIndex,
    /// A chain starts at a descriptor beyond the table.
    #[error("a head is not below the queue size")]
    Head,
    /// A chain was made available again before the device gave it back.
    #[error("a head is in flight already")]
    HeadInFlight,
    /// A descriptor continues at one beyond its table.
    #[error("a descriptor's next is not below the size of its table")]
    Next,
    /// A chain has more descriptors than the queue (virtio 1.3 §2.7.5.2), or an indirect table more than
    /// that and 1024: it may be a loop.
    #[error("a chain is longer than the queue size")]
    ChainLength,
    /// An indirect descriptor, but `VIRTIO_F_INDIRECT_DESC` was not accepted.
    #[error("an indirect descriptor without the feature")]
    IndirectFeature,
    /// An indirect table whose length is zero, not a multiple of 16 bytes, or that of more than
    /// 65535 descriptors.
    #[error("an indirect table of a bad length")]
    IndirectLength,
    /// An indirect descriptor inside an indirect table.
    #[error("an indirect table in an indirect table")]
    IndirectNested,
    /// A descriptor both indirect and continued.
    #[error("an indirect descriptor with a next")]
    IndirectNext,
    /// A buffer or an indirect table that is not, or not all, in guest memory.
    #[error("a descriptor points outside guest memory")]
    Address,
    /// A buffer of no bytes. No driver sends one, and QEMU refuses it too.
    #[error("a buffer of no bytes")]
    EmptyBuffer,
    /// A buffer for the device to read after one for it to write (virtio 1.3 §2.7.4.2).
    #[error("a readable buffer after a writable one")]
    ReadableAfterWritable,
    /// A chain of 2^32 bytes or more: its used length could not be told.
    #[error("a chain of 2^32 bytes or more")]
    ChainBytes,
    /// The region of requests in flight is of an unknown version, or made for smaller rings, or
    /// what it says cannot be.
    #[error("what is written down of requests in flight makes no sense")]
    Inflight,
    /// For a handler: a well-formed chain that its device can neither serve nor answer.
    #[error("a request that cannot be answered")]
    Request,
}
