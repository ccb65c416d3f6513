//! Devices that have processes of their own: started, started anew, and gone with the machine.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::machine::{kvm, place, read_until, signal, wait};
use crate::payload::Code;

const DISK: &str = "device.d.model=virtio-blk\ndevice.d.path=d.img\ndevice.d.isolation=process\n";

/// The processes that `child` has started whose second argument is `word`.
fn started(child: &Child, word: &str) -> Vec<u32> {
    let id = child.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    let is = |process: &u32| {
        let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(word.as_bytes())
    };
    children.split_whitespace().filter_map(|word| word.parse().ok()).filter(is).collect()
}

/// Waits until `found` finds something.
fn until<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match found() {
            Some(found) => return found,
            None => assert!(Instant::now() < deadline, "in vain"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn folders(runtime: &std::path::Path) -> Vec<PathBuf> {
    std::fs::read_dir(runtime).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_device_in_its_own_process_is_started_anew_and_ends_with_the_machine() {
    if !kvm() {
        return;
    }
    let place = place(Code::default().print("up\n"), DISK);
    File::create(place.path("d.img")).unwrap().set_len(1 << 20).unwrap();
    let runtime = tempfile::tempdir().unwrap();
    for end in ["INT", "KILL"] {
        let mut child = place
            .command(&["run", "vm.conf"])
            .env("XDG_RUNTIME_DIR", runtime.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        read_until(child.stdout.as_mut().unwrap(), "up\n");
        assert_eq!(folders(runtime.path()).len(), 1, "the socket is nobody else's");
        let mut device = started(&child, "device")[0];
        for _ in 0..2 {
            let killed = Command::new("kill").args(["-KILL", &device.to_string()]).status().unwrap();
            assert!(killed.success());
            let other = || started(&child, "device").into_iter().find(|process| *process != device);
            device = until(other);
        }
        assert_eq!(started(&child, "vmm").len(), 1, "the machine goes on");
        signal(&child, end);
        assert_eq!(wait(&mut child), if end == "INT" { Some(5) } else { None });
        until(|| (!PathBuf::from(format!("/proc/{device}/exe")).exists()).then_some(()));
        let left = folders(runtime.path());
        assert_eq!(left.is_empty(), end == "INT", "{left:?}");
    }
}

#[test]
fn a_device_that_cannot_be_is_said_where_it_was_written() {
    if !kvm() {
        return;
    }
    let place = place(Code::default().print("up\n"), DISK);
    place.run(&["run", "vm.conf"]).refused(1, "isolated_disk_missing");
    File::create(place.path("d.img")).unwrap();
    let ended = place.run(&["run", "vm.conf"]);
    assert_eq!(ended.status, Some(1));
    for said in ["error: disk image d.img is empty", "--> vm.conf:4:15", "the process of device `d` gave up"]
    {
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
}

#[test]
fn only_the_runner_starts_processes() {
    if !kvm() {
        return;
    }
    let place = place(Code::default().power_off(), DISK);
    place.run(&["vmm", "-k", "vm.conf"]).refused(1, "isolated_without_runner");
    let folder = "device.f.model=virtio-fs\ndevice.f.sharename=data\ndevice.f.path=/srv\n";
    let place = self::place(Code::default().power_off(), folder);
    place.run(&["vmm", "-k", "vm.conf"]).refused(1, "folder_without_runner");
    if !std::path::Path::new("/usr/libexec/virtiofsd").exists() {
        let mut command = place.command(&["run", "vm.conf"]);
        let ended = crate::Ended::of(&command.env("PATH", "/nowhere").output().unwrap());
        ended.refused(1, "no_virtiofsd");
    }
}

#[test]
fn a_machine_that_waits_for_a_back_end_says_so_and_can_be_ended() {
    if !kvm() {
        return;
    }
    let remote = "device.d.model=virtio-blk\ndevice.d.backend=vhost-user\ndevice.d.socket=nobody\n";
    let place = place(Code::default().print("up\n"), remote);
    let mut child = place.command(&["vmm", "-k", "vm.conf"]).stderr(Stdio::piped()).spawn().unwrap();
    read_until(child.stderr.as_mut().unwrap(), "waiting for a back-end");
    signal(&child, "TERM");
    assert_eq!(wait(&mut child), Some(5));
}
