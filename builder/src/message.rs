//! What the command tells with `--json`: one object a line on standard output, for programs.
//!
//! The `type` of a message says which keys it has. New types and new keys may come with any version; what is here
//! keeps its meaning. docs/reference.md is the description for users.

use serde::Serialize;

use crate::streams::give;

/// A message.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message<'a> {
    /// Something worth knowing that is no failure.
    Note {
        /// The text, without a newline at its end.
        text: &'a str,
    },
    /// Work that begins, goes on or has ended; several go on at once.
    Step {
        /// The same number for all messages of one step, from 1.
        id: u64,
        /// What is done.
        what: &'a str,
        /// Where it stands.
        state: State,
        /// Units done; bytes as a rule.
        done: u64,
        /// All units, if that is known.
        total: Option<u64>,
        /// How long it took, once it has ended.
        #[serde(skip_serializing_if = "Option::is_none")]
        seconds: Option<f64>,
    },
    /// What is wrong: a mistake in the file, or why the command failed.
    Diagnostic(Diagnostic),
    /// What the machine's file says, as text: the result of `check`.
    Machine {
        /// The text.
        text: &'a str,
    },
    /// A file that was written.
    Artifact {
        /// Where it is.
        path: String,
        /// What it is: `disk` and the like.
        format: &'a str,
        /// The length in bytes of the disk, which a file in another form than a raw one need not have.
        size: u64,
        /// The root hash, 64 hexadecimal digits.
        root_hash: &'a str,
        /// Its partitions, in order.
        partitions: Vec<Part<'a>>,
    },
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It begins.
    Begun,
    /// It goes on.
    Going,
    /// It has ended, well or not.
    Ended,
}

/// A partition of an artifact.
#[derive(Debug, Serialize)]
pub struct Part<'a> {
    /// Its name in the partition table.
    pub name: &'a str,
    /// Where it begins, in bytes.
    pub start: u64,
    /// Its length in bytes.
    pub size: u64,
}

/// One thing that is wrong.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// `error`.
    pub level: &'static str,
    /// What is wrong, in one line or a few.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The file that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column in characters, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// The offending part, in bytes of the file: where it begins and where it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span: Option<(usize, usize)>,
}

impl Message<'_> {
    /// The message as a line of JSON.
    pub fn line(&self) -> String {
        let json = serde_json::to_string(self).expect("a message is plain data");
        format!("{json}\n")
    }

    /// Writes it. A reader that is gone, or a disk that is full, ends no build: the exit code counts.
    pub fn send(&self) {
        let _ = give(&self.line());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_with_its_type() {
        let diagnostic = Diagnostic {
            level: "error",
            message: "two\nlines".to_owned(),
            file: Some("os.toml".to_owned()),
            line: Some(3),
            column: Some(9),
            span: Some((20, 24)),
            hint: None,
        };
        for (message, want) in [
            (Message::Note { text: "x" }, r#"{"type":"note","text":"x"}"#),
            (
                Message::Step {
                    id: 1,
                    what: "hashing",
                    state: State::Begun,
                    done: 0,
                    total: None,
                    seconds: None,
                },
                r#"{"type":"step","id":1,"what":"hashing","state":"begun","done":0,"total":null}"#,
            ),
            (
                Message::Diagnostic(diagnostic),
                r#"{"type":"diagnostic","level":"error","message":"two\nlines","file":"os.toml","line":3,"column":9,"span":[20,24]}"#,
            ),
        ] {
            assert_eq!(message.line(), format!("{want}\n"));
        }
    }
}
