//! Reads of sequential zones.

use super::*;

#[test]
fn what_was_not_written_reads_as_zeroes() {
    for aio in ENGINES {
        let mut disk = Disk::on(aio);
        assert_eq!(disk.write(zone(0), 2 * BLOCK, 7), OK);
        assert_eq!(disk.read(zone(0), 2 * BLOCK), Ok(vec![7; 16]), "below the pointer");
        assert_eq!(disk.read(zone(0) + BLOCK, 2 * BLOCK), Ok([vec![7; 8], vec![0; 8]].concat()), "across it");
        assert_eq!(disk.read(zone(0) + 2 * BLOCK, 5), Ok(vec![0; 5]), "above it");
        assert_eq!(disk.read(zone(0) + CAPACITY - 1, 3), Ok(vec![0; 3]), "across the capacity");
        assert_eq!(disk.read(zone(1), ZONE), Ok(vec![0; 128]), "an empty zone, {aio:?}");
    }
}

#[test]
fn a_read_may_be_any_sectors() {
    let mut disk = Disk::new();
    assert_eq!(disk.write(zone(0), 2 * BLOCK, 7), OK);
    assert_eq!(disk.read(zone(0) + 3, 1), Ok(vec![7]));
    assert_eq!(disk.read(zone(0) + 13, 6), Ok(vec![7, 7, 7, 0, 0, 0]));
}

#[test]
fn a_read_across_sequential_zones_is_refused() {
    let mut disk = Disk::new();
    assert_eq!(disk.read(zone(0) + ZONE - 1, 2), Err(INVALID_CMD));
    assert_eq!(disk.read(zone(0), ZONE + 1), Err(INVALID_CMD));
    assert_eq!(disk.read(zone(0) - 1, 2), Err(INVALID_CMD), "from a conventional one");
    assert_eq!(disk.read(SECTORS - 1, 2), Err(IO_ERR), "beyond the disk");
}

#[test]
fn a_read_across_conventional_zones_is_a_read() {
    let mut disk = Disk::new();
    assert_eq!(disk.write(ZONE - BLOCK, BLOCK, 1), OK);
    assert_eq!(disk.write(ZONE, BLOCK, 2), OK);
    assert_eq!(disk.read(ZONE - BLOCK, 2 * BLOCK), Ok([vec![1; 8], vec![2; 8]].concat()));
}

#[test]
fn an_offline_zone_is_not_read_and_a_read_only_one_is() {
    let mut disk = Disk::new();
    disk.bring(zone(0), Offline);
    disk.bring(zone(1), ReadOnly);
    assert_eq!(disk.read(zone(0), BLOCK), Err(INVALID_CMD));
    assert_eq!(disk.read(zone(1), 48), Ok(vec![1; 48]));
}

#[test]
fn nothing_of_what_was_there_before_a_reset_is_read_again() {
    for aio in ENGINES {
        let mut disk = Disk::on(aio);
        for byte in 1..5 {
            assert_eq!(disk.write(zone(0), CAPACITY, byte), OK);
            assert_eq!(disk.manage(RESET, zone(0)), OK);
            assert_eq!(disk.append(zone(0), BLOCK, byte + 100), Ok(zone(0)));
            let expected = [vec![byte + 100; 8], vec![0; 88]].concat();
            assert_eq!(disk.read(zone(0), CAPACITY), Ok(expected), "{aio:?}");
            assert_eq!(disk.manage(RESET_ALL, 0), OK);
        }
    }
}
