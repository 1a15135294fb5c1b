//! A blob on its way into the cache.
//!
//! It is written to `download/HEX` in the cache, which stays when a build is killed: the next one goes on where that
//! one ended, if the registry knows ranges. The file is locked, so of two builds one downloads and the other waits,
//! then finds the blob. It becomes an entry when size and SHA-256 are the promised ones, never before.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::super::cache::{Cache, CacheKind};
use super::super::error::FileError;
use super::client::{Ask, Repository};
use super::error::RegistryError;
use super::timing::Backoff;
use super::web::Answer;
use crate::identity::hex;
use crate::progress::Step;

const FOLDER: &str = "download";
/// A part that nobody went on with for so long is removed.
const STALE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// What is to be downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// SHA-256, hex.
    pub(super) hex: String,
    /// Bytes.
    pub(super) size: u64,
}

impl Wanted {
    fn digest(&self) -> String {
        format!("sha256:{}", self.hex)
    }
}

/// The blob's place in the cache; it is downloaded if it is not there.
///
/// # Errors
/// [`RegistryError`].
pub(super) fn fetch(
    repository: &Repository<'_>,
    wanted: &Wanted,
    cache: &Cache,
    step: &Step,
) -> Result<PathBuf, RegistryError> {
    if let Some(path) = cache.get(CacheKind::Blob, &wanted.hex) {
        step.advance(wanted.size);
        return Ok(path);
    }
    let Some(mut part) = Part::open(wanted, cache, repository)? else {
        // Another build had it meanwhile.
        step.advance(wanted.size);
        return cached(wanted, cache);
    };
    step.advance(part.len);
    let downloaded = repository.insist(|backoff| part.download(repository, step, backoff));
    if let Err(RegistryError::WrongDigest { .. } | RegistryError::TooLong { .. }) = &downloaded {
        let _ = fs::remove_file(&part.path);
    }
    downloaded?;
    Ok(cache.adopt(CacheKind::Blob, &wanted.hex, &part.path)?)
}

fn cached(wanted: &Wanted, cache: &Cache) -> Result<PathBuf, RegistryError> {
    cache
        .get(CacheKind::Blob, &wanted.hex)
        .ok_or_else(|| RegistryError::Offline {
            what: wanted.digest(),
        })
}

/// Removes parts that were given up.
pub(super) fn remove_stale(cache: &Cache) {
    let Ok(entries) = fs::read_dir(cache.root().join(FOLDER)) else {
        return;
    };
    for entry in entries.flatten() {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let old = modified.is_ok_and(|at| {
            SystemTime::now()
                .duration_since(at)
                .is_ok_and(|age| age > STALE)
        });
        let unused = || File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
        if old && unused() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The part of a blob that is there, locked.
struct Part<'a> {
    wanted: &'a Wanted,
    path: PathBuf,
    file: File,
    /// Bytes that are there.
    len: u64,
    hash: Sha256,
    /// Bytes that an earlier build left.
    inherited: bool,
}

impl<'a> Part<'a> {
    /// Waits for the lock; `None` if the blob is in the cache by then.
    fn open(
        wanted: &'a Wanted,
        cache: &Cache,
        repository: &Repository<'_>,
    ) -> Result<Option<Self>, RegistryError> {
        let path = cache.directory(FOLDER)?.join(&wanted.hex);
        let failed = |error| FileError::of("write", &path)(error);
        loop {
            let wait = || repository.note_waiting(&wanted.hex);
            let file = open_locked(&path, wait).map_err(failed)?;
            if cache.get(CacheKind::Blob, &wanted.hex).is_some() {
                if is_same(&file, &path) {
                    let _ = fs::remove_file(&path);
                }
                return Ok(None);
            }
            // Whoever held the lock before may have moved the file away or removed it.
            if !is_same(&file, &path) {
                continue;
            }
            let mut part = Self {
                wanted,
                path: path.clone(),
                file,
                len: 0,
                hash: Sha256::new(),
                inherited: false,
            };
            part.inherit().map_err(failed)?;
            return Ok(Some(part));
        }
    }

    /// Hashes what is there.
    fn inherit(&mut self) -> std::io::Result<()> {
        let there = self.file.metadata()?.len();
        if there > self.wanted.size {
            return self.begin_anew();
        }
        self.file.rewind()?;
        self.len = std::io::copy(&mut self.file, &mut self.hash)?;
        self.inherited = self.len > 0;
        Ok(())
    }

    fn begin_anew(&mut self) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.len = 0;
        self.hash = Sha256::new();
        self.inherited = false;
        Ok(())
    }

    /// One try: what is missing, then the judgement.
    fn download(
        &mut self,
        repository: &Repository<'_>,
        step: &Step,
        backoff: &mut Backoff,
    ) -> Result<(), RegistryError> {
        let before = self.len;
        if self.len < self.wanted.size || self.wanted.size == 0 {
            let digest = self.wanted.digest();
            let answer = repository.ask(Ask {
                path: &format!("blobs/{digest}"),
                accept: "*/*",
                from: self.len,
            })?;
            let received = self.receive(answer, step);
            backoff.gained(self.len.saturating_sub(before));
            received?;
        }
        let found = hex(&self.hash.clone().finalize());
        if found == self.wanted.hex {
            return Ok(());
        }
        let inherited = self.inherited;
        self.begin_anew()
            .map_err(FileError::of("write", &self.path))?;
        if inherited {
            // The part of another day may be what is wrong.
            return self.download(repository, step, backoff);
        }
        Err(RegistryError::WrongDigest {
            host: repository.host().to_owned(),
            what: self.wanted.digest(),
            found: format!("sha256:{found}"),
        })
    }

    fn receive(&mut self, answer: Answer, step: &Step) -> Result<(), RegistryError> {
        let host = answer.host.clone();
        let what = self.wanted.digest();
        if self.len > 0 && !self.goes_on(&answer) {
            self.begin_anew()
                .map_err(FileError::of("write", &self.path))?;
            if answer.status == 206 {
                return Err(RegistryError::Connection {
                    host,
                    reason: "it sent another part than was asked for".to_owned(),
                });
            }
        }
        let too_long = RegistryError::TooLong {
            host: host.clone(),
            what: what.clone(),
            cap: self.wanted.size,
        };
        let mut body = answer.body();
        let mut buffer = vec![0; 1 << 16];
        self.file
            .seek(SeekFrom::Start(self.len))
            .map_err(FileError::of("write", &self.path))?;
        loop {
            let len = body.next(&mut buffer)?;
            if len == 0 {
                break;
            }
            if self.len + len as u64 > self.wanted.size {
                return Err(too_long);
            }
            self.file
                .write_all(&buffer[..len])
                .map_err(FileError::of("write", &self.path))?;
            self.hash.update(&buffer[..len]);
            self.len += len as u64;
            step.advance(len as u64);
        }
        if self.len < self.wanted.size {
            return Err(RegistryError::Truncated {
                host,
                what,
                found: self.len,
                expected: self.wanted.size,
            });
        }
        Ok(())
    }

    /// Whether the answer begins where the part ends (RFC 9110, section 14.4).
    fn goes_on(&self, answer: &Answer) -> bool {
        let range = answer.header("Content-Range").unwrap_or_default();
        answer.status == 206 && range.starts_with(&format!("bytes {}-", self.len))
    }
}

/// Opens and locks; `wait` is called if another build holds the lock. Without locks, as on some network file systems,
/// two builds may disturb each other: then a digest is wrong, and one of them begins anew.
fn open_locked(path: &Path, wait: impl FnOnce()) -> std::io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    let locked = match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::Error(error)) => Err(error),
        Err(TryLockError::WouldBlock) => {
            wait();
            file.lock()
        }
    };
    match locked {
        Err(error) if error.kind() != std::io::ErrorKind::Unsupported => Err(error),
        _ => Ok(file),
    }
}

/// Whether the open file is the one at the path.
fn is_same(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}
