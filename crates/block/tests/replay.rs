//! A short, reproducible run of what the fuzzer runs for long.
#![cfg(not(loom))]

#[path = "../../../fuzz/src/zoned_image.rs"]
#[expect(unreachable_pub, reason = "public for the fuzz targets")]
mod zoned_image;

#[test]
fn zoned_image() {
    let mut state = 0x5eed_u64;
    let mut opened = 0;
    for _ in 0..60 {
        let mut bytes = [0; 96];
        for byte in &mut bytes {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = (state >> 24) as u8;
        }
        opened += u32::from(zoned_image::exercise(&bytes));
    }
    assert!((5..55).contains(&opened), "some images survive their changes, some do not: {opened}");
}
