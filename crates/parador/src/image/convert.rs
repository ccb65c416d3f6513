//! `parador image convert`: a zoned disk is copied, between images and block devices of the host.

use std::fs::{File, OpenOptions};
use std::io::IsTerminal;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use parador_block::zoned::Condition;
use parador_block::zoned::convert::{Conversion, ConvertError, Drive, Source, Unfit};
use parador_block::{Aio, Image, RawOptions};
use parador_config::{Diagnostic, size};

use super::words::Words;
use super::{Outcome, Wrong, create, open, print};

/// Lost zones that are named one by one.
const NAMED: usize = 8;

pub(super) fn run(words: &Words) -> Outcome {
    let [(_, from), (_, to)] = words.rest.as_slice() else {
        return Err(words.usage("it takes what is copied, and what is made of it"));
    };
    let (from, to) = (Path::new(from), Path::new(to));
    if same(from, to) {
        return Err(refused(format!("{} and {} are the same", from.display(), to.display()), "name another"));
    }
    // An image is somebody's as long as this lives; a device has its own.
    let (source, _lock) = if is_device(from) {
        let options = RawOptions { read_only: true, aio: Aio::Sync, ..RawOptions::new(from) };
        (Source::device(Image::open_drive(&options).map_err(|e| open::wrong(&e, e.hint()))?), None)
    } else {
        let image = open::locked(from, true)?;
        (Source::image(&image.file).map_err(|e| open::not_usable(from, &e))?, Some(image))
    };
    let copy = if is_device(to) { to_device } else { to_image };
    copy(words, &source, from, to)?;
    let geometry = source.geometry();
    let (copied, zones) = (size(source.written()), geometry.zones());
    print(&format!("{}: {zones} zones of {}, {copied} copied\n", to.display(), size(geometry.zone_size)))
}

fn to_device(words: &Words, source: &Source, from: &Path, to: &Path) -> Result<(), Wrong> {
    let options = RawOptions { aio: Aio::Sync, ..RawOptions::new(to) };
    let drive: Drive = Image::open_drive(&options).map_err(|e| open::wrong(&e, e.hint()))?;
    let begun = Conversion::to_device(source, &drive, words.has("--force"));
    let begun = begun.map_err(|e| not_copied(from, to, &e))?;
    let conversion = begun.map_err(|unfit| {
        let hint = match unfit {
            Unfit::NotEmpty(_) | Unfit::MayNotBeEmpty(_) => "--force copies anyway: all on it is lost",
            Unfit::Active { .. } => "finish or reset some of the source's zones first",
            _ => "nothing on it has changed; make it with the zones that `parador image report` shows of the source",
        };
        let message = format!("{} cannot be made a copy of {}", to.display(), from.display());
        Wrong::Host(Diagnostic::new(message).cause(&unfit).hint(hint))
    })?;
    copy(conversion, source).map_err(|e| {
        eprintln!(
            "note: {} has a part of it now, and nothing of what was there; --force begins anew",
            to.display()
        );
        not_copied(from, to, &e)
    })?;
    let lost = source.lost();
    for (zone, condition) in lost.iter().take(NAMED) {
        let (is, becomes) = match condition {
            Condition::Offline => ("offline", "its zone is empty"),
            _ => ("read-only", "its zone can be written"),
        };
        eprintln!(
            "note: zone {zone} of {} is {is}, which a device cannot be made: {becomes}",
            from.display()
        );
    }
    if lost.len() > NAMED {
        eprintln!("note: and so for {} more zones", lost.len() - NAMED);
    }
    Ok(())
}

/// Makes an image beside `to`, which gets its name when it is whole.
fn to_image(words: &Words, source: &Source, from: &Path, to: &Path) -> Result<(), Wrong> {
    let before = to.metadata().ok();
    if let Some(metadata) = &before {
        let name = to.display();
        if !metadata.is_file() {
            let message = format!("{name} is there, and neither a regular file nor a block device");
            return Err(refused(message, "give the image another name"));
        }
        if !words.has("--force") {
            return Err(refused(
                format!("{name} is there already"),
                "--force replaces it: all in it is lost",
            ));
        }
        let file = open::to_look_at(to)?;
        if Image::is_locked(&file, false).unwrap_or(false) {
            return Err(refused(format!("{name} is in use"), "stop whoever has it open"));
        }
    }
    // Of a link it is the file that is replaced.
    let whole = to.canonicalize().unwrap_or_else(|_| to.to_owned());
    let part = part_of(&whole);
    let file = begun(&part)?;
    if let Some(metadata) = before {
        // As far as they are ours to set: what was there was, too.
        let _ = file.set_permissions(metadata.permissions());
    }
    let uuid = create::uuid().map_err(|e| create::not_made(to, "make", &e))?;
    let made = Conversion::to_image(source, &file, uuid)
        .map_err(|e| create::not_made(&part, "make", &e))
        .and_then(|conversion| copy(conversion, source).map_err(|e| not_copied(from, to, &e)))
        .and_then(|()| std::fs::rename(&part, &whole).map_err(|e| create::not_made(to, "make", &e)));
    if made.is_err() {
        // It is said already that it could not be made.
        let _ = std::fs::remove_file(&part);
        return made;
    }
    // Its name is durable with its folder; where that cannot be, the copy is still whole.
    let folder = whole.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// The name of an image that is not whole.
fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

/// The file `part`, empty; what an earlier attempt left there is gone.
fn begun(part: &Path) -> Result<File, Wrong> {
    let wrong = |e| create::not_made(part, "make", &e);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).open(part).map_err(wrong)?;
    if !Image::try_lock(&file).unwrap_or(true) {
        return Err(refused(format!("{} is in use", part.display()), "another conversion is making it"));
    }
    file.set_len(0).map_err(wrong)?;
    Ok(file)
}

/// Takes all steps, and says on a terminal how far they are.
fn copy(mut conversion: Conversion<'_>, source: &Source) -> Result<(), ConvertError> {
    let (all, shows) = (source.written(), std::io::stderr().is_terminal());
    let (mut done, mut shown) = (0, None);
    let result = loop {
        match conversion.step() {
            Ok(Some(bytes)) => done += bytes,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
        let percent = done.saturating_mul(100).checked_div(all);
        if shows && percent != shown {
            eprint!("\r{:3} % of {}", percent.unwrap_or(100), size(all));
            shown = percent;
        }
    };
    if shown.is_some() {
        eprint!("\r\x1b[K");
    }
    result
}

fn is_device(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device())
}

/// Whether two names are of one file, or of one device.
fn same(one: &Path, other: &Path) -> bool {
    let (Ok(one), Ok(other)) = (one.metadata(), other.metadata()) else { return false };
    let devices = one.file_type().is_block_device() && other.file_type().is_block_device();
    (one.dev(), one.ino()) == (other.dev(), other.ino()) || (devices && one.rdev() == other.rdev())
}

fn not_copied(from: &Path, to: &Path, error: &dyn std::error::Error) -> Wrong {
    let mut diagnostic =
        Diagnostic::new(format!("cannot copy {} to {}: {error}", from.display(), to.display()));
    if let Some(source) = error.source() {
        diagnostic = diagnostic.cause(source);
    }
    Wrong::Host(diagnostic)
}

fn refused(message: String, hint: &str) -> Wrong {
    Wrong::Host(Diagnostic::new(message).hint(hint))
}
