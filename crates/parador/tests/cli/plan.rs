//! `--dry-run`: what would be done, with nothing done.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::payload::Code;
use crate::{Ended, Place};

const KEYS: &str = "name=web\nboot.kernel=guest\ndevice.disk0.model=virtio-blk\ndevice.disk0.path=d.img\n\
                    device.net0.model=virtio-net\ndevice.net0.tap.bridge=br0\ndevice.net0.mac=02:00:00:00:00:01\n\
                    console=unix:com1\n";

#[test]
fn nothing_is_touched() {
    let place = Place::new().with("vm.conf", KEYS);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "trace", "-e", "trace=%file,%network,%process,ioctl,write"]);
    strace.args([env!("CARGO_BIN_EXE_parador"), "run", "--dry-run", "vm.conf"]).current_dir(&place.0);
    let output = match strace.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(e) => {
            eprintln!("skipped: no strace: {e}");
            return;
        }
    };
    if !place.path("trace").exists() {
        eprintln!("skipped: {}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let ended = Ended::of(&output);
    // There is no kernel, no image, no bridge: it is a plan.
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""));
    for line in [
        "  0:2.0   net0     virtio-net      02:00:00:00:00:01 on web-net0, 1 queue pair",
        "  6      rw  d.img, locked against others",
        "  7      rw  /dev/net/tun, as web-net0",
        "  web-net0  TAP, used if it is there, or made and gone with the machine, joins bridge br0",
        "  socket com1, one client after the other",
        "  parador vmm --config-fd 3",
        "  device.net0.fd=7",
    ] {
        assert!(ended.stdout.lines().any(|said| said == line), "{line} is not in\n{}", ended.stdout);
    }
    let trace = std::fs::read_to_string(place.path("trace")).unwrap();
    assert!(trace.contains("vm.conf"), "{trace}");
    for (number, call) in trace.lines().enumerate() {
        let call = call.split_once(' ').map_or(call, |(_, call)| call.trim_start());
        let changes = ["O_RDWR", "O_WRONLY", "O_CREAT", "TUNSET", "/dev/kvm", "d.img", "com1", "guest"];
        let reads =
            ["openat(", "read", "access(", "newfstatat(", "stat", "exit", "ioctl(", "write(1,", "+++"];
        let known =
            reads.iter().any(|known| call.starts_with(known)) || (number == 0 && call.starts_with("execve("));
        let write = call.starts_with("write(1,");
        assert!(known && (write || !changes.iter().any(|word| call.contains(word))), "{call}");
    }
    let names: Vec<_> =
        std::fs::read_dir(&place.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn a_host_is_asked_whether_it_can() {
    let place = Place::new().with("guest", Code::default().power_off().elf()).with(
        "vm.conf",
        "boot.kernel=guest\nboot.initrd=no-initrd\ndevice.d.model=virtio-blk\ndevice.d.path=d.img\n\
         device.n.model=virtio-net\ndevice.n.tap.bridge=no-bridge\n",
    );
    File::create(place.path("d.img")).unwrap().set_len(1 << 20).unwrap();
    let ended = place.run(&["run", "--dry-run=host", "vm.conf"]);
    assert_eq!(ended.status, Some(1));
    let (_, host) = ended.stdout.split_once("this host:\n").unwrap();
    for line in [
        "  ok       guest can be read",
        "  problem  no-initrd can be read",
        "  ok       d.img opens and is nobody else's",
        "  problem  interface parador-n can be had",
    ] {
        assert!(host.lines().any(|said| said == line), "{line} is not in\n{host}");
    }
    assert!(ended.stderr.contains("--> vm.conf:2:13\n"), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("error: there is no bridge no-bridge\n  --> vm.conf:6:21\n"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_machine_is_found_by_its_name() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("config/parador")).unwrap();
    std::fs::write(place.path("config/parador/web.toml"), "kernel = \"/boot/vmlinuz\"\ncpus = 3\n").unwrap();
    let run = |name: &str| {
        let mut command = place.command(&["run", "--dry-run", name]);
        Ended::of(&command.env("XDG_CONFIG_HOME", place.path("config")).output().unwrap())
    };
    let found = run("web");
    assert_eq!((found.status, found.stderr.as_str()), (Some(0), ""));
    assert!(found.stdout.contains("  processors  3 ("), "{}", found.stdout);
    run("www").refused(2, "no_such_machine");
    // A file of that name is closer.
    std::fs::write(place.path("web"), "boot.kernel=k\ncpus=2\n").unwrap();
    assert!(run("web").stdout.contains("  processors  2 ("));
}
