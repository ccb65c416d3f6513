//! Processes that end at any moment, and the memory that outlives them.

use std::cell::Cell;
use std::fs::File;

use vmm_sys_util::tempfile::TempFile;

thread_local! {
    /// How many more writes of this thread to shared memory take place.
    static LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// Runs `life` as if its process ended after so many writes to rings, logs and regions of requests
/// in flight: `life` goes on, but nobody sees what it writes. Says how many writes were left, too.
pub fn end_after<T>(writes: u64, life: impl FnOnce() -> T) -> (T, u64) {
    LEFT.set(writes);
    let result = life();
    (result, LEFT.replace(u64::MAX))
}

/// Takes account of one write.
pub(crate) fn lands() -> bool {
    let left = LEFT.get();
    LEFT.set(left.saturating_sub(1));
    left > 0
}

/// A file of `len` zeroes without a name, to be mapped.
///
/// # Panics
/// The host has no room for it.
#[must_use]
pub fn shared_file(len: u64) -> File {
    let file = TempFile::new().expect("the host has room").into_file();
    file.set_len(len).expect("the host has room");
    file
}
