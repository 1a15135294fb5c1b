//! Changes to a GUID partition table, as the writes that make them.
//!
//! Pure: takes what is on the disk, gives bytes and their places. The order is such that at each moment one of the two
//! tables is whole: the backup goes to the disk's end first, and only when it is there the primary is changed. Other
//! partitions' entries are never touched, and nothing is made smaller.

use super::{
    Disk, GptError, Guid, HEADER_SIZE, Partition, RawTable, ReadAt, crc32, guid_at, u32_at, u64_at,
};

/// Partitions begin and end at multiples of so many bytes.
const ALIGNMENT: u64 = 1 << 20;
/// Generic Linux data, in the table's form.
const LINUX_GENERIC: [u8; 16] = [
    0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4,
];
/// The protective MBR's record (UEFI 2.10 §5.2.3): its type and its number of sectors.
const MBR_TYPE_AT: usize = 446 + 4;
const MBR_SECTORS_AT: usize = 446 + 12;
const MBR_SIGNATURE_AT: usize = 510;
const PROTECTIVE: u8 = 0xEE;
const PRIMARY_LBA: u64 = 1;
const PRIMARY_ENTRIES_LBA: u64 = 2;

/// Bytes for a place of the disk. What follows in a list may be written only when it is on the medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// First byte.
    pub offset: u64,
    /// What.
    pub bytes: Vec<u8>,
}

/// A table to be changed.
#[derive(Debug)]
pub struct Table {
    sector_size: u32,
    sectors: u64,
    mbr: Vec<u8>,
    header: Vec<u8>,
    array: Vec<u8>,
    entry_size: usize,
    first_usable: u64,
    partitions: Vec<Partition>,
    is_backup: bool,
}

impl Table {
    /// Reads the table of a disk with `sectors` sectors of `sector_size` bytes.
    ///
    /// # Errors
    /// [`GptError`]; also for a table that is divided in an unusual way, which is left as it is.
    pub fn read(read: &ReadAt<'_>, sector_size: u32, sectors: u64) -> Result<Self, GptError> {
        let disk = Disk::new(read, sector_size, sectors)?;
        let mbr = disk.read_bytes(0, sector_size as usize)?;
        let raw = disk.read_either()?;
        let partitions = raw.partitions()?;
        let RawTable {
            lba,
            sector,
            header,
            array,
        } = raw;
        let is_backup = lba != PRIMARY_LBA;
        let table = Self {
            sector_size,
            sectors,
            mbr,
            header: sector,
            array,
            entry_size: header.entry_size as usize,
            first_usable: header.first_usable,
            partitions,
            is_backup,
        };
        let in_place = is_backup || header.entries_lba == PRIMARY_ENTRIES_LBA;
        let room = PRIMARY_ENTRIES_LBA + table.array_sectors();
        if !in_place || header.first_usable < room || sectors < 2 * room + 1 {
            return Err(GptError::Invalid(
                "the table's parts do not lie where they usually do",
            ));
        }
        let end = table.usable_end();
        if table.partitions.iter().any(|other| other.last_lba >= end) {
            return Err(GptError::Invalid(
                "a partition lies where the backup table belongs",
            ));
        }
        Ok(table)
    }

    /// The primary table is damaged: this is the backup. Before all else [`Self::restoration`] is to be written.
    #[must_use]
    pub const fn is_backup(&self) -> bool {
        self.is_backup
    }

    /// The write that makes the primary table anew from the backup, which stays as it is.
    #[must_use]
    pub fn restoration(&self) -> Write {
        self.primary(u64_at(&self.header, 48), self.sectors - 1)
    }

    /// Lets the partition reach to the next one or to the end of the disk. `None`: that would gain less than a
    /// mebibyte, or there is no such partition.
    pub fn grow(&mut self, guid: Guid) -> Option<Partition> {
        let partition = self.partitions.iter().find(|p| p.guid == guid)?.clone();
        let limit = self
            .partitions
            .iter()
            .map(|other| other.first_lba)
            .filter(|&first| first > partition.last_lba)
            .min()
            .unwrap_or(self.usable_end());
        let end = self.align_down(limit);
        if end <= partition.last_lba + 1 {
            return None;
        }
        let at = (partition.number as usize - 1) * self.entry_size;
        self.array[at + 40..at + 48].copy_from_slice(&(end - 1).to_le_bytes());
        Some(Partition {
            last_lba: end - 1,
            ..partition
        })
    }

    /// Adds a partition of Linux data behind the last one, up to the end of the disk. `None`: there are less than
    /// `least` bytes, or no entry is free.
    pub fn add(&mut self, guid: Guid, name: &str, least: u64) -> Option<Partition> {
        let used = self.partitions.iter().map(|p| p.last_lba + 1).max();
        let unit = self.alignment();
        let first = used
            .unwrap_or(0)
            .max(self.first_usable)
            .next_multiple_of(unit);
        let end = self.align_down(self.usable_end());
        let bytes = end.saturating_sub(first) * u64::from(self.sector_size);
        if bytes < least.max(1) {
            return None;
        }
        let index = self
            .array
            .chunks_exact(self.entry_size)
            .position(|entry| guid_at(entry, 0).is_zero())?;
        let entry = &mut self.array[index * self.entry_size..][..self.entry_size];
        entry.fill(0);
        entry[..16].copy_from_slice(&LINUX_GENERIC);
        entry[16..32].copy_from_slice(&guid.to_table());
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&(end - 1).to_le_bytes());
        for (pair, unit) in entry[56..128].chunks_exact_mut(2).zip(name.encode_utf16()) {
            pair.copy_from_slice(&unit.to_le_bytes());
        }
        Some(Partition {
            number: u32::try_from(index + 1).ok()?,
            guid,
            first_lba: first,
            last_lba: end - 1,
        })
    }

    /// What is to be written, one after the other: the backup's entries, its header, then the primary table.
    #[must_use]
    pub fn writes(&self) -> [Write; 3] {
        let (last_usable, alternate) = (self.usable_end() - 1, self.sectors - 1);
        let entries_lba = alternate - self.array_sectors();
        [
            self.write_at(entries_lba, self.array.clone()),
            self.write_at(
                alternate,
                self.header(alternate, PRIMARY_LBA, entries_lba, last_usable),
            ),
            self.primary(last_usable, alternate),
        ]
    }

    /// Protective MBR, header and entries in one piece: they stand together, so that there is hardly a moment in
    /// which they do not fit.
    fn primary(&self, last_usable: u64, alternate: u64) -> Write {
        let mut bytes = self.mbr.clone();
        if bytes[MBR_TYPE_AT] == PROTECTIVE && bytes[MBR_SIGNATURE_AT..][..2] == [0x55, 0xAA] {
            let sectors = u32::try_from(self.sectors - 1).unwrap_or(u32::MAX);
            bytes[MBR_SECTORS_AT..][..4].copy_from_slice(&sectors.to_le_bytes());
        }
        bytes.extend(self.header(PRIMARY_LBA, alternate, PRIMARY_ENTRIES_LBA, last_usable));
        bytes.extend(&self.array);
        self.write_at(0, bytes)
    }

    fn header(&self, lba: u64, alternate: u64, entries_lba: u64, last_usable: u64) -> Vec<u8> {
        let mut bytes = self.header.clone();
        for (at, value) in [
            (24, lba),
            (32, alternate),
            (48, last_usable),
            (72, entries_lba),
        ] {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        bytes[88..92].copy_from_slice(&crc32(&self.array).to_le_bytes());
        let size = u32_at(&bytes, 12).max(HEADER_SIZE) as usize;
        bytes[16..20].fill(0);
        let sum = crc32(&bytes[..size]);
        bytes[16..20].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn write_at(&self, lba: u64, bytes: Vec<u8>) -> Write {
        Write {
            offset: lba * u64::from(self.sector_size),
            bytes,
        }
    }

    fn array_sectors(&self) -> u64 {
        (self.array.len() as u64).div_ceil(u64::from(self.sector_size))
    }

    /// The sector behind the last usable one, with the backup at the disk's end.
    fn usable_end(&self) -> u64 {
        self.sectors - 1 - self.array_sectors()
    }

    fn alignment(&self) -> u64 {
        ALIGNMENT / u64::from(self.sector_size)
    }

    fn align_down(&self, lba: u64) -> u64 {
        lba - lba % self.alignment()
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_partitions;
    use super::super::tests::{ROOT, SECTORS, sample};
    use super::*;
    use std::io;

    fn reader(disk: &[u8]) -> impl Fn(u64, &mut [u8]) -> io::Result<()> {
        move |offset, buffer: &mut [u8]| {
            let at = offset as usize;
            let bytes = disk.get(at..at + buffer.len());
            buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }
    }

    fn table(disk: &[u8]) -> Table {
        Table::read(&reader(disk), 512, disk.len() as u64 / 512).unwrap()
    }

    fn partitions(disk: &[u8]) -> Vec<Partition> {
        read_partitions(&reader(disk), 512, disk.len() as u64 / 512).unwrap()
    }

    fn apply(disk: &mut [u8], write: &Write) {
        disk[write.offset as usize..][..write.bytes.len()].copy_from_slice(&write.bytes);
    }

    /// The sample on a disk eight times as large, with a protective MBR.
    fn larger() -> Vec<u8> {
        let mut disk = sample();
        disk.resize(disk.len() * 8, 0);
        disk[MBR_TYPE_AT] = PROTECTIVE;
        disk[MBR_SIGNATURE_AT..][..2].copy_from_slice(&[0x55, 0xAA]);
        disk
    }

    #[test]
    fn a_partition_grows_to_the_end_in_both_tables_and_the_mbr() {
        let mut disk = larger();
        let mut table = table(&disk);
        let grown = table.grow(Guid::parse(ROOT).unwrap()).unwrap();
        assert_eq!(
            (grown.first_lba, grown.last_lba),
            (2048, 8 * SECTORS - 2049)
        );
        for write in table.writes() {
            apply(&mut disk, &write);
        }
        assert_eq!(partitions(&disk), std::slice::from_ref(&grown));
        assert_eq!(u32_at(&disk, MBR_SECTORS_AT), 8 * SECTORS as u32 - 1);
        disk[512..1024].fill(0);
        assert_eq!(partitions(&disk), [grown]);
    }

    #[test]
    fn a_table_that_reaches_the_end_already_is_left_alone() {
        let mut disk = larger();
        let guid = Guid::parse(ROOT).unwrap();
        let mut first = table(&disk);
        first.grow(guid).unwrap();
        first
            .writes()
            .iter()
            .for_each(|write| apply(&mut disk, write));
        assert_eq!(table(&disk).grow(guid), None);
        let other = Guid::from_text_order([9; 16]);
        assert_eq!(table(&larger()).grow(other), None);
    }

    #[test]
    fn a_disk_that_lost_its_end_is_left_alone_where_the_backup_would_overwrite_a_partition() {
        let mut disk = larger();
        let mut first = table(&disk);
        first.array[40..48].copy_from_slice(&(8 * SECTORS - 40).to_le_bytes());
        for write in first.writes() {
            apply(&mut disk, &write);
        }
        assert_eq!(table(&disk).partitions[0].last_lba, 8 * SECTORS - 40);
        disk.truncate(disk.len() - 10 * 512);
        let error = Table::read(&reader(&disk), 512, disk.len() as u64 / 512).unwrap_err();
        assert!(error.to_string().contains("where the backup table belongs"));
    }

    #[test]
    fn a_cut_after_any_sector_leaves_the_old_or_the_new_table() {
        let old = larger();
        let mut table = table(&old);
        let grown = table.grow(Guid::parse(ROOT).unwrap()).unwrap();
        let mut disk = old.clone();
        for write in table.writes() {
            for (index, sector) in write.bytes.chunks(512).enumerate() {
                let at = write.offset as usize + 512 * index;
                disk[at..at + sector.len()].copy_from_slice(sector);
                let found = partitions(&disk);
                assert!(found == partitions(&old) || found == [grown.clone()]);
            }
        }
    }

    #[test]
    fn a_damaged_primary_is_restored_from_the_backup_before_anything_else() {
        let mut disk = sample();
        let whole = partitions(&disk);
        disk[512..520].fill(0);
        let damaged = table(&disk);
        assert!(damaged.is_backup());
        apply(&mut disk, &damaged.restoration());
        let last = disk.len() - 512;
        disk[last..].fill(0);
        assert_eq!(partitions(&disk), whole);
        assert!(!table(&disk).is_backup());
    }

    #[test]
    fn a_partition_is_added_behind_the_last_if_there_is_room() {
        let mut disk = larger();
        let guid = Guid::from_text_order([9; 16]);
        assert_eq!(table(&disk).add(guid, "state", 1 << 30), None);
        assert_eq!(table(&sample()).add(guid, "state", 1), None);
        let mut table = table(&disk);
        let added = table.add(guid, "state", 1 << 20).unwrap();
        assert_eq!((added.number, added.first_lba), (2, 4096));
        for write in table.writes() {
            apply(&mut disk, &write);
        }
        assert_eq!(partitions(&disk)[1], added);
        assert_eq!(disk[1024 + 128 + 56..][..10], *b"s\0t\0a\0t\0e\0");
    }

    #[test]
    fn growth_ends_at_the_next_partition() {
        let mut disk = larger();
        let mut first = table(&disk);
        // An entry in the way, by the same means.
        first.add(Guid::from_text_order([9; 16]), "x", 1).unwrap();
        first
            .writes()
            .iter()
            .for_each(|write| apply(&mut disk, write));
        let grown = table(&disk).grow(Guid::parse(ROOT).unwrap()).unwrap();
        assert_eq!(grown.last_lba, 4095);
    }
}
