//! Compression of one cluster of a file: which algorithm, and what it makes of some bytes.
//!
//! A cluster is [`CLUSTER`] bytes of a file from a multiple of it on, compressed by itself, so that clusters can be
//! made on several threads and read one by one. The result is a whole number of blocks that ends with the compressed
//! bytes (`LZ4_0PADDING`): Linux then decompresses in place.

use std::io;

use lz4::block::{CompressionMode, compress_to_buffer, decompress_to_buffer};

use super::{BLOCK, BLOCK_LEN};

/// Bytes of a file that are compressed together.
pub(super) const CLUSTER: u64 = 64 << 10;
/// Blocks of a file that are compressed together.
pub(super) const CLUSTER_BLOCKS: u64 = CLUSTER / BLOCK;
/// The farthest that a match of LZ4 lies back.
const LZ4_MAX_DISTANCE: u16 = u16::MAX;

/// How files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// LZ4, quick.
    Lz4,
    /// LZ4 with a longer search; level 2 to 12. Read like [`Compression::Lz4`].
    Lz4Hc(u8),
}

impl Compression {
    /// `Z_EROFS_COMPRESSION_*`.
    pub(super) fn algorithm(self) -> u8 {
        match self {
            Self::Lz4 | Self::Lz4Hc(_) => ALGORITHM_LZ4,
        }
    }

    /// What the superblock says of it (`z_erofs_lz4_cfgs`).
    pub(super) fn settings(self) -> Vec<u8> {
        match self {
            Self::Lz4 | Self::Lz4Hc(_) => {
                let blocks = CLUSTER_BLOCKS as u16;
                let mut out = [LZ4_MAX_DISTANCE.to_le_bytes(), blocks.to_le_bytes()].concat();
                out.resize(14, 0);
                out
            }
        }
    }

    /// Compresses `plain` into `into`; the length, or `None` where it has no room.
    pub(super) fn compress(self, plain: &[u8], into: &mut [u8]) -> Option<usize> {
        let mode = match self {
            Self::Lz4 => CompressionMode::FAST(1),
            Self::Lz4Hc(level) => CompressionMode::HIGHCOMPRESSION(i32::from(level)),
        };
        // The library gives no reason but that it does not fit.
        compress_to_buffer(plain, Some(mode), false, into).ok()
    }
}

/// LZ4's number in a map header and, as a bit, in the superblock.
pub(super) const ALGORITHM_LZ4: u8 = 0;

/// Decompresses what begins after the zeros of `packed`; exactly `plain.len()` bytes.
pub(super) fn decompress(algorithm: u8, packed: &[u8], plain: &mut [u8]) -> io::Result<()> {
    let padding = packed.iter().take(BLOCK_LEN).position(|byte| *byte != 0);
    let packed = &packed[padding.ok_or(io::ErrorKind::InvalidData)?..];
    let wanted = i32::try_from(plain.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let found = match algorithm {
        ALGORITHM_LZ4 => decompress_to_buffer(packed, Some(wanted), plain)?,
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    match found == plain.len() {
        true => Ok(()),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compressed_comes_back() {
        let plain: Vec<u8> = (0..CLUSTER as u32).map(|i| (i / 7 % 251) as u8).collect();
        for compression in [
            Compression::Lz4,
            Compression::Lz4Hc(2),
            Compression::Lz4Hc(12),
        ] {
            for len in [1, 13, 4096, 4097, plain.len()] {
                let mut packed = vec![0; BLOCK_LEN + 2 * len + 64];
                let room = &mut packed[BLOCK_LEN - 1..];
                let used = compression.compress(&plain[..len], room).unwrap();
                let packed = &packed[BLOCK_LEN - 1..][..used];
                assert_ne!(packed[0], 0, "padding ends at the first byte");
                let padded = [&[0; 9], packed].concat();
                let mut back = vec![0; len];
                decompress(compression.algorithm(), &padded, &mut back).unwrap();
                assert!(back == plain[..len]);
                assert!(
                    decompress(compression.algorithm(), &padded, &mut vec![0; len + 1]).is_err()
                );
            }
        }
    }

    #[test]
    fn zeros_alone_are_no_compressed_bytes() {
        assert!(decompress(ALGORITHM_LZ4, &[0; 8192], &mut [0; 10]).is_err());
        assert!(decompress(ALGORITHM_LZ4, &[], &mut [0; 10]).is_err());
    }
}
