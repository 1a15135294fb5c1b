//! A batch: the lines that one stream gave at one moment, as they lie in a ring.
//!
//! Lines are text without control characters, so a `\n` behind each of them is all that is needed. They have one
//! time, and consecutive numbers.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Bytes before the text: length, number of lines, first number, both times, stream; little-endian.
pub const HEADER: usize = 33;

/// Where a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A workload's standard output.
    Out,
    /// A workload's standard error.
    Error,
    /// init itself.
    Own,
}

impl Origin {
    /// The word in the files.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Error => "err",
            Self::Own => "init",
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Out => 1,
            Self::Error => 2,
            Self::Own => 3,
        }
    }

    const fn of(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Out),
            2 => Some(Self::Error),
            3 => Some(Self::Own),
            _ => None,
        }
    }
}

/// A moment on both clocks: the time of day may be set, the time since the start only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Nanoseconds since 1970, UTC.
    pub real: i64,
    /// Time since the machine started, with what it spent suspended.
    pub boot: Duration,
}

impl Stamp {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Realtime);
        Self {
            real: time
                .tv_sec
                .saturating_mul(1_000_000_000)
                .saturating_add(time.tv_nsec),
            boot: crate::console::now(),
        }
    }
}

/// What stands before the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the whole batch with its header.
    pub length: u32,
    /// Number of lines.
    pub lines: u32,
    /// The number of the first line.
    pub first: u64,
    /// When they came.
    pub stamp: Stamp,
    /// Where they came from.
    pub origin: Origin,
}

impl Head {
    /// As it lies in the ring.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER] {
        let nanos = u64::try_from(self.stamp.boot.as_nanos()).unwrap_or(u64::MAX);
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.lines.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.first.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.stamp.real.to_le_bytes());
        bytes[24..32].copy_from_slice(&nanos.to_le_bytes());
        bytes[32] = self.origin.code();
        bytes
    }

    /// `None`: no header, or one that is shorter than itself.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<HEADER>()?;
        let u32_at = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
        let u64_at =
            |at: usize| u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| bytes[at + i]));
        let head = Self {
            length: u32_at(0),
            lines: u32_at(4),
            first: u64_at(8),
            stamp: Stamp {
                real: i64::from_le_bytes(u64_at(16).to_le_bytes()),
                boot: Duration::from_nanos(u64_at(24)),
            },
            origin: Origin::of(bytes[32])?,
        };
        (head.length as usize >= HEADER).then_some(head)
    }
}

/// Lines on their way into a ring.
#[derive(Debug, Default)]
pub struct Batch {
    text: Vec<u8>,
    lines: u32,
}

impl Batch {
    /// Adds a line without control characters.
    pub fn push(&mut self, line: &str) {
        self.text.extend_from_slice(line.as_bytes());
        self.text.push(b'\n');
        self.lines += 1;
    }

    /// Forgets the lines, but keeps a little memory for the next ones.
    pub fn clear(&mut self) {
        self.text.clear();
        self.text.shrink_to(8 * 1024);
        self.lines = 0;
    }

    /// The lines, each with its `\n`.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// How many lines.
    #[must_use]
    pub const fn lines(&self) -> u32 {
        self.lines
    }
}

/// The batches at the beginning of `bytes`: each with its text and its end. Ends where one is incomplete.
pub fn batches(bytes: &[u8]) -> impl Iterator<Item = (Head, &str, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let head = Head::decode(&bytes[at..])?;
        let text = bytes.get(at + HEADER..at + head.length as usize)?;
        at += head.length as usize;
        Some((head, std::str::from_utf8(text).ok()?, at))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        for origin in [Origin::Out, Origin::Error, Origin::Own] {
            let head = Head {
                length: 77,
                lines: 3,
                first: u64::MAX - 5,
                stamp: Stamp {
                    real: -7,
                    boot: Duration::from_nanos(12_345_678_901),
                },
                origin,
            };
            assert_eq!(Head::decode(&head.encode()), Some(head));
        }
    }

    #[test]
    fn what_is_no_header_is_told() {
        assert_eq!(Head::decode(&[]), None);
        assert_eq!(Head::decode(&[0; HEADER]), None);
        let mut short = [0; HEADER];
        short[0] = 4;
        short[32] = 1;
        assert_eq!(Head::decode(&short), None, "shorter than its header");
    }
}
