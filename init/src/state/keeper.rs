//! The child that does for the state what no workload waits for: the random seed, and growing to the end of the disk.
//!
//! It says what it did, a line each, on its standard output. It may be killed at any time: the partition table is
//! whole at each moment, and the kernel grows the file system in steps that its journal keeps whole.

use std::io::Write;

use super::{grow_filesystem, partition, seed};
use crate::disks::Survey;
use crate::gpt::Guid;

/// Runs `state MOUNT_POINT GUID grow|-`, or `state MOUNT_POINT save`; returns the exit status, 2 for other words.
#[must_use]
pub fn run(arguments: &[String]) -> i32 {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        [mount_point, "save"] => seed::save(mount_point).map_err(|error| format!("seed: {error}")),
        [mount_point, guid, growth] => match Guid::parse(guid) {
            Some(guid) => begin(mount_point, guid, growth == "grow"),
            None => return 2,
        },
        _ => return 2,
    };
    match outcome {
        Ok(()) => 0,
        Err(reason) => {
            say(&reason);
            1
        }
    }
}

fn begin(mount_point: &str, guid: Guid, grows: bool) -> Result<(), String> {
    let seeded = seed::use_once(mount_point).map_err(|error| format!("random seed: {error}"));
    if let Err(reason) = &seeded {
        say(reason);
    }
    if grows {
        grow(mount_point, guid)
    } else {
        Ok(())
    }
}

fn grow(mount_point: &str, guid: Guid) -> Result<(), String> {
    let find = || {
        let found = Survey::take().find(guid).cloned();
        found.ok_or_else(|| "cannot grow: its partition is gone".to_owned())
    };
    partition::grow(&find()?, guid).map_err(|reason| format!("cannot grow: {reason}"))?;
    let (before, after) =
        grow_filesystem(mount_point, &find()?).map_err(|error| format!("cannot grow: {error}"))?;
    if after > before {
        say(&format!(
            "grew from {} MiB to {} MiB",
            before >> 20,
            after >> 20
        ));
    }
    Ok(())
}

fn say(line: &str) {
    // If nobody listens, nobody wants to know.
    let _ = writeln!(std::io::stdout(), "{line}");
}
