//! The one shape of a failed file operation, shared by all sources.

use std::io;
use std::path::{Path, PathBuf};

/// An operation on a file of the host that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}", path.display())]
pub struct FileError {
    /// What was tried, as a verb: `read`, `write`.
    pub operation: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The system's reason.
    #[source]
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`: wraps the system's reason with the operation and the path.
    pub fn of<'a>(
        operation: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> FileError + use<'a> {
        move |source| FileError {
            operation,
            path: path.to_owned(),
            source,
        }
    }
}
