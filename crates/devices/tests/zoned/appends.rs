//! Appends: the disk says where the data is.

use std::collections::BTreeMap;

use parador_virtio::testing::PATIENCE;

use super::*;

#[test]
fn an_append_goes_to_the_write_pointer_and_says_so() {
    for aio in ENGINES {
        let mut disk = Disk::on(aio);
        assert_eq!(disk.append(zone(0), BLOCK, 1), Ok(zone(0)));
        assert_eq!(disk.append(zone(0), 2 * BLOCK, 2), Ok(zone(0) + BLOCK));
        assert_eq!(disk.append(zone(1), BLOCK, 3), Ok(zone(1)));
        assert_eq!(disk.append(zone(0), BLOCK, 4), Ok(zone(0) + 3 * BLOCK));
        let expected = [vec![1; 8], vec![2; 16], vec![4; 8]].concat();
        assert_eq!(disk.read(zone(0), 32), Ok(expected), "{aio:?}");
        assert_eq!(disk.state(zone(0)), (Implicit, 4 * BLOCK));
    }
}

#[test]
fn an_append_is_for_the_start_of_a_zone() {
    let mut disk = Disk::new();
    for sector in [zone(0) + 1, zone(0) + BLOCK, zone(1) - 1, SECTORS, 1 << 55, u64::MAX] {
        assert_eq!(disk.append(sector, BLOCK, 9), Err(INVALID_CMD), "at {sector}");
    }
    assert_eq!(disk.state(zone(0)), (Empty, 0));
}

#[test]
fn an_append_has_a_most() {
    let mut disk = Disk::new();
    assert_eq!(disk.append(zone(0), MAX_APPEND + BLOCK, 9), Err(INVALID_CMD));
    assert_eq!(disk.append(zone(0), MAX_APPEND + 1, 9), Err(INVALID_CMD));
    assert_eq!(disk.append(zone(0), MAX_APPEND, 1), Ok(zone(0)));
}

#[test]
fn an_append_that_does_not_fit_leaves_the_write_pointer() {
    let mut disk = Disk::new();
    assert_eq!(disk.write(zone(0), CAPACITY - BLOCK, 1), OK);
    assert_eq!(disk.append(zone(0), 2 * BLOCK, 9), Err(INVALID_CMD));
    assert_eq!(disk.state(zone(0)), (Implicit, CAPACITY - BLOCK));
    assert_eq!(disk.append(zone(0), BLOCK, 2), Ok(zone(0) + CAPACITY - BLOCK));
    assert_eq!(disk.state(zone(0)), (Full, ZONE));
    assert_eq!(disk.append(zone(0), BLOCK, 9), Err(INVALID_CMD), "it is full");
}

#[test]
fn an_append_is_whole_blocks() {
    let mut disk = Disk::new();
    for sectors in [1, BLOCK - 1, BLOCK + 1] {
        assert_eq!(disk.append(zone(0), sectors, 9), Err(UNALIGNED_WP), "{sectors} sectors");
    }
    for (len, status) in [(0, INVALID_CMD), (1, IO_ERR), (4095, IO_ERR)] {
        let reply = disk.request(APPEND, zone(0), &vec![9; len], &[16]);
        assert_eq!((reply.written, reply.data[15]), (0, status), "{len} bytes");
    }
    assert_eq!(disk.state(zone(0)), (Empty, 0));
}

#[test]
fn an_append_opens_an_empty_or_closed_zone() {
    let mut disk = Disk::new();
    assert_eq!(disk.append(zone(0), BLOCK, 1), Ok(zone(0)));
    assert_eq!(disk.state(zone(0)), (Implicit, BLOCK));
    disk.bring(zone(1), Closed);
    assert_eq!(disk.append(zone(1), BLOCK, 1), Ok(zone(1) + 48));
    assert_eq!(disk.state(zone(1)), (Implicit, 48 + BLOCK));
}

#[test]
fn an_append_to_a_lost_zone_is_invalid() {
    for state in [ReadOnly, Offline] {
        let mut disk = Disk::new();
        disk.bring(zone(0), state);
        assert_eq!(disk.append(zone(0), BLOCK, 9), Err(INVALID_CMD));
    }
}

#[test]
fn room_for_the_answer_may_be_cut_anywhere() {
    let mut disk = Disk::new();
    let data = vec![1; 4096];
    let rooms: [&[usize]; 7] = [&[9], &[16], &[8, 1], &[1, 7, 1], &[8, 7, 1], &[2, 9, 5], &[15, 1]];
    for (step, room) in (0..).zip(rooms) {
        let reply = disk.request(APPEND, zone(0), &data, room);
        assert_eq!(reply.data[..8], (zone(0) + step * BLOCK).to_le_bytes(), "{room:?}");
        assert_eq!(reply.data.last(), Some(&OK), "{room:?}");
        assert_eq!(reply.written as usize, reply.data.len(), "{room:?}");
    }
}

#[test]
fn appends_and_writes_to_one_zone_go_together() {
    let mut disk = Disk::new();
    assert_eq!(disk.append(zone(0), BLOCK, 1), Ok(zone(0)));
    assert_eq!(disk.write(zone(0) + BLOCK, BLOCK, 2), OK);
    assert_eq!(disk.append(zone(0), BLOCK, 3), Ok(zone(0) + 2 * BLOCK));
    assert_eq!(disk.write(zone(0) + BLOCK, BLOCK, 9), UNALIGNED_WP, "the append was there first");
    assert_eq!(disk.read(zone(0), 24), Ok([vec![1; 8], vec![2; 8], vec![3; 8]].concat()));
}

#[test]
fn appends_of_several_queues_at_once_are_apart_and_without_a_gap() {
    const QUEUES: u16 = 4;
    const EACH: u64 = 40;
    // Room for all in two zones.
    let shape = Geometry { zone_size: 8 << 20, capacity: 64 << 20, zone_capacity: 7 << 20, ..geometry() };
    let sectors = 16384;
    let mut disk = Disk::with(shape, |options| options.queues = QUEUES);
    let mut expected = BTreeMap::new();
    for round in 0..8u64 {
        let at = (2 + round % 2) * sectors;
        let mut asked = BTreeMap::new();
        for queue in 0..QUEUES {
            let driver = disk.harness.driver(queue);
            for number in 0..EACH {
                let byte = (round * 31 + u64::from(queue) * 7 + number) as u8;
                let len = (1 + number % 4) * 4096;
                let data = vec![byte; len as usize];
                let head = driver.add_indirect(&[&header(APPEND, at), &data], &[16]).unwrap();
                asked.insert((queue, head), (byte, len / 512));
            }
            driver.kick();
        }
        for queue in 0..QUEUES {
            let driver = disk.harness.driver(queue);
            while driver.in_flight() > 0 {
                let used = driver.wait_used(PATIENCE).expect("each is answered");
                let (byte, len) = asked[&(queue, used.head)];
                assert_eq!((used.written, used.data[15]), (16, OK));
                let start = u64::from_le_bytes(used.data[..8].try_into().unwrap());
                assert_eq!(expected.insert(start, (byte, len)), None, "two at one place");
            }
        }
    }
    for at in [2 * sectors, 3 * sectors] {
        let (state, pointer) = disk.state(at);
        assert_eq!(state, Implicit);
        let mut next = at;
        for (&start, &(byte, len)) in expected.range(at..at + sectors) {
            assert_eq!(start, next, "no gap, and none over another");
            assert_eq!(disk.read(start, len), Ok(vec![byte; len as usize]));
            next = start + len;
        }
        assert_eq!(next, at + pointer, "as far as the write pointer moved");
    }
}
