//! A network device over a socket, on a TAP interface of a host that answers.

use std::env;
use std::process::Command;

use parador_devices::net::tap::Tap;
use parador_devices::net::{Mac, Net, NetOptions};
use parador_vhost_user::frontend::{Remote, RemoteOptions};
use parador_virtio::ids::VIRTIO_ID_NET;
use parador_virtio::testing::{Harness, PATIENCE};

use crate::served::{Served, drive, options};

/// Set in the process that has a network of its own.
const ALONE: &str = "PARADOR_TEST_ALONE";
const HOST: [u8; 4] = [192, 0, 2, 1];
const BACK_END: Mac = [2, 0, 0, 0, 0, 1];
const MACHINE: Mac = [2, 0, 0, 0, 0, 2];
const HEADER: usize = 12;

#[test]
fn the_host_answers_a_driver_whatever_its_address() {
    if Tap::open("answers%d", 1).is_err() {
        eprintln!("skipped: this machine gives no TAP");
        return;
    }
    if env::var_os(ALONE).is_none() {
        let name = "net::the_host_answers_a_driver_whatever_its_address";
        let mut command = Command::new("unshare");
        command.arg("--net").arg(env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]);
        assert!(command.env(ALONE, "").status().unwrap().success());
        return;
    }
    let tap = Tap::open("answers", 1).unwrap();
    ip("addr add 192.0.2.1/24 dev answers");
    ip("link set answers up");
    let served = Served::new(Net::new(NetOptions { taps: tap, mac: BACK_END, mtu: None }).unwrap());
    for (mac, spare_mac, expected) in
        [(None, Some(MACHINE), BACK_END), (Some(MACHINE), None, MACHINE), (Some(BACK_END), None, BACK_END)]
    {
        let options = RemoteOptions { mac, spare_mac, ..options(VIRTIO_ID_NET, served.path()) };
        let mut harness = drive(Box::new(Remote::connect(options).unwrap()));
        let own: Mac = harness.config(0, 6).try_into().unwrap();
        assert_eq!(own, expected);
        listen(&mut harness);
        let answer = ask(&mut harness, own);
        // A reply to us, of the host.
        assert_eq!((&answer[..6], &answer[20..22], &answer[28..32]), (&own[..], &[0, 2][..], &HOST[..]));
    }
}

fn ip(words: &str) {
    assert!(Command::new("ip").args(words.split(' ')).status().unwrap().success());
}

/// Says, as Linux does, that frames for anybody else are not wanted.
fn listen(harness: &mut Harness) {
    for command in [&[0, 0, 0][..], &[0, 1, 0], &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
        // Refused or not: a device without filter takes everything.
        harness.request(2, &[&command[..2], &command[2..]], &[1]);
    }
}

/// Asks who has the host's address, and waits for the answer.
fn ask(harness: &mut Harness, own: Mac) -> Vec<u8> {
    for _ in 0..64 {
        harness.driver(0).add(&[], &[1526]).unwrap();
    }
    harness.driver(0).kick();
    let sender = [192, 0, 2, 2];
    let [broadcast, nobody] = [[0xff; 6], [0; 6]];
    let kind = [8, 6, 0, 1, 8, 0, 6, 4, 0, 1]; // ARP: an Ethernet address for one of IPv4 is asked for
    let frame = [&broadcast[..], &own, &kind, &own, &sender, &nobody, &HOST].concat();
    harness.request(1, &[&[0; HEADER], &frame], &[]);
    loop {
        let got = harness.driver(0).wait_used(PATIENCE).expect("the host answers");
        let frame = &got.data[HEADER..got.written as usize];
        if frame[12..14] == [8, 6] {
            return frame.to_vec();
        }
    }
}
