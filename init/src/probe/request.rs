//! What PID 1 asks the prober for, and what it hears: one message each. Pure.
//!
//! ```text
//! ask NUMBER until|once MILLISECONDS tcp PORT          (a network namespace may come along)
//! ask NUMBER until|once MILLISECONDS http PORT PATH HOST
//! drop NUMBER                                          nobody waits for it any more
//! NUMBER passed|failed|lost                            the answer
//! ```

use std::time::Duration;

use config::boot::Check;

use crate::supervise::event::{ProbeKind, ProbeResult};

/// The longest message in bytes; the language bounds what is in one far below.
pub const LONGEST: usize = 4096;

/// What one try is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Something accepts a connection on this port.
    Tcp(u16),
    /// A GET of this path is answered well.
    Http {
        /// The port.
        port: u16,
        /// The path with its query.
        path: String,
        /// The `Host` header.
        host: String,
    },
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Until it passes, or once.
    pub kind: ProbeKind,
    /// What one try may take.
    pub timeout: Duration,
    /// What is asked.
    pub question: Question,
}

/// A message to the prober.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Probe, and answer by this number.
    Ask(u64, Request),
    /// Forget the number.
    Drop(u64),
}

impl Question {
    /// What of a check is the prober's.
    #[must_use]
    pub fn of(check: &Check) -> Option<Self> {
        match check {
            Check::Tcp { port } => Some(Self::Tcp(*port)),
            Check::Http { port, path, host } => Some(Self::Http {
                port: *port,
                path: path.clone(),
                host: host.clone(),
            }),
            Check::Exec { .. } => None,
        }
    }

    /// The port that is asked.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self {
            Self::Tcp(port) | Self::Http { port, .. } => *port,
        }
    }
}

impl Order {
    /// The message.
    #[must_use]
    pub fn to_message(&self) -> String {
        let Self::Ask(number, request) = self else {
            let Self::Drop(number) = self else {
                return String::new();
            };
            return format!("drop {number}");
        };
        let kind = match request.kind {
            ProbeKind::UntilReady => "until",
            ProbeKind::Once => "once",
        };
        let question = match &request.question {
            Question::Tcp(port) => format!("tcp {port}"),
            Question::Http { port, path, host } => format!("http {port} {path} {host}"),
        };
        let timeout = request.timeout.as_millis();
        format!("ask {number} {kind} {timeout} {question}")
    }

    /// The order in a message; `None` for anything else.
    #[must_use]
    pub fn parse(message: &str) -> Option<Self> {
        let words: Vec<&str> = message.split(' ').collect();
        match words[..] {
            ["drop", number] => Some(Self::Drop(number.parse().ok()?)),
            ["ask", number, kind, timeout, ref question @ ..] => {
                let milliseconds = timeout.parse().ok().filter(|&ms: &u64| ms > 0)?;
                let request = Request {
                    kind: parse_kind(kind)?,
                    timeout: Duration::from_millis(milliseconds),
                    question: parse_question(question)?,
                };
                Some(Self::Ask(number.parse().ok()?, request))
            }
            _ => None,
        }
    }
}

/// Until it passes, or once.
pub(super) fn parse_kind(word: &str) -> Option<ProbeKind> {
    match word {
        "until" => Some(ProbeKind::UntilReady),
        "once" => Some(ProbeKind::Once),
        _ => None,
    }
}

fn parse_question(words: &[&str]) -> Option<Question> {
    let port = |text: &str| text.parse().ok().filter(|&port: &u16| port != 0);
    match *words {
        ["tcp", number] => Some(Question::Tcp(port(number)?)),
        ["http", number, path, host] if !path.is_empty() && !host.is_empty() => {
            Some(Question::Http {
                port: port(number)?,
                path: path.to_owned(),
                host: host.to_owned(),
            })
        }
        _ => None,
    }
}

/// An answer as a message.
#[must_use]
pub fn answer(number: u64, result: &ProbeResult) -> String {
    let word = match result {
        ProbeResult::Passed => "passed",
        ProbeResult::Failed => "failed",
        ProbeResult::Lost => "lost",
    };
    format!("{number} {word}")
}

/// The answer in a message; `None` for anything else.
#[must_use]
pub fn parse_answer(message: &str) -> Option<(u64, ProbeResult)> {
    let (number, word) = message.split_once(' ')?;
    let result = match word {
        "passed" => ProbeResult::Passed,
        "failed" => ProbeResult::Failed,
        "lost" => ProbeResult::Lost,
        _ => return None,
    };
    Some((number.parse().ok()?, result))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_answers_are_parsed_back() {
        let http = Question::Http {
            port: 80,
            path: "/a?b=c".to_owned(),
            host: "localhost".to_owned(),
        };
        let ask = |number, kind, question| {
            let request = Request {
                kind,
                timeout: Duration::from_millis(1500),
                question,
            };
            Order::Ask(number, request)
        };
        for order in [
            ask(1, ProbeKind::UntilReady, Question::Tcp(6379)),
            ask(u64::MAX, ProbeKind::Once, http),
            Order::Drop(7),
        ] {
            let message = order.to_message();
            assert_eq!(Order::parse(&message), Some(order), "{message}");
        }
        for result in [ProbeResult::Passed, ProbeResult::Failed, ProbeResult::Lost] {
            let message = answer(9, &result);
            assert_eq!(parse_answer(&message), Some((9, result)), "{message}");
        }
    }

    #[test]
    fn other_messages_are_refused() {
        for bad in [
            "",
            "ask",
            "ask 1 once 0 tcp 80",
            "ask 1 once x tcp 80",
            "ask 1 twice 5 tcp 80",
            "ask 1 once 5 tcp 0",
            "ask 1 once 5 tcp 65536",
            "ask 1 once 5 tcp 80 81",
            "ask x once 5 tcp 80",
            "ask 1 once 5 http 80 /",
            "ask 1 once 5 http 80  localhost",
            "ask 1 once 5 exec x",
            "drop",
            "drop 1 2",
        ] {
            assert_eq!(Order::parse(bad), None, "{bad}");
        }
        for bad in ["", "1", "1 perhaps", "x passed", "1 passed "] {
            assert_eq!(parse_answer(bad), None, "{bad}");
        }
    }
}
