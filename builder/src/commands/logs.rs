//! `coracle logs`: what a machine's workloads, its kernel and init said, from the disk of a machine that is off.

use super::timeline;
use crate::cli::Logs;
use crate::failure::Failure;
use crate::guest_log::{GuestLog, Line};
use crate::image::DiskImage;
use crate::streams::show;

/// Prints the lines that are wanted.
pub(super) fn logs(arguments: &Logs) -> Result<(), Failure> {
    let image = DiskImage::open(&arguments.disk).map_err(Failure::work)?;
    if arguments.timeline {
        return course(&image, arguments.boot);
    }
    let only = arguments.workload.as_deref();
    let log = GuestLog::read(&image, only).map_err(Failure::work)?;
    if let Some(name) = only.filter(|name| !log.names.iter().any(|known| known == name)) {
        return Err(Failure::Input(format!(
            "error: `{name}` has no log on this disk\nhint: {}",
            if log.names.is_empty() {
                "nothing has: the machine has not run, or only for a moment".to_owned()
            } else {
                format!("there is one of each of {}", log.names.join(", "))
            }
        )));
    }
    let boot = wanted_boot(arguments.boot, log.last_boot());
    let mut text = String::new();
    for line in &log.lines {
        if boot.is_none_or(|boot| line.boot == boot) {
            match only {
                Some(_) => text.push_str(Line::plain(line)),
                None => text.push_str(&line.with_name()),
            }
            text.push('\n');
        }
    }
    show(&text)
}

/// Prints the course of one boot.
fn course(image: &DiskImage, boot: Option<i64>) -> Result<(), Failure> {
    let log = GuestLog::read(image, Some("coracle")).map_err(Failure::work)?;
    let boot = wanted_boot(Some(boot.unwrap_or(0)), log.last_boot()).unwrap_or(0);
    let text = timeline::describe(&log.lines, boot);
    if text.is_empty() {
        return Err(Failure::Input(format!(
            "error: the log has no boot {boot}\nhint: {}",
            match log.last_boot() {
                Some(last) => format!("the last one is {last}"),
                None => "the machine has not run, or only for a moment".to_owned(),
            }
        )));
    }
    show(&text)
}

/// The boot by its number; 0 is the last one, -1 the one before it. `None`: all.
fn wanted_boot(wanted: Option<i64>, last: Option<u64>) -> Option<u64> {
    let wanted = wanted?;
    match u64::try_from(wanted) {
        Ok(number) if number > 0 => Some(number),
        _ => Some(last.unwrap_or(0).saturating_sub(wanted.unsigned_abs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_named_by_its_number_or_from_the_end() {
        for (wanted, expected) in [
            (None, None),
            (Some(3), Some(3)),
            (Some(0), Some(7)),
            (Some(-1), Some(6)),
            (Some(-9), Some(0)),
        ] {
            assert_eq!(wanted_boot(wanted, Some(7)), expected);
        }
    }
}
