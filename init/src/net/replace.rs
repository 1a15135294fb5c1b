//! Files that are replaced whole: whoever reads one meanwhile has the old one or the new one.

use std::fs;
use std::io;
use std::path::Path;

/// Replaces the file, whose folder is made if it is not there. What a power cut leaves is not cared for.
///
/// # Errors
/// When it cannot be written.
pub(super) fn replace(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = path.with_extension("new");
    fs::write(&new, bytes)?;
    fs::rename(new, path)
}
