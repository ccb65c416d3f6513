//! `parador device` as whoever starts a vhost-user back-end meets it: QEMU's conventions for such
//! programs, service managers, and people.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::machine::{signal, wait};
use crate::{Ended, Place};

fn disk() -> Place {
    let place = Place::new();
    File::create(place.path("d.img")).unwrap().set_len(1 << 20).unwrap();
    place
}

const BLK: &[&str] = &["device", "blk", "-o", "path=d.img", "--socket-path", "s"];

/// Asks the back-end at `path` for its features, as the first thing a front-end does.
pub(crate) fn features(mut stream: &UnixStream) -> u64 {
    // GET_FEATURES, version 1, no payload.
    stream.write_all(&[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    let mut answer = [0; 20];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..12], [1, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0]);
    let [.., a, b, c, d, e, f, g, h] = answer;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Connects as soon as somebody listens.
pub(crate) fn connect(path: &Path) -> UnixStream {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return stream,
            Err(e) => assert!(Instant::now() < deadline, "nobody listens: {e}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What `child` said on standard error, once it has ended.
fn said(child: &mut Child) -> String {
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn capabilities_are_json_whatever_else_is_asked_for() {
    let place = Place::new();
    for (arguments, expected) in [
        (&["blk"][..], r#"{"type":"block","features":["read-only","blk-file"]}"#),
        (&["net", "--fd=3", "--what", "-k", "x"], r#"{"type":"net"}"#),
        (&["rng"], r#"{"type":"rng"}"#),
        (&["console"], r#"{"type":"console"}"#),
        (&["vsock"], r#"{"type":"vsock"}"#),
        (&["balloon"], r#"{"type":"balloon"}"#),
    ] {
        let ended = place.run(&[&["device"], arguments, &["--print-capabilities"]].concat());
        let expected = Ended { status: Some(0), stdout: format!("{expected}\n"), stderr: String::new() };
        assert_eq!(ended, expected);
    }
}

#[test]
fn one_front_end_is_served_after_the_other_until_sigterm() {
    let place = disk();
    for name in ["TERM", "INT"] {
        let mut child = place.command(BLK).stderr(Stdio::piped()).spawn().unwrap();
        for _ in 0..2 {
            let stream = connect(&place.path("s"));
            assert_ne!(features(&stream) & 1 << 30, 0, "PROTOCOL_FEATURES");
        }
        let last = connect(&place.path("s"));
        features(&last);
        signal(&child, name);
        assert_eq!(wait(&mut child), Some(0), "SIG{name}");
        assert!(!place.path("s").exists(), "the socket goes with the process");
        let said = said(&mut child);
        assert_eq!(said.matches("a front-end is there").count(), 3, "{said}");
        assert_eq!(said.matches("the front-end is gone").count(), 3, "{said}");
    }
}

#[test]
fn only_a_socket_that_nobody_listens_at_is_replaced() {
    let place = disk();
    let held = UnixListener::bind(place.path("s")).unwrap();
    place.run(BLK).refused(1, "device_socket_in_use");
    drop(held);
    let mut child = place.command(BLK).spawn().unwrap();
    features(&connect(&place.path("s")));
    signal(&child, "TERM");
    assert_eq!(wait(&mut child), Some(0));
    std::fs::write(place.path("s"), "precious").unwrap();
    assert_eq!(place.run(BLK).status, Some(1));
    assert_eq!(std::fs::read(place.path("s")).unwrap(), b"precious");
}

/// The command as a service manager starts it, with `socket` at descriptor 3.
fn activated(place: &Place, socket: OwnedFd, arguments: &str) -> Command {
    let mut shell = Command::new("sh");
    let line = format!("exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" {arguments}");
    shell.args(["-c", &line, env!("CARGO_BIN_EXE_parador")]).current_dir(&place.0).stdin(socket);
    shell
}

#[test]
fn a_socket_that_is_inherited_is_listening_or_connected() {
    let place = disk();
    let listener = UnixListener::bind(place.path("s")).unwrap();
    let with = |socket: OwnedFd| {
        let mut command = place.command(&["device", "blk", "--blk-file=d.img", "--read-only", "--fd=0"]);
        command.stdin(socket).stderr(Stdio::piped());
        command
    };
    let mut child = with(listener.into()).spawn().unwrap();
    for _ in 0..2 {
        assert_ne!(features(&connect(&place.path("s"))) & 1 << 5, 0, "RO");
    }
    signal(&child, "TERM");
    assert_eq!(wait(&mut child), Some(0));
    assert!(place.path("s").exists(), "it is somebody else's");

    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut child = with(theirs.into()).spawn().unwrap();
    features(&ours);
    drop(ours);
    assert_eq!(wait(&mut child), Some(0), "there will be no other one");

    let file = File::open(place.path("d.img")).unwrap();
    Ended::of(&with(file.into()).output().unwrap()).refused(1, "device_fd_is_a_file");
    let datagrams = UnixDatagram::unbound().unwrap();
    Ended::of(&with(datagrams.into()).output().unwrap()).refused(1, "device_fd_is_of_datagrams");
    place.run(&["device", "rng", "--fd", "77"]).refused(1, "device_fd_missing");
}

#[test]
fn a_service_manager_gives_the_socket_and_is_told() {
    let place = disk();
    let manager = UnixDatagram::bind(place.path("notify")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let told = || {
        let mut text = [0; 64];
        let count = manager.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..count]).into_owned()
    };
    let listener = UnixListener::bind(place.path("s")).unwrap();
    let mut command = activated(&place, listener.into(), "device blk -o path=d.img");
    let mut child = command.env("NOTIFY_SOCKET", place.path("notify")).spawn().unwrap();
    assert_eq!(told(), "READY=1");
    features(&connect(&place.path("s")));
    signal(&child, "TERM");
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(wait(&mut child), Some(0));
}

#[test]
fn what_cannot_be_is_said_at_once() {
    let place = disk();
    place.run(&["device"]).refused(2, "device_without_model");
    place.run(&["device", "floppy"]).refused(2, "device_of_no_model");
    place.run(&["device", "blk", "--fd=3", "--socket-path=s"]).refused(2, "device_two_sockets");
    place.run(&["device", "rng", "--read-only"]).refused(2, "device_read_only");
    place.run(&["device", "blk", "-o", "model=virtio-net"]).refused(2, "device_model_key");
    let keys = ["device", "blk", "-o", "pth=d.img", "-o", "addr=0:3.0", "-o", "ser=%(.nme)"];
    place.run(&keys).refused(2, "device_keys");
    place.run(&["device", "net"]).refused(2, "device_net");
    place.run(&["device", "rng"]).refused(1, "device_without_socket");
    let missing = ["device", "blk", "--blk-file=missing.img", "--socket-path=s"];
    place.run(&missing).refused(1, "device_without_image");
    place.run(&["device", "rng", "--socket-path=no/such/s"]).refused(1, "device_socket_folder");
    assert!(!place.path("s").exists(), "nothing is left behind");
}

#[test]
fn a_disk_is_one_back_ends_at_a_time() {
    let place = disk();
    let mut first = place.command(BLK).spawn().unwrap();
    connect(&place.path("s"));
    let second = ["device", "blk", "-o", "path=d.img", "--socket-path", "t"];
    place.run(&second).refused(1, "device_disk_is_locked");
    signal(&first, "TERM");
    assert_eq!(wait(&mut first), Some(0));
}

#[test]
fn keys_are_read_and_printed_as_those_of_a_machine() {
    let place = Place::new().with("d.conf", "var.dir=/vm\npath=%(var.dir)/d.img\n");
    let ended = place.run(&["device", "blk", "-k", "d.conf", "-o", "ro=1", "--dump"]);
    let expected = "path=%(var.dir)/d.img\nro=1\nvar.dir=/vm\n";
    assert_eq!((ended.status, ended.stdout.as_str()), (Some(0), expected), "{}", ended.stderr);
}

/// Types that a descriptor may have (QEMU's docs/interop/vhost-user.json).
const TYPES: &[&str] = &[
    "9p",
    "balloon",
    "block",
    "caif",
    "console",
    "crypto",
    "gpu",
    "input",
    "net",
    "rng",
    "rpmsg",
    "rproc-serial",
    "scsi",
    "vsock",
    "fs",
];

#[test]
fn descriptors_name_programs_that_are_what_they_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/vhost-user");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.extension() == Some("json".as_ref())).collect();
    assert_eq!(files.len(), 6);
    let place = Place::new();
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let digits = name.bytes().take_while(u8::is_ascii_digit).count();
        assert!(digits == 2 && name[2..].starts_with("-parador-"), "{name}");
        let text = std::fs::read_to_string(&file).unwrap();
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        let fields: Vec<_> = object.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["description", "type", "binary"], "{name}");
        assert!(TYPES.contains(&object["type"].as_str().unwrap()), "{name}");
        assert!(!object["description"].as_str().unwrap().is_empty(), "{name}");
        // The program is a link to the command, and takes no arguments but the conventional ones.
        let binary = Path::new(object["binary"].as_str().unwrap());
        assert!(binary.is_absolute(), "{name}");
        let link = place.path(binary.file_name().unwrap().to_str().unwrap());
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_parador"), &link).unwrap();
        let said = Command::new(&link).args(["--print-capabilities", "--fd=3"]).output().unwrap();
        let said: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
        assert_eq!(said["type"], object["type"], "{name}");
    }
}
