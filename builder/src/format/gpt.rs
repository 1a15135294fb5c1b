//! GUID partition tables (UEFI specification 2.10, chapter 5), sectors of 512 bytes.
//!
//! The writer draws no GUIDs: every one is given. The reader checks both checksums and every number, and falls
//! back to the table at the disk's end when the one at its start is bad. Attributes, hybrid MBRs and other sector
//! sizes are not supported. Ours rather than a crate's because the `gpt` crate's reader asserts on odd entry sizes
//! and allocates whatever the header asks for.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use uuid::Uuid;

const SECTOR: u64 = 512;
const SIGNATURE: &[u8; 8] = b"EFI PART";
const HEADER_LEN: usize = 92;
const ENTRY_LEN: usize = 128;
const ENTRIES: usize = 128;
const ENTRIES_LEN: usize = ENTRIES * ENTRY_LEN;
const ENTRIES_SECTORS: u64 = ENTRIES_LEN as u64 / SECTOR;
/// The most bytes of entries that the reader takes from a foreign table.
const ENTRIES_LEN_MAX: u64 = 1 << 20;
/// UTF-16 units of a partition's name.
const NAME_UNITS: usize = 36;

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// What it is for.
    pub type_guid: Uuid,
    /// Which one it is.
    pub unique_guid: Uuid,
    /// Its name, 36 UTF-16 units at most.
    pub name: String,
    /// First byte on the disk, a multiple of 512.
    pub start: u64,
    /// Length in bytes, a multiple of 512.
    pub len: u64,
}

/// A partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Which disk it is.
    pub disk_guid: Uuid,
    /// The disk's length in bytes, a multiple of 512.
    pub disk_len: u64,
    /// The partitions in the order of their entries.
    pub partitions: Vec<Partition>,
}

/// Bytes at the disk's start that the table needs; the first partition begins there or later.
pub const HEAD_LEN: u64 = (2 + ENTRIES_SECTORS) * SECTOR;
/// Bytes at the disk's end that the backup table needs.
pub const TAIL_LEN: u64 = (1 + ENTRIES_SECTORS) * SECTOR;

/// Why a partition table was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum GptError {
    /// The disk does not read or write.
    #[error("cannot {operation} the partition table")]
    Io {
        /// `read` or `write`.
        operation: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The table to write breaks a rule.
    #[error("partition {name:?}: {reason}")]
    BadPartition {
        /// Its name.
        name: String,
        /// The rule.
        reason: &'static str,
    },
    /// More than 128 partitions, or a disk that is too short or no multiple of 512 bytes.
    #[error("partition table: {reason}")]
    BadTable {
        /// The rule.
        reason: &'static str,
    },
    /// Neither table of the disk is good.
    #[error("no partition table: {primary} (backup: {backup})")]
    NoTable {
        /// What is wrong with the first.
        primary: &'static str,
        /// What is wrong with the backup.
        backup: &'static str,
    },
}

/// Writes the protective MBR, the table and its backup. Other bytes of `disk` are left alone; its length must be
/// `table.disk_len` already or is set by the caller later.
///
/// # Errors
/// [`GptError`]; nothing is written if the table breaks a rule.
pub fn write(disk: &File, table: &Table) -> Result<(), GptError> {
    check(table)?;
    let last = table.disk_len / SECTOR - 1;
    let entries = entries_bytes(&table.partitions);
    let put = |bytes: &[u8], sector: u64| {
        disk.write_all_at(bytes, sector * SECTOR)
            .map_err(|source| GptError::Io {
                operation: "write",
                source,
            })
    };
    put(&protective_mbr(last), 0)?;
    put(&header_bytes(table, &entries, 1, last, 2), 1)?;
    put(&entries, 2)?;
    let backup_entries = last - ENTRIES_SECTORS;
    put(&entries, backup_entries)?;
    put(
        &header_bytes(table, &entries, last, 1, backup_entries),
        last,
    )
}

fn check(table: &Table) -> Result<(), GptError> {
    let bad = |reason| Err(GptError::BadTable { reason });
    if !table.disk_len.is_multiple_of(SECTOR) {
        return bad("the disk's length is no multiple of 512 bytes");
    }
    if table.disk_len < HEAD_LEN + TAIL_LEN + SECTOR {
        return bad("the disk is too short");
    }
    if table.partitions.len() > ENTRIES {
        return bad("more than 128 partitions");
    }
    let mut by_start: Vec<_> = table.partitions.iter().collect();
    by_start.sort_by_key(|partition| partition.start);
    let mut free_from = HEAD_LEN;
    for partition in by_start {
        let end = check_partition(partition, free_from, table.disk_len - TAIL_LEN);
        free_from = end.map_err(|reason| GptError::BadPartition {
            name: partition.name.clone(),
            reason,
        })?;
    }
    Ok(())
}

/// Checks one partition against the free space and returns its end.
fn check_partition(
    partition: &Partition,
    free_from: u64,
    free_to: u64,
) -> Result<u64, &'static str> {
    if !partition.start.is_multiple_of(SECTOR) || !partition.len.is_multiple_of(SECTOR) {
        return Err("its place is no multiple of 512 bytes");
    }
    if partition.len == 0 {
        return Err("it is empty");
    }
    if partition.start < free_from {
        return Err("it overlaps the table or another partition");
    }
    if partition.type_guid.is_nil() {
        return Err("its type is nil, which means unused");
    }
    if partition.name.encode_utf16().count() > NAME_UNITS {
        return Err("its name is longer than 36 UTF-16 units");
    }
    match partition.start.checked_add(partition.len) {
        Some(end) if end <= free_to => Ok(end),
        _ => Err("it reaches past the disk's end"),
    }
}

fn protective_mbr(last_sector: u64) -> [u8; 512] {
    let mut mbr = [0; 512];
    let sectors = u32::try_from(last_sector).unwrap_or(u32::MAX);
    mbr[446..454].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
    mbr[454..458].copy_from_slice(&1_u32.to_le_bytes());
    mbr[458..462].copy_from_slice(&sectors.to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    mbr
}

fn entries_bytes(partitions: &[Partition]) -> Vec<u8> {
    let mut bytes = vec![0; ENTRIES_LEN];
    for (entry, partition) in bytes.chunks_exact_mut(ENTRY_LEN).zip(partitions) {
        let first = partition.start / SECTOR;
        let last = first + partition.len / SECTOR - 1;
        entry[0..16].copy_from_slice(&partition.type_guid.to_bytes_le());
        entry[16..32].copy_from_slice(&partition.unique_guid.to_bytes_le());
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
        let units = partition.name.encode_utf16();
        for (place, unit) in entry[56..].chunks_exact_mut(2).zip(units) {
            place.copy_from_slice(&unit.to_le_bytes());
        }
    }
    bytes
}

fn header_bytes(table: &Table, entries: &[u8], this: u64, other: u64, entries_at: u64) -> Vec<u8> {
    let last = table.disk_len / SECTOR - 1;
    let mut header = Vec::with_capacity(SECTOR as usize);
    header.extend(SIGNATURE);
    header.extend(0x0001_0000_u32.to_le_bytes());
    header.extend((HEADER_LEN as u32).to_le_bytes());
    header.extend([0; 8]); // its own checksum, patched below, and a reserved field
    for lba in [
        this,
        other,
        HEAD_LEN / SECTOR,
        last - ENTRIES_SECTORS - 1, // the last usable sector
    ] {
        header.extend(lba.to_le_bytes());
    }
    header.extend(table.disk_guid.to_bytes_le());
    header.extend(entries_at.to_le_bytes());
    header.extend((ENTRIES as u32).to_le_bytes());
    header.extend((ENTRY_LEN as u32).to_le_bytes());
    header.extend(crc32fast::hash(entries).to_le_bytes());
    let checksum = crc32fast::hash(&header);
    header[16..20].copy_from_slice(&checksum.to_le_bytes());
    header.resize(SECTOR as usize, 0);
    header
}

/// Reads the table, or its backup if the first is bad. `disk_len` of the result is the file's length.
///
/// # Errors
/// [`GptError`], if the disk does not read or neither table is good.
pub fn read(disk: &File) -> Result<Table, GptError> {
    let io = |source| GptError::Io {
        operation: "read",
        source,
    };
    let len = device_len(disk).map_err(io)? / SECTOR * SECTOR;
    let primary = match read_at(disk, len, 1).map_err(io)? {
        Ok(table) => return Ok(table),
        Err(reason) => reason,
    };
    let last = (len / SECTOR).saturating_sub(1);
    match read_at(disk, len, last).map_err(io)? {
        Ok(table) => Ok(table),
        Err(backup) => Err(GptError::NoTable { primary, backup }),
    }
}

/// The length of a file or block device.
fn device_len(mut disk: &File) -> io::Result<u64> {
    use std::io::{Seek, SeekFrom};
    disk.seek(SeekFrom::End(0))
}

/// The table whose header is in sector `lba`, or what is wrong with it.
fn read_at(disk: &File, len: u64, lba: u64) -> io::Result<Result<Table, &'static str>> {
    let sectors = len / SECTOR;
    if lba == 0 || lba >= sectors {
        return Ok(Err("the disk is too short"));
    }
    let mut sector = [0; SECTOR as usize];
    disk.read_exact_at(&mut sector, lba * SECTOR)?;
    let header = match Header::parse(&sector, lba, sectors) {
        Ok(header) => header,
        Err(reason) => return Ok(Err(reason)),
    };
    let mut entries = vec![0; header.entries_len];
    disk.read_exact_at(&mut entries, header.entries_at)?;
    if crc32fast::hash(&entries) != header.entries_checksum {
        return Ok(Err("the checksum of its entries is wrong"));
    }
    let partitions = entries
        .chunks_exact(header.entry_len)
        .filter(|entry| entry[..16] != [0; 16])
        .map(|entry| parse_entry(entry, sectors))
        .collect::<Result<_, _>>();
    Ok(partitions.map(|partitions| Table {
        disk_guid: header.disk_guid,
        disk_len: len,
        partitions,
    }))
}

/// What the reader needs of a header, checked.
struct Header {
    disk_guid: Uuid,
    entries_at: u64,
    entries_len: usize,
    entry_len: usize,
    entries_checksum: u32,
}

impl Header {
    fn parse(sector: &[u8; 512], lba: u64, sectors: u64) -> Result<Self, &'static str> {
        if !sector.starts_with(SIGNATURE) {
            return Err("no signature");
        }
        let len = u32_at(sector, 12) as usize;
        if !(HEADER_LEN..=sector.len()).contains(&len) {
            return Err("the length of its header is wrong");
        }
        let mut unsigned = *sector;
        unsigned[16..20].fill(0);
        if crc32fast::hash(&unsigned[..len]) != u32_at(sector, 16) {
            return Err("the checksum of its header is wrong");
        }
        if u64_at(sector, 24) != lba {
            return Err("its header belongs elsewhere");
        }
        let count = u64::from(u32_at(sector, 80));
        let entry_len = u32_at(sector, 84) as usize;
        if entry_len < ENTRY_LEN || !entry_len.is_power_of_two() {
            return Err("the length of an entry is wrong");
        }
        let entries_len = count * entry_len as u64;
        let first = u64_at(sector, 72);
        let needed = entries_len.div_ceil(SECTOR);
        let fits = first.checked_add(needed).is_some_and(|end| end <= sectors);
        if entries_len > ENTRIES_LEN_MAX || !fits {
            return Err("its entries are too many or not on the disk");
        }
        Ok(Self {
            disk_guid: uuid_at(sector, 56),
            entries_at: first * SECTOR,
            entries_len: entries_len as usize,
            entry_len,
            entries_checksum: u32_at(sector, 88),
        })
    }
}

fn parse_entry(entry: &[u8], sectors: u64) -> Result<Partition, &'static str> {
    let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
    if first > last || last >= sectors {
        return Err("a partition is not on the disk");
    }
    let units: Vec<u16> = entry[56..ENTRY_LEN]
        .chunks_exact(2)
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
        .take_while(|unit| *unit != 0)
        .collect();
    Ok(Partition {
        type_guid: uuid_at(entry, 0),
        unique_guid: uuid_at(entry, 16),
        name: String::from_utf16_lossy(&units),
        start: first * SECTOR,
        len: (last - first + 1) * SECTOR,
    })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(super::array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(super::array_at(bytes, at))
}

fn uuid_at(bytes: &[u8], at: usize) -> Uuid {
    Uuid::from_bytes_le(super::array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn table() -> Table {
        let partition = |name: &str, at: u64, len: u64| Partition {
            type_guid: Uuid::from_u128(0x1111),
            unique_guid: Uuid::from_u128(u128::from(at)),
            name: name.into(),
            start: at * MIB,
            len: len * MIB,
        };
        Table {
            disk_guid: Uuid::from_u128(7),
            disk_len: 16 * MIB,
            partitions: vec![partition("ESP", 1, 4), partition("root \u{1f6f6}", 5, 10)],
        }
    }

    fn written() -> File {
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(16 * MIB).unwrap();
        write(&disk, &table()).unwrap();
        disk
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read(&written()).unwrap(), table());
    }

    #[test]
    fn a_bad_table_is_read_from_its_backup() {
        for at in [512, 512 + 90, 1024 + 130] {
            let disk = written();
            disk.write_all_at(&[0xa5], at).unwrap();
            assert_eq!(read(&disk).unwrap(), table(), "byte {at}");
        }
    }

    #[test]
    fn two_bad_tables_are_an_error() {
        let disk = written();
        disk.write_all_at(&[0xa5], 600).unwrap();
        disk.write_all_at(&[0xa5], 16 * MIB - 500).unwrap();
        let error = read(&disk).unwrap_err();
        assert!(matches!(error, GptError::NoTable { .. }), "{error}");
    }

    #[test]
    fn a_header_that_asks_for_the_moon_is_an_error() {
        for (at, value) in [(72, u32::MAX), (80, u32::MAX), (84, u32::MAX), (84, 0)] {
            let disk = tempfile::tempfile().unwrap();
            disk.set_len(MIB).unwrap();
            let entries = entries_bytes(&[]);
            let mut header = header_bytes(&table(), &entries, 1, 9, 2);
            header[at..at + 4].copy_from_slice(&value.to_le_bytes());
            header[16..20].fill(0);
            let checksum = crc32fast::hash(&header[..HEADER_LEN]);
            header[16..20].copy_from_slice(&checksum.to_le_bytes());
            disk.write_all_at(&header, 512).unwrap();
            assert!(read(&disk).is_err(), "{at}");
        }
        assert!(read(&tempfile::tempfile().unwrap()).is_err());
    }

    #[test]
    fn tables_that_break_a_rule_are_refused() {
        let disk = tempfile::tempfile().unwrap();
        let breaks: [fn(&mut Table); 8] = [
            |t| t.disk_len += 1,
            |t| t.disk_len = 32 << 10,
            |t| t.partitions[0].start = 512,
            |t| t.partitions[0].start += 1,
            |t| t.partitions[0].len += MIB,
            |t| t.partitions[1].len = 11 * MIB,
            |t| t.partitions[1].name = "x".repeat(37),
            |t| t.partitions[1].type_guid = Uuid::nil(),
        ];
        for (number, break_rule) in breaks.iter().enumerate() {
            let mut table = table();
            break_rule(&mut table);
            assert!(write(&disk, &table).is_err(), "rule {number}");
        }
    }
}
