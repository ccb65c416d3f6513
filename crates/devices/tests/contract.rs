//! Every device against the contract of all devices.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use parador_block::{Image, RawOptions};
use parador_devices::balloon::{Balloon, BalloonOptions};
use parador_devices::blk::{Blk, BlkOptions};
use parador_devices::console::{Backend, Console, ConsoleOptions, Size};
use parador_devices::net::tap::Tap;
use parador_devices::net::{Net, NetOptions};
use parador_devices::rng::{Rng, RngOptions};
use parador_devices::vsock::{Vsock, VsockOptions};
use parador_virtio::testing::check_contract;

#[test]
fn entropy() {
    check_contract(&mut Rng::new(RngOptions::default()).unwrap());
}

#[test]
fn console() {
    let options = ConsoleOptions { backend: Backend::Null, size: Size::default() };
    check_contract(&mut Console::new(options).unwrap());
}

#[test]
fn balloon() {
    check_contract(&mut Balloon::new(BalloonOptions::default()).unwrap());
    let all = BalloonOptions { target: 1 << 20, deflate_on_oom: true, free_page_reporting: true };
    check_contract(&mut Balloon::new(all).unwrap());
}

#[test]
fn vsock() {
    let directory = tempfile::tempdir().unwrap();
    let options = VsockOptions { cid: 3, socket: directory.path().join("vsock") };
    check_contract(&mut Vsock::new(options).unwrap());
}

#[test]
fn net() {
    for queues in [1, 2] {
        let Ok(taps) = Tap::open("contract%d", queues) else {
            eprintln!("skipped: this machine gives no TAP");
            return;
        };
        let options = NetOptions { taps, mac: [2, 0, 0, 0, 0, 1], mtu: Some(1500) };
        check_contract(&mut Net::new(options).unwrap());
    }
}

#[test]
fn disk() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    for queues in [1, 4] {
        let image = Image::open(&RawOptions::new(file.path())).unwrap();
        check_contract(&mut Blk::new(BlkOptions { queues, ..BlkOptions::new(image) }).unwrap());
    }
}
