//! The files of an image, in a directory or inside a tar: one way to name, measure and read them.
//!
//! A tar is read in place by seeking; nothing of it is unpacked. Names are relative paths of plain components.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::blob::Section;
use super::cache::{Cache, CacheKind};
use super::error::FileError;
use super::tar::{Archive, EntryKind, TarError};

const LINK_LIMIT: usize = 8;

/// Why a file of an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The tar is broken.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not there.
    #[error("{}: it has no {name}", origin.display())]
    Missing {
        /// The directory or archive.
        origin: PathBuf,
        /// The file.
        name: String,
    },
    /// A file is longer than such a file may be.
    #[error("{}: {name} is longer than {cap} bytes", origin.display())]
    TooLong {
        /// The directory or archive.
        origin: PathBuf,
        /// The file.
        name: String,
        /// The most that is read.
        cap: u64,
    },
    /// A name climbs.
    #[error("{}: {name:?} leads out of it", origin.display())]
    Escape {
        /// The directory or archive.
        origin: PathBuf,
        /// The name.
        name: String,
    },
}

/// A directory, a tar or the cache, with an image's files.
#[derive(Debug)]
pub struct Store {
    origin: PathBuf,
    /// Of a tar: the open file, and for each name the place or the name that it links to.
    archive: Option<(File, BTreeMap<String, Place>)>,
    /// Where blobs are found by their digests instead.
    cache: Option<Cache>,
}

#[derive(Debug)]
enum Place {
    Range(u64, u64),
    Link(String),
}

impl Store {
    /// A directory.
    pub fn directory(path: &Path) -> Self {
        Self {
            origin: path.to_owned(),
            archive: None,
            cache: None,
        }
    }

    /// The blobs of an image that were downloaded; `origin` is its name in messages.
    pub fn cached(origin: PathBuf, cache: Cache) -> Self {
        Self {
            origin,
            archive: None,
            cache: Some(cache),
        }
    }

    /// A plain tar.
    ///
    /// # Errors
    /// [`StoreError`], if it is no tar or broken.
    pub fn archive(path: &Path) -> Result<Self, StoreError> {
        Self::archive_copy(path, path)
    }

    /// A plain tar that is read from a copy of it; `path` is its name in messages.
    ///
    /// # Errors
    /// [`StoreError`], if it is no tar or broken.
    pub fn archive_copy(path: &Path, copy: &Path) -> Result<Self, StoreError> {
        let mut reader = Archive::open(copy)?;
        let mut places = BTreeMap::new();
        while let Some(entry) = reader.next_entry()? {
            let name = entry.name();
            let place = match &entry.kind {
                EntryKind::File => Place::Range(entry.offset, entry.len),
                EntryKind::HardLink(target) => {
                    Place::Link(String::from_utf8_lossy(target).into_owned())
                }
                // `docker save` links a layer that it has written before: ../ID/layer.tar
                EntryKind::Symlink(target) => {
                    let target = String::from_utf8_lossy(target).into_owned();
                    let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                    Place::Link(format!("{parent}/{target}"))
                }
                _ => continue,
            };
            if let Some(name) = plain_name(&name) {
                places.insert(name, place);
            }
        }
        let file = File::open(copy).map_err(FileError::of("open", copy))?;
        Ok(Self {
            origin: path.to_owned(),
            archive: Some((file, places)),
            cache: None,
        })
    }

    /// The directory or archive.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// Whether there is such a file.
    pub fn has(&self, name: &str) -> bool {
        self.size(name).is_ok()
    }

    /// A file's size in bytes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn size(&self, name: &str) -> Result<u64, StoreError> {
        match &self.archive {
            Some(_) => Ok(self.range(name)?.1),
            None => {
                let path = self.path(name)?;
                match fs::metadata(&path) {
                    Ok(metadata) if metadata.is_file() => Ok(metadata.len()),
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        Err(FileError::of("read", &path)(e).into())
                    }
                    _ => Err(self.missing(name)),
                }
            }
        }
    }

    /// A reader of a file.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(&self, name: &str) -> Result<Box<dyn Read + '_>, StoreError> {
        match &self.archive {
            Some((file, _)) => {
                let (at, left) = self.range(name)?;
                Ok(Box::new(Section { file, at, left }))
            }
            None => {
                self.size(name)?;
                let path = self.path(name)?;
                let file = File::open(&path).map_err(FileError::of("open", &path))?;
                Ok(Box::new(file))
            }
        }
    }

    /// A whole file, `cap` bytes at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn read(&self, name: &str, cap: u64) -> Result<Vec<u8>, StoreError> {
        if self.size(name)? > cap {
            return Err(StoreError::TooLong {
                origin: self.origin.clone(),
                name: name.to_owned(),
                cap,
            });
        }
        let mut bytes = Vec::new();
        self.open(name)?
            .take(cap)
            .read_to_end(&mut bytes)
            .map_err(FileError::of("read", &self.origin))?;
        Ok(bytes)
    }

    fn path(&self, name: &str) -> Result<PathBuf, StoreError> {
        if let Some(cache) = &self.cache {
            let hex = name.strip_prefix("blobs/sha256/").unwrap_or_default();
            let plain = !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit());
            let found = plain.then(|| cache.get(CacheKind::Blob, hex)).flatten();
            return found.ok_or_else(|| self.missing(name));
        }
        match plain_name(name) {
            Some(name) => Ok(self.origin.join(name)),
            None => Err(StoreError::Escape {
                origin: self.origin.clone(),
                name: name.to_owned(),
            }),
        }
    }

    fn range(&self, name: &str) -> Result<(u64, u64), StoreError> {
        let (_, places) = self.archive.as_ref().ok_or_else(|| self.missing(name))?;
        let mut at = name.to_owned();
        for _ in 0..LINK_LIMIT {
            let Some(plain) = plain_name(&at) else {
                return Err(StoreError::Escape {
                    origin: self.origin.clone(),
                    name: at,
                });
            };
            match places.get(&plain) {
                Some(Place::Range(offset, len)) => return Ok((*offset, *len)),
                Some(Place::Link(target)) => at.clone_from(target),
                None => break,
            }
        }
        Err(self.missing(name))
    }

    fn missing(&self, name: &str) -> StoreError {
        StoreError::Missing {
            origin: self.origin.clone(),
            name: name.to_owned(),
        }
    }
}

/// The name without `.` and `..`; `None` if it climbs out.
fn plain_name(name: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        for (name, want) in [
            ("./a/b", Some("a/b")),
            ("a/../b", Some("b")),
            ("a/../../b", None),
            ("/etc", Some("etc")),
            ("..", None),
        ] {
            assert_eq!(plain_name(name).as_deref(), want, "{name}");
        }
        let directory = tempfile::tempdir().unwrap();
        let store = Store::directory(directory.path());
        assert!(matches!(store.open("../x"), Err(StoreError::Escape { .. })));
        assert!(matches!(store.size("x"), Err(StoreError::Missing { .. })));
    }
}
