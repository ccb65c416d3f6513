//! Any bytes as accesses to PCI configuration space.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    parador_machine::pci::testing::hostile::pci_config(bytes);
});
