//! Configuration space and the registers of a virtio function under any accesses.
//!
//! Shared by the fuzz targets and by replays among the tests of the crate.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use parador_machine::bus::{BusDevice, Effect};
use parador_machine::pci::{Host, MsiMessage, PciRoot, Windows};
use parador_virtio::testing::hostile::{REGIONS, Source};
use parador_virtio::testing::{Arena, turn};
use parador_virtio::{EventFd, Identity, Queue, QueueSetup, QueueState, VirtioDevice};

const LOW: u64 = 0xc000_0000;
const HIGH: u64 = 0x40_0000_0000;
const WINDOW_LEN: u64 = 1 << 28;
/// Slot 1, function 0.
const SLOT: u64 = 1 << 15;
/// The virtio vendor.
const VENDOR: u16 = 0x1af4;
const CONFIG_LEN: usize = 24;
const QUEUE_SIZES: [u16; 3] = [8, 256, 64];
const FEATURES: u64 = 0b1011;
const WIDTHS: [usize; 4] = [1, 2, 4, 8];
/// Accesses in one input.
const STEPS: usize = 400;

/// Any accesses to configuration space, through ECAM and through the ports.
///
/// # Panics
/// A function forgets what it is, or the two ways disagree.
pub fn exercise_config(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let (root, device) = machine();
    let (mut ecam, mut ports) = (root.ecam(), root.config_ports());
    for _ in 0..STEPS {
        if source.is_empty() {
            break;
        }
        let len = source.choose(&WIDTHS);
        let data = source.u64().to_le_bytes();
        match source.below(8) {
            // The whole of ECAM, and the two functions there are.
            0 => write(&mut ecam, u64::from(source.u32() % (1 << 20)), &data[..len]),
            1..=3 => write(&mut ecam, SLOT + u64::from(source.u16() % 4096), &data[..len]),
            4 => write(&mut ecam, u64::from(source.u16() % 4096), &data[..len]),
            5 => {
                let address = if source.below(4) == 0 {
                    source.u32()
                } else {
                    1 << 31 | 1 << 11 | u32::from(source.u8())
                };
                write(&mut ports, 0, &address.to_le_bytes());
                write(&mut ports, 4 + source.below(4) as u64, &data[..len.min(4)]);
            }
            6 => write(&mut ports, source.below(8) as u64, &data[..len.min(4)]),
            _ => {
                let mut data = data;
                ecam.read(u64::from(source.u32() % (1 << 20)), &mut data[..len]);
                ports.read(source.below(8) as u64, &mut data[..len]);
            }
        }
        let mut id = [0; 2];
        ecam.read(SLOT, &mut id);
        assert_eq!(u16::from_le_bytes(id), VENDOR, "a function keeps its identity");
    }
    for register in (0..0x40).step_by(4) {
        let address: u32 = 1 << 31 | 1 << 11 | register;
        write(&mut ports, 0, &address.to_le_bytes());
        let (mut by_port, mut by_memory) = ([0; 4], [0; 4]);
        ports.read(4, &mut by_port);
        ecam.read(SLOT + u64::from(register), &mut by_memory);
        assert_eq!(by_port, by_memory, "register {register:#x}");
    }
    finish(&root, &device);
}

/// Any accesses to the registers of a virtio function. Says how often a queue was started.
///
/// # Panics
/// The transport breaks its side of the contract with the device.
pub fn exercise_registers(bytes: &[u8]) -> usize {
    let mut source = Source::new(bytes);
    let (root, device) = machine();
    let mut ecam = root.ecam();
    write(&mut ecam, SLOT + 4, &6_u16.to_le_bytes()); // memory decoding and bus mastering
    let mut bar = [0; 4];
    ecam.read(SLOT + 0x10, &mut bar);
    let bar = u64::from(u32::from_le_bytes(bar) & !0xf);
    assert!((LOW..LOW + WINDOW_LEN).contains(&bar), "a BAR is in its window");
    let (mut window, bar) = (root.window(LOW), bar - LOW);
    if source.below(4) != 0 {
        negotiate(&mut window, bar, &mut source);
    }
    for _ in 0..STEPS {
        if source.is_empty() {
            break;
        }
        let len = source.choose(&WIDTHS);
        let data = source.u64().to_le_bytes();
        let offset = match source.below(8) {
            0 => u64::from(source.u16()),              // anywhere, and beyond
            1 => 0x1000 + 4 * source.below(5) as u64,  // kicks
            2 => 0x4000 + u64::from(source.u8() % 96), // vectors
            3 => 0x14,                                 // status
            4 => source.choose(&[0x16, 0x18, 0x1a, 0x1c, 0x20, 0x28, 0x30, 0x3a]),
            5 => 0x200 + source.below(2 * CONFIG_LEN) as u64, // the device's own
            _ => source.below(0x40) as u64,
        };
        match source.below(8) {
            0 => write(&mut ecam, SLOT + u64::from(source.u8()), &data[..len]),
            1 | 2 => {
                let mut read = data;
                window.read(bar + offset, &mut read[..len]);
            }
            3 => write(&mut window, bar + offset, &u64::from(data[0]).to_le_bytes()[..len]),
            4 if data[0] == 0 => root.stop_queues(),
            4 if data[0] == 1 => root.start_queues(),
            _ => write(&mut window, bar + offset, &data[..len]),
        }
    }
    finish(&root, &device)
}

/// Sets the device up the way a driver does, with one queue or more, so that the rest of the
/// input meets a device at work.
fn negotiate(window: &mut impl BusDevice, bar: u64, source: &mut Source<'_>) {
    let mut write =
        |offset: u64, value: u64, len: usize| write(window, bar + offset, &value.to_le_bytes()[..len]);
    for status in [0, 1, 3] {
        write(0x14, status, 1);
    }
    write(0x08, 0, 4);
    write(0x0c, u64::from(source.u8()) & FEATURES | u64::from(source.u8() & 0x30) << 24, 4);
    write(0x08, 1, 4);
    write(0x0c, 1, 4); // VIRTIO_F_VERSION_1
    write(0x14, 11, 1);
    for queue in 0..=source.below(QUEUE_SIZES.len()) as u64 {
        write(0x16, queue, 2);
        write(0x18, 8, 2);
        write(0x1a, queue, 2);
        write(0x20, queue << 12, 8);
        write(0x28, queue << 12 | 0x400, 8);
        write(0x30, queue << 12 | 0x800, 8);
        write(0x1c, 1, 2);
    }
    write(0x14, 15, 1);
}

/// Writes. Nothing on this bus switches the machine off, but a byte to its reset control resets it.
fn write(to: &mut impl BusDevice, offset: u64, data: &[u8]) {
    let effect = to.write(offset, data);
    assert!(effect == Effect::None || (effect, offset, data.len()) == (Effect::Reset, 1, 1), "{effect:?}");
}

/// Resets the bus: nothing may run afterwards.
fn finish(root: &PciRoot, device: &Arc<Mutex<Watch>>) -> usize {
    root.start_queues();
    root.reset();
    let watch = device.lock().expect("no panic so far");
    assert!(watch.running.is_empty(), "a reset stops every queue");
    watch.starts
}

fn machine() -> (PciRoot, Arc<Mutex<Watch>>) {
    let memory = Arc::clone(Arena::of_regions(&REGIONS).memory());
    let windows = Windows { low: LOW..LOW + WINDOW_LEN, high: Some(HIGH..HIGH + WINDOW_LEN) };
    let host = Arc::new(Model { next: AtomicU32::new(24) });
    let root = PciRoot::new(host, memory, windows).expect("the windows are good");
    let watch = Arc::default();
    let device = Probe {
        identity: Identity {
            kind: parador_virtio::ids::VIRTIO_ID_BLOCK,
            features: FEATURES,
            required: 0,
            queue_sizes: QUEUE_SIZES.into(),
            config_len: CONFIG_LEN,
        },
        config: [0; CONFIG_LEN],
        watch: Arc::clone(&watch),
    };
    let at = root.attach_virtio(Box::new(device), None).expect("the bus is empty");
    assert_eq!(at.to_string(), "0:1.0", "the first free slot");
    (root, watch)
}

/// A machine with a few interrupts, where every third wish is refused.
struct Model {
    next: AtomicU32,
}

impl Model {
    fn sometimes(&self) -> io::Result<()> {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        if count.is_multiple_of(3) { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(()) }
    }
}

impl Host for Model {
    fn set_ioeventfd(&self, _address: u64, _kick: &EventFd, _on: bool) -> io::Result<()> {
        self.sometimes()
    }

    fn allocate_gsi(&self) -> io::Result<u32> {
        self.sometimes()?;
        Ok(self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn release_gsi(&self, _gsi: u32) {}

    fn route_msi(&self, _gsi: u32, _message: Option<MsiMessage>) -> io::Result<()> {
        self.sometimes()
    }

    fn set_irqfd(&self, _gsi: u32, _fd: &EventFd, _on: bool) -> io::Result<()> {
        self.sometimes()
    }
}

/// A device without threads that watches how it is driven.
struct Probe {
    identity: Identity,
    config: [u8; CONFIG_LEN],
    watch: Arc<Mutex<Watch>>,
}

/// What a [`Probe`] has seen.
#[derive(Default)]
struct Watch {
    running: HashMap<u16, Queue>,
    starts: usize,
}

impl VirtioDevice for Probe {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        assert!(offset + data.len() <= CONFIG_LEN, "the transport cuts accesses to what there is");
        data.copy_from_slice(&self.config[offset..offset + data.len()]);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        assert!(offset + data.len() <= CONFIG_LEN, "the transport cuts accesses to what there is");
        self.config[offset..offset + data.len()].copy_from_slice(data);
    }

    fn start_queue(&mut self, setup: QueueSetup) -> io::Result<()> {
        let size = QUEUE_SIZES[usize::from(setup.index)];
        assert!(setup.layout.size <= size, "no ring is larger than the device allows");
        let ours = (1 << 24) - 1;
        assert_eq!(setup.features & ours & !FEATURES, 0, "only what was offered is accepted");
        let mut queue = Queue::new(&setup).map_err(io::Error::other)?;
        // A broken ring is the driver's; it stays with the device until it is stopped.
        let _ = turn(&mut queue, |queue| {
            while let Some(chain) = queue.pop()? {
                queue.push(chain, 0);
            }
            Ok(())
        })
        .inspect_err(|_| setup.error.signal());
        let mut watch = self.watch.lock().expect("no panic so far");
        assert!(watch.running.insert(setup.index, queue).is_none(), "a queue that runs is never started");
        watch.starts += 1;
        Ok(())
    }

    fn stop_queue(&mut self, index: u16) -> Option<QueueState> {
        self.watch.lock().expect("no panic so far").running.remove(&index).map(|queue| queue.state())
    }

    fn reset(&mut self) {
        let watch = self.watch.lock().expect("no panic so far");
        assert!(watch.running.is_empty(), "queues are stopped before a reset");
        drop(watch);
        self.config = [0; CONFIG_LEN];
    }
}
