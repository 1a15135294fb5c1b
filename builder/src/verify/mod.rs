//! A finished disk held against itself, and against a lock: each byte that the builder wrote has a check that covers it.
//!
//! The root hash in the kernel image's command line vouches for the root, the record in the root vouches for the files of
//! the EFI system partition, and what follows from both (tables, identifiers, all that no file has) is made again and
//! compared. The state is the machine's own: it is told whether it was written to, and covered by nothing. It changes
//! nothing. That the whole disk was replaced by another whole one is found only by a root hash from elsewhere.

mod esp;
mod lock;
mod root;
mod table;

use serde::Serialize;

use crate::format::verity::Hash;
use crate::image::{DiskImage, ImageError};
use crate::lock::Lock;

/// The most problems of one check that are told.
const MOST_PROBLEMS: usize = 20;
/// Bytes are compared in pieces of this many.
const PIECE: u64 = 1 << 20;

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Both partition tables and what lies between partitions.
    PartitionTable,
    /// The GUIDs of disk and partitions.
    Identifiers,
    /// The files of the EFI system partition and its file system.
    EfiSystemPartition,
    /// The root and its hash tree.
    Root,
    /// The record of contents, and the layers that it lists.
    Contents,
    /// The state partition.
    State,
    /// The lock.
    Lock,
}

impl What {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::PartitionTable => "partition table",
            Self::Identifiers => "identifiers",
            Self::EfiSystemPartition => "EFI system partition",
            Self::Root => "root",
            Self::Contents => "contents",
            Self::State => "state",
            Self::Lock => "lock",
        }
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All fits.
    Fits,
    /// Something does not.
    Differs,
    /// What it needs is damaged or absent.
    Skipped,
}

/// A check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub what: What,
    /// How it ended.
    pub outcome: Outcome,
    /// What it covered, or why it was left out.
    pub note: String,
    /// What does not fit.
    pub problems: Vec<String>,
}

impl Check {
    fn new(what: What, note: impl Into<String>, mut problems: Vec<String>) -> Self {
        let more = problems.len().saturating_sub(MOST_PROBLEMS);
        if more > 0 {
            problems.truncate(MOST_PROBLEMS);
            problems.push(format!("and {more} more"));
        }
        Self {
            what,
            outcome: if problems.is_empty() {
                Outcome::Fits
            } else {
                Outcome::Differs
            },
            note: note.into(),
            problems,
        }
    }

    fn skipped(what: What, why: impl Into<String>) -> Self {
        Self {
            what,
            outcome: Outcome::Skipped,
            note: why.into(),
            problems: Vec::new(),
        }
    }
}

/// All checks of a disk.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The root hash in the kernel image's command line; empty where there is none.
    pub root_hash: String,
    /// The checks.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether the disk fits itself (and the root hash from elsewhere).
    pub fn is_whole(&self) -> bool {
        let own = |check: &&Check| !matches!(check.what, What::Lock | What::State);
        let mut own = self.checks.iter().filter(own);
        own.all(|check| check.outcome == Outcome::Fits)
    }

    /// Whether it is what the lock says, as far as it was asked.
    pub fn fits_lock(&self) -> bool {
        let mut lock = self.checks.iter().filter(|c| c.what == What::Lock);
        lock.all(|check| check.outcome == Outcome::Fits)
    }
}

/// Makes all checks. `expected` is a root hash from elsewhere.
///
/// # Errors
/// The disk does not read.
pub fn verify(
    image: &DiskImage,
    expected: Option<&str>,
    lock: Option<&Lock>,
) -> Result<Report, ImageError> {
    let uki = image.uki();
    let root_hash = uki.as_ref().ok().and_then(|uki| uki.root_hash());
    let root_hash = root_hash.unwrap_or_default();
    let contents = image.contents();
    let mut checks = vec![table::table(image)?];
    checks.push(match (parse_hash(&root_hash), &contents) {
        (Some(hash), Ok(contents)) => table::identifiers(image, &hash, &root_hash, contents),
        (None, _) => Check::skipped(
            What::Identifiers,
            "there is no root hash they could follow from",
        ),
        (_, Err(error)) => Check::skipped(What::Identifiers, unreadable(error)),
    });
    checks.push(match &contents {
        Ok(contents) => esp::esp(image, contents)?,
        Err(error) => Check::skipped(What::EfiSystemPartition, unreadable(error)),
    });
    checks.push(root::root(image, &root_hash, expected)?);
    checks.push(match &contents {
        Ok(contents) => root::contents(image, contents),
        Err(error) => Check::new(What::Contents, "", vec![chain(error)]),
    });
    if let Ok(contents) = &contents {
        checks.extend(table::state(image, contents)?);
    }
    if let Some(lock) = lock {
        checks.push(match &contents {
            Ok(contents) => lock::lock(contents, lock),
            Err(error) => Check::skipped(What::Lock, unreadable(error)),
        });
    }
    Ok(Report { root_hash, checks })
}

fn unreadable(error: &ImageError) -> String {
    format!("the record of contents cannot be read: {}", chain(error))
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

/// A root hash of 64 hexadecimal digits.
fn parse_hash(text: &str) -> Option<Hash> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..32).map(byte).collect();
    bytes?.try_into().ok()
}
