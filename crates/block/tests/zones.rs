//! The zone state machine against a simple sequential model of the same rules.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod zone_model;

use parador_block::zoned::{Condition, Geometry, Held, Refusal, Write, Zones};
use proptest::prelude::*;

use zone_model::{BLOCK, Model, ZONE};

const KIB: u64 = 1 << 10;

#[derive(Debug, Clone)]
enum Request {
    Write {
        zone: u64,
        block: u64,
        blocks: u64,
        odd: u64,
    },
    /// A write where it should go.
    Next {
        zone: u64,
        blocks: u64,
    },
    Append {
        zone: u64,
        off: u64,
        blocks: u64,
        odd: u64,
    },
    Open(u64),
    Close(u64),
    Reset(u64),
    Finish(u64),
    ResetAll,
    Fail {
        zone: u64,
        offline: bool,
    },
}

fn request() -> impl Strategy<Value = Request> {
    let zone = || 0..10u64;
    let blocks = || prop_oneof![8 => 1..6u64, 1 => Just(16), 1 => Just(0), 1 => 15..40u64];
    let odd = || prop_oneof![9 => Just(0u64), 1 => Just(512)];
    prop_oneof![
        3 => (zone(), 0..16u64, blocks(), odd()).prop_map(|(zone, block, blocks, odd)| Request::Write { zone, block, blocks, odd }),
        8 => (zone(), blocks()).prop_map(|(zone, blocks)| Request::Next { zone, blocks }),
        6 => (zone(), prop_oneof![9 => Just(0), 1 => Just(BLOCK)], blocks(), odd())
            .prop_map(|(zone, off, blocks, odd)| Request::Append { zone, off, blocks, odd }),
        3 => zone().prop_map(Request::Open),
        3 => zone().prop_map(Request::Close),
        3 => zone().prop_map(Request::Reset),
        2 => zone().prop_map(Request::Finish),
        1 => Just(Request::ResetAll),
        1 => (zone(), any::<bool>()).prop_map(|(zone, offline)| Request::Fail { zone, offline }),
    ]
}

fn geometry() -> impl Strategy<Value = Geometry> {
    (0..3u32, 0..4u32, 0..5u32, any::<bool>(), any::<bool>()).prop_map(
        |(conventional, max_open, max_active, small, short)| {
            let short = short && !small;
            Geometry {
                zone_capacity: if small { 48 * KIB } else { ZONE },
                conventional,
                max_open: if max_active == 0 { max_open } else { max_open.min(max_active) },
                max_active,
                max_append: 16 * KIB,
                ..Geometry::new(if short { 9 * ZONE - 20 * KIB } else { 9 * ZONE }, ZONE)
            }
            .checked()
            .unwrap()
        },
    )
}

/// The place of a write that is over at once.
fn over(zones: &Zones, write: Result<Write, Refusal>) -> Result<u64, Refusal> {
    write.map(|write| {
        let offset = write.offset;
        zones.complete(write);
        offset
    })
}

/// Asks both; the model's answer first.
fn ask(zones: &Zones, model: &mut Model, request: &Request) -> [Result<u64, Refusal>; 2] {
    let none = |result: Result<(), Refusal>| result.map(|()| 0);
    match *request {
        Request::Write { zone, block, blocks, odd } => {
            let (offset, len) = (zone * ZONE + block * BLOCK, blocks * BLOCK + odd);
            [model.write(offset, len), over(zones, zones.write(offset, len))]
        }
        Request::Next { zone, blocks } => {
            let pointer = model.zones.get(zone as usize).map_or(0, |zone| zone.1);
            let (offset, len) = (zone * ZONE + pointer, blocks * BLOCK);
            [model.write(offset, len), over(zones, zones.write(offset, len))]
        }
        Request::Append { zone, off, blocks, odd } => {
            let (offset, len) = (zone * ZONE + off, blocks * BLOCK + odd);
            [model.append(offset, len), over(zones, zones.append(offset, len))]
        }
        Request::Open(zone) => [none(model.open(zone * ZONE)), none(zones.open(zone * ZONE))],
        Request::Close(zone) => [none(model.close(zone * ZONE)), none(zones.close(zone * ZONE))],
        Request::Reset(zone) => {
            let reset = zones.hold(zone * ZONE).map(|held| held.reset());
            [none(model.reset(zone * ZONE)), none(reset)]
        }
        Request::Finish(zone) => {
            let finish = zones.hold(zone * ZONE).and_then(|held| {
                held.may_finish()?;
                held.finish();
                Ok(())
            });
            [none(model.finish(zone * ZONE)), none(finish)]
        }
        Request::ResetAll => {
            model.reset_all();
            [Ok(0), none(zones.hold_all().map(|all| all.iter().for_each(Held::reset)))]
        }
        Request::Fail { zone, offline } => {
            if zone >= model.zones.len() as u64 {
                return [Ok(0), Ok(0)];
            }
            [none(model.fail(zone as usize, offline)), none(zones.fail(zone as u32, offline))]
        }
    }
}

proptest! {
    #[test]
    fn zones_do_what_the_rules_say(geometry in geometry(), requests in prop::collection::vec(request(), 1..120)) {
        let (zones, mut model) = (Zones::new(geometry), Model::new(geometry));
        for request in &requests {
            let [expected, got] = ask(&zones, &mut model, request);
            prop_assert_eq!(expected, got, "{:?}", request);
            for (zone, &(condition, pointer)) in (0..).zip(&model.zones) {
                let is = zones.zone(zone);
                prop_assert_eq!(is.condition, condition, "zone {} after {:?}", zone, request);
                if condition.is_active() || condition == Condition::Empty {
                    prop_assert_eq!(is.write_pointer, Some(is.start + pointer));
                } else {
                    prop_assert_eq!(is.write_pointer, None);
                }
            }
            let counts = (model.count(Condition::is_open), model.count(Condition::is_active));
            prop_assert_eq!(zones.in_use(), counts, "after {:?}", request);
        }
    }

    /// What is restored is what was, with open zones closed.
    #[test]
    fn zones_come_back_closed(geometry in geometry(), requests in prop::collection::vec(request(), 1..60)) {
        let (zones, mut model) = (Zones::new(geometry), Model::new(geometry));
        for request in &requests {
            let _ = ask(&zones, &mut model, request);
        }
        let again = Zones::restore(geometry, |zone| model.zones[zone as usize]);
        for zone in 0..geometry.zones() {
            let (was, is) = (zones.zone(zone), again.zone(zone));
            let closed = if was.write_pointer == Some(was.start) { Condition::Empty } else { Condition::Closed };
            let expected = if was.condition.is_open() { closed } else { was.condition };
            prop_assert_eq!((is.condition, is.write_pointer), (expected, was.write_pointer));
        }
        prop_assert_eq!(again.in_use().0, 0);
    }
}

proptest! {
    #[test]
    fn what_changed_is_said_and_what_did_not_is_not_said_for_ever(
        geometry in geometry(),
        requests in prop::collection::vec((request(), 0..4u8), 1..120),
    ) {
        let (zones, mut model) = (Zones::new(geometry), Model::new(geometry));
        let mut known: Vec<_> = (0..geometry.zones()).map(|zone| zones.at_rest(zone)).collect();
        for (request, look) in &requests {
            let _ = ask(&zones, &mut model, request);
            if *look == 0 {
                zones.changed().into_iter().for_each(|zone| known[zone as usize] = zones.at_rest(zone));
                let all: Vec<_> = (0..geometry.zones()).map(|zone| zones.at_rest(zone)).collect();
                prop_assert_eq!(&known, &all);
                prop_assert_eq!(zones.changed().len() as u32, zones.in_use().0, "only what is open");
            }
        }
    }
}

#[test]
fn reads_stay_in_one_kind_of_zone() {
    let zones = Zones::new(Geometry { conventional: 2, ..Geometry::new(9 * ZONE, ZONE) }.checked().unwrap());
    assert_eq!(zones.read(0, 2 * ZONE), Ok(2 * ZONE), "conventional zones follow one another");
    assert_eq!(zones.read(ZONE, 2 * ZONE), Err(Refusal::InvalidCommand));
    assert_eq!(zones.read(2 * ZONE + BLOCK, ZONE), Err(Refusal::InvalidCommand));
    assert_eq!(zones.read(8 * ZONE, ZONE), Ok(0), "an empty zone reads as zeroes");
    assert_eq!(zones.read(9 * ZONE, 1), Err(Refusal::OutOfRange));
    assert_eq!(zones.read(u64::MAX, 2), Err(Refusal::OutOfRange));
    zones.fail(3, false).unwrap();
    assert_eq!(zones.read(3 * ZONE, BLOCK).map(drop), Ok(()), "read-only");
    zones.fail(3, true).unwrap();
    assert_eq!(zones.read(3 * ZONE, BLOCK), Err(Refusal::InvalidCommand), "offline");
    assert_eq!(zones.hold(3 * ZONE).err(), Some(Refusal::InvalidCommand));
}

#[test]
fn a_zone_that_is_held_takes_nothing_until_it_is_let_go() {
    let zones = Zones::new(Geometry::new(9 * ZONE, ZONE).checked().unwrap());
    let write = zones.append(0, BLOCK).unwrap();
    assert_eq!(zones.hold(0).err(), Some(Refusal::Busy));
    assert_eq!(zones.hold_all().err(), Some(Refusal::Busy));
    zones.complete(write);
    let held = zones.hold(0).unwrap();
    for refused in
        [zones.append(0, BLOCK).err(), zones.open(0).err(), zones.close(0).err(), zones.hold(0).err()]
    {
        assert_eq!(refused, Some(Refusal::Busy));
    }
    assert_eq!(held.written(), BLOCK);
    drop(held);
    assert_eq!(over(&zones, zones.write(BLOCK, BLOCK)), Ok(BLOCK), "and nothing had changed");
}

/// Appends from several threads are disjoint and together fill the zones without a gap.
#[test]
fn appends_from_many_threads_share_no_place() {
    let geometry = Geometry { max_open: 2, ..Geometry::new(9 * ZONE, ZONE) }.checked().unwrap();
    for _ in 0..200 {
        let zones = Zones::new(geometry);
        let mut places: Vec<u64> = std::thread::scope(|scope| {
            let append = || {
                let zone = |turn: u64| (turn % 3) * ZONE;
                (0..40)
                    .filter_map(|turn| over(&zones, zones.append(zone(turn), BLOCK)).ok())
                    .collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(append)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        places.sort_unstable();
        let expected: Vec<u64> = (0..3 * ZONE / BLOCK).map(|block| block * BLOCK).collect();
        assert_eq!(places, expected, "48 places for 160 appends");
        assert_eq!(zones.in_use(), (0, 0), "all of them are full");
    }
}

#[test]
fn a_write_that_was_done_before_is_done_again_in_its_place() {
    let geometry = Geometry { conventional: 1, ..Geometry::new(4 * ZONE, ZONE) }.checked().unwrap();
    let zones = Zones::new(geometry);
    let again = |offset, len| over(&zones, zones.write_again(offset, len));
    assert_eq!(again(ZONE, 2 * BLOCK), Ok(ZONE), "it was not done");
    assert_eq!(again(ZONE, 2 * BLOCK), Ok(ZONE));
    assert_eq!(again(ZONE + BLOCK, BLOCK), Ok(ZONE + BLOCK));
    assert_eq!(again(ZONE + BLOCK, 2 * BLOCK), Err(Refusal::UnalignedWrite), "not all of it");
    assert_eq!(again(ZONE + 512, 512), Err(Refusal::UnalignedWrite));
    assert_eq!(again(ZONE, 2 * ZONE), Err(Refusal::InvalidCommand));
    assert_eq!(again(4 * ZONE, BLOCK), Err(Refusal::OutOfRange));
    assert_eq!(again(512, 512), Ok(512), "conventional");
    assert_eq!(zones.at_rest(1), (Condition::Closed, 2 * BLOCK));
    // It may have been what filled the zone, or the zone was finished afterwards.
    assert_eq!(again(2 * ZONE, ZONE), Ok(2 * ZONE));
    assert_eq!(again(2 * ZONE, ZONE), Ok(2 * ZONE));
    zones.hold(ZONE).unwrap().finish();
    assert_eq!(again(ZONE, 2 * BLOCK), Ok(ZONE));
    assert_eq!(again(ZONE + 2 * BLOCK, BLOCK), Err(Refusal::InvalidCommand), "full");
    // Such a write is in flight like any other.
    let write = zones.write_again(ZONE, BLOCK).unwrap();
    assert_eq!(zones.hold(ZONE).err(), Some(Refusal::Busy));
    zones.complete(write);
    let held = zones.hold(ZONE).unwrap();
    assert_eq!(again(ZONE, BLOCK), Err(Refusal::Busy));
    drop(held);
    zones.fail(1, false).unwrap();
    assert_eq!(again(ZONE, BLOCK), Err(Refusal::InvalidCommand), "read-only");
}

#[test]
fn an_append_that_was_done_before_is_done_again_in_its_place() {
    let geometry = Geometry { conventional: 1, max_append: 4 * BLOCK, ..Geometry::new(4 * ZONE, ZONE) };
    let zones = Zones::new(geometry.checked().unwrap());
    let again = |start, len, at| over(&zones, zones.append_again(start, len, at));
    assert_eq!(over(&zones, zones.append(ZONE, 2 * BLOCK)), Ok(ZONE));
    assert_eq!(over(&zones, zones.append(ZONE, BLOCK)), Ok(ZONE + 2 * BLOCK));
    assert_eq!(again(ZONE, 2 * BLOCK, ZONE), Ok(ZONE));
    assert_eq!(zones.at_rest(1).1, 3 * BLOCK, "nothing was added");
    // Where that makes no sense it is any other append.
    assert_eq!(again(ZONE, 2 * BLOCK, ZONE + 2 * BLOCK), Ok(ZONE + 3 * BLOCK));
    assert_eq!(again(ZONE, BLOCK, 2 * ZONE), Ok(ZONE + 5 * BLOCK));
    assert_eq!(again(ZONE, BLOCK, u64::MAX), Ok(ZONE + 6 * BLOCK));
    assert_eq!(again(ZONE, 5 * BLOCK, ZONE), Err(Refusal::InvalidCommand));
    assert_eq!(again(0, BLOCK, 0), Err(Refusal::InvalidCommand));
    zones.hold(ZONE).unwrap().finish();
    assert_eq!(again(ZONE, BLOCK, ZONE + 6 * BLOCK), Ok(ZONE + 6 * BLOCK));
    assert_eq!(again(ZONE, BLOCK, ZONE + 7 * BLOCK), Err(Refusal::InvalidCommand));
    let _held = zones.hold(ZONE).unwrap();
    assert_eq!(again(ZONE, BLOCK, ZONE), Err(Refusal::Busy));
}
