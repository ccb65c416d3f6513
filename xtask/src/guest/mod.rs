//! `cargo xtask guest`: what the tests and the demo boot, from the Debian archive by ordinary tools.

mod apt;
mod initramfs;
mod kernel;
mod peers;
mod rootfs;

mod tools;

use anyhow::Result;

pub use initramfs::{archive, busybox, initramfs, poweroff};
pub use kernel::{Kernel, kernel};
pub use peers::{domain_schema, former_storage_daemon, nbdkit, user_mode_linux};
pub use rootfs::rootfs;
pub use tools::{Need, ensure};

/// Makes everything that is not there yet and says where it lies.
pub fn guest() -> Result<()> {
    ensure(&[Need::Guest])?;
    let kernel = kernel()?;
    println!("kernel     {}", kernel.version);
    println!("bzImage    {}", kernel.bzimage.display());
    println!("vmlinux    {}", kernel.vmlinux.display());
    println!("initramfs  {}", initramfs()?.display());
    println!("rootfs     {}", rootfs()?.display());
    Ok(())
}
