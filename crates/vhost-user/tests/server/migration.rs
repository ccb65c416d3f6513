//! The log of dirty pages, and the device's own state.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::thread;

use parador_vhost_user::message::{
    Config, ConfigFlags, DeviceStateTransfer, F_LOG_ALL, FrontendRequest as R, Log, LogBase, Payload,
    StateDirection, VringAddr,
};
use parador_virtio::testing::{Driver, PATIENCE};

use crate::device::Echo;
use crate::front::{FEATURES, Front, MEMORY_LEN, echo, memfd};

const PAGE: usize = 4096;
/// Bytes of a log for all of memory.
const LOG_LEN: u64 = (MEMORY_LEN / PAGE / 8) as u64;
/// Where it is in its file.
const LOG_AT: u64 = PAGE as u64;

fn set_log(front: &Front, file: &File, size: u64) {
    let log = R::SetLogBase(LogBase::Shared(Log { size, offset: LOG_AT }));
    // L1: a reply as long as the request, for those who wait for that much.
    front.connection.send(&log.message(), &[file.as_fd()]).unwrap();
    assert_eq!(front.reply_to(6).0.len(), 16);
}

fn bytes(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Pages whose bits are set in a log.
fn logged(file: &File) -> BTreeSet<usize> {
    let bytes = bytes(file);
    assert!(bytes[..LOG_AT as usize].iter().all(|byte| *byte == 0), "nothing before the log");
    let log = &bytes[LOG_AT as usize..];
    (0..log.len() * 8).filter(|page| log[page / 8] & 1 << (page % 8) != 0).collect()
}

/// Sends a request with an answer of several pages, and says which pages the device changed.
fn changed(front: &Front, driver: &mut Driver) -> BTreeSet<usize> {
    let words = vec![7; 3 * PAGE];
    front.seen.hold.store(true, Ordering::SeqCst);
    let taken = front.seen.chains.load(Ordering::SeqCst);
    driver.add(&[&words], &[words.len()]).unwrap();
    driver.kick();
    front.wait_taken(taken + 1);
    let before = bytes(&front.file);
    front.seen.release();
    assert_eq!(driver.wait_used(PATIENCE).expect("an answer").data, words);
    let after = bytes(&front.file);
    let pages = before.chunks(PAGE).zip(after.chunks(PAGE)).enumerate();
    pages.filter(|(_, (before, after))| before != after).map(|(page, _)| page).collect()
}

/// A ring in pages of its own.
fn ring_apart(front: &Front) -> Driver {
    let driver = front.start(0);
    let end = driver.layout().used + 4096;
    while front.arena.alloc(1, 1) < end {}
    driver
}

#[test]
fn every_page_that_is_written_is_logged_while_all_is_to_be() {
    // L2, L4, L5, L6, N12
    let front = Front::new(Echo::new());
    let mut driver = ring_apart(&front);
    let ring = (driver.layout().used as usize) / PAGE;
    let log = memfd(LOG_AT + LOG_LEN);
    front.tell(&R::SetFeatures(FEATURES | F_LOG_ALL));
    echo(&mut driver, b"without a log");
    front.tell(&R::SetFeatures(FEATURES));
    set_log(&front, &log, LOG_LEN);
    changed(&front, &mut driver);
    assert_eq!(logged(&log), BTreeSet::new(), "not yet");
    front.tell(&R::SetFeatures(FEATURES | F_LOG_ALL));
    let mut expected = changed(&front, &mut driver);
    assert!(expected.remove(&ring) && expected.len() >= 3);
    assert_eq!(logged(&log), expected, "buffers, and not the ring");
    front.tell(&R::SetFeatures(FEATURES));
    log.write_all_at(&[0; LOG_LEN as usize], LOG_AT).unwrap();
    changed(&front, &mut driver);
    assert_eq!(logged(&log), BTreeSet::new(), "not any more");
}

#[test]
fn the_used_ring_is_logged_where_its_address_says() {
    // L3
    let front = Front::new(Echo::new());
    let mut driver = ring_apart(&front);
    let log = memfd(LOG_AT + LOG_LEN);
    set_log(&front, &log, LOG_LEN);
    front.tell(&R::SetFeatures(FEATURES | F_LOG_ALL));
    let address = VringAddr { flags: 1, log: 1000 * PAGE as u64, ..front.address(0, &driver) };
    front.tell(&R::SetVringAddr(address));
    let mut expected = changed(&front, &mut driver);
    expected.remove(&(driver.layout().used as usize / PAGE));
    expected.insert(1000);
    assert_eq!(logged(&log), expected);
}

#[test]
fn a_log_is_exchanged_for_another_one() {
    // L7
    let front = Front::new(Echo::new());
    let mut driver = front.start(0);
    let [first, second] = [memfd(LOG_AT + LOG_LEN), memfd(LOG_AT + LOG_LEN)];
    set_log(&front, &first, LOG_LEN);
    front.tell(&R::SetFeatures(FEATURES | F_LOG_ALL));
    changed(&front, &mut driver);
    let before = logged(&first);
    set_log(&front, &second, LOG_LEN);
    let eventfd = driver.setup(0, driver.state()).kick.unwrap();
    front.tell_with(&R::SetLogFd, &[crate::borrow::borrow(&eventfd)]);
    first.write_all_at(&[0; LOG_LEN as usize], LOG_AT).unwrap();
    changed(&front, &mut driver);
    assert_eq!((logged(&first), logged(&second)), (BTreeSet::new(), before));
}

#[test]
fn nothing_is_written_beyond_a_log_that_is_too_short() {
    // L6
    let front = Front::new(Echo::new());
    let mut driver = ring_apart(&front);
    let log = memfd(LOG_AT + LOG_LEN);
    set_log(&front, &log, 1);
    front.tell(&R::SetFeatures(FEATURES | F_LOG_ALL));
    let _far = front.arena.alloc(100 * PAGE as u64, 1);
    changed(&front, &mut driver);
    assert!(logged(&log).iter().all(|page| *page < 8));
}

#[test]
fn logs_that_cannot_be_end_the_session() {
    // L1, L6: a reply would be taken for a yes.
    let log = |size, offset| R::SetLogBase(LogBase::Shared(Log { size, offset })).message();
    for bad in [log(LOG_LEN + 1, 0), log(0, 0), log(u64::MAX, 4096), log(8, u64::MAX - 7)] {
        Front::new(Echo::new()).ends_it(&bad, &[memfd(LOG_LEN).as_fd()]);
    }
    Front::new(Echo::new()).ends_it(&log(8, 0), &[]);
    Front::new(Echo::new()).ends_it(&R::SetLogBase(LogBase::Address(4096)).message(), &[]);
}

fn transfer(front: &Front, direction: StateDirection, fd: BorrowedFd<'_>) -> u64 {
    let request = R::SetDeviceStateFd(DeviceStateTransfer { direction, phase: 0 });
    front.connection.send(&request.message(), &[fd]).unwrap();
    let (payload, fds) = front.reply_to(42);
    assert!(fds.is_empty());
    u64::parse(&payload).unwrap()
}

/// No error, and no descriptor.
const FINE: u64 = 1 << 8;

fn write_config(front: &Front, data: [u8; 4]) {
    let flags = ConfigFlags::Writable;
    front.tell(&R::SetConfig(Config { offset: 0, flags, data: data.into() }));
}

#[test]
fn a_state_is_saved_in_one_session_and_loaded_in_another() {
    // L9, L10, L12
    let state_len = 1 << 20;
    let echo_of = || Echo { state_len, ..Echo::new() };
    let front = Front::new(echo_of());
    write_config(&front, [9, 8, 7, 6]);
    // QEMU sets the status to zero before it asks.
    front.tell(&R::SetStatus(0));
    let (mut reader, writer) = pipe().unwrap();
    assert_eq!(transfer(&front, StateDirection::Save, writer.as_fd()), FINE);
    drop(writer);
    // More than a pipe holds: nobody waits for who reads it.
    front.number(&R::GetFeatures);
    let mut state = Vec::new();
    reader.read_to_end(&mut state).unwrap();
    assert_eq!((state.len(), &state[..4]), (state_len, &[9, 8, 7, 6][..]));
    assert_eq!(front.number(&R::CheckDeviceState), 0);
    front.hang_up().unwrap();

    let front = Front::new(echo_of());
    let (reader, mut writer) = pipe().unwrap();
    assert_eq!(transfer(&front, StateDirection::Load, reader.as_fd()), FINE);
    drop(reader);
    let writer = thread::spawn(move || writer.write_all(&state).unwrap());
    assert_eq!(front.number(&R::CheckDeviceState), 0, "it waits for the end of it");
    writer.join().unwrap();
    let asked = Config { offset: 0, flags: ConfigFlags::Writable, data: vec![0; 4] };
    let reply = Config::parse(&front.ask(&R::GetConfig(asked))).unwrap();
    assert_eq!(reply.data, [9, 8, 7, 6]);
}

#[test]
fn a_state_that_does_not_come_through_is_told_of() {
    // L10, L12
    let front = Front::new(Echo::new());
    assert_ne!(front.number(&R::CheckDeviceState), 0, "there was none");
    let (reader, mut writer) = pipe().unwrap();
    assert_eq!(transfer(&front, StateDirection::Load, reader.as_fd()), FINE);
    writer.write_all(&[1, 2]).unwrap();
    drop(writer);
    assert_ne!(front.number(&R::CheckDeviceState), 0, "half of it is missing");
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    assert_eq!(transfer(&front, StateDirection::Save, writer.as_fd()), FINE);
    assert_ne!(front.number(&R::CheckDeviceState), 0, "nobody reads it");
    let _driver = front.start(0);
    let (_reader, writer) = pipe().unwrap();
    let reply = transfer(&front, StateDirection::Save, writer.as_fd());
    assert_ne!(reply & 0xff, 0, "the device is at work");
    assert_eq!(reply & FINE, FINE);
}
