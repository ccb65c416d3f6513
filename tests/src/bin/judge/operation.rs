//! One thing to do to a zoned disk, chosen at random.

use crate::disk::{BLOCK_SECTORS, Condition, Zone};
use crate::ioctl::Command;
use crate::random::Random;
use crate::tolerance::Limits;

/// The longest read or write, in blocks: what goes to a disk in one request (`queue/max_sectors_kb`), so that none
/// is done by half.
pub(crate) const MAX_BLOCKS: u64 = 16;

/// Everything in sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Write { sector: u64, sectors: u64 },
    Read { sector: u64, sectors: u64 },
    Command { command: Command, sector: u64, sectors: u64 },
    ResetAll { sectors: u64 },
    Sync,
}

impl Operation {
    /// What would be likely to happen next to a disk with these zones: mostly what is allowed, in few zones.
    pub(crate) fn choose(random: &mut Random, zones: &[Zone], limits: Limits) -> Operation {
        let zone = favourite(random, zones);
        match random.below(1000) {
            0..400 => at_pointer(random, zone),
            400..460 => elsewhere(random, zone),
            460..510 => across_end(random, zones, zone),
            510..610 => read(random, zones, zone),
            610..680 => one(Command::Open, zone),
            680..730 => one(Command::Close, zone),
            730..760 => one(Command::Finish, zone),
            760..840 => one(Command::Reset, zone),
            840..930 => several(random, zones, limits),
            930..996 => Operation::Sync,
            _ => Operation::ResetAll { sectors: disk_end(zones) },
        }
    }

    /// The sectors that it is about.
    pub(crate) fn range(&self) -> Option<(u64, u64)> {
        match *self {
            Operation::Write { sector, sectors }
            | Operation::Read { sector, sectors }
            | Operation::Command { sector, sectors, .. } => Some((sector, sectors)),
            Operation::ResetAll { sectors } => Some((0, sectors)),
            Operation::Sync => None,
        }
    }
}

/// One of few zones mostly, so that they fill up and come to their limits.
fn favourite<'a>(random: &mut Random, zones: &'a [Zone]) -> &'a Zone {
    let active = zones.iter().filter(|zone| zone.is_active()).collect::<Vec<_>>();
    if !active.is_empty() && random.chance(50) {
        return active[random.below(active.len() as u64) as usize];
    }
    &zones[random.below(zones.len() as u64) as usize]
}

/// A length in blocks, short ones more often.
fn length(random: &mut Random) -> u64 {
    let most = [1, 4, MAX_BLOCKS, MAX_BLOCKS][random.below(4) as usize];
    1 + random.below(most)
}

fn at_pointer(random: &mut Random, zone: &Zone) -> Operation {
    if zone.condition == Condition::Conventional {
        return elsewhere(random, zone);
    }
    // A zone that is full or lost has none; the answer is the same everywhere in it.
    let sector = zone.pointer.max(zone.start);
    let left = zone.end().saturating_sub(sector) / BLOCK_SECTORS;
    let mut blocks = length(random);
    if left > 0 && (random.chance(80) || left == blocks) {
        blocks = blocks.min(left);
    }
    Operation::Write { sector, sectors: blocks * BLOCK_SECTORS }
}

fn elsewhere(random: &mut Random, zone: &Zone) -> Operation {
    let blocks = zone.len / BLOCK_SECTORS;
    let at = random.below(blocks);
    let sectors = length(random).min(blocks - at) * BLOCK_SECTORS;
    Operation::Write { sector: zone.start + at * BLOCK_SECTORS, sectors }
}

/// A write that begins before the end of a zone or of its capacity, and ends behind it.
fn across_end(random: &mut Random, zones: &[Zone], zone: &Zone) -> Operation {
    let end = if random.chance(50) { zone.end() } else { zone.start + zone.len };
    let before = (1 + random.below(MAX_BLOCKS / 2)) * BLOCK_SECTORS;
    let behind = (1 + random.below(MAX_BLOCKS / 2)) * BLOCK_SECTORS;
    let sector = end - before;
    Operation::Write { sector, sectors: (before + behind).min(disk_end(zones) - sector) }
}

/// A read around a write pointer, a zone's end, or anywhere.
fn read(random: &mut Random, zones: &[Zone], zone: &Zone) -> Operation {
    let near = match random.below(3) {
        0 => zone.pointer.max(zone.start),
        1 => zone.start + zone.len,
        _ => zone.start + random.below(zone.len / BLOCK_SECTORS) * BLOCK_SECTORS,
    };
    let sector = near.saturating_sub(random.below(MAX_BLOCKS) * BLOCK_SECTORS);
    let sector = sector.min(disk_end(zones) - BLOCK_SECTORS);
    Operation::Read { sector, sectors: (length(random) * BLOCK_SECTORS).min(disk_end(zones) - sector) }
}

fn one(command: Command, zone: &Zone) -> Operation {
    Operation::Command { command, sector: zone.start, sectors: zone.len }
}

/// A command for two to five zones in a row, which Linux makes a request for each of. What opens zones is not asked for
/// where there is a limit: which ones come first, and what one of them that differs does to the others, is not of interest.
fn several(random: &mut Random, zones: &[Zone], limits: Limits) -> Operation {
    let mut commands = vec![Command::Reset, Command::Close];
    if limits == (Limits { open: 0, active: 0 }) {
        commands.extend([Command::Open, Command::Finish]);
    }
    let command = commands[random.below(commands.len() as u64) as usize];
    let from = random.below(zones.len() as u64) as usize;
    let zones = &zones[from..zones.len().min(from + 2 + random.below(4) as usize)];
    Operation::Command { command, sector: zones[0].start, sectors: zones.iter().map(|zone| zone.len).sum() }
}

fn disk_end(zones: &[Zone]) -> u64 {
    zones.last().map_or(0, |zone| zone.start + zone.len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones() -> Vec<Zone> {
        let zone = |index: u64| Zone {
            start: index * 2048,
            len: 2048,
            capacity: 2048,
            pointer: index * 2048,
            condition: Condition::Empty,
        };
        let mut zones = (0..16).map(zone).collect::<Vec<_>>();
        zones[0].condition = Condition::Conventional;
        zones[15].len = 1024;
        zones[15].capacity = 1024;
        zones
    }

    #[test]
    fn nothing_is_done_beyond_the_disk_and_every_kind_is() {
        let zones = zones();
        let mut random = Random(1);
        let mut kinds = [0; 5];
        for _ in 0..20_000 {
            let operation = Operation::choose(&mut random, &zones, Limits { open: 0, active: 0 });
            let kind = match operation {
                Operation::Write { .. } => 0,
                Operation::Read { .. } => 1,
                Operation::Command { .. } => 2,
                Operation::ResetAll { .. } => 3,
                Operation::Sync => 4,
            };
            kinds[kind] += 1;
            if let Some((sector, sectors)) = operation.range() {
                assert!(sectors > 0 && sector + sectors <= 15 * 2048 + 1024, "{operation:?}");
                assert!(sector % BLOCK_SECTORS == 0 && sectors % BLOCK_SECTORS == 0, "{operation:?}");
            }
        }
        assert!(kinds.iter().all(|&count| count > 50), "{kinds:?}");
    }

    #[test]
    fn the_same_seed_chooses_the_same() {
        let choose = |seed| {
            let mut random = Random(seed);
            (0..100)
                .map(|_| Operation::choose(&mut random, &zones(), Limits { open: 1, active: 2 }))
                .collect::<Vec<_>>()
        };
        assert_eq!(choose(7), choose(7));
        assert_ne!(choose(7), choose(8));
    }
}
