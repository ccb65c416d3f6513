//! What two disks may say differently, and why. Whatever is not here is a difference.

use crate::disk::{Answer, BLOCK, Condition, SECTOR, Zone};
use crate::ioctl::Command;
use crate::operation::Operation;

static ZEROES: [u8; BLOCK as usize] = [0; BLOCK as usize];

/// Two reports of all zones.
#[derive(Debug)]
pub(crate) struct Reports {
    pub(crate) reference: Vec<Zone>,
    pub(crate) subject: Vec<Zone>,
}

/// The limits of both disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) open: u64,
    pub(crate) active: u64,
}

impl Reports {
    /// The first zone that is not the same on both.
    pub(crate) fn difference(&self, limits: Limits) -> Option<String> {
        if self.reference.len() != self.subject.len() {
            return Some(format!("{} and {} zones", self.reference.len(), self.subject.len()));
        }
        let pairs = self.reference.iter().zip(&self.subject).enumerate();
        for (number, (reference, subject)) in pairs {
            let known = Zone { condition: subject.condition, ..*reference };
            if known != *subject || !is_same(reference.condition, subject.condition, limits) {
                return Some(format!("zone {number}:\nreference: {reference:?}\nsubject:   {subject:?}"));
            }
        }
        [("reference", &self.reference), ("subject", &self.subject)].into_iter().find_map(|(who, zones)| {
            let open = zones.iter().filter(|zone| zone.is_open()).count() as u64;
            let active = zones.iter().filter(|zone| zone.is_active()).count() as u64;
            let is_beyond = |count, limit| limit != 0 && count > limit;
            (is_beyond(open, limits.open) || is_beyond(active, limits.active))
                .then(|| format!("{who}: {open} zones are open, {active} active"))
        })
    }
}

/// Which of the implicitly open zones is closed to make room for another is the device's choice: null_blk takes the next
/// one in a circle, we the one that was not written for longest. What can be done next does not depend on it: for a
/// closed zone, one that is open and may be closed is closed, so either is refused only when all were opened explicitly.
fn is_same(reference: Condition, subject: Condition, limits: Limits) -> bool {
    let is_either = |condition| matches!(condition, Condition::ImplicitlyOpen | Condition::Closed);
    reference == subject || (limits.open != 0 && is_either(reference) && is_either(subject))
}

/// Why two answers, of which one is an error, may be different. `before` is what was reported before.
pub(crate) fn reason(
    operation: &Operation,
    before: &Reports,
    limits: Limits,
    reference: &Answer,
    subject: &Answer,
) -> Option<&'static str> {
    let (sector, sectors) = operation.range()?;
    let in_range = |zone: &&Zone| zone.start < sector + sectors && sector < zone.start + zone.len;
    let zones = before.subject.iter().filter(in_range).collect::<Vec<_>>();
    let active = before.subject.iter().filter(|zone| zone.is_active()).count() as u64;
    let refused_open = *reference == Err(libc::ETOOMANYREFS) && subject.is_ok();
    let is_finish = matches!(operation, Operation::Command { command: Command::Finish, .. });
    if refused_open && is_finish && zones.iter().any(|zone| zone.condition == Condition::Closed) {
        // null_blk asks for what opening the zone needs. virtio does not say so, and the zone is open at no time.
        return Some("a closed zone is finished although no zone can be opened");
    }
    if refused_open
        && limits.active != 0
        && active >= limits.active
        && zones.iter().any(|zone| zone.is_active())
    {
        // To close an implicitly open zone for a closed one takes no more active zones, and virtio says that a closed
        // zone is active already; null_blk asks for one more all the same.
        return Some("a closed zone is opened in place of another while all that may be are active");
    }
    None
}

/// The first block, of those read from `sector` on, that is not what it must be.
///
/// What was written is the same on both. What was not written is zeroes on ours (docs/zoned.md), and on null_blk ones, so
/// that nobody relies on it.
pub(crate) fn different_block(zones: &[Zone], sector: u64, reference: &[u8], subject: &[u8]) -> Option<u64> {
    let blocks = reference.chunks(BLOCK as usize).zip(subject.chunks(BLOCK as usize));
    for (index, (reference, subject)) in blocks.enumerate() {
        let at = sector + index as u64 * (BLOCK / SECTOR);
        let zone = zones.iter().find(|zone| at < zone.start + zone.len)?;
        let is_written = match zone.condition {
            Condition::Conventional => true,
            Condition::Full | Condition::ReadOnly | Condition::Offline => at < zone.end(),
            Condition::Empty | Condition::ImplicitlyOpen | Condition::ExplicitlyOpen | Condition::Closed => {
                at < zone.pointer
            }
        };
        let is_right = if is_written { reference == subject } else { subject == &ZEROES[..subject.len()] };
        if !is_right {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Limits = Limits { open: 0, active: 0 };
    const LIMITS: Limits = Limits { open: 2, active: 3 };

    fn zone(condition: Condition) -> Zone {
        Zone { start: 0, len: 64, capacity: 48, pointer: 8, condition }
    }

    fn difference(reference: Zone, subject: Zone, limits: Limits) -> Option<String> {
        Reports { reference: vec![reference], subject: vec![subject] }.difference(limits)
    }

    #[test]
    fn zones_that_differ_in_anything_are_a_difference() {
        let open = zone(Condition::ImplicitlyOpen);
        assert_eq!(difference(open, open, LIMITS), None);
        for other in [
            Zone { start: 64, ..open },
            Zone { len: 32, ..open },
            Zone { capacity: 64, ..open },
            Zone { pointer: 16, ..open },
            zone(Condition::ExplicitlyOpen),
            zone(Condition::Full),
        ] {
            assert!(difference(open, other, LIMITS).is_some(), "{other:?}");
        }
        let fewer = Reports { reference: vec![open, open], subject: vec![open] };
        assert!(fewer.difference(LIMITS).is_some());
    }

    #[test]
    fn a_zone_may_be_closed_for_another_only_where_there_is_a_limit() {
        let (open, closed) = (zone(Condition::ImplicitlyOpen), zone(Condition::Closed));
        assert_eq!(difference(open, closed, LIMITS), None);
        assert!(difference(open, closed, NONE).is_some());
        assert!(difference(zone(Condition::ExplicitlyOpen), closed, LIMITS).is_some());
    }

    #[test]
    fn more_zones_than_may_be_are_a_difference_even_on_both() {
        let open = vec![zone(Condition::ExplicitlyOpen); 3];
        let both = Reports { reference: open.clone(), subject: open };
        assert!(both.difference(LIMITS).is_some());
        assert_eq!(both.difference(NONE), None);
    }

    #[test]
    fn an_error_is_tolerated_only_for_its_reason() {
        let zones = [0, 64, 128].map(|start| Zone { start, ..zone(Condition::Closed) }).to_vec();
        let before = Reports { reference: zones.clone(), subject: zones };
        let write = Operation::Write { sector: 8, sectors: 8 };
        let reason = |limits, reference, subject| reason(&write, &before, limits, &reference, &subject);
        assert!(reason(LIMITS, Err(libc::ETOOMANYREFS), Ok(Vec::new())).is_some());
        assert!(reason(NONE, Err(libc::ETOOMANYREFS), Ok(Vec::new())).is_none());
        assert!(reason(LIMITS, Ok(Vec::new()), Err(libc::ETOOMANYREFS)).is_none());
        assert!(reason(LIMITS, Err(libc::EIO), Ok(Vec::new())).is_none());
        assert!(reason(LIMITS, Err(libc::EIO), Err(libc::ETOOMANYREFS)).is_none());
    }

    #[test]
    fn what_was_written_is_the_same_and_what_was_not_is_zeroes() {
        let zones = [zone(Condition::Closed)];
        let (zero, one) = (vec![0; 8192], vec![1; 8192]);
        let written_then_ones = [vec![0; 4096], vec![0xff; 4096]].concat();
        assert_eq!(different_block(&zones, 0, &zero, &zero), None);
        assert_eq!(different_block(&zones, 0, &written_then_ones, &zero), None);
        assert_eq!(different_block(&zones, 0, &one, &zero), Some(0));
        assert_eq!(different_block(&zones, 0, &one, &one), Some(8));
        assert_eq!(different_block(&[zone(Condition::Full)], 0, &one, &one), None);
        assert_eq!(different_block(&[zone(Condition::Full)], 40, &one, &one), Some(48));
    }
}
