//! EROFS, the read-only filesystem of the root partition: writer and reader.
//!
//! Blocks of 4096 bytes, plain or compressed, compact or extended inodes, a file's last partial block stored beside
//! its inode ("tail packing"), inline extended attributes. Files of the same bytes have the same blocks. Field names
//! follow `Documentation/filesystems/erofs.rst` and `fs/erofs/erofs_fs.h` of Linux; images are read by Linux 5.17 and
//! later, plain ones by 5.4. Chunks, fragments, shared attributes and several devices are not written.
//!
//! ```text
//! superblock │ blocks of files, in the order of the tree │ inodes, attributes, indexes, tails │ directories
//! ```
//!
//! Data goes first, in one pass on several threads; what is known of it then goes into the metadata behind it, so
//! memory holds metadata only, and the compressed ends of files that are part of it.

mod compress;
mod directory;
mod index;
mod inode;
mod layout;
mod node;
mod pack;
mod read;
mod same;
mod write;
mod xattr;

use std::io;

use uuid::Uuid;

pub use compress::Compression;
pub use node::{FileType, Node, Superblock};
pub use read::{Image, ReadError};
pub use write::{Written, write};

use super::content::ContentError;
use super::verity::Hasher;

/// Bytes of a block.
pub const BLOCK: u64 = 4096;
const BLOCK_LEN: usize = BLOCK as usize;
/// Where the superblock is.
const SUPERBLOCK_AT: usize = 1024;
const SUPERBLOCK_LEN: usize = 128;
const MAGIC: u32 = 0xe0f5_e1e2;
/// Inodes lie at multiples of this; a nid counts them.
const SLOT: u64 = 32;
const FEATURE_COMPAT_SB_CHKSUM: u32 = 1;
const FEATURE_COMPAT_MTIME: u32 = 2;
const FEATURE_INCOMPAT_ZERO_PADDING: u32 = 1;
/// Also says that clusters may have several compressed blocks.
const FEATURE_INCOMPAT_COMPR_CFGS: u32 = 2;
const FEATURE_INCOMPAT_ZTAILPACKING: u32 = 0x10;
/// `i_format` data layouts.
const FLAT_PLAIN: u16 = 0;
const FLAT_INLINE: u16 = 2;
const COMPRESSED_COMPACT: u16 = 3;

const S_IFIFO: u16 = 0o010_000;
const S_IFCHR: u16 = 0o020_000;
const S_IFDIR: u16 = 0o040_000;
const S_IFBLK: u16 = 0o060_000;
const S_IFREG: u16 = 0o100_000;
const S_IFLNK: u16 = 0o120_000;
const S_IFSOCK: u16 = 0o140_000;

/// What an image depends on besides its tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The filesystem's identifier.
    pub uuid: Uuid,
    /// Its label, 16 bytes at most.
    pub volume_name: String,
    /// Seconds since the epoch; an inode of this very time is stored in half the space.
    pub build_time: i64,
    /// How files are compressed, where it saves blocks; `None`: not at all.
    pub compression: Option<Compression>,
    /// Threads; the bytes are the same with any number of them. 0: one for each processor.
    pub workers: usize,
}

/// What [`write()`] does beside the image: it hashes blocks for dm-verity while they are in the processor's cache.
pub type Hashing<'a> = Option<&'a Hasher>;

/// Why an image was not written.
#[derive(Debug, thiserror::Error)]
pub enum ErofsError {
    /// A file's bytes could not be copied.
    #[error("{path}")]
    Content {
        /// The file in the image.
        path: String,
        /// The reason.
        source: ContentError,
    },
    /// The image does not write.
    #[error("cannot write the EROFS image")]
    Write(#[from] io::Error),
    /// The label is longer than 16 bytes.
    #[error("the EROFS label {0:?} is longer than 16 bytes")]
    LongLabel(String),
    /// A directory with two names.
    #[error("{path}: a directory cannot have two names")]
    LinkedDirectory {
        /// One of them.
        path: String,
    },
    /// An attribute outside the namespaces that EROFS knows, or too long.
    #[error("{path}: extended attribute {name:?}: {reason}")]
    BadXattr {
        /// The file in the image.
        path: String,
        /// The attribute, lossy.
        name: String,
        /// The rule.
        reason: &'static str,
    },
    /// A symbolic link whose target is empty or longer than 4095 bytes.
    #[error("{path}: a symbolic link's target has 1 to 4095 bytes, not {len}")]
    BadSymlink {
        /// The link in the image.
        path: String,
        /// The target's length.
        len: usize,
    },
    /// More than 2³² blocks.
    #[error("{bytes} bytes are more than EROFS can hold")]
    TooLarge {
        /// The image's length.
        bytes: u64,
    },
}
