//! An image's partitions, as `partx` (util-linux) sees them.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::tool::run_tool;

/// A disk image.
#[derive(Debug, Clone)]
pub struct Image {
    path: PathBuf,
    partitions: Vec<Partition>,
}

/// A partition, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The GUID of its type, lower-case.
    pub type_guid: String,
    /// Its first byte in the image.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// The types that Coracle's images have.
impl Partition {
    /// EFI System Partition.
    pub const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
    /// Root, x86-64.
    pub const ROOT: &str = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709";
    /// Its dm-verity data.
    pub const ROOT_VERITY: &str = "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5";
    /// State: generic Linux data.
    pub const STATE: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";
}

/// `partx` counts in sectors of this many bytes.
const SECTOR: u64 = 512;

impl Image {
    /// Reads the partition table.
    ///
    /// # Errors
    /// If `partx` cannot.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let listing = run_tool("partx", |partx| {
            let columns = ["--show", "--noheadings", "-o", "TYPE,START,SECTORS"];
            partx.args(columns).arg(&path)
        })?;
        let partitions = listing
            .lines()
            .map(parse_partition)
            .collect::<Result<_>>()?;
        Ok(Self { path, partitions })
    }

    /// The image's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The partition of a type.
    ///
    /// # Errors
    /// If there is none.
    pub fn partition(&self, type_guid: &str) -> Result<&Partition> {
        let mut partitions = self.partitions.iter();
        partitions
            .find(|partition| partition.type_guid == type_guid)
            .with_context(|| format!("{} has no partition {type_guid}", self.path.display()))
    }

    /// Inverts one bit of the byte at `offset` of a partition.
    ///
    /// # Errors
    /// If there is no such partition or the file cannot be written.
    pub fn flip_bit(&self, type_guid: &str, offset: u64) -> Result<()> {
        let at = self.partition(type_guid)?.offset + offset;
        let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        byte[0] ^= 1;
        file.write_all_at(&byte, at)?;
        Ok(())
    }

    /// Copies a partition into a file of its own.
    ///
    /// # Errors
    /// If there is no such partition or the copy fails.
    pub fn extract(&self, type_guid: &str, to: &Path) -> Result<()> {
        const MIB: u64 = 1 << 20;
        let partition = self.partition(type_guid)?;
        let (skip, count) = (partition.offset / MIB, partition.length.div_ceil(MIB));
        run_tool("dd", |dd| {
            dd.arg(format!("if={}", self.path.display()))
                .arg(format!("of={}", to.display()))
                .args([format!("skip={skip}"), format!("count={count}")])
                .args(["bs=1M", "conv=sparse", "status=none"])
        })?;
        Ok(())
    }
}

/// A line of `partx`: type, first sector, number of sectors.
fn parse_partition(line: &str) -> Result<Partition> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [type_guid, start, sectors] = words[..] else {
        bail!("not a line of partx: {line:?}");
    };
    Ok(Partition {
        type_guid: type_guid.to_owned(),
        offset: start.parse::<u64>()? * SECTOR,
        length: sectors.parse::<u64>()? * SECTOR,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_in_bytes() {
        let line = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b 2048 4096";
        let partition = parse_partition(line).unwrap();
        assert_eq!(partition.type_guid, Partition::ESP);
        assert_eq!((partition.offset, partition.length), (1 << 20, 2 << 20));
        assert!(parse_partition("2048 4096").is_err());
    }
}
