//! Two processes: one that opens things and stands at the terminal, and one that is the machine.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::machine::{kvm, place, read_until, signal, wait};
use crate::payload::Code;
use crate::terminal::Terminal;
use crate::{Ended, Place};

/// The process that is the machine, of one that runs it.
fn machine_of(runner: u32) -> u32 {
    let children = Command::new("pgrep").args(["-P", &runner.to_string()]).output().unwrap();
    String::from_utf8(children.stdout).unwrap().trim().parse().unwrap()
}

fn kill(process: u32) {
    assert!(Command::new("kill").args(["-9", &process.to_string()]).status().unwrap().success());
}

#[test]
fn a_machine_needs_no_privilege_and_no_path() {
    if !kvm() {
        return;
    }
    let keys = "kvm.fd=4\nboot.kernel=/secret/guest\nboot.kernel_fd=5\nmemory.size=16M\n\
                device.d.model=virtio-blk\ndevice.d.path=/secret/d.img\ndevice.d.fd=6\n";
    let place = Place::new().with("guest", Code::default().print("up").power_off().elf()).with("keys", keys);
    std::fs::copy(env!("CARGO_BIN_EXE_parador"), place.path("parador")).unwrap();
    std::fs::set_permissions(&place.0, PermissionsExt::from_mode(0o755)).unwrap();
    for (name, mode) in [("guest", 0o400), ("d.img", 0o600)] {
        let file = File::options().create(true).append(true).open(place.path(name)).unwrap();
        file.set_len(1 << 20).unwrap();
        file.set_permissions(PermissionsExt::from_mode(mode)).unwrap();
    }
    let script = "exec 3<keys 4<>/dev/kvm 5<guest 6<>d.img; mount -o remount,bind,ro /; \
                  if echo x >>d.img; then exit 9; fi 2>/dev/null; \
                  exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --bounding-set=-all \
                  --inh-caps=-all ./parador vmm --config-fd 3";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-euc", script]).current_dir(&place.0);
    let ended = Ended::of(&command.stdin(Stdio::null()).output().unwrap());
    if ended.stderr.contains("unshare:") || ended.stderr.contains("mount:") {
        eprintln!("skipped: no mounts for this user: {}", ended.stderr);
        return;
    }
    assert_eq!((ended.status, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), "up", ""));
}

#[test]
fn messages_of_the_machines_process_are_about_the_users_file() {
    if !kvm() {
        return;
    }
    let place = Place::new().with("notes.txt", "boot me\n").with("vm.conf", "boot.kernel=notes.txt\n");
    place.run(&["run", "vm.conf"]).refused(1, "not_a_kernel");
    let little = place.run(&["run", "-o", "memory.size=1M", "vm.conf"]).stderr;
    assert!(little.contains("--> command line, argument 3\n   | memory.size=1M\n"), "{little}");
}

#[test]
fn an_image_is_locked_while_the_machine_has_it_and_no_longer() {
    if !kvm() {
        return;
    }
    let disk = "device.d.model=virtio-blk\ndevice.d.path=d.img\n";
    let place = place(Code::default().print("up\n"), disk);
    File::create(place.path("d.img")).unwrap().set_len(1 << 20).unwrap();
    for _ in 0..2 {
        let mut first = place.command(&["run", "vm.conf"]).stdout(Stdio::piped()).spawn().unwrap();
        read_until(first.stdout.as_mut().unwrap(), "up\n");
        for other in [&["run", "vm.conf"][..], &["vmm", "-k", "vm.conf"]] {
            place.run(other).refused(1, "disk_is_locked");
        }
        signal(&first, "INT");
        assert_eq!(wait(&mut first), Some(5));
    }
}

#[test]
fn neither_process_outlives_the_other() {
    if !kvm() {
        return;
    }
    let place = place(Code::default().print(">"), "");
    let mut terminal = Terminal::new();
    let mut child = terminal.run(&place);
    read_until(&mut terminal.ours, ">");
    kill(machine_of(child.id()));
    read_until(&mut terminal.ours, "ended by signal 9");
    assert_eq!(wait(&mut child), Some(1));
    assert!(terminal.is_cooked());

    let mut child = place.command(&["run", "vm.conf"]).stdout(Stdio::piped()).spawn().unwrap();
    read_until(child.stdout.as_mut().unwrap(), ">");
    let machine = machine_of(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    // What it leaves behind until somebody waits for it has no program any more.
    let program = format!("/proc/{machine}/exe");
    for _ in 0..1000 {
        if std::fs::read_link(&program).is_err() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    unreachable!("the machine goes on");
}

#[test]
fn what_was_inherited_does_not_reach_the_machine() {
    if !kvm() {
        return;
    }
    let place = place(Code::default().print("up\n"), "").with("private", "x");
    let script = "exec \"$0\" run vm.conf 7<private 30<private";
    let mut shell = Command::new("bash");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_parador")]).current_dir(&place.0);
    let mut child = shell.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    read_until(child.stdout.as_mut().unwrap(), "up\n");
    let open: Vec<String> = std::fs::read_dir(format!("/proc/{}/fd", machine_of(child.id())))
        .unwrap()
        .filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok())
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    assert!(open.iter().any(|path| path == "/dev/kvm"), "{open:?}");
    assert!(!open.iter().any(|path| path.ends_with("private")), "{open:?}");
    signal(&child, "INT");
    assert_eq!(wait(&mut child), Some(5));
}

#[test]
fn who_started_it_may_not_care_for_children() {
    if !kvm() {
        return;
    }
    let place = place(Code::default().print("up\n").reset(), "on_reset=stop\n");
    let mut shell = Command::new("bash");
    shell.args(["-c", "trap '' CHLD; exec \"$0\" run vm.conf", env!("CARGO_BIN_EXE_parador")]);
    let ended = Ended::of(&shell.current_dir(&place.0).stdin(Stdio::null()).output().unwrap());
    assert_eq!((ended.status, ended.stdout.as_str(), ended.stderr.as_str()), (Some(3), "up\n", ""));
}
