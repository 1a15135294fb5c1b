//! FAT32, the filesystem of the EFI system partition: writer and reader (Microsoft's "FAT32 File System
//! Specification" 1.03, sectors of 512 bytes).
//!
//! The writer lays every file and directory out in one run, with long names where 8.3 does not say all, and a
//! modification time that is given. FAT has no owners, modes, links or devices: owners and modes are dropped, each
//! hard link gets a copy, and anything else is refused. FAT12 and FAT16 are neither written nor read.

mod geometry;
mod name;
mod read;
mod time;
mod write;

use std::io;

pub use read::{Listed, list, read_file};
pub use write::write;

use super::content::ContentError;

const SECTOR: u64 = 512;
const SECTOR_LEN: usize = SECTOR as usize;
const ENTRY_LEN: usize = 32;
const ROOT_CLUSTER: u32 = 2;
const END_OF_CHAIN: u32 = 0x0fff_ffff;
const ATTRIBUTE_LABEL: u8 = 0x08;
const ATTRIBUTE_DIRECTORY: u8 = 0x10;
const ATTRIBUTE_ARCHIVE: u8 = 0x20;
/// What marks a piece of a long name.
const ATTRIBUTE_LONG_NAME: u8 = 0x0f;

/// What a filesystem depends on besides its tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The volume's number.
    pub volume_id: u32,
    /// The volume's label: 1 to 11 upper-case letters, digits, `-`, `_` or blanks.
    pub label: String,
    /// The time of every file and directory, seconds since the epoch; FAT knows 1980 to 2107 in steps of 2 s.
    pub mtime: i64,
}

/// Why a filesystem was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum FatError {
    /// The length is no multiple of 512 bytes, or too small or too large for FAT32.
    #[error("{len} bytes cannot be a FAT32 filesystem: {reason}")]
    BadLength {
        /// The length.
        len: u64,
        /// The rule.
        reason: &'static str,
    },
    /// The label breaks a rule.
    #[error("the FAT label {0:?} is not 1 to 11 upper-case letters, digits, '-', '_' or blanks")]
    BadLabel(String),
    /// A name that FAT cannot say, or that another one equals but for case.
    #[error("{path}: {reason}")]
    BadName {
        /// The name in the filesystem, lossy.
        path: String,
        /// The rule.
        reason: &'static str,
    },
    /// A link, device, pipe or socket, or a file of 4 GiB and more.
    #[error("{path}: FAT cannot hold {what}")]
    Unsupported {
        /// The name in the filesystem, lossy.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// The content does not fit.
    #[error("the FAT32 filesystem has {len} bytes, its content needs {needed}")]
    Full {
        /// The filesystem's length.
        len: u64,
        /// The least length that would do.
        needed: u64,
    },
    /// A file's bytes could not be copied.
    #[error("{path}")]
    Content {
        /// The file in the filesystem.
        path: String,
        /// The reason.
        source: ContentError,
    },
    /// The filesystem does not write.
    #[error("cannot write the FAT32 filesystem")]
    Write(#[source] io::Error),
    /// The filesystem does not read.
    #[error("cannot read the FAT32 filesystem")]
    Read(#[source] io::Error),
    /// No FAT32 filesystem, or a broken one.
    #[error("not a FAT32 filesystem: {0}")]
    BadFilesystem(&'static str),
    /// No such file.
    #[error("{path}: no such file in the FAT32 filesystem")]
    NotFound {
        /// The path.
        path: String,
    },
}
