//! Machines that run: how they end, and what a supervisor sees. They need a /dev/kvm that opens.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::payload::Code;
use crate::{Ended, Place};

/// Whether machines can run here; says so where they cannot.
pub(crate) fn kvm() -> bool {
    let opens = File::options().read(true).write(true).open("/dev/kvm");
    if let Err(e) = &opens {
        eprintln!("skipped: /dev/kvm does not open: {e}");
    }
    opens.is_ok()
}

pub(crate) fn place(code: Code, keys: &str) -> Place {
    Place::new()
        .with("guest", code.elf())
        .with("vm.conf", format!("boot.kernel=guest\nmemory.size=16M\n{keys}"))
}

const VMM: &[&str] = &["vmm", "-k", "vm.conf"];

#[test]
fn a_guest_prints_and_powers_off() {
    if !kvm() {
        return;
    }
    let place = place(Code::default().print("hello, host\n").power_off(), "");
    for arguments in [VMM, &["run", "vm.conf"]] {
        let ended = place.run(arguments);
        let expected = Ended { status: Some(0), stdout: "hello, host\n".to_owned(), stderr: String::new() };
        assert_eq!(ended, expected);
    }
}

#[test]
fn the_exit_status_says_how_a_guest_ended() {
    if !kvm() {
        return;
    }
    let reset = place(Code::default().print("r").reset(), "on_reset=stop\n").run(VMM);
    assert_eq!((reset.status, reset.stdout.as_str(), reset.stderr.as_str()), (Some(3), "r", ""));
    place(Code::default().panic(), "console=none\n").run(VMM).refused(4, "guest_panicked");
    let ignored = place(Code::default().panic().print("on").power_off(), "on_panic=ignore\n").run(VMM);
    assert_eq!((ignored.status, ignored.stdout.as_str()), (Some(0), "on"));
}

#[test]
fn files_that_are_no_kernel() {
    if !kvm() {
        return;
    }
    let place = Place::new().with("notes.txt", "boot me\n").with("vm.conf", "boot.kernel=notes.txt\n");
    place.run(VMM).refused(1, "not_a_kernel");
    place.run(&["vmm", "-k", "vm.conf", "-o", "boot.kernel=."]).refused(1, "kernel_is_a_directory");
}

#[test]
fn too_little_memory() {
    if !kvm() {
        return;
    }
    let place = place(Code::default().power_off(), "");
    place.run(&["vmm", "-k", "vm.conf", "-o", "memory.size=1M"]).refused(1, "too_little_memory");
}

#[test]
fn input_may_be_nothing_at_all() {
    if !kvm() {
        return;
    }
    let place = place(Code::default().print("up").power_off(), "");

    let mut shell = std::process::Command::new("sh");
    shell
        .arg("-c")
        .arg("exec \"$0\" vmm -k vm.conf <&-")
        .arg(env!("CARGO_BIN_EXE_parador"))
        .current_dir(&place.0);
    let ended = Ended::of(&shell.output().unwrap());
    assert_eq!((ended.status, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), "up", ""));
}

#[test]
fn what_is_typed_reaches_the_guest_and_its_end_does_not_end_it() {
    if !kvm() {
        return;
    }
    let place = place(Code::default().print(">").echo_until_q().power_off(), "");
    let mut child = place.command(VMM).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"abcq").unwrap();
    drop(input);
    let ended = Ended::of(&child.wait_with_output().unwrap());
    assert_eq!((ended.status, ended.stdout.as_str()), (Some(0), ">abcq"));
}

#[test]
fn a_guest_that_does_not_listen_is_ended_by_the_second_sigterm() {
    if !kvm() {
        return;
    }
    let place = place(Code::default().print("up\n"), "");
    let mut child = place.command(VMM).stdout(Stdio::piped()).spawn().unwrap();
    read_until(child.stdout.as_mut().unwrap(), "up\n");
    signal(&child, "TERM");
    std::thread::sleep(Duration::from_millis(100));
    assert!(child.try_wait().unwrap().is_none(), "the first asks");
    signal(&child, "TERM");
    assert_eq!(wait(&mut child), Some(5));
}

#[test]
fn other_signals_end_it_at_once() {
    if !kvm() {
        return;
    }
    for name in ["INT", "HUP", "QUIT"] {
        let place = place(Code::default().print("up\n"), "");
        let mut child = place.command(VMM).stdout(Stdio::piped()).spawn().unwrap();
        read_until(child.stdout.as_mut().unwrap(), "up\n");
        signal(&child, name);
        assert_eq!(wait(&mut child), Some(5), "SIG{name}");
    }
}

#[test]
fn a_console_in_a_file_or_on_a_socket() {
    if !kvm() {
        return;
    }
    let place = place(Code::default().print("to a file\n").power_off(), "console=file:out\n");
    let ended = place.run(VMM);
    assert_eq!((ended.status, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), "", ""));
    assert_eq!(std::fs::read_to_string(place.path("out")).unwrap(), "to a file\n");

    let place = self::place(Code::default().echo_until_q().power_off(), "console=unix:com1\n");
    let mut child = place.command(VMM).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut client = loop {
        match std::os::unix::net::UnixStream::connect(place.path("com1")) {
            Ok(client) => break client,
            Err(e) => assert!(Instant::now() < deadline, "no socket: {e}"),
        }
    };
    client.write_all(b"hi").unwrap();
    read_until(&mut client, "hi");
    client.write_all(b"q").unwrap();
    assert_eq!(wait(&mut child), Some(0));
}

/// Reads up to the end of `text`.
pub(crate) fn read_until(from: &mut impl Read, text: &str) {
    let mut read = Vec::new();
    let mut byte = [0];
    while !read.ends_with(text.as_bytes()) {
        assert_eq!(from.read(&mut byte).unwrap(), 1, "it ended after {:?}", String::from_utf8_lossy(&read));
        read.push(byte[0]);
    }
}

pub(crate) fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
}

/// The exit status of a process that is about to end.
pub(crate) fn wait(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    None
}

#[test]
fn disks_that_cannot_be_had() {
    if !kvm() {
        return;
    }
    let disk = "device.d.model=virtio-blk\ndevice.d.path=d.img\n";
    let place = place(Code::default().print("up\n"), disk);
    place.run(VMM).refused(1, "disk_missing");
    std::fs::create_dir(place.path("d.img")).unwrap();
    place.run(VMM).refused(1, "disk_is_a_directory");
    std::fs::remove_dir(place.path("d.img")).unwrap();
    File::create(place.path("d.img")).unwrap();
    place.run(VMM).refused(1, "disk_is_empty");
    File::create(place.path("d.img")).unwrap().set_len(1 << 20).unwrap();
    let mut first = place.command(VMM).stdout(Stdio::piped()).spawn().unwrap();
    read_until(first.stdout.as_mut().unwrap(), "up\n");
    place.run(VMM).refused(1, "disk_is_locked");
    signal(&first, "INT");
    assert_eq!(wait(&mut first), Some(5));
}

#[test]
fn devices_that_cannot_be_had() {
    if !kvm() {
        return;
    }
    let code = || Code::default().power_off();
    place(code(), "device.r.model=virtio-rnd\ndevice.r.path=missing\n").run(VMM).refused(1, "rnd_missing");
    place(code(), "device.n.model=virtio-net\ndevice.n.backend=fd\ndevice.n.fd=99\n")
        .run(VMM)
        .refused(1, "fd_missing");
    place(code(), "device.v.model=virtio-vsock\ndevice.v.cid=3\ndevice.v.socket=no/such/folder\n")
        .run(VMM)
        .refused(1, "vsock_folder");
    place(code(), "console=unix:no/such/folder\n").run(VMM).refused(1, "console_folder");
}

#[test]
fn a_machine_with_every_device_starts() {
    if !kvm() {
        return;
    }
    let keys = "device.d.model=virtio-blk\ndevice.d.path=d.img\ndevice.d.addr=0:9.0\n\
                device.r.model=virtio-rnd\ndevice.c.model=virtio-console\ndevice.c.port.0.path=file:c.log\n\
                device.v.model=virtio-vsock\ndevice.v.cid=3\ndevice.v.socket=v.sock\n\
                device.b.model=virtio-balloon\ndomains.0.size=8M\ndomains.0.cpus=0\ndomains.1.size=8M\n\
                domains.1.cpus=1\ncpus=2\n";
    let place = place(Code::default().print("up").power_off(), keys);
    File::create(place.path("d.img")).unwrap().set_len(1 << 20).unwrap();
    let ended = place.run(VMM);
    assert_eq!((ended.status, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), "up", ""));
}

#[test]
fn a_console_on_a_pseudo_terminal_says_where() {
    if !kvm() {
        return;
    }
    let place = place(Code::default().echo_until_q().power_off(), "console=pty\n");
    let mut child = place.command(VMM).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = child.stderr.as_mut().unwrap();
    read_until(stderr, "console is at ");
    let mut name = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stderr), &mut name).unwrap();
    let mut terminal = File::options().read(true).write(true).open(name.trim_end()).unwrap();
    terminal.write_all(b"hi").unwrap();
    read_until(&mut terminal, "hi");
    terminal.write_all(b"q").unwrap();
    assert_eq!(wait(&mut child), Some(0));
}

#[test]
fn a_host_without_kvm() {
    // Only root can make a host look so, and only for one process.
    let place = place(Code::default().power_off(), "");
    let script = "mount -t tmpfs none /dev && exec \"$0\" vmm -k vm.conf";
    let mut absent = std::process::Command::new("unshare");
    absent.args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_parador")]).current_dir(&place.0);
    let ended = Ended::of(&absent.stdin(Stdio::null()).output().unwrap());
    if ended.stderr.contains("unshare:") || ended.stderr.contains("mount:") {
        eprintln!("skipped: no mounts for this user: {}", ended.stderr);
        return;
    }
    assert_eq!(ended.status, Some(1));
    assert!(ended.stderr.starts_with("error: there is no /dev/kvm\nhint: "), "{}", ended.stderr);
    let script = "chmod 0 /dev/kvm && exec setpriv --reuid 65534 --clear-groups \"$0\" vmm -k vm.conf";
    let script = format!("mount -t tmpfs none /dev && mknod /dev/kvm c 10 232 && {script}");
    std::fs::set_permissions(place.0.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut refused = std::process::Command::new("unshare");
    refused.args(["--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_parador")]).current_dir(&place.0);
    let ended = Ended::of(&refused.stdin(Stdio::null()).output().unwrap());
    if ended.stderr.contains("setpriv:") {
        eprintln!("skipped: other users cannot run this build: {}", ended.stderr);
        return;
    }
    assert_eq!(ended.status, Some(1), "{}", ended.stderr);
    assert!(
        ended.stderr.starts_with("error: /dev/kvm may not be opened by this user\nhint: join the group"),
        "{}",
        ended.stderr
    );
}
