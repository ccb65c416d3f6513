//! Requests in flight, from one process to the next.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use parador_vhost_user::message::{FrontendRequest as R, Inflight, Payload, VringState};
use parador_virtio::testing::{PATIENCE, seeds};

use crate::device::Echo;
use crate::front::{Front, echo, memfd};

const WANTED: Inflight = Inflight { mmap_size: 0, mmap_offset: 0, queues: 4, queue_size: 128 };

fn region(front: &Front) -> (Inflight, File) {
    front.send(&R::GetInflightFd(WANTED));
    let (payload, mut fds) = front.reply_to(31);
    assert_eq!(fds.len(), 1);
    (Inflight::parse(&payload).unwrap(), File::from(fds.remove(0)))
}

fn bytes(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_region_is_zeroes_of_a_size_that_stays() {
    // I1
    let front = Front::new(Echo::new());
    let (inflight, file) = region(&front);
    assert_eq!(inflight, Inflight { mmap_size: 4 * 2112, ..WANTED });
    assert_eq!(bytes(&file), vec![0; 4 * 2112]);
    assert!(file.set_len(0).is_err() && file.set_len(1 << 20).is_err());
    for bad in [
        Inflight { queues: 0, ..WANTED },
        Inflight { queue_size: 0, ..WANTED },
        Inflight { queue_size: 32769, ..WANTED },
    ] {
        Front::new(Echo::new()).ends_it(&R::GetInflightFd(bad).message(), &[]);
    }
}

#[test]
fn requests_of_a_process_that_died_are_done_once_by_the_next() {
    // I3, I5, I6, R5
    for first in [true, false] {
        let front = Front::new(Echo::new());
        let (inflight, file) = region(&front);
        front.tell_with(&R::SetInflightFd(inflight), &[file.as_fd()]);
        let mut driver = front.start(0);
        echo(&mut driver, b"done");
        front.seen.hold.store(true, Ordering::SeqCst);
        let heads: Vec<u16> = (0..5u8).map(|at| driver.add(&[&[at]], &[1]).unwrap()).collect();
        driver.kick();
        front.wait_taken(6);
        // As all memory is when somebody kills it now.
        let (ram, then) = (bytes(&front.file), bytes(&file));
        let memory = (front.file.try_clone().unwrap(), front.arena.clone());
        front.hang_up().unwrap();
        memory.0.write_all_at(&ram, 0).unwrap();
        file.write_all_at(&then, 0).unwrap();

        let front = Front::after(Echo::new(), memory);
        if first {
            front.tell_with(&R::SetInflightFd(inflight), &[file.as_fd()]);
        }
        front.set_ring(0, &driver);
        if !first {
            front.tell_with(&R::SetInflightFd(inflight), &[file.as_fd()]);
        }
        front.enable(0, true);
        for (at, head) in (0..5u8).zip(heads) {
            let used = driver.wait_used(PATIENCE).expect("it is done");
            assert_eq!((used.head, used.data), (head, vec![at]), "in the order they were taken in");
        }
        echo(&mut driver, b"and on");
        assert_eq!(front.base(0), 7);
    }
}

#[test]
fn a_ring_that_stops_at_once_leaves_its_requests_behind() {
    // R27
    let front = Front::new(Echo::new());
    let (inflight, file) = region(&front);
    front.tell_with(&R::SetInflightFd(inflight), &[file.as_fd()]);
    let mut driver = front.start(0);
    front.seen.hold.store(true, Ordering::SeqCst);
    let heads: Vec<u16> = (0..3u8).map(|at| driver.add(&[&[at]], &[1]).unwrap()).collect();
    driver.kick();
    front.wait_taken(3);
    let reply = front.ask(&R::GetVringBaseSkipDrain(VringState { index: 0, num: 0 }));
    assert_eq!(VringState::parse(&reply).unwrap(), VringState { index: 0, num: 3 });
    assert!(driver.take_used().is_none(), "nothing is complete");
    let written = bytes(&file);
    let in_flight = heads.iter().filter(|head| written[16 + 16 * usize::from(**head)] == 1).count();
    assert_eq!(in_flight, 3);
    front.seen.hold.store(false, Ordering::SeqCst);
    front.set_kick(0, &driver);
    for (at, head) in (0..3u8).zip(heads) {
        let used = driver.wait_used(PATIENCE).expect("it is done");
        assert_eq!((used.head, used.data), (head, vec![at]));
    }
}

#[test]
fn a_ring_without_a_region_completes_its_requests_even_when_it_stops_at_once() {
    // R27
    let front = Front::new(Echo::new());
    let mut driver = front.start(0);
    front.seen.hold.store(true, Ordering::SeqCst);
    driver.add(&[b"kept"], &[4]);
    driver.kick();
    front.wait_taken(1);
    front.ask(&R::GetVringBaseSkipDrain(VringState { index: 0, num: 0 }));
    assert_eq!(driver.take_used().expect("complete").data, b"kept");
}

#[test]
fn hostile_regions_are_refused_or_taken_and_never_worse() {
    // I7
    let len = Inflight { mmap_size: 4 * 2112, ..WANTED };
    let front = Front::new(Echo::new());
    let small = memfd(100);
    for bad in [
        len,
        Inflight { mmap_size: 100, ..len },
        Inflight { mmap_size: 0, ..len },
        Inflight { mmap_offset: u64::MAX, ..len },
        Inflight { queue_size: u16::MAX, queues: u16::MAX, ..len },
    ] {
        front.refused(&R::SetInflightFd(bad), &[small.as_fd()]);
    }
    for seed in seeds(200, 4 * 2112) {
        let file = memfd(4 * 2112);
        file.write_all_at(&seed, 0).unwrap();
        if seed.len() > 16 {
            // Half of them are of a version that there is.
            file.write_all_at(&[1, 0, 128, 0][..usize::from(seed[0] % 2) * 4], 8).unwrap();
        }
        front.tell_with(&R::SetInflightFd(len), &[file.as_fd()]);
        let driver = front.driver();
        let request = R::SetVringNum(VringState { index: 0, num: 64 });
        front.tell(&request);
        front.tell(&R::SetVringAddr(front.address(0, &driver)));
        front.enable(0, true);
        let kick = driver.setup(0, driver.state()).kick.unwrap();
        let ring = parador_vhost_user::message::VringFd { index: 0, has_fd: true };
        front.ack(&R::SetVringKick(ring), &[crate::borrow::borrow(&kick)]);
        front.base(0);
    }
}
