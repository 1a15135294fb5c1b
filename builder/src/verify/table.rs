//! The partition tables, identifiers and what lies between partitions, made again and compared; and whether the state is
//! as it was made.

use std::fs::File;
use std::io;

use crate::contents::Contents;
use crate::disk::types;
use crate::format::gpt::{self, HEAD_LEN, TAIL_LEN, Table};
use crate::format::region::Region;
use crate::format::verity::{self, Hash};
use crate::format::{array_at, ext4, is_zero};
use crate::identity::named_uuid;
use crate::image::{DiskImage, ImageError};
use crate::plan::state_options;
use uuid::Uuid;

use super::{Check, PIECE, What, chain};

/// Where a primary header says where its backup is.
const BACKUP_SECTOR: u64 = 512 + 32;
const SECTOR: u64 = 512;
/// The most free space at the end of a disk that is read.
const MOST_FREE: u64 = 1 << 30;

/// Both tables and the gaps.
pub(super) fn table(image: &DiskImage) -> Result<Check, ImageError> {
    let file = image.try_clone_file().map_err(ImageError::Io)?;
    let disk_len = image.table.disk_len;
    let table = Table {
        disk_len: table_len(&file, disk_len).unwrap_or(disk_len),
        ..image.table.clone()
    };
    let mut problems = Vec::new();
    let again = tempfile::tempfile().map_err(ImageError::Io)?;
    match gpt::write(&again, &table) {
        Ok(()) => {
            let tail = table.disk_len - TAIL_LEN;
            for (what, at, len) in [
                ("the partition table", 0, HEAD_LEN),
                ("the backup of the partition table", tail, TAIL_LEN),
            ] {
                let differs = difference(&file, &again, at, len).map_err(ImageError::Io)?;
                problems.extend(differs.map(|at| format!("{what} differs at byte {at}")));
            }
        }
        Err(error) => problems.push(chain(&error)),
    }
    problems.extend(gaps(&file, &table).map_err(ImageError::Io)?);
    problems.extend(strange_partitions(&table));
    let note = format!(
        "both copies, {} partitions, the space between",
        table.partitions.len()
    );
    Ok(Check::new(What::PartitionTable, note, problems))
}

/// How long the disk was when the primary table was written: an image may lie on a larger disk.
fn table_len(file: &File, disk_len: u64) -> Option<u64> {
    let mut field = [0; 8];
    Region::new(file, 0, disk_len)
        .read_exact_at(&mut field, BACKUP_SECTOR)
        .ok()?;
    let len = u64::from_le_bytes(field)
        .checked_add(1)?
        .checked_mul(SECTOR)?;
    (len <= disk_len && len > HEAD_LEN + TAIL_LEN).then_some(len)
}

/// Partitions that no build makes: a boot loader would start kernels from some of them, and one of two of a kind is read by
/// nobody here.
fn strange_partitions(table: &Table) -> Vec<String> {
    let mut known = vec![
        types::ESP,
        types::ROOT_X86_64,
        types::ROOT_X86_64_VERITY,
        types::LINUX_GENERIC,
    ];
    let mut problems = Vec::new();
    for (partition, number) in table.partitions.iter().zip(1..) {
        match known.iter().position(|kind| *kind == partition.type_guid) {
            Some(at) => drop(known.swap_remove(at)),
            None => problems.push(format!(
                "partition {number} ({}) is none of the machine's",
                partition.name
            )),
        }
    }
    problems
}

/// What is not zero between the partitions.
fn gaps(file: &File, table: &Table) -> io::Result<Vec<String>> {
    let mut partitions: Vec<_> = table.partitions.iter().collect();
    partitions.sort_by_key(|partition| partition.start);
    let mut problems = Vec::new();
    let mut at = HEAD_LEN;
    let end = table.disk_len - TAIL_LEN;
    let bounds = partitions.iter().map(|p| (p.start, p.start + p.len));
    for (start, next) in bounds.chain([(end, end)]) {
        let len = start.saturating_sub(at).min(MOST_FREE);
        if let Some(found) = first(file, at, len, |bytes| !is_zero(bytes))? {
            problems.push(format!("byte {found}, in no partition, is not zero"));
        }
        at = at.max(next);
    }
    Ok(problems)
}

/// The first byte at which two files differ in a range.
pub(super) fn difference(one: &File, two: &File, at: u64, len: u64) -> io::Result<Option<u64>> {
    differences(one, at, two, at, len, SECTOR).map(|found| found.first().copied())
}

/// Where a range of one file differs from one of another, as places in the first, at most one for each `grain` bytes.
pub(super) fn differences(
    one: &File,
    one_at: u64,
    two: &File,
    two_at: u64,
    len: u64,
    grain: u64,
) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let mut done = 0;
    while done < len {
        let piece = PIECE.min(len - done) as usize;
        a.resize(piece, 0);
        b.resize(piece, 0);
        read_padded(one, one_at + done, &mut a)?;
        read_padded(two, two_at + done, &mut b)?;
        if a != b {
            let grains = a.chunks(grain as usize).zip(b.chunks(grain as usize));
            for (index, (a, b)) in grains.enumerate() {
                if let Some(at) = a.iter().zip(b).position(|(a, b)| a != b) {
                    found.push(one_at + done + index as u64 * grain + at as u64);
                }
            }
        }
        done += piece as u64;
    }
    Ok(found)
}

/// Fills a buffer; what is behind the file's end reads as zeros.
fn read_padded(file: &File, at: u64, buffer: &mut [u8]) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], at + done as u64)? {
            0 => break,
            count => done += count,
        }
    }
    buffer[done..].fill(0);
    Ok(())
}

/// The first byte of a range in whose piece `is` holds, to the byte if it is not zero.
fn first(file: &File, at: u64, len: u64, is: impl Fn(&[u8]) -> bool) -> io::Result<Option<u64>> {
    let mut buffer = Vec::new();
    let mut done = 0;
    while done < len {
        let piece = PIECE.min(len - done) as usize;
        buffer.resize(piece, 0);
        read_padded(file, at + done, &mut buffer)?;
        if is(&buffer) {
            let place = buffer.iter().position(|byte| *byte != 0).unwrap_or(0);
            return Ok(Some(at + done + place as u64));
        }
        done += piece as u64;
    }
    Ok(None)
}

/// The GUIDs: they follow from the root hash and the machine's name.
pub(super) fn identifiers(
    image: &DiskImage,
    hash: &Hash,
    hash_text: &str,
    contents: &Contents,
) -> Check {
    let half = |at| Uuid::from_bytes(array_at(hash, at));
    let name = &contents.name;
    let mut problems = Vec::new();
    let disk = named_uuid(&["disk", name, hash_text]);
    if image.table.disk_guid != disk {
        problems.push(format!("the disk's GUID is not {disk}"));
    }
    // No digest covers the superblock of a hash tree, whose UUID is all that the kernel does not use.
    let uuid = named_uuid(&["verity", name]);
    let tree = image.partition(types::ROOT_X86_64_VERITY, "root-verity");
    let superblock = tree
        .ok()
        .and_then(|tree| verity::read_superblock(&tree).ok());
    if superblock.is_some_and(|superblock| superblock.params.uuid != uuid) {
        problems.push(format!("the UUID of the hash tree is not {uuid}"));
    }
    for (what, type_guid, guid) in [
        ("EFI system", types::ESP, named_uuid(&["esp", name])),
        ("root", types::ROOT_X86_64, half(0)),
        ("root verity", types::ROOT_X86_64_VERITY, half(16)),
        ("state", types::LINUX_GENERIC, named_uuid(&["state", name])),
    ] {
        let partitions = image.table.partitions.iter();
        for partition in partitions.filter(|p| p.type_guid == type_guid) {
            if partition.unique_guid != guid {
                problems.push(format!("the GUID of the {what} partition is not {guid}"));
            }
        }
    }
    Check::new(
        What::Identifiers,
        "the GUIDs of disk and partitions",
        problems,
    )
}

/// The state, if there is one. It is the machine's to write to, so nothing of it is a fault.
pub(super) fn state(image: &DiskImage, contents: &Contents) -> Result<Option<Check>, ImageError> {
    let mut partitions = image.table.partitions.iter();
    let Some(state) = partitions.find(|p| p.type_guid == types::LINUX_GENERIC) else {
        return Ok(None);
    };
    let note = if is_as_made(image, state, contents).map_err(ImageError::Io)? {
        "as it was made"
    } else {
        "written to since it was made; the machine's own, and covered by nothing"
    };
    Ok(Some(Check::new(What::State, note, Vec::new())))
}

fn is_as_made(image: &DiskImage, state: &gpt::Partition, contents: &Contents) -> io::Result<bool> {
    let file = image.try_clone_file()?;
    let again = tempfile::tempfile()?;
    again.set_len(state.len)?;
    let window = Region::new(&again, 0, state.len).fresh();
    if ext4::write(&window, &state_options(&contents.name, contents.epoch)).is_err() {
        return Ok(false);
    }
    let differ = differences(&file, state.start, &again, 0, state.len, PIECE)?;
    Ok(differ.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(type_guid: Uuid, name: &str) -> gpt::Partition {
        gpt::Partition {
            type_guid,
            unique_guid: Uuid::nil(),
            name: name.to_owned(),
            start: 0,
            len: 512,
        }
    }

    #[test]
    fn partitions_that_no_build_makes_are_named() {
        let extended_boot = Uuid::from_u128(0xbc13_c2ff_59e6_4262_a352_b275_fd6f_7172);
        let mut table = Table {
            disk_guid: Uuid::nil(),
            disk_len: 1 << 20,
            partitions: vec![
                partition(types::ESP, "esp"),
                partition(types::ROOT_X86_64, "root"),
                partition(types::ROOT_X86_64_VERITY, "root-verity"),
                partition(types::LINUX_GENERIC, "state"),
            ],
        };
        assert!(strange_partitions(&table).is_empty());
        table.partitions.push(partition(extended_boot, "boot"));
        table.partitions.push(partition(types::ESP, "other"));
        assert_eq!(
            strange_partitions(&table),
            [
                "partition 5 (boot) is none of the machine's",
                "partition 6 (other) is none of the machine's"
            ]
        );
    }
}
