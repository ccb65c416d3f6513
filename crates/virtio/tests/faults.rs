//! Each way a ring can be wrong, and a few that look wrong and are not.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use parador_virtio::ids::{VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC};
use parador_virtio::testing::{Arena, Driver, INDIRECT, NEXT, WRITE, turn};
use parador_virtio::{Chain, GuestAddress, Queue, QueueLayout, QueueState, RingError, Segment};
use vm_memory::Bytes;

const SIZE: u16 = 8;
/// Where the buffers and tables of these tests are.
const DATA: u64 = 0x8000;
const TABLE: u64 = 0x9000;

/// A ring whose descriptors a test writes itself. Memory: 64 KiB in two regions that meet at
/// 0xc000, a hole, 64 KiB more at 1 MiB.
fn ring(features: u64) -> Driver {
    Driver::on(&Arena::of_regions(&[(0, 0xc000), (0xc000, 0x4000), (0x10_0000, 0x1_0000)]), SIZE, features)
}

fn queue_of(driver: &Driver) -> Queue {
    Queue::new(&driver.setup(0, QueueState::default())).unwrap()
}

/// Descriptors of the ring's own table: address, length, flags, next.
type Descriptors<'a> = &'a [(u64, u32, u16, u16)];

/// What comes of a chain that starts at `descriptors[0]`, with `table` at [`TABLE`].
fn pop(features: u64, descriptors: Descriptors<'_>, table: Descriptors<'_>) -> Result<Chain, RingError> {
    let mut driver = ring(features);
    for (index, &(addr, len, flags, next)) in (0..).zip(descriptors) {
        driver.write_descriptor(index, addr, len, flags, next);
    }
    for (index, &(addr, len, flags, next)) in (0..).zip(table) {
        driver.write_descriptor_at(TABLE + 16 * index, addr, len, flags, next);
    }
    driver.offer(0);
    driver.publish();
    let mut queue = queue_of(&driver);
    let result = queue.pop();
    if let Err(error) = result {
        assert_eq!(queue.pop().err(), Some(error), "it stays");
        assert_eq!(queue.state(), QueueState::default(), "the broken chain is not taken");
    }
    result.map(|chain| chain.expect("one was offered"))
}

fn lens(segments: &[Segment]) -> Vec<usize> {
    segments.iter().map(Segment::len).collect()
}

#[test]
fn faults_of_a_chain() {
    let with_table = |len| [(TABLE, len, INDIRECT, 0)];
    let all_next = [(DATA, 1, NEXT, 1), (DATA, 1, NEXT, 0)];
    let cases: &[(&str, RingError, Descriptors<'_>, Descriptors<'_>)] = &[
        ("next beyond the table", RingError::Next, &[(DATA, 1, NEXT, SIZE)], &[]),
        ("next far beyond", RingError::Next, &[(DATA, 1, NEXT, 0xffff)], &[]),
        ("a loop of one", RingError::ChainLength, &[(DATA, 1, NEXT, 0)], &[]),
        ("a loop of two", RingError::ChainLength, &all_next, &[]),
        ("nothing there", RingError::Address, &[(0x8_0000, 1, 0, 0)], &[]),
        ("runs into a hole", RingError::Address, &[(0xfff0, 17, 0, 0)], &[]),
        ("runs out of memory", RingError::Address, &[(0x10_fff0, 17, WRITE, 0)], &[]),
        ("wraps around", RingError::Address, &[(u64::MAX - 7, 16, 0, 0)], &[]),
        ("wraps around to memory", RingError::Address, &[(u64::MAX, 2, 0, 0)], &[]),
        ("the last address", RingError::Address, &[(u64::MAX, 1, 0, 0)], &[]),
        ("more than there is", RingError::Address, &[(0, u32::MAX, WRITE, 0)], &[]),
        ("empty", RingError::EmptyBuffer, &[(DATA, 0, 0, 0)], &[]),
        ("empty, nowhere", RingError::EmptyBuffer, &[(u64::MAX, 0, WRITE, 0)], &[]),
        (
            "readable after writable",
            RingError::ReadableAfterWritable,
            &[(DATA, 1, WRITE | NEXT, 1), (DATA, 1, 0, 0)],
            &[],
        ),
        ("table and next", RingError::IndirectNext, &[(TABLE, 16, INDIRECT | NEXT, 1)], &[(DATA, 1, 0, 0)]),
        ("table of nothing", RingError::IndirectLength, &with_table(0), &[]),
        ("less than a descriptor", RingError::IndirectLength, &with_table(8), &[(DATA, 1, 0, 0)]),
        ("table of everything", RingError::IndirectLength, &with_table(1 << 20), &[(DATA, 1, 0, 0)]),
        ("half a descriptor", RingError::IndirectLength, &with_table(24), &[(DATA, 1, 0, 0)]),
        ("table in a hole", RingError::Address, &[(0x8_0000, 16, INDIRECT, 0)], &[]),
        ("table that wraps", RingError::Address, &[(u64::MAX - 15, 32, INDIRECT, 0)], &[]),
        ("table in a table", RingError::IndirectNested, &with_table(16), &[(TABLE, 16, INDIRECT, 0)]),
        ("next beyond an indirect table", RingError::Next, &with_table(16), &[(DATA, 1, NEXT, 1)]),
        ("loop in an indirect table", RingError::ChainLength, &with_table(32), &all_next),
        (
            "readable after writable across tables",
            RingError::ReadableAfterWritable,
            &[(DATA, 1, WRITE | NEXT, 1), (TABLE, 16, INDIRECT, 0)],
            &[(DATA, 1, 0, 0)],
        ),
    ];
    for (name, error, descriptors, table) in cases {
        let result = pop(VIRTIO_F_INDIRECT_DESC, descriptors, table).map(drop);
        assert_eq!(result, Err(*error), "{name}");
    }
    let result = pop(0, &[(TABLE, 16, INDIRECT, 0)], &[(DATA, 1, 0, 0)]).map(drop);
    assert_eq!(result, Err(RingError::IndirectFeature));
}

#[test]
fn a_chain_may_be_as_long_as_the_ring_and_a_table_longer() {
    let direct: Vec<_> =
        (0..SIZE).map(|at| (DATA, 1, if at + 1 < SIZE { NEXT } else { 0 }, at + 1)).collect();
    assert_eq!(pop(VIRTIO_F_INDIRECT_DESC, &direct, &[]).unwrap().readable_len(), usize::from(SIZE));
    let table = [(TABLE, 16 * u32::from(SIZE), INDIRECT, 0)];
    assert_eq!(pop(VIRTIO_F_INDIRECT_DESC, &table, &direct).unwrap().readable_len(), usize::from(SIZE));

    // A table has no room of the ring's, and Linux makes longer ones for a ring that QEMU made small.
    let table_of = |entries: u16| {
        let last = entries - 1;
        let all: Vec<_> =
            (0..entries).map(|at| (DATA, 1, if at < last { NEXT } else { 0 }, at + 1)).collect();
        pop(VIRTIO_F_INDIRECT_DESC, &[(TABLE, 16 * u32::from(entries), INDIRECT, 0)], &all)
    };
    assert_eq!(table_of(SIZE + 1).unwrap().readable_len(), usize::from(SIZE) + 1);
    assert_eq!(table_of(1024).unwrap().readable_len(), 1024);
    assert_eq!(table_of(1025).map(drop), Err(RingError::ChainLength));
}

#[test]
fn direct_descriptors_may_lead_to_an_indirect_table() {
    let chain = pop(
        VIRTIO_F_INDIRECT_DESC,
        // The write flag of a table's own descriptor means nothing (virtio 1.3 §2.7.5.3.2).
        &[(DATA, 3, NEXT, 1), (TABLE, 48, INDIRECT | WRITE, 7)],
        &[(DATA, 4, NEXT, 2), (0, 0, 0, 0), (DATA, 5, WRITE, 9)],
    );
    let chain = chain.unwrap();
    assert_eq!((lens(chain.readable()), lens(chain.writable())), (vec![3, 4], vec![5]));
}

#[test]
fn a_buffer_and_a_table_may_span_regions_that_meet() {
    let driver = ring(VIRTIO_F_INDIRECT_DESC);
    // The second descriptor of the table is half in one region and half in the other.
    let table = 0xc000 - 24;
    driver.write_descriptor_at(table, DATA, 2, NEXT, 1);
    driver.write_descriptor_at(table + 16, 0xbffc, 12, WRITE, 0);
    let mut driver = driver;
    driver.write_descriptor(0, table, 32, INDIRECT, 0);
    driver.offer(0);
    driver.publish();
    let mut queue = queue_of(&driver);
    let chain = queue.pop().unwrap().unwrap();
    assert_eq!((lens(chain.readable()), lens(chain.writable())), (vec![2], vec![4, 8]));
    // What is written across the seam is one piece of guest memory.
    driver.memory().write_slice(&[0; 32], GuestAddress(0xbff0)).unwrap();
    chain.writer().write_all(b"twelve bytes").unwrap();
    let mut seen = [0; 12];
    driver.memory().read_slice(&mut seen, GuestAddress(0xbffc)).unwrap();
    assert_eq!(&seen, b"twelve bytes");
}

#[test]
fn a_chain_of_more_bytes_than_a_used_length_tells() {
    // The same GiB four times over; never touched, so it costs nothing.
    let gib = 1_u32 << 30;
    let mut driver = Driver::on(&Arena::new(gib as usize + 0x1000), SIZE, 0);
    let last = u32::MAX - 3 * gib;
    for (index, len) in [(0, gib), (1, gib), (2, gib), (3, last)] {
        driver.write_descriptor(index, 0, len, if index < 3 { NEXT } else { 0 } | WRITE, index + 1);
    }
    driver.offer(0);
    driver.publish();
    let mut queue = queue_of(&driver);
    let chain = queue.pop().unwrap().unwrap();
    assert_eq!(chain.writable_len(), u32::MAX as usize);
    queue.undo_pop(chain);
    driver.write_descriptor(3, 0, last + 1, WRITE, 0);
    assert_eq!(queue.pop().map(drop), Err(RingError::ChainBytes));
}

#[test]
fn a_head_beyond_the_table() {
    for head in [SIZE, 0x7fff, 0xffff] {
        let mut driver = ring(0);
        driver.offer(head);
        driver.publish();
        assert_eq!(queue_of(&driver).pop().map(drop), Err(RingError::Head));
    }
}

/// A device that works on both of two chains with one head finds one of them gone when it is done
/// with the other.
#[test]
fn a_head_twice_in_flight() {
    let mut driver = ring(0);
    driver.write_descriptor(3, DATA, 1, 0, 0);
    driver.offer(3);
    driver.offer(3);
    driver.publish();
    let mut queue = queue_of(&driver);
    let chain = queue.pop().unwrap().unwrap();
    assert_eq!(queue.pop().map(drop), Err(RingError::HeadInFlight));
    // The first one is still completed.
    queue.push(chain, 0);
    queue.flush();
    let used: u16 = driver.memory().read_obj(GuestAddress(driver.layout().used + 2)).unwrap();
    assert_eq!(used, 1);
}

#[test]
fn a_head_may_come_again_once_it_was_given_back() {
    let mut driver = ring(0);
    driver.write_descriptor(3, DATA, 1, 0, 0);
    driver.offer(3);
    driver.offer(3);
    driver.publish();
    let mut queue = queue_of(&driver);
    for _ in 0..2 {
        let chain = queue.pop().unwrap().unwrap();
        queue.push(chain, 0);
    }
    assert!(queue.pop().unwrap().is_none());
}

#[test]
fn an_available_index_that_jumps() {
    for start in [0, 0xfffc] {
        for jump in [SIZE + 1, 0x8000, 0xffff] {
            let mut driver = ring(0);
            driver.begin_at(start);
            let mut queue = Queue::new(&driver.setup(0, driver.state())).unwrap();
            assert!(queue.pop().unwrap().is_none());
            let index = GuestAddress(driver.layout().available + 2);
            driver.memory().write_obj(start.wrapping_add(jump), index).unwrap();
            assert_eq!(queue.pop().map(drop), Err(RingError::AvailableIndex), "{start} {jump}");
        }
    }
}

/// Found when the worker looks whether something came while it asked for a kick.
#[test]
fn an_available_index_that_jumps_at_the_end_of_a_turn() {
    for features in [0, VIRTIO_F_EVENT_IDX] {
        let driver = ring(features);
        let mut queue = queue_of(&driver);
        let index = GuestAddress(driver.layout().available + 2);
        let result = turn(&mut queue, |queue| {
            assert!(queue.pop()?.is_none());
            driver.memory().write_obj(0x4000_u16, index).unwrap();
            Ok(())
        });
        assert_eq!(result, Err(RingError::AvailableIndex));
        assert_eq!(queue.pop().map(drop), Err(RingError::AvailableIndex));
    }
}

/// A descriptor changed after the pop changes nothing: the walk was copied.
#[test]
fn descriptors_are_read_once() {
    let mut driver = ring(0);
    driver.write_descriptor(0, DATA, 16, 0, 0);
    driver.offer(0);
    driver.publish();
    let mut queue = queue_of(&driver);
    let chain = queue.pop().unwrap().unwrap();
    driver.write_descriptor(0, u64::MAX, u32::MAX, WRITE | INDIRECT | NEXT, 0xffff);
    assert_eq!((chain.readable_len(), chain.writable_len()), (16, 0));
    assert_eq!(chain.reader().skip(100), 16);
    queue.push(chain, 0);
}

#[test]
fn layouts() {
    let driver = ring(0);
    let good = driver.layout();
    let new = |layout: QueueLayout| {
        let mut setup = driver.setup(0, QueueState::default());
        setup.layout = layout;
        Queue::new(&setup).map(drop)
    };
    assert_eq!(new(good), Ok(()));
    // A ring of one, and one that ends with its region.
    assert_eq!(new(QueueLayout { size: 1, ..good }), Ok(()));
    assert_eq!(new(QueueLayout { used: 0xc000 - 72, ..good }), Ok(()));
    let bad = [
        QueueLayout { size: 0, ..good },
        QueueLayout { size: 3, ..good },
        QueueLayout { size: 0x8001, ..good },
        QueueLayout { size: 0xffff, ..good },
        QueueLayout { size: 0x8000, ..good }, // more than there is memory
        QueueLayout { descriptors: good.descriptors + 8, ..good },
        QueueLayout { available: good.available + 1, ..good },
        QueueLayout { used: good.used + 2, ..good },
        QueueLayout { descriptors: 0xf_0000, ..good },
        QueueLayout { descriptors: u64::MAX - 15, ..good },
        QueueLayout { available: u64::MAX - 1, ..good },
        QueueLayout { used: u64::MAX - 3, ..good },
        QueueLayout { used: 0x10_fffc, ..good },
        QueueLayout { used: 0xc000 - 68, ..good }, // over a seam: two mappings
    ];
    for layout in bad {
        assert_eq!(new(layout), Err(RingError::Layout), "{layout:?}");
    }
}

/// Guest memory whose start is not where a field of a ring may be, seen from the host.
#[test]
fn a_ring_is_aligned_for_the_host_too() {
    let arena = Arena::of_regions(&[(0x1008, 0x4000)]);
    let driver = Driver::on(&arena, SIZE, 0);
    let mut setup = driver.setup(0, QueueState::default());
    // Aligned for the guest, but 8 bytes off in the mapping.
    setup.layout.descriptors = 0x2000;
    assert_eq!(Queue::new(&setup).map(drop), Err(RingError::Layout));
}
