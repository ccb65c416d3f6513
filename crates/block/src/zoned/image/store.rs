//! Where an image is kept: what the metadata needs of a file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::sys;

/// A file, or something that stands for one in tests of power cuts. Used by many threads at once.
pub trait Store: Send + Sync {
    /// Fills `data` from `offset`; beyond the end are zeroes.
    ///
    /// # Errors
    /// What the host says.
    fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()>;

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// What the host says; some of it may be written.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes all writes that are over durable.
    ///
    /// # Errors
    /// What the host says; nothing is known to be durable then.
    fn sync(&self) -> io::Result<()>;

    /// Makes `len` bytes at `offset` read as zeroes, and gives their space back.
    ///
    /// # Errors
    /// What the host says; some of it may be done.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Where the first data is from `offset` on, as far as is known; `None` if only zeroes follow.
    ///
    /// # Errors
    /// What the host says.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }
}

/// Writes zeroes over whatever there is in `len` bytes at `offset`.
pub(super) fn write_over(store: &dyn Store, mut offset: u64, len: u64) -> io::Result<()> {
    let (zeroes, end) = (vec![0; 1 << 20], offset + len);
    while let Some(data) = store.next_data(offset)?.filter(|data| *data < end) {
        let len = (end - data).min(zeroes.len() as u64);
        store.write(data, &zeroes[..len as usize])?;
        offset = data + len;
    }
    Ok(())
}

impl Store for File {
    fn read(&self, mut offset: u64, mut data: &mut [u8]) -> io::Result<()> {
        while !data.is_empty() {
            match self.read_at(data, offset) {
                Ok(0) => {
                    data.fill(0);
                    return Ok(());
                }
                Ok(got) => {
                    offset += got as u64;
                    data = &mut data[got..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_all_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        sys::fallocate(self, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, offset, len)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        sys::next_data(self, offset)
    }
}
