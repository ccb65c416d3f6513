//! Headers, negotiation, acknowledgements.

use std::fs::File;
use std::os::fd::AsFd;

use parador_vhost_user::message::{
    Config, FrontendRequest as R, Message, ProtocolFeatures as F, VringFd, VringState,
};

use crate::device::{Echo, QUEUES};
use crate::front::{FEATURES, Front, echo};

const OFFERED: F = F(0x99_b22b | 1 << 12);

#[test]
fn what_is_offered_is_what_there_is() {
    // N1, N8, N17: before any feature is accepted, and as often as anybody likes.
    let front = Front::connect(Echo::new());
    for _ in 0..2 {
        assert_eq!(front.number(&R::GetProtocolFeatures), front.offered.1.0);
        assert_eq!(front.number(&R::GetFeatures), front.offered.0);
    }
    assert_eq!(front.offered.1, OFFERED);
    assert_eq!(front.number(&R::GetQueueNum), QUEUES as u64);
    front.hang_up().unwrap();
}

#[test]
fn a_message_may_come_in_pieces_and_two_in_one() {
    // H4, H5
    let front = Front::connect(Echo::new());
    for byte in R::SetFeatures(FEATURES).message().bytes() {
        front.connection.send_bytes(&[byte], &[]).unwrap();
    }
    let two = [R::GetFeatures.message().bytes(), R::GetQueueNum.message().bytes()].concat();
    front.connection.send_bytes(&two, &[]).unwrap();
    front.reply_to(1);
    front.reply_to(17);
}

#[test]
fn another_version_or_too_long_a_payload_ends_the_session() {
    // H6, H7
    let flags = |flags| Message { flags, ..R::GetFeatures.message() };
    for message in [flags(0), flags(2), flags(3), Message { size: u32::MAX, ..flags(1) }] {
        let error = Front::connect(Echo::new()).ends_it(&message, &[]);
        assert!(error.to_string().contains("message 1"), "{error}");
    }
}

#[test]
fn descriptors_come_with_the_first_byte_or_not_at_all() {
    // H8: the next message's descriptors are not this one's.
    let front = Front::new(Echo::new());
    front.refused(&R::SetVringKick(VringFd { index: 0, has_fd: true }), &[]);
}

#[test]
fn an_unknown_request_is_refused_and_the_session_goes_on() {
    // H10, A2
    let front = Front::connect(Echo::new());
    front.negotiate();
    assert_ne!(front.ack_message(&Message::new(46, Vec::new()), &[]), 0);
    assert_ne!(front.ack_message(&Message::new(u32::MAX, vec![1; 100]), &[]), 0);
    // One that there is, and was not offered.
    front.refused(&R::SendRarp(0), &[]);
    front.ends_it(&Message::new(46, Vec::new()), &[]);
}

#[test]
fn nothing_is_acknowledged_that_nobody_asked_for() {
    // A1, A3, A4
    let front = Front::connect(Echo::new());
    front.connection.send(&R::SetOwner.message().with_need_reply(), &[]).unwrap();
    front.send(&R::SetOwner);
    assert_eq!(front.number(&R::GetQueueNum), QUEUES as u64, "the next thing that comes");
    front.negotiate();
    front.send(&R::SetOwner);
    front.connection.send(&R::GetFeatures.message().with_need_reply(), &[]).unwrap();
    front.reply_to(1);
    assert_eq!(front.number(&R::GetQueueNum), QUEUES as u64, "one reply, not two");
}

#[test]
fn the_message_that_brings_acknowledgements_is_acknowledged() {
    // A5, N15, N19: as user-mode Linux begins, without asking what there is.
    let front = Front::connect(Echo::new());
    front.send(&R::SetOwner);
    front.tell(&R::SetProtocolFeatures((F::REPLY_ACK | F::MQ).0));
}

#[test]
fn features_that_do_not_go_together_are_refused() {
    // N6, N7
    let features = [
        F::INBAND_NOTIFICATIONS | F::REPLY_ACK,
        F::INBAND_NOTIFICATIONS | F::BACKEND_REQ,
        F::GET_VRING_BASE_INFLIGHT,
        F::GET_VRING_BASE_SKIP_DRAIN | F::INFLIGHT_SHMFD,
        F::GET_VRING_BASE_SKIP_DRAIN | F::GET_VRING_BASE_INFLIGHT,
        F::PAGEFAULT,
        F(1 << 40),
    ];
    for features in features {
        let request = R::SetProtocolFeatures(features.0).message();
        Front::connect(Echo::new()).ends_it(&request, &[]);
    }
}

#[test]
fn in_band_notifications_that_were_not_offered_do_no_harm() {
    // N5
    let front = Front::new(Echo::new());
    front.tell(&R::SetProtocolFeatures((front.offered.1 | F::INBAND_NOTIFICATIONS).0));
    echo(&mut front.start(0), b"by descriptor");
}

#[test]
fn features_that_were_not_offered_are_refused() {
    // N14
    let front = Front::new(Echo::new());
    for bit in [0, 34, 63] {
        front.refused(&R::SetFeatures(FEATURES | 1 << bit), &[]);
    }
    front.tell(&R::SetFeatures(front.offered.0));
}

#[test]
fn an_owner_who_resets_keeps_everything() {
    // N16
    let front = Front::new(Echo::new());
    let mut driver = front.start(0);
    front.tell(&R::ResetOwner);
    echo(&mut driver, b"still there");
}

#[test]
fn malformed_payloads_and_surplus_descriptors_are_refused() {
    // H9, M2, M8, A2
    let front = Front::new(Echo::new());
    let null = File::open("/dev/null").unwrap();
    // Two have replies of their own, whatever is in them.
    for request in (2..46).filter(|request| ![24, 26].contains(request)) {
        let long = Message::new(request, vec![0xff; 200]);
        assert_ne!(front.ack_message(&long, &[null.as_fd(); 8]), 0, "{request}");
    }
    for count in [2, 3] {
        front.refused(&R::AddMemReg(front.region()), &vec![null.as_fd(); count]);
        front.refused(&R::RemMemReg(front.region()), &vec![null.as_fd(); count]);
    }
    front.refused(&R::SetOwner, &[null.as_fd()]);
    front.refused(&R::SetMemTable(vec![front.region(); 2]), &[null.as_fd()]);
}

#[test]
fn a_request_that_waits_for_its_own_reply_is_not_left_waiting() {
    // R15, C2
    let ring = VringState { index: QUEUES as u32, num: 0 };
    let front = Front::new(Echo::new());
    front.ends_it(&R::GetVringBase(ring).message().with_need_reply(), &[]);
    let front = Front::new(Echo::new());
    let beyond = Config { offset: 100, data: vec![0; 4], flags: Default::default() };
    assert!(front.ask(&R::GetConfig(beyond)).is_empty());
    // Not even a header of its own.
    front.connection.send(&Message::new(24, vec![0; 3]), &[]).unwrap();
    assert!(front.reply_to(24).0.is_empty());
}
