//! The dm-verity superblock (version 1) and the device-mapper table made of it.
//!
//! Only what the builder writes is taken: SHA-256, 4096-byte blocks, version 1. The superblock is outside
//! input; what it says is bounded by the two partitions' sizes, and the root hash decides in the end.

use std::fmt::Write as _;

use crate::cmdline::RootHash;

/// The superblock's size on disk in bytes.
pub const SUPERBLOCK_SIZE: usize = 512;

/// The only data and hash block size in bytes.
pub const BLOCK_SIZE: u32 = 4096;

/// Hashes in one hash block: 4096 / 32.
const HASHES_PER_BLOCK: u64 = 128;

/// What the table needs of a checked superblock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Blocks of data that the tree covers.
    pub data_blocks: u64,
    /// The salt, up to 256 bytes.
    pub salt: Vec<u8>,
}

/// A superblock that is not used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerityError {
    /// A field that the builder never writes so.
    #[error("the verity superblock has a wrong {0}")]
    Field(&'static str),
    /// More data or more hashes than the partitions hold.
    #[error("the verity superblock claims {0} blocks, more than the partitions hold")]
    TooLarge(u64),
}

impl Superblock {
    /// Reads the first bytes of the hash partition. The sizes are the partitions', in bytes.
    ///
    /// # Errors
    /// [`VerityError`] names the first wrong field.
    pub fn parse(
        bytes: &[u8; SUPERBLOCK_SIZE],
        data_size: u64,
        hash_size: u64,
    ) -> Result<Self, VerityError> {
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let salt_size = usize::from(u16::from_le_bytes([bytes[80], bytes[81]]));
        let algorithm: [u8; 32] = *b"sha256\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let checks = [
            ("signature", &bytes[..8] == b"verity\0\0"),
            ("version", u32_at(8) == 1),
            ("hash type", u32_at(12) == 1),
            ("hash algorithm", bytes[32..64] == algorithm),
            ("data block size", u32_at(64) == BLOCK_SIZE),
            ("hash block size", u32_at(68) == BLOCK_SIZE),
            ("salt size", salt_size <= 256),
        ];
        if let Some((field, _)) = checks.iter().find(|(_, right)| !right) {
            return Err(VerityError::Field(field));
        }
        let data_blocks =
            u64::from_le_bytes(bytes[72..80].try_into().expect("a slice of eight bytes"));
        let block = u64::from(BLOCK_SIZE);
        if data_blocks == 0
            || data_blocks > data_size / block
            || hash_blocks(data_blocks) >= hash_size / block
        {
            return Err(VerityError::TooLarge(data_blocks));
        }
        Ok(Self {
            data_blocks,
            salt: bytes[88..88 + salt_size].to_vec(),
        })
    }

    /// Length of the device in sectors of 512 bytes.
    #[must_use]
    pub const fn sectors(&self) -> u64 {
        self.data_blocks * (BLOCK_SIZE as u64 / 512)
    }

    /// The parameters of the target `verity`. `data` and `hash` are devices as `MAJOR:MINOR`; the tree begins
    /// in the block after the superblock.
    #[must_use]
    pub fn table(&self, data: &str, hash: &str, root_hash: &RootHash) -> String {
        let digest = hex(root_hash);
        let salt = if self.salt.is_empty() {
            "-".to_owned()
        } else {
            hex(&self.salt)
        };
        let Self { data_blocks, .. } = self;
        format!("1 {data} {hash} {BLOCK_SIZE} {BLOCK_SIZE} {data_blocks} 1 sha256 {digest} {salt}")
    }
}

/// Blocks of the whole hash tree over `data_blocks`.
fn hash_blocks(data_blocks: u64) -> u64 {
    let mut total = 0;
    let mut level = data_blocks;
    while level > 1 {
        level = level.div_ceil(HASHES_PER_BLOCK);
        total += level;
    }
    total.max(1)
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> [u8; SUPERBLOCK_SIZE] {
        let mut bytes = [0; SUPERBLOCK_SIZE];
        bytes[..8].copy_from_slice(b"verity\0\0");
        bytes[8] = 1;
        bytes[12] = 1;
        bytes[32..38].copy_from_slice(b"sha256");
        bytes[64..68].copy_from_slice(&4096_u32.to_le_bytes());
        bytes[68..72].copy_from_slice(&4096_u32.to_le_bytes());
        bytes[72..80].copy_from_slice(&1000_u64.to_le_bytes());
        bytes[80] = 2;
        bytes[88..90].copy_from_slice(&[0xAB, 0x01]);
        bytes
    }

    const DATA: u64 = 1000 * 4096;
    const HASH: u64 = 10 * 4096;

    #[test]
    fn a_good_superblock_becomes_a_table() {
        let superblock = Superblock::parse(&sample(), DATA, HASH).unwrap();
        assert_eq!(superblock.sectors(), 8000);
        let table = superblock.table("254:2", "254:3", &[0x11; 32]);
        assert_eq!(
            table,
            format!(
                "1 254:2 254:3 4096 4096 1000 1 sha256 {} ab01",
                "11".repeat(32)
            )
        );
    }

    #[test]
    fn an_empty_salt_is_a_hyphen() {
        let mut bytes = sample();
        bytes[80] = 0;
        assert!(
            Superblock::parse(&bytes, DATA, HASH)
                .unwrap()
                .table("1:1", "1:2", &[0; 32])
                .ends_with(" -")
        );
    }

    #[test]
    fn any_other_format_is_refused_by_its_field() {
        let cases = [
            (0, "signature"),
            (7, "signature"),
            (8, "version"),
            (12, "hash type"),
            (33, "hash algorithm"),
            (40, "hash algorithm"),
            (65, "data block size"),
            (69, "hash block size"),
            (81, "salt size"),
        ];
        for (at, field) in cases {
            let mut bytes = sample();
            bytes[at] ^= 0x41;
            assert_eq!(
                Superblock::parse(&bytes, DATA, HASH),
                Err(VerityError::Field(field)),
                "byte {at}"
            );
        }
    }

    #[test]
    fn sizes_beyond_the_partitions_are_refused() {
        for blocks in [0, 1001, u64::MAX] {
            let mut bytes = sample();
            bytes[72..80].copy_from_slice(&blocks.to_le_bytes());
            assert_eq!(
                Superblock::parse(&bytes, DATA, HASH),
                Err(VerityError::TooLarge(blocks))
            );
        }
        assert_eq!(
            Superblock::parse(&sample(), DATA, 9 * 4096),
            Err(VerityError::TooLarge(1000))
        );
    }

    #[test]
    fn the_tree_has_the_size_that_veritysetup_gives_it() {
        for (data, tree) in [
            (1, 1),
            (2, 1),
            (128, 1),
            (129, 3),
            (1000, 9),
            (16384, 129),
            (16385, 132),
        ] {
            assert_eq!(hash_blocks(data), tree, "{data} blocks");
        }
    }
}
