//! The devices that are no disks: a network, random numbers, vsock. One guest has them all.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, ensure};
use xtask::guest::busybox;

use crate::backend::Backend;
use crate::bench::{Bench, child, until};
use crate::guest::Setup;

/// Uses each device; once more, after each has got its driver again; and all of that after a reboot.
const SCRIPT: &str = r#"
head -c 3000000 /dev/urandom >/tmp/out
# echoes WHAT ADDRESS: whoever is there sends back what it gets.
echoes() {
    debian socat -t 60 - "$2" </tmp/out >/tmp/in || fail "$1"
    cmp /tmp/in /tmp/out || fail "$1: something else came back"
    echo "$1: the same came back"
}
check() {
    same "source" "$(cat /sys/class/misc/hw_random/rng_current)" "virtio_rng.0"
    [ "$(dd if=/dev/hwrng bs=512 count=16 2>/dev/null | tr -d '\0' | wc -c)" -gt 8000 ] || fail "zeroes are not random"

    same "address" "$(cat /sys/class/net/eth0/address)" 02:00:00:00:00:42
    same "queues" "$(echo /sys/class/net/eth0/queues/rx-* | wc -w)" 2
    ip addr add 192.0.2.2/24 dev eth0
    ip link set eth0 up
    ping -q -c 3 -i 0.2 -s 1400 192.0.2.1 >/tmp/ping || { cat /tmp/ping; fail "ping"; }
    echoes "network" TCP:192.0.2.1:5001

    echoes "vsock from the guest" VSOCK-CONNECT:2:5001
    echo "listens"
    debian socat -t 60 VSOCK-LISTEN:1024 EXEC:cat
}
check
for device in /sys/bus/virtio/devices/*; do
    driver=$(readlink -f "$device/driver")
    [ "${driver##*/}" != virtio_blk ] || continue
    echo "${device##*/}" >"$driver/unbind"
    echo "${device##*/}" >"$driver/bind"
done
check
echo "ready"
read -r line
[ "$line" != again ] || reboot -f
"#;

#[test]
fn a_network_random_numbers_and_vsock_are_there() {
    Bench::run(|bench| {
        let name = bench.path("v.sock");
        let own = format!("socket={}", name.display());
        let rng = Backend::parador(bench, "rng", "rng", &[])?;
        let vsock = Backend::parador(bench, "vsock", "vsock", &["cid=42", &own])?;
        let keys = ["tap.name=tap0", "mac=02:00:00:00:00:42", "queues=2"];
        let net = Backend::networked(bench, "net", "net", &keys)?;

        let mut server = server(bench, &net)?;
        let listener = UnixListener::bind(bench.path("v.sock_5001"))?;
        thread::spawn(move || listener.incoming().try_for_each(echo));

        let lan = ["-netdev", "vhost-user,id=lan,queues=2,chardev=END"];
        let card = ["-device", "virtio-net-pci,netdev=lan,mq=on,mac=02:00:00:00:00:42"];
        let mut guest = Setup::new("guest", SCRIPT)
            .with(&["-smp", "2"])
            .device(rng.socket(), &["-device", "vhost-user-rng-pci,chardev=END"])
            .device(vsock.socket(), &["-device", "vhost-user-vsock-pci,chardev=END"])
            .device(net.socket(), &lan)
            .with(&card)
            .start(bench)?;
        for number in 0..4 {
            guest.says("vsock from the guest: the same")?;
            guest.says("listens")?;
            into_guest(&name)?;
            if number % 2 == 1 {
                guest.says("ready")?;
                guest.tell(if number == 1 { "again" } else { "enough" })?;
            }
        }
        guest.finish()?;
        server.kill()?;
        server.wait()?;
        net.end()?;
        vsock.end()?;
        rng.end()
    });
}

/// A program in the network of `net` that sends back what it gets at port 5001.
fn server(bench: &Bench, net: &Backend) -> Result<std::process::Child> {
    let network = format!("--net=/proc/{}/ns/net", net.id());
    let busybox = busybox()?;
    let words = ["nsenter".into(), network.into(), busybox.into()];
    let mut server = child(&words, &bench.path("server.log"))?;
    Ok(server.args(["nc", "-ll", "-p", "5001", "-e", "cat"]).spawn()?)
}

/// Sends back what comes.
fn echo(stream: io::Result<UnixStream>) -> io::Result<()> {
    let mut stream = stream?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    stream.write_all(&bytes)
}

/// Sends bytes to the guest's port 1024, which come back.
fn into_guest(socket: &Path) -> Result<()> {
    let mut stream = until("the guest's port", || {
        let mut stream = BufReader::new(UnixStream::connect(socket).context("nobody has vsock's socket")?);
        stream.get_mut().write_all(b"CONNECT 1024\n")?;
        let mut answer = String::new();
        stream.read_line(&mut answer)?;
        Ok(answer.starts_with("OK ").then_some(stream))
    })?;
    let sent: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    thread::scope(|scope| {
        let mut writer = stream.get_ref().try_clone()?;
        let sent = &sent;
        scope.spawn(move || writer.write_all(sent).and_then(|()| writer.shutdown(Shutdown::Write)));
        let mut back = Vec::new();
        stream.read_to_end(&mut back)?;
        ensure!(back == *sent, "what came back from the guest's port is something else");
        Ok(())
    })
}
