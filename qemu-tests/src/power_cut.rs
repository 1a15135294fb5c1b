//! Power cuts of a disk with a volatile cache, many from one boot.
//!
//! A killed QEMU loses nothing that the guest wrote, as the host's cache has it: that is a disk whose cache survives.
//! A real one loses what it had not flushed. So QEMU logs each write and flush of the guest (its `blklogwrites`
//! driver, in the format of Linux's dm-log-writes), and any moment of the log gives the disk that a power cut would
//! have left then: all that was flushed, and of what came later an arbitrary part, in blocks of 4 KiB, which disks
//! write as a whole. What a guest had been told to be on the medium is known by the length of the log when its word
//! arrived.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
/// What a disk writes as a whole or not at all.
const BLOCK: usize = 4096;

/// One entry of the log.
#[derive(Debug, Clone)]
struct Entry {
    offset: u64,
    flags: u64,
    /// Where its bytes are in the log, and how many.
    data: (u64, usize),
}

/// The log of a guest's writes.
#[derive(Debug)]
pub struct WriteLog {
    path: PathBuf,
    entries: Vec<Entry>,
}

/// Random numbers from a seed: xorshift64*.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        high as usize % limit.max(1)
    }
}

impl WriteLog {
    /// Reads a log up to its last whole entry; a QEMU that was killed may leave half of one.
    ///
    /// # Errors
    /// If it is no log.
    pub fn read(path: &Path) -> Result<Self> {
        let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let len = file.metadata()?.len();
        let mut head = [0; 32];
        file.read_exact(&mut head).context("read the log's head")?;
        let number = |bytes: &[u8], at: usize| {
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
        };
        ensure!(
            number(&head, 0) == MAGIC,
            "{} is no log of writes",
            path.display()
        );
        let sector = number(&head, 24) & 0xffff_ffff;
        ensure!(
            sector.is_power_of_two() && sector >= 512,
            "sectors of {sector} bytes"
        );
        let mut entries = Vec::new();
        let mut at = sector;
        loop {
            let mut entry = [0; 32];
            file.seek(SeekFrom::Start(at))?;
            if file.read_exact(&mut entry).is_err() {
                break;
            }
            let flags = number(&entry, 16);
            let has_data = flags & DISCARD == 0;
            let size = if has_data {
                number(&entry, 8) * sector
            } else {
                0
            };
            let end = at + sector + size;
            // The log is of whole sectors, the first of which is never all zeros for a write or a flush.
            if end > len || (size == 0 && flags & (FLUSH | DISCARD) == 0) {
                break;
            }
            entries.push(Entry {
                offset: number(&entry, 0) * sector,
                flags,
                data: (at + sector, usize::try_from(size)?),
            });
            at = end;
        }
        Ok(Self {
            path: path.to_owned(),
            entries,
        })
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Makes of `disk`, as it was before the boot, what a power cut after `cut` entries leaves.
    ///
    /// # Errors
    /// If the log or the disk cannot be read and written.
    pub fn replay(&self, disk: &Path, cut: usize, random: &mut Random) -> Result<()> {
        let log = File::open(&self.path)?;
        let disk = File::options().write(true).open(disk)?;
        let entries = &self.entries[..cut.min(self.entries.len())];
        let last_flush = entries.iter().rposition(|entry| entry.flags & FLUSH != 0);
        for (index, entry) in entries.iter().enumerate() {
            let is_safe = last_flush.is_some_and(|flush| index <= flush) || entry.flags & FUA != 0;
            let (at, len) = entry.data;
            let mut bytes = vec![0; len];
            log.read_exact_at(&mut bytes, at)?;
            for (number, block) in bytes.chunks(BLOCK).enumerate() {
                if is_safe || random.below(2) == 0 {
                    disk.write_all_at(block, entry.offset + (number * BLOCK) as u64)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of: write 1 at 0, flush, write 2 at 4096, FUA write 3 at 8192, half an entry.
    fn sample(path: &Path) {
        let mut bytes = Vec::new();
        let mut sector = |words: &[u64]| {
            let start = bytes.len();
            words
                .iter()
                .for_each(|word| bytes.extend(word.to_le_bytes()));
            bytes.resize(start + 512, 0);
            start
        };
        sector(&[MAGIC, 1, 4, 512]);
        for (offset, flags, fill) in [
            (0, 0, 1),
            (0, FLUSH, 0),
            (8, 0, 2),
            (16, FUA, 3),
            (24, 0, 4),
        ] {
            let sectors = if fill == 0 { 0 } else { 8 };
            sector(&[offset, sectors, flags, 0]);
            for _ in 0..sectors {
                sector(&[u64::from_le_bytes([fill; 8])]);
            }
        }
        bytes.truncate(bytes.len() - 1000);
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn what_was_flushed_is_kept_and_what_was_not_may_be_lost() {
        let folder = std::env::temp_dir().join(format!("power-cut-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (log, disk) = (folder.join("log"), folder.join("disk"));
        sample(&log);
        let log = WriteLog::read(&log).unwrap();
        assert_eq!(log.len(), 4);
        let mut kept = [0, 0];
        for seed in 1..40 {
            std::fs::write(&disk, vec![0; 16384]).unwrap();
            log.replay(&disk, 4, &mut Random::new(seed)).unwrap();
            let bytes = std::fs::read(&disk).unwrap();
            assert_eq!((bytes[0], bytes[8192], bytes[12288]), (1, 3, 0));
            kept[usize::from(bytes[4096] == 2)] += 1;
        }
        assert!(kept.iter().all(|&times| times > 5), "{kept:?}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
