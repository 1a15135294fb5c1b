//! `coracle verify`: a disk or a device held against itself, and against a lock.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::inspect::open;
use crate::cli::Verify;
use crate::failure::Failure;
use crate::lock::{Lock, Pins};
use crate::streams::{give, show};
use crate::verify::{Outcome, Report, verify as check};

/// What does not fit the lock only.
const LOCK_DIFFERS: u8 = 3;

/// The report as JSON.
#[derive(Serialize)]
struct Json<'a> {
    format: u32,
    disk: String,
    whole: bool,
    #[serde(flatten)]
    report: &'a Report,
}

/// Checks and prints every check.
pub(super) fn verify(arguments: &Verify) -> Result<(), Failure> {
    let lock = arguments.lock.as_deref().map(read_lock).transpose()?;
    let image = open(&arguments.disk)?;
    let report = check(&image, arguments.root_hash.as_deref(), lock.as_ref())?;
    let disk = arguments.disk.display().to_string();
    if arguments.json {
        let json = Json {
            format: 1,
            disk: disk.clone(),
            whole: report.is_whole(),
            report: &report,
        };
        give(&format!("{}\n", serde_json::to_string_pretty(&json)?))?;
    } else {
        show(&describe(&report))?;
    }
    if !report.is_whole() {
        return Err(Failure::Verdict {
            text: format!(
                "error: {disk} is not whole\nhint: it is damaged or was changed: build it again"
            ),
            code: 1,
        });
    }
    if !report.fits_lock() {
        return Err(Failure::Verdict {
            text: format!(
                "error: {disk} is whole, and not what the lock says\nhint: build it again, or give the lock that it was built with"
            ),
            code: LOCK_DIFFERS,
        });
    }
    Ok(())
}

/// A lock that is named is there.
fn read_lock(path: &Path) -> Result<Lock, Failure> {
    if let Err(error) = std::fs::metadata(path) {
        return Err(Failure::Input(format!(
            "error: cannot read {}: {error}",
            path.display()
        )));
    }
    Ok(Lock::open(path, Pins::Keep)?)
}

fn describe(report: &Report) -> String {
    let mut out = String::new();
    for check in &report.checks {
        let verdict = match check.outcome {
            Outcome::Fits => "fits",
            Outcome::Differs => "DIFFERS",
            Outcome::Skipped => "skipped",
        };
        let line = format!("{:<21} {verdict:<8} {}", check.what.name(), check.note);
        writeln!(out, "{}", line.trim_end()).unwrap_or_default();
        for problem in &check.problems {
            writeln!(out, "  {problem}").unwrap_or_default();
        }
    }
    if report.is_whole() {
        writeln!(out, "whole: root hash {}", report.root_hash).unwrap_or_default();
    }
    out
}
