//! Reads `.deb` files (deb(5)): an `ar` archive of `debian-binary`, `control.tar.*` and `data.tar.*`.
//!
//! The two tars go decompressed into the cache, once for each package digest. Refused: another format version,
//! missing or repeated members, members that reach beyond the file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::progress::Step;
use crate::source::blob::{Compression, Section, decompress};
use crate::source::cache::{Cache, CacheError, CacheKind};
use crate::source::error::FileError;

const AR_MAGIC: &[u8] = b"!<arch>\n";
const HEADER_LEN: u64 = 60;

/// Why a package file was refused.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// It is no .deb as deb(5) says.
    #[error("{}: not a Debian package: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The two archives of a package, decompressed, in the cache.
#[derive(Debug, Clone)]
pub(super) struct Deb {
    /// `control.tar`.
    pub(super) control: PathBuf,
    /// `data.tar`.
    pub(super) data: PathBuf,
}

/// Opens a package in the cache by its digest; `deb` is its file.
///
/// # Errors
/// [`DebError`].
pub(super) fn open(deb: &Path, sha256: &str, cache: &Cache, step: &Step) -> Result<Deb, DebError> {
    let found = (
        cache.get(CacheKind::PackageControl, sha256),
        cache.get(CacheKind::PackageData, sha256),
    );
    if let (Some(control), Some(data)) = found {
        return Ok(Deb { control, data });
    }
    let file = File::open(deb).map_err(FileError::of("open", deb))?;
    let members = read_members(&file, deb)?;
    let unpack = |kind, prefix| {
        let member = find_member(&members, prefix, deb)?;
        cache.put(kind, sha256, |output| {
            let input = Section {
                file: &file,
                at: member.offset,
                left: member.len,
            };
            decompress(
                input,
                member.compression(deb)?,
                output,
                cache.budget(),
                step,
            )
            .map(|_| ())
            .map_err(FileError::of("decompress", deb))
            .map_err(DebError::from)
        })
    };
    Ok(Deb {
        control: unpack(CacheKind::PackageControl, "control.tar")?,
        data: unpack(CacheKind::PackageData, "data.tar")?,
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Member {
    name: String,
    offset: u64,
    len: u64,
}

impl Member {
    fn compression(&self, path: &Path) -> Result<Compression, DebError> {
        let suffix = self
            .name
            .split_once(".tar")
            .map_or("", |(_, suffix)| suffix);
        match suffix {
            "" => Ok(Compression::None),
            ".gz" => Ok(Compression::Gzip),
            ".xz" => Ok(Compression::Xz),
            ".zst" => Ok(Compression::Zstd),
            _ => Err(malformed(
                path,
                format!("{} is compressed in an unknown way", self.name),
            )),
        }
    }
}

fn find_member<'a>(
    members: &'a [Member],
    prefix: &str,
    path: &Path,
) -> Result<&'a Member, DebError> {
    let mut found = members.iter().filter(|m| {
        let rest = m.name.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    });
    match (found.next(), found.next()) {
        (Some(member), None) => Ok(member),
        (None, _) => Err(malformed(path, format!("it has no {prefix}"))),
        (Some(_), Some(_)) => Err(malformed(path, format!("it has {prefix} twice"))),
    }
}

fn read_members(file: &File, path: &Path) -> Result<Vec<Member>, DebError> {
    let read = |at, len: usize| -> Result<Vec<u8>, DebError> {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, at)
            .map_err(FileError::of("read", path))?;
        Ok(bytes)
    };
    let size = file.metadata().map_err(FileError::of("read", path))?.len();
    if size < 8 || read(0, 8)? != AR_MAGIC {
        return Err(malformed(path, "it does not begin like one"));
    }
    let mut members = Vec::new();
    let mut at = AR_MAGIC.len() as u64;
    while at + HEADER_LEN <= size {
        let header = read(at, HEADER_LEN as usize)?;
        let text = |range| std::str::from_utf8(&header[range]).map(str::trim_end).ok();
        let fields = text(0..16)
            .zip(text(48..58))
            .filter(|_| &header[58..] == b"`\n");
        let member = fields.and_then(|(name, len)| {
            Some(Member {
                name: name.trim_end_matches('/').to_owned(),
                offset: at + HEADER_LEN,
                len: len.parse().ok()?,
            })
        });
        let member = member.ok_or_else(|| malformed(path, format!("broken at byte {at}")))?;
        let end = member.offset + member.len; // ten decimal digits cannot overflow
        if end > size {
            return Err(malformed(path, format!("truncated in {}", member.name)));
        }
        at = end.next_multiple_of(2);
        members.push(member);
    }
    let version = members
        .first()
        .filter(|m| m.name == "debian-binary" && m.len <= 64);
    let version = version.ok_or_else(|| malformed(path, "it has no debian-binary"))?;
    if !read(version.offset, version.len as usize)?.starts_with(b"2.") {
        return Err(malformed(path, "its format version is not 2"));
    }
    Ok(members)
}

fn malformed(path: &Path, reason: impl Into<String>) -> DebError {
    DebError::Malformed {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn member(name: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = format!(
            "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
            0,
            0,
            0,
            644,
            data.len()
        );
        if data.len() % 2 == 1 {
            bytes.push_str(std::str::from_utf8(data).unwrap());
            bytes.push('\n');
            return bytes.into_bytes();
        }
        [bytes.as_bytes(), data].concat()
    }

    fn members(bytes: &[u8]) -> Result<Vec<Member>, DebError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        read_members(&file, Path::new("x.deb"))
    }

    #[test]
    fn members_are_found() {
        let bytes = [
            &b"!<arch>\n"[..],
            &member("debian-binary", b"2.0\n"),
            &member("control.tar/", b"odd"),
            &member("data.tar.xz", b"even"),
        ]
        .concat();
        let found = members(&bytes).unwrap();
        assert_eq!(
            found[1],
            Member {
                name: "control.tar".into(),
                offset: 8 + 64 + 60,
                len: 3
            }
        );
        assert_eq!(
            find_member(&found, "data.tar", Path::new("")).unwrap().len,
            4
        );
        for cut in 0..bytes.len() {
            let _ = members(&bytes[..cut]);
        }
        assert!(
            members(&bytes[..bytes.len() - 1])
                .unwrap_err()
                .to_string()
                .contains("truncated")
        );
    }

    #[test]
    fn what_is_no_package_is_refused() {
        let magic = b"!<arch>\n".to_vec();
        for (bytes, want) in [
            (b"PK".to_vec(), "begin"),
            (magic.clone(), "debian-binary"),
            (
                [&magic[..], &member("debian-binary", b"3.0\n")].concat(),
                "version",
            ),
            ([&magic[..], &[b'x'; 60]].concat(), "broken"),
        ] {
            let error = members(&bytes).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
        let two = [
            Member {
                name: "data.tar".into(),
                offset: 0,
                len: 0,
            },
            Member {
                name: "data.tar.gz".into(),
                offset: 0,
                len: 0,
            },
        ];
        assert!(find_member(&two, "data.tar", Path::new("")).is_err());
        assert!(two[0].compression(Path::new("")).is_ok());
    }
}
