//! Guests that no honest system is.

use proptest::prelude::*;

use parador_virtio::testing::seeds;

use crate::pci::testing::hostile::{pci_config, virtio_pci};

#[test]
fn most_inputs_get_as_far_as_a_running_queue() {
    let starts: usize = seeds(1000, 2000).map(|bytes| virtio_pci(&bytes)).sum();
    assert!(starts > 1000, "{starts}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn configuration_space_takes_anything(input in prop::collection::vec(any::<u8>(), 0..2048)) {
        pci_config(&input);
    }

    #[test]
    fn virtio_registers_take_anything(input in prop::collection::vec(any::<u8>(), 0..2048)) {
        virtio_pci(&input);
    }
}
