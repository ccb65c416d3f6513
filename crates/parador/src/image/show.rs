//! `parador image info` and `report`: what an image is, and how its zones are.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use parador_block::Image;
use parador_block::zoned::image::{ImageError, Look};
use parador_block::zoned::{Condition, Geometry, Zone};
use parador_config::size;
use serde_json::{Value, json};

use super::words::Words;
use super::{Outcome, map, open, print};
use crate::messages;

/// How often an image is looked at that somebody is changing, and after how long.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// An image that was looked at.
pub(super) struct Seen {
    pub(super) look: Look,
    /// Whether somebody has it open for writing.
    pub(super) in_use: bool,
}

impl Seen {
    /// Looks at the zoned image in `file`.
    fn at(file: &File) -> Result<Self, ImageError> {
        let in_use = || Image::is_locked(file, true).unwrap_or(false);
        for _ in 1..LOOKS {
            match Look::at(file) {
                Ok(look) => return Ok(Self { look, in_use: in_use() }),
                // It may be half written at the moment.
                Err(ImageError::Damaged(_)) if in_use() => std::thread::sleep(PAUSE),
                Err(error) => return Err(error),
            }
        }
        Ok(Self { look: Look::at(file)?, in_use: in_use() })
    }

    /// Who has it.
    fn held(&self) -> &'static str {
        match (self.in_use, self.look.live) {
            (true, _) => "in use",
            (false, true) => "left by a process that was killed",
            (false, false) => "not in use",
        }
    }
}

/// Every condition, with what blkzone(8) calls it and what we do, in the order of their numbers.
pub(super) static CONDITIONS: &[(Condition, &str, &str)] = &[
    (Condition::NotWritePointer, "nw", "conventional"),
    (Condition::Empty, "em", "empty"),
    (Condition::ImplicitlyOpen, "oi", "implicit-open"),
    (Condition::ExplicitlyOpen, "oe", "explicit-open"),
    (Condition::Closed, "cl", "closed"),
    (Condition::ReadOnly, "ro", "read-only"),
    (Condition::Full, "fu", "full"),
    (Condition::Offline, "of", "offline"),
];

/// What blkzone(8) calls `condition`, and what we do.
fn names(condition: Condition) -> (&'static str, &'static str) {
    let found = CONDITIONS.iter().find(|(known, ..)| *known == condition);
    found.map_or(("??", "unknown"), |(_, short, long)| (*short, *long))
}

/// How many of `zones` are in each condition that any is in.
pub(super) fn counted(zones: &[Zone]) -> Vec<(&'static str, usize)> {
    let count = |condition| zones.iter().filter(|zone| zone.condition == condition).count();
    let all = CONDITIONS.iter().map(|(condition, _, name)| (*name, count(*condition)));
    all.filter(|(_, count)| *count > 0).collect()
}

pub(super) fn info(words: &Words) -> Outcome {
    let path = words.file()?;
    let file = open::to_look_at(path)?;
    let (bytes, taken) = file
        .metadata()
        .map(|metadata| (metadata.len(), metadata.blocks() * 512))
        .map_err(|e| open::wrong(&e, None))?;
    let object = match Seen::at(&file) {
        Err(ImageError::NotAnImage) => {
            let in_use = Image::is_locked(&file, true).unwrap_or(false);
            if !words.has("--json") {
                let held = if in_use { ", in use" } else { "" };
                let text = format!("{}: no zoned image; a raw disk of {}{held}", path.display(), size(bytes));
                return print(&format!("{text}\nspace         {} taken\n", size(taken)));
            }
            json!({ "format": "raw", "size": bytes, "space_taken": taken, "in_use": in_use })
        }
        Err(error) => return Err(open::not_usable(path, &error)),
        Ok(seen) if words.has("--json") => {
            let Look { geometry, uuid, data_offset, live, ref zones } = seen.look;
            json!({
                "format": "zoned",
                "uuid": text_of(&uuid),
                "size": geometry.capacity,
                "zones": geometry.zones(),
                "zone_size": geometry.zone_size,
                "zone_capacity": geometry.zone_capacity,
                "conventional": geometry.conventional,
                "max_open": geometry.max_open,
                "max_active": geometry.max_active,
                "max_append": geometry.max_append,
                "block_size": geometry.granularity,
                "data_offset": data_offset,
                "file_size": bytes,
                "space_taken": taken,
                "in_use": seen.in_use,
                "closed": !live,
                "conditions": counted(zones).into_iter().collect::<BTreeMap<_, _>>(),
            })
        }
        Ok(seen) => return print(&described(path, &seen, taken)),
    };
    print(&format!("{object:#}\n"))
}

fn described(path: &Path, seen: &Seen, taken: u64) -> String {
    let Look { geometry, uuid, data_offset, ref zones, live: _ } = seen.look;
    let Geometry { capacity, zone_size, zone_capacity, conventional, max_append, granularity, .. } = geometry;
    let mut text = format!("{}: a zoned disk of {}, {}\n", path.display(), size(capacity), seen.held());
    let mut line = |name: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<14}{value}");
    };
    let of = match conventional {
        0 => String::new(),
        count => format!(", the first {count} conventional"),
    };
    line("zones", format!("{} of {}{of}", geometry.zones(), size(zone_size)));
    if zone_capacity != zone_size {
        line("capacity", format!("{} of each", size(zone_capacity)));
    }
    let limit = |limit: u32| if limit == 0 { "any number".to_owned() } else { format!("at most {limit}") };
    line("open", limit(geometry.max_open));
    line("active", limit(geometry.max_active));
    line("append", format!("at most {}", size(max_append)));
    line("block", size(u64::from(granularity)));
    line("uuid", text_of(&uuid));
    line("space", format!("{} taken; data begins at {}", size(taken), size(data_offset)));
    let counts: Vec<_> = counted(zones).iter().map(|(name, count)| format!("{count} {name}")).collect();
    line("now", counts.join(", "));
    text
}

pub(super) fn report(words: &Words) -> Outcome {
    let path = words.file()?;
    if words.has("--json") && words.has("--map") {
        return Err(words.usage("--json and --map are two forms: one at a time"));
    }
    let file = open::to_look_at(path)?;
    let seen = Seen::at(&file).map_err(|error| open::not_usable(path, &error))?;
    if words.has("--json") {
        return print(&format!("{:#}\n", object(&seen)));
    }
    if words.has("--map") {
        let colour = messages::colour(&std::io::stdout());
        let head = format!("{}: {}\n", path.display(), seen.held());
        return print(&(head + &map::drawn(&seen.look, colour)));
    }
    if seen.in_use && std::io::stdout().is_terminal() {
        eprintln!("note: {} is in use: this is how its zones are at the moment", path.display());
    }
    print(&lines(&seen.look))
}

/// All zones, for a program. Sizes and offsets are in bytes.
fn object(seen: &Seen) -> Value {
    let Look { geometry, zones, .. } = &seen.look;
    let zone = |(number, zone): (usize, &Zone)| {
        json!({
            "zone": number,
            "start": zone.start,
            "length": length(geometry, zone),
            "capacity": zone.capacity,
            "write_pointer": zone.write_pointer,
            "condition": names(zone.condition).1,
        })
    };
    let zones: Vec<_> = zones.iter().enumerate().map(zone).collect();
    json!({ "in_use": seen.in_use, "closed": !seen.look.live, "zones": zones })
}

/// All zones, in the lines of `blkzone report` of util-linux 2.39: numbers are sectors of 512 bytes, the
/// write pointer counts from the zone's start.
fn lines(look: &Look) -> String {
    let mut text = String::new();
    for (number, zone) in (0..).zip(&look.zones) {
        let (start, capacity) = (zone.start / 512, zone.capacity / 512);
        let length = length(&look.geometry, zone) / 512;
        let pointer = match (zone.write_pointer, zone.condition) {
            (Some(pointer), _) => (pointer - zone.start) / 512,
            (None, Condition::Full) => length,
            (None, _) => 0,
        };
        let kind =
            if look.geometry.is_conventional(number) { "1(CONVENTIONAL)" } else { "2(SEQ_WRITE_REQUIRED)" };
        let (condition, name) = (zone.condition as u8, names(zone.condition).0);
        let _ = writeln!(
            text,
            "  start: {start:#011x}, len {length:#08x}, cap {capacity:#08x}, wptr {pointer:#08x} \
             reset:0 non-seq:0, zcond:{condition:2}({name}) [type: {kind}]",
        );
    }
    text
}

/// From the start of `zone` to its end, which the last one may reach earlier.
fn length(geometry: &Geometry, zone: &Zone) -> u64 {
    geometry.zone_size.min(geometry.capacity - zone.start)
}

fn text_of(uuid: &[u8; 16]) -> String {
    let mut text = String::new();
    for (index, byte) in uuid.iter().enumerate() {
        let dash = if [4, 6, 8, 10].contains(&index) { "-" } else { "" };
        let _ = write!(text, "{dash}{byte:02x}");
    }
    text
}
