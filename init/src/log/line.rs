//! A line in a file: `BOOT.NUMBER TIME SECONDS STREAM TEXT`, such as
//! `3.4711 2026-11-25T14:22:41.123456Z 12.345678 out hello`.
//!
//! BOOT is the number of the boot, NUMBER that of the line in its stream; both only grow, whatever is done to the
//! clock. SECONDS are those since the machine started.

use std::fmt::{self, Write as _};

use super::batch::Stamp;

/// The longest text: longer ones are cut. With what stands before it a line is shorter than 4096 bytes.
pub const TEXT_LIMIT: usize = 3900;

/// Which line of which boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The boot's number.
    pub boot: u64,
    /// The line's number in its stream; 0 marks the boot itself.
    pub number: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.boot, self.number)
    }
}

/// Appends a line with its `\n`.
pub fn write(out: &mut String, position: Position, stamp: Stamp, word: &str, text: &str) {
    let text = &text[..text.floor_char_boundary(TEXT_LIMIT)];
    // Writing to a String cannot fail.
    let _ = write!(out, "{position} ");
    write_time(out, stamp.real);
    let (seconds, micros) = (stamp.boot.as_secs(), stamp.boot.subsec_micros());
    let _ = writeln!(out, " {seconds}.{micros:06} {word} {text}");
}

/// The position at the beginning of a complete line. `None`: it is none of ours.
#[must_use]
pub fn position(line: &[u8]) -> Option<Position> {
    let word = line.split(|&byte| byte == b' ').next()?;
    let (boot, number) = std::str::from_utf8(word).ok()?.split_once('.')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(boot) || !digits(number) {
        return None;
    }
    Some(Position {
        boot: boot.parse().ok()?,
        number: number.parse().ok()?,
    })
}

/// UTC by RFC 3339, with microseconds.
pub fn write_time(out: &mut String, nanos: i64) {
    let micros = nanos.div_euclid(1000);
    let (seconds, micros) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
    );
}

/// The date that lies so many days behind 1970-01-01. Years are counted from March on, so that the leap day is
/// the last of its year, and in eras of 400 years, which have the same number of days.
fn civil(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097;
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let leaps = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / (ERA - 1);
    let year_of_era = (day_of_era - leaps) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_line_says_which_when_where_and_what() {
        let stamp = Stamp {
            real: 1_764_080_561_123_456_789,
            boot: Duration::from_micros(12_345_678),
        };
        let place = Position {
            boot: 3,
            number: 4711,
        };
        let mut out = String::new();
        write(&mut out, place, stamp, "out", "hello  world");
        let expected = "3.4711 2025-11-25T14:22:41.123456Z 12.345678 out hello  world\n";
        assert_eq!(out, expected);
        assert_eq!(position(out.as_bytes()), Some(place));
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (-1, "1969-12-31T23:59:59.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            let mut out = String::new();
            write_time(&mut out, seconds * 1_000_000_000);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn what_is_no_line_of_ours_has_no_position() {
        for line in ["", "x", "1.", ".1", "1.x y", "+1.2 x", "1 2", "\u{0}\u{0}"] {
            let found = position(line.as_bytes());
            assert_eq!(found, None, "{line:?}");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_the_line_stays_short() {
        let last = Position {
            boot: u64::MAX,
            number: u64::MAX,
        };
        let stamp = Stamp {
            real: i64::MAX,
            boot: Duration::from_secs(1 << 40),
        };
        let mut out = String::new();
        write(&mut out, last, stamp, "warning", &"\u{4e2d}".repeat(3000));
        assert!(out.len() < 4096 && out.ends_with("\u{4e2d}\n"));
    }
}
