//! Any bytes as accesses to the registers of a virtio function.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    parador_machine::pci::testing::hostile::virtio_pci(bytes);
});
