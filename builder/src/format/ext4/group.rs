//! Groups: their bitmaps and descriptors.

use std::io;

use super::geometry::{GROUPS_PER_FLEX, Geometry, has_superblock};
use super::{BLOCK_LEN, DESCRIPTOR_LEN, LAST_INODE, Writer, checksum, put_u16s};

const INODE_UNINIT: u16 = 1;
const BLOCK_UNINIT: u16 = 2;
const INODE_ZEROED: u16 = 4;

type Bitmap = [u8; BLOCK_LEN];

impl Writer<'_> {
    /// Clears a group's inode table and the bitmaps that stay unwritten.
    pub(super) fn zero_tables(&self, group: u64) -> io::Result<()> {
        let (blocks, inodes, table) = self.geometry.tables(group);
        self.zero(blocks, 1)?;
        self.zero(inodes, 1)?;
        self.zero(table, self.geometry.table_blocks())
    }

    /// Writes a group's bitmaps, unless the kernel makes them itself, and returns its descriptor.
    pub(super) fn write_bitmaps(&self, group: u64) -> io::Result<[u8; DESCRIPTOR_LEN]> {
        let geometry = &self.geometry;
        let (block_bitmap, inode_bitmap, _) = geometry.tables(group);
        let mut flags = INODE_ZEROED;
        let (mut blocks_checksum, mut inodes_checksum) = (0, 0);
        if is_block_uninit(geometry, group) {
            flags |= BLOCK_UNINIT;
        } else {
            let bitmap = block_bits(geometry, group);
            blocks_checksum = checksum(self.seed, &bitmap);
            self.put(block_bitmap, &bitmap)?;
        }
        if group == 0 {
            let bitmap = inode_bits(geometry);
            let len = geometry.inodes_per_group as usize / 8;
            inodes_checksum = checksum(self.seed, &bitmap[..len]);
            self.put(inode_bitmap, &bitmap)?;
        } else {
            flags |= INODE_UNINIT;
        }
        Ok(self.descriptor(group, flags, blocks_checksum, inodes_checksum))
    }

    fn descriptor(
        &self,
        group: u64,
        flags: u16,
        blocks_checksum: u32,
        inodes_checksum: u32,
    ) -> [u8; DESCRIPTOR_LEN] {
        let geometry = &self.geometry;
        let (block_bitmap, inode_bitmap, table) = geometry.tables(group);
        let used_inodes = if group == 0 { u64::from(LAST_INODE) } else { 0 };
        let free_inodes = geometry.inodes_per_group - used_inodes;
        let directories = if group == 0 { 2 } else { 0 };
        let mut bytes = [0; DESCRIPTOR_LEN];
        for (low, high, value) in [
            (0x00, 0x20, block_bitmap),
            (0x04, 0x24, inode_bitmap),
            (0x08, 0x28, table),
        ] {
            bytes[low..low + 4].copy_from_slice(&(value as u32).to_le_bytes());
            bytes[high..high + 4].copy_from_slice(&((value >> 32) as u32).to_le_bytes());
        }
        // Counts stay below 65536: a group has 32768 blocks and no more inodes.
        put_u16s(
            &mut bytes,
            &[
                (0x0c, geometry.free_blocks(group) as u16),
                (0x0e, free_inodes as u16),
                (0x10, directories),
                (0x12, flags),
                (0x18, blocks_checksum as u16),
                (0x38, (blocks_checksum >> 16) as u16),
                (0x1a, inodes_checksum as u16),
                (0x3a, (inodes_checksum >> 16) as u16),
                (0x1c, free_inodes as u16), // never used ones at the table's end
            ],
        );
        let seed = checksum(self.seed, &(group as u32).to_le_bytes());
        let sum = checksum(seed, &bytes);
        put_u16s(&mut bytes, &[(0x1e, sum as u16)]);
        bytes
    }
}

/// Whether the kernel can make the block bitmap itself: nothing but free blocks in it.
fn is_block_uninit(geometry: &Geometry, group: u64) -> bool {
    !group.is_multiple_of(GROUPS_PER_FLEX) && !has_superblock(group) && group + 1 < geometry.groups
}

/// The blocks in use, and beyond a short group's end all ones.
fn block_bits(geometry: &Geometry, group: u64) -> Bitmap {
    let mut bitmap = [0; BLOCK_LEN];
    set_bits(&mut bitmap, 0, geometry.used(group) as usize);
    set_bits(
        &mut bitmap,
        geometry.group_blocks(group) as usize,
        8 * BLOCK_LEN,
    );
    bitmap
}

/// The inodes in use of group 0, and beyond its inodes all ones.
fn inode_bits(geometry: &Geometry) -> Bitmap {
    let mut bitmap = [0; BLOCK_LEN];
    set_bits(&mut bitmap, 0, LAST_INODE as usize);
    set_bits(
        &mut bitmap,
        geometry.inodes_per_group as usize,
        8 * BLOCK_LEN,
    );
    bitmap
}

fn set_bits(bitmap: &mut Bitmap, from: usize, to: usize) {
    for bit in from..to {
        bitmap[bit / 8] |= 1 << (bit % 8);
    }
}
