//! A command line of bhyve's, as it stands.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use crate::machine::kvm;
use crate::payload::Code;
use crate::{Ended, Place};

fn place(code: Code) -> Place {
    let place = Place::new().with("guest", code.elf());
    File::create(place.path("disk.img")).unwrap().set_len(1 << 20).unwrap();
    place
}

/// Runs what follows `parador vmm --compat bhyve` on a line.
fn run(place: &Place, line: &str) -> Ended {
    let mut arguments = vec!["vmm", "--compat", "bhyve"];
    arguments.extend(line.split_whitespace());
    place.run(&arguments)
}

const LINE: &str = "-c 2 -m 64M -s 0,hostbridge -s 2:0,virtio-rnd -s 3,virtio-rnd \
                    -s 4,virtio-blk,disk.img -s 31,lpc -l com1,stdio -o boot.kernel=guest vm";

#[test]
fn a_guest_that_powers_off_is_1_and_one_that_resets_is_0() {
    if !kvm() {
        return;
    }
    let ended = run(&place(Code::default().print("hello\n").power_off()), LINE);
    assert_eq!((ended.status, ended.stdout.as_str(), ended.stderr.as_str()), (Some(1), "hello\n", ""));
    let ended = run(&place(Code::default().print("again\n").reset()), LINE);
    assert_eq!((ended.status, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), "again\n", ""));
}

#[test]
fn a_link_called_bhyve_is_bhyve() {
    if !kvm() {
        return;
    }
    let place = place(Code::default().print("up").power_off());
    let mut command = place.command(&LINE.split_whitespace().collect::<Vec<_>>());
    let ended = Ended::of(&command.arg0("/usr/sbin/bhyve").output().unwrap());
    assert_eq!((ended.status, ended.stdout.as_str(), ended.stderr.as_str()), (Some(1), "up", ""));
}

#[test]
fn without_a_serial_port_there_is_no_console() {
    if !kvm() {
        return;
    }
    let place = place(Code::default().print("unseen").power_off());
    let ended = run(&place, "-m 64M -s 0,hostbridge -o boot.kernel=guest vm");
    assert_eq!((ended.status, ended.stdout.as_str(), ended.stderr.as_str()), (Some(1), "", ""));
}

#[test]
fn what_bhyve_is_told_of_its_processors_has_no_effect_which_is_said() {
    if !kvm() {
        return;
    }
    let place = place(Code::default().print("up").power_off()).with("vm.keys", "my.key=1\ncpus=1\n");
    let mut ended = run(&place, &format!("-A -H -P -w -k vm.keys -f opt/a,string=b {LINE}"));
    assert_eq!((ended.status, ended.stdout.as_str()), (Some(1), "up"));
    (ended.status, ended.stdout) = (Some(4), String::new());
    ended.refused(4, "bhyve_without_effect");
}

#[test]
fn a_dump_is_every_key_as_given_and_status_1() {
    let place = Place::new().with("vm.keys", "memory.size=1G\nmy.disk=/vm/%(name).img\n");
    let ended = run(
        &place,
        "-k vm.keys -m 2G -s 4,ahci-hd,%(my.disk),ro -p 0:1 -p 0:2 -l com1,stdio -o config.dump=1 vm",
    );
    let expected = "acpi_tables=true\nacpi_tables_in_memory=true\nx86.strictmsr=true\nx86.verbosemsr=false\n\
                    lpc.fwcfg=bhyve\nmemory.size=2G\nmy.disk=/vm/%(name).img\npci.0.4.0.device=ahci\n\
                    pci.0.4.0.port.0.type=hd\npci.0.4.0.port.0.path=%(my.disk)\npci.0.4.0.port.0.ro=true\n\
                    vcpu.0.cpuset=1,2\nlpc.com1.path=stdio\nconfig.dump=1\nname=vm\n";
    assert_eq!((ended.status, ended.stdout.as_str(), ended.stderr.as_str()), (Some(1), expected, ""));
}

#[test]
fn what_bhyve_refuses_is_4() {
    let place = Place::new();
    run(&place, "-s 4,virtio-rnd -s 4:0,virtio-blk,disk.img -c 2,cpu=3 -z -k missing.keys vm now")
        .refused(4, "bhyve_refused");
    run(&place, "-m 64M -o boot.kernel=guest").refused(4, "bhyve_without_name");
}

#[test]
fn what_bhyve_has_and_this_command_has_not_is_said() {
    let line = "-m 1G -S -s 0,amd_hostbridge -s 3,ahci-cd,install.iso -s 4,nvme,disk.img -s 5,e1000,tap0 \
                -s 6,passthru,2/0/0 -s 29,fbuf,tcp=0.0.0.0:5900,wait -s 30,xhci,tablet -s 31,lpc \
                -l com1,/dev/nmdm0A -l bootrom,BHYVE_UEFI.fd vm";
    run(&Place::new(), line).refused(4, "bhyve_unsupported");
}

#[test]
fn help_is_0() {
    let ended = run(&Place::new(), "-h");
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""));
    assert!(ended.stdout.contains("bhyve(8)"), "{}", ended.stdout);
}

#[test]
fn what_is_typed_reaches_the_guest() {
    if !kvm() {
        return;
    }
    let place = place(Code::default().echo_until_q().power_off());
    let arguments: Vec<&str> = ["vmm", "--compat=bhyve"].into_iter().chain(LINE.split_whitespace()).collect();
    let mut child = place.command(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"hiq").unwrap();
    let ended = Ended::of(&child.wait_with_output().unwrap());
    assert_eq!((ended.status, ended.stdout.as_str()), (Some(1), "hiq"));
}
