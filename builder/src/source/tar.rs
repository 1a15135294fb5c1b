//! Reads tar archives entry by entry, headers only: POSIX ustar, PAX (IEEE 1003.1-2001) and GNU extensions.
//!
//! The archive is a plain file; an [`Entry`] says at which offset its data lies. Nothing is interpreted beyond the
//! format: paths come as they are written. Refused: wrong header checksums, unknown entry types, data that reaches
//! beyond the archive, NUL in a name, names and targets longer than the kernel takes, extension headers above 1 MiB. Of
//! a global header only owner and time count: the rest would be of no sense for all entries, and cost each of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::error::FileError;
use super::pax;

const BLOCK: u64 = 512;
/// Longest extension header (PAX records, GNU long names) that is read into memory.
const EXTENSION_CAP: u64 = 1 << 20;
/// Longest path and symbolic link's target (PATH_MAX, its NUL left out).
const PATH_CAP: usize = 4095;
/// Most segments of one sparse file.
const SEGMENT_CAP: usize = 1 << 16;

/// Why an archive was refused.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The archive ends in the middle of something.
    #[error("{}: the archive is truncated at {what}", archive.display())]
    Truncated {
        /// The archive.
        archive: PathBuf,
        /// The entry or header it ends in.
        what: String,
    },
    /// A header or extension breaks the format.
    #[error("{}: {entry}: {reason}", archive.display())]
    Malformed {
        /// The archive.
        archive: PathBuf,
        /// The entry's name, lossy, or its offset.
        entry: String,
        /// What is wrong.
        reason: String,
    },
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A regular file with holes.
    Sparse {
        /// Its size with the holes.
        size: u64,
        /// Offset in the file and length of each stretch of data, in the order of the data.
        segments: Vec<(u64, u64)>,
    },
    /// Another name of an earlier entry.
    HardLink(Vec<u8>),
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
    /// A character device, major and minor.
    CharDevice(u32, u32),
    /// A block device, major and minor.
    BlockDevice(u32, u32),
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// An entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path as written, without NUL.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits, `0o7777` at most.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds since the epoch.
    pub mtime: i64,
    /// Its nanoseconds.
    pub mtime_nsec: u32,
    /// Extended attributes (`SCHILY.xattr.*`).
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where its data begins in the archive.
    pub offset: u64,
    /// Length of the data in the archive.
    pub len: u64,
}

impl Entry {
    /// The path for messages.
    pub fn name(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

/// An archive that is read.
#[derive(Debug)]
pub struct Archive {
    file: File,
    path: PathBuf,
    len: u64,
    at: u64,
    global: pax::Records,
}

/// Extensions that stand before the entry they belong to.
#[derive(Default)]
struct Extensions {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    records: pax::Records,
}

impl Archive {
    /// Opens an uncompressed archive.
    ///
    /// # Errors
    /// [`TarError::File`].
    pub fn open(path: &Path) -> Result<Self, TarError> {
        let file = File::open(path).map_err(FileError::of("open", path))?;
        let len = file.metadata().map_err(FileError::of("read", path))?.len();
        Ok(Self {
            file,
            path: path.to_owned(),
            len,
            at: 0,
            global: pax::Records::default(),
        })
    }

    /// The next entry; `None` at the end of the archive.
    ///
    /// # Errors
    /// [`TarError`]; there is no going on after one.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions {
            records: self.global.clone(),
            ..Extensions::default()
        };
        loop {
            let Some(header) = self.next_header()? else {
                return Ok(None);
            };
            match header.kind() {
                b'L' => extensions.long_name = Some(self.read_long_name(&header)?),
                b'K' => extensions.long_link = Some(self.read_long_name(&header)?),
                b'x' => {
                    let bytes = self.read_extension(&header)?;
                    self.merge_records(&header, &mut extensions.records, &bytes)?;
                }
                b'g' => {
                    let bytes = self.read_extension(&header)?;
                    let mut global = std::mem::take(&mut self.global);
                    self.merge_records(&header, &mut global, &bytes)?;
                    global.keep_only(&["uid", "gid", "mtime"]);
                    extensions.records = global.clone();
                    self.global = global;
                }
                _ => return self.finish_entry(&header, extensions).map(Some),
            }
        }
    }

    fn next_header(&mut self) -> Result<Option<Header>, TarError> {
        if self.at >= self.len {
            return Ok(None);
        }
        let at = self.at;
        let block = self.read_block(at, || format!("the header at byte {at}"))?;
        self.at += BLOCK;
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let header = Header(block);
        if !header.checksum_is_right() {
            return Err(self.malformed(
                format!("header at byte {at}"),
                "not a tar header (wrong checksum)",
            ));
        }
        Ok(Some(header))
    }

    fn finish_entry(&mut self, header: &Header, extensions: Extensions) -> Result<Entry, TarError> {
        let records = extensions.records;
        let path = records
            .get("GNU.sparse.name")
            .or_else(|| records.get("path"))
            .map(<[u8]>::to_vec)
            .or(extensions.long_name)
            .unwrap_or_else(|| header.path());
        let link = records
            .get("linkpath")
            .map(<[u8]>::to_vec)
            .or(extensions.long_link)
            .unwrap_or_else(|| header.text(157, 100).to_vec());
        let name = String::from_utf8_lossy(&path).into_owned();
        if path.contains(&0) || link.contains(&0) {
            return Err(self.malformed(name, "a NUL byte is in its name"));
        }
        if path.len() > PATH_CAP || link.len() > PATH_CAP {
            let begin: String = name.chars().take(80).collect();
            return Err(self.malformed(
                format!("{begin}…"),
                format!("its name or target is longer than {PATH_CAP} bytes"),
            ));
        }
        let wrong = |archive: &Self, what: &str| archive.malformed(name.clone(), what);
        let number = |archive: &Self, key: &str, at: usize, len: usize| {
            records
                .number(key)
                .or_else(|| header.number(at, len))
                .ok_or_else(|| wrong(archive, &format!("its {key} is not a number")))
        };
        let owner = |value: i128| {
            u32::try_from(value).map_err(|_| wrong(self, "its owner is out of range"))
        };
        let uid = owner(number(self, "uid", 108, 8)?)?;
        let gid = owner(number(self, "gid", 116, 8)?)?;
        let size = u64::try_from(number(self, "size", 124, 12)?)
            .map_err(|_| wrong(self, "its size is out of range"))?;
        let mode = header
            .number(100, 8)
            .ok_or_else(|| wrong(self, "its mode is not a number"))?;
        let (mtime, mtime_nsec) = match records.time("mtime") {
            Some(time) => time,
            None => (
                header
                    .number(136, 12)
                    .and_then(|t| i64::try_from(t).ok())
                    .ok_or_else(|| wrong(self, "its time is not a number"))?,
                0,
            ),
        };
        let mut entry = Entry {
            kind: EntryKind::File,
            mode: (mode & 0o7777) as u16,
            uid,
            gid,
            mtime,
            mtime_nsec,
            xattrs: records.xattrs(),
            offset: self.at,
            len: 0,
            path,
        };
        self.set_kind(&mut entry, header, &records, link, size)?;
        self.at = self.end_of_data(&entry)?;
        Ok(entry)
    }

    /// Sets what the entry is and where its data lies. Types without data have none whatever the header says.
    fn set_kind(
        &mut self,
        entry: &mut Entry,
        header: &Header,
        records: &pax::Records,
        link: Vec<u8>,
        size: u64,
    ) -> Result<(), TarError> {
        entry.kind = match header.kind() {
            b'0' | 0 | b'7' if entry.path.ends_with(b"/") => EntryKind::Directory,
            b'0' | 0 | b'7' => {
                entry.len = size;
                match records.sparse_version() {
                    None => EntryKind::File,
                    Some(version) => self.pax_sparse(entry, records, version)?,
                }
            }
            b'S' => {
                entry.len = size;
                self.gnu_sparse(entry, header)?
            }
            b'1' => EntryKind::HardLink(link),
            b'2' => EntryKind::Symlink(link),
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            kind @ (b'3' | b'4') => {
                let field = |at| header.number(at, 8).and_then(|n| u32::try_from(n).ok());
                let (Some(major), Some(minor)) = (field(329), field(337)) else {
                    return Err(self.malformed(entry.name(), "its device number is not a number"));
                };
                if major >= 1 << 12 || minor >= 1 << 20 {
                    return Err(self.malformed(
                        entry.name(),
                        format!("its device number {major}:{minor} is out of range"),
                    ));
                }
                if kind == b'3' {
                    EntryKind::CharDevice(major, minor)
                } else {
                    EntryKind::BlockDevice(major, minor)
                }
            }
            other => {
                return Err(self.malformed(
                    entry.name(),
                    format!("its type {:?} is not supported", char::from(other)),
                ));
            }
        };
        Ok(())
    }

    /// The old GNU form: segments in the header and in blocks that follow it.
    fn gnu_sparse(&mut self, entry: &mut Entry, header: &Header) -> Result<EntryKind, TarError> {
        let bad = |archive: &Self| archive.malformed(entry.name(), "its map of holes is broken");
        let size = header
            .number(483, 12)
            .and_then(|n| u64::try_from(n).ok())
            .ok_or_else(|| bad(self))?;
        let mut segments = header.segments(386, 4).ok_or_else(|| bad(self))?;
        let mut more = header.0[482] != 0;
        while more {
            let at = self.at;
            let block = Header(self.read_block(at, || entry.name())?);
            self.at += BLOCK;
            segments.extend(block.segments(0, 21).ok_or_else(|| bad(self))?);
            more = block.0[504] != 0;
            if segments.len() > SEGMENT_CAP {
                return Err(bad(self));
            }
        }
        entry.offset = self.at;
        self.checked_sparse(entry, size, segments)
    }

    /// The PAX forms 0.0, 0.1 (map in the records) and 1.0 (map before the data).
    fn pax_sparse(
        &mut self,
        entry: &mut Entry,
        records: &pax::Records,
        version: pax::Sparse,
    ) -> Result<EntryKind, TarError> {
        let bad = |archive: &Self| archive.malformed(entry.name(), "its map of holes is broken");
        let size = records
            .number("GNU.sparse.realsize")
            .or_else(|| records.number("GNU.sparse.size"))
            .and_then(|n| u64::try_from(n).ok())
            .ok_or_else(|| bad(self))?;
        let segments = match version {
            pax::Sparse::Records => records.sparse_map().ok_or_else(|| bad(self))?,
            pax::Sparse::Data => {
                self.end_of_data(entry)?;
                let cap = entry.len.min(EXTENSION_CAP);
                let bytes = self.read_at(entry.offset, cap, || entry.name())?;
                let (segments, used) = pax::sparse_data_map(&bytes).ok_or_else(|| bad(self))?;
                let used = (used as u64).next_multiple_of(BLOCK);
                entry.len = entry.len.checked_sub(used).ok_or_else(|| bad(self))?;
                entry.offset += used;
                segments
            }
        };
        self.checked_sparse(entry, size, segments)
    }

    /// Segments in order, inside the file, and together as long as the data.
    fn checked_sparse(
        &self,
        entry: &Entry,
        size: u64,
        mut segments: Vec<(u64, u64)>,
    ) -> Result<EntryKind, TarError> {
        segments.retain(|(_, len)| *len > 0);
        let mut end = 0;
        let mut total = 0u64;
        for (offset, len) in &segments {
            let next = offset.checked_add(*len).filter(|n| *n <= size);
            let (Some(next), true) = (next, *offset >= end) else {
                return Err(self.malformed(entry.name(), "its map of holes is broken"));
            };
            end = next;
            total += len; // cannot overflow: segments do not overlap and end within `size`
        }
        if total > entry.len || segments.len() > SEGMENT_CAP {
            return Err(self.malformed(entry.name(), "its map of holes is broken"));
        }
        Ok(EntryKind::Sparse { size, segments })
    }

    /// Where the next header is.
    fn end_of_data(&self, entry: &Entry) -> Result<u64, TarError> {
        let end = entry.offset.checked_add(entry.len);
        match end.filter(|end| *end <= self.len) {
            // The padding of the last entry may be missing, as may the end marker.
            Some(end) => Ok(end.next_multiple_of(BLOCK)),
            None => Err(TarError::Truncated {
                archive: self.path.clone(),
                what: format!(
                    "{}: {} bytes are said, {} are there",
                    entry.name(),
                    entry.len,
                    self.len.saturating_sub(entry.offset)
                ),
            }),
        }
    }

    fn read_extension(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let at = self.at;
        let len = header
            .number(124, 12)
            .and_then(|n| u64::try_from(n).ok())
            .filter(|len| *len <= EXTENSION_CAP)
            .ok_or_else(|| {
                self.malformed(
                    format!("header at byte {at}"),
                    "an extension header is too long",
                )
            })?;
        let bytes = self.read_at(at, len, || format!("the extension header at byte {at}"))?;
        self.at = (at + len).next_multiple_of(BLOCK);
        Ok(bytes)
    }

    fn read_long_name(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let mut name = self.read_extension(header)?;
        if let Some(end) = name.iter().position(|b| *b == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    fn merge_records(
        &self,
        header: &Header,
        records: &mut pax::Records,
        bytes: &[u8],
    ) -> Result<(), TarError> {
        records.merge(bytes).ok_or_else(|| {
            let name = String::from_utf8_lossy(&header.path()).into_owned();
            self.malformed(name, "its PAX records are broken")
        })
    }

    fn read_block(
        &self,
        at: u64,
        what: impl FnOnce() -> String,
    ) -> Result<[u8; BLOCK as usize], TarError> {
        let mut block = [0; BLOCK as usize];
        if at + BLOCK > self.len {
            return Err(TarError::Truncated {
                archive: self.path.clone(),
                what: what(),
            });
        }
        self.file
            .read_exact_at(&mut block, at)
            .map_err(FileError::of("read", &self.path))?;
        Ok(block)
    }

    fn read_at(
        &self,
        at: u64,
        len: u64,
        what: impl FnOnce() -> String,
    ) -> Result<Vec<u8>, TarError> {
        if at.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(TarError::Truncated {
                archive: self.path.clone(),
                what: what(),
            });
        }
        let mut bytes = vec![0; usize::try_from(len).expect("capped by the caller")];
        self.file
            .read_exact_at(&mut bytes, at)
            .map_err(FileError::of("read", &self.path))?;
        Ok(bytes)
    }

    /// The file behind the archive, for reading an entry's data.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// An error about an entry of this archive.
    pub fn malformed(&self, entry: String, reason: impl Into<String>) -> TarError {
        TarError::Malformed {
            archive: self.path.clone(),
            entry,
            reason: reason.into(),
        }
    }
}

/// A header block.
struct Header([u8; BLOCK as usize]);

impl Header {
    fn kind(&self) -> u8 {
        self.0[156]
    }

    fn text(&self, at: usize, len: usize) -> &[u8] {
        let field = &self.0[at..at + len];
        &field[..field.iter().position(|b| *b == 0).unwrap_or(len)]
    }

    fn number(&self, at: usize, len: usize) -> Option<i128> {
        parse_number(&self.0[at..at + len])
    }

    /// The name, with ustar's prefix; GNU's header has other things in the prefix's place.
    fn path(&self) -> Vec<u8> {
        let name = self.text(0, 100);
        let prefix = self.text(345, 155);
        if &self.0[257..263] != b"ustar\0" || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    fn segments(&self, at: usize, count: usize) -> Option<Vec<(u64, u64)>> {
        let mut segments = Vec::new();
        for index in 0..count {
            let at = at + 24 * index;
            if self.0[at] == 0 && self.0[at + 12] == 0 {
                break;
            }
            let offset = u64::try_from(self.number(at, 12)?).ok()?;
            let len = u64::try_from(self.number(at + 12, 12)?).ok()?;
            segments.push((offset, len));
        }
        Some(segments)
    }

    /// The sum of all bytes with the sum's own field as spaces; historic archives sum signed bytes.
    fn checksum_is_right(&self) -> bool {
        let bytes = |index: usize| {
            if (148..156).contains(&index) {
                b' '
            } else {
                self.0[index]
            }
        };
        let unsigned: i128 = (0..512).map(|i| i128::from(bytes(i))).sum();
        let signed: i128 = (0..512).map(|i| i128::from(bytes(i) as i8)).sum();
        self.number(148, 8)
            .is_some_and(|sum| sum == unsigned || sum == signed)
    }
}

/// Octal digits among spaces and NULs, or GNU's base 256 where the first byte's top bit is set.
fn parse_number(field: &[u8]) -> Option<i128> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let first = i128::from(field[0] & 0x7f) | if negative { !0x7f } else { 0 };
        return field[1..].iter().try_fold(first, |value, byte| {
            value.checked_mul(256).map(|v| v | i128::from(*byte))
        });
    }
    let digits = field
        .split(|b| matches!(b, 0 | b' '))
        .find(|part| !part.is_empty())
        .unwrap_or(b"");
    digits.iter().try_fold(0i128, |value, digit| {
        matches!(digit, b'0'..=b'7').then(|| value * 8 + i128::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        let big = [0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
        for (field, want) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"0000648\0", None),
            (b"-1\0\0\0\0\0\0", None),
            (&big, Some(0xffff_ffff)),
            (&[0xff; 12], Some(-1)),
        ] {
            assert_eq!(parse_number(field), want, "{field:?}");
        }
    }
}
