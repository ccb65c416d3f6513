//! How many zones may be open, and how many partly written.

use super::*;

#[test]
fn zones_that_were_opened_are_not_closed_for_another() {
    let mut disk = Disk::limited(2, 0);
    for number in [0, 1] {
        assert_eq!(disk.manage(OPEN, zone(number)), OK);
    }
    assert_eq!(disk.write(zone(2), BLOCK, 9), OPEN_RESOURCE);
    assert_eq!(disk.append(zone(2), BLOCK, 9), Err(OPEN_RESOURCE));
    assert_eq!(disk.manage(OPEN, zone(2)), OPEN_RESOURCE);
    assert_eq!(disk.manage(FINISH, zone(2)), OPEN_RESOURCE, "to finish one it is opened");
    assert_eq!(disk.state(zone(2)), (Empty, 0));
    assert_eq!((disk.told(zone(0)).state, disk.told(zone(1)).state), (Explicit, Explicit));
    assert_eq!(disk.write(zone(0), BLOCK, 1), OK, "they are written");
}

#[test]
fn a_zone_that_is_open_because_it_was_written_is_closed_for_another() {
    let mut disk = Disk::limited(2, 0);
    assert_eq!(disk.manage(OPEN, zone(0)), OK);
    assert_eq!(disk.write(zone(1), BLOCK, 1), OK);
    assert_eq!(disk.write(zone(2), BLOCK, 2), OK);
    assert_eq!(disk.state(zone(0)), (Explicit, 0), "never this one");
    assert_eq!(disk.state(zone(1)), (Closed, BLOCK));
    assert_eq!(disk.state(zone(2)), (Implicit, BLOCK));
    assert_eq!(disk.append(zone(1), BLOCK, 3), Ok(zone(1) + BLOCK));
    assert_eq!(disk.state(zone(2)), (Closed, BLOCK));
    assert_eq!(disk.manage(OPEN, zone(3)), OK);
    assert_eq!(disk.state(zone(1)), (Closed, 2 * BLOCK));
}

#[test]
fn of_several_the_one_that_was_not_written_for_longest_is_closed() {
    let mut disk = Disk::limited(3, 0);
    for number in [0, 1, 2] {
        assert_eq!(disk.write(zone(number), BLOCK, 1), OK);
    }
    assert_eq!(disk.write(zone(0) + BLOCK, BLOCK, 1), OK);
    assert_eq!(disk.write(zone(3), BLOCK, 1), OK);
    let states: Vec<_> = (0..4).map(|number| disk.told(zone(number)).state).collect();
    assert_eq!(states, [Implicit, Closed, Implicit, Implicit]);
}

#[test]
fn with_too_many_active_zones_an_empty_one_is_not_begun() {
    let mut disk = Disk::limited(0, 2);
    disk.bring(zone(0), Closed);
    disk.bring(zone(1), Implicit);
    for kind in [OPEN, FINISH] {
        assert_eq!(disk.manage(kind, zone(2)), ACTIVE_RESOURCE, "type {kind}");
    }
    assert_eq!(disk.write(zone(2), BLOCK, 9), ACTIVE_RESOURCE);
    assert_eq!(disk.append(zone(2), BLOCK, 9), Err(ACTIVE_RESOURCE));
    assert_eq!(disk.state(zone(2)), (Empty, 0));
}

#[test]
fn with_too_many_of_both_it_is_the_active_ones_that_are_said() {
    let mut disk = Disk::limited(2, 2);
    for number in [0, 1] {
        assert_eq!(disk.manage(OPEN, zone(number)), OK);
    }
    assert_eq!(disk.manage(OPEN, zone(2)), ACTIVE_RESOURCE);
    assert_eq!(disk.write(zone(2), BLOCK, 9), ACTIVE_RESOURCE);
    assert_eq!(disk.append(zone(2), BLOCK, 9), Err(ACTIVE_RESOURCE));
}

#[test]
fn a_closed_zone_is_active_already_and_is_written() {
    let mut disk = Disk::limited(1, 2);
    disk.bring(zone(0), Closed);
    disk.bring(zone(1), Closed);
    assert_eq!(disk.write(zone(0) + 48, BLOCK, 1), OK);
    assert_eq!(disk.append(zone(1), BLOCK, 1), Ok(zone(1) + 48));
    assert_eq!((disk.told(zone(0)).state, disk.told(zone(1)).state), (Closed, Implicit));
}

/// Whatever ends a zone's activity, another one may take its place.
#[test]
fn each_way_to_end_gives_the_resources_back() {
    type End = fn(&mut Disk, u64);
    let ends: [(&str, End); 6] = [
        ("reset", |disk, at| assert_eq!(disk.manage(RESET, at), OK)),
        ("reset of all", |disk, _| assert_eq!(disk.manage(RESET_ALL, 0), OK)),
        ("finish", |disk, at| assert_eq!(disk.manage(FINISH, at), OK)),
        ("filled", |disk, at| assert_eq!(disk.write(at + BLOCK, CAPACITY - BLOCK, 1), OK)),
        ("read-only", |disk, at| disk.image.zoned().unwrap().fail((at / ZONE) as u32, false).unwrap()),
        ("offline", |disk, at| disk.image.zoned().unwrap().fail((at / ZONE) as u32, true).unwrap()),
    ];
    for (what, end) in ends {
        for kind in [OUT, OPEN, CLOSE] {
            let mut disk = Disk::limited(1, 1);
            assert_eq!(disk.write(zone(0), BLOCK, 1), OK);
            if kind != OUT {
                assert_eq!(disk.manage(kind, zone(0)), OK);
            }
            assert_eq!(disk.manage(OPEN, zone(1)), ACTIVE_RESOURCE);
            end(&mut disk, zone(0));
            assert_eq!(disk.manage(OPEN, zone(1)), OK, "{what}");
            assert_eq!(disk.manage(OPEN, zone(2)), ACTIVE_RESOURCE, "{what}: exactly one");
        }
    }
}
