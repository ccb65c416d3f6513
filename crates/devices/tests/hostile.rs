//! Every device over rings and requests that no honest driver makes: whatever is in guest memory, a
//! device neither panics nor hangs, and can be stopped, reset and used again.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use parador_block::zoned::Geometry;
use parador_block::zoned::image::Metadata;
use parador_block::{Image, RawOptions};
use parador_devices::balloon::{Balloon, BalloonOptions};
use parador_devices::blk::{Blk, BlkOptions};
use parador_devices::console::{Backend, Console, ConsoleOptions, Size};
use parador_devices::net::tap::Tap;
use parador_devices::net::{Net, NetOptions};
use parador_devices::rng::{Rng, RngOptions};
use parador_devices::vsock::{Vsock, VsockOptions};
use parador_virtio::testing::hostile::{HostileRing, Source};
use parador_virtio::testing::{Harness, seeds};
use parador_virtio::{QueueSetup, VirtioDevice};

/// How long a device may take to stop, whatever it is in the middle of.
const STOP: Duration = Duration::from_secs(10);

/// What `ring` is as queue `index` of a device; the ring stays ours to change.
fn setup(ring: &HostileRing, index: u16, features: u64) -> QueueSetup {
    let setup = &ring.setup;
    QueueSetup {
        index,
        features: setup.features | features,
        layout: setup.layout,
        resume: setup.resume,
        memory: Arc::clone(&setup.memory),
        kick: setup.kick.as_ref().map(|kick| kick.try_clone().unwrap()),
        call: setup.call.clone(),
        error: setup.error.clone(),
        inflight: None,
        dirty: None,
    }
}

/// Runs every queue of a device over hostile rings.
fn survives(device: &mut dyn VirtioDevice) {
    let queues = u16::try_from(device.identity().queue_sizes.len()).unwrap();
    let features = device.identity().features;
    for (seed, bytes) in seeds(150, 600).enumerate() {
        let mut source = Source::new(&bytes);
        let rings: Vec<HostileRing> = (0..queues).map(|_| HostileRing::new(&mut source)).collect();
        for (index, ring) in (0..).zip(&rings) {
            // A ring that is not in memory is refused, and that is all.
            drop(device.start_queue(setup(ring, index, features)));
        }
        let mut config = [0; 64];
        while !source.is_empty() {
            rings[source.below(rings.len())].mutate(&mut source);
            rings.iter().for_each(|ring| ring.setup.kick.as_ref().unwrap().write(1).unwrap());
            device.read_config(usize::from(source.u16()), &mut config);
            let length = source.below(9);
            device.write_config(source.below(80), &source.u64().to_le_bytes()[..length.min(8)]);
        }
        for index in 0..queues {
            let start = Instant::now();
            let _ = device.stop_queue(index);
            assert!(start.elapsed() < STOP, "queue {index} stops, seed {seed}");
            assert_eq!(device.stop_queue(index), None);
        }
        device.reset();
    }
}

#[test]
fn entropy() {
    let mut rng = Rng::new(RngOptions::default()).unwrap();
    survives(&mut rng);
    assert_eq!(Harness::new(rng).request(0, &[], &[8]).written, 8);
}

#[test]
fn console() {
    let (input, _typed) = std::io::pipe().unwrap();
    let output = std::fs::File::options().write(true).open("/dev/null").unwrap();
    let backend = Backend::Stdio { input: input.into(), output: output.into() };
    let mut console = Console::new(ConsoleOptions { backend, size: Size::default() }).unwrap();
    survives(&mut console);
    Harness::new(console).request(1, &[b"alive"], &[]);
}

#[test]
fn balloon() {
    let mut balloon = Balloon::new(BalloonOptions::default()).unwrap();
    survives(&mut balloon);
    Harness::new(balloon).request(1, &[&[0; 4]], &[]);
}

#[test]
fn vsock() {
    let directory = tempfile::tempdir().unwrap();
    let options = VsockOptions { cid: 3, socket: directory.path().join("vsock") };
    let mut vsock = Vsock::new(options).unwrap();
    survives(&mut vsock);
    Harness::new(vsock).request(1, &[&[0; 44]], &[]);
}

/// On TAPs of this machine that are down and have no address: nothing leaves it.
#[test]
fn net() {
    for queues in [1, 2] {
        let Ok(taps) = Tap::open("hostile%d", queues) else {
            eprintln!("skipped: this machine gives no TAP");
            return;
        };
        let mac = [2, 0, 0, 0, 0, 1];
        let mut net = Net::new(NetOptions { taps, mac, mtu: None }).unwrap();
        survives(&mut net);
        Harness::new(net).request(1, &[&[0; 12], &[0; 60]], &[]);
    }
}

#[test]
fn disk() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let image = Image::open(&RawOptions::new(file.path())).unwrap();
    let mut blk = Blk::new(BlkOptions::new(image)).unwrap();
    survives(&mut blk);
    let header = [0; 16];
    assert_eq!(Harness::new(blk).request(0, &[&header], &[512, 1]).data[512], 0);
}

#[test]
fn disk_with_zones() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let geometry =
        Geometry { conventional: 1, max_open: 2, max_active: 3, ..Geometry::new(1 << 20, 64 << 10) };
    let len = Metadata::create(file.as_file(), geometry.checked().unwrap(), [1; 16]).unwrap();
    file.as_file().set_len(len).unwrap();
    let image = Image::open_zoned(&RawOptions::new(file.path())).unwrap();
    let mut blk = Blk::new(BlkOptions { queues: 2, ..BlkOptions::new(image) }).unwrap();
    survives(&mut blk);
    // Zones are as the driver left them, and none is in anybody's hands.
    let mut harness = Harness::new(blk);
    let mut reset_all = [0; 16];
    reset_all[0] = 26;
    assert_eq!(harness.request(0, &[&reset_all], &[1]).data, [0]);
}
