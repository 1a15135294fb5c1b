//! On-disk inodes: the compact form of 32 bytes, and the extended one of 64.

use super::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, S_IFSOCK};
use crate::tree::{Kind, Metadata};

pub(super) const COMPACT_LEN: usize = 32;
pub(super) const EXTENDED_LEN: usize = 64;

/// What an on-disk inode says besides the tree's [`Metadata`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields {
    pub(super) extended: bool,
    /// How the content is stored.
    pub(super) data_layout: u16,
    pub(super) xattr_icount: u16,
    pub(super) file_mode: u16,
    pub(super) links: u32,
    pub(super) size: u64,
    /// First block, number of compressed blocks or device number (`i_u`).
    pub(super) union: u32,
    pub(super) number: u32,
}

/// The file type bits of a mode.
pub(super) fn type_bits(kind: &Kind) -> u16 {
    match kind {
        Kind::Directory(_) => S_IFDIR,
        Kind::File(_) => S_IFREG,
        Kind::Symlink(_) => S_IFLNK,
        Kind::CharDevice { .. } => S_IFCHR,
        Kind::BlockDevice { .. } => S_IFBLK,
        Kind::Fifo => S_IFIFO,
        Kind::Socket => S_IFSOCK,
    }
}

/// The file type of a directory entry (`EROFS_FT_*`).
pub(super) fn entry_type(kind: &Kind) -> u8 {
    match kind {
        Kind::File(_) => 1,
        Kind::Directory(_) => 2,
        Kind::CharDevice { .. } => 3,
        Kind::BlockDevice { .. } => 4,
        Kind::Fifo => 5,
        Kind::Socket => 6,
        Kind::Symlink(_) => 7,
    }
}

/// A device number as the kernel's `new_encode_dev` makes it.
pub(super) fn encode_device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// Whether the compact form can say all of it.
pub(super) fn fits_compact(metadata: &Metadata, links: u32, size: u64, build_time: i64) -> bool {
    let short = u32::from(u16::MAX);
    metadata.uid <= short
        && metadata.gid <= short
        && links <= short
        && size <= u64::from(u32::MAX)
        && metadata.mtime == build_time
        && metadata.mtime_nsec == 0
}

/// Appends the inode to `out`.
pub(super) fn render(fields: &Fields, metadata: &Metadata, out: &mut Vec<u8>) {
    let format = fields.data_layout << 1 | u16::from(fields.extended);
    for value in [format, fields.xattr_icount, fields.file_mode] {
        out.extend(value.to_le_bytes());
    }
    if fields.extended {
        out.extend([0; 2]);
        out.extend(fields.size.to_le_bytes());
        for value in [fields.union, fields.number, metadata.uid, metadata.gid] {
            out.extend(value.to_le_bytes());
        }
        out.extend(metadata.mtime.to_le_bytes());
        out.extend(metadata.mtime_nsec.to_le_bytes());
        out.extend(fields.links.to_le_bytes());
        out.extend([0; 16]);
    } else {
        out.extend((fields.links as u16).to_le_bytes());
        out.extend((fields.size as u32).to_le_bytes());
        out.extend([0; 4]);
        out.extend(fields.union.to_le_bytes());
        out.extend(fields.number.to_le_bytes());
        out.extend((metadata.uid as u16).to_le_bytes());
        out.extend((metadata.gid as u16).to_le_bytes());
        out.extend([0; 4]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_encoded_as_linux_does() {
        assert_eq!(encode_device(0, 0), 0);
        assert_eq!(encode_device(5, 1), 0x501);
        assert_eq!(encode_device(259, 0x12345), 0x1231_0345);
    }

    #[test]
    fn both_forms_have_their_length() {
        for (extended, len) in [(false, COMPACT_LEN), (true, EXTENDED_LEN)] {
            let fields = Fields {
                extended,
                data_layout: 2,
                xattr_icount: 1,
                file_mode: 0,
                links: 1,
                size: 1,
                union: 0,
                number: 1,
            };
            let mut out = Vec::new();
            render(&fields, &Metadata::default(), &mut out);
            assert_eq!(out.len(), len);
            assert_eq!(out[0], 4 | u8::from(extended));
        }
    }

    #[test]
    fn large_values_need_the_extended_form() {
        let metadata = Metadata::default();
        assert!(fits_compact(&metadata, 65535, u64::from(u32::MAX), 0));
        assert!(!fits_compact(&metadata, 65536, 0, 0));
        assert!(!fits_compact(&metadata, 1, 1 << 32, 0));
        assert!(!fits_compact(&metadata, 1, 0, 1));
        let owned = Metadata {
            uid: 65536,
            ..Metadata::default()
        };
        assert!(!fits_compact(&owned, 1, 0, 0));
    }
}
