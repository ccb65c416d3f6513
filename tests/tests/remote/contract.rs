//! Every device against the contract of all devices, and some requests, over sockets.

use parador_block::{Image, RawOptions};
use parador_devices::balloon::{Balloon, BalloonOptions};
use parador_devices::blk::{Blk, BlkOptions};
use parador_devices::console::{Backend, Console, ConsoleOptions, Size};
use parador_devices::net::tap::Tap;
use parador_devices::net::{Net, NetOptions};
use parador_devices::rng::{Rng, RngOptions};
use parador_devices::vsock::{Vsock, VsockOptions};
use parador_virtio::VirtioDevice;
use parador_virtio::testing::check_contract;

use crate::served::{drive, three_ways};

fn check(mut device: Box<dyn VirtioDevice>, _: &str) {
    check_contract(&mut *device);
}

#[test]
fn entropy() {
    three_ways(|| Rng::new(RngOptions::default()).unwrap(), check);
    let read = |device: Box<dyn VirtioDevice>, how: &str| {
        let mut harness = drive(device);
        for round in 0..3 {
            let reply = harness.request(0, &[], &[64, 7]);
            assert_eq!(reply.bytes().len(), 71, "{how}");
            if round == 1 { harness.reset() } else { harness.pause() }
        }
    };
    three_ways(|| Rng::new(RngOptions::default()).unwrap(), read);
}

#[test]
fn console() {
    let options = || ConsoleOptions { backend: Backend::Null, size: Size { cols: 80, rows: 25 } };
    three_ways(|| Console::new(options()).unwrap(), check);
}

#[test]
fn balloon() {
    three_ways(|| Balloon::new(BalloonOptions::default()).unwrap(), check);
    let all = || BalloonOptions { target: 1 << 20, deflate_on_oom: true, free_page_reporting: true };
    three_ways(|| Balloon::new(all()).unwrap(), check);
}

#[test]
fn vsock() {
    let directory = tempfile::tempdir().unwrap();
    let make = || Vsock::new(VsockOptions { cid: 3, socket: directory.path().join("vsock") }).unwrap();
    three_ways(make, check);
}

#[test]
fn net() {
    for queues in [1, 2] {
        if Tap::open("remote%d", queues).is_err() {
            eprintln!("skipped: this machine gives no TAP");
            return;
        }
        let make = || {
            let taps = Tap::open("remote%d", queues).unwrap();
            Net::new(NetOptions { taps, mac: [2, 0, 0, 0, 0, 1], mtu: Some(1500) }).unwrap()
        };
        three_ways(make, check);
    }
}

#[test]
fn disk() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    for queues in [1, 4] {
        let make = || {
            let options = RawOptions { lock: false, ..RawOptions::new(file.path()) };
            let image = Image::open(&options).unwrap();
            Blk::new(BlkOptions { queues, ..BlkOptions::new(image) }).unwrap()
        };
        three_ways(make, check);
    }
}
