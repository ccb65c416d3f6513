//! A queue at work allocates nothing.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(unsafe_code, reason = "a global allocator is unsafe to be")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use parador_virtio::ids::{VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC};
use parador_virtio::testing::{Driver, turn};
use parador_virtio::{Chain, Queue};

/// Counts what this thread allocates.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does the work; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promise is the system allocator's condition.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_queue_at_work_allocates_nothing() {
    const BATCH: usize = 8;
    let mut driver = Driver::new(1 << 20, 64, VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX);
    let mut queue = Queue::new(&driver.setup(0, driver.state())).unwrap();
    let mut held: Vec<Chain> = Vec::with_capacity(BATCH);
    for round in 0..100 {
        for at in 0..BATCH {
            let added = match at % 2 {
                0 => driver.add(&[b"request", b"more"], &[3, 4]),
                _ => driver.add_indirect(&[b"request", b"more"], &[3, 4]),
            };
            added.unwrap();
        }
        driver.kick();
        let before = COUNT.get();
        turn(&mut queue, |queue| {
            while let Some(chain) = queue.pop()? {
                held.push(chain);
            }
            if let Some(chain) = held.pop() {
                queue.undo_pop(chain);
            }
            while let Some(chain) = queue.pop()? {
                held.push(chain);
            }
            for chain in held.drain(..) {
                let mut data = [0; 11];
                chain.reader().read_exact(&mut data).unwrap();
                chain.writer().write_all(&data[..7]).unwrap();
                queue.push(chain, 7);
            }
            Ok(())
        })
        .unwrap();
        let allocated = COUNT.get() - before;
        assert!(round == 0 || allocated == 0, "{allocated} allocations in round {round}");
        assert_eq!(std::iter::from_fn(|| driver.take_used()).count(), BATCH);
    }
}
