//! An image's partitions, as `sfdisk` sees them.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

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
    /// The GUID of its type, upper-case.
    pub type_guid: String,
    /// Its first byte in the image.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// The types that Coracle's images have.
impl Partition {
    /// EFI System Partition.
    pub const ESP: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
    /// Root, x86-64.
    pub const ROOT: &str = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709";
    /// Its dm-verity data.
    pub const ROOT_VERITY: &str = "2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5";
    /// State: generic Linux data.
    pub const STATE: &str = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";
}

#[derive(Deserialize)]
struct Listing {
    partitiontable: Table,
}

#[derive(Deserialize)]
struct Table {
    sectorsize: u64,
    partitions: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    start: u64,
    size: u64,
    r#type: String,
}

impl Image {
    /// Reads the partition table.
    ///
    /// # Errors
    /// If `sfdisk` cannot.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let json = run_tool("sfdisk", |sfdisk| sfdisk.arg("--json").arg(&path))?;
        let listing: Listing = serde_json::from_str(&json).context("read sfdisk's listing")?;
        let Table {
            sectorsize,
            partitions,
        } = listing.partitiontable;
        let partition = |entry: Entry| Partition {
            type_guid: entry.r#type,
            offset: entry.start * sectorsize,
            length: entry.size * sectorsize,
        };
        let partitions = partitions.into_iter().map(partition).collect();
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
