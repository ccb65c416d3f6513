//! A short, reproducible run of what the fuzzer runs for long.

use parador_virtio::testing::seeds;

#[path = "../../../fuzz/src/blk_request.rs"]
#[expect(unreachable_pub, reason = "public for the fuzz targets")]
mod blk_request;

#[test]
fn blk_request() {
    for bytes in seeds(2000, 400) {
        blk_request::exercise(&bytes);
    }
}
