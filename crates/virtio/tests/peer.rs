//! Our walk of a ring against that of the `virtio-queue` crate, an implementation of other people:
//! whatever we take from a ring, they find the same in it. What we refuse, they may not.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::Arc;

use parador_virtio::testing::hostile::{HostileRing, Source};
use parador_virtio::testing::{seeds, turn};
use parador_virtio::{GuestMemory, Queue, QueueSetup, Segment};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue as Peer, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend};

fn peer_of(setup: &QueueSetup) -> Peer {
    let mut peer = Peer::new(32768).unwrap();
    peer.try_set_size(setup.layout.size).unwrap();
    peer.try_set_desc_table_address(GuestAddress(setup.layout.descriptors)).unwrap();
    peer.try_set_avail_ring_address(GuestAddress(setup.layout.available)).unwrap();
    peer.try_set_used_ring_address(GuestAddress(setup.layout.used)).unwrap();
    peer.set_ready(true);
    peer.set_next_avail(setup.resume.next_available);
    peer
}

/// Host address and length of each piece of the buffers the peer found.
fn pieces(memory: &GuestMemory, descriptors: &[Descriptor]) -> Vec<(usize, usize)> {
    let buffers = descriptors.iter();
    let slices = buffers.flat_map(|buffer| memory.get_slices(buffer.addr(), buffer.len() as usize));
    slices.map(Result::unwrap).map(|slice| (slice.ptr_guard().as_ptr().addr(), slice.len())).collect()
}

fn ours(segments: &[Segment]) -> Vec<(usize, usize)> {
    segments.iter().map(Segment::as_iovec).map(|iovec| (iovec.iov_base.addr(), iovec.iov_len)).collect()
}

#[test]
fn a_peer_finds_the_same_chains() {
    let mut compared = 0;
    for seed in seeds(3000, 1500) {
        let mut source = Source::new(&seed);
        let ring = HostileRing::new(&mut source);
        let Ok(mut queue) = Queue::new(&ring.setup) else { continue };
        let (mut peer, memory) = (peer_of(&ring.setup), Arc::clone(&ring.setup.memory));
        while !source.is_empty() {
            let result = turn(&mut queue, |queue| {
                while let Some(chain) = queue.pop()? {
                    let theirs = peer.pop_descriptor_chain(&*memory).expect("they find one too");
                    assert_eq!(chain.head(), theirs.head_index());
                    let (writable, readable): (Vec<_>, Vec<_>) = theirs.partition(Descriptor::is_write_only);
                    assert_eq!(ours(chain.readable()), pieces(&memory, &readable));
                    assert_eq!(ours(chain.writable()), pieces(&memory, &writable));
                    queue.push(chain, 0);
                    compared += 1;
                }
                assert!(peer.pop_descriptor_chain(&*memory).is_none(), "nor do they find more");
                Ok(())
            });
            if result.is_err() {
                break;
            }
            ring.mutate(&mut source);
        }
    }
    assert!(compared > 1000, "only {compared} chains compared");
}
