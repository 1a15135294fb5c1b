//! The log of a machine, read from its disk while the machine is off.
//!
//! `log/NAME/*.log` on the state partition, as init writes it: a line begins with `BOOT.NUMBER TIME SECONDS STREAM`.
//! The file system is read as it is, with its journal if the machine ended by a power cut; nothing is written. Lines
//! that are damaged or torn are left out.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use ext4_view::{Ext4, Ext4Error, Ext4Read};

use crate::disk::types;
use crate::image::{DiskImage, ImageError};

/// Where the log is on the state partition.
const FOLDER: &str = "/log";

/// Why there is no log to be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk has no state.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The disk does not read.
    #[error("cannot read the disk")]
    Disk(#[from] io::Error),
    /// The file system, or a file in it, does not read.
    #[error("cannot read {path} of the state partition")]
    State {
        /// What was read.
        path: String,
        /// Why it does not.
        #[source]
        source: Ext4Error,
    },
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The boot's number.
    pub boot: u64,
    /// Microseconds since the boot.
    pub micros: u64,
    /// Bytes of the line before its stream.
    stamp: usize,
    /// The workload's name, `kernel` or `coracle`.
    pub name: String,
    text: String,
}

impl Line {
    /// The line of a name's log; `None`: it is damaged.
    pub fn parse(name: &str, text: &str) -> Option<Self> {
        let mut words = text.splitn(4, ' ');
        let (boot, number) = words.next()?.split_once('.')?;
        number.parse::<u64>().ok()?;
        words.next()?;
        let (seconds, micros) = words.next()?.split_once('.')?;
        let rest = words.next()?;
        let seconds: u64 = seconds.parse().ok()?;
        Some(Self {
            boot: boot.parse().ok()?,
            micros: seconds.checked_mul(1_000_000)? + micros.parse::<u32>().ok()? as u64,
            stamp: text.len() - rest.len(),
            name: name.to_owned(),
            text: text.to_owned(),
        })
    }

    /// What init said of its own, if this is a line of init's.
    pub fn init_words(&self) -> Option<&str> {
        let rest = (self.name == "coracle").then_some(self.text.get(self.stamp..)?)?;
        rest.strip_prefix("init ")
    }

    /// As it is in its file.
    pub fn plain(&self) -> &str {
        &self.text
    }

    /// With its name before the stream.
    pub fn with_name(&self) -> String {
        let (stamp, rest) = self.text.split_at(self.stamp);
        format!("{stamp}{} {rest}", self.name)
    }
}

/// All lines of a machine's log.
#[derive(Debug, Default)]
pub struct GuestLog {
    /// In the order in which they came.
    pub lines: Vec<Line>,
    /// Whose they are.
    pub names: Vec<String>,
}

impl GuestLog {
    /// Reads the log of these names, or of all.
    ///
    /// # Errors
    /// [`LogError`]; a machine that has never run has an empty log.
    pub fn read(image: &DiskImage, only: Option<&str>) -> Result<Self, LogError> {
        let state = open_state(image)?;
        let explain = |path: &str, source| LogError::State {
            path: path.to_owned(),
            source,
        };
        let mut log = Self::default();
        if !state
            .exists(FOLDER)
            .map_err(|error| explain(FOLDER, error))?
        {
            return Ok(log);
        }
        for name in list(&state, FOLDER).map_err(|error| explain(FOLDER, error))? {
            let folder = format!("{FOLDER}/{name}");
            let is_folder = state.metadata(&folder).is_ok_and(|it| it.is_dir());
            if !is_folder {
                continue;
            }
            if only.is_none_or(|only| only == name) {
                for file in list(&state, &folder).map_err(|error| explain(&folder, error))? {
                    let path = format!("{folder}/{file}");
                    let bytes = state.read(&path).map_err(|error| explain(&path, error))?;
                    log.add(&name, &String::from_utf8_lossy(&bytes));
                }
            }
            log.names.push(name);
        }
        // By the time since the boot, which nobody can set.
        log.lines.sort_by_key(|line| (line.boot, line.micros));
        Ok(log)
    }

    /// The number of the last boot.
    pub fn last_boot(&self) -> Option<u64> {
        self.lines.last().map(|line| line.boot)
    }

    fn add(&mut self, name: &str, text: &str) {
        let lines = text.split_inclusive('\n');
        let whole = lines.filter_map(|line| line.strip_suffix('\n'));
        self.lines
            .extend(whole.filter_map(|line| Line::parse(name, line)));
    }
}

/// The names in a folder, sorted.
fn list(state: &Ext4, folder: &str) -> Result<Vec<String>, Ext4Error> {
    let mut names = Vec::new();
    for entry in state.read_dir(folder)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().as_str() {
            names.extend(
                Some(name)
                    .filter(|name| ![".", ".."].contains(name))
                    .map(str::to_owned),
            );
        }
    }
    names.sort();
    Ok(names)
}

fn open_state(image: &DiskImage) -> Result<Ext4, LogError> {
    let partitions = &image.table.partitions;
    let state = partitions
        .iter()
        .find(|partition| partition.type_guid == types::LINUX_GENERIC)
        .ok_or(ImageError::NoPartition("state"))?;
    let reader = Partition {
        file: image.try_clone_file()?,
        start: state.start,
        length: state.len,
    };
    Ext4::load(Box::new(reader)).map_err(|source| LogError::State {
        path: "the file system".to_owned(),
        source,
    })
}

struct Partition {
    file: File,
    start: u64,
    length: u64,
}

impl Ext4Read for Partition {
    fn read(
        &mut self,
        at: u64,
        bytes: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        let end = at.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(Box::new(io::Error::from(io::ErrorKind::UnexpectedEof)));
        }
        self.file
            .read_exact_at(bytes, self.start + at)
            .map_err(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_in_the_order_of_boots_and_times_and_damaged_ones_not_at_all() {
        let mut log = GuestLog::default();
        log.add(
            "web",
            "1.1 t 10.000002 out late\n2.1 t 1.000000 out second boot\n",
        );
        log.add(
            "db",
            "1.1 t 2.000001 err early\ngarbage\n\u{0}\u{0}\n1.2 t 3.0 out torn",
        );
        log.lines.sort_by_key(|line| (line.boot, line.micros));
        let shown: Vec<String> = log.lines.iter().map(Line::with_name).collect();
        assert_eq!(
            shown,
            [
                "1.1 t 2.000001 db err early",
                "1.1 t 10.000002 web out late",
                "2.1 t 1.000000 web out second boot",
            ]
        );
        assert_eq!(log.last_boot(), Some(2));
        assert_eq!(log.lines[0].plain(), "1.1 t 2.000001 err early");
    }
}
