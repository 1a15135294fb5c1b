//! The one error type of the runtime: each variant names the operation, what it was done to, and the cause.
//!
//! An error is printed once, at the top, as a chain (see [`chain`]). Nothing here prints.

use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong between the command line and the running container.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation on a file, directory or mount failed.
    #[error("{operation} {}", path.display())]
    Path {
        /// What was being done, as a verb phrase that the path completes.
        operation: &'static str,
        /// The path as the user or the bundle names it.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A system call that concerns no path failed.
    #[error("{operation}")]
    System {
        /// What was being done.
        operation: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// `config.json` is not valid, or contradicts itself.
    #[error("config.json: {0}")]
    Config(String),
    /// `config.json` could not be parsed; the cause has line and column.
    #[error("parse {}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// The bundle or the command line asks for what this runtime or this host cannot do.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// The command does not fit the container's state, or there is no such container.
    #[error("{0}")]
    Container(String),
    /// The container's own process reported a failure before it executed the command.
    #[error("start container process: {0}")]
    Child(String),
    /// A hook could not be executed, or failed.
    #[error("{0}")]
    Hook(String),
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
}

/// The result of nearly everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Adds the operation and the path to a failed system call.
pub(crate) trait Context<T> {
    /// The failure concerns `path`.
    fn at(self, operation: &'static str, path: impl AsRef<Path>) -> Result<T>;
    /// The failure concerns no path.
    fn during(self, operation: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn at(self, operation: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|source| Error::Path {
            operation,
            path: path.as_ref().to_owned(),
            source: source.into(),
        })
    }

    fn during(self, operation: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::System {
            operation: operation.into(),
            source: source.into(),
        })
    }
}

/// Formats an error with all its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_names_operation_path_and_cause_on_one_line() {
        let failed: Result<(), rustix::io::Errno> = Err(rustix::io::Errno::NOENT);
        let error = failed.at("open", "/no\nwhere").expect_err("it is an error");
        assert_eq!(
            chain(&error),
            "open /no where: No such file or directory (os error 2)"
        );
    }
}
