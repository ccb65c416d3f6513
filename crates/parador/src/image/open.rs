//! Images that are there.

use std::error::Error;
use std::fs::File;
use std::path::Path;

use parador_block::zoned::image::{ImageError, Metadata};
use parador_block::{Aio, Image, RawOptions};
use parador_config::Diagnostic;

use super::Wrong;

/// An image that is nobody else's as long as this lives.
pub(super) struct Locked {
    pub(super) file: File,
    _lock: Image,
}

/// Opens the file `path` for reading, and locks nothing.
pub(super) fn to_look_at(path: &Path) -> Result<File, Wrong> {
    let options = RawOptions { read_only: true, ..RawOptions::new(path) };
    Image::open_file(&options).map_err(|e| wrong(&e, e.hint()))
}

/// Opens the file `path` for reading and writing, and locks nothing.
pub(super) fn to_change(path: &Path) -> Result<File, Wrong> {
    Image::open_file(&RawOptions::new(path)).map_err(|e| wrong(&e, e.hint()))
}

/// Opens the image `path`, for writing unless it is `read_only`, and locks it.
pub(super) fn locked(path: &Path, read_only: bool) -> Result<Locked, Wrong> {
    let options = RawOptions { read_only, aio: Aio::Sync, ..RawOptions::new(path) };
    let file = Image::open_file(&options).map_err(|e| wrong(&e, e.hint()))?;
    let same = file.try_clone().map_err(|e| wrong(&e, None))?;
    let lock = Image::from_file(same, &options).map_err(|e| wrong(&e, e.hint()))?;
    Ok(Locked { file, _lock: lock })
}

/// The zones of the image `path`, to change them.
pub(super) fn zones(path: &Path, image: &Locked) -> Result<Metadata, Wrong> {
    Metadata::open(&image.file).map_err(|e| not_usable(path, &e))
}

/// That `path` is no zoned image that can be used.
pub(super) fn not_usable(path: &Path, error: &ImageError) -> Wrong {
    let name = path.display();
    let message = format!("cannot use {name} as a zoned disk image");
    let diagnostic = Diagnostic::new(message).cause(error);
    Wrong::Host(match error {
        ImageError::NotAnImage => {
            diagnostic.hint("`parador image create --zoned` makes one; a raw disk has no zones")
        }
        ImageError::Damaged(_) => {
            diagnostic.hint(format!("keep a copy of it as it is; `parador image check {name}` says more"))
        }
        ImageError::Newer(_) => {
            diagnostic.hint("use the version of this program that made it, or a newer one")
        }
        _ => diagnostic,
    })
}

/// That the host does not let us.
pub(super) fn wrong(error: &dyn Error, hint: Option<String>) -> Wrong {
    let mut diagnostic = Diagnostic::new(error.to_string());
    if let Some(source) = error.source() {
        diagnostic = diagnostic.cause(source);
    }
    Wrong::Host(match hint {
        Some(hint) => diagnostic.hint(hint),
        None => diagnostic,
    })
}
