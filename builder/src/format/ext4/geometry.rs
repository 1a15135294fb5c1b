//! Where everything of a filesystem lies.

use super::{ADDRESSES_PER_BLOCK, BLOCK, BLOCKS_PER_GROUP, DESCRIPTOR_LEN, Ext4Error, INODE_LEN};

const LEAST: u64 = 16 << 20;
const MOST: u64 = 16 << 40;
/// One inode for so many bytes.
const INODE_RATIO: u64 = 16_384;
/// The least inodes of a group, so that a small filesystem that grows large has some.
const LEAST_INODES: u64 = 2048;
/// Groups whose bitmaps and tables lie together.
pub(super) const GROUPS_PER_FLEX: u64 = 16;
/// Room for descriptors is kept for this length at least.
const ROOM_TO_GROW: u64 = 2 << 40;
const DESCRIPTORS_PER_BLOCK: u64 = BLOCK / DESCRIPTOR_LEN as u64;
/// A last group with fewer free blocks than this is left out.
const LEAST_FREE: u64 = 64;
/// Blocks of `lost+found`; it must not need to grow when it is needed.
pub(super) const LOST_FOUND_BLOCKS: u64 = 4;
/// Blocks of the project quota's file.
pub(super) const QUOTA_BLOCKS: u64 = 2;

/// The division of a filesystem. Places are block numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) blocks: u64,
    pub(super) groups: u64,
    pub(super) inodes_per_group: u64,
    pub(super) descriptor_blocks: u64,
    pub(super) reserved_descriptor_blocks: u64,
    pub(super) journal_blocks: u64,
    pub(super) root: u64,
    pub(super) lost_found: u64,
    /// The block of addresses of the resize inode.
    pub(super) resize: u64,
    pub(super) quota: u64,
    pub(super) journal: u64,
    /// What follows in group 0 is free.
    pub(super) first_free: u64,
}

impl Geometry {
    pub(super) fn new(len: u64) -> Result<Self, Ext4Error> {
        if !(LEAST..=MOST).contains(&len) {
            return Err(Ext4Error::BadLength { len });
        }
        let mut geometry = Self::of_blocks(len / BLOCK);
        let rest = geometry.blocks % BLOCKS_PER_GROUP;
        let last = geometry.groups - 1;
        if last > 0 && rest > 0 && rest < geometry.group_overhead(last) + LEAST_FREE {
            geometry = Self::of_blocks(geometry.blocks - rest);
        }
        Ok(geometry)
    }

    fn of_blocks(blocks: u64) -> Self {
        let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
        let inodes = blocks * BLOCK / INODE_RATIO;
        let inodes_per_block = BLOCK / INODE_LEN as u64;
        let inodes_per_group = inodes.div_ceil(groups).max(LEAST_INODES);
        let descriptor_blocks = groups.div_ceil(DESCRIPTORS_PER_BLOCK);
        let grown = (blocks * BLOCK * 1024).clamp(ROOM_TO_GROW, MOST);
        let grown_groups = (grown / BLOCK).div_ceil(BLOCKS_PER_GROUP);
        let grown_descriptor_blocks = grown_groups.div_ceil(DESCRIPTORS_PER_BLOCK);
        let reserved = grown_descriptor_blocks.saturating_sub(descriptor_blocks);
        let mut geometry = Self {
            blocks,
            groups,
            inodes_per_group: inodes_per_group.next_multiple_of(inodes_per_block),
            descriptor_blocks,
            reserved_descriptor_blocks: reserved.min(ADDRESSES_PER_BLOCK),
            journal_blocks: journal_blocks(blocks),
            root: 0,
            lost_found: 0,
            resize: 0,
            quota: 0,
            journal: 0,
            first_free: 0,
        };
        geometry.root = geometry.group_overhead(0);
        geometry.lost_found = geometry.root + 1;
        geometry.resize = geometry.lost_found + LOST_FOUND_BLOCKS;
        geometry.quota = geometry.resize + 1;
        geometry.journal = geometry.quota + QUOTA_BLOCKS;
        geometry.first_free = geometry.journal + geometry.journal_blocks;
        geometry
    }

    pub(super) fn table_blocks(&self) -> u64 {
        self.inodes_per_group * INODE_LEN as u64 / BLOCK
    }

    pub(super) fn group_blocks(&self, group: u64) -> u64 {
        (self.blocks - group * BLOCKS_PER_GROUP).min(BLOCKS_PER_GROUP)
    }

    /// Blocks of the superblock, the descriptors and the room for more that begin a group.
    pub(super) fn superblock_overhead(&self, group: u64) -> u64 {
        if has_superblock(group) {
            1 + self.descriptor_blocks + self.reserved_descriptor_blocks
        } else {
            0
        }
    }

    fn flex_len(&self, leader: u64) -> u64 {
        (self.groups - leader).min(GROUPS_PER_FLEX)
    }

    /// Blocks at the start of a group that are not for files: its own and, in the first of a flexible group, the
    /// bitmaps and tables of all of it.
    pub(super) fn group_overhead(&self, group: u64) -> u64 {
        let tables = if group.is_multiple_of(GROUPS_PER_FLEX) {
            self.flex_len(group) * (2 + self.table_blocks())
        } else {
            0
        };
        self.superblock_overhead(group) + tables
    }

    /// Used blocks at the start of a group.
    pub(super) fn used(&self, group: u64) -> u64 {
        match group {
            0 => self.first_free,
            _ => self.group_overhead(group),
        }
    }

    /// Block bitmap, inode bitmap and inode table of a group.
    pub(super) fn tables(&self, group: u64) -> (u64, u64, u64) {
        let leader = group - group % GROUPS_PER_FLEX;
        let (index, len) = (group - leader, self.flex_len(leader));
        let first = leader * BLOCKS_PER_GROUP + self.superblock_overhead(leader);
        let tables = first + 2 * len;
        (
            first + index,
            first + len + index,
            tables + index * self.table_blocks(),
        )
    }

    pub(super) fn free_blocks(&self, group: u64) -> u64 {
        self.group_blocks(group) - self.used(group)
    }
}

/// Whether a group has a copy of the superblock (`sparse_super`): 0, 1 and the powers of 3, 5 and 7.
pub(super) fn has_superblock(group: u64) -> bool {
    let power_of = |base: u64| {
        let mut power = base;
        while power < group {
            power *= base;
        }
        power == group
    };
    group <= 1 || power_of(3) || power_of(5) || power_of(7)
}

/// The journal's length; one extent in group 0 holds it. Even the least one takes the transaction by which the kernel
/// grows a small filesystem: a quarter of it has room for each block kept for descriptors.
fn journal_blocks(blocks: u64) -> u64 {
    match blocks {
        0..32_768 => 2048,
        32_768..262_144 => 4096,
        262_144..524_288 => 8192,
        _ => 16_384,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn superblock_copies_are_in_the_sparse_groups() {
        let groups: Vec<u64> = (0..130).filter(|group| has_superblock(*group)).collect();
        assert_eq!(groups, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }

    #[test]
    fn everything_fits_whatever_the_length() {
        for len in (16..5000)
            .map(|mib| mib << 20)
            .chain([1 << 36, 1 << 40, 1 << 44])
        {
            let geometry = Geometry::new(len).unwrap();
            assert!(geometry.blocks * BLOCK <= len);
            assert!(len - geometry.blocks * BLOCK < 64 << 20, "{len}");
            assert!(geometry.inodes_per_group <= 8 * BLOCK);
            for group in 0..geometry.groups.min(200) {
                assert!(
                    geometry.used(group) <= geometry.group_blocks(group),
                    "{len} {group}"
                );
            }
            let last = geometry.groups - 1;
            assert!(geometry.used(last) < geometry.group_blocks(last), "{len}");
        }
    }
}
