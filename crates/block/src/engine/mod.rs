//! The three ways to move data.

mod sync;
mod threads;
mod uring;

use crate::Buffer;

pub(crate) use sync::SyncDisk;
pub(crate) use threads::ThreadsDisk;
pub(crate) use uring::UringDisk;

/// Pieces that a request's storage starts with room for. More are rare, and then it keeps them.
pub(crate) const USUAL_PIECES: usize = 16;

/// Storage for more pieces than that is not kept: a guest that sends the longest requests it can must
/// not make a queue hold on to the square of its size.
const KEPT_PIECES: usize = 256;

/// Empties the storage of a request that is over, for the next one.
pub(crate) fn tidy(buffers: &mut Vec<Buffer>) {
    buffers.clear();
    if buffers.capacity() > KEPT_PIECES {
        buffers.shrink_to(USUAL_PIECES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_for_a_usual_request_is_kept_and_for_a_huge_one_is_not() {
        let mut buffers: Vec<Buffer> = Vec::with_capacity(KEPT_PIECES);
        tidy(&mut buffers);
        assert_eq!(buffers.capacity(), KEPT_PIECES);
        buffers.reserve_exact(2 * KEPT_PIECES);
        tidy(&mut buffers);
        assert!(buffers.capacity() <= KEPT_PIECES);
    }
}
