//! The few inodes there are, their directories, the journal and the blocks kept for growth.

use std::io;

use super::geometry::{LOST_FOUND_BLOCKS, QUOTA_BLOCKS, has_superblock};
use super::quota;
use super::{
    ADDRESSES_PER_BLOCK, BLOCK, BLOCK_LEN, BLOCKS_PER_GROUP, INODE_LEN, JOURNAL_INODE, LAST_INODE,
    LOST_FOUND_INODE, QUOTA_INODE, RESIZE_INODE, ROOT_INODE, Writer, checksum, put_u16s, put_u32s,
};

const EXTENTS_FLAG: u32 = 0x8_0000;
const IMMUTABLE_FLAG: u32 = 0x10;
const EXTENT_MAGIC: u16 = 0xf30a;
/// `i_block`: 60 bytes of extents or addresses.
const MAP_AT: usize = 0x28;
pub(super) const MAP_LEN: usize = 60;
/// The doubly indirect address in a map of addresses.
const DOUBLY_INDIRECT: usize = 13;
const DIRECTORY_TYPE: u8 = 2;
const TAIL_LEN: usize = 12;

struct Inode {
    mode: u16,
    links: u16,
    size: u64,
    /// Blocks in use, those of addresses among them.
    blocks: u64,
    flags: u32,
    map: [u8; MAP_LEN],
}

impl Writer<'_> {
    /// Writes the first 12 inodes; the reserved ones among them that are not used have only a checksum.
    pub(super) fn write_inodes(&self) -> io::Result<()> {
        let mut bytes = Vec::new();
        for number in 1..=LAST_INODE {
            bytes.extend(self.inode_bytes(number));
        }
        let (_, _, table) = self.geometry.tables(0);
        self.put(table, &bytes)
    }

    fn inode(&self, number: u32) -> Option<Inode> {
        let geometry = &self.geometry;
        let directory = |mode, links, first, blocks| Inode {
            mode,
            links,
            size: blocks * BLOCK,
            blocks,
            flags: EXTENTS_FLAG,
            map: extent_map(first, blocks),
        };
        match number {
            ROOT_INODE => Some(directory(0o040_755, 3, geometry.root, 1)),
            LOST_FOUND_INODE => Some(directory(
                0o040_700,
                2,
                geometry.lost_found,
                LOST_FOUND_BLOCKS,
            )),
            JOURNAL_INODE => Some(Inode {
                mode: 0o100_600,
                links: 1,
                size: geometry.journal_blocks * BLOCK,
                blocks: geometry.journal_blocks,
                flags: EXTENTS_FLAG,
                map: self.journal_map(),
            }),
            RESIZE_INODE => Some(self.resize_inode()),
            QUOTA_INODE => Some(Inode {
                mode: 0o100_600,
                links: 1,
                size: quota::LEN as u64,
                blocks: QUOTA_BLOCKS,
                flags: EXTENTS_FLAG | IMMUTABLE_FLAG,
                map: extent_map(geometry.quota, QUOTA_BLOCKS),
            }),
            _ => None,
        }
    }

    pub(super) fn journal_map(&self) -> [u8; MAP_LEN] {
        extent_map(self.geometry.journal, self.geometry.journal_blocks)
    }

    fn resize_inode(&self) -> Inode {
        let geometry = &self.geometry;
        let copies = (0..geometry.groups)
            .filter(|group| has_superblock(*group))
            .count() as u64;
        let mut map = [0; MAP_LEN];
        put_u32s(&mut map, &[(4 * DOUBLY_INDIRECT, geometry.resize as u32)]);
        let addressable = 12 + ADDRESSES_PER_BLOCK + ADDRESSES_PER_BLOCK * ADDRESSES_PER_BLOCK;
        Inode {
            mode: 0o100_600,
            links: 1,
            size: addressable * BLOCK,
            blocks: 1 + geometry.reserved_descriptor_blocks * copies,
            flags: 0,
            map,
        }
    }

    fn inode_bytes(&self, number: u32) -> [u8; INODE_LEN] {
        let mut bytes = [0; INODE_LEN];
        if let Some(inode) = self.inode(number) {
            let time = self.options.time.clamp(0, i64::from(u32::MAX));
            let low = time as u32;
            // Two bits more for the seconds, as the low word is signed.
            let epoch = ((time - i64::from(low as i32)) >> 32) as u32 & 3;
            put_u16s(
                &mut bytes,
                &[(0x00, inode.mode), (0x1a, inode.links), (0x80, 32)],
            );
            let (size, sectors) = (inode.size, inode.blocks * (BLOCK / 512));
            put_u32s(
                &mut bytes,
                &[
                    (0x04, size as u32),
                    (0x6c, (size >> 32) as u32),
                    (0x08, low), // access
                    (0x0c, low), // change
                    (0x10, low), // modification
                    (0x90, low), // creation
                    (0x84, epoch),
                    (0x88, epoch),
                    (0x8c, epoch),
                    (0x94, epoch),
                    (0x1c, sectors as u32),
                    (0x20, inode.flags),
                ],
            );
            bytes[MAP_AT..MAP_AT + MAP_LEN].copy_from_slice(&inode.map);
        }
        let sum = checksum(self.inode_seed(number), &bytes);
        put_u16s(&mut bytes, &[(0x7c, sum as u16)]);
        if bytes[0x80] != 0 {
            put_u16s(&mut bytes, &[(0x82, (sum >> 16) as u16)]);
        }
        bytes
    }

    /// What checksums of an inode and its blocks begin with; generations are 0.
    fn inode_seed(&self, number: u32) -> u32 {
        checksum(checksum(self.seed, &number.to_le_bytes()), &[0; 4])
    }

    pub(super) fn write_directories(&self) -> io::Result<()> {
        let root = [
            (ROOT_INODE, &b"."[..]),
            (ROOT_INODE, b".."),
            (LOST_FOUND_INODE, b"lost+found"),
        ];
        let block = self.directory_block(ROOT_INODE, &root);
        self.put(self.geometry.root, &block)?;
        for index in 0..LOST_FOUND_BLOCKS {
            let dots = [(LOST_FOUND_INODE, &b"."[..]), (ROOT_INODE, b"..")];
            let empty = [(0, &b""[..])];
            let entries = if index == 0 { &dots[..] } else { &empty };
            let block = self.directory_block(LOST_FOUND_INODE, entries);
            self.put(self.geometry.lost_found + index, &block)?;
        }
        Ok(())
    }

    fn directory_block(&self, directory: u32, entries: &[(u32, &[u8])]) -> [u8; BLOCK_LEN] {
        let mut block = [0; BLOCK_LEN];
        let tail = BLOCK_LEN - TAIL_LEN;
        let mut at = 0;
        for (index, (inode, name)) in entries.iter().enumerate() {
            let last = index + 1 == entries.len();
            let len = if last {
                tail - at
            } else {
                (8 + name.len()).next_multiple_of(4)
            };
            put_u32s(&mut block, &[(at, *inode)]);
            put_u16s(&mut block, &[(at + 4, len as u16)]);
            if *inode != 0 {
                block[at + 6..at + 8].copy_from_slice(&[name.len() as u8, DIRECTORY_TYPE]);
            }
            block[at + 8..at + 8 + name.len()].copy_from_slice(name);
            at += len;
        }
        let sum = checksum(self.inode_seed(directory), &block[..tail]);
        put_u16s(&mut block, &[(tail + 4, TAIL_LEN as u16)]);
        block[tail + 7] = 0xde;
        put_u32s(&mut block, &[(tail + 8, sum)]);
        block
    }

    /// An empty journal: its superblock, all numbers of which are big-endian.
    pub(super) fn write_journal(&self) -> io::Result<()> {
        let geometry = &self.geometry;
        self.zero(geometry.journal, geometry.journal_blocks)?;
        let mut block = [0; BLOCK_LEN];
        for (at, word) in [
            (0x00, 0xc03b_3998),
            (0x04, 4), // a superblock of version 2
            (0x0c, BLOCK as u32),
            (0x10, geometry.journal_blocks as u32),
            (0x14, 1), // first block of the log
            (0x18, 1), // first transaction
            (0x40, 1), // users
        ] {
            block[at..at + 4].copy_from_slice(&u32::to_be_bytes(word));
        }
        block[0x30..0x40].copy_from_slice(self.options.uuid.as_bytes());
        self.put(geometry.journal, &block)
    }

    /// The resize inode's addresses: each block kept for descriptors in group 0, which in turn has the addresses of
    /// its copies.
    pub(super) fn write_resize_blocks(&self) -> io::Result<()> {
        let geometry = &self.geometry;
        let first = 1 + geometry.descriptor_blocks;
        let mut addresses = [0; BLOCK_LEN];
        for block in first..first + geometry.reserved_descriptor_blocks {
            // A descriptor block's number is also its place among the addresses.
            let place = (block - 1) % ADDRESSES_PER_BLOCK * 4;
            put_u32s(&mut addresses, &[(place as usize, block as u32)]);
            let copies = (1..geometry.groups).filter(|group| has_superblock(*group));
            let mut of_copies = [0; BLOCK_LEN];
            for (index, group) in copies.enumerate() {
                let copy = block + group * BLOCKS_PER_GROUP;
                put_u32s(&mut of_copies, &[(index * 4, copy as u32)]);
                self.zero(copy, 1)?;
            }
            self.put(block, &of_copies)?;
        }
        self.put(geometry.resize, &addresses)
    }
}

/// A map of one extent.
fn extent_map(first: u64, blocks: u64) -> [u8; MAP_LEN] {
    let mut map = [0; MAP_LEN];
    put_u16s(
        &mut map,
        &[
            (0, EXTENT_MAGIC),
            (2, 1), // extents
            (4, 4), // room for extents
            (16, blocks as u16),
            (18, (first >> 32) as u16),
        ],
    );
    put_u32s(&mut map, &[(20, first as u32)]);
    map
}
