//! The content-addressed cache: what was fetched, checked or decompressed once and need not be again.
//!
//! An entry is a file `KIND/KEY`, complete from the moment it has its name: it is written beside, flushed and
//! renamed, so two builds may share a cache and an interrupted one leaves nothing that another would trust. Keys are
//! digests of what the entry came from. It never removes entries, and it refuses keys that are no plain names.
//!
//! An entry is not hashed each time it is used. Its modification time is its seal instead: it is set to a value that
//! follows from its length, and whatever writes, cuts or copies the file moves it. An entry with a broken seal is
//! made anew, or hashed once where the key is its own digest.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::blob::digest;
use super::budget::{self, Budget};
use super::error::FileError;

/// A temporary file that nobody has locked belongs to a build that was killed. Where it cannot be known that no other
/// build is about to lock it, it has to be older than this as well.
const STALE: Duration = Duration::from_secs(10 * 60);
/// The same where the file system knows no locks.
const STALE_WITHOUT_LOCKS: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Why the cache could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A file operation failed.
    #[error("the cache cannot be used")]
    File(#[from] FileError),
    /// The environment sets no valid limit.
    #[error("{0}")]
    Limit(String),
    /// There is no place for it.
    #[error("no place for the cache: set CORACLE_CACHE, XDG_CACHE_HOME or HOME")]
    NoPlace,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheKind {
    /// A file as it was fetched, by its own SHA-256.
    Blob,
    /// A decompressed layer (tar), by its diff id.
    Layer,
    /// A decompressed App Container image (tar), by the SHA-256 of its file.
    AppImage,
    /// The decompressed `data.tar` of a Debian package, by the package's SHA-256.
    PackageData,
    /// The decompressed `control.tar` of a Debian package, by the package's SHA-256.
    PackageControl,
    /// A sparse file of a layer, expanded; by layer and place.
    Sparse,
    /// What was read of a kernel package's modules, by the package's SHA-256.
    Modinfo,
    /// The manifest of an image's signatures in a registry, by the image.
    Signatures,
}

impl CacheKind {
    fn directory(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Layer => "layer",
            Self::AppImage => "aci",
            Self::PackageData => "deb-data",
            Self::PackageControl => "deb-control",
            Self::Sparse => "sparse",
            Self::Modinfo => "modinfo",
            Self::Signatures => "signatures",
        }
    }

    /// Whether the key is the SHA-256 of the entry itself.
    fn key_is_digest(self) -> bool {
        matches!(self, Self::Blob | Self::Layer)
    }
}

/// The modification time of an intact entry. (No file system has trouble with the years 2001 to 2033.)
fn seal_of(len: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + len % 1_000_000_000)
}

/// Sets the seal. Where that fails the entry is made anew next time, nothing worse.
fn seal(file: &File) {
    let _ = file
        .metadata()
        .and_then(|metadata| file.set_modified(seal_of(metadata.len())));
}

/// A directory for work, removed on drop. It is locked, so that no other build takes it for a killed one's.
#[derive(Debug)]
pub struct Scratch {
    directory: tempfile::TempDir,
    _lock: File,
}

impl Scratch {
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// An open cache.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    all_there_is: bool,
    budget: Arc<Budget>,
}

impl Cache {
    /// Opens the cache at `directory`, else `$CORACLE_CACHE`, else `$XDG_CACHE_HOME/coracle`, else
    /// `~/.cache/coracle`; makes it if it is missing.
    ///
    /// # Errors
    /// [`CacheError`], if there is no place for it or it cannot be written.
    pub fn open(directory: Option<&Path>) -> Result<Self, CacheError> {
        let root = match directory {
            Some(directory) => directory.to_owned(),
            None => default_place(|name| std::env::var_os(name).map(PathBuf::from))
                .ok_or(CacheError::NoPlace)?,
        };
        // Entries hold absolute paths in the trees made from them.
        let root = std::path::absolute(&root).map_err(FileError::of("find", &root))?;
        let limit = std::env::var(budget::VARIABLE).ok();
        let budget = Budget::parse(limit.as_deref()).map_err(CacheError::Limit)?;
        let cache = Self {
            root,
            all_there_is: false,
            budget: Arc::new(budget),
        };
        cache.directory("tmp")?;
        cache.remove_stale();
        Ok(cache)
    }

    /// The same cache, but what is not in it is not fetched.
    #[must_use]
    pub fn without_network(self) -> Self {
        Self {
            all_there_is: true,
            ..self
        }
    }

    /// Whether nothing is fetched that is not in it.
    pub fn is_all_there_is(&self) -> bool {
        self.all_there_is
    }

    /// Where the cache is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What may still be unpacked into it.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The entry's path, if there is one that nobody has touched.
    pub fn get(&self, kind: CacheKind, key: &str) -> Option<PathBuf> {
        let path = self.place(kind, key);
        let metadata = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
        if metadata.modified().ok()? == seal_of(metadata.len()) {
            return Some(path);
        }
        let file = File::open(&path).ok()?;
        let intact = kind.key_is_digest() && digest(&file).is_ok_and(|(sha256, _)| sha256 == key);
        intact.then(|| {
            seal(&file);
            path
        })
    }

    /// Makes an entry: `fill` writes it. If `fill` fails nothing is left.
    ///
    /// # Errors
    /// What `fill` says, or that the file cannot be written.
    pub fn put<E: From<CacheError>>(
        &self,
        kind: CacheKind,
        key: &str,
        fill: impl FnOnce(&mut File) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let path = self.place(kind, key);
        let temporary = self.directory("tmp")?;
        self.directory(kind.directory())?;
        let gate = self.gate();
        let mut file = tempfile::Builder::new()
            .prefix("entry-")
            .tempfile_in(&temporary)
            .map_err(FileError::of("write in", &temporary))
            .map_err(CacheError::from)?;
        let _ = file.as_file().lock();
        drop(gate);
        fill(file.as_file_mut())?;
        self.seal(file, &path)?;
        Ok(path)
    }

    /// Moves a file into place as an entry; its data is on the disk before its name is.
    fn seal(&self, file: tempfile::NamedTempFile, path: &Path) -> Result<(), CacheError> {
        file.as_file()
            .sync_data()
            .map_err(FileError::of("write", path))?;
        let file = file
            .persist(path)
            .map_err(|e| FileError::of("write", path)(e.error))?;
        seal(&file);
        Ok(())
    }

    /// Takes a file over as the entry, by renaming; both are in the cache's directory.
    ///
    /// # Errors
    /// [`CacheError`], if it cannot be moved.
    pub fn adopt(&self, kind: CacheKind, key: &str, file: &Path) -> Result<PathBuf, CacheError> {
        let path = self.place(kind, key);
        self.directory(kind.directory())?;
        let moved = || {
            let open = File::open(file)?;
            open.sync_data()?;
            fs::rename(file, &path)?;
            seal(&open);
            Ok(())
        };
        moved().map_err(FileError::of("write", &path))?;
        Ok(path)
    }

    /// A directory of the cache, made if it is missing.
    ///
    /// # Errors
    /// [`CacheError`], if it cannot be made.
    pub fn directory(&self, name: &str) -> Result<PathBuf, CacheError> {
        let path = self.root.join(name);
        fs::create_dir_all(&path).map_err(FileError::of("make the directory", &path))?;
        Ok(path)
    }

    /// A directory for work, removed on drop.
    ///
    /// # Errors
    /// [`CacheError`], if it cannot be made.
    pub fn scratch(&self) -> Result<Scratch, CacheError> {
        let parent = self.directory("tmp")?;
        let _gate = self.gate();
        let directory = tempfile::Builder::new()
            .prefix("work-")
            .tempdir_in(&parent)
            .map_err(FileError::of("write in", &parent))?;
        let lock = File::open(directory.path()).map_err(FileError::of("open", directory.path()))?;
        let _ = lock.lock();
        Ok(Scratch {
            directory,
            _lock: lock,
        })
    }

    /// Waits until no other build holds the lock `name`, then holds it until the value is dropped.
    ///
    /// # Errors
    /// [`CacheError`], if the lock's file cannot be made.
    pub fn lock(&self, name: &str) -> Result<File, CacheError> {
        let path = self.directory("lock")?.join(name);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .and_then(|file| file.lock().map(|()| file))
            .map_err(FileError::of("lock", &path))?;
        Ok(file)
    }

    fn place(&self, kind: CacheKind, key: &str) -> PathBuf {
        assert!(
            !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
            "cache keys are digests"
        );
        self.root.join(kind.directory()).join(key)
    }

    /// Held while a temporary file is made and not locked yet.
    fn gate(&self) -> Option<File> {
        let gate = self.open_gate().ok()?;
        gate.lock_shared().ok()?;
        Some(gate)
    }

    fn open_gate(&self) -> std::io::Result<File> {
        let folder = self.root.join("lock");
        fs::create_dir_all(&folder)?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        options.open(folder.join("tmp"))
    }

    /// Removes what killed builds left; a failure only means that it is left for the next time.
    fn remove_stale(&self) {
        let Ok(entries) = fs::read_dir(self.root.join("tmp")) else {
            return;
        };
        let gate = self.open_gate().ok().filter(|gate| gate.try_lock().is_ok());
        for entry in entries.flatten() {
            if is_stale(&entry, gate.is_some()) {
                let path = entry.path();
                let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
            }
        }
    }
}

/// Whether a temporary file is of a build that is no more; `settled`: no build is about to lock one.
fn is_stale(entry: &fs::DirEntry, settled: bool) -> bool {
    let modified = entry.metadata().and_then(|metadata| metadata.modified());
    let age = modified.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
    let older_than = |limit: Duration| age.as_ref().is_ok_and(|age| *age > limit);
    (settled || older_than(STALE))
        && match File::open(entry.path()).map(|file| file.try_lock()) {
            Ok(Ok(())) => true,
            Ok(Err(TryLockError::WouldBlock)) => false,
            Ok(Err(TryLockError::Error(_))) | Err(_) => older_than(STALE_WITHOUT_LOCKS),
        }
}

fn default_place(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).filter(|p| p.is_absolute());
    variable("CORACLE_CACHE")
        .filter(|p| !p.as_os_str().is_empty())
        .or_else(|| absolute("XDG_CACHE_HOME").map(|p| p.join("coracle")))
        .or_else(|| absolute("HOME").map(|p| p.join(".cache/coracle")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn place_follows_the_environment_in_order() {
        let all = [
            ("CORACLE_CACHE", "/c"),
            ("XDG_CACHE_HOME", "/x"),
            ("HOME", "/h"),
        ];
        for (from, want) in [(0, "/c"), (1, "/x/coracle"), (2, "/h/.cache/coracle")] {
            let place = default_place(|name| {
                all[from..]
                    .iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, v)| v.into())
            });
            assert_eq!(place, Some(PathBuf::from(want)));
        }
        assert_eq!(default_place(|_| None), None);
    }

    #[test]
    fn failed_entry_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(directory.path())).unwrap();
        let result = cache.put(CacheKind::Layer, "ab", |file| {
            file.write_all(b"half").unwrap();
            Err(CacheError::NoPlace)
        });
        assert!(result.is_err());
        assert_eq!(cache.get(CacheKind::Layer, "ab"), None);
        assert_eq!(
            fs::read_dir(directory.path().join("tmp")).unwrap().count(),
            0
        );
    }

    fn put(cache: &Cache, kind: CacheKind, key: &str, bytes: &[u8]) -> PathBuf {
        let fill = |file: &mut File| {
            file.write_all(bytes).unwrap();
            Ok::<_, CacheError>(())
        };
        cache.put(kind, key, fill).unwrap()
    }

    #[test]
    fn what_a_killed_build_left_is_removed_and_what_a_living_one_uses_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(directory.path())).unwrap();
        let used = cache.scratch().unwrap();
        let left = directory.path().join("tmp/work-left");
        let young = directory.path().join("tmp/work-young");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("disk.img"), "x").unwrap();
        fs::create_dir(&young).unwrap();
        let long_ago = SystemTime::now() - 2 * STALE;
        for path in [used.path(), &left] {
            File::open(path).unwrap().set_modified(long_ago).unwrap();
        }
        let about_to_lock = cache.gate();
        Cache::open(Some(directory.path())).unwrap();
        assert!(used.path().exists() && young.exists() && !left.exists());
        drop(about_to_lock);
        Cache::open(Some(directory.path())).unwrap();
        assert!(used.path().exists() && !young.exists());
        let path = used.path().to_owned();
        drop(used);
        assert!(!path.exists());
    }

    #[test]
    fn entry_is_found_again_by_another_build() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(directory.path())).unwrap();
        let path = put(&cache, CacheKind::Blob, "ab", b"all");
        let other = Cache::open(Some(directory.path())).unwrap();
        assert_eq!(other.get(CacheKind::Blob, "ab"), Some(path.clone()));
        assert_eq!(fs::read(path).unwrap(), b"all");
    }

    #[test]
    fn entry_that_was_cut_or_changed_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(directory.path())).unwrap();
        for damage in [&b""[..], b"al", b"alL", b"all and more"] {
            for kind in [CacheKind::Blob, CacheKind::PackageData] {
                let path = put(&cache, kind, "ab", b"all");
                fs::write(&path, damage).unwrap();
                assert_eq!(cache.get(kind, "ab"), None, "{damage:?}");
                put(&cache, kind, "ab", b"all");
                assert_eq!(cache.get(kind, "ab"), Some(path));
            }
        }
    }

    #[test]
    fn entry_with_a_broken_seal_is_good_if_its_key_is_its_digest() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(directory.path())).unwrap();
        let (key, _) = digest(&b"all"[..]).unwrap();
        for (kind, good) in [(CacheKind::Blob, true), (CacheKind::PackageData, false)] {
            let path = put(&cache, kind, &key, b"all");
            fs::write(&path, b"all").unwrap();
            assert_eq!(cache.get(kind, &key).is_some(), good, "{kind:?}");
            let modified = fs::metadata(&path).unwrap().modified().unwrap();
            assert_eq!(modified == seal_of(3), good);
        }
    }
}
