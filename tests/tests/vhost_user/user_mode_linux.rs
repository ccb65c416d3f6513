//! Linux in user mode with our disk: a front-end that is neither QEMU nor ours.

use std::ffi::OsString;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::backend::Backend;
use crate::bench::{Bench, child};

/// Writes, takes the driver away and back, and reads.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
insmod /virtio_blk.ko
echo "sectors: $(cat /sys/block/vda/size)"
head -c 8388608 /dev/urandom >/tmp/data
dd if=/tmp/data of=/dev/vda bs=64k seek=16 oflag=direct conv=notrunc,fsync 2>/dev/null
device=$(basename "$(readlink -f /sys/block/vda/device)")
echo "$device" >/sys/bus/virtio/drivers/virtio_blk/unbind
echo "$device" >/sys/bus/virtio/drivers/virtio_blk/bind
dd if=/dev/vda bs=64k skip=16 count=128 iflag=direct 2>/dev/null | cmp - /tmp/data && echo "data: the same"
poweroff -f
"#;

#[test]
#[ignore = "fetches another kernel: `cargo xtask peers` runs it"]
fn linux_in_user_mode_reads_what_it_wrote() {
    Bench::run(|bench| {
        let image = bench.image("disk.img", 64)?;
        let root = root(bench)?;
        let backend = Backend::disk(bench, "disk", &image, &[])?;

        let mut words = vec![OsString::from("timeout"), "300".into()];
        words.push(xtask::guest::user_mode_linux()?.join("usr/bin/linux.uml").into());
        let device = format!("virtio_uml.device={}:2", backend.socket().display());
        let disk = format!("ubd0={}", root.display());
        words.extend(
            ["mem=128M", "quiet", "panic=-1", &device, &disk, "root=/dev/ubda", "rw"].map(OsString::from),
        );
        words.extend(["init=/init", "con0=null,fd:1", "con=null", "ssl=null"].map(OsString::from));
        let log = bench.path("linux.log");
        // It keeps its memory, and the socket of its console, where it is told.
        let status =
            child(&words, &log)?.env("TMPDIR", bench.path("")).env("HOME", bench.path("")).status()?;
        let said = fs::read_to_string(&log)?;
        ensure!(status.success(), "it ended with {status}");
        ensure!(said.contains("sectors: 131072"), "another disk");
        ensure!(said.contains("data: the same"), "other data");
        Ok(())
    });
}

/// Its root file system: busybox, the driver and what to do.
fn root(bench: &Bench) -> Result<std::path::PathBuf> {
    let tree = bench.path("root");
    for folder in ["bin", "dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(tree.join(folder))?;
    }
    fs::copy(xtask::guest::busybox()?, tree.join("bin/busybox"))?;
    let modules = xtask::guest::user_mode_linux()?.join("usr/lib/uml/modules");
    let version = fs::read_dir(&modules)?.next().context("the kernel has modules")??;
    fs::copy(version.path().join("kernel/drivers/block/virtio_blk.ko"), tree.join("virtio_blk.ko"))?;
    fs::write(tree.join("init"), INIT)?;
    let image = bench.path("root.img");
    let made = Command::new("sh")
        .args(["-c", "chmod +x \"$0/init\" && mke2fs -q -t ext4 -d \"$0\" \"$1\" 32M"])
        .args([&tree, &image])
        .status()?;
    ensure!(made.success(), "no root file system");
    Ok(image)
}
