//! Short, reproducible runs of what the fuzzer runs for long.

use parador_virtio::testing::seeds;

#[path = "../../../fuzz/src/pci.rs"]
#[expect(unreachable_pub, reason = "public for the fuzz targets")]
mod pci;

#[path = "../../../fuzz/src/kernel.rs"]
#[expect(unreachable_pub, reason = "public for the fuzz targets")]
mod kernel;

#[test]
fn pci_config() {
    for bytes in seeds(500, 2000) {
        pci::exercise_config(&bytes);
    }
}

#[test]
fn virtio_pci() {
    let starts: usize = seeds(1000, 2000).map(|bytes| pci::exercise_registers(&bytes)).sum();
    assert!(starts > 1000, "most inputs get as far as a running queue: {starts}");
}

#[test]
fn kernel() {
    let loaded = seeds(500, 300).filter(|bytes| kernel::exercise(bytes)).count();
    assert!((50..450).contains(&loaded), "some kernels survive their changes, some do not: {loaded}");
}
