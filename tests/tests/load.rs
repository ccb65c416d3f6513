//! The program that `cargo xtask bench` loads disks with does what it is asked: a figure is of requests that
//! were done.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[expect(dead_code, reason = "what only the program itself needs")]
#[path = "../../crates/vhost-user/examples/load/main.rs"]
mod load;

use std::fs::File;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;

use load::Task;
use parador_block::zoned::image::Metadata;
use parador_block::zoned::{Condition, Geometry, Zone};
use parador_block::{Image, RawOptions};
use parador_devices::blk::{Blk, BlkOptions};
use parador_vhost_user::server::Server;
use parador_virtio::EventFd;

const BLOCK: u64 = 4096;
/// Blocks in a zone, and zones.
const ZONE: u64 = 64;
const ZONES: u64 = 8;

/// Serves `image` to whoever asks for `ask`: the number of requests of each.
fn served(folder: &Path, image: &Image, asked: &[&str]) -> Vec<u64> {
    let device = Box::new(Blk::new(BlkOptions::new(image.clone())).unwrap());
    let socket = folder.join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let stop = EventFd::new(0).unwrap();
    let fired = stop.try_clone().unwrap();
    let server = thread::spawn(move || Server::new(device).accept(&listener, &fired));
    let run = |words: &&str| {
        let words: Vec<&str> = std::iter::once(socket.to_str().unwrap()).chain(words.split(' ')).collect();
        Task::parse(&words).unwrap().run().unwrap().0.requests
    };
    let requests = asked.iter().map(run).collect();
    stop.write(1).unwrap();
    server.join().unwrap().unwrap();
    std::fs::remove_file(&socket).unwrap();
    requests
}

fn report(image: &Image) -> Vec<Zone> {
    let none = Zone { start: 0, capacity: 0, condition: Condition::Empty, write_pointer: None };
    let mut zones = vec![none; ZONES as usize];
    image.zoned().unwrap().report(0, &mut zones).unwrap();
    zones
}

#[test]
fn zones_are_filled_in_turn_and_emptied_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let geometry = Geometry::new(ZONES * ZONE * BLOCK, ZONE * BLOCK).checked().unwrap();
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    file.set_len(Metadata::create(&file, geometry, [1; 16]).unwrap()).unwrap();
    let image = Image::open_zoned(&RawOptions::new(&path)).unwrap();
    let full = |image: &Image| {
        let zones = report(image);
        zones.iter().map(|zone| zone.condition == Condition::Full).collect::<Vec<_>>()
    };
    // They end when zones are full, long before their time is over.
    let done = served(folder.path(), &image, &["append 32 1 600000 zone=64 settled=yes"]);
    assert_eq!((&done[..], full(&image).iter().filter(|full| **full).count()), (&[ZONE][..], 1));
    let asked = ["sequence 8 1 600000 zone=64 streams=3 empty=zones flush=1", "read 32 1 1 zone=64"];
    let done = served(folder.path(), &image, &asked);
    assert_eq!(done[0], 3 * ZONE);
    assert_eq!(full(&image), (0..ZONES).map(|zone| zone < 3).collect::<Vec<_>>());
}

#[test]
fn a_raw_disk_is_emptied_and_written_likewise() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    File::create(&path).unwrap().set_len(ZONES * ZONE * BLOCK).unwrap();
    std::fs::write(&path, vec![1; (ZONES * ZONE * BLOCK) as usize]).unwrap();
    let image = Image::open(&RawOptions::new(&path)).unwrap();
    let done = served(
        folder.path(),
        &image,
        &["sequence 32 1 600000 zone=64 streams=4 empty=ranges flush=7 settled=yes", "write 4 1 1"],
    );
    assert_eq!(done[0], 4 * ZONE);
    let empty = std::fs::read(&path).unwrap()[(4 * ZONE * BLOCK) as usize..]
        .iter()
        .filter(|byte| **byte == 0)
        .count();
    assert_eq!(empty as u64, 4 * ZONE * BLOCK);
}

#[test]
fn what_cannot_be_done_is_not_begun() {
    for words in
        ["a.sock", "a.sock sequence 1 1 1", "a.sock append 1 2 1 zone=8", "--file f append 1 1 1 zone=8"]
    {
        let words: Vec<&str> = words.split(' ').collect();
        assert!(Task::parse(&words).is_err(), "{words:?}");
    }
}
