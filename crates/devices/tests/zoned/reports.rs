//! What is told of zones.

use parador_virtio::testing::PATIENCE;

use super::*;

#[test]
fn as_many_zones_are_told_as_there_is_room_for() {
    let mut disk = Disk::new();
    for (room, zones) in [
        (64, 0),
        (65, 0),
        (127, 0),
        (128, 1),
        (191, 1),
        (192, 2),
        (64 + 64 * 15 + 63, 15),
        (64 + 64 * 16, 16),
        (64 + 64 * 17, 16),
        (1 << 20, 16),
    ] {
        let reply = disk.request(REPORT, 0, &[], &[room, 1]);
        assert_eq!(told(&reply).len(), zones, "{room} bytes");
        let len = 64 + 64 * zones;
        let expected = if len == room { len + 1 } else { len };
        assert_eq!(reply.written as usize, expected, "{room} bytes");
        assert!(reply.data[len..room].iter().all(|byte| *byte == UNTOUCHED), "nothing beyond the zones");
    }
}

#[test]
fn a_report_may_be_cut_anywhere() {
    let mut disk = Disk::new();
    let whole = disk.zones();
    let rooms: [&[usize]; 5] =
        [&[1089], &[1, 63, 512, 513], &[100, 900, 88, 1], &[64, 1024, 1], &[1000, 1, 1, 1, 86]];
    for room in rooms {
        let reply = disk.request(REPORT, 0, &[], room);
        assert_eq!(told(&reply), whole, "{room:?}");
        assert_eq!(reply.written, 1089);
    }
}

/// More zones than are asked for at once.
#[test]
fn a_report_of_many_zones_is_whole() {
    let shape = Geometry { capacity: 1000 * (ZONE * 512), zone_capacity: ZONE * 512, ..geometry() };
    let mut disk = Disk::with(shape, |_| {});
    assert_eq!(disk.write(777 * ZONE, BLOCK, 1), OK);
    let reply = disk.request(REPORT, 0, &[], &[64 + 64 * 1000, 1]);
    let zones = told(&reply);
    assert_eq!(zones.len(), 1000);
    for (number, zone) in (0..).zip(&zones) {
        let conventional = number < 2;
        let start = number * ZONE;
        let state = match number {
            0 | 1 => NotWritePointer,
            777 => Implicit,
            _ => Empty,
        };
        let pointer = match number {
            0 | 1 => u64::MAX,
            777 => start + BLOCK,
            _ => start,
        };
        let kind = if conventional { 1 } else { 2 };
        assert_eq!(*zone, Told { capacity: ZONE, start, pointer, kind, state });
    }
}

#[test]
fn a_report_begins_with_the_zone_that_has_the_sector() {
    let mut disk = Disk::new();
    for (sector, start) in
        [(0, 0), (1, 0), (ZONE - 1, 0), (ZONE, ZONE), (zone(3) + 100, zone(3)), (SECTORS - 1, zone(13))]
    {
        assert_eq!(disk.told(sector).start, start, "sector {sector}");
    }
    let reply = disk.request(REPORT, zone(12), &[], &[1024, 1]);
    assert_eq!(told(&reply).iter().map(|zone| zone.start).collect::<Vec<_>>(), [zone(12), zone(13)]);
    for sector in [SECTORS, SECTORS + 1, u64::MAX / 512, u64::MAX] {
        let reply = disk.request(REPORT, sector, &[], &[128, 1]);
        assert_eq!((reply.written, reply.data[128]), (0, INVALID_CMD), "sector {sector}");
    }
}

#[test]
fn each_state_is_told_with_the_write_pointer_that_goes_with_it() {
    let mut disk = Disk::new();
    let states = [
        (Empty, 0),
        (Implicit, 48),
        (Explicit, 48),
        (Closed, 48),
        (Full, ZONE),
        (ReadOnly, u64::MAX),
        (Offline, u64::MAX),
    ];
    for (number, (state, pointer)) in (0..).zip(states) {
        disk.bring(zone(number), state);
        let start = zone(number);
        let pointer = if pointer == u64::MAX { pointer } else { start + pointer };
        assert_eq!(disk.told(start), Told { capacity: CAPACITY, start, pointer, kind: 2, state });
    }
}

#[test]
fn a_last_zone_that_is_short_is_told_as_long_as_it_is() {
    let short = Geometry { capacity: (SECTORS - 64) * 512, zone_capacity: ZONE * 512, ..geometry() };
    let mut disk = Disk::with(short, |_| {});
    let zones = disk.zones();
    assert_eq!(zones.len(), 16);
    assert!(zones[..15].iter().all(|zone| zone.capacity == ZONE));
    assert_eq!((zones[15].start, zones[15].capacity), (zone(13), 64));
}

/// One zone is written and reset while another queue asks for it: what is told was true at some time.
#[test]
fn what_is_told_while_zones_change_is_true_of_some_moment() {
    const ROUNDS: u64 = 60;
    let mut disk = Disk::with(geometry(), |options| options.queues = 2);
    for _ in 0..ROUNDS {
        let writer = disk.harness.driver(0);
        for _ in 0..CAPACITY / BLOCK {
            writer.add_indirect(&[&header(APPEND, zone(0)), &[1; 4096]], &[16]).unwrap();
        }
        writer.kick();
        let mut last = 0;
        while disk.harness.driver(0).in_flight() > 0 {
            let reply = disk.harness.request(1, &[&header(REPORT, zone(0))], &[128, 1]);
            let zone = told(&reply)[0];
            let written = if zone.state == Full { CAPACITY } else { zone.pointer - zone.start };
            assert!(written >= last && written <= CAPACITY && written.is_multiple_of(BLOCK));
            let possible = match zone.state {
                Empty => written == 0,
                Implicit => written > 0 && written < CAPACITY,
                Full => true,
                NotWritePointer | Explicit | Closed | ReadOnly | Offline => false,
            };
            assert!(possible, "{zone:?}");
            last = written;
            while let Some(used) = disk.harness.driver(0).take_used() {
                assert_eq!(used.data[15], OK);
            }
        }
        assert_eq!(disk.manage(RESET, zone(0)), OK);
    }
    assert_eq!(disk.harness.driver(0).wait_used(PATIENCE / 1000), None);
}
