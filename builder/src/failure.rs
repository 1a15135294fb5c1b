//! How a command fails: the exit code, the chain of causes, and what to do about it.

use std::error::Error;

/// A command's failure; printed once, at the top.
#[derive(Debug)]
pub enum Failure {
    /// The command line or the machine's file is wrong: exit code 2. The text is whole, with its hints.
    Input(String),
    /// The work failed: exit code 1.
    Work {
        /// The cause, with its own causes.
        error: anyhow::Error,
        /// What to do about it.
        hint: Option<String>,
    },
}

impl Failure {
    /// A failure of the work.
    pub fn work(error: impl Into<anyhow::Error>) -> Self {
        Self::Work {
            error: error.into(),
            hint: None,
        }
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
            Self::Work { .. } => 1,
        }
    }

    /// The text for standard error, with a newline at its end.
    pub fn render(&self) -> String {
        match self {
            Self::Input(text) => format!("{}\n", text.trim_end()),
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
}
