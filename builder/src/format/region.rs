//! A window of a file, read and written by positioned I/O.
//!
//! A window never reads or writes outside itself: reading stops at its end, writing past it is an error. It has
//! a position of its own and leaves the file's alone, so several windows of one file live side by side.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use super::is_zero;

/// The unit in which a fresh window stays sparse.
const BLOCK: u64 = 4096;

/// A window of a file.
#[derive(Debug, Clone)]
pub struct Region<'f> {
    file: &'f File,
    offset: u64,
    len: u64,
    position: u64,
    fresh: bool,
}

impl<'f> Region<'f> {
    /// The `len` bytes of `file` from `offset` on.
    pub fn new(file: &'f File, offset: u64, len: u64) -> Self {
        Self {
            file,
            offset,
            len,
            position: 0,
            fresh: false,
        }
    }

    /// The same window, of a file that reads as zeros there (new or just made longer): blocks of zeros are not
    /// written, so the file stays sparse. The file's length is the caller's to set.
    #[must_use]
    pub fn fresh(mut self) -> Self {
        self.fresh = true;
        self
    }

    /// Whether the file is known to read as zeros where nothing was written.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Bytes of the window.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the window has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A window of this window.
    ///
    /// # Errors
    /// `InvalidInput`, if it does not lie inside.
    pub fn part(&self, offset: u64, len: u64) -> io::Result<Self> {
        self.check(offset, len)?;
        Ok(Self {
            offset: self.offset + offset,
            len,
            position: 0,
            ..*self
        })
    }

    /// Fills `buffer` from `at` on.
    ///
    /// # Errors
    /// `UnexpectedEof`, if the window or the file ends before; otherwise the system's.
    pub fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.check(at, buffer.len() as u64)
            .map_err(|_| io::ErrorKind::UnexpectedEof)?;
        self.file.read_exact_at(buffer, self.offset + at)
    }

    /// Writes `bytes` at `at`.
    ///
    /// # Errors
    /// `InvalidInput`, if they reach past the window's end, in which case nothing is written; otherwise the
    /// system's.
    pub fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.check(at, bytes.len() as u64)?;
        if !self.fresh {
            return self.file.write_all_at(bytes, self.offset + at);
        }
        let mut done = 0;
        while done < bytes.len() {
            let (zeros, filled) = next_run(&bytes[done..], at + done as u64);
            done += zeros;
            let run = &bytes[done..done + filled];
            self.file
                .write_all_at(run, self.offset + at + done as u64)?;
            done += filled;
        }
        Ok(())
    }

    fn check(&self, at: u64, len: u64) -> io::Result<()> {
        match at.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{len} bytes at {at} reach past the end of a window of {} bytes",
                    self.len
                ),
            )),
        }
    }
}

/// Lengths of the run of zero blocks that `bytes`, which belong at `at`, begin with, and of the run of blocks
/// after it that are not zero.
fn next_run(bytes: &[u8], at: u64) -> (usize, usize) {
    let mut zeros = 0;
    let mut filled = 0;
    while zeros + filled < bytes.len() {
        let here = zeros + filled;
        let to_boundary = BLOCK - (at + here as u64) % BLOCK;
        let end = bytes.len().min(here + to_boundary as usize);
        match (is_zero(&bytes[here..end]), filled) {
            (true, 0) => zeros = end,
            (true, _) => break,
            (false, _) => filled = end - zeros,
        }
    }
    (zeros, filled)
}

impl Read for Region<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.len.saturating_sub(self.position);
        let want = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let got = self
            .file
            .read_at(&mut buffer[..want], self.offset + self.position)?;
        self.position += got as u64;
        Ok(got)
    }
}

impl Write for Region<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all_at(bytes, self.position)?;
        self.position += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Region<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn writes_past_the_end_are_refused_and_change_nothing() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(100).unwrap();
        let mut window = Region::new(&file, 10, 20);
        assert!(window.write_all_at(&[1; 21], 0).is_err());
        assert!(window.write_all_at(&[1], 20).is_err());
        assert!(window.write_all_at(&[1], u64::MAX).is_err());
        window.seek(SeekFrom::End(-1)).unwrap();
        assert!(window.write(&[1, 1]).is_err());
        let mut all = vec![1; 100];
        file.read_exact_at(&mut all, 0).unwrap();
        assert_eq!(all, [0; 100]);
    }

    #[test]
    fn reading_stops_at_the_end() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"0123456789", 0).unwrap();
        let mut window = Region::new(&file, 3, 4);
        let mut text = String::new();
        window.read_to_string(&mut text).unwrap();
        assert_eq!(text, "3456");
        assert!(window.read_exact_at(&mut [0; 2], 3).is_err());
        assert!(window.part(3, 2).is_err());
        let mut one = [0];
        let part = window.part(3, 1).unwrap();
        part.read_exact_at(&mut one, 0).unwrap();
        assert_eq!(one, *b"6");
    }

    #[test]
    fn fresh_windows_stay_sparse_and_read_back_equal() {
        let file = tempfile::tempfile().unwrap();
        let mut bytes = vec![0; 3 << 20];
        bytes[1_000_000] = 1;
        bytes[2_500_001] = 2;
        file.set_len(4 << 20).unwrap();
        let window = Region::new(&file, 512, 3 << 20).fresh();
        window.write_all_at(&bytes, 0).unwrap();
        let mut back = vec![9; 3 << 20];
        window.read_exact_at(&mut back, 0).unwrap();
        assert!(back == bytes);
        let allocated = file.metadata().unwrap().blocks() * 512;
        assert!(allocated < 1 << 20, "{allocated} bytes allocated");
    }
}
