//! What an ext4 superblock says (Linux: ext4 "Super Block"), and where its copies are.
//!
//! Pure, and only as much as the mount has to know. Bytes that are no ext4 superblock, or whose checksum does not
//! hold, are none.

/// Where it is in the file system, and its length.
pub(super) const OFFSET: u64 = 1024;
pub(super) const LEN: usize = 1024;

const MAGIC_AT: usize = 0x38;
const MAGIC: u16 = 0xEF53;
const STATE_AT: usize = 0x3A;
const STATE_ERRORS: u16 = 0x0002;
const GROUP_AT: usize = 0x5A;
const INCOMPATIBLE_AT: usize = 0x60;
const READ_ONLY_COMPATIBLE_AT: usize = 0x64;
const UUID_AT: usize = 0x68;
const CHECKSUM_AT: usize = 0x3FC;
const METADATA_CHECKSUMS: u32 = 0x400;
const PROJECTS: u32 = 0x2000;
/// Features of file systems that Linux 6.1 writes.
const KNOWN_INCOMPATIBLE: u32 = 0x3_E7D6;
const KNOWN_READ_ONLY_COMPATIBLE: u32 = 0x1_B77F;
/// Groups that have a copy (`sparse_super`), as many as are worth a try.
const COPIES: [u64; 8] = [1, 3, 5, 7, 9, 25, 27, 49];

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Superblock {
    /// Bytes of a block.
    pub(super) block_size: u64,
    /// Blocks of the file system.
    pub(super) blocks: u64,
    /// Blocks of a group.
    pub(super) group_blocks: u64,
    /// Errors were recorded.
    pub(super) has_errors: bool,
    /// It counts what projects use.
    pub(super) has_projects: bool,
    /// It has features that no kernel of ours knows: a later version made it.
    pub(super) is_unknown: bool,
    /// Its UUID.
    pub(super) uuid: [u8; 16],
    /// The group that this copy is in.
    pub(super) group: u16,
}

impl Superblock {
    pub(super) fn parse(bytes: &[u8; LEN]) -> Option<Self> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        if u16_at(MAGIC_AT) != MAGIC {
            return None;
        }
        let read_only_compatible = u32_at(READ_ONLY_COMPATIBLE_AT);
        if read_only_compatible & METADATA_CHECKSUMS != 0
            && checksum(&bytes[..CHECKSUM_AT]) != u32_at(CHECKSUM_AT)
        {
            return None;
        }
        let incompatible = u32_at(INCOMPATIBLE_AT);
        let has_high_half = incompatible & 0x80 != 0;
        let high = if has_high_half { u32_at(0x150) } else { 0 };
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[UUID_AT..UUID_AT + 16]);
        Some(Self {
            block_size: 1024 << Some(u32_at(0x18)).filter(|&shift| shift <= 6)?,
            blocks: u64::from(high) << 32 | u64::from(u32_at(0x04)),
            group_blocks: u32_at(0x20).into(),
            has_errors: u16_at(STATE_AT) & STATE_ERRORS != 0,
            has_projects: read_only_compatible & PROJECTS != 0,
            is_unknown: incompatible & !KNOWN_INCOMPATIBLE != 0
                || read_only_compatible & !KNOWN_READ_ONLY_COMPATIBLE != 0,
            uuid,
            group: u16_at(GROUP_AT),
        })
    }

    /// Bytes of the file system.
    pub(super) const fn len(&self) -> u64 {
        self.blocks.saturating_mul(self.block_size)
    }
}

/// Where copies of a superblock would be in a file system as ours are made: group, and its first byte.
pub(super) fn copies() -> impl Iterator<Item = (u64, u64)> {
    const GROUP_BYTES: u64 = 32_768 * 4096;
    COPIES.into_iter().map(|group| (group, group * GROUP_BYTES))
}

/// CRC-32C with all ones to begin with and no inversion at the end, as ext4 has it.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0x04..0x08].copy_from_slice(&16384_u32.to_le_bytes());
        bytes[0x18] = 2;
        bytes[MAGIC_AT..MAGIC_AT + 2].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[INCOMPATIBLE_AT..][..4].copy_from_slice(&0x2C2_u32.to_le_bytes());
        bytes[READ_ONLY_COMPATIBLE_AT..][..4].copy_from_slice(&0x256B_u32.to_le_bytes());
        sealed(bytes)
    }

    fn sealed(mut bytes: [u8; LEN]) -> [u8; LEN] {
        let sum = checksum(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    #[test]
    fn a_superblock_tells_of_its_size_its_errors_and_its_projects() {
        let found = Superblock::parse(&sample()).unwrap();
        assert_eq!((found.len(), found.has_errors), (64 << 20, false));
        assert!(found.has_projects && !found.is_unknown);
        let mut bad = sample();
        bad[STATE_AT] = 3;
        assert!(Superblock::parse(&sealed(bad)).unwrap().has_errors);
    }

    #[test]
    fn what_is_no_superblock_or_a_broken_one_is_none() {
        assert_eq!(Superblock::parse(&[0; LEN]), None);
        for at in [0x04, 0x18, MAGIC_AT, UUID_AT, 0x200, CHECKSUM_AT] {
            let mut bytes = sample();
            bytes[at] ^= 0x10;
            assert_eq!(Superblock::parse(&bytes), None, "{at:#x}");
        }
    }

    #[test]
    fn features_of_a_later_version_are_told_from_damage() {
        let mut bytes = sample();
        bytes[INCOMPATIBLE_AT + 3] = 1;
        assert!(Superblock::parse(&sealed(bytes)).unwrap().is_unknown);
    }

    #[test]
    fn checksums_are_the_kernels() {
        assert_eq!(checksum(b"123456789"), !0xE306_9283);
    }
}
