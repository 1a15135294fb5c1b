//! QEMU's control channel, as far as a run needs it (QEMU Machine Protocol).
//!
//! Commands are sent without waiting for their answers: QEMU takes them in order. What comes back is read by
//! another thread with [`parse`]; of it only errors and the machine's end matter.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use serde::Deserialize;

/// What QEMU says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// The machine ends, with QEMU's word for why: `guest-shutdown`, `guest-reset`, `host-signal` …
    Shutdown(String),
    /// QEMU pressed the power button on the guest.
    PowerButton,
    /// A command failed.
    Failed(String),
}

/// The writing side.
#[derive(Debug)]
pub(crate) struct Qmp {
    stream: UnixStream,
}

impl Qmp {
    /// Takes a connected stream and leaves negotiation mode. A QEMU that has ended at once cannot be told so: what
    /// it said on standard error is the error then.
    pub(crate) fn new(stream: UnixStream) -> Self {
        let mut qmp = Self { stream };
        let _ = qmp.execute("qmp_capabilities");
        qmp
    }

    /// Presses the power button.
    pub(crate) fn power_down(&mut self) -> io::Result<()> {
        self.execute("system_powerdown")
    }

    fn execute(&mut self, command: &str) -> io::Result<()> {
        let line = serde_json::json!({ "execute": command });
        self.stream.write_all(format!("{line}\n").as_bytes())
    }
}

#[derive(Deserialize)]
struct Raw {
    event: Option<String>,
    data: Option<RawData>,
    error: Option<RawError>,
}

#[derive(Deserialize)]
struct RawData {
    reason: Option<String>,
}

#[derive(Deserialize)]
struct RawError {
    desc: String,
}

/// What a line from QEMU means; `None` for greetings, answers and events that do not matter here.
pub(crate) fn parse(line: &str) -> Option<Message> {
    let raw: Raw = serde_json::from_str(line).ok()?;
    if let Some(error) = raw.error {
        return Some(Message::Failed(error.desc));
    }
    match raw.event?.as_str() {
        "SHUTDOWN" => {
            let reason = raw.data.and_then(|data| data.reason);
            Some(Message::Shutdown(reason.unwrap_or_default()))
        }
        "POWERDOWN" => Some(Message::PowerButton),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    #[test]
    fn ends_and_errors_are_understood_and_the_rest_is_passed_over() {
        let shutdown = r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN",
            "data": {"guest": true, "reason": "guest-reset"}}"#;
        let cases = [
            (shutdown, Some(Message::Shutdown("guest-reset".into()))),
            (r#"{"event": "POWERDOWN"}"#, Some(Message::PowerButton)),
            (
                r#"{"error": {"class": "CommandNotFound", "desc": "no"}}"#,
                Some(Message::Failed("no".into())),
            ),
            (r#"{"QMP": {"version": {}, "capabilities": []}}"#, None),
            (r#"{"return": {}}"#, None),
            (
                r#"{"event": "NIC_RX_FILTER_CHANGED", "data": {"path": "x"}}"#,
                None,
            ),
            ("no json", None),
        ];
        for (line, expected) in cases {
            assert_eq!(parse(line), expected, "{line}");
        }
    }

    #[test]
    fn commands_come_after_the_negotiation() {
        let (near, far) = UnixStream::pair().unwrap();
        Qmp::new(near).power_down().unwrap();
        let lines: Vec<_> = BufReader::new(far).lines().map(Result::unwrap).collect();
        let expected = [
            r#"{"execute":"qmp_capabilities"}"#,
            r#"{"execute":"system_powerdown"}"#,
        ];
        assert_eq!(lines, expected);
    }
}
