//! The kernel that guests and the lab's outer machine run: Debian's cloud flavour of Linux 6.12.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use super::apt::Apt;
use crate::{cache, command};

/// What this recipe makes; a change makes it again.
const RECIPE: &str = "linux-image-6.12 cloud, 1";

/// A kernel as Debian ships it, taken apart.
pub struct Kernel {
    /// The bzImage, untouched.
    pub bzimage: PathBuf,
    /// The uncompressed ELF kernel inside the bzImage, which has the PVH entry.
    pub vmlinux: PathBuf,
    /// The root of a tree with `lib/modules/VERSION`, indexed by depmod.
    pub tree: PathBuf,
    /// Such as `6.12.95+deb12-cloud-amd64`.
    pub version: String,
}

/// The kernel, fetched on the first call.
pub fn kernel() -> Result<Kernel> {
    let dir = cache::entry("kernel", &[RECIPE], build)?;
    let version = fs::read_to_string(dir.join("version"))?;
    Ok(Kernel { bzimage: dir.join("bzImage"), vmlinux: dir.join("vmlinux"), tree: dir.join("tree"), version })
}

fn build(dir: &Path) -> Result<()> {
    let apt = Apt::for_guests()?;
    let package = newest(&apt.names("linux-image-6.12")?).context("the archive has no 6.12 cloud kernel")?;
    eprintln!("guest: fetching {package}");
    let tree = dir.join("tree");
    apt.unpack(&package, &tree)?;
    let version = package.trim_start_matches("linux-image-");
    let bzimage = dir.join("bzImage");
    fs::rename(tree.join(format!("boot/vmlinuz-{version}")), &bzimage)?;
    unpack_vmlinux(&bzimage, &dir.join("vmlinux"))?;
    if !tree.join("lib").exists() {
        // Packages for merged-/usr systems only have usr/lib.
        fs::rename(tree.join("usr/lib"), tree.join("lib"))?;
    }
    command::run_quiet(command::program("depmod").arg("--basedir").arg(&tree).arg(version))?;
    fs::write(dir.join("version"), version)?;
    Ok(())
}

/// The newest cloud kernel among package `names`.
///
/// The build for the previous release goes before the one for the current release: its suite no
/// longer moves, so figures measured with it stay comparable.
fn newest(names: &[String]) -> Option<String> {
    let rank = |name: &&String| {
        let numbers = name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse::<u32>().ok());
        (name.contains("+deb12"), numbers.collect::<Vec<_>>())
    };
    names.iter().filter(|name| name.ends_with("-cloud-amd64")).max_by_key(rank).cloned()
}

/// Writes the ELF kernel inside `bzimage` to `vmlinux`.
///
/// The setup header says where the payload lies and how long it is
/// (Documentation/arch/x86/boot.rst: setup_sects, payload_offset, payload_length).
fn unpack_vmlinux(bzimage: &Path, vmlinux: &Path) -> Result<()> {
    let image = fs::read(bzimage)?;
    let payload = payload(&image).with_context(|| format!("{} is not a bzImage", bzimage.display()))?;
    let unpack: &[&str] = match payload {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => &["zstd", "-dc"],
        [0xfd, b'7', b'z', b'X', ..] => &["xz", "-dc"],
        [0x1f, 0x8b, ..] => &["gzip", "-dc"],
        [0x02, 0x21, 0x4c, 0x18, ..] => &["lz4", "-dc"],
        [0x7f, b'E', b'L', b'F', ..] => &["cat"],
        _ => bail!("the kernel's payload has a compression this does not know: {:02x?}", &payload[..4]),
    };
    // The kernel's build appends the unpacked size, except for gzip, which has it anyway.
    let payload = if unpack[0] == "gzip" { payload } else { &payload[..payload.len() - 4] };
    let mut child = command::program(unpack[0])
        .args(&unpack[1..])
        .stdin(Stdio::piped())
        .stdout(fs::File::create(vmlinux)?)
        .spawn()
        .with_context(|| format!("cannot start {}", unpack[0]))?;
    child.stdin.take().context("no pipe")?.write_all(payload)?;
    if !child.wait()?.success() {
        bail!("{} could not unpack the kernel's payload", unpack[0]);
    }
    if fs::read(vmlinux)?.get(..4) != Some(b"\x7fELF") {
        bail!("what is inside {} is not an ELF kernel", bzimage.display());
    }
    Ok(())
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?) as usize);
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let sectors = match *image.get(0x1f1)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * 512 + number(0x248)?;
    image.get(start..start + number(0x24c)?).filter(|payload| payload.len() > 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_cloud_kernel_is_chosen_by_number() {
        let names = [
            "linux-image-6.12.107+deb13-cloud-amd64",
            "linux-image-6.12.9+deb12-cloud-amd64",
            "linux-image-6.12.95+deb12-cloud-amd64",
            "linux-image-6.12.95+deb12-amd64",
        ]
        .map(str::to_owned);
        assert_eq!(newest(&names).unwrap(), "linux-image-6.12.95+deb12-cloud-amd64");
        assert_eq!(newest(&names[..1]).unwrap(), names[0]);
        assert_eq!(newest(&names[3..]), None);
    }

    #[test]
    fn the_payload_is_where_the_setup_header_says() {
        let mut image = vec![0; 4096];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&9_u32.to_le_bytes());
        image[1040..1049].copy_from_slice(b"\x7fELF12345");
        assert_eq!(payload(&image).unwrap(), b"\x7fELF12345");
        image[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(payload(&image), None);
        assert_eq!(payload(&image[..100]), None);
    }
}
