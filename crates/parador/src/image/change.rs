//! `parador image reset` and `inject`: zones of an image are changed, by whoever has it open if somebody does.

use std::error::Error;
use std::ffi::OsStr;
use std::path::Path;

use parador_block::Image;
use parador_block::zoned::image::{self, Asked, Metadata};
use parador_block::zoned::{Condition, Geometry, Refusal};
use parador_config::{Diagnostic, Origin};

use super::words::Words;
use super::{Ended, Outcome, Wrong, open, print};
use crate::args;

/// How often who has an image is asked to make a zone fail: one that stops may be started anew.
const ASKS: u32 = 2;

pub(super) fn reset(words: &Words) -> Outcome {
    let Some(((_, file), listed)) = words.rest.split_first() else { return Err(words.usage("no FILE")) };
    if listed.is_empty() != words.has("--all") {
        return Err(words.usage("which zones? numbers, ranges such as 4-7, or --all"));
    }
    let path = Path::new(file);
    let image = open::locked(path, false)?;
    let metadata = open::zones(path, &image)?;
    let geometry = metadata.zones().geometry();
    let mut numbers = Vec::new();
    for (at, word) in listed {
        numbers.extend(zones_of(*at, word, geometry)?);
    }
    let done = emptied(&metadata, &numbers);
    // What was done is to last, whatever came after it.
    let closed = metadata.close();
    let count = done?;
    closed.map_err(|e| not_changed(path, &e))?;
    let zones = if count == 1 { "zone" } else { "zones" };
    print(&format!("{}: {count} {zones} reset\n", path.display()))
}

/// Resets the zones `numbers`, or all that are not empty if there are none; how many.
fn emptied(metadata: &Metadata, numbers: &[u32]) -> Result<usize, Wrong> {
    let zones = metadata.zones();
    let geometry = zones.geometry();
    let held = if numbers.is_empty() {
        zones.hold_all().map_err(|refusal| open::wrong(&refusal, None))?
    } else {
        let hold = |number: &u32| {
            zones.hold(geometry.start_of(*number)).map_err(|refusal| {
                let message = format!("zone {number} cannot be reset");
                let diagnostic = Diagnostic::new(message).cause(&refusal);
                Wrong::Host(match zones.zone(*number).condition {
                    _ if geometry.is_conventional(*number) => {
                        diagnostic.hint("it is conventional, and has no write pointer")
                    }
                    Condition::ReadOnly => diagnostic.hint("it is read-only, for good"),
                    Condition::Offline => diagnostic.hint("it is offline, for good"),
                    _ if refusal == Refusal::Busy => diagnostic.hint("name it once"),
                    _ => diagnostic,
                })
            })
        };
        numbers.iter().map(hold).collect::<Result<Vec<_>, _>>()?
    };
    for held in &held {
        metadata.reset(held).map_err(|e| {
            Wrong::Host(Diagnostic::new(format!("zone {} cannot be reset", held.zone())).cause(&e))
        })?;
    }
    Ok(held.len())
}

pub(super) fn inject(words: &Words) -> Outcome {
    let [(how_at, how), (zone_at, zone), (_, file)] = words.rest.as_slice() else {
        return Err(words.usage("it takes what the zone becomes, its number, and the image"));
    };
    let offline = match how.to_str() {
        Some("offline") => true,
        Some("read-only") => false,
        _ => {
            let message = format!("a zone cannot be made {}", args::quoted(how));
            let diagnostic = Diagnostic::new(message).at(Origin::Argument(*how_at));
            return Err(Wrong::Words(diagnostic.hint("it is read-only or offline")));
        }
    };
    let path = Path::new(file);
    let shared = open::to_change(path)?;
    let geometry = image::geometry(&shared).map_err(|e| open::not_usable(path, &e))?;
    let listed = zones_of(*zone_at, zone, &geometry)?;
    let [zone] = listed.as_slice() else { return Err(words.usage("one zone at a time")) };
    let failed = |cause: &dyn Error| {
        let hint = "a zone that is offline stays so";
        Wrong::Host(Diagnostic::new(format!("zone {zone} cannot be changed")).cause(cause).hint(hint))
    };
    let mut asked = 0;
    while asked < ASKS && Image::is_locked(&shared, false).unwrap_or(false) {
        asked += 1;
        match image::ask(&shared, *zone, offline).map_err(|e| open::not_usable(path, &e))? {
            Asked::Done => return Ok(Ended::Done),
            Asked::Refused => return Err(failed(&Refusal::InvalidCommand)),
            Asked::Failed(error) => return Err(failed(&error)),
            Asked::NoAnswer => {
                let message = format!("who has {} open does not answer", path.display());
                let hint = "the zone may still be changed: `parador image report` tells";
                return Err(Wrong::Host(Diagnostic::new(message).hint(hint)));
            }
            // It may have stopped meanwhile, or another one have started.
            Asked::Nobody => {}
        }
    }
    let image = open::locked(path, false)?;
    let metadata = open::zones(path, &image)?;
    // Who was asked may have done it before it stopped.
    let is_offline = metadata.zones().zone(*zone).condition == Condition::Offline;
    let is_done = asked > 0 && offline && is_offline;
    let done = if is_done { Ok(()) } else { metadata.fail(*zone, offline) };
    let closed = metadata.close();
    done.map_err(|e| failed(&e))?;
    closed.map_err(|e| not_changed(path, &e))?;
    Ok(Ended::Done)
}

/// The zones that `word`, the argument `at`, stands for: `N` or `N-M`.
fn zones_of(at: usize, word: &OsStr, geometry: &Geometry) -> Result<Vec<u32>, Wrong> {
    let text = word.to_string_lossy();
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number < geometry.zones());
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first..=last).collect()),
        _ => {
            let message = format!("there is no zone {}", args::quoted(word));
            let hint = format!("it has zones 0 to {}", geometry.zones() - 1);
            Err(Wrong::Words(Diagnostic::new(message).at(Origin::Argument(at)).hint(hint)))
        }
    }
}

fn not_changed(path: &Path, error: &std::io::Error) -> Wrong {
    Wrong::Host(Diagnostic::new(format!("cannot write to {}", path.display())).cause(error))
}
