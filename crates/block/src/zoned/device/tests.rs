//! A disk over a host that is as strict as a device with zones.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::shape::{CONVENTIONAL, Limits, geometry};
use super::testing::{BLOCK, LIMITS, SECTOR, Shared, ZONE, new, zones};
use super::{Device, DeviceError};
use crate::sys::BlkZone;
use crate::zoned::disk::ZonedFile;
use crate::zoned::{Condition, Refusal, Zone, Zoned};
use crate::{Aio, Buffer, Disk, Fault, Op, Outcome, Submitted, Tag, ZoneAction};

impl Shared {
    fn disk(&self) -> Arc<ZonedFile> {
        let device = Device::with(Box::new(self.clone()), 8 * ZONE, &LIMITS).unwrap();
        Arc::new(ZonedFile::kept_by(Box::new(device), "drive".to_owned()))
    }

    fn queue(&self, file: &Arc<ZonedFile>) -> Box<dyn Disk> {
        file.queue(Box::new(Moving { drive: self.clone(), in_flight: VecDeque::new() }), 8).unwrap()
    }
}

/// Moves data to the drive, the latest request first.
struct Moving {
    drive: Shared,
    in_flight: VecDeque<(Tag, u64, u64)>,
}

impl Disk for Moving {
    fn submit(&mut self, op: Op<'_>, tag: Tag) -> Submitted {
        let Op::Write { offset, buffers } = op else { return Submitted::Done(Ok(0)) };
        self.drive.with(|drive| {
            let busy = offset >= ZONE && drive.writing.iter().any(|other| other / ZONE == offset / ZONE);
            assert!(!busy, "two writes in flight in one zone");
            drive.writing.push(offset);
        });
        self.in_flight.push_back((tag, offset, buffers.iter().map(|buffer| buffer.len() as u64).sum()));
        Submitted::InFlight
    }

    fn kick(&mut self) {}

    fn reap(&mut self) -> Option<(Tag, Outcome)> {
        let (tag, offset, len) = self.in_flight.pop_back()?;
        let result = self.drive.with(|drive| {
            drive.writing.retain(|other| *other != offset);
            drive.write(offset, len)
        });
        Some((tag, result.map(|()| 0).map_err(Fault::Host)))
    }

    fn wait(&mut self) {}

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn aio(&self) -> Aio {
        Aio::Sync
    }
}

fn buffers(len: u64) -> [Buffer; 1] {
    [Buffer::of(Box::leak(vec![0; len as usize].into_boxed_slice()))]
}

fn write(disk: &mut dyn Disk, offset: u64, len: u64, tag: Tag) {
    assert!(matches!(disk.submit(Op::Write { offset, buffers: &buffers(len) }, tag), Submitted::InFlight));
}

fn append(disk: &mut dyn Disk, zone: u64, len: u64, tag: Tag) {
    let op = Op::Append { zone: zone * ZONE, buffers: &buffers(len) };
    assert!(matches!(disk.submit(op, tag), Submitted::InFlight));
}

/// How the next `count` requests end, by tag.
fn over(disk: &mut dyn Disk, count: usize) -> Vec<(Tag, Outcome)> {
    let mut ended = Vec::new();
    while ended.len() < count {
        disk.wait();
        ended.extend(std::iter::from_fn(|| disk.reap()));
    }
    assert_eq!(ended.len(), count);
    ended.sort_by_key(|(tag, _)| *tag);
    ended
}

fn command(disk: &mut dyn Disk, action: ZoneAction, zone: u64) -> Outcome {
    match disk.submit(Op::Zone { action, zone: zone * ZONE }, 1) {
        Submitted::Done(outcome) => outcome,
        Submitted::InFlight => over(disk, 1).remove(0).1,
    }
}

fn refusal(outcome: &Outcome) -> Option<Refusal> {
    match outcome {
        Err(Fault::Refused(refusal)) => Some(*refusal),
        _ => None,
    }
}

fn zone(file: &ZonedFile, number: u32) -> Zone {
    let blank = Zone { start: 0, capacity: 0, condition: Condition::Offline, write_pointer: None };
    let mut zones = [blank];
    assert_eq!(file.report(number, &mut zones).unwrap(), 1);
    zones[0]
}

#[test]
fn one_write_is_in_flight_in_a_zone_and_the_next_ones_follow_in_order() {
    let drive = new();
    let file = drive.disk();
    let mut disk = drive.queue(&file);
    for number in 0..8 {
        write(&mut *disk, 2 * ZONE + number * BLOCK, BLOCK, number as Tag);
    }
    // Other zones do not wait, nor do conventional ones, in which there is no order.
    write(&mut *disk, 3 * ZONE, BLOCK, 10);
    write(&mut *disk, 8 * BLOCK, BLOCK, 11);
    write(&mut *disk, 4 * BLOCK, BLOCK, 12);
    disk.kick();
    assert_eq!(drive.with(|drive| drive.writing.clone()), [2 * ZONE, 3 * ZONE, 8 * BLOCK, 4 * BLOCK]);
    assert!(over(&mut *disk, 11).iter().all(|(_, outcome)| matches!(outcome, Ok(0))));
    assert_eq!(zone(&file, 2).write_pointer, Some(2 * ZONE + 8 * BLOCK));
}

#[test]
fn appends_of_two_queues_share_a_zone() {
    let drive = new();
    let file = drive.disk();
    let (mut one, mut two) = (drive.queue(&file), drive.queue(&file));
    for tag in 0..8 {
        append(&mut *one, 5, BLOCK, tag);
        append(&mut *two, 5, BLOCK, tag);
    }
    let mut places = Vec::new();
    while places.len() < 16 {
        for disk in [&mut one, &mut two] {
            disk.kick();
            places.extend(std::iter::from_fn(|| disk.reap()).map(|(_, outcome)| outcome.unwrap()));
        }
    }
    places.sort_unstable();
    assert_eq!(places, (0..16).map(|block| 5 * ZONE + block * BLOCK).collect::<Vec<_>>());
    assert_eq!(zone(&file, 5).condition, Condition::Full);
}

#[test]
fn a_write_that_fails_leaves_the_zone_as_the_host_says() {
    let drive = new();
    let file = drive.disk();
    let mut disk = drive.queue(&file);
    drive.with(|drive| drive.write_fails = Some(libc::EIO));
    write(&mut *disk, ZONE, 4 * BLOCK, 0);
    disk.kick();
    write(&mut *disk, ZONE + 4 * BLOCK, BLOCK, 1);
    write(&mut *disk, ZONE + 5 * BLOCK, BLOCK, 2);
    append(&mut *disk, 1, BLOCK, 3);
    let ended = over(&mut *disk, 4);
    assert!(matches!(&ended[0].1, Err(Fault::Host(error)) if error.raw_os_error() == Some(libc::EIO)));
    assert_eq!(refusal(&ended[1].1), Some(Refusal::UnalignedWrite));
    assert_eq!(refusal(&ended[2].1), Some(Refusal::UnalignedWrite));
    // It has no place that it expects: it goes where the device wants it.
    assert!(matches!(ended[3].1, Ok(at) if at == ZONE + 2 * BLOCK));
    assert_eq!(zone(&file, 1).write_pointer, Some(ZONE + 3 * BLOCK));
    assert!(command(&mut *disk, ZoneAction::Reset, 1).is_ok());
    assert_eq!(zone(&file, 1).condition, Condition::Empty);
}

#[test]
fn what_waits_for_a_zone_goes_to_it_at_once() {
    let drive = new();
    let file = drive.disk();
    let mut disk = drive.queue(&file);
    write(&mut *disk, ZONE, 2 * BLOCK, 0);
    append(&mut *disk, 1, BLOCK, 1);
    // Another zone's, one that is at the wrong place, and what would be too much for the zone.
    write(&mut *disk, 2 * ZONE, BLOCK, 2);
    write(&mut *disk, ZONE + 3 * BLOCK, BLOCK, 3);
    write(&mut *disk, ZONE + 8 * BLOCK, BLOCK, 4);
    append(&mut *disk, 1, 11 * BLOCK, 5);
    write(&mut *disk, ZONE + 4 * BLOCK, 12 * BLOCK, 6);
    disk.kick();
    let places: Vec<_> = std::iter::from_fn(|| disk.placed()).collect();
    assert_eq!(places, [(1, ZONE + 2 * BLOCK)]);
    drive.with(|drive| assert_eq!(drive.writing, [ZONE, 2 * ZONE]));
    let ended: Vec<_> = over(&mut *disk, 7).into_iter().map(|(_, outcome)| outcome).collect();
    assert!(matches!(ended[..4], [Ok(0), Ok(at), Ok(0), Ok(0)] if at == ZONE + 2 * BLOCK));
    assert_eq!(refusal(&ended[4]), Some(Refusal::UnalignedWrite));
    assert!(matches!(ended[5], Ok(at) if at == ZONE + 4 * BLOCK));
    assert_eq!(refusal(&ended[6]), Some(Refusal::UnalignedWrite));
    // The first four blocks in one, and then what was behind the one at the wrong place.
    drive.with(|drive| {
        assert_eq!(drive.written, [(2 * ZONE, BLOCK), (ZONE, 4 * BLOCK), (ZONE + 4 * BLOCK, 11 * BLOCK)]);
    });
}

#[test]
fn a_place_is_told_before_the_host_hears_of_it() {
    let drive = new();
    let mut disk = drive.queue(&drive.disk());
    append(&mut *disk, 1, BLOCK, 7);
    append(&mut *disk, 1, BLOCK, 8);
    // `Moving` starts what it gets at once; an engine does when it is kicked.
    assert!(drive.with(|drive| drive.writing.is_empty()));
    let places: Vec<_> = std::iter::from_fn(|| disk.placed()).collect();
    assert_eq!(places, [(8, ZONE + BLOCK), (7, ZONE)]);
    assert!(over(&mut *disk, 2).iter().all(|(_, outcome)| outcome.is_ok()));
    // Those that waited, too: what is over does not start them.
    append(&mut *disk, 1, BLOCK, 7);
    assert_eq!(disk.placed(), Some((7, ZONE + 2 * BLOCK)));
    disk.kick();
    append(&mut *disk, 1, BLOCK, 8);
    while disk.reap().is_none() {}
    assert!(drive.with(|drive| drive.writing.is_empty()));
    assert!(std::iter::from_fn(|| disk.placed()).any(|place| place == (8, ZONE + 3 * BLOCK)));
    assert!(over(&mut *disk, 1)[0].1.is_ok());
}

#[test]
fn of_several_writes_in_one_that_fails_those_before_the_write_pointer_are_done() {
    let drive = new();
    let file = drive.disk();
    let mut disk = drive.queue(&file);
    let blocks = [1, 1, 4, 1, 1];
    let ask = |disk: &mut dyn Disk| {
        let mut at = ZONE;
        for (tag, blocks) in (0..).zip(blocks) {
            match tag % 2 {
                0 => write(disk, at, blocks * BLOCK, tag),
                _ => append(disk, 1, blocks * BLOCK, tag),
            }
            at += blocks * BLOCK;
        }
    };
    drive.with(|drive| drive.write_fails = Some(libc::EIO));
    ask(&mut *disk);
    let ended = over(&mut *disk, 5);
    // Half of eight blocks: the third request is done in part.
    assert!(matches!((&ended[0].1, &ended[1].1), (Ok(0), Ok(at)) if *at == ZONE + BLOCK));
    let failed = |outcome: &Outcome| matches!(outcome, Err(Fault::Host(error)) if error.raw_os_error() == Some(libc::EIO));
    assert!(ended[2..].iter().all(|(_, outcome)| failed(outcome)));
    assert_eq!(zone(&file, 1).write_pointer, Some(ZONE + 4 * BLOCK));
    // Nothing is in flight any more.
    assert!(command(&mut *disk, ZoneAction::Reset, 1).is_ok());
    // A host that does not say where it is: none of them is known to be done.
    drive.with(|drive| (drive.write_fails, drive.is_gone) = (Some(libc::EIO), true));
    ask(&mut *disk);
    assert!(over(&mut *disk, 5).iter().all(|(_, outcome)| failed(outcome)));
    assert_eq!(zone(&file, 1).condition, Condition::Offline);
}

#[test]
fn a_zone_that_nobody_knows_any_more_is_offline() {
    let drive = new();
    let file = drive.disk();
    let mut disk = drive.queue(&file);
    drive.with(|drive| (drive.write_fails, drive.is_gone) = (Some(libc::EIO), true));
    write(&mut *disk, ZONE, BLOCK, 0);
    disk.kick();
    write(&mut *disk, ZONE + BLOCK, BLOCK, 1);
    let ended = over(&mut *disk, 2);
    assert!(matches!(ended[0].1, Err(Fault::Host(_))));
    assert_eq!(refusal(&ended[1].1), Some(Refusal::InvalidCommand));
    assert_eq!(zone(&file, 1).condition, Condition::Offline);
    // It is the one zone that is lost.
    write(&mut *disk, 2 * ZONE, BLOCK, 0);
    assert!(over(&mut *disk, 1)[0].1.is_ok());
}

#[test]
fn what_a_host_has_too_many_of_is_said_as_it_is() {
    let drive = new();
    let file = drive.disk();
    let mut disk = drive.queue(&file);
    for (number, said) in
        [(libc::ETOOMANYREFS, Refusal::OpenResource), (libc::EOVERFLOW, Refusal::ActiveResource)]
    {
        drive.with(|drive| drive.command_fails = Some(number));
        assert_eq!(refusal(&command(&mut *disk, ZoneAction::Open, 4)), Some(said));
        assert_eq!(zone(&file, 4).condition, Condition::Empty);
        drive.with(|drive| (drive.write_fails, drive.zones[6].condition) = (Some(number), 1));
        write(&mut *disk, 6 * ZONE, BLOCK, 1);
        assert_eq!(refusal(&over(&mut *disk, 1)[0].1), Some(said));
    }
    for action in [ZoneAction::Open, ZoneAction::Finish, ZoneAction::Reset] {
        drive.with(|drive| drive.command_fails = Some(libc::EIO));
        assert!(matches!(command(&mut *disk, action, 7), Err(Fault::Host(_))));
        assert_eq!(zone(&file, 7).condition, Condition::Empty, "{action:?}");
    }
}

#[test]
fn commands_reach_the_host() {
    let drive = new();
    let file = drive.disk();
    let mut disk = drive.queue(&file);
    assert!(command(&mut *disk, ZoneAction::Open, 1).is_ok());
    assert!(command(&mut *disk, ZoneAction::Finish, 2).is_ok());
    assert!(command(&mut *disk, ZoneAction::Finish, 3).is_ok());
    assert_eq!(zone(&file, 1).condition, Condition::ExplicitlyOpen);
    assert!(command(&mut *disk, ZoneAction::Close, 1).is_ok());
    assert_eq!(zone(&file, 1).condition, Condition::Empty);
    write(&mut *disk, 6 * ZONE, BLOCK, 1);
    over(&mut *disk, 1);
    // What refuses a command here never sees the host.
    assert_eq!(refusal(&command(&mut *disk, ZoneAction::Open, 2)), Some(Refusal::InvalidCommand));
    assert_eq!(refusal(&command(&mut *disk, ZoneAction::Reset, 0)), Some(Refusal::InvalidCommand));
    assert!(command(&mut *disk, ZoneAction::ResetAll, 0).is_ok());
    assert!((1..8).all(|number| zone(&file, number).condition == Condition::Empty));
    assert!(matches!(disk.submit(Op::Flush, 3), Submitted::InFlight));
    over(&mut *disk, 1);
    let expected = [
        (ZoneAction::Open, 1, 1),
        (ZoneAction::Finish, 2, 1),
        (ZoneAction::Finish, 3, 1),
        (ZoneAction::Close, 1, 1),
        (ZoneAction::Reset, 2, 2),
        (ZoneAction::Reset, 6, 1),
    ];
    drive.with(|drive| assert_eq!((&drive.asked[..], drive.flushed), (&expected[..], 1)));
}

#[test]
fn a_device_is_taken_as_it_is_and_nothing_stays_open() {
    let drive = new();
    drive.with(|drive| {
        let states = [(3, 0), (3, 16), (2, 24), (14, 999), (13, 0), (15, 0), (4, 8)];
        for (zone, (condition, written)) in drive.zones[1..].iter_mut().zip(states) {
            (zone.condition, zone.write_pointer) = (condition, zone.start + written);
        }
    });
    let file = drive.disk();
    use Condition::{Closed, Empty, Full, NotWritePointer, Offline, ReadOnly};
    let conditions = (0..8).map(|number| zone(&file, number).condition).collect::<Vec<_>>();
    assert_eq!(conditions, [NotWritePointer, Empty, Closed, Closed, Full, ReadOnly, Offline, Closed]);
    assert_eq!(zone(&file, 3).write_pointer, Some(3 * ZONE + 24 * SECTOR));
    drive.with(|drive| assert_eq!(drive.asked, [(ZoneAction::Close, 1, 1), (ZoneAction::Close, 2, 1)]));
}

#[test]
fn what_a_killed_process_wrote_is_not_written_again() {
    let drive = new();
    drive.with(|drive| (drive.zones[1].condition, drive.zones[1].write_pointer) = (4, 128 + 16));
    let mut disk = drive.queue(&drive.disk());
    let again = |disk: &mut dyn Disk, offset, len| {
        disk.resubmit(Op::Write { offset, buffers: &buffers(len) }, 1, None)
    };
    // Of appends that had a place, one is there and one is not.
    let append = |disk: &mut dyn Disk, at| {
        disk.resubmit(Op::Append { zone: ZONE, buffers: &buffers(BLOCK) }, 1, Some(at))
    };
    assert!(matches!(append(&mut *disk, ZONE + BLOCK), Submitted::Done(Ok(at)) if at == ZONE + BLOCK));
    assert!(matches!(append(&mut *disk, ZONE + 2 * BLOCK), Submitted::InFlight));
    assert!(matches!(over(&mut *disk, 1)[0].1, Ok(at) if at == ZONE + 2 * BLOCK));
    assert!(matches!(again(&mut *disk, ZONE, BLOCK), Submitted::Done(Ok(0))));
    // Half of it.
    assert!(matches!(again(&mut *disk, ZONE + 2 * BLOCK, 2 * BLOCK), Submitted::InFlight));
    assert!(over(&mut *disk, 1)[0].1.is_ok());
    // None of it, and one that has no order.
    assert!(matches!(again(&mut *disk, ZONE + 4 * BLOCK, BLOCK), Submitted::InFlight));
    assert!(matches!(again(&mut *disk, BLOCK, BLOCK), Submitted::InFlight));
    assert!(over(&mut *disk, 2).iter().all(|(_, outcome)| outcome.is_ok()));
    drive.with(|drive| assert_eq!(drive.zones[1].write_pointer, 128 + 40));
}

#[test]
fn a_device_that_is_no_disk_of_ours_is_refused() {
    type Case = (fn(&mut Vec<BlkZone>), &'static str);
    let cases: [Case; 9] = [
        (|zones| zones[5].kind = CONVENTIONAL, "zone 5 is conventional, behind sequential ones"),
        (|zones| zones[5].kind = 3, "zone 5 is neither"),
        (|zones| zones[5].capacity = 64, "zone 5 can be written to another length"),
        (|zones| zones[5].len = 64, "zone 5 is not as long"),
        (|zones| zones.truncate(6), "zone 6 is missing"),
        (|zones| zones.clear(), "no zones"),
        (|zones| zones.iter_mut().for_each(|zone| zone.kind = CONVENTIONAL), "at least one is sequential"),
        (
            |zones| (zones[3].condition, zones[3].write_pointer) = (2, 1),
            "zone 3 has its write pointer elsewhere",
        ),
        (|zones| zones[3].condition = 0, "zone 3 is in a condition that its kind"),
    ];
    for (change, said) in cases {
        let drive = new();
        drive.with(|drive| change(&mut drive.zones));
        let error = Device::with(Box::new(drive), 8 * ZONE, &LIMITS).err().unwrap();
        assert!(error.to_string().contains(said), "{error}");
        assert!(error.hint().is_some(), "{error}");
    }
}

#[test]
fn the_shape_is_what_the_host_says() {
    let mut all = zones();
    all.iter_mut().skip(1).for_each(|zone| zone.capacity = 96);
    let shape = geometry(8 * ZONE, &LIMITS, &all).unwrap();
    assert_eq!((shape.zone_size, shape.zone_capacity, shape.conventional), (ZONE, 96 * SECTOR, 1));
    assert_eq!((shape.max_open, shape.max_active, shape.granularity), (3, 4, 4096));
    assert!(shape.max_append <= shape.zone_capacity);
    // A short last zone.
    let mut all = zones();
    (all[7].len, all[7].capacity) = (64, 64);
    assert_eq!(geometry(7 * ZONE + ZONE / 2, &LIMITS, &all).unwrap().capacity_of(7), ZONE / 2);
}

#[test]
fn limits_are_those_of_sysfs() {
    let device = |model: &'static str| {
        move |name| match name {
            "zoned" => Some(model.to_owned()),
            "max_open_zones" => Some("6".to_owned()),
            "zone_write_granularity" => Some("0".to_owned()),
            _ => None,
        }
    };
    let limits = Limits::read(device("host-managed"), 512).unwrap();
    assert_eq!(limits, Limits { max_open: 6, max_active: 0, granularity: 512 });
    assert!(matches!(Limits::read(device("host-aware"), 512), Err(DeviceError::HostAware)));
    assert!(matches!(Limits::read(device("none"), 512), Err(DeviceError::NotZoned)));
    assert!(matches!(Limits::read(|_| None, 512), Err(DeviceError::NotZoned)));
}
