//! The superblock.

use sha2::{Digest, Sha256};

use super::geometry::{GROUPS_PER_FLEX, Geometry};
use super::inode::MAP_LEN;
use super::{
    BLOCKS_PER_GROUP, DESCRIPTOR_LEN, INODE_LEN, JOURNAL_INODE, LAST_INODE, LOST_FOUND_INODE,
    Options, QUOTA_INODE, checksum, put_u16s, put_u32s,
};
use crate::format::uuid_from_digest;

const LEN: usize = 1024;
/// `has_journal`, `ext_attr`, `resize_inode`, `dir_index`.
const COMPATIBLE: u32 = 0x4 | 0x8 | 0x10 | 0x20;
/// `filetype`, `extents`, `64bit`, `flex_bg`.
const INCOMPATIBLE: u32 = 0x2 | 0x40 | 0x80 | 0x200;
/// `sparse_super`, `large_file`, `huge_file`, `dir_nlink`, `extra_isize`, `quota`, `metadata_csum`,
/// `project`.
const READ_ONLY_COMPATIBLE: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x100 | 0x400 | 0x2000;
/// `user_xattr`, `acl`.
const MOUNT_OPTIONS: u32 = 0x4 | 0x8;
const SIGNED_HASH: u32 = 1;

/// The superblock, or its copy in a group.
pub(super) fn render(
    geometry: &Geometry,
    options: &Options,
    group: u64,
    journal_map: &[u8; MAP_LEN],
) -> [u8; LEN] {
    let time = options.time.clamp(0, i64::from(u32::MAX)) as u32;
    let free_blocks: u64 = (0..geometry.groups)
        .map(|group| geometry.free_blocks(group))
        .sum();
    let inodes = geometry.inodes_per_group * geometry.groups;
    let mut bytes = [0; LEN];
    put_u32s(
        &mut bytes,
        &[
            (0x00, inodes as u32),
            (0x04, geometry.blocks as u32),
            (0x150, (geometry.blocks >> 32) as u32),
            (0x0c, free_blocks as u32),
            (0x158, (free_blocks >> 32) as u32),
            (0x10, inodes as u32 - LAST_INODE),
            (0x18, 2), // blocks of 1024 << 2 bytes
            (0x1c, 2),
            (0x20, BLOCKS_PER_GROUP as u32),
            (0x24, BLOCKS_PER_GROUP as u32),
            (0x28, geometry.inodes_per_group as u32),
            (0x30, time),  // written
            (0x40, time),  // checked
            (0x108, time), // made
            (0x4c, 1),     // revision
            (0x54, LOST_FOUND_INODE),
            (0x5c, COMPATIBLE),
            (0x60, INCOMPATIBLE),
            (0x64, READ_ONLY_COMPATIBLE),
            (0xe0, JOURNAL_INODE),
            (0x100, MOUNT_OPTIONS),
            (0x160, SIGNED_HASH),
            (0x26c, QUOTA_INODE),
        ],
    );
    put_u16s(
        &mut bytes,
        &[
            (0x36, u16::MAX), // mounts without a check: no limit
            (0x38, 0xef53),
            (0x3a, 1), // clean
            (0x3c, 1), // after an error, continue
            (0x58, INODE_LEN as u16),
            (0x5a, group as u16),
            (0xce, geometry.reserved_descriptor_blocks as u16),
            (0xfe, DESCRIPTOR_LEN as u16),
            (0x15c, 32), // inodes have so many bytes more than 128
            (0x15e, 32),
        ],
    );
    bytes[0x68..0x78].copy_from_slice(options.uuid.as_bytes());
    bytes[0x78..0x78 + options.label.len()].copy_from_slice(options.label.as_bytes());
    let hash_seed = uuid_from_digest(&Sha256::digest(options.uuid.as_bytes()));
    bytes[0xec..0xfc].copy_from_slice(hash_seed.as_bytes());
    bytes[0xfc] = 1; // directories are hashed by half MD4
    bytes[0x174] = GROUPS_PER_FLEX.trailing_zeros() as u8;
    bytes[0x175] = 1; // checksums are CRC-32C
    put_journal_copy(&mut bytes, geometry, journal_map);
    let sum = checksum(u32::MAX, &bytes[..LEN - 4]);
    put_u32s(&mut bytes, &[(LEN - 4, sum)]);
    bytes
}

/// Where the journal is, once more, for the case that its inode is lost.
fn put_journal_copy(bytes: &mut [u8; LEN], geometry: &Geometry, journal_map: &[u8; MAP_LEN]) {
    let size = geometry.journal_blocks * super::BLOCK;
    bytes[0xfd] = 1;
    bytes[0x10c..0x10c + MAP_LEN].copy_from_slice(journal_map);
    put_u32s(bytes, &[(0x148, (size >> 32) as u32), (0x14c, size as u32)]);
}
