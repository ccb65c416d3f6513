//! What a device in another process does to memory: files it shows to the guest, and pages it gives back.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parador_devices::balloon::{Balloon, BalloonOptions};
use parador_machine::pci::testing::{Guest, HIGH, PciDriver, memory_file};
use parador_vhost_user::frontend::{Remote, RemoteOptions};
use parador_vhost_user::server::Server;
use parador_virtio::testing::{Arena, Harness};
use parador_virtio::{
    EventFd, GuestAddress, Identity, QueueLayout, QueueSetup, QueueState, SharedMemory, SharedPiece,
    SharedRegion, VirtioDevice, ids,
};
use vm_memory::{Bytes, GuestMemoryBackend, GuestMemoryRegion};

const PAGE: u64 = 4096;
const MIB: usize = 1 << 20;
/// Queues are reset one by one (virtio 1.3 §6).
const RING_RESET: u64 = 1 << 40;

/// Serves `device` to whoever has the other end, once.
fn serve(device: impl VirtioDevice + 'static) -> (UnixStream, JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut server = Server::new(Box::new(device));
    let thread = thread::spawn(move || server.serve(ours, &EventFd::new(0).unwrap()).unwrap());
    (theirs, thread)
}

/// The device at the other end, which is like `identity`.
fn remote(identity: &Identity, stream: UnixStream) -> Remote {
    let Identity { kind, config_len, .. } = *identity;
    let queue_sizes = Some(identity.queue_sizes.clone());
    let (stream, name) = (Some(stream), "test".to_owned());
    Remote::connect(RemoteOptions { kind, config_len, queue_sizes, stream, name, ..Default::default() })
        .unwrap()
}

/// Shows a file for as long as its queue runs: the first page for writing, the second, elsewhere, for
/// reading. Finds out on the way what is refused.
struct Show {
    identity: Identity,
    file: File,
    memory: Option<Arc<dyn SharedMemory>>,
    running: bool,
}

const REGION: u8 = 5;

fn piece(page: u64) -> SharedPiece {
    SharedPiece { region: REGION, offset: page * PAGE, len: PAGE }
}

impl Show {
    fn new(file: File) -> Self {
        let identity = Identity {
            kind: ids::VIRTIO_ID_RNG,
            queue_sizes: [16].into(),
            shared_memory: [SharedRegion { id: REGION, size: 16 * PAGE }].into(),
            ..Identity::default()
        };
        Self { identity, file, memory: None, running: false }
    }
}

impl VirtioDevice for Show {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn read_config(&self, _offset: usize, data: &mut [u8]) {
        data.fill(0);
    }

    fn on_shared_memory(&mut self, memory: Arc<dyn SharedMemory>) {
        self.memory = Some(memory);
    }

    fn start_queue(&mut self, _setup: QueueSetup) -> io::Result<()> {
        let memory = self.memory.as_ref().unwrap();
        memory.map(piece(0), &self.file, 0, true)?;
        memory.map(piece(2), &self.file, PAGE, false)?;
        memory.map(piece(3), &self.file, PAGE, false)?;
        assert!(memory.map(piece(2), &self.file, 0, true).is_err(), "something is there");
        assert!(memory.map(piece(16), &self.file, 0, true).is_err(), "beyond the region");
        assert!(memory.unmap(SharedPiece { len: 2 * PAGE, ..piece(2) }).is_err(), "these are two");
        memory.unmap(piece(3))?;
        self.running = true;
        Ok(())
    }

    fn stop_queue(&mut self, _index: u16) -> Option<QueueState> {
        std::mem::take(&mut self.running).then(QueueState::default)
    }
}

#[test]
fn a_file_that_a_back_end_maps_is_in_the_guests_bar_until_the_device_is_reset() {
    let file = memory_file(2 * PAGE);
    file.write_all_at(b"file", 0).unwrap();
    file.write_all_at(b"2nd.", PAGE).unwrap();
    let device = Show::new(file.try_clone().unwrap());
    let identity = device.identity().clone();
    let (stream, thread) = serve(device);
    let mut guest = Guest::new();
    let device = remote(&identity, stream);
    let address = guest.root.attach_virtio(Box::new(device), None).unwrap();
    let driver = PciDriver::probe(&mut guest, address);
    assert_eq!(driver.shared, [(REGION, HIGH.start, 16 * PAGE)]);
    for life in 0..3 {
        assert_eq!(guest.load::<4>(HIGH.start), [0; 4], "nothing yet");
        // As Linux does, with a feature of the transport that the back-end does not know.
        assert!(driver.negotiate(&mut guest, ids::VIRTIO_F_VERSION_1 | RING_RESET));
        let layout = QueueLayout { size: 16, descriptors: 0, available: 0x1000, used: 0x2000 };
        driver.enable_queue(&mut guest, 0, &layout, 0xFFFF);
        driver.driver_ok(&mut guest);
        assert_eq!(driver.status(&mut guest), 15);
        assert_eq!(guest.load::<4>(HIGH.start), *b"file", "life {life}");
        assert_eq!(guest.load::<4>(HIGH.start + 2 * PAGE), *b"2nd.");
        assert_eq!(guest.load::<4>(HIGH.start + 3 * PAGE), [0; 4], "unmapped");
        guest.write(HIGH.start + 8, &[life]);
        let mut byte = [0xFF];
        file.read_exact_at(&mut byte, 8).unwrap();
        assert_eq!(byte, [life], "what the guest writes is in the file");
        driver.write(&mut guest, 0x14, &[0]);
    }
    assert_eq!(guest.load::<4>(HIGH.start), [0; 4], "nothing any more");
    drop((driver, guest));
    thread.join().unwrap();
}

#[test]
fn a_balloon_in_another_process_gives_pages_back() {
    let arena = Arena::new(16 * MIB);
    let file = {
        let region = arena.memory().iter().next().unwrap();
        region.file_offset().unwrap().file().try_clone().unwrap()
    };
    let device = Balloon::new(BalloonOptions::default()).unwrap();
    let identity = device.identity().clone();
    let (stream, thread) = serve(device);
    let device = remote(&identity, stream);
    let features = device.identity().features | ids::VIRTIO_F_VERSION_1;
    let mut harness = Harness::with(Box::new(device), features, arena.clone());
    // The rings and the request are below; the file has holes there.
    arena.memory().write_slice(&[7; 8 * MIB], GuestAddress(8 * MIB as u64)).unwrap();
    let before = file.metadata().unwrap().blocks();
    let pages: Vec<u8> = (2048..3072u32).flat_map(u32::to_le_bytes).collect();
    harness.request(0, &[&pages], &[]);
    let freed = before - file.metadata().unwrap().blocks();
    assert!(freed >= 4 * MIB as u64 / 512 - 100, "{freed} of {before} blocks");
    let byte = |at: usize| arena.memory().read_obj::<u8>(GuestAddress(at as u64)).unwrap();
    assert_eq!((byte(8 * MIB), byte(12 * MIB - 1), byte(12 * MIB)), (0, 0, 7));
    drop(harness);
    thread.join().unwrap();
}
