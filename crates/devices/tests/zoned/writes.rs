//! Writes to sequential zones.

use super::*;

#[test]
fn a_write_at_the_write_pointer_moves_it() {
    for aio in ENGINES {
        let mut disk = Disk::on(aio);
        for step in 0..4 {
            assert_eq!(disk.write(zone(0) + step * BLOCK, BLOCK, step as u8 + 1), OK);
            assert_eq!(disk.state(zone(0)), (Implicit, (step + 1) * BLOCK), "{aio:?}");
        }
        assert_eq!(disk.read(zone(0), 16), Ok([vec![1; 8], vec![2; 8]].concat()));
    }
}

#[test]
fn a_write_elsewhere_is_unaligned_and_changes_nothing() {
    let mut disk = Disk::new();
    assert_eq!(disk.write(zone(0), 2 * BLOCK, 1), OK);
    let before = disk.zones();
    for (sector, sectors) in [(0, BLOCK), (BLOCK, BLOCK), (3 * BLOCK, BLOCK), (0, 3 * BLOCK), (88, BLOCK)] {
        assert_eq!(disk.write(zone(0) + sector, sectors, 9), UNALIGNED_WP, "{sectors} at {sector}");
    }
    assert_eq!(disk.write(zone(1) + BLOCK, BLOCK, 9), UNALIGNED_WP, "an empty zone");
    assert_eq!(disk.zones(), before);
    assert_eq!(disk.read(zone(0), 32), Ok([vec![1; 16], vec![0; 16]].concat()));
    assert_eq!(disk.read(zone(1), CAPACITY), Ok(vec![0; 96]));
}

#[test]
fn a_write_of_less_than_a_block_is_unaligned() {
    let mut disk = Disk::new();
    for (sector, sectors) in [(0, 1), (0, BLOCK - 1), (0, BLOCK + 1), (1, BLOCK), (4, 4)] {
        assert_eq!(disk.write(zone(0) + sector, sectors, 9), UNALIGNED_WP, "{sectors} at {sector}");
    }
    assert_eq!(disk.state(zone(0)), (Empty, 0));
}

#[test]
fn a_write_that_is_no_whole_sectors_is_no_request() {
    let mut disk = Disk::new();
    for len in [1, 511, 513, 4095, 4097] {
        assert_eq!(disk.ask(OUT, zone(0), &vec![9; len]), IO_ERR, "{len} bytes");
    }
    assert_eq!(disk.write(SECTORS, BLOCK, 1), IO_ERR, "beyond the disk");
    assert_eq!(disk.write(u64::MAX - 7, BLOCK, 1), IO_ERR);
    assert_eq!(disk.state(zone(0)), (Empty, 0));
}

#[test]
fn a_write_to_the_capacity_makes_a_zone_full_and_gives_its_resources_back() {
    let mut disk = Disk::limited(1, 1);
    for number in 0..3 {
        assert_eq!(disk.write(zone(number), CAPACITY - BLOCK, 1), OK);
        assert_eq!(disk.write(zone(number) + CAPACITY - BLOCK, BLOCK, 2), OK);
        assert_eq!(disk.state(zone(number)), (Full, ZONE));
    }
    assert_eq!(disk.write(zone(3), CAPACITY, 3), OK, "at once");
    assert_eq!(disk.state(zone(3)), (Full, ZONE));
}

#[test]
fn nothing_is_written_between_the_capacity_and_the_next_zone() {
    let mut disk = Disk::new();
    assert_eq!(disk.write(zone(0), CAPACITY + BLOCK, 9), INVALID_CMD);
    assert_eq!(disk.write(zone(0), ZONE, 9), INVALID_CMD);
    assert_eq!(disk.state(zone(0)), (Empty, 0));
    assert_eq!(disk.write(zone(0), CAPACITY, 1), OK);
    assert_eq!(disk.write(zone(0) + CAPACITY, BLOCK, 9), INVALID_CMD);
    assert_eq!(disk.read(zone(0), ZONE), Ok([vec![1; 96], vec![0; 32]].concat()));
}

#[test]
fn a_write_across_zones_is_refused() {
    let all = Geometry { zone_capacity: ZONE * 512, ..geometry() };
    let mut disk = Disk::with(all, |_| {});
    assert_eq!(disk.write(zone(0), ZONE - BLOCK, 1), OK);
    assert_eq!(disk.write(zone(0) + ZONE - BLOCK, 2 * BLOCK, 9), INVALID_CMD);
    assert_eq!(disk.write(zone(0) - BLOCK, 2 * BLOCK, 9), INVALID_CMD, "from a conventional one");
    assert_eq!(disk.state(zone(0)), (Implicit, ZONE - BLOCK));
    assert_eq!(disk.read(zone(0) - BLOCK, BLOCK), Ok(vec![0; 8]));
}

#[test]
fn a_write_to_a_full_or_lost_zone_is_invalid() {
    for state in [Full, ReadOnly, Offline] {
        let mut disk = Disk::new();
        disk.bring(zone(0), state);
        for (sector, sectors) in [(0, BLOCK), (48, BLOCK), (1, 1)] {
            assert_eq!(disk.write(zone(0) + sector, sectors, 9), INVALID_CMD, "{state:?}");
        }
        assert_eq!(disk.told(zone(0)).state, state);
    }
}

#[test]
fn a_write_of_nothing_changes_nothing() {
    let mut disk = Disk::new();
    assert_eq!(disk.ask(OUT, zone(0), &[]), OK);
    assert_eq!(disk.ask(OUT, zone(0) + 8, &[]), OK);
    assert_eq!(disk.state(zone(0)), (Empty, 0));
}

#[test]
fn a_zone_that_was_opened_stays_open_when_it_is_written() {
    let mut disk = Disk::new();
    assert_eq!(disk.manage(OPEN, zone(0)), OK);
    assert_eq!(disk.write(zone(0), BLOCK, 1), OK);
    assert_eq!(disk.append(zone(0), BLOCK, 1), Ok(zone(0) + BLOCK));
    assert_eq!(disk.state(zone(0)), (Explicit, 2 * BLOCK));
    assert_eq!(disk.write(zone(0) + 2 * BLOCK, CAPACITY - 2 * BLOCK, 1), OK);
    assert_eq!(disk.state(zone(0)), (Full, ZONE));
}

/// The answer to each is that of the first thing that is wrong with it.
#[test]
fn of_several_things_that_are_wrong_the_first_one_is_said() {
    let mut disk = Disk::limited(1, 1);
    disk.bring(zone(0), Offline);
    assert_eq!(disk.manage(OPEN, zone(5)), OK);
    for (what, kind, sector, len, expected) in [
        ("no sectors, and beyond the disk", OUT, SECTORS, 100, IO_ERR),
        ("beyond the disk, and across zones", OUT, SECTORS - BLOCK, 8192, IO_ERR),
        ("across zones, and offline", OUT, zone(0) + ZONE - 1, 1024, INVALID_CMD),
        ("offline, and no block", OUT, zone(0), 512, INVALID_CMD),
        ("no block, and not at the pointer", OUT, zone(1) + 1, 512, UNALIGNED_WP),
        ("not at the pointer, and beyond the capacity", OUT, zone(1) + 88, 8192, UNALIGNED_WP),
        ("beyond the capacity, and too many zones", OUT, zone(1), 49152 + 4096, INVALID_CMD),
        ("too many active and open zones", OUT, zone(1), 4096, ACTIVE_RESOURCE),
        ("not the start of a zone, and too long", APPEND, zone(1) + 8, 32768, INVALID_CMD),
        ("no block, and too many zones", APPEND, zone(1), 512, UNALIGNED_WP),
        ("too many active and open zones", APPEND, zone(1), 4096, ACTIVE_RESOURCE),
    ] {
        let reply = disk.request(kind, sector, &vec![9; len], &[16]);
        assert_eq!(reply.data[15], expected, "{what}");
    }
}

#[test]
fn a_flush_is_answered_and_changes_no_zone() {
    let mut disk = Disk::new();
    [Implicit, Explicit, Closed, Full].into_iter().enumerate().for_each(|(n, state)| {
        disk.bring(zone(n as u64), state);
    });
    let before = disk.zones();
    assert_eq!(disk.ask(FLUSH, 0, &[]), OK);
    assert_eq!(disk.zones(), before);
}

/// `writeback` of the configuration space, while zones are being written.
#[test]
fn the_cache_mode_may_change_between_writes() {
    let mut disk = Disk::new();
    for (step, writeback) in [0, 1, 0].into_iter().enumerate() {
        disk.harness.device().write_config(32, &[writeback]);
        let at = zone(0) + step as u64 * 2 * BLOCK;
        assert_eq!(disk.write(at, BLOCK, 1), OK);
        assert_eq!(disk.append(zone(0), BLOCK, 2), Ok(at + BLOCK));
    }
    assert_eq!(disk.state(zone(0)), (Implicit, 6 * BLOCK));
}
