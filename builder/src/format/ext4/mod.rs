//! An empty ext4 filesystem with a journal, as the state partition begins its life
//! (`Documentation/filesystems/ext4` of Linux).
//!
//! Blocks of 4096 bytes; extents, 64-bit block numbers, flexible groups, metadata checksums; a root directory,
//! `lost+found`, a journal and the project quota that holds volumes to their size, nothing else. Room for descriptors is reserved, so the kernel grows it while mounted
//! (`EXT4_IOC_RESIZE_FS`). Files cannot be put in, and nothing is read back.

mod geometry;
mod group;
mod inode;
mod quota;
mod superblock;

use std::io;

use uuid::Uuid;

use self::geometry::Geometry;
use super::region::Region;

const BLOCK: u64 = 4096;
const BLOCK_LEN: usize = BLOCK as usize;
const BLOCKS_PER_GROUP: u64 = 8 * BLOCK;
const INODE_LEN: usize = 256;
const DESCRIPTOR_LEN: usize = 64;
const ROOT_INODE: u32 = 2;
const RESIZE_INODE: u32 = 7;
const JOURNAL_INODE: u32 = 8;
const LOST_FOUND_INODE: u32 = 11;
/// The project quota's, in no directory.
const QUOTA_INODE: u32 = 12;
/// The highest in use.
const LAST_INODE: u32 = QUOTA_INODE;
/// Block numbers in a block.
const ADDRESSES_PER_BLOCK: u64 = BLOCK / 4;

/// What a filesystem depends on besides its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The filesystem's identifier; checksums and the directory hash seed follow from it.
    pub uuid: Uuid,
    /// Its label, 16 bytes at most.
    pub label: String,
    /// When it was made, seconds since the epoch; clamped to 1970 to 2106.
    pub time: i64,
}

/// Why a filesystem was not written.
#[derive(Debug, thiserror::Error)]
pub enum Ext4Error {
    /// Less than 16 MiB or more than 16 TiB.
    #[error("{len} bytes cannot be an ext4 filesystem: 16 MiB to 16 TiB can")]
    BadLength {
        /// The length.
        len: u64,
    },
    /// The label is longer than 16 bytes.
    #[error("the ext4 label {0:?} is longer than 16 bytes")]
    LongLabel(String),
    /// The filesystem does not write.
    #[error("cannot write the ext4 filesystem")]
    Write(#[from] io::Error),
}

/// Writes an empty filesystem that fills `out`. A fresh window stays sparse; in another one the inode tables and
/// the journal are overwritten with zeros.
///
/// # Errors
/// [`Ext4Error`].
pub fn write(out: &Region<'_>, options: &Options) -> Result<(), Ext4Error> {
    if options.label.len() > 16 {
        return Err(Ext4Error::LongLabel(options.label.clone()));
    }
    let geometry = Geometry::new(out.len())?;
    let writer = Writer {
        out,
        geometry,
        options,
        seed: checksum(u32::MAX, options.uuid.as_bytes()),
    };
    writer.write()?;
    Ok(())
}

/// The start of a filesystem of `len` bytes up to where blocks are free: all that has to be written of one that has
/// a single group.
///
/// # Errors
/// [`Ext4Error`]; more than one group, too, is a length that cannot be.
pub fn metadata(len: u64, options: &Options) -> Result<Vec<u8>, Ext4Error> {
    let geometry = Geometry::new(len)?;
    if geometry.groups > 1 {
        return Err(Ext4Error::BadLength { len });
    }
    let file = tempfile::tempfile()?;
    file.set_len(len)?;
    let region = Region::new(&file, 0, len).fresh();
    write(&region, options)?;
    let mut bytes = vec![0; (geometry.first_free * BLOCK) as usize];
    region.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

struct Writer<'a> {
    out: &'a Region<'a>,
    geometry: Geometry,
    options: &'a Options,
    /// What metadata checksums begin with.
    seed: u32,
}

impl Writer<'_> {
    fn write(&self) -> io::Result<()> {
        let mut descriptors =
            Vec::with_capacity(self.geometry.descriptor_blocks as usize * BLOCK_LEN);
        for group in 0..self.geometry.groups {
            self.zero_tables(group)?;
            descriptors.extend(self.write_bitmaps(group)?);
        }
        descriptors.resize(descriptors.len().next_multiple_of(BLOCK_LEN), 0);
        self.write_inodes()?;
        self.write_directories()?;
        self.write_journal()?;
        self.write_resize_blocks()?;
        self.zero(self.geometry.quota, geometry::QUOTA_BLOCKS)?;
        self.put(self.geometry.quota, &quota::render())?;
        for group in (0..self.geometry.groups).filter(|group| geometry::has_superblock(*group)) {
            let first = group * BLOCKS_PER_GROUP;
            let superblock =
                superblock::render(&self.geometry, self.options, group, &self.journal_map());
            // The first block begins with 1024 bytes for a boot loader, only in group 0.
            let boot = if group == 0 { 1024 } else { 0 };
            let mut block = superblock.to_vec();
            block.resize(BLOCK_LEN - boot, 0);
            self.out.write_all_at(&block, first * BLOCK + boot as u64)?;
            self.put(first + 1, &descriptors)?;
        }
        Ok(())
    }

    fn put(&self, block: u64, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all_at(bytes, block * BLOCK)
    }

    fn zero(&self, block: u64, blocks: u64) -> io::Result<()> {
        if self.out.is_fresh() {
            return Ok(());
        }
        (block..block + blocks).try_for_each(|block| self.put(block, &[0; BLOCK_LEN]))
    }
}

/// CRC-32C as the kernel has it: with a seed, without inversions.
fn checksum(seed: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, bytes)
}

/// Writes little-endian words of 32 bits at places of a structure.
fn put_u32s(bytes: &mut [u8], words: &[(usize, u32)]) {
    for (at, word) in words {
        bytes[*at..*at + 4].copy_from_slice(&word.to_le_bytes());
    }
}

/// Writes little-endian words of 16 bits at places of a structure.
fn put_u16s(bytes: &mut [u8], words: &[(usize, u16)]) {
    for (at, word) in words {
        bytes[*at..*at + 2].copy_from_slice(&word.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn options() -> Options {
        Options {
            uuid: Uuid::from_u128(5),
            label: "state".into(),
            time: 1_700_000_000,
        }
    }

    #[test]
    fn fresh_and_used_windows_give_the_same_bytes() {
        let len = 20 << 20;
        let fresh = tempfile::tempfile().unwrap();
        fresh.set_len(len).unwrap();
        write(&Region::new(&fresh, 0, len).fresh(), &options()).unwrap();
        let used = tempfile::tempfile().unwrap();
        used.write_all_at(&vec![0xa5; len as usize], 0).unwrap();
        write(&Region::new(&used, 0, len), &options()).unwrap();
        let geometry = Geometry::new(len).unwrap();
        let metadata = (geometry.first_free * BLOCK) as usize;
        let (mut a, mut b) = (vec![0; metadata], vec![0; metadata]);
        fresh.read_exact_at(&mut a, 0).unwrap();
        used.read_exact_at(&mut b, 0).unwrap();
        // What lies before the superblock is the boot loader's.
        assert!(a[1024..] == b[1024..]);
    }

    #[test]
    fn lengths_and_labels_that_do_not_fit_are_refused() {
        let file = tempfile::tempfile().unwrap();
        for len in [0, 4096, (16 << 20) - 1, (16 << 40) + 1] {
            let error = write(&Region::new(&file, 0, len), &options()).unwrap_err();
            assert!(matches!(error, Ext4Error::BadLength { .. }), "{len}");
        }
        let long = Options {
            label: "seventeen letters".into(),
            ..options()
        };
        let error = write(&Region::new(&file, 0, 16 << 20), &long).unwrap_err();
        assert!(matches!(error, Ext4Error::LongLabel(_)));
    }

    #[test]
    fn checksums_are_the_kernels() {
        // The check value of CRC-32C, without its final inversion.
        assert_eq!(checksum(u32::MAX, b"123456789"), !0xe306_9283);
    }
}
