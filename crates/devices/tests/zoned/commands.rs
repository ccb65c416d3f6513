//! What becomes of a zone that is opened, closed, finished or reset.

use super::*;

const LAST: u64 = SECTORS - ZONE;

/// For each state a zone can be in, the status of a command and the state afterwards.
fn table(kind: u32, expected: [(State, u8, State); 7]) {
    for (from, status, to) in expected {
        let mut disk = Disk::new();
        disk.bring(zone(3), from);
        let before = disk.told(zone(3));
        assert_eq!(disk.manage(kind, zone(3)), status, "type {kind} of a zone that is {from:?}");
        let after = disk.told(zone(3));
        assert_eq!(after.state, to, "type {kind} of a zone that was {from:?}");
        if status != OK {
            assert_eq!(after, before, "nothing changes");
        }
        assert!(disk.zones().iter().skip(2).filter(|other| other.start != zone(3)).all(|z| z.state == Empty));
    }
}

#[test]
fn what_open_does_in_each_state() {
    table(
        OPEN,
        [
            (Empty, OK, Explicit),
            (Implicit, OK, Explicit),
            (Closed, OK, Explicit),
            (Explicit, OK, Explicit),
            (Full, INVALID_CMD, Full),
            (ReadOnly, INVALID_CMD, ReadOnly),
            (Offline, INVALID_CMD, Offline),
        ],
    );
}

#[test]
fn opening_moves_no_write_pointer() {
    let mut disk = Disk::new();
    assert_eq!(disk.manage(OPEN, zone(0)), OK);
    assert_eq!(disk.state(zone(0)), (Explicit, 0));
    assert_eq!(disk.write(zone(0), BLOCK, 1), OK);
    assert_eq!(disk.manage(OPEN, zone(0)), OK);
    assert_eq!(disk.state(zone(0)), (Explicit, BLOCK));
}

#[test]
fn what_close_does_in_each_state() {
    table(
        CLOSE,
        [
            (Empty, INVALID_CMD, Empty),
            (Implicit, OK, Closed),
            (Closed, OK, Closed),
            (Explicit, OK, Closed),
            (Full, INVALID_CMD, Full),
            (ReadOnly, INVALID_CMD, ReadOnly),
            (Offline, INVALID_CMD, Offline),
        ],
    );
}

#[test]
fn a_zone_closed_before_anything_was_written_is_empty() {
    let mut disk = Disk::new();
    assert_eq!(disk.manage(OPEN, zone(0)), OK);
    assert_eq!(disk.manage(CLOSE, zone(0)), OK);
    assert_eq!(disk.state(zone(0)), (Empty, 0));
}

#[test]
fn what_finish_does_in_each_state() {
    table(
        FINISH,
        [
            (Empty, OK, Full),
            (Implicit, OK, Full),
            (Closed, OK, Full),
            (Explicit, OK, Full),
            (Full, OK, Full),
            (ReadOnly, INVALID_CMD, ReadOnly),
            (Offline, INVALID_CMD, Offline),
        ],
    );
}

#[test]
fn what_a_finished_zone_was_not_written_reads_as_zeroes() {
    let mut disk = Disk::new();
    assert_eq!(disk.write(zone(0), BLOCK, 7), OK);
    assert_eq!(disk.manage(FINISH, zone(0)), OK);
    assert_eq!(disk.read(zone(0), 3 * BLOCK), Ok([vec![7; 8], vec![0; 16]].concat()));
    assert_eq!(disk.write(zone(0) + BLOCK, BLOCK, 1), INVALID_CMD);
}

#[test]
fn what_reset_does_in_each_state() {
    table(
        RESET,
        [
            (Empty, OK, Empty),
            (Implicit, OK, Empty),
            (Closed, OK, Empty),
            (Explicit, OK, Empty),
            (Full, OK, Empty),
            (ReadOnly, INVALID_CMD, ReadOnly),
            (Offline, INVALID_CMD, Offline),
        ],
    );
}

#[test]
fn a_zone_that_was_reset_reads_as_zeroes_and_is_written_anew() {
    for aio in ENGINES {
        let mut disk = Disk::on(aio);
        assert_eq!(disk.write(zone(0), CAPACITY, 7), OK);
        assert_eq!(disk.manage(RESET, zone(0)), OK);
        assert_eq!(disk.state(zone(0)), (Empty, 0));
        assert_eq!(disk.read(zone(0), CAPACITY), Ok(vec![0; 96]), "{aio:?}");
        assert_eq!(disk.write(zone(0), BLOCK, 8), OK);
        assert_eq!(disk.read(zone(0), 2 * BLOCK), Ok([vec![8; 8], vec![0; 8]].concat()), "{aio:?}");
    }
}

#[test]
fn a_reset_of_all_resets_what_can_be_wherever_it_points() {
    for sector in [0, 5, zone(3), SECTORS, u64::MAX] {
        let mut disk = Disk::new();
        let states = [Empty, Implicit, Closed, Explicit, Full, ReadOnly, Offline];
        for (number, state) in (0..).zip(states) {
            disk.bring(zone(number), state);
        }
        assert_eq!(disk.manage(RESET_ALL, sector), OK);
        for (number, state) in (0..).zip(states) {
            let lost = matches!(state, ReadOnly | Offline);
            assert_eq!(disk.told(zone(number)).state, if lost { state } else { Empty });
        }
        assert_eq!(disk.read(zone(4), CAPACITY), Ok(vec![0; 96]));
        assert_eq!(disk.read(zone(5), 48), Ok(vec![1; 48]), "the read-only one");
    }
}

#[test]
fn a_command_is_for_the_start_of_a_zone_on_the_disk() {
    let mut disk = Disk::new();
    for kind in [OPEN, CLOSE, FINISH, RESET] {
        for sector in [zone(0) + 1, zone(0) + BLOCK, zone(1) - 1, SECTORS, SECTORS + ZONE, 1 << 55, u64::MAX]
        {
            assert_eq!(disk.manage(kind, sector), INVALID_CMD, "type {kind} at {sector}");
        }
    }
    assert!(disk.zones()[2..].iter().all(|zone| zone.state == Empty));
}

#[test]
fn commands_work_on_a_last_zone_that_is_short() {
    let short = Geometry { capacity: (SECTORS - 64) * 512, zone_capacity: ZONE * 512, ..geometry() };
    let mut disk = Disk::with(short, |_| {});
    assert_eq!(disk.told(LAST), Told { capacity: 64, start: LAST, pointer: LAST, kind: 2, state: Empty });
    assert_eq!(disk.manage(OPEN, LAST), OK);
    assert_eq!(disk.append(LAST, BLOCK, 1), Ok(LAST));
    assert_eq!(disk.manage(CLOSE, LAST), OK);
    assert_eq!(disk.manage(FINISH, LAST), OK);
    assert_eq!(disk.state(LAST), (Full, 64), "to the end of the disk");
    assert_eq!(disk.manage(RESET, LAST), OK);
    assert_eq!(disk.write(LAST, 64, 1), OK);
    assert_eq!(disk.told(LAST).state, Full);
    assert_eq!(disk.write(LAST + 64, BLOCK, 1), IO_ERR, "beyond the disk");
}
