//! The state's partition: found by its GUID, made where there is none, grown to the end of its disk.
//!
//! One is made only behind the last partition of the disk that the verified root is on, in space that belongs to
//! nobody, and its entry is written after its file system: a power cut leaves no half-made one. No other
//! partition is ever changed.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitOptions, waitpid};

use super::{StateError, format};
use crate::children;
use crate::cmdline;
use crate::describe;
use crate::disks::{Disk, PartitionDevice, Survey};
use crate::gpt::edit::{Table, Write};
use crate::gpt::{GptError, Guid, Partition};
use crate::sys;
use crate::uevent::{Uevent, UeventSocket};

/// Its disk may be slower than the root's: no disk has appeared for so long when there is none with it.
const QUIET: Duration = Duration::from_secs(10);
/// A machine whose disks appear without end, or whose drivers do not come up, is not waited for any longer.
const LONGEST: Duration = Duration::from_secs(60);
/// How often it is looked whether the drivers are loaded.
const TURN: Duration = Duration::from_millis(200);
/// Its name in the table.
const NAME: &str = "state";

/// Looks at once and again as disks appear; then makes one. A second one on the root's disk would hide what the machine
/// has kept on another: so the drivers of all disks are loaded first, and none is made while disks still appear.
pub(super) fn find_or_make(
    guid: Guid,
    size: u64,
    uevents: Option<&UeventSocket>,
    tell: &mut dyn FnMut(String),
) -> Result<PartitionDevice, StateError> {
    let survey = match find(guid, uevents) {
        Ok(device) => return Ok(device),
        Err(survey) => survey,
    };
    make(guid, size, &survey, tell).map_err(|reason| StateError::Missing {
        guid,
        found: survey.describe(),
        reason,
    })
}

fn find(guid: Guid, uevents: Option<&UeventSocket>) -> Result<PartitionDevice, Survey> {
    let last = Instant::now() + LONGEST;
    let mut drivers = None;
    loop {
        let survey = Survey::take();
        if let Some(device) = survey.find(guid) {
            return Ok(device.clone());
        }
        let drivers = drivers.get_or_insert_with(Drivers::start);
        if !disk_appears(uevents, last, || drivers.are_loading()) {
            return Err(survey);
        }
    }
}

/// Waits for another disk; false: for a while none has appeared and none will, or `last` is over.
fn disk_appears(
    uevents: Option<&UeventSocket>,
    last: Instant,
    mut may_come: impl FnMut() -> bool,
) -> bool {
    let Some(socket) = uevents else { return false };
    let mut quiet = Instant::now() + QUIET;
    loop {
        let now = Instant::now();
        if now >= last {
            return false;
        }
        if may_come() {
            quiet = now + QUIET;
        } else if now >= quiet {
            return false;
        }
        let limit = quiet.min(last).saturating_duration_since(now).min(TURN);
        if socket.wait(limit) == Some(Uevent::BlockAdded) {
            return true;
        }
    }
}

/// The child that loads what drives the devices that are there.
struct Drivers(Option<i32>);

impl Drivers {
    /// Without one to be had, those drivers do it that are there.
    fn start() -> Self {
        Self(children::spawn(children::command().arg("modprobe")).ok())
    }

    fn are_loading(&mut self) -> bool {
        let pid = self.0.and_then(Pid::from_raw);
        if matches!(
            pid.map(|pid| waitpid(Some(pid), WaitOptions::NOHANG)),
            Some(Ok(None))
        ) {
            return true;
        }
        self.0 = None;
        false
    }
}

fn make(
    guid: Guid,
    size: u64,
    survey: &Survey,
    tell: &mut dyn FnMut(String),
) -> Result<PartitionDevice, String> {
    let name = root_disk(survey).ok_or("the root's disk is not known")?;
    let explain = |error: io::Error| format!("{name}: {error}");
    let disk = Disk::open(&name, true).map_err(explain)?;
    let mut table = read_table(&disk).map_err(|error| format!("{name}: {}", describe(&error)))?;
    let partition = table.add(guid, NAME, size).ok_or_else(|| {
        format!(
            "{name} has less than {} MiB behind its partitions",
            size >> 20
        )
    })?;
    let (start, len) = extent(&disk, &partition);
    format::write(&disk.file, start, len).map_err(explain)?;
    write_table(&disk, &table).map_err(explain)?;
    sys::add_partition(disk.file.as_fd(), partition.number, start, len).map_err(explain)?;
    tell(format!(
        "there was no partition for it: one of {} MiB was made on {name}",
        len >> 20
    ));
    let survey = Survey::take();
    let made = survey.find(guid).cloned();
    made.ok_or_else(|| format!("{name}: the new partition is not there"))
}

/// The disk with the partition that the root hash names.
fn root_disk(survey: &Survey) -> Option<String> {
    let hash = cmdline::root_hash(&fs::read_to_string("/proc/cmdline").ok()?).ok()?;
    let guid = Guid::from_text_order(std::array::from_fn(|at| hash[at]));
    Some(survey.find(guid)?.disk.clone())
}

/// Lets the partition reach the end of its disk, in the table and in the kernel. `None`: it does already.
///
/// # Errors
/// In words.
pub(super) fn grow(device: &PartitionDevice, guid: Guid) -> Result<Option<u64>, String> {
    let explain = |error: io::Error| format!("{}: {error}", device.disk);
    let disk = Disk::open(&device.disk, true).map_err(explain)?;
    let mut table =
        read_table(&disk).map_err(|error| format!("{}: {}", device.disk, describe(&error)))?;
    let Some(partition) = table.grow(guid) else {
        return Ok(None);
    };
    write_table(&disk, &table).map_err(explain)?;
    let (start, len) = extent(&disk, &partition);
    sys::resize_partition(disk.file.as_fd(), partition.number, start, len).map_err(explain)?;
    Ok(Some(len))
}

/// The table; a damaged primary one is first made anew from the backup.
fn read_table(disk: &Disk) -> Result<Table, GptError> {
    let read = |offset: u64, buffer: &mut [u8]| disk.read_at(offset, buffer);
    let table = || Table::read(&read, disk.sector_size, disk.sectors);
    let found = table()?;
    if !found.is_backup() {
        return Ok(found);
    }
    let write = found.restoration();
    write_one(disk, &write).map_err(|source| GptError::Read {
        offset: write.offset,
        source,
    })?;
    table()
}

fn write_table(disk: &Disk, table: &Table) -> io::Result<()> {
    table
        .writes()
        .iter()
        .try_for_each(|write| write_one(disk, write))
}

fn write_one(disk: &Disk, write: &Write) -> io::Result<()> {
    disk.file.write_all_at(&write.bytes, write.offset)?;
    disk.file.sync_data()
}

/// First byte and length.
fn extent(disk: &Disk, partition: &Partition) -> (u64, u64) {
    let sector = u64::from(disk.sector_size);
    let sectors = partition.last_lba - partition.first_lba + 1;
    (partition.first_lba * sector, sectors * sector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_disks_beyond_the_last_moment_or_without_a_kernel_that_tells() {
        let past = Instant::now();
        assert!(!disk_appears(None, past + LONGEST, || true));
        let Ok(socket) = UeventSocket::open() else {
            return;
        };
        assert!(!disk_appears(Some(&socket), past, || true));
    }
}
