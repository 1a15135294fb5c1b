//! The records of the kernel's log, as `/dev/kmsg` gives them (Linux: ABI/testing/dev-kmsg).

use std::time::Duration;

/// A record, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Facility and level; the kernel's own facility is 0.
    pub priority: u32,
    /// The kernel's number of it, from 0 on.
    pub number: u64,
    /// Since the kernel started.
    pub at: Duration,
    /// Its text, without the dictionary behind it.
    pub text: &'a [u8],
}

impl<'a> Record<'a> {
    /// Takes `PRIORITY,NUMBER,MICROSECONDS,FLAGS[,…];TEXT` and then lines of a dictionary apart.
    #[must_use]
    pub fn parse(record: &'a [u8]) -> Option<Self> {
        let middle = record.iter().position(|&byte| byte == b';')?;
        let head = std::str::from_utf8(&record[..middle]).ok()?;
        let mut fields = head.split(',');
        Some(Self {
            priority: fields.next()?.parse().ok()?,
            number: fields.next()?.parse().ok()?,
            at: Duration::from_micros(fields.next()?.parse().ok()?),
            text: record[middle + 1..].split(|&byte| byte == b'\n').next()?,
        })
    }

    /// The level of syslog(2), 0 to 7; lower is worse.
    #[must_use]
    pub const fn level(&self) -> u32 {
        self.priority & 7
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_its_head_and_its_first_line() {
        let record =
            Record::parse(b"30,7,5000,c,caller=T1;I/O; error\n SUBSYSTEM=block\n").unwrap();
        assert_eq!((record.priority, record.level()), (30, 6));
        assert_eq!((record.number, record.at), (7, Duration::from_millis(5)));
        assert_eq!(record.text, b"I/O; error");
        for garbage in [&b""[..], b"no record", b"x,1,2;y", b"\xff,1,2;y", b"1,2;y"] {
            assert_eq!(Record::parse(garbage), None);
        }
    }
}
