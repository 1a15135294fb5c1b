//! Why a lock file cannot be used.

use std::path::PathBuf;

use super::document::VERSION;

/// Why a lock file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It cannot be read or written.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// `read` or `write`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no lock file.
    #[error("{}:{line}: the lock file is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A later Coracle wrote it.
    #[error("{}:{line}: the lock file has version {found}, this coracle knows {VERSION}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The version it says.
        found: i64,
    },
    /// It does not pin something, and nothing may be added.
    #[error("{what} is not pinned in coracle.lock, and --locked pins nothing")]
    Missing {
        /// What.
        what: String,
    },
}
