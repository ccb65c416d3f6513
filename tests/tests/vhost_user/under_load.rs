//! A disk that is written to, read back and verified all the time, while what is below it changes:
//! the machine moves to another QEMU, or the back-end dies.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use xtask::command;

use crate::backend::Backend;
use crate::bench::{Bench, until};
use crate::guest::{Guest, Setup};

/// Two fios at once, so that one has requests under way while the other begins again, until a line
/// comes from the host. Beside them a program reads into one buffer again and again, and takes its time with
/// what is in it: pages that only the back-end writes to, and that have to come along.
const SCRIPT: &str = r#"
data=$(disk data)
debian true
slowly() { while dd bs=64k count=1 iflag=fullblock 2>/tmp/slowly && grep -q '^1+0 records in' /tmp/slowly; do sleep 0.05; done; }
buffered() { dd if="$data" iflag=direct bs=512k skip=48 count=4 2>/dev/null | "$@" | md5sum; }
wanted=$(buffered cat)
buffers() { while [ ! -e /tmp/stop ]; do same buffer "$(buffered slowly)" "$wanted"; done; }
buffers & third=$!
rounds() { while [ ! -e /tmp/stop ]; do verify "$data" "$@"; echo "round"; done; }
rounds --offset=0 --size=8m & first=$!
rounds --offset=8m --size=16m --verify_backlog=64 & second=$!
read -r line
touch /tmp/stop
wait $first
wait $second
wait $third
sync
echo 3 >/proc/sys/vm/drop_caches
echo "sum: $(md5sum <"$data")"
! dmesg | grep -i -e 'I/O error' -e 'virtio.*error' -e 'not a head' -e 'timed out' -e 'blocked for' || fail "the kernel complains"
"#;

const DISK: &[&str] = &["-device", "vhost-user-blk-pci,num-queues=2,chardev=END"];
/// What fio writes to, and what is only read.
const MIB: u64 = 24;
const READ_MIB: u64 = 2;
/// How often a guest moves: there, back, and so on.
const MOVES: usize = 4;
/// How often a back-end is killed.
const KILLS: u32 = 100;

/// Bytes of an entry for a request in flight, and of the header before them; and of a queue that has as
/// many descriptors as QEMU gives it.
const ENTRY: usize = 16;
const REGION: usize = (ENTRY + 128 * ENTRY).next_multiple_of(64);

/// Ends the script; what the guest has read at last is what is in the image.
fn finish(mut guest: Guest, image: &Path) -> Result<()> {
    guest.tell("stop")?;
    let said = guest.finish()?;
    let sum = command::output_text(command::program("md5sum").arg(image))?;
    let sum = sum.split(' ').next().unwrap_or_default();
    ensure!(said.contains(&format!("sum: {sum}")), "the image has {sum}, and the guest read something else");
    Ok(())
}

/// An image, and what the guest reads in it, no two blocks of which are the same.
fn disk(bench: &Bench) -> Result<(PathBuf, File)> {
    let path = bench.image("data.img", MIB + READ_MIB)?;
    let file = File::options().read(true).write(true).open(&path)?;
    let words = (0..(READ_MIB << 20) / 8).flat_map(u64::to_le_bytes).collect::<Vec<_>>();
    file.write_all_at(&words, MIB << 20)?;
    Ok((path, file))
}

#[test]
fn a_disk_comes_along_when_its_machine_moves() {
    Bench::run(|bench| {
        let (image, open) = disk(bench)?;
        let setup = |number: usize, backend: &Backend| {
            let setup = Setup::new(&format!("guest-{number}"), SCRIPT).with(&["-smp", "2"]);
            setup.device(backend.socket(), DISK)
        };
        let mut backend = Backend::disk_of(bench, "blk-0", &open, &["queues=2"])?;
        let mut guest = setup(0, &backend).start(bench)?;
        guest.says("round")?;
        for number in 1..=MOVES {
            let to = Backend::disk_of(bench, &format!("blk-{number}"), &open, &["queues=2"])?;
            let mut there = setup(number, &to).incoming().start(bench)?;
            guest.migrate(&mut there)?;
            backend.end()?;
            (guest, backend) = (there, to);
            guest.says("round")?;
        }
        finish(guest, &image)?;
        backend.end()
    });
}

#[test]
fn nothing_is_lost_when_a_back_end_is_killed() {
    Bench::run(|bench| {
        let (image, _) = disk(bench)?;
        let mut backend = Backend::disk(bench, "blk", &image, &["queues=2", "sync=true"])?;
        let setup = Setup::new("guest", SCRIPT).with(&["-smp", "2"]);
        let mut guest = setup.lasting_device(backend.socket(), DISK).start(bench)?;
        guest.says("round")?;
        let (mut busy, mut most) = (0, 0);
        for _ in 0..KILLS {
            until("a front-end that comes back", || Ok(backend.serves()?.then_some(())))?;
            // In the middle of something; there may be nothing while fio begins again.
            let start = Instant::now();
            while in_flight(&guest)? == 0 && start.elapsed() < Duration::from_millis(200) {}
            backend.kill()?;
            let left = in_flight(&guest)?;
            busy += u32::from(left > 0);
            most = most.max(left);
            guest.said_now("round")?;
            backend.restart()?;
        }
        println!("{busy} of {KILLS} times there were requests in flight, {most} at most");
        ensure!(busy > 0, "there never were requests in flight");
        guest.says("round")?;
        finish(guest, &image)?;
        backend.end()
    });
}

/// How many requests are written down as in flight, in the memory that QEMU keeps for back-ends.
fn in_flight(guest: &Guest) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(format!("/proc/{}/fd", guest.id()))? {
        let path = entry?.path();
        let Ok(name) = fs::read_link(&path) else { continue };
        if name.to_string_lossy().starts_with("/memfd:inflight") {
            // QEMU may have closed it by now.
            let region = fs::read(path).unwrap_or_default();
            let entries = region.chunks_exact(REGION).flat_map(|queue| queue[ENTRY..].chunks_exact(ENTRY));
            count += entries.filter(|entry| entry[0] == 1).count();
        }
    }
    Ok(count)
}
