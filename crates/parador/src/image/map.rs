//! Zones as a picture: one place for each, in rows.

use std::fmt::Write;

use parador_block::zoned::image::Look;
use parador_block::zoned::{Condition, Zone};

use super::show::{CONDITIONS, counted};

/// Zones in a row, with colour and without.
const IN_A_ROW: [usize; 2] = [64, 32];
/// Fill, in eighths.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const PLAIN: &str = "\x1b[0m";

/// How a zone is drawn: its colour, its sign there, and its letter where there is no colour.
fn sign(condition: Condition) -> (&'static str, Option<char>, char) {
    match condition {
        Condition::NotWritePointer => ("\x1b[35m", Some('▒'), '='),
        Condition::Empty => ("\x1b[90m", Some('·'), '.'),
        // A bar as high as it is full.
        Condition::ImplicitlyOpen => ("\x1b[32m", None, 'o'),
        Condition::ExplicitlyOpen => ("\x1b[36m", None, 'O'),
        Condition::Closed => ("\x1b[33m", None, 'c'),
        Condition::Full => ("\x1b[34m", Some('█'), '#'),
        Condition::ReadOnly => ("\x1b[31m", Some('r'), 'r'),
        Condition::Offline => ("\x1b[31m", Some('x'), 'x'),
    }
}

/// The zones of `look` in rows, equal rows once, and what the signs mean. In colour, the height of a bar
/// is how much of the zone is written; otherwise the tenths are a digit behind the letter.
pub(super) fn drawn(look: &Look, colour: bool) -> String {
    let mut text = String::new();
    let per_row = IN_A_ROW[usize::from(!colour)];
    let width = look.zones.len().to_string().len().max(4);
    let (mut before, mut same) = (String::new(), 0);
    for (row, zones) in look.zones.chunks(per_row).enumerate() {
        let drawn = if colour { coloured(zones) } else { plain(zones) };
        if drawn == before && (row + 1) * per_row < look.zones.len() {
            same += 1;
            continue;
        }
        if same > 0 {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{:>width$}  {same} more such rows", "*");
            same = 0;
        }
        let _ = writeln!(text, "{:>width$}  {drawn}", row * per_row);
        before = drawn;
    }
    let counts = counted(&look.zones);
    let known = CONDITIONS.iter().filter_map(|(condition, _, name)| {
        let (_, count) = counts.iter().find(|(counted, _)| counted == name)?;
        let (paint, mark, letter) = sign(*condition);
        let mark = mark.unwrap_or(BARS[4]);
        Some(if colour {
            format!("{paint}{mark}{PLAIN} {count} {name}")
        } else {
            format!("{letter} {count} {name}")
        })
    });
    text + &known.collect::<Vec<_>>().join("   ") + "\n"
}

/// How much of `zone` is written, in parts of `whole`; at least one if there is anything.
fn fill(zone: &Zone, whole: u64) -> u64 {
    let written = zone.write_pointer.map_or(0, |pointer| pointer.saturating_sub(zone.start));
    (written.saturating_mul(whole) / zone.capacity.max(1)).clamp(u64::from(written > 0), whole)
}

fn coloured(zones: &[Zone]) -> String {
    let mut text = String::new();
    let mut current = "";
    for zone in zones {
        let (paint, mark, _) = sign(zone.condition);
        if paint != current {
            text.push_str(paint);
            current = paint;
        }
        let bar = || BARS[usize::try_from(fill(zone, 8).saturating_sub(1)).unwrap_or(0).min(7)];
        text.push(mark.unwrap_or_else(bar));
    }
    text + PLAIN
}

fn plain(zones: &[Zone]) -> String {
    let mut text = String::new();
    for zone in zones {
        let (_, mark, letter) = sign(zone.condition);
        text.push(letter);
        match mark {
            None => text.push_str(&fill(zone, 10).min(9).to_string()),
            Some(_) => text.push(' '),
        }
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use parador_block::zoned::Geometry;

    use super::*;

    fn look(zones: u64, change: impl Fn(u64, &mut Zone)) -> Look {
        let geometry = Geometry::new(zones << 20, 1 << 20);
        let zone = |number: u64| {
            let start = number << 20;
            let mut zone =
                Zone { start, capacity: 1 << 20, condition: Condition::Empty, write_pointer: Some(start) };
            change(number, &mut zone);
            zone
        };
        let zones = (0..zones).map(zone).collect();
        Look { uuid: [0; 16], geometry, data_offset: 0, live: false, zones }
    }

    #[test]
    fn each_zone_has_its_letter_and_its_tenths() {
        let look = look(6, |number, zone| {
            let (condition, written) = [
                (Condition::NotWritePointer, None),
                (Condition::ImplicitlyOpen, Some(4096)),
                (Condition::Closed, Some(512 << 10)),
                (Condition::ExplicitlyOpen, Some(0)),
                (Condition::Full, None),
                (Condition::Empty, Some(0)),
            ][number as usize];
            (zone.condition, zone.write_pointer) = (condition, written.map(|written| zone.start + written));
        });
        let text = drawn(&look, false);
        assert!(
            text.starts_with("   0  = o1c5O0# .\n= 1 conventional   . 1 empty   o 1 implicit-open"),
            "{text}"
        );
        let text = drawn(&look, true);
        assert!(text.contains("▒\x1b[32m▁\x1b[33m▄\x1b[36m▁\x1b[34m█\x1b[90m·\x1b[0m"), "{text}");
    }

    #[test]
    fn rows_that_are_the_same_are_drawn_once() {
        let text = drawn(&look(320, |_, _| {}), false);
        let row = ". ".repeat(32);
        let row = row.trim_end();
        assert_eq!(text, format!("   0  {row}\n   *  8 more such rows\n 288  {row}\n. 320 empty\n"));
    }
}
