//! What the network's children tell PID 1: one line a message, parsed strictly on the other end.

use std::fmt;
use std::io::{self, Write};

/// The most characters of a label.
const LABEL_LIMIT: usize = 63;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// An interface to the outside has an address, or what it has changed.
    Bound {
        /// The interface's name in the file.
        label: String,
        /// For people: `eth0 10.0.2.15/24 gateway 10.0.2.2 dns 10.0.2.3`.
        text: String,
    },
    /// An interface has no address any more.
    Lost {
        /// The interface's name in the file.
        label: String,
    },
    /// What the network tells changed ([`super::facts`]).
    Changed,
    /// The child lives ([`super::pulse`]).
    Alive,
    /// Something to show.
    Note(String),
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bound { label, text } => write!(f, "bound {label} {text}"),
            Self::Lost { label } => write!(f, "lost {label}"),
            Self::Changed => write!(f, "changed"),
            Self::Alive => write!(f, "alive"),
            Self::Note(text) => write!(f, "note {text}"),
        }
    }
}

impl Message {
    /// `None` for anything but a well-formed line.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "bound" => {
                let (label, text) = rest.split_once(' ')?;
                let label = parse_label(label)?;
                let text = text.to_owned();
                Some(Self::Bound { label, text })
            }
            "lost" => parse_label(rest).map(|label| Self::Lost { label }),
            "changed" if rest.is_empty() => Some(Self::Changed),
            "alive" if rest.is_empty() => Some(Self::Alive),
            "note" => Some(Self::Note(rest.to_owned())),
            _ => None,
        }
    }

    /// Tells PID 1, as a child of it. A pipe that nobody reads means that it wants nothing more.
    pub fn tell(&self) {
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{self}").and_then(|()| out.flush());
    }
}

/// Something to show, from a child to PID 1.
pub fn note(text: impl fmt::Display) {
    // One message is one line.
    Message::Note(text.to_string().replace('\n', " ")).tell();
}

fn parse_label(text: &str) -> Option<String> {
    let is_label =
        (1..=LABEL_LIMIT).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_label.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_parsed_back() {
        let label = || "uplink".to_owned();
        for message in [
            Message::Bound {
                label: label(),
                text: "eth0 10.0.2.15/24 gateway 10.0.2.2".to_owned(),
            },
            Message::Lost { label: label() },
            Message::Changed,
            Message::Alive,
            Message::Note("no carrier".to_owned()),
        ] {
            assert_eq!(Message::parse(&message.to_string()), Some(message));
        }
    }

    #[test]
    fn malformed_lines_are_refused() {
        let long = format!("lost {}", "x".repeat(64));
        for line in [
            "",
            "bound",
            "bound uplink",
            "bound  eth0",
            "lost",
            "lost a b",
            "changed now",
            "boundless",
            &long,
        ] {
            assert_eq!(Message::parse(line), None, "{line}");
        }
    }
}
