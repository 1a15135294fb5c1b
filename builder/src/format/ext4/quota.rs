//! The project quota's file: the tree of the kernel's format 2, revision 1 (`fs/quota/quotaio_v2.h`), with one entry
//! for project 0, which is every file without a project. No limit is in it: init sets those.

use super::geometry::LOST_FOUND_BLOCKS;
use super::{BLOCK, put_u16s, put_u32s};

/// The tree's own blocks, whatever the filesystem's are.
const TREE_BLOCK: usize = 1024;
/// The file's header, four levels of tree and one block of entries.
pub(super) const LEN: usize = 6 * TREE_BLOCK;
const ENTRIES_AT: usize = 5 * TREE_BLOCK;
const PROJECT_MAGIC: u32 = 0xd9c0_3f14;
/// Entries of 72 bytes with 64-bit counts (`vfsv1`).
const REVISION: u32 = 1;
/// How long a soft limit may be exceeded: a week, the customary value. No soft limits are used.
const GRACE_SECONDS: u32 = 7 * 24 * 60 * 60;
/// The root directory and `lost+found`; what only the filesystem uses is not counted.
const INODES: u32 = 2;
const BYTES: u32 = ((1 + LOST_FOUND_BLOCKS) * BLOCK) as u32;

pub(super) fn render() -> [u8; LEN] {
    let mut bytes = [0; LEN];
    put_u32s(
        &mut bytes,
        &[
            (0x00, PROJECT_MAGIC),
            (0x04, REVISION),
            (0x08, GRACE_SECONDS),
            (0x0c, GRACE_SECONDS),
            (0x14, (LEN / TREE_BLOCK) as u32),
            (0x1c, 5), // the block of entries with room
        ],
    );
    // Project 0 takes the first way on each of the tree's levels.
    for level in 1..5 {
        put_u32s(&mut bytes, &[(level * TREE_BLOCK, level as u32 + 1)]);
    }
    put_u16s(&mut bytes, &[(ENTRIES_AT + 8, 1)]);
    let entry = ENTRIES_AT + 16;
    put_u32s(&mut bytes, &[(entry + 24, INODES), (entry + 48, BYTES)]);
    bytes
}
