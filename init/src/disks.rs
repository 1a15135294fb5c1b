//! Partitions of this machine by their GUID: sysfs names the disks, [`crate::gpt`] reads their tables.
//!
//! A partition is believed only when the kernel has one of the same number at the same place. Where the kernel
//! has none (it reads no backup table by itself), it is told of it. Nothing is probed by content, and no
//! symlinks of udev's are needed.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::gpt::{self, GptError, Guid, Partition};
use crate::sys;

/// A partition that the kernel has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionDevice {
    /// Its node, e.g. `/dev/vda2`.
    pub node: PathBuf,
    /// `MAJOR:MINOR`.
    pub number: String,
    /// Its size in bytes.
    pub size: u64,
    /// The disk's name, e.g. `vda`.
    pub disk: String,
    /// Bytes of the disk behind it.
    pub behind: u64,
}

/// A whole disk, open.
#[derive(Debug)]
pub struct Disk {
    /// Its node.
    pub file: File,
    /// Bytes of a logical sector.
    pub sector_size: u32,
    /// Its length in logical sectors.
    pub sectors: u64,
}

impl Disk {
    /// Opens the disk of that name, to write when asked for.
    ///
    /// # Errors
    /// When it cannot be opened, or sysfs tells no sizes.
    pub fn open(name: &str, write: bool) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(write)
            .open(Path::new("/dev").join(name))?;
        let sysfs = Path::new("/sys/block").join(name);
        let sector_size = read_number(&sysfs.join("queue/logical_block_size"))?;
        let sector_size =
            u32::try_from(sector_size).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let bytes = read_number(&sysfs.join("size"))?.saturating_mul(512);
        Ok(Self {
            file,
            sector_size,
            sectors: bytes / u64::from(sector_size.max(1)),
        })
    }

    /// Reads all of the buffer from a byte on.
    ///
    /// # Errors
    /// The system's.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

/// What was seen on the disks, for the message when a partition is missing.
#[derive(Debug, Default)]
pub struct Survey {
    /// One line a disk: `vda: 4 partitions`, `vdb: no GUID partition table`.
    pub disks: Vec<String>,
    found: Vec<(Guid, PartitionDevice)>,
}

impl Survey {
    /// Reads the table of each disk that the kernel has now. A disk that cannot be read is noted, not an error.
    #[must_use]
    pub fn take() -> Self {
        let mut survey = Self::default();
        for disk in disk_names() {
            match read_disk(&disk) {
                Ok(partitions) => survey.add_disk(&disk, &partitions),
                Err(error) => survey
                    .disks
                    .push(format!("{disk}: {}", crate::describe(&error))),
            }
        }
        survey
    }

    fn add_disk(&mut self, disk: &str, partitions: &[(Partition, u32)]) {
        self.disks
            .push(format!("{disk}: {} partitions", partitions.len()));
        for (partition, sector_size) in partitions {
            if let Some(device) = kernel_partition(disk, partition, *sector_size) {
                self.found.push((partition.guid, device));
            }
        }
    }

    /// The first partition with this GUID.
    #[must_use]
    pub fn find(&self, guid: Guid) -> Option<&PartitionDevice> {
        self.found
            .iter()
            .find(|(found, _)| *found == guid)
            .map(|(_, device)| device)
    }

    /// All disks in one line, for a message.
    #[must_use]
    pub fn describe(&self) -> String {
        if self.disks.is_empty() {
            "no disk at all".to_owned()
        } else {
            self.disks.join(", ")
        }
    }
}

/// Whole disks that may hold a table, by name. Those without a size (an empty drive) are left out.
fn disk_names() -> Vec<String> {
    let virtual_disks = ["dm-", "loop", "ram", "zram", "md", "nbd", "fd"];
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !virtual_disks.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    names.sort_unstable();
    names
}

fn read_disk(disk: &str) -> Result<Vec<(Partition, u32)>, GptError> {
    let disk = Disk::open(disk, false).map_err(|source| GptError::Read { offset: 0, source })?;
    let read = |offset: u64, buffer: &mut [u8]| disk.read_at(offset, buffer);
    let partitions = gpt::read_partitions(&read, disk.sector_size, disk.sectors)?;
    Ok(partitions
        .into_iter()
        .map(|partition| (partition, disk.sector_size))
        .collect())
}

/// The kernel's own partition of that number, when it lies where the table says.
fn kernel_partition(
    disk: &str,
    partition: &Partition,
    sector_size: u32,
) -> Option<PartitionDevice> {
    let name = partition_name(disk, partition.number);
    let sysfs = Path::new("/sys/block").join(disk).join(&name);
    let unit = u64::from(sector_size) / 512;
    let sectors = (partition.last_lba - partition.first_lba + 1) * unit;
    if !sysfs.exists() {
        let file = File::open(Path::new("/dev").join(disk)).ok()?;
        let (start, length) = (partition.first_lba * u64::from(sector_size), sectors * 512);
        sys::add_partition(file.as_fd(), partition.number, start, length).ok()?;
    }
    let start = read_number(&sysfs.join("start")).ok()?;
    let size = read_number(&sysfs.join("size")).ok()?;
    if (start, size) != (partition.first_lba * unit, sectors) {
        return None;
    }
    let number = fs::read_to_string(sysfs.join("dev"))
        .ok()?
        .trim()
        .to_owned();
    Some(PartitionDevice {
        node: Path::new("/dev").join(name),
        number,
        size: size * 512,
        disk: disk.to_owned(),
        behind: read_number(&Path::new("/sys/block").join(disk).join("size"))
            .map_or(0, |all| all.saturating_sub(start + size) * 512),
    })
}

/// The kernel puts a `p` between a disk's name that ends in a digit and the number.
fn partition_name(disk: &str, number: u32) -> String {
    let separator = if disk.ends_with(|last: char| last.is_ascii_digit()) {
        "p"
    } else {
        ""
    };
    format!("{disk}{separator}{number}")
}

fn read_number(path: &Path) -> io::Result<u64> {
    fs::read_to_string(path)?
        .trim()
        .parse()
        .map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_named_as_the_kernel_names_them() {
        for (disk, name) in [
            ("vda", "vda2"),
            ("nvme0n1", "nvme0n1p2"),
            ("mmcblk0", "mmcblk0p2"),
        ] {
            assert_eq!(partition_name(disk, 2), name);
        }
    }

    #[test]
    fn an_empty_survey_says_so_and_finds_nothing() {
        let survey = Survey::default();
        assert_eq!(survey.describe(), "no disk at all");
        assert_eq!(survey.find(Guid::from_text_order([1; 16])), None);
    }
}
