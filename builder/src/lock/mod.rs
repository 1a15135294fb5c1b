//! `coracle.lock`: what exactly stands behind what a manifest asks for, as Cargo.lock does for crates.
//!
//! It pins what comes from elsewhere: Debian packages, images, kernels and boot loaders. What lies in the same source
//! tree and is edited all day (`dir:` and the sources of `files`) is not pinned: its history is the tree's own, and
//! the finished image says what went in.
//!
//! One file a directory, shared by the manifests in it; entries are found by what the manifest says. It is written
//! whole, by rename, and only if it says something new. A damaged file or one of a newer version is an error: it is
//! never silently replaced.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

mod document;
mod error;
mod key;

use document::{Document, Entry, parse, render};
pub use document::{Pinned, PinnedFile, PinnedImage, Request};
pub use error::LockError;
pub use key::{Change, Key};

/// The file's name, beside the manifest.
pub const LOCK_FILE: &str = "coracle.lock";

/// What a build may do with the pins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Pins {
    /// Keep them, and add what is not pinned yet.
    #[default]
    Keep,
    /// Keep them, and refuse what is not pinned yet.
    Require,
    /// Choose everything anew.
    Move,
    /// Choose these anew, keep the others.
    MoveOnly(BTreeSet<Key>),
}

/// A lock file in memory.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    pins: Pins,
    document: Document,
    /// Answered in this build; of what moves only these are trusted.
    fresh: BTreeSet<Key>,
    changes: Vec<Change>,
}

impl Lock {
    /// Reads the file; a missing one is empty.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn open(path: &Path, pins: Pins) -> Result<Self, LockError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => {
                return Err(LockError::File {
                    operation: "read",
                    path: path.to_owned(),
                    source,
                });
            }
        };
        Ok(Self {
            path: path.to_owned(),
            pins,
            document: parse(path, &text)?,
            fresh: BTreeSet::new(),
            changes: Vec::new(),
        })
    }

    /// The pinned packages of a request, if there are any to be used; what moves has none until it is pinned anew.
    ///
    /// # Errors
    /// [`LockError::Missing`], if there are none and none may be added.
    pub fn debian(&self, request: &Request) -> Result<Option<&[Pinned]>, LockError> {
        let key = Key::Debian(request.clone());
        let entry = self.usable(&key, &self.document.debian)?;
        Ok(entry.map(|entry| entry.package.as_slice()))
    }

    /// The pinned digests of an image in a registry, in the same way.
    ///
    /// # Errors
    /// [`LockError::Missing`].
    pub fn image(&self, reference: &str) -> Result<Option<&PinnedImage>, LockError> {
        self.usable(&Key::Image(reference.to_owned()), &self.document.image)
    }

    /// The pinned digest of an image, a kernel or a boot loader in a file, in the same way.
    ///
    /// # Errors
    /// [`LockError::Missing`].
    pub fn file(&self, path: &str) -> Result<Option<&str>, LockError> {
        let entry = self.usable(&Key::File(path.to_owned()), &self.document.file)?;
        Ok(entry.map(|entry| entry.digest.as_str()))
    }

    fn usable<'a, E: Entry>(
        &self,
        key: &Key,
        entries: &'a [E],
    ) -> Result<Option<&'a E>, LockError> {
        let moves = match &self.pins {
            Pins::Keep | Pins::Require => false,
            Pins::Move => true,
            Pins::MoveOnly(keys) => keys.contains(key),
        };
        if moves && !self.fresh.contains(key) {
            return Ok(None);
        }
        let entry = entries.iter().find(|entry| entry.key() == *key);
        if entry.is_none() && self.pins == Pins::Require {
            return Err(LockError::Missing {
                what: key.to_string(),
            });
        }
        Ok(entry)
    }

    /// All pinned packages, whatever asked for them.
    pub fn packages(&self) -> impl Iterator<Item = &Pinned> + Clone {
        self.document.debian.iter().flat_map(|entry| &entry.package)
    }

    /// All pinned images of registries.
    pub fn images(&self) -> &[PinnedImage] {
        &self.document.image
    }

    /// All pinned files.
    pub fn files(&self) -> &[PinnedFile] {
        &self.document.file
    }

    /// Pins the packages of a request.
    pub fn set_debian(&mut self, request: Request, package: Vec<Pinned>) {
        let entry = document::DebianEntry::new(request, package);
        let change = set(&mut self.document.debian, entry, &mut self.fresh);
        self.changes.extend(change);
    }

    /// Pins an image in a registry.
    pub fn set_image(&mut self, image: PinnedImage) {
        let change = set(&mut self.document.image, image, &mut self.fresh);
        self.changes.extend(change);
    }

    /// Pins an image, a kernel or a boot loader in a file.
    pub fn set_file(&mut self, file: PinnedFile) {
        let change = set(&mut self.document.file, file, &mut self.fresh);
        self.changes.extend(change);
    }

    /// What was pinned anew so far.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Writes the file, if it says anything new. What another build pinned meanwhile is kept; where both pinned the
    /// same thing anew, the last counts.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn save(&mut self) -> Result<(), LockError> {
        if self.changes.is_empty() {
            return Ok(());
        }
        // Held from reading to writing, or what another build pins in between would be lost.
        let _held = self.hold();
        let other = Self::open(&self.path, Pins::Keep)?.document;
        merge(&mut self.document.debian, other.debian, &self.fresh);
        merge(&mut self.document.image, other.image, &self.fresh);
        merge(&mut self.document.file, other.file, &self.fresh);
        let text = render(&self.document);
        self.write(&text).map_err(|source| LockError::File {
            operation: "write",
            path: self.path.clone(),
            source,
        })?;
        self.changes.clear();
        Ok(())
    }

    fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    /// Waits until no other build writes a lock here. The folder is what is locked: the file itself is replaced. A file
    /// system without locks has none.
    fn hold(&self) -> Option<fs::File> {
        let folder = fs::File::open(self.folder()).ok()?;
        folder.lock().ok()?;
        Some(folder)
    }

    fn write(&self, text: &str) -> std::io::Result<()> {
        let parent = self.folder();
        let mut file = tempfile::Builder::new()
            .prefix(".coracle.lock-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(parent)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_data()?;
        file.persist(&self.path)?;
        Ok(())
    }
}

/// Puts an entry in the place of the one with the same key.
fn set<E: Entry>(entries: &mut Vec<E>, entry: E, fresh: &mut BTreeSet<Key>) -> Option<Change> {
    let key = entry.key();
    fresh.insert(key.clone());
    let before = entries.iter().position(|other| other.key() == key);
    let before = before.map(|at| entries.swap_remove(at));
    let change = (before.as_ref() != Some(&entry)).then(|| Change {
        lines: entry.moved(before.as_ref()),
        new: before.is_none(),
        key,
    });
    entries.push(entry);
    change
}

/// Takes over what the file has by now, but for what was pinned anew here.
fn merge<E: Entry>(entries: &mut Vec<E>, other: Vec<E>, fresh: &BTreeSet<Key>) {
    for entry in other {
        let key = entry.key();
        match entries.iter().position(|own| own.key() == key) {
            None => entries.push(entry),
            Some(_) if fresh.contains(&key) => {}
            Some(at) => entries[at] = entry,
        }
    }
    entries.sort_by_key(Entry::key);
}

#[cfg(test)]
mod tests;
