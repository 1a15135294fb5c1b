//! How a command fails: the exit code, the chain of causes, and what to do about it.

use std::error::Error;
use std::io;

use config::Diagnostics;

use crate::image::ImageError;
use crate::lock::LockError;
use crate::message::{Diagnostic, Message};
use crate::source::debian::{DebianError, UnpackError};

/// A command's failure; printed once, at the top.
#[derive(Debug)]
pub enum Failure {
    /// Mistakes in the machine's file, or failures at what it names, each with its place.
    File {
        /// The file, as the user named it.
        file: String,
        /// What it says.
        text: String,
        /// What is wrong.
        mistakes: Diagnostics,
        /// The exit code: 2 where the file is wrong, 1 where what it names is.
        code: u8,
    },
    /// The command line or the machine's file is wrong: exit code 2. The text is whole, with its hints.
    Input(String),
    /// The work is done and its result is bad: the text is whole.
    Verdict {
        /// What is wrong, with its hints.
        text: String,
        /// The exit code.
        code: u8,
    },
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
            Self::File { code, .. } | Self::Verdict { code, .. } => *code,
            Self::Input(_) => 2,
            Self::Work { .. } => 1,
        }
    }

    /// What went wrong, for programs; all mistakes of the file.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        match self {
            Self::File {
                file,
                text,
                mistakes,
                ..
            } => {
                let mistakes = mistakes.0.iter();
                mistakes
                    .map(|mistake| placed(file, text, mistake))
                    .collect()
            }
            Self::Input(text) | Self::Verdict { text, .. } => vec![split_text(text)],
            Self::Work { error, hint } => vec![Diagnostic {
                level: "error",
                message: chain(error.as_ref()),
                hint: hint.clone(),
                ..Diagnostic::default()
            }],
        }
    }

    /// Tells it as messages.
    pub fn send(&self) {
        for diagnostic in self.diagnostics() {
            Message::Diagnostic(diagnostic).send();
        }
    }

    /// The text for standard error, with a newline at its end.
    pub fn render(&self) -> String {
        match self {
            Self::File {
                file,
                text,
                mistakes,
                ..
            } => format!("{}\n", mistakes.render(file, text).trim_end()),
            Self::Input(text) | Self::Verdict { text, .. } => format!("{}\n", text.trim_end()),
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

/// A text of errors and hints, as diagnostics without a place.
fn split_text(text: &str) -> Diagnostic {
    let mut message = Vec::new();
    let mut hint = Vec::new();
    for line in text.trim_end().lines() {
        match line.strip_prefix("hint: ") {
            Some(line) => hint.push(line),
            None => message.push(line.strip_prefix("error: ").unwrap_or(line)),
        }
    }
    Diagnostic {
        level: "error",
        message: message.join("\n"),
        hint: (!hint.is_empty()).then(|| hint.join("\n")),
        ..Diagnostic::default()
    }
}

/// A mistake of the machine's file.
fn placed(file: &str, text: &str, mistake: &config::Diagnostic) -> Diagnostic {
    let place = mistake.place(text);
    Diagnostic {
        level: "error",
        message: mistake.message.clone(),
        hint: mistake.hint.clone(),
        file: Some(file.to_owned()),
        line: place.map(|(line, _)| line),
        column: place.map(|(_, column)| column),
        span: mistake.span.as_ref().map(|span| (span.start, span.end)),
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
    if let Some(error) = cause.downcast_ref::<ImageError>() {
        return error.hint();
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
    fn programs_get_each_mistake_with_its_place() {
        let mistakes = Diagnostics(vec![
            config::Diagnostic::at(13..16, "no such key").hint("remove it"),
            config::Diagnostic {
                span: None,
                message: "`name` is missing".to_owned(),
                hint: None,
            },
        ]);
        let failure = Failure::File {
            file: "os.toml".to_owned(),
            text: "name = \"ä\"\nkye = 1\n".to_owned(),
            mistakes,
            code: 2,
        };
        let [first, second] = &failure.diagnostics()[..] else {
            panic!("two mistakes");
        };
        assert_eq!((first.line, first.column), (Some(2), Some(2)));
        assert_eq!(first.hint.as_deref(), Some("remove it"));
        assert_eq!((second.line, second.span), (None, None));
        let failure = Failure::Input("error: -o x: no\nhint: another name\n".to_owned());
        let [only] = &failure.diagnostics()[..] else {
            panic!("one");
        };
        assert_eq!(only.message, "-o x: no");
        assert_eq!(only.hint.as_deref(), Some("another name"));
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
