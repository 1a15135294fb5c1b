//! What the reader makes of a superblock and of an inode.

use uuid::Uuid;

use super::inode::EXTENDED_LEN;
use super::read::{ReadError, broken};
use super::{
    BLOCK, COMPRESSED_COMPACT, FEATURE_COMPAT_SB_CHKSUM, FEATURE_INCOMPAT_COMPR_CFGS,
    FEATURE_INCOMPAT_ZERO_PADDING, FEATURE_INCOMPAT_ZTAILPACKING, FLAT_INLINE, FLAT_PLAIN, MAGIC,
    S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, S_IFSOCK, SUPERBLOCK_AT, xattr,
};
use crate::format::array_at;

/// What the superblock says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// The filesystem's identifier.
    pub uuid: Uuid,
    /// Its label, lossy.
    pub volume_name: String,
    /// Seconds since the epoch.
    pub build_time: i64,
    /// Number of inodes.
    pub inodes: u64,
    /// Length in bytes.
    pub len: u64,
    pub(super) meta_at: u64,
    pub(super) xattr_at: u64,
    pub(super) root_nid: u64,
}

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link; its content is the target.
    Symlink,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A Unix socket's name.
    Socket,
}

/// An inode as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its number in the image; names of one inode have the same.
    pub nid: u64,
    /// What it is.
    pub file_type: FileType,
    /// Permission bits with set-id and sticky bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds since the epoch.
    pub mtime: i64,
    /// Nanoseconds of the modification time.
    pub mtime_nsec: u32,
    /// Number of names.
    pub links: u32,
    /// Bytes of content.
    pub size: u64,
    pub(super) xattrs_at: u64,
    pub(super) xattrs_len: u64,
    pub(super) first_block: u64,
    pub(super) storage: Storage,
}

/// How an inode's content is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storage {
    /// In blocks.
    Blocks,
    /// In blocks, its last part behind the inode.
    Tail,
    /// Compressed.
    Clusters,
}

/// Reads and checks the superblock in the image's first block.
pub(super) fn parse_superblock(block: &[u8]) -> Result<Superblock, ReadError> {
    let bytes = &block[SUPERBLOCK_AT..];
    let u32_at = |at| u32::from_le_bytes(array_at(bytes, at));
    let u64_at = |at| u64::from_le_bytes(array_at(bytes, at));
    if u32_at(0) != MAGIC {
        return Err(broken(SUPERBLOCK_AT as u64, "no signature"));
    }
    if u64::from(bytes[12]) != u64::from(BLOCK.trailing_zeros()) {
        return Err(ReadError::Unsupported("blocks of another size"));
    }
    if u32_at(8) & FEATURE_COMPAT_SB_CHKSUM != 0 {
        let mut unsigned = bytes.to_vec();
        unsigned[4..8].fill(0);
        if !crc32c::crc32c(&unsigned) != u32_at(4) {
            return Err(broken(SUPERBLOCK_AT as u64, "its checksum is wrong"));
        }
    }
    let known =
        FEATURE_INCOMPAT_ZERO_PADDING | FEATURE_INCOMPAT_COMPR_CFGS | FEATURE_INCOMPAT_ZTAILPACKING;
    if u32_at(80) & !known != 0 {
        return Err(ReadError::Unsupported("an incompatible feature"));
    }
    let name = &bytes[64..80];
    let name_len = name.iter().position(|byte| *byte == 0).unwrap_or(16);
    Ok(Superblock {
        uuid: Uuid::from_bytes(array_at(bytes, 48)),
        volume_name: String::from_utf8_lossy(&name[..name_len]).into_owned(),
        build_time: u64_at(24) as i64,
        inodes: u64_at(16),
        len: u64::from(u32_at(36)) * BLOCK,
        meta_at: u64::from(u32_at(40)) * BLOCK,
        xattr_at: u64::from(u32_at(44)) * BLOCK,
        root_nid: u64::from(u16::from_le_bytes(array_at(bytes, 14))),
    })
}

/// An inode of either form whose fixed part ends at `end`.
pub(super) fn parse_inode(
    bytes: &[u8; EXTENDED_LEN],
    nid: u64,
    end: u64,
    build_time: i64,
) -> Result<Node, &'static str> {
    let u16_at = |at| u16::from_le_bytes(array_at(bytes, at));
    let u32_at = |at| u32::from_le_bytes(array_at(bytes, at));
    let u64_at = |at| u64::from_le_bytes(array_at(bytes, at));
    let (format, mode) = (u16_at(0), u16_at(4));
    let extended = format & 1 != 0;
    let storage = match format >> 1 {
        FLAT_PLAIN => Storage::Blocks,
        FLAT_INLINE => Storage::Tail,
        COMPRESSED_COMPACT if mode & 0o170_000 == S_IFREG => Storage::Clusters,
        _ => return Err("an inode's content is stored in a way that is not ours"),
    };
    let union = u32_at(16);
    let (major, minor) = (union >> 8 & 0xfff, union & 0xff | union >> 12 & 0xfff00);
    let mut node = Node {
        nid,
        file_type: match mode & 0o170_000 {
            S_IFDIR => FileType::Directory,
            S_IFREG => FileType::File,
            S_IFLNK => FileType::Symlink,
            S_IFCHR => FileType::CharDevice { major, minor },
            S_IFBLK => FileType::BlockDevice { major, minor },
            S_IFIFO => FileType::Fifo,
            S_IFSOCK => FileType::Socket,
            _ => return Err("an inode has no file type"),
        },
        mode: mode & 0o7777,
        uid: u32::from(u16_at(24)),
        gid: u32::from(u16_at(26)),
        mtime: build_time,
        mtime_nsec: 0,
        links: u32::from(u16_at(6)),
        size: u64::from(u32_at(8)),
        xattrs_at: end,
        xattrs_len: match u64::from(u16_at(2)) {
            0 => 0,
            count => xattr::HEADER_LEN as u64 + 4 * (count - 1),
        },
        first_block: u64::from(union),
        storage,
    };
    if extended {
        node.size = u64_at(8);
        (node.uid, node.gid) = (u32_at(24), u32_at(28));
        (node.mtime, node.mtime_nsec) = (u64_at(32) as i64, u32_at(40));
        node.links = u32_at(44);
    }
    Ok(node)
}
