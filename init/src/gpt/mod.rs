//! GUID partition tables, read (UEFI 2.10 §5.3): the primary header, and the backup where that one is bad.
//!
//! The kernel of Debian 12 tells no partition GUIDs, so init reads the table itself. Every field is checked
//! before it is used, and both CRCs must hold: a disk is outside input. Reading changes nothing; [`edit`] makes what is
//! to be written.

pub mod edit;

use std::fmt;
use std::io;

const SIGNATURE: &[u8; 8] = b"EFI PART";
const REVISION_1_0: u32 = 0x0001_0000;
const HEADER_SIZE: u32 = 92;
const ENTRY_SIZE: u32 = 128;
/// More than any tool makes, few enough to read without a thought: 128 is usual.
const MAX_ENTRIES: u32 = 1024;

/// A GUID as text: lower-case with hyphens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guid([u8; 16]);

impl Guid {
    /// From the bytes in the order in which the text shows them, as the Discoverable Partitions
    /// Specification cuts a root hash in two.
    #[must_use]
    pub const fn from_text_order(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// From a table's mixed-endian form: the first three groups are little-endian.
    #[must_use]
    pub const fn from_table(b: [u8; 16]) -> Self {
        Self([
            b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13],
            b[14], b[15],
        ])
    }

    /// From text, in either case; `None` when it is no GUID.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hyphens = [8, 13, 18, 23];
        let bytes = text.as_bytes();
        if bytes.len() != 36 || hyphens.iter().any(|&at| bytes[at] != b'-') {
            return None;
        }
        let digits: Vec<u8> = bytes
            .iter()
            .enumerate()
            .filter(|(at, _)| !hyphens.contains(at))
            .map(|(_, &byte)| {
                char::from(byte)
                    .to_digit(16)
                    .and_then(|digit| u8::try_from(digit).ok())
            })
            .collect::<Option<_>>()?;
        let mut guid = [0; 16];
        for (byte, pair) in guid.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Some(Self(guid))
    }

    /// The bytes of a table's form; it is its own inverse.
    #[must_use]
    pub const fn to_table(self) -> [u8; 16] {
        Self::from_table(self.0).0
    }

    const fn is_zero(self) -> bool {
        u128::from_ne_bytes(self.0) == 0
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let hyphen = if matches!(at, 4 | 6 | 8 | 10) {
                "-"
            } else {
                ""
            };
            write!(f, "{hyphen}{byte:02x}")?;
        }
        Ok(())
    }
}

/// One partition of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1, which is also the kernel's.
    pub number: u32,
    /// The unique partition GUID.
    pub guid: Guid,
    /// First sector.
    pub first_lba: u64,
    /// Last sector, inclusive.
    pub last_lba: u64,
}

/// Why a table is not used.
#[derive(Debug, thiserror::Error)]
pub enum GptError {
    /// No header's signature at all: most likely a disk without a GPT.
    #[error("no GUID partition table")]
    Absent,
    /// The disk cannot be read.
    #[error("cannot read at byte {offset}")]
    Read {
        /// Where.
        offset: u64,
        /// What the kernel says.
        source: io::Error,
    },
    /// A header or an entry array that breaks the specification.
    #[error("{0}")]
    Invalid(&'static str),
}

/// Reads from a disk at a byte offset, all of the buffer or an error.
pub type ReadAt<'a> = dyn Fn(u64, &mut [u8]) -> io::Result<()> + 'a;

/// The partitions of a disk with `sectors` sectors of `sector_size` bytes.
///
/// # Errors
/// [`GptError`] of the primary table, when the backup is no better.
pub fn read_partitions(
    read: &ReadAt<'_>,
    sector_size: u32,
    sectors: u64,
) -> Result<Vec<Partition>, GptError> {
    Disk::new(read, sector_size, sectors)?
        .read_either()?
        .partitions()
}

struct Disk<'a> {
    read: &'a ReadAt<'a>,
    sector_size: u32,
    sectors: u64,
}

/// A header whose checksum holds, and its entries, whose checksum holds too.
struct RawTable {
    lba: u64,
    sector: Vec<u8>,
    header: Header,
    array: Vec<u8>,
}

/// The checked fields of a header.
struct Header {
    first_usable: u64,
    last_usable: u64,
    entries_lba: u64,
    entries: u32,
    entry_size: u32,
    entries_crc: u32,
}

impl RawTable {
    fn partitions(&self) -> Result<Vec<Partition>, GptError> {
        let entries = self
            .array
            .chunks_exact(self.header.entry_size as usize)
            .zip(1..);
        entries
            .filter_map(|(entry, number)| parse_entry(entry, number, &self.header).transpose())
            .collect()
    }
}

impl<'a> Disk<'a> {
    fn new(read: &'a ReadAt<'a>, sector_size: u32, sectors: u64) -> Result<Self, GptError> {
        if !(sector_size.is_power_of_two() && (512..=4096).contains(&sector_size)) || sectors < 3 {
            return Err(GptError::Absent);
        }
        Ok(Self {
            read,
            sector_size,
            sectors,
        })
    }

    /// The primary table, or the backup where that one is bad.
    fn read_either(&self) -> Result<RawTable, GptError> {
        self.read_table(1)
            .or_else(|primary| self.read_table(self.sectors - 1).map_err(|_| primary))
    }

    fn read_table(&self, header_lba: u64) -> Result<RawTable, GptError> {
        let sector = self.read_bytes(header_lba, self.sector_size as usize)?;
        let header = parse_header(&sector, header_lba, self.sectors)?;
        let size = header.entries as usize * header.entry_size as usize;
        let array = self.read_bytes(header.entries_lba, size)?;
        if crc32(&array) != header.entries_crc {
            return Err(GptError::Invalid(
                "the partition entries do not match their checksum",
            ));
        }
        let table = RawTable {
            lba: header_lba,
            sector,
            header,
            array,
        };
        table.partitions()?;
        Ok(table)
    }

    fn read_bytes(&self, lba: u64, size: usize) -> Result<Vec<u8>, GptError> {
        let offset = lba * u64::from(self.sector_size);
        let mut buffer = vec![0; size];
        (self.read)(offset, &mut buffer).map_err(|source| GptError::Read { offset, source })?;
        Ok(buffer)
    }
}

fn parse_header(sector: &[u8], lba: u64, sectors: u64) -> Result<Header, GptError> {
    if &sector[..8] != SIGNATURE {
        return Err(GptError::Absent);
    }
    let header_size = u32_at(sector, 12);
    if u32_at(sector, 8) != REVISION_1_0
        || header_size < HEADER_SIZE
        || header_size as usize > sector.len()
    {
        return Err(GptError::Invalid(
            "the table's header has an unknown revision or size",
        ));
    }
    let mut checked = sector[..header_size as usize].to_vec();
    checked[16..20].fill(0);
    if crc32(&checked) != u32_at(sector, 16) {
        return Err(GptError::Invalid(
            "the table's header does not match its checksum",
        ));
    }
    let header = Header {
        first_usable: u64_at(sector, 40),
        last_usable: u64_at(sector, 48),
        entries_lba: u64_at(sector, 72),
        entries: u32_at(sector, 80),
        entry_size: u32_at(sector, 84),
        entries_crc: u32_at(sector, 88),
    };
    if u64_at(sector, 24) != lba {
        return Err(GptError::Invalid(
            "the table's header stands in another place than it says",
        ));
    }
    if header.last_usable >= sectors || header.entries_lba == 0 || header.entries_lba >= sectors {
        return Err(GptError::Invalid(
            "the table reaches beyond the end of the disk",
        ));
    }
    let size_is_valid =
        header.entry_size.is_power_of_two() && (ENTRY_SIZE..=4096).contains(&header.entry_size);
    if header.entries > MAX_ENTRIES || !size_is_valid {
        return Err(GptError::Invalid(
            "the number or the size of the partition entries is out of range",
        ));
    }
    Ok(header)
}

/// `None`: the entry is not used.
fn parse_entry(entry: &[u8], number: u32, header: &Header) -> Result<Option<Partition>, GptError> {
    if guid_at(entry, 0).is_zero() {
        return Ok(None);
    }
    let (first_lba, last_lba) = (u64_at(entry, 32), u64_at(entry, 40));
    if first_lba > last_lba || first_lba < header.first_usable || last_lba > header.last_usable {
        return Err(GptError::Invalid(
            "a partition lies outside of the usable sectors",
        ));
    }
    Ok(Some(Partition {
        number,
        guid: guid_at(entry, 16),
        first_lba,
        last_lba,
    }))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a slice of four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(
        bytes[at..at + 8]
            .try_into()
            .expect("a slice of eight bytes"),
    )
}

fn guid_at(bytes: &[u8], at: usize) -> Guid {
    Guid::from_table(
        bytes[at..at + 16]
            .try_into()
            .expect("a slice of sixteen bytes"),
    )
}

/// CRC-32 of IEEE 802.3, as UEFI asks.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = crc_table();
    !bytes.iter().fold(!0, |crc, &byte| {
        (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)]
    })
}

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut crc = at as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                0xEDB8_8320 ^ (crc >> 1)
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(in crate::gpt) const SECTORS: u64 = 4096;
    pub(in crate::gpt) const ROOT: &str = "01234567-89ab-cdef-0123-456789abcdef";

    /// A disk with one partition (sectors 2048 to 3000) and both tables.
    pub(in crate::gpt) fn sample() -> Vec<u8> {
        let mut disk = vec![0_u8; 512 * SECTORS as usize];
        let mut array = vec![0_u8; 128 * 128];
        array[..16].fill(7);
        array[16..32].copy_from_slice(&Guid::from_table(Guid::parse(ROOT).unwrap().0).0);
        array[32..40].copy_from_slice(&2048_u64.to_le_bytes());
        array[40..48].copy_from_slice(&3000_u64.to_le_bytes());
        for (lba, entries_lba) in [(1, 2), (SECTORS - 1, SECTORS - 33)] {
            let at = 512 * entries_lba as usize;
            disk[at..at + array.len()].copy_from_slice(&array);
            write_header(&mut disk, lba, entries_lba, crc32(&array));
        }
        disk
    }

    fn write_header(disk: &mut [u8], lba: u64, entries_lba: u64, entries_crc: u32) {
        let header = &mut disk[512 * lba as usize..][..512];
        header[..8].copy_from_slice(SIGNATURE);
        header[8..12].copy_from_slice(&REVISION_1_0.to_le_bytes());
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        header[24..32].copy_from_slice(&lba.to_le_bytes());
        header[40..48].copy_from_slice(&34_u64.to_le_bytes());
        header[48..56].copy_from_slice(&(SECTORS - 34).to_le_bytes());
        header[72..80].copy_from_slice(&entries_lba.to_le_bytes());
        header[80..84].copy_from_slice(&128_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        header[88..92].copy_from_slice(&entries_crc.to_le_bytes());
        sign(header);
    }

    fn sign(header: &mut [u8]) {
        header[16..20].fill(0);
        let crc = crc32(&header[..92]);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
    }

    fn read(disk: &[u8]) -> Result<Vec<Partition>, GptError> {
        let read_at = |offset: u64, buffer: &mut [u8]| {
            let from = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
            let source = disk
                .get(from..from + buffer.len())
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(source);
            Ok(())
        };
        read_partitions(&read_at, 512, disk.len() as u64 / 512)
    }

    fn expected() -> Vec<Partition> {
        vec![Partition {
            number: 1,
            guid: Guid::parse(ROOT).unwrap(),
            first_lba: 2048,
            last_lba: 3000,
        }]
    }

    #[test]
    fn crc_is_the_known_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn guids_read_and_print_as_text() {
        assert_eq!(Guid::parse(&ROOT.to_uppercase()).unwrap().to_string(), ROOT);
        for bad in [
            "",
            "01234567-89ab-cdef-0123-456789abcde",
            "01234567x89ab-cdef-0123-456789abcdef",
            "ä",
        ] {
            assert_eq!(Guid::parse(bad), None, "{bad}");
        }
        assert_eq!(Guid::parse(&ROOT.replace('f', "g")), None);
    }

    #[test]
    fn a_good_table_is_read() {
        assert_eq!(read(&sample()).unwrap(), expected());
    }

    #[test]
    fn the_backup_stands_in_for_any_broken_byte_of_the_primary_header() {
        for at in 512..512 + 92 {
            let mut disk = sample();
            disk[at] ^= 0x40;
            assert_eq!(read(&disk).unwrap(), expected(), "byte {at}");
        }
    }

    #[test]
    fn the_backup_stands_in_for_broken_entries() {
        let mut disk = sample();
        disk[1024 + 40] ^= 1;
        assert_eq!(read(&disk).unwrap(), expected());
    }

    #[test]
    fn two_broken_tables_are_an_error() {
        let mut disk = sample();
        let end = disk.len();
        disk[512 + 50] ^= 1;
        disk[end - 512 + 50] ^= 1;
        assert!(
            matches!(read(&disk), Err(GptError::Invalid(reason)) if reason.contains("checksum"))
        );
    }

    #[test]
    fn a_disk_without_a_table_or_without_room_for_one_has_none() {
        for size in [0, 1, 2, 3, 64] {
            assert!(
                matches!(read(&vec![0; size * 512]), Err(GptError::Absent)),
                "{size} sectors"
            );
        }
    }

    #[test]
    fn hostile_headers_with_good_checksums_are_refused() {
        let cases: &[(&str, usize, &[u8])] = &[
            ("huge entry count", 80, &u32::MAX.to_le_bytes()),
            ("huge entries", 84, &u32::MAX.to_le_bytes()),
            ("no entry size", 84, &0_u32.to_le_bytes()),
            ("odd entry size", 84, &129_u32.to_le_bytes()),
            ("entries beyond the end", 72, &u64::MAX.to_le_bytes()),
            (
                "entries that cross the end",
                72,
                &(SECTORS - 1).to_le_bytes(),
            ),
            ("last usable beyond the end", 48, &SECTORS.to_le_bytes()),
            ("another place", 24, &2_u64.to_le_bytes()),
        ];
        for (what, at, bytes) in cases {
            let mut disk = sample();
            let end = disk.len();
            for start in [512, end - 512] {
                let header = &mut disk[start..start + 512];
                header[*at..at + bytes.len()].copy_from_slice(bytes);
                sign(header);
            }
            assert!(read(&disk).is_err(), "{what}");
        }
    }

    #[test]
    fn partitions_outside_of_the_disk_are_refused() {
        for (first, last) in [
            (3000_u64, 2048_u64),
            (1, 2048),
            (2048, SECTORS),
            (u64::MAX, u64::MAX),
        ] {
            let mut disk = sample();
            for (lba, entries_lba) in [(1, 2), (SECTORS - 1, SECTORS - 33)] {
                let at = 512 * entries_lba as usize;
                disk[at + 32..at + 40].copy_from_slice(&first.to_le_bytes());
                disk[at + 40..at + 48].copy_from_slice(&last.to_le_bytes());
                let crc = crc32(&disk[at..at + 128 * 128]);
                write_header(&mut disk, lba, entries_lba, crc);
            }
            assert!(
                matches!(read(&disk), Err(GptError::Invalid(_))),
                "{first}..{last}"
            );
        }
    }
}
