//! The configuration space, status and resets.

use std::sync::atomic::Ordering;

use parador_vhost_user::message::{Config, ConfigFlags, FrontendRequest as R, Payload};

use crate::device::{CONFIG, Echo};
use crate::front::{FEATURES, Front, echo};

fn config(offset: u32, flags: ConfigFlags, data: &[u8]) -> Config {
    Config { offset, flags, data: data.into() }
}

fn read(front: &Front, offset: u32, len: usize) -> Vec<u8> {
    let asked = config(offset, ConfigFlags::Writable, &vec![0xff; len]);
    let reply = Config::parse(&front.ask(&R::GetConfig(asked))).unwrap();
    assert_eq!((reply.offset, reply.data.len()), (offset, len), "as long as was asked for");
    reply.data
}

#[test]
fn configuration_is_read_from_anywhere_and_beyond_its_end() {
    // C1, C2, C3, C6
    let front = Front::connect(Echo::new());
    assert_eq!(read(&front, 0, 8), CONFIG);
    assert_eq!(read(&front, 3, 2), CONFIG[3..5]);
    assert_eq!(read(&front, 6, 4), [7, 8, 0, 0]);
    for len in [57, 60, 256, 4096] {
        let data = read(&front, 0, len);
        assert_eq!((&data[..8], data[8..].iter().max()), (&CONFIG[..], Some(&0)));
    }
    for offset in [9, 0x100, u32::MAX] {
        let asked = config(offset, ConfigFlags::Writable, &[0; 4]);
        assert!(front.ask(&R::GetConfig(asked)).is_empty(), "no bytes say that it is wrong");
    }
}

#[test]
fn what_can_be_written_is_and_the_rest_refused() {
    // C7
    let front = Front::new(Echo::new());
    for flags in [ConfigFlags::Writable, ConfigFlags::Migration] {
        front.tell(&R::SetConfig(config(1, flags, &[20, 30])));
        assert_eq!(read(&front, 0, 5), [1, 20, 30, 4, 5]);
        front.refused(&R::SetConfig(config(4, flags, &[50])), &[]);
        front.refused(&R::SetConfig(config(7, flags, &[8, 0])), &[]);
        front.refused(&R::SetConfig(config(u32::MAX, flags, &[0])), &[]);
        // As it is, so that what was saved elsewhere can be put back as a whole.
        front.tell(&R::SetConfig(config(4, flags, &[5, 6])));
        assert_eq!(read(&front, 4, 4), CONFIG[4..]);
    }
    let mut payload = config(0, ConfigFlags::Writable, &[1]).payload();
    payload[8] = 2;
    let message = parador_vhost_user::message::Message::new(25, payload);
    assert_ne!(front.ack_message(&message, &[]), 0, "flags that there are not");
}

#[test]
fn a_reset_leaves_the_connection_and_the_memory() {
    // X1, X2
    let front = Front::new(Echo::new());
    let mut driver = front.start(0);
    echo(&mut driver, b"before");
    front.tell(&R::SetConfig(config(0, ConfigFlags::Writable, &[9])));
    front.tell(&R::ResetDevice);
    assert_eq!(front.seen.resets.load(Ordering::SeqCst), 1);
    assert_eq!(read(&front, 0, 1), CONFIG[..1]);
    assert_eq!(front.base(0), 0);
    // Neither memory nor protocol features are said again.
    front.tell(&R::SetFeatures(FEATURES));
    echo(&mut front.start(0), b"after");
}

#[test]
fn the_status_is_kept_and_zero_resets() {
    // X3
    let front = Front::new(Echo::new());
    assert_eq!(front.number(&R::GetStatus), 0);
    for status in [8, 0xf] {
        front.tell(&R::SetStatus(status));
        assert_eq!(front.number(&R::GetStatus), status);
    }
    let mut driver = front.start(0);
    echo(&mut driver, b"before");
    front.tell(&R::SetStatus(0));
    assert_eq!(front.seen.resets.load(Ordering::SeqCst), 1);
    assert_eq!(front.number(&R::GetStatus), 0);
    // QEMU 7.2 asks for this after it has set the status, when it stops a machine that goes on later.
    assert_eq!(front.base(0), 1);
    front.tell(&R::SetFeatures(FEATURES));
    front.set_ring(0, &driver);
    front.enable(0, true);
    echo(&mut driver, b"after");
}

/// Front-ends that do not know STATUS cannot be kept from starting rings: those have to run, so that
/// the device can say what it thinks of it.
#[test]
fn a_driver_that_leaves_out_what_is_needed_does_not_get_features_ok_and_gets_answers() {
    let mut device = Echo::new();
    device.identity.required = device.identity.features;
    let front = Front::new(device);
    let (with, without) = (FEATURES | 1 << 5, FEATURES & !(1 << 5));
    for (features, status) in [(without, 3), (with, 0xb), (without, 3)] {
        front.tell(&R::SetFeatures(features));
        front.tell(&R::SetStatus(0xb));
        assert_eq!(front.number(&R::GetStatus), status);
    }
    front.tell(&R::SetStatus(0));
    front.tell(&R::SetFeatures(without));
    echo(&mut front.start(0), b"an answer");
}
