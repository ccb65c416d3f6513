//! Guests that no honest system is.

use proptest::prelude::*;

use crate::pci::testing::hostile::{pci_config, virtio_pci};

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
