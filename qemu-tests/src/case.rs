//! A case's folder: everything a run leaves behind, kept until the next run of the same case.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::tool::run_tool;

/// A deadline in seconds, short to write.
pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One case and its folder.
#[derive(Debug)]
pub struct Case {
    folder: PathBuf,
}

impl Case {
    /// Makes the folder `target/qemu-tests/NAME` anew. Names are unique among all cases, as they run side by side.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        let folder = target_directory()?.join("qemu-tests").join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file in the folder.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file into the folder.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// A sparse copy of a disk in the folder, for a machine to write to.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub fn copy_disk(&self, original: &Path, name: &str) -> Result<PathBuf> {
        let copy = self.path(name);
        let options = ["--sparse=always", "--reflink=auto"];
        run_tool("cp", |cp| cp.args(options).arg(original).arg(&copy))?;
        Ok(copy)
    }
}

/// Cargo's target directory: what holds the profile's folder, which Cargo marks with its lock file, above this
/// program.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let program = std::env::current_exe().context("find this program's own path")?;
    let locked = |directory: &&Path| directory.join(".cargo-lock").is_file();
    let profile = program.ancestors().find(locked);
    profile
        .and_then(Path::parent)
        .map(Path::to_owned)
        .with_context(|| format!("{} is in no Cargo target directory", program.display()))
}
