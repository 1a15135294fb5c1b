//! The child that does for the state what no workload waits for: the random seed, growing to the end of the disk, and
//! counting the files of volumes that were made by a version which counted none.
//!
//! It says what it did, a line each, on its standard output. It may be killed at any time: the partition table is
//! whole at each moment, and the kernel grows the file system in steps that its journal keeps whole.

use std::io::{self, Write};

use super::adopt::{self, Adopted, Project};
use super::{grow_filesystem, partition, seed, volume};
use crate::disks::Survey;
use crate::gpt::Guid;

/// Runs `state MOUNT_POINT GUID grow|-`, `state MOUNT_POINT adopt VOLUME PROJECT…` or `state MOUNT_POINT save`; returns the exit status, 2 for other words.
#[must_use]
pub fn run(arguments: &[String]) -> i32 {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        [mount_point, "save"] => seed::save(mount_point).map_err(|error| format!("seed: {error}")),
        [mount_point, "adopt", ref volumes @ ..] => adopt_all(mount_point, volumes),
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

/// Each volume by itself: what is wrong with one keeps none of the others from being counted.
fn adopt_all(mount_point: &str, volumes: &[&str]) -> Result<(), String> {
    let mut outcome = Ok(());
    for pair in volumes.chunks(2) {
        let (path, project) = match (pair, pair.get(1).and_then(|word| word.parse().ok())) {
            (&[path, _], Some(project)) => (path, project),
            _ => return Err("a volume and its project are not named".to_owned()),
        };
        match adopt(mount_point, path, project) {
            Ok(adopted) => tell_adopted(path, adopted),
            Err(error) => {
                say(&format!("{path} is not counted: {error}"));
                outcome = Err("a size does not hold".to_owned());
            }
        }
    }
    outcome
}

fn adopt(mount_point: &str, path: &str, project: u32) -> io::Result<Adopted> {
    match volume::open(mount_point, path)? {
        Some(volume) => adopt::adopt(&volume, &mut Project(project)),
        None => Ok(Adopted::default()),
    }
}

fn tell_adopted(path: &str, Adopted { taken, left }: Adopted) {
    say(&format!("{path} is counted now: {taken} files and folders"));
    if left > 0 {
        say(&format!(
            "{path}: {left} could not be counted, with what is in them"
        ));
    }
}

fn say(line: &str) {
    // If nobody listens, nobody wants to know.
    let _ = writeln!(std::io::stdout(), "{line}");
}
