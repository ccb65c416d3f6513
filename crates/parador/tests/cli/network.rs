//! Interfaces that `parador run` makes, each test in a network namespace of its own, which takes root.

use std::process::{Command, Stdio};

use crate::machine::{kvm, place};
use crate::payload::Code;
use crate::{Ended, Place};

/// Whether namespaces, bridges and TAP interfaces can be made here; says so where they cannot.
fn network() -> bool {
    let script = "ip link add br0 type bridge && ip tuntap add t mode tap";
    let made = Command::new("unshare").args(["--net", "sh", "-c", script]).output().unwrap();
    if !made.status.success() {
        eprintln!("skipped: no networks of one's own here: {}", String::from_utf8_lossy(&made.stderr));
    }
    made.status.success()
}

impl Place {
    /// Runs `script` in a network namespace of its own, with the command as `$0`.
    fn in_network(&self, script: &str) -> Ended {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "sh", "-euc", script, env!("CARGO_BIN_EXE_parador")]);
        command.current_dir(&self.0).stdin(Stdio::null()).env_remove("PARADOR_LOG");
        Ended::of(&command.output().unwrap())
    }
}

/// Functions for scripts. `start` runs `vm.conf` with further arguments until the guest has said `up`:
/// the runner is `$runner`, the machine's process `$vmm`. `gone NAME` waits until there is no such interface.
const SCRIPT: &str = r#"
    patiently() {
        for _ in $(seq 1000); do if "$@" >/dev/null 2>&1; then return; fi; sleep 0.01; done
        echo "never: $*"; exit 1
    }
    start() {
        : >out
        "$0" run vm.conf "$@" >out &
        runner=$!
        patiently grep -q up out
        vmm=$(pgrep -P $runner)
    }
    gone() { patiently missing "$1"; }
    missing() { ! ip link show "$1" >/dev/null 2>&1; }
    attributes() { ip -d link show "$1" | grep -o -E "master [a-z0-9]+|> mtu [0-9]+|,UP|numqueues [0-9]+ numdisabled [0-9]+|persist o[nf]+|user [0-9a-z]+" | sort | tr '\n' ' '; echo; }
"#;

fn guest(keys: &str) -> Place {
    place(Code::default().print("up\n"), &format!("name=web\ndevice.net0.model=virtio-net\n{keys}"))
}

fn ran(place: &Place, script: &str) -> String {
    let ended = place.in_network(&format!("{SCRIPT}\n{script}"));
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    ended.stdout
}

#[test]
fn an_interface_is_made_joined_to_its_bridge_and_gone_with_the_machine() {
    if !kvm() || !network() {
        return;
    }
    let place = guest("device.net0.tap.bridge=br0\ndevice.net0.mtu=1400\n");
    for (end, status) in [("kill -INT $runner", 5), ("kill -9 $vmm", 1)] {
        let script = format!(
            "ip link add br0 type bridge; start 2>err; attributes web-net0; {end}; \
             status=0; wait $runner || status=$?; echo $status; missing web-net0; missing br0 || echo bridge"
        );
        let expected = format!(",UP > mtu 1400 master br0 persist off \n{status}\nbridge\n");
        assert_eq!(ran(&place, &script), expected, "{end}");
    }
    let said = std::fs::read_to_string(place.path("err")).unwrap();
    assert!(said.starts_with("error: the machine's process was ended by signal 9\nhint: "), "{said}");
    // Who kills the one that waits for the machine ends the machine.
    let script = "ip link add br0 type bridge; start; kill -9 $runner; gone web-net0; patiently test ! -e /proc/$vmm/exe";
    assert_eq!(ran(&place, script), "");
}

#[test]
fn several_queues_are_several_descriptors() {
    if !kvm() || !network() {
        return;
    }
    let script = "start; attributes web-net0; ls -l /proc/$runner/fd | grep -c net/tun || true; \
                  kill -INT $runner; wait $runner || true; missing web-net0";
    let place = guest("device.net0.queues=3\ndevice.net0.tap.owner=12345\n");
    assert_eq!(ran(&place, script), ",UP > mtu 1500 numqueues 1 numdisabled 2 persist off user 12345 \n0\n");
}

#[test]
fn an_interface_that_is_there_is_used_and_left() {
    if !kvm() || !network() {
        return;
    }
    let script = "ip tuntap add tap7 mode tap vnet_hdr; ip link add br0 type bridge; start; attributes tap7; \
                  kill -INT $runner; wait $runner || true; attributes tap7";
    let place = guest("device.net0.tap.name=tap7\ndevice.net0.tap.create=no\ndevice.net0.tap.bridge=br0\n");
    assert_eq!(ran(&place, script), ",UP > mtu 1500 master br0 persist on \n".repeat(2));
}

#[test]
fn what_cannot_be_is_said_with_its_place() {
    if !kvm() || !network() {
        return;
    }
    let run = "\"$0\" run vm.conf";
    let refused = |keys: &str, before: &str, name: &str| {
        guest(keys).in_network(&format!("{before}\n{run}")).refused(1, name);
    };
    refused("device.net0.tap.bridge=br7\n", "", "no_bridge");
    refused("device.net0.tap.bridge=lo\n", "", "not_a_bridge");
    refused("device.net0.tap.create=no\ndevice.net0.tap.name=tap7\n", "", "no_interface");
    refused("device.net0.tap.create=yes\n", "ip tuntap add web-net0 mode tap", "interface_is_there");
    refused("device.net0.tap.name=br0\n", "ip link add br0 type bridge", "interface_is_no_tap");
    refused("device.net0.tap.owner=nobody-of-that-name\n", "", "no_owner");
    refused("device.net0.queues=2\n", "ip tuntap add web-net0 mode tap vnet_hdr", "interface_has_one_queue");
    refused("device.net0.backend=macvtap\ndevice.net0.tap.link=eth7\n", "", "no_link");
    refused("", "mount -t tmpfs none /dev; mknod /dev/kvm c 10 232; mknod /dev/null c 1 3", "no_tun");
    refused(
        "",
        &format!("{SCRIPT}\nstart; trap 'code=$?; kill -INT $runner; wait $runner || exit $code' EXIT"),
        "interface_is_busy",
    );
}

#[test]
fn without_privileges_nothing_is_made() {
    if !kvm() || !network() {
        return;
    }
    let place = guest("");
    std::fs::copy(env!("CARGO_BIN_EXE_parador"), place.path("parador")).unwrap();
    std::fs::set_permissions(place.0.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let script = "mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3; mkdir /dev/net; \
                  mknod -m 666 /dev/kvm c 10 232; mknod -m 666 /dev/net/tun c 10 200; \
                  setpriv --reuid=65534 --clear-groups --bounding-set=-all ./parador run vm.conf";
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-euc", script]);
    let ended = Ended::of(&command.current_dir(&place.0).stdin(Stdio::null()).output().unwrap());
    if ended.stderr.contains("setpriv:") || ended.stderr.contains("mount:") {
        eprintln!("skipped: other users cannot run this build: {}", ended.stderr);
        return;
    }
    ended.refused(1, "interface_not_permitted");
}
