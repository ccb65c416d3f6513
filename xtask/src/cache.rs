//! Where things that take long to make are kept between runs.
//!
//! `$PARADOR_CACHE`, else `$XDG_CACHE_HOME/parador`, else `~/.cache/parador`: outside the source
//! tree, so that every checkout shares one copy and `cargo clean` does not throw it away.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The cache's folder, made if it is not there.
pub fn dir() -> Result<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let dir = if let Some(dir) = var("PARADOR_CACHE") {
        dir
    } else if let Some(dir) = var("XDG_CACHE_HOME") {
        dir.join("parador")
    } else if let Some(home) = var("HOME") {
        home.join(".cache/parador")
    } else {
        bail!("no place for the cache\nhint: set PARADOR_CACHE to a folder");
    };
    fs::create_dir_all(&dir).with_context(|| format!("cannot make the cache folder {}", dir.display()))?;
    Ok(dir)
}

/// The folder that `build` fills once for this `recipe`, shared by every later call.
///
/// `recipe` is everything the result depends on that this source tree decides: another recipe is
/// another folder. `build` works in a folder of its own that is renamed when it has succeeded, so
/// an interrupted run leaves nothing that looks finished; a lock makes a second process wait.
pub fn entry(name: &str, recipe: &[&str], build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    entry_in(&dir()?, name, recipe, build)
}

/// Holds the lock called `name` until the returned file is dropped.
pub fn lock(name: &str) -> Result<File> {
    lock_in(&dir()?, name)
}

/// Holds one of the `count` places called `name` until the returned file is dropped; waits while all
/// are taken.
pub fn place(name: &str, count: usize) -> Result<File> {
    place_in(&dir()?, name, count)
}

fn place_in(cache: &Path, name: &str, count: usize) -> Result<File> {
    loop {
        for number in 0..count {
            let file = open_lock(cache, &format!("{name}-{number}"))?;
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(fs::TryLockError::WouldBlock) => {}
                Err(fs::TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {name}-{number}"));
                }
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn entry_in(
    cache: &Path,
    name: &str,
    recipe: &[&str],
    build: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    recipe.hash(&mut hasher);
    let ready = cache.join(format!("{name}-{:016x}", hasher.finish()));
    if ready.is_dir() {
        return Ok(ready);
    }
    let _lock = lock_in(cache, name)?;
    if ready.is_dir() {
        return Ok(ready);
    }
    let unfinished = cache.join(format!("{name}.unfinished"));
    remove(&unfinished)?;
    fs::create_dir_all(&unfinished)?;
    build(&unfinished).with_context(|| format!("cannot make `{name}`"))?;
    fs::rename(&unfinished, &ready)?;
    Ok(ready)
}

fn lock_in(cache: &Path, name: &str) -> Result<File> {
    let file = open_lock(cache, name)?;
    file.lock().with_context(|| format!("cannot lock {name}"))?;
    Ok(file)
}

fn open_lock(cache: &Path, name: &str) -> Result<File> {
    let path = cache.join(format!("{name}.lock"));
    let file = File::options().create(true).append(true).open(&path);
    file.with_context(|| format!("cannot open {}", path.display()))
}

/// Removes `path` with everything in it; it not being there is fine. With something mounted in it,
/// it is left alone: what would be removed is somebody else's.
pub fn remove(path: &Path) -> Result<()> {
    if let Ok(real) = path.canonicalize() {
        let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
        if let Some(mount) = mount_below(&mounts, &real) {
            bail!("{mount} is mounted inside {}\nhint: unmount it", path.display());
        }
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The first place of a table of mounts (as in `/proc/self/mounts`) that is `path` or inside it.
fn mount_below<'a>(mounts: &'a str, path: &Path) -> Option<&'a str> {
    mounts.lines().filter_map(|line| line.split(' ').nth(1)).find(|place| Path::new(place).starts_with(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_build_leaves_nothing_and_the_next_one_counts() {
        let cache = tempfile::tempdir().unwrap();
        let failed = entry_in(cache.path(), "thing", &["1"], |dir| {
            fs::write(dir.join("half"), "half")?;
            bail!("interrupted")
        });
        assert!(failed.is_err());
        let made = entry_in(cache.path(), "thing", &["1"], |dir| {
            assert!(!dir.join("half").exists());
            Ok(fs::write(dir.join("whole"), "whole")?)
        });
        let made = made.unwrap();
        assert!(made.join("whole").exists());
        let again = entry_in(cache.path(), "thing", &["1"], |_| bail!("built twice")).unwrap();
        assert_eq!(again, made);
        let other = entry_in(cache.path(), "thing", &["2"], |_| Ok(())).unwrap();
        assert_ne!(other, made);
    }

    #[test]
    fn as_many_have_a_place_as_there_are() {
        let cache = tempfile::tempdir().unwrap();
        let first = place_in(cache.path(), "seat", 2).unwrap();
        let second = place_in(cache.path(), "seat", 2).unwrap();
        std::thread::scope(|scope| {
            let third = scope.spawn(|| place_in(cache.path(), "seat", 2).unwrap());
            std::thread::sleep(Duration::from_millis(50));
            assert!(!third.is_finished(), "two seats, three holders");
            drop(first);
            third.join().unwrap();
        });
        drop(second);
    }

    #[test]
    fn a_folder_with_a_mount_inside_is_left_alone() {
        let mounts = "proc /proc proc rw 0 0\ndev /a/b/dev devtmpfs rw 0 0\n";
        assert_eq!(mount_below(mounts, Path::new("/a/b")), Some("/a/b/dev"));
        assert_eq!(mount_below(mounts, Path::new("/a/b/dev")), Some("/a/b/dev"));
        assert_eq!(mount_below(mounts, Path::new("/a/b/de")), None);
    }
}
