//! The kernel's messages as a stream of the log.
//!
//! The kernel keeps and numbers them itself, so the log process reads them where they are.

use std::time::Duration;

use super::line::TEXT_LIMIT;
use crate::kmsg::Record;
use crate::lines;

/// The words of syslog(2)'s levels.
const LEVELS: [&str; 8] = [
    "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug",
];

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The kernel's number of it, from 0 on.
    pub number: u64,
    /// Since the kernel started.
    pub at: Duration,
    /// Its level, in a word.
    pub level: &'static str,
    /// Its text, without control characters.
    pub text: String,
}

/// The message of a record of `/dev/kmsg`.
#[must_use]
pub fn parse(record: &[u8]) -> Option<Message> {
    let record = Record::parse(record)?;
    let text = &record.text[..record.text.len().min(TEXT_LIMIT)];
    Some(Message {
        number: record.number,
        at: record.at,
        level: LEVELS[record.level() as usize],
        text: lines::visible(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_taken_apart() {
        let message = parse(b"3,100,5000,-;I/O; error\x1b[m\n SUBSYSTEM=block\n").unwrap();
        assert_eq!((message.number, message.level), (100, "err"));
        assert_eq!(message.at, Duration::from_millis(5));
        assert_eq!(message.text, "I/O; error^[[m");
        assert_eq!(parse(b"30,7,1,c,caller=T1;told").unwrap().level, "info");
        for garbage in [&b""[..], b"no record", b"x,1,2;y", b"\xff,1,2;y", b"1,2;y"] {
            assert_eq!(parse(garbage), None);
        }
    }
}
