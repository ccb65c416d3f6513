//! The rust-vmm back-end, that of the vhost-device programs, behind the front-end.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use parador_vhost_user::frontend::{Remote, RemoteOptions};
use parador_virtio::ids::VIRTIO_ID_RNG;
use parador_virtio::testing::{Harness, PATIENCE};
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackendMut, VhostUserDaemon, VringRwLock, VringT};
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// Answers each chain with what it says, from its second byte on.
struct Echo {
    memory: Option<Memory>,
    event_idx: bool,
    exit: (EventConsumer, EventNotifier),
}

impl VhostUserBackendMut for Echo {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        2
    }

    fn max_queue_size(&self) -> usize {
        256
    }

    fn features(&self) -> u64 {
        1 << 32 | 1 << 30 | 1 << 29 | 1 << 28
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        use VhostUserProtocolFeatures as F;
        F::MQ | F::REPLY_ACK | F::BACKEND_REQ | F::RESET_DEVICE | F::CONFIGURE_MEM_SLOTS
    }

    fn set_event_idx(&mut self, enabled: bool) {
        self.event_idx = enabled;
    }

    fn update_memory(&mut self, memory: Memory) -> io::Result<()> {
        self.memory = Some(memory);
        Ok(())
    }

    fn exit_event(&self, _: usize) -> Option<(EventConsumer, EventNotifier)> {
        Some((self.exit.0.try_clone().unwrap(), self.exit.1.try_clone().unwrap()))
    }

    fn handle_event(&mut self, event: u16, _: EventSet, rings: &[VringRwLock], _: usize) -> io::Result<()> {
        let ring = &rings[usize::from(event)];
        let memory = self.memory.as_ref().unwrap().memory();
        loop {
            ring.disable_notification().unwrap();
            while let Some(chain) = {
                let mut state = ring.get_mut();
                state.get_queue_mut().pop_descriptor_chain(memory.clone())
            } {
                let (mut said, mut written) = (Vec::new(), 0);
                let head = chain.head_index();
                for part in chain {
                    let len = part.len() as usize;
                    if part.is_write_only() {
                        let data = said.get(1..).unwrap_or_default();
                        memory.write_slice(&data[..len.min(data.len())], part.addr()).unwrap();
                        written += len.min(data.len());
                    } else {
                        let from = said.len();
                        said.resize(from + len, 0);
                        memory.read_slice(&mut said[from..], part.addr()).unwrap();
                    }
                }
                ring.add_used(head, written as u32).unwrap();
            }
            ring.signal_used_queue().unwrap();
            if !self.event_idx || !ring.enable_notification().unwrap() {
                return Ok(());
            }
        }
    }
}

/// Serves one front-end after the other, each with a new device.
struct Daemon {
    directory: tempfile::TempDir,
    has_ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let has_ended = Arc::<AtomicBool>::default();
        let (path, ended) = (directory.path().join("socket"), Arc::clone(&has_ended));
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::SeqCst) {
                let echo = Echo {
                    memory: None,
                    event_idx: false,
                    exit: new_event_consumer_and_notifier(EventFlag::NONBLOCK).unwrap(),
                };
                let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
                let mut daemon =
                    VhostUserDaemon::new("echo".to_owned(), Arc::new(Mutex::new(echo)), memory).unwrap();
                daemon.serve(&path).unwrap();
            }
        });
        Self { directory, has_ended, thread: Some(thread) }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    fn connect(&self) -> Remote {
        let options = RemoteOptions {
            kind: VIRTIO_ID_RNG,
            path: self.path(),
            name: "echo".to_owned(),
            queue_sizes: Some([256; 2].into()),
            ..RemoteOptions::default()
        };
        Remote::connect(options).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::SeqCst);
        // It waits for another one.
        while !self.thread.as_ref().unwrap().is_finished() {
            drop(std::os::unix::net::UnixStream::connect(self.path()));
            thread::yield_now();
        }
        assert!(self.thread.take().unwrap().join().is_ok() || thread::panicking());
    }
}

#[test]
fn requests_pauses_and_resets() {
    let daemon = Daemon::start();
    let mut harness = Harness::new(daemon.connect());
    for round in 0..4 {
        for queue in [0, 1] {
            for _ in 0..300 {
                let reply = harness.request(queue, &[b"the ", b"words"], &[12]);
                assert_eq!(reply.bytes(), b"he words");
            }
        }
        if round % 2 == 0 { harness.pause() } else { harness.reset() }
    }
}

#[test]
fn the_next_daemon_goes_on() {
    let daemon = Daemon::start();
    for _ in 0..3 {
        let mut harness = Harness::new(daemon.connect());
        assert_eq!(harness.request(1, &[b"again"], &[8]).bytes(), b"gain");
    }
    let mut harness = Harness::new(daemon.connect());
    harness.start();
    let driver = harness.driver(0);
    driver.add(&[b"one"], &[8]).unwrap();
    driver.kick();
    assert_eq!(driver.wait_used(PATIENCE).unwrap().written, 2);
}
