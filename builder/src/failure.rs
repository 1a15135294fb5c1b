//! How a command fails: the exit code, the chain of causes, and what to do about it.

use std::error::Error;
use std::io;

use crate::lock::LockError;
use crate::source::debian::{DebianError, UnpackError};

/// A command's failure; printed once, at the top.
#[derive(Debug)]
pub enum Failure {
    /// The command line or the machine's file is wrong: exit code 2. The text is whole, with its hints.
    Input(String),
    /// The work failed at something that the machine's file names: exit code 1. The text is whole.
    Named(String),
    /// The work failed: exit code 1.
    Work {
        /// The cause, with its own causes.
        error: anyhow::Error,
        /// What to do about it.
        hint: Option<String>,
    },
}

impl Failure {
    /// A failure of the work, with a hint if one of its causes is known to have one.
    pub fn work(error: impl Into<anyhow::Error>) -> Self {
        let error = error.into();
        let hint = error.chain().find_map(hint_of);
        Self::Work { error, hint }
    }

    /// A failure of the work with what to do about it.
    pub fn work_with_hint(error: impl Into<anyhow::Error>, hint: Option<String>) -> Self {
        Self::Work {
            error: error.into(),
            hint,
        }
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Input(_) => 2,
            Self::Named(_) | Self::Work { .. } => 1,
        }
    }

    /// The text for standard error, with a newline at its end.
    pub fn render(&self) -> String {
        match self {
            Self::Input(text) | Self::Named(text) => format!("{}\n", text.trim_end()),
            Self::Work { error, hint } => {
                let mut text = format!("error: {}\n", chain(error.as_ref()));
                if let Some(hint) = hint {
                    text.push_str(&format!("\nhint: {hint}\n"));
                }
                text
            }
        }
    }
}

/// What to do about a cause, wherever in the chain it stands.
fn hint_of(cause: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = find::<DebianError>(cause) {
        return error.hint().map(str::to_owned);
    }
    if let Some(UnpackError::Debian(error)) = find::<UnpackError>(cause) {
        return error.hint().map(str::to_owned);
    }
    match cause.downcast_ref::<LockError>() {
        Some(LockError::Damaged { .. }) => {
            return Some(
                "restore it from your version control, or remove it: the next build pins what the mirrors have now"
                    .to_owned(),
            );
        }
        Some(LockError::Newer { .. }) => return Some("use the newer coracle".to_owned()),
        Some(LockError::File { source, .. }) if is_denied(source) => {
            return Some(
                "the pins of a build stand beside the machine's file: make its folder writable, or copy it"
                    .to_owned(),
            );
        }
        _ => {}
    }
    let full = cause
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::StorageFull);
    full.then(|| {
        "the file system is full: make room, or give the cache another place by CORACLE_CACHE"
            .to_owned()
    })
}

fn is_denied(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

/// The cause as a `T`, boxed or not.
fn find<'a, T: Error + 'static>(cause: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let boxed = || cause.downcast_ref::<Box<T>>().map(AsRef::as_ref);
    cause.downcast_ref::<T>().or_else(boxed)
}

/// Error and causes on one line, each told once.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::work(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_one_line_and_the_hint_stands_apart() {
        let error = anyhow::anyhow!("disk full").context("cannot write a.img");
        let failure = Failure::work_with_hint(error, Some("make room".into()));
        assert_eq!(
            failure.render(),
            "error: cannot write a.img: disk full\n\nhint: make room\n"
        );
        assert_eq!(failure.exit_code(), 1);
    }

    #[test]
    fn known_causes_bring_their_hint_along() {
        let gone = || {
            Box::new(DebianError::Apt(crate::source::debian::AptError::Missing {
                program: "apt-get",
            }))
        };
        let kernel = crate::source::kernel::KernelError::Package {
            package: "x".into(),
            source: gone(),
        };
        let unpack = crate::source::kernel::KernelError::Unpack {
            package: "x".into(),
            source: Box::new(UnpackError::Debian(gone())),
        };
        let lock = LockError::File {
            operation: "write",
            path: "coracle.lock".into(),
            source: io::ErrorKind::PermissionDenied.into(),
        };
        let full = anyhow::Error::new(io::Error::from(io::ErrorKind::StorageFull)).context("x");
        for (failure, want) in [
            (
                Failure::work(kernel),
                "hint: Debian packages need a host with apt",
            ),
            (
                Failure::work(unpack),
                "hint: Debian packages need a host with apt",
            ),
            (Failure::work(lock), "make its folder writable"),
            (Failure::work(full), "hint: the file system is full"),
        ] {
            let text = failure.render();
            assert!(text.contains(want), "{text}");
        }
    }
}
