//! Messages besides the result: to the file of `--log` (text or JSON, as container engines read them), else to
//! standard error.
//!
//! Errors go to both, so that a caller that reads only one of them still sees them. Refuses to fail: a log that
//! cannot be written must not stop a container.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Context, Result};

/// The form of the lines in the log file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// `time="…" level=… msg="…"`.
    #[default]
    Text,
    /// One JSON object a line with `level`, `msg` and `time`.
    Json,
}

/// Where messages go.
#[derive(Debug, Default)]
pub struct Log {
    file: Option<File>,
    format: Format,
    debug: bool,
}

impl Log {
    /// Opens the log file for appending, or takes standard error if there is none.
    pub fn open(path: Option<&Path>, format: Format, debug: bool) -> Result<Self> {
        let open = |path: &Path| {
            OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o644)
                .open(path)
                .at("open log file", path)
        };
        Ok(Self {
            file: path.map(open).transpose()?,
            format,
            debug,
        })
    }

    /// What is worth knowing but changes nothing; dropped unless `--debug` or a log file asks for it.
    pub fn debug(&self, message: &str) {
        if self.file.is_some() {
            self.write("debug", message);
        } else if self.debug {
            eprint!("{}", self.line("debug", message));
        }
    }

    /// Something was asked for and left out, harmlessly.
    pub fn warn(&self, message: &str) {
        if self.file.is_some() {
            self.write("warning", message);
        } else {
            eprintln!("coracle-runtime: warning: {message}");
        }
    }

    /// The command failed. Always one line on standard error, too.
    pub fn error(&self, message: &str) {
        self.write("error", message);
        eprintln!("coracle-runtime: {message}");
    }

    fn write(&self, level: &str, message: &str) {
        let Some(mut file) = self.file.as_ref() else {
            return;
        };
        // One write a line, so that lines of several processes do not mix. A full disk is not our error.
        let _ = file.write_all(self.line(level, message).as_bytes());
    }

    fn line(&self, level: &str, message: &str) -> String {
        let time = timestamp(SystemTime::now());
        match self.format {
            Format::Text => format!("time=\"{time}\" level={level} msg={message:?}\n"),
            Format::Json => {
                let entry = serde_json::json!({ "level": level, "msg": message, "time": time });
                format!("{entry}\n")
            }
        }
    }
}

/// Formats a time by RFC 3339 in UTC with nanoseconds.
pub(crate) fn timestamp(time: SystemTime) -> String {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (
        since_epoch.as_secs() / 86_400,
        since_epoch.as_secs() % 86_400,
    );
    let (year, month, day) = civil_from_days(days);
    let (hour, minute) = (second / 3600, second % 3600 / 60);
    let (second, nanos) = (second % 60, since_epoch.subsec_nanos());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// Days since 1970-01-01 to a date of the Gregorian calendar.
fn civil_from_days(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [
        31,
        28 + u64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn timestamps_are_rfc_3339() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000000Z"),
            (1_735_689_600, "2025-01-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(
                timestamp(UNIX_EPOCH + Duration::from_secs(seconds)),
                expected
            );
        }
    }
}
