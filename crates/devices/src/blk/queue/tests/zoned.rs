//! A disk with zones that does what a test says.

use parador_block::zoned::image::Metadata;
use parador_block::zoned::{Condition, Geometry, Refusal as Refused, Zone};
use parador_virtio::testing::Used;

use super::*;

const ZONED: u64 = bit(v::VIRTIO_BLK_F_ZONED);
/// Where the first sequential zone starts, in sectors.
const START: u64 = 128;

/// Zones of 64 KiB, the first one conventional.
fn fixture(features: u64) -> Fixture {
    fixture_with(features, Aio::IoUring)
}

fn fixture_with(features: u64, aio: Aio) -> Fixture {
    let file = tempfile::NamedTempFile::new().unwrap();
    let geometry = Geometry { conventional: 1, max_append: 16 << 10, ..Geometry::new(1 << 20, 64 << 10) };
    let len = Metadata::create(file.as_file(), geometry.checked().unwrap(), [1; 16]).unwrap();
    file.as_file().set_len(len).unwrap();
    let options = RawOptions { aio, ..RawOptions::new(file.path()) };
    Fixture::of(&Image::open_zoned(&options).unwrap(), features)
}

impl Fixture {
    fn used(&mut self) -> Used {
        self.turn();
        self.driver.take_used().expect("it is over")
    }

    /// Does a request that the disk ends at once.
    fn ends(&mut self, kind: u32, data: &[u8], room: &[usize], outcome: Outcome) -> Used {
        self.script.lock().at_once.push_back(outcome);
        self.add(kind, START, data, room);
        self.used()
    }
}

#[test]
fn each_refusal_has_its_status() {
    for (refused, status) in [
        (Refused::InvalidCommand, 3),
        (Refused::UnalignedWrite, 4),
        (Refused::OpenResource, 5),
        (Refused::ActiveResource, 6),
        (Refused::OutOfRange, 1),
        (Refused::Busy, 1),
    ] {
        let mut fixture = fixture(FLUSH | ZONED);
        let used = fixture.ends(v::VIRTIO_BLK_T_OUT, &[1; 4096], &[1], Err(refused.into()));
        assert_eq!((used.written, used.data), (1, vec![status]), "{refused}");
        let used = fixture.ends(v::VIRTIO_BLK_T_IN, &[], &[512, 1], Err(refused.into()));
        assert_eq!((used.written, used.data[0], used.data[512]), (0, UNTOUCHED, status), "{refused}");
        let used = fixture.ends(v::VIRTIO_BLK_T_ZONE_OPEN, &[], &[1], Err(refused.into()));
        assert_eq!((used.written, used.data), (1, vec![status]), "{refused}");
        // The status is there although nobody knows where the data would have gone.
        let used = fixture.ends(v::VIRTIO_BLK_T_ZONE_APPEND, &[1; 4096], &[16], Err(refused.into()));
        assert_eq!((used.written, &used.data[..15], used.data[15]), (0, &[UNTOUCHED; 15][..], status));
    }
}

/// The specification has nine bytes; Linux has sixteen, and the status in the last one.
#[test]
fn an_append_says_where_in_the_first_bytes_and_how_it_went_in_the_last() {
    for (room, written) in [
        (vec![9], 9),
        (vec![8, 1], 9),
        (vec![1; 9], 9),
        (vec![4, 5], 9),
        (vec![16], 16),
        (vec![8, 8], 16),
        (vec![3, 10, 3], 16),
        (vec![15, 1], 16),
        (vec![10], 10),
        (vec![17], 15),
        (vec![4096], 15),
    ] {
        let mut fixture = fixture(FLUSH | ZONED);
        let used = fixture.ends(v::VIRTIO_BLK_T_ZONE_APPEND, &[1; 4096], &room, Ok(0x1_2345 * 512));
        assert_eq!(fixture.script.asked(), [Asked::Append(START * 512, 4096)]);
        assert_eq!(used.data[..8], 0x1_2345_u64.to_le_bytes(), "{room:?}");
        assert_eq!(used.data.last(), Some(&0), "{room:?}");
        assert_eq!(used.written, written, "{room:?}");
        assert!(used.data[8..(written as usize).min(15)].iter().all(|byte| *byte == 0), "{room:?}");
    }
}

#[test]
fn an_append_without_room_for_its_answer_is_not_done() {
    for room in 1..9 {
        let mut fixture = fixture(FLUSH | ZONED);
        fixture.add(v::VIRTIO_BLK_T_ZONE_APPEND, START, &[1; 4096], &[room]);
        let used = fixture.used();
        assert_eq!((used.written, used.data[room - 1]), (u32::from(room == 1), 1));
        assert_eq!(fixture.script.asked(), []);
    }
}

#[test]
fn what_makes_no_sense_does_not_reach_the_disk() {
    let end = 2048;
    for (kind, sector, len, status) in [
        (v::VIRTIO_BLK_T_ZONE_APPEND, START, 4095, 1),
        (v::VIRTIO_BLK_T_ZONE_APPEND, START, 513, 1),
        (v::VIRTIO_BLK_T_ZONE_APPEND, START, (16 << 10) + 512, 3),
        (v::VIRTIO_BLK_T_ZONE_APPEND, end, 4096, 3),
        (v::VIRTIO_BLK_T_ZONE_APPEND, u64::MAX, 4096, 3),
        (v::VIRTIO_BLK_T_ZONE_APPEND, 1 << 55, 4096, 3),
        (v::VIRTIO_BLK_T_ZONE_OPEN, end, 0, 3),
        (v::VIRTIO_BLK_T_ZONE_CLOSE, end + 1, 0, 3),
        (v::VIRTIO_BLK_T_ZONE_FINISH, 1 << 55, 0, 3),
        (v::VIRTIO_BLK_T_ZONE_RESET, u64::MAX, 0, 3),
        (v::VIRTIO_BLK_T_ZONE_REPORT, end, 0, 3),
        (v::VIRTIO_BLK_T_ZONE_REPORT, u64::MAX, 0, 3),
        (17, START, 0, 2),
        (19, START, 4096, 2),
        (27, START, 0, 2),
    ] {
        let mut fixture = fixture(FLUSH | ZONED);
        fixture.add(kind, sector, &vec![1; len], &[64, 1]);
        let used = fixture.used();
        assert_eq!((used.written, used.data[64]), (0, status), "type {kind} at {sector}, {len} bytes");
        assert_eq!(fixture.script.asked(), []);
    }
    // A report has room for its header, if for nothing else.
    for room in [1, 2, 63, 64] {
        let mut fixture = fixture(FLUSH | ZONED);
        fixture.add(v::VIRTIO_BLK_T_ZONE_REPORT, 0, &[], &[room]);
        let used = fixture.used();
        assert_eq!((used.written, used.data[room - 1]), (u32::from(room == 1), 1), "{room} bytes");
    }
}

#[test]
fn commands_reach_the_disk_with_the_zone_they_are_for() {
    use ZoneAction::{Close, Finish, Open, Reset, ResetAll};
    for (kind, action, at) in [
        (v::VIRTIO_BLK_T_ZONE_OPEN, Open, START * 512),
        (v::VIRTIO_BLK_T_ZONE_CLOSE, Close, START * 512),
        (v::VIRTIO_BLK_T_ZONE_FINISH, Finish, START * 512),
        (v::VIRTIO_BLK_T_ZONE_RESET, Reset, START * 512),
        (v::VIRTIO_BLK_T_ZONE_RESET_ALL, ResetAll, 0),
    ] {
        let mut fixture = fixture(FLUSH | ZONED);
        fixture.add(kind, START, &[], &[1]);
        fixture.turn();
        assert_eq!(fixture.script.asked(), [Asked::Zone(action, at)]);
        assert_eq!(fixture.driver.take_used(), None, "it takes its time");
        fixture.script.end(0, Ok(0));
        assert_eq!(fixture.used().data, [0]);
    }
}

/// What an append wrote is durable, as of any write; what a command did is, whoever asks.
#[test]
fn writethrough_flushes_after_an_append_and_not_after_a_command() {
    let mut fixture = fixture(ZONED);
    fixture.add(v::VIRTIO_BLK_T_ZONE_APPEND, START, &[1; 4096], &[16]);
    fixture.add(v::VIRTIO_BLK_T_ZONE_RESET, START, &[], &[1]);
    fixture.turn();
    fixture.script.end(0, Ok(START * 512));
    fixture.script.end(1, Ok(0));
    assert_eq!(fixture.used().data, [0], "the command");
    assert_eq!(fixture.driver.take_used(), None, "the append is not over");
    let asked = fixture.script.asked();
    assert_eq!(asked[2..], [Asked::Flush]);
    fixture.script.end(2, Ok(0));
    let used = fixture.used();
    assert_eq!((&used.data[..8], used.data[15]), (&START.to_le_bytes()[..], 0), "not what the flush says");
}

#[test]
fn an_append_that_cannot_be_flushed_has_failed() {
    let mut fixture = fixture(ZONED);
    let failed = Err(io::Error::from_raw_os_error(libc::EIO).into());
    fixture.script.lock().at_once.extend([Ok(START * 512), failed]);
    fixture.add(v::VIRTIO_BLK_T_ZONE_APPEND, START, &[1; 4096], &[16]);
    let used = fixture.used();
    assert_eq!((used.written, used.data[15]), (0, 1));
}

#[test]
fn an_append_or_a_command_that_is_given_up_gets_no_answer() {
    let mut fixture = fixture(FLUSH | ZONED);
    fixture.add(v::VIRTIO_BLK_T_IN, START, &[], &[512, 1]);
    fixture.add(v::VIRTIO_BLK_T_ZONE_APPEND, START, &[1; 4096], &[16]);
    fixture.add(v::VIRTIO_BLK_T_ZONE_RESET_ALL, 0, &[], &[1]);
    fixture.turn();
    fixture.handler.abandon(&mut fixture.queue).unwrap();
    fixture.queue.flush();
    assert_eq!(fixture.driver.take_used().expect("the read was over").data.len(), 513);
    assert_eq!((fixture.driver.take_used(), fixture.driver.in_flight()), (None, 2));
}

/// Nothing of a report waits for the disk: what is in flight has its place already.
#[test]
fn a_report_is_answered_while_writes_are_in_flight() {
    let mut fixture = fixture(FLUSH | ZONED);
    fixture.add(v::VIRTIO_BLK_T_OUT, START, &[1; 4096], &[1]);
    let head = fixture.add(v::VIRTIO_BLK_T_ZONE_REPORT, START, &[], &[192, 1]);
    let used = fixture.used();
    assert_eq!((used.head, used.written, used.data[192]), (head, 193, 0));
    assert_eq!(used.data[..8], 2u64.to_le_bytes(), "two zones");
    assert_eq!(used.data[72..80], START.to_le_bytes(), "from the first one that was asked for");
}

#[test]
fn a_read_only_disk_is_only_read() {
    let limits = Limits {
        capacity: 2048,
        read_only: true,
        discard: false,
        write_zeroes: false,
        zones: Zones::HostManaged { max_append: 1 << 20 },
    };
    for (kind, expected) in [
        (v::VIRTIO_BLK_T_OUT, Some(Status::IoErr)),
        (v::VIRTIO_BLK_T_ZONE_APPEND, Some(Status::IoErr)),
        (v::VIRTIO_BLK_T_ZONE_OPEN, Some(Status::IoErr)),
        (v::VIRTIO_BLK_T_ZONE_CLOSE, Some(Status::IoErr)),
        (v::VIRTIO_BLK_T_ZONE_FINISH, Some(Status::IoErr)),
        (v::VIRTIO_BLK_T_ZONE_RESET, Some(Status::IoErr)),
        (v::VIRTIO_BLK_T_ZONE_RESET_ALL, Some(Status::IoErr)),
        (v::VIRTIO_BLK_T_IN, None),
        (v::VIRTIO_BLK_T_ZONE_REPORT, None),
        (v::VIRTIO_BLK_T_FLUSH, None),
        (17, Some(Status::Unsupp)),
    ] {
        let mut fixture = fixture(FLUSH | ZONED);
        fixture.add(kind, START, &[1; 512], &[512, 1]);
        fixture.driver.publish();
        let chain = fixture.queue.pop().unwrap().unwrap();
        let refused = request::parse(&chain, &limits, &mut Vec::new()).err();
        assert_eq!(refused, expected.map(Refusal::Status), "type {kind}");
        fixture.queue.push(chain, 0);
    }
}

/// The back-end ends when appends are done and their driver does not know yet.
#[test]
fn an_append_that_another_process_did_is_not_done_twice() {
    let bytes = InflightRegion::bytes(1, 16);
    for aio in [Aio::Sync, Aio::Threads, Aio::IoUring] {
        let mut fixture = fixture_with(ZONED, aio);
        let image = fixture.shared.image.clone();
        let region = InflightRegion::map(shared_file(bytes), 0, bytes, 1, 16).unwrap();
        for _ in 0..3 {
            fixture.add(v::VIRTIO_BLK_T_ZONE_APPEND, START, &[5; 4096], &[16]);
        }
        fixture.driver.publish();
        let mut places = Vec::new();
        for process in 0..2 {
            let resume = fixture.driver.state();
            let setup = QueueSetup { inflight: region.queue(0), ..fixture.driver.setup(0, resume) };
            let mut queue = Queue::new(&setup).unwrap();
            let disk = image.queue(16).unwrap();
            let mut handler = BlkQueue::new(disk, Arc::clone(&fixture.shared), 16);
            if process == 0 {
                while let Some(chain) = queue.pop().unwrap() {
                    handler.take(&mut queue, chain);
                }
                continue;
            }
            handler.run(&mut queue).unwrap();
            handler.drain(&mut queue).unwrap();
            queue.flush();
            while let Some(used) = fixture.driver.take_used() {
                assert_eq!(used.data.last(), Some(&0));
                places.push(u64::from_le_bytes(used.data[..8].try_into().unwrap()));
            }
        }
        places.sort_unstable();
        assert_eq!(places, [START, START + 8, START + 16]);
        let nothing = Zone { start: 0, capacity: 0, condition: Condition::Empty, write_pointer: None };
        let mut zones = [nothing];
        image.zoned().unwrap().report(1, &mut zones).unwrap();
        assert_eq!(zones[0].write_pointer, Some((START + 24) * 512));
    }
}
