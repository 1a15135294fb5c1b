//! A fixed VHD of a raw disk (Microsoft's "Virtual Hard Disk Image Format Specification", version 1.0): the disk, then a
//! footer. It is the form that Azure takes; its sizes are whole MiB, as ours are.

/// The footer's length.
pub const FOOTER_LEN: u64 = 512;

/// The footer of a disk of `len` bytes. `id` names the disk.
pub fn footer(len: u64, id: [u8; 16]) -> [u8; FOOTER_LEN as usize] {
    let mut footer = [0; FOOTER_LEN as usize];
    let mut put = |at: usize, bytes: &[u8]| footer[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"conectix");
    put(8, &2_u32.to_be_bytes()); // features: reserved, always set
    put(12, &0x0001_0000_u32.to_be_bytes());
    put(16, &u64::MAX.to_be_bytes()); // no dynamic header
    // Who made it decides whether readers go by the size or by the geometry: for these two, by the size.
    put(28, b"win ");
    put(32, &0x0006_0001_u32.to_be_bytes());
    put(36, b"Wi2k");
    put(40, &len.to_be_bytes());
    put(48, &len.to_be_bytes());
    put(56, &geometry(len));
    put(60, &2_u32.to_be_bytes()); // fixed
    put(68, &id);
    let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
    footer[64..68].copy_from_slice(&(!sum).to_be_bytes());
    footer
}

/// Cylinders, heads and sectors by the specification's appendix.
fn geometry(len: u64) -> [u8; 4] {
    let sectors = (len / 512).min(65_535 * 16 * 255);
    let (heads, per_track, cylinders);
    if sectors >= 65_535 * 16 * 63 {
        (heads, per_track) = (16, 255);
        cylinders = sectors / per_track / heads;
    } else {
        let mut track = 17;
        let mut by_heads = sectors / track;
        let mut count = by_heads.div_ceil(1024).max(4);
        if by_heads >= count * 1024 || count > 16 {
            (track, count) = (31, 16);
            by_heads = sectors / track;
        }
        if by_heads >= count * 1024 {
            (track, count) = (63, 16);
            by_heads = sectors / track;
        }
        (heads, per_track) = (count, track);
        cylinders = by_heads / heads;
    }
    let [high, low] = (cylinders as u16).to_be_bytes();
    [high, low, heads as u8, per_track as u8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_footer_sums_up() {
        let footer = footer(64 << 20, [7; 16]);
        let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
        let checksum = u32::from_be_bytes([footer[64], footer[65], footer[66], footer[67]]);
        let own: u32 = footer[64..68].iter().map(|byte| u32::from(*byte)).sum();
        assert_eq!(!(sum - own), checksum);
    }

    #[test]
    fn geometries_are_the_specification_s() {
        for (len, wanted) in [
            (40 << 20, [0x03, 0xc3, 5, 17]),
            (2 << 30, [0x10, 0x41, 16, 63]),
            (200 << 30, [0xff, 0xff, 16, 255]),
        ] {
            assert_eq!(geometry(len), wanted, "{len}");
        }
    }
}
