//! Writes initramfs archives: the "newc" cpio format of the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst.
//!
//! Written here because the archive needs root's ownership and a device node without being root,
//! and because a lab run packs one in milliseconds.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive being written. Parents must be added before what is in them.
pub struct Archive<W: Write> {
    out: W,
    entries: u32,
}

impl<W: Write> Archive<W> {
    /// An empty archive written to `out`.
    pub fn new(out: W) -> Self {
        Archive { out, entries: 0 }
    }

    /// Adds an empty folder at `path` (relative, as all paths here).
    pub fn folder(&mut self, path: &str) -> Result<()> {
        self.entry(path, DIRECTORY | 0o755, (0, 0), &[])
    }

    /// Adds the character device `major`:`minor`.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) -> Result<()> {
        self.entry(path, CHARACTER_DEVICE | 0o600, (major, minor), &[])
    }

    /// Adds a file with the given permissions.
    pub fn file(&mut self, path: &str, mode: u32, data: &[u8]) -> Result<()> {
        self.entry(path, FILE | mode, (0, 0), data)
    }

    /// Adds a copy of the file or folder `source`, with everything below it.
    pub fn copy(&mut self, path: &str, source: &Path) -> Result<()> {
        let metadata = fs::metadata(source).with_context(|| format!("cannot read {}", source.display()))?;
        if !metadata.is_dir() {
            let data = fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
            return self.file(path, metadata.permissions().mode() & 0o777, &data);
        }
        self.folder(path)?;
        let mut names = fs::read_dir(source)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        for name in names {
            self.copy(&format!("{path}/{name}"), &source.join(&name))?;
        }
        Ok(())
    }

    /// Ends the archive and returns what it was written to.
    pub fn finish(mut self) -> Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), data: &[u8]) -> Result<()> {
        self.entries += 1;
        let size = u32::try_from(data.len()).with_context(|| format!("{path} is too large for cpio"))?;
        let name_size = u32::try_from(path.len() + 1)?;
        let links = if mode & DIRECTORY != 0 { 2 } else { 1 };
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        header.push_str(path);
        header.push('\0');
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(padding(header.len()))?;
        self.out.write_all(data)?;
        self.out.write_all(padding(data.len()))?;
        Ok(())
    }
}

/// What brings `length` to a multiple of four.
fn padding(length: usize) -> &'static [u8] {
    &[0; 3][..(4 - length % 4) % 4]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_end_with_the_trailer() {
        let mut archive = Archive::new(Vec::new());
        archive.folder("dev").unwrap();
        archive.character_device("dev/console", 5, 1).unwrap();
        archive.file("init", 0o755, b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        // Walk it as the kernel does.
        let field = |at: usize, index: usize| {
            let start = at + 6 + 8 * index;
            usize::from_str_radix(std::str::from_utf8(&bytes[start..start + 8]).unwrap(), 16).unwrap()
        };
        let mut at = 0;
        let mut found = Vec::new();
        while at < bytes.len() {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let (size, name_size) = (field(at, 6), field(at, 11));
            let name = &bytes[at + 110..at + 110 + name_size - 1];
            let data = (at + 110 + name_size).next_multiple_of(4);
            found.push((String::from_utf8_lossy(name).into_owned(), bytes[data..data + size].to_vec()));
            at = (data + size).next_multiple_of(4);
        }
        let names = found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
        assert_eq!(names, ["dev", "dev/console", "init", "TRAILER!!!"]);
        assert_eq!(found[2].1, b"hello");
    }
}
