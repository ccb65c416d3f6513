//! `parador image create`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use parador_block::zoned::image::{ImageError, Metadata};
use parador_block::zoned::{Geometry, GeometryError, MAX_ZONES};
use parador_block::{Image, RawOptions};
use parador_config::keys::Kind;
use parador_config::{Diagnostic, size};

use super::words::Words;
use super::{Outcome, Wrong, print};

/// Sizes of disks, in bytes.
const SIZES: Kind = Kind::Size { min: 512, max: 1 << 54 };
/// Zones of this size suit file systems, of which some want a hundred.
const ZONE_SIZE: u64 = 64 << 20;
/// What real disks have, and Linux assumes where nothing is said.
const LIMIT: u32 = 128;
/// The longest append unless more is asked for: what Linux sends with 254 segments.
const MAX_APPEND: u64 = 1016 << 10;

/// Options that only zones have.
static OF_ZONES: &[&str] = &[
    "--zone-size",
    "--zone-capacity",
    "--conventional",
    "--max-open",
    "--max-active",
    "--max-append",
    "--block-size",
];

pub(super) fn run(words: &Words) -> Outcome {
    let path = words.file()?;
    let bytes = words.of_kind("--size", SIZES)?.ok_or_else(|| words.usage("no --size"))?;
    let name = path.display();
    if words.has("--zoned") {
        let geometry = geometry(words, bytes)?;
        let new = New::make(path, words)?;
        let made = zoned(&new.file, geometry);
        new.keep_if(made.is_ok());
        made.map_err(|e| not_made(path, "make", &e))?;
        let zones = geometry.zones() - geometry.conventional;
        let conventional = match geometry.conventional {
            0 => String::new(),
            count => format!(", {count} conventional"),
        };
        return print(&format!(
            "{name}: {}, {zones} zones of {}{conventional}\n",
            size(bytes),
            size(geometry.zone_size)
        ));
    }
    if let Some(option) = OF_ZONES.iter().find(|option| words.has(option)) {
        let about = words.about(option, format!("{option} is for zones"));
        return Err(Wrong::Words(about.hint("say --zoned, too")));
    }
    if !bytes.is_multiple_of(512) {
        let about = words.about("--size", format!("a disk of {bytes} bytes is not whole sectors of 512"));
        return Err(Wrong::Words(about.hint(format!("such as --size {}", bytes.next_multiple_of(512)))));
    }
    let new = New::make(path, words)?;
    let made = new.file.set_len(bytes).and_then(|()| new.file.sync_all());
    new.keep_if(made.is_ok());
    made.map_err(|e| not_made(path, "make", &e))?;
    print(&format!("{name}: {}\n", size(bytes)))
}

/// The shape that is asked for.
fn geometry(words: &Words, capacity: u64) -> Result<Geometry, Wrong> {
    let small = |name: &str| -> Result<Option<u32>, Wrong> {
        Ok(words.number(name)?.and_then(|number| u32::try_from(number).ok()))
    };
    let zone_size = words.number("--zone-size")?.unwrap_or(ZONE_SIZE);
    let zone_capacity = words.number("--zone-capacity")?.unwrap_or(zone_size);
    let (open, active) = (small("--max-open")?, small("--max-active")?);
    let max_open = open.unwrap_or(match active {
        Some(0) | None => LIMIT,
        Some(active) => active.min(LIMIT),
    });
    let max_active = active.unwrap_or(if max_open == 0 { 0 } else { max_open.max(LIMIT) });
    let granularity = words.of_kind("--block-size", Kind::Size { min: 512, max: 4096 })?.unwrap_or(4096);
    let geometry = Geometry {
        zone_capacity,
        conventional: small("--conventional")?.unwrap_or(0),
        max_open,
        max_active,
        max_append: words.number("--max-append")?.unwrap_or(MAX_APPEND.min(zone_capacity)),
        granularity: granularity as u32, // at most 4096
        ..Geometry::new(capacity, zone_size)
    };
    geometry.checked().map_err(|error| Wrong::Words(blamed(words, &geometry, &error)))
}

/// What is wrong with `geometry`, about the option that says so, with one that would do.
fn blamed(words: &Words, geometry: &Geometry, error: &GeometryError) -> Diagnostic {
    let Geometry { capacity, zone_size, granularity, .. } = *geometry;
    let block = u64::from(granularity.max(512));
    let (option, hint) = match *error {
        GeometryError::Granularity(_) => ("--block-size", "--block-size 4096".to_owned()),
        GeometryError::ZoneSize(bytes) => (
            "--zone-size",
            format!("--zone-size {}", size(bytes.next_power_of_two().clamp(64 << 10, 1 << 40))),
        ),
        GeometryError::ZoneCapacity { .. } => {
            ("--zone-capacity", format!("--zone-capacity {}", size(zone_size)))
        }
        GeometryError::Capacity(bytes) if bytes < zone_size && !words.has("--zone-size") => {
            ("--size", format!("--zone-size {}", size((bytes / 16).next_power_of_two().max(64 << 10))))
        }
        GeometryError::Capacity(bytes) => {
            ("--size", format!("--size {}", size(bytes.next_multiple_of(block).max(zone_size))))
        }
        GeometryError::Zones(_) => {
            let least = capacity.div_ceil(u64::from(MAX_ZONES)).next_power_of_two();
            ("--zone-size", format!("--zone-size {}", size(least)))
        }
        GeometryError::ShortLastZone => {
            ("--size", format!("--size {}", size(capacity.next_multiple_of(zone_size))))
        }
        GeometryError::Conventional { zones, .. } => {
            ("--conventional", format!("--conventional {}", zones - 1))
        }
        GeometryError::Limits { max_active, .. } => {
            let option = if words.has("--max-open") { "--max-open" } else { "--max-active" };
            (option, format!("--max-open {max_active}"))
        }
        GeometryError::MaxAppend(_) => {
            ("--max-append", format!("--max-append {}", size(MAX_APPEND.min(geometry.zone_capacity))))
        }
        // There are no others yet.
        _ => ("--zoned", "see `parador image create --help`".to_owned()),
    };
    words.about(option, error.to_string()).hint(format!("such as {hint}"))
}

/// Makes `file`, which is empty, a zoned image.
fn zoned(file: &File, geometry: Geometry) -> io::Result<()> {
    let host = |error| match error {
        ImageError::Host { source, .. } => source,
        other => io::Error::other(other),
    };
    file.set_len(Metadata::create(file, geometry, uuid()?).map_err(host)?)?;
    file.sync_all()
}

/// A new image's own name.
pub(super) fn uuid() -> io::Result<[u8; 16]> {
    let mut uuid = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut uuid)?;
    // Version 4, variant 1 (RFC 9562).
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Ok(uuid)
}

/// A file that is being made.
struct New<'a> {
    file: File,
    /// What to take away if that fails.
    made: Option<&'a Path>,
}

impl<'a> New<'a> {
    /// Makes the file `path`, or empties the one that is there if `words` allow it.
    fn make(path: &'a Path, words: &Words) -> Result<Self, Wrong> {
        let made = OpenOptions::new().read(true).write(true).create_new(true).open(path);
        match made {
            Ok(file) => return Ok(Self { file, made: Some(path) }),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(not_made(path, "make", &e)),
        }
        let name = path.display();
        let refused = |message: String, hint: &str| Wrong::Host(Diagnostic::new(message).hint(hint));
        if !path.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err(refused(
                format!("{name} is there, and no regular file"),
                "give the image another name",
            ));
        }
        if !words.has("--force") {
            return Err(refused(
                format!("{name} is there already"),
                "--force makes it anew: all in it is lost",
            ));
        }
        let file = Image::open_file(&RawOptions::new(path)).map_err(|e| super::open::wrong(&e, e.hint()))?;
        if Image::is_locked(&file, false).unwrap_or(false) {
            return Err(refused(format!("{name} is in use"), "stop whoever has it open"));
        }
        file.set_len(0).map_err(|e| not_made(path, "empty", &e))?;
        Ok(Self { file, made: None })
    }

    fn keep_if(&self, good: bool) {
        if let Some(path) = self.made.filter(|_| !good) {
            // It is said already that it could not be made.
            let _ = std::fs::remove_file(path);
        }
    }
}

pub(super) fn not_made(path: &Path, action: &str, error: &io::Error) -> Wrong {
    let diagnostic = Diagnostic::new(format!("cannot {action} {}", path.display())).cause(error);
    Wrong::Host(match error.kind() {
        io::ErrorKind::NotFound => diagnostic.hint("its folder must exist"),
        io::ErrorKind::FileTooLarge => diagnostic.hint("the file system has no files of that size"),
        io::ErrorKind::Unsupported => diagnostic.hint("the file system must have files with holes"),
        _ => diagnostic,
    })
}
