//! nbdkit's blkio plugin, which is libblkio: a front-end without a guest. It gives our disk to NBD clients.

use std::ffi::OsString;
use std::fs;

use anyhow::ensure;

use crate::backend::Backend;
use crate::bench::{Bench, child};

/// The libraries of this machine, for what the newer ones do not bring along.
const HERE: &str = "/usr/lib/x86_64-linux-gnu:/lib/x86_64-linux-gnu";

#[test]
#[ignore = "fetches another C library: `cargo xtask peers` runs it"]
fn nbd_clients_read_what_they_wrote() {
    Bench::run(|bench| {
        let (image, source) = (bench.image("disk.img", 64)?, bench.path("source.img"));
        let bytes: Vec<u8> =
            (0..64 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        fs::write(&source, &bytes)?;
        let backend = Backend::disk(bench, "disk", &image, &[])?;

        let libraries = xtask::guest::nbdkit()?.join("usr/lib/x86_64-linux-gnu");
        let mut words: Vec<OsString> = vec!["timeout".into(), "300".into()];
        words.push(libraries.join("ld-linux-x86-64.so.2").into());
        words.push("--library-path".into());
        words.push(format!("{}:{HERE}", libraries.display()).into());
        words.push(xtask::guest::nbdkit()?.join("usr/bin/nbdkit").into());
        words.extend(["--foreground", "--unix", "-"].map(OsString::from));
        words.push(libraries.join("nbdkit/plugins/nbdkit-blkio-plugin.so").into());
        words.push("virtio-blk-vhost-user".into());
        words.push(format!("path={}", backend.socket().display()).into());
        let source = source.display();
        words.push("--run".into());
        words.push(
            format!(
                "qemu-img convert -n -f raw {source} -O raw $uri && qemu-img compare -f raw -F raw {source} $uri"
            )
            .into(),
        );
        let status = child(&words, &bench.path("nbdkit.log"))?.status()?;
        ensure!(status.success(), "nbdkit ended with {status}");
        ensure!(fs::read(&image)? == bytes, "the image has other data");
        Ok(())
    });
}
