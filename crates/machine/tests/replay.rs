//! Short, reproducible runs of what the fuzzer runs for long.

use parador_virtio::testing::seeds;

#[path = "../../../fuzz/src/kernel.rs"]
#[expect(unreachable_pub, reason = "public for the fuzz targets")]
mod kernel;

#[test]
fn kernel() {
    let loaded = seeds(500, 300).filter(|bytes| kernel::exercise(bytes)).count();
    assert!((50..450).contains(&loaded), "some kernels survive their changes, some do not: {loaded}");
}
