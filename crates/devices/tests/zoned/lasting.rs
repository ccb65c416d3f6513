//! What is left when the device is made anew: after it ended, or its process was killed.

use super::*;

/// The same image, opened again.
fn reopened(disk: Disk) -> Disk {
    let Disk { harness, image, file } = disk;
    drop((harness, image));
    open(file, Aio::IoUring)
}

#[test]
fn zones_that_nobody_has_open_any_more_are_closed_or_empty() {
    let mut disk = Disk::new();
    assert_eq!(disk.manage(OPEN, zone(0)), OK);
    for (number, state) in [(1, Implicit), (2, Explicit), (3, Closed), (4, Full)] {
        disk.bring(zone(number), state);
    }
    let mut disk = reopened(disk);
    let states: Vec<_> = (0..6).map(|number| disk.state(zone(number))).collect();
    let closed = (Closed, 48);
    assert_eq!(states, [(Empty, 0), closed, closed, closed, (Full, ZONE), (Empty, 0)]);
    assert_eq!(disk.append(zone(2), BLOCK, 2), Ok(zone(2) + 48));
    assert_eq!(disk.read(zone(2), 64), Ok([vec![1; 48], vec![2; 8], vec![0; 8]].concat()));
}

#[test]
fn zones_that_are_lost_stay_lost() {
    let mut disk = Disk::new();
    disk.bring(zone(0), ReadOnly);
    disk.bring(zone(1), Offline);
    let mut disk = reopened(disk);
    assert_eq!((disk.told(zone(0)).state, disk.told(zone(1)).state), (ReadOnly, Offline));
    assert_eq!(disk.read(zone(0), 48), Ok(vec![1; 48]));
    assert_eq!(disk.manage(RESET_ALL, 0), OK);
    let mut disk = reopened(disk);
    assert_eq!((disk.told(zone(0)).state, disk.told(zone(1)).state), (ReadOnly, Offline));
}

#[test]
fn a_copy_of_an_image_in_use_is_an_image() {
    let mut disk = Disk::new();
    for (number, state) in [(0, Implicit), (1, Full), (2, ReadOnly)] {
        disk.bring(zone(number), state);
    }
    assert_eq!(disk.ask(FLUSH, 0, &[]), OK);
    let copy = NamedTempFile::new().unwrap();
    std::fs::copy(disk.file.path(), copy.path()).unwrap();
    assert_eq!(disk.manage(RESET_ALL, 0), OK, "it is another image from now on");
    let mut copy = open(copy, Aio::IoUring);
    assert_eq!((copy.state(zone(0)), copy.state(zone(1))), ((Closed, 48), (Full, ZONE)));
    assert_eq!(copy.told(zone(2)).state, ReadOnly);
    assert_eq!(copy.read(zone(1), CAPACITY), Ok(vec![1; 96]));
}
