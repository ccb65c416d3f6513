//! Kicks and interrupts: as few as asked for, never one too few.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::time::Duration;

use parador_virtio::ids::VIRTIO_F_EVENT_IDX;
use parador_virtio::testing::{Driver, turn};
use parador_virtio::{Chain, Queue};

const FEATURES: [u64; 2] = [0, VIRTIO_F_EVENT_IDX];
const SIZE: u16 = 16;

fn start(features: u64, at: u16) -> (Driver, Queue) {
    let mut driver = Driver::new(1 << 20, SIZE, features);
    driver.begin_at(at);
    let queue = Queue::new(&driver.setup(0, driver.state())).unwrap();
    (driver, queue)
}

fn add(driver: &mut Driver, count: usize) {
    for _ in 0..count {
        driver.add(&[], &[1]).unwrap();
    }
}

fn pop_all(queue: &mut Queue) -> Vec<Chain> {
    let mut chains = Vec::new();
    let again = turn(queue, |queue| {
        while let Some(chain) = queue.pop()? {
            chains.push(chain);
        }
        Ok(())
    });
    assert_eq!(again, Ok(false));
    chains
}

fn interrupted(driver: &Driver) -> bool {
    driver.wait_call(Duration::ZERO)
}

#[test]
fn the_driver_kicks_once_per_batch_and_not_at_all_while_the_device_works() {
    for features in FEATURES {
        for at in [0, 0xfff8] {
            let (mut driver, mut queue) = start(features, at);
            assert!(pop_all(&mut queue).is_empty());
            add(&mut driver, 4);
            assert!(driver.kick(), "the first after an empty ring");
            add(&mut driver, 1);
            let again = turn(&mut queue, |queue| {
                while let Some(chain) = queue.pop()? {
                    queue.push(chain, 0);
                }
                assert!(!driver.kick(), "the device is at it");
                Ok(())
            });
            // What came after the device found the ring empty is not left lying.
            assert_eq!(again, Ok(true), "features {features:#x} at {at}");
            assert_eq!(pop_all(&mut queue).len(), 1);
            add(&mut driver, 1);
            assert!(driver.kick());
        }
    }
}

#[test]
fn a_device_that_left_chains_wants_no_kick() {
    for features in FEATURES {
        let (mut driver, mut queue) = start(features, 0xfffe);
        assert!(pop_all(&mut queue).is_empty());
        add(&mut driver, 2);
        assert!(driver.kick());
        let again = turn(&mut queue, |queue| {
            let chain = queue.pop()?.unwrap();
            queue.undo_pop(chain);
            Ok(())
        });
        assert_eq!(again, Ok(false));
        add(&mut driver, 5);
        assert!(!driver.kick());
        assert_eq!(pop_all(&mut queue).len(), 7);
    }
}

/// A device that needs more chains than there are puts them back and wants to hear of new ones.
#[test]
fn a_device_that_found_too_few_chains_wants_a_kick_for_more() {
    for features in FEATURES {
        let (mut driver, mut queue) = start(features, 0xfffe);
        add(&mut driver, 3);
        driver.kick();
        let again = turn(&mut queue, |queue| {
            let chains: Vec<_> = (0..3).map(|_| queue.pop().unwrap().unwrap()).collect();
            assert!(queue.pop()?.is_none());
            chains.into_iter().rev().for_each(|chain| queue.undo_pop(chain));
            Ok(())
        });
        assert_eq!(again, Ok(false), "it does not spin on what it has seen");
        add(&mut driver, 1);
        assert!(driver.kick());
        assert_eq!(pop_all(&mut queue).len(), 4);
    }
}

#[test]
fn a_batch_is_published_and_signalled_once() {
    for features in FEATURES {
        let (mut driver, mut queue) = start(features, 0xfff8);
        add(&mut driver, 16);
        driver.kick();
        driver.ask_for_interrupt();
        let again = turn(&mut queue, |queue| {
            while let Some(chain) = queue.pop()? {
                queue.push(chain, 1);
                assert!(driver.take_used().is_none(), "published at the end");
            }
            Ok(())
        });
        // The ring was as full as the budget: the worker looks again.
        assert!(again.is_ok());
        assert!(interrupted(&driver));
        assert!(!interrupted(&driver));
        for _ in 0..16 {
            assert_eq!(driver.take_used().unwrap().written, 1);
        }
        queue.flush();
        assert!(!interrupted(&driver), "nothing new");
    }
}

#[test]
fn an_interrupt_that_was_refused_does_not_come() {
    for features in FEATURES {
        for at in [0, 0xfffc] {
            let (mut driver, mut queue) = start(features, at);
            driver.refuse_interrupts();
            add(&mut driver, 8);
            driver.kick();
            let mut chains = pop_all(&mut queue);
            for chain in chains.drain(..4) {
                queue.push(chain, 0);
                queue.flush();
            }
            assert!(!interrupted(&driver), "features {features:#x} at {at}");
            while driver.take_used().is_some() {}
            driver.ask_for_interrupt();
            for chain in chains {
                queue.push(chain, 0);
                queue.flush();
            }
            assert!(interrupted(&driver), "features {features:#x} at {at}");
        }
    }
}

/// With event indices a driver may ask for an interrupt only after some more chains.
#[test]
fn an_interrupt_comes_when_the_event_is_passed() {
    for at in [0, 3, 0xfffa, 0xfffd] {
        let (mut driver, mut queue) = start(VIRTIO_F_EVENT_IDX, at);
        add(&mut driver, 8);
        driver.kick();
        let event = parador_virtio::GuestAddress(driver.layout().available + 4 + 2 * u64::from(SIZE));
        // After the fifth.
        vm_memory::Bytes::write_obj(driver.memory(), at.wrapping_add(4), event).unwrap();
        for (count, chain) in (1..).zip(pop_all(&mut queue)) {
            queue.push(chain, 0);
            queue.flush();
            assert_eq!(interrupted(&driver), count == 5, "chain {count} at {at}");
        }
    }
}

/// A turn takes as many chains as the ring has descriptors, however fast the driver adds more.
#[test]
fn a_turn_has_a_budget() {
    for features in FEATURES {
        let (mut driver, mut queue) = start(features, 0xfff0);
        add(&mut driver, usize::from(SIZE));
        driver.publish();
        let mut taken = 0;
        let again = turn(&mut queue, |queue| {
            while let Some(chain) = queue.pop()? {
                taken += 1;
                queue.push(chain, 0);
                queue.flush();
                driver.take_used().unwrap();
                add(&mut driver, 1);
                driver.publish();
            }
            Ok(())
        });
        assert_eq!((taken, again), (SIZE, Ok(true)));
    }
}

/// What was begun within the budget can be finished.
#[test]
fn a_turn_over_its_budget_may_take_one_more() {
    for features in FEATURES {
        let (mut driver, mut queue) = start(features, 0xfff0);
        add(&mut driver, usize::from(SIZE));
        driver.publish();
        let again = turn(&mut queue, |queue| {
            let mut begun = None;
            while let Some(chain) = queue.pop()? {
                if let Some(before) = begun.replace(chain) {
                    queue.push(before, 0);
                }
                queue.flush();
                if driver.take_used().is_some() {
                    add(&mut driver, 1);
                    driver.publish();
                }
            }
            let more = queue.pop_more()?.expect("the ring has more");
            queue.push(begun.expect("one was begun"), 0);
            queue.push(more, 0);
            Ok(())
        });
        assert_eq!(again, Ok(true), "what pop refused is left for the next turn");
        assert_eq!(std::iter::from_fn(|| driver.take_used()).count(), 2);
        assert_eq!(queue.state().next_available, 0xfff0_u16.wrapping_add(SIZE + 1));
    }
}
