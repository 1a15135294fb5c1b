//! `coracle.lock`: which exact packages stand behind what a manifest asks for, as Cargo.lock does for crates.
//!
//! One file a directory, shared by the manifests in it; entries are found by the request. It is written whole, by
//! rename, and only if it says something new. A damaged file or one of a newer version is an error: it is never
//! silently replaced.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

mod document;
mod error;

use document::{DebianEntry, parse, render};
pub use document::{Pinned, Request};
pub use error::LockError;

/// The file's name, beside the manifest.
pub const LOCK_FILE: &str = "coracle.lock";

/// A lock file in memory.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    update: bool,
    entries: Vec<DebianEntry>,
    /// Requests answered in this build; with `update` only these are trusted.
    fresh: Vec<Request>,
    changed: bool,
}

impl Lock {
    /// Reads the file; a missing one is empty. With `update` what it says is not used, only replaced.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn open(path: &Path, update: bool) -> Result<Self, LockError> {
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
            update,
            entries: parse(path, &text)?,
            fresh: Vec::new(),
            changed: false,
        })
    }

    /// The pins of a request, if there are any to be used.
    pub fn get(&self, request: &Request) -> Option<&[Pinned]> {
        if self.update && !self.fresh.contains(request) {
            return None;
        }
        let entry = self.entries.iter().find(|e| e.request() == *request)?;
        Some(&entry.package)
    }

    /// Pins a request.
    pub fn set(&mut self, request: Request, package: Vec<Pinned>) {
        self.fresh.push(request.clone());
        match self.entries.iter_mut().find(|e| e.request() == request) {
            Some(entry) if entry.package == package => return,
            Some(entry) => entry.package = package,
            None => self.entries.push(DebianEntry::new(request, package)),
        }
        self.changed = true;
    }

    /// Writes the file, if it says anything new. Entries that another build added meanwhile are kept.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn save(&mut self) -> Result<(), LockError> {
        if !self.changed {
            return Ok(());
        }
        for entry in Self::open(&self.path, false)?.entries {
            if !self.entries.iter().any(|e| e.request() == entry.request()) {
                self.entries.push(entry);
            }
        }
        self.entries.sort_by_key(DebianEntry::request);
        let text = render(&mut self.entries);
        self.write(&text).map_err(|source| LockError::File {
            operation: "write",
            path: self.path.clone(),
            source,
        })?;
        self.changed = false;
        Ok(())
    }

    fn write(&self, text: &str) -> std::io::Result<()> {
        let parent = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
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

#[cfg(test)]
mod tests;
