//! The zone state machine in every interleaving of two or three threads:
//! `RUSTFLAGS="--cfg loom" cargo test -p parador-block --test zones_loom`.
#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use loom::sync::Arc;
use loom::thread;
use parador_block::zoned::{Condition, Geometry, Refusal, Zones};

const BLOCK: u64 = 4096;
const ZONE: u64 = 64 << 10;

fn zones(max_open: u32, max_active: u32) -> Arc<Zones> {
    let geometry = Geometry { max_open, max_active, ..Geometry::new(3 * ZONE, ZONE) };
    Arc::new(Zones::new(geometry.checked().unwrap()))
}

fn append(zones: &Zones, zone: u64, len: u64) -> Result<u64, Refusal> {
    zones.append(zone * ZONE, len).map(|write| {
        let offset = write.offset;
        zones.complete(write);
        offset
    })
}

#[test]
fn two_appends_to_one_zone_get_two_places() {
    loom::model(|| {
        let zones = zones(1, 0);
        let other = thread::spawn({
            let zones = Arc::clone(&zones);
            move || append(&zones, 0, BLOCK).unwrap()
        });
        let (mine, theirs) = (append(&zones, 0, BLOCK).unwrap(), other.join().unwrap());
        assert_eq!(mine.min(theirs), 0);
        assert_eq!(mine.max(theirs), BLOCK);
        assert_eq!(zones.in_use(), (1, 1));
    });
}

#[test]
fn a_limit_of_open_zones_is_exact_while_two_are_opened() {
    loom::model(|| {
        let zones = zones(1, 2);
        let other = thread::spawn({
            let zones = Arc::clone(&zones);
            move || append(&zones, 0, BLOCK)
        });
        let mine = zones.open(ZONE);
        let theirs = other.join().unwrap();
        let (open, active) = zones.in_use();
        assert!(open <= 1 && active <= 2);
        // Theirs is closed for mine, or mine keeps theirs out: explicitly open zones are not closed.
        assert_eq!(mine, Ok(()));
        assert!(matches!(theirs, Ok(0) | Err(Refusal::OpenResource)));
    });
}

#[test]
fn a_zone_is_filled_once() {
    loom::model(|| {
        let zones = zones(0, 0);
        append(&zones, 0, ZONE - BLOCK).unwrap();
        let other = thread::spawn({
            let zones = Arc::clone(&zones);
            move || append(&zones, 0, BLOCK)
        });
        let both = [append(&zones, 0, BLOCK), other.join().unwrap()];
        assert!(both.contains(&Ok(ZONE - BLOCK)) && both.contains(&Err(Refusal::InvalidCommand)), "{both:?}");
        assert_eq!(zones.zone(0).condition, Condition::Full);
        assert_eq!(zones.in_use(), (0, 0));
    });
}

#[test]
fn a_reset_never_meets_a_write() {
    loom::model(|| {
        let zones = zones(1, 0);
        let other = thread::spawn({
            let zones = Arc::clone(&zones);
            move || append(&zones, 0, BLOCK)
        });
        let reset = zones.hold(0).map(|held| held.reset());
        let appended = other.join().unwrap();
        let zone = zones.zone(0);
        match (reset, appended) {
            (Err(Refusal::Busy), Ok(0)) => assert_eq!(zone.write_pointer, Some(BLOCK)),
            (Ok(()), Err(Refusal::Busy)) => assert_eq!(zone.condition, Condition::Empty),
            // One after the other, either way round.
            (Ok(()), Ok(0)) => assert!(matches!(zone.write_pointer, Some(0 | BLOCK))),
            other => unreachable!("{other:?}"),
        }
    });
}

/// What a flush does: it takes what changed, and looks at that and nothing else.
#[test]
fn no_write_is_missed_by_who_asks_what_changed() {
    loom::model(|| {
        let zones = zones(1, 0);
        append(&zones, 0, BLOCK).unwrap();
        let other = thread::spawn({
            let zones = Arc::clone(&zones);
            // One to a zone that is open, one that closes it.
            move || [0, 1].map(|zone| append(&zones, zone, BLOCK))
        });
        let mut known = [(Condition::Empty, 0); 3];
        let mut look =
            || zones.changed().into_iter().for_each(|zone| known[zone as usize] = zones.at_rest(zone));
        look();
        assert!(other.join().unwrap().iter().all(Result::is_ok));
        look();
        assert_eq!(known, [0, 1, 2].map(|zone| zones.at_rest(zone)));
    });
}
