//! A short, reproducible run of what the fuzzer runs for long.

use parador_virtio::testing::seeds;

#[path = "../../../fuzz/src/vhost_user_frontend.rs"]
#[expect(unreachable_pub, reason = "public for the fuzz targets")]
mod vhost_user_frontend;
#[path = "../../../fuzz/src/vhost_user_message.rs"]
#[expect(unreachable_pub, reason = "public for the fuzz targets")]
mod vhost_user_message;
#[path = "../../../fuzz/src/vhost_user_server.rs"]
#[expect(unreachable_pub, reason = "public for the fuzz targets")]
mod vhost_user_server;

#[test]
fn vhost_user_message() {
    for (number, mut bytes) in seeds(5000, 120).enumerate() {
        // The first two words of most are those of a message that there is.
        let head = [[number as u8 % 50, 0, 0, 0], [1, 0, 0, 0], [(number / 50) as u8, 0, 0, 0]].concat();
        if number % 8 != 0 {
            bytes.splice(0..bytes.len().min(12), head);
        }
        vhost_user_message::exercise(&bytes);
    }
}

#[test]
fn vhost_user_server() {
    for bytes in seeds(1000, 1200) {
        vhost_user_server::exercise(&bytes);
    }
}

#[test]
fn vhost_user_frontend() {
    for bytes in seeds(1500, 300) {
        vhost_user_frontend::exercise(&bytes);
    }
}
