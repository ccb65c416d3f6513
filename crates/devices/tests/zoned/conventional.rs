//! Conventional zones: a disk as any other.

use super::*;

#[test]
fn no_command_changes_a_conventional_zone() {
    let mut disk = Disk::new();
    for kind in [OPEN, CLOSE, FINISH, RESET] {
        for sector in [0, ZONE] {
            assert_eq!(disk.manage(kind, sector), INVALID_CMD, "type {kind} at {sector}");
        }
    }
    assert_eq!(disk.append(0, BLOCK, 1), Err(INVALID_CMD));
    assert_eq!(disk.append(ZONE, BLOCK, 1), Err(INVALID_CMD));
    assert_eq!(disk.read(0, 2 * ZONE), Ok(vec![0; 256]));
}

#[test]
fn a_conventional_zone_is_written_in_any_order_and_again() {
    for aio in ENGINES {
        let mut disk = Disk::on(aio);
        for (byte, sector) in [(1, 64), (2, 8), (3, 120), (4, 64), (5, 0)] {
            assert_eq!(disk.write(sector, BLOCK, byte), OK);
            assert_eq!(disk.read(sector, BLOCK), Ok(vec![byte; 8]), "{aio:?}");
        }
        // From one into the other.
        assert_eq!(disk.write(ZONE - BLOCK, 2 * BLOCK, 6), OK);
        assert_eq!(disk.read(ZONE - BLOCK, 2 * BLOCK), Ok(vec![6; 16]));
        assert_eq!(disk.told(0).state, NotWritePointer);
    }
}

#[test]
fn a_conventional_zone_is_told_whole_and_without_a_pointer() {
    let mut disk = Disk::new();
    for start in [0, ZONE] {
        let expected = Told { capacity: ZONE, start, pointer: u64::MAX, kind: 1, state: NotWritePointer };
        assert_eq!(disk.told(start), expected);
    }
}

#[test]
fn a_reset_of_all_leaves_conventional_data_alone() {
    let mut disk = Disk::new();
    assert_eq!(disk.write(8, BLOCK, 5), OK);
    assert_eq!(disk.manage(RESET_ALL, 0), OK);
    assert_eq!(disk.read(8, BLOCK), Ok(vec![5; 8]));
}
