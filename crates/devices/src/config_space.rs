//! How a device's configuration space is read: the same for every device.

/// Fills `data` from `space`, starting `offset` bytes in; what lies beyond it reads as zero.
pub(crate) fn read(space: &[u8], offset: usize, data: &mut [u8]) {
    data.fill(0);
    let Some(rest) = space.get(offset..) else { return };
    let count = rest.len().min(data.len());
    data[..count].copy_from_slice(&rest[..count]);
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn beyond_the_space_is_zero() {
        let mut data = [0xff; 4];
        read(&[1, 2, 3], 1, &mut data);
        assert_eq!(data, [2, 3, 0, 0]);
        read(&[1, 2, 3], usize::MAX, &mut data);
        assert_eq!(data, [0; 4]);
    }
}
