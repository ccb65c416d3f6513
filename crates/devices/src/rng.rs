//! The entropy device (virtio 1.3 §5.4): random bytes for whoever asks.
//!
//! One queue of buffers to fill, no features, no configuration. Bytes go from the host's kernel
//! straight into guest memory.
//!
//! ```
//! use parador_devices::rng::{Rng, RngOptions};
//! use parador_virtio::testing::Harness;
//!
//! let mut driver = Harness::new(Rng::new(RngOptions::default())?);
//! // One request on queue 0: nothing to read, room for 32 bytes.
//! assert_eq!(driver.request(0, &[], &[32]).written, 32);
//! # Ok::<(), parador_devices::rng::RngError>(())
//! ```

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use parador_virtio::ids::VIRTIO_ID_RNG;
use parador_virtio::{Identity, Lane, Queue, QueueHandler, QueueSetup, QueueState, RingError, VirtioDevice};

use crate::sys::{self, Pieces};

/// The most bytes one request gets; the driver is told how many and asks again for more.
pub const MAX_REQUEST: usize = 64 << 10;

/// Where the random bytes come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RngOptions {
    /// A file or device to read, such as `/dev/hwrng`. `None` is the kernel's `getrandom`, which
    /// also stands in whenever the file has nothing to give.
    pub path: Option<PathBuf>,
}

/// The source of randomness cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the source of randomness {}", path.display())]
pub struct RngError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// An entropy device.
pub struct Rng {
    identity: Identity,
    lane: Lane<Handler>,
}

impl Rng {
    /// Opens the source.
    ///
    /// # Errors
    /// The file cannot be opened for reading.
    pub fn new(options: RngOptions) -> Result<Self, RngError> {
        let source = match options.path {
            None => None,
            Some(path) => Some(open(&path).map_err(|source| RngError { path, source })?),
        };
        let handler = Handler { source, pieces: Pieces::default() };
        let identity = Identity {
            kind: VIRTIO_ID_RNG,
            features: 0,
            required: 0,
            queue_sizes: Box::new([64]),
            config_len: 0,
            ..Identity::default()
        };
        Ok(Self { identity, lane: Lane::new(handler) })
    }
}

impl VirtioDevice for Rng {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn read_config(&self, _offset: usize, data: &mut [u8]) {
        data.fill(0);
    }

    fn start_queue(&mut self, setup: QueueSetup) -> io::Result<()> {
        self.lane.start("rng", setup)
    }

    fn stop_queue(&mut self, _index: u16) -> Option<QueueState> {
        self.lane.stop()
    }
}

struct Handler {
    source: Option<OwnedFd>,
    pieces: Pieces,
}

impl QueueHandler for Handler {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        while let Some(chain) = queue.pop()? {
            let mut writer = chain.writer();
            let wanted = writer.remaining().min(MAX_REQUEST);
            self.pieces.clear();
            let filled = self.pieces.add_room(&mut writer, wanted).map_or(0, |()| self.fill());
            queue.push(chain, u32::try_from(filled).unwrap_or(0));
        }
        Ok(())
    }
}

impl Handler {
    fn fill(&mut self) -> usize {
        if let Some(source) = &self.source {
            match sys::read_pieces(source.as_fd(), &mut self.pieces) {
                Ok(filled) if filled > 0 => return filled,
                Ok(_) => tracing::trace!("the source of randomness is empty; getrandom stands in"),
                Err(error) => tracing::trace!(%error, "the source of randomness fails; getrandom stands in"),
            }
        }
        // It fails only where the call does not exist, and then the driver is told it got nothing.
        sys::random_pieces(&mut self.pieces).unwrap_or(0)
    }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    // Whoever waits for a slow generator would keep the queue from stopping.
    sys::open(path, libc::O_RDONLY | libc::O_NONBLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use parador_virtio::GuestAddress;
    use parador_virtio::ids::{VIRTIO_F_INDIRECT_DESC, VIRTIO_F_VERSION_1};
    use parador_virtio::testing::{Arena, Harness, INDIRECT, NEXT, PATIENCE, UNTOUCHED, WRITE};
    use vm_memory::Bytes;

    #[test]
    fn fills_what_it_is_given() {
        let mut harness = Harness::new(Rng::new(RngOptions::default()).unwrap());
        let reply = harness.request(0, &[], &[32, 32]);
        assert_eq!(reply.written, 64);
        assert_ne!(reply.data[..32], reply.data[32..], "random bytes do not repeat");
    }

    #[test]
    fn reads_the_file_it_was_given() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("random");
        std::fs::write(&path, [7; 40]).unwrap();
        let mut harness = Harness::new(Rng::new(RngOptions { path: Some(path) }).unwrap());
        assert_eq!(harness.request(0, &[], &[40]).bytes(), [7; 40]);
        // It has run dry, and the driver still gets what it asked for.
        assert_eq!(harness.request(0, &[], &[64]).written, 64);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Rng::new(RngOptions { path: Some("/no/such/file".into()) }).err().unwrap();
        assert!(error.to_string().contains("/no/such/file"), "{error}");
    }

    #[test]
    fn a_request_has_a_limit() {
        let mut harness = Harness::new(Rng::new(RngOptions::default()).unwrap());
        let reply = harness.request(0, &[], &[MAX_REQUEST, 4096]);
        assert_eq!(reply.written as usize, MAX_REQUEST);
        assert!(reply.data[MAX_REQUEST..].iter().all(|&byte| byte == UNTOUCHED));
    }

    #[test]
    fn four_gibibytes_wanted_cost_what_one_request_costs() {
        // The same memory again and again, to just under the 4 GiB a chain may have.
        const PIECES: u16 = 63;
        let (device, arena) = (Rng::new(RngOptions::default()).unwrap(), Arena::new(65 << 20));
        let features = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC;
        let mut harness = Harness::with(Box::new(device), features, arena);
        let driver = harness.driver(0);
        let length: u32 = 64 << 20;
        let table = driver.arena().alloc(16 * u64::from(PIECES), 16);
        let memory = driver.arena().alloc(u64::from(length), 4096);
        for at in 0..PIECES {
            let more = at + 1 < PIECES;
            let (flags, next) = if more { (WRITE | NEXT, at + 1) } else { (WRITE, 0) };
            driver.write_descriptor_at(table + 16 * u64::from(at), memory, length, flags, next);
        }
        driver.write_descriptor(0, table, 16 * u32::from(PIECES), INDIRECT, 0);
        driver.offer(0);
        driver.kick();
        assert!(driver.wait_call(PATIENCE), "it answers");
        assert!(!driver.is_broken());
        let written: u32 = driver.memory().read_obj(GuestAddress(driver.layout().used + 8)).unwrap();
        assert_eq!(written as usize, MAX_REQUEST);
    }

    #[test]
    fn a_device_that_found_its_ring_broken_works_again_after_a_reset() {
        let mut harness = Harness::new(Rng::new(RngOptions::default()).unwrap());
        let driver = harness.driver(0);
        driver.offer(0xffff);
        driver.kick();
        let end = std::time::Instant::now() + PATIENCE;
        while !driver.is_broken() {
            assert!(std::time::Instant::now() < end, "the queue latches");
            std::thread::yield_now();
        }
        harness.reset();
        assert_eq!(harness.request(0, &[], &[16]).written, 16);
    }
}
