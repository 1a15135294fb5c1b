//! The files of one stream: `00000001.log`, `00000002.log`, …, bounded together, and the last line in them.
//!
//! A new file has the next number, and the oldest ones are removed for it: nothing is renamed, so every moment in
//! between is a good one. What is behind the last `\n` was being written when something ended, and is cut off.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::line::{self, Position};

/// How many files share the size.
const FILES: u64 = 4;
/// The least size of a file: the longest line.
const LEAST: u64 = 4096;
/// What is looked at of a file's end for its last line: some lines of the greatest length.
const WINDOW: u64 = 16 * 1024;

#[derive(Debug)]
struct Current {
    number: u32,
    file: File,
    length: u64,
}

/// The files of one stream, open to append.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    limit: u64,
    current: Option<Current>,
    /// Files with lines that may not be on the disk yet, but for the current one.
    unsynced: Vec<File>,
    is_dirty: bool,
    is_new: bool,
    last: Option<Position>,
}

impl Files {
    /// Opens what is there, or makes the directory. `size` bounds all files together.
    ///
    /// # Errors
    /// With the kernel's reason, when the directory or its files cannot be used.
    pub fn open(directory: &Path, size: u64) -> io::Result<Self> {
        make_directory(directory)?;
        let mut files = Self {
            directory: directory.to_owned(),
            limit: (size / FILES).max(LEAST),
            current: None,
            unsynced: Vec::new(),
            is_dirty: false,
            is_new: true,
            last: None,
        };
        let numbers = numbers(directory)?;
        trim(directory, &numbers, files.limit * FILES)?;
        if let Some(&newest) = numbers.last() {
            files.open_newest(newest)?;
        }
        files.last = last_position(directory, &numbers)?;
        Ok(files)
    }

    /// The last line that is there.
    #[must_use]
    pub const fn last(&self) -> Option<Position> {
        self.last
    }

    /// Something waits for [`Files::sync`].
    #[must_use]
    pub const fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// Appends whole lines. After an error [`Files::last`] tells which of them are there.
    ///
    /// # Errors
    /// With the kernel's reason: the disk is full or does not work.
    pub fn append(&mut self, lines: &str) -> io::Result<()> {
        let mut rest = lines;
        while !rest.is_empty() {
            let room = self.limit.saturating_sub(self.length());
            let fitting = match whole_lines(rest, room) {
                0 if self.length() > 0 => {
                    self.rotate()?;
                    continue;
                }
                // A line alone that does not fit into an empty file: it is written all the same.
                0 => rest.find('\n').map_or(rest.len(), |end| end + 1),
                fitting => fitting,
            };
            let (head, tail) = rest.split_at(fitting);
            self.write(head)?;
            rest = tail;
        }
        Ok(())
    }

    /// Has everything on the disk.
    ///
    /// # Errors
    /// With the kernel's reason; it will not be tried again for the same lines.
    pub fn sync(&mut self) -> io::Result<()> {
        self.is_dirty = false;
        let old = std::mem::take(&mut self.unsynced);
        let current = self.current.as_ref().map(|current| &current.file);
        for file in old.iter().chain(current) {
            rustix::fs::fdatasync(file)?;
        }
        if std::mem::take(&mut self.is_new) {
            File::open(&self.directory)?.sync_all()?;
        }
        Ok(())
    }

    fn length(&self) -> u64 {
        self.current.as_ref().map_or(0, |current| current.length)
    }

    fn open_newest(&mut self, number: u32) -> io::Result<()> {
        let path = path(&self.directory, number);
        let file = OpenOptions::new().read(true).append(true).open(&path)?;
        let length = file.metadata()?.len();
        let (at, window) = read_window(&file, length)?;
        let whole = window.iter().rposition(|&byte| byte == b'\n');
        let end = match whole {
            Some(newline) => at + newline as u64 + 1,
            None if at == 0 => 0,
            // Damaged: it stays as it is, and the lines go on in another file.
            None => length,
        };
        if end < length {
            file.set_len(end)?;
        }
        let length = if whole.is_none() && at > 0 {
            self.limit
        } else {
            end
        };
        self.current = Some(Current {
            number,
            file,
            length,
        });
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let number = self
            .current
            .as_ref()
            .map_or(1, |current| current.number + 1);
        let numbers = numbers(&self.directory)?;
        trim(&self.directory, &numbers, self.limit * (FILES - 1))?;
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path(&self.directory, number))?;
        let length = file.metadata()?.len();
        let new = Current {
            number,
            file,
            length,
        };
        if let Some(old) = self.current.replace(new) {
            self.unsynced.push(old.file);
        }
        if self.unsynced.len() > FILES as usize {
            // Removed by now, or about to be.
            self.unsynced.remove(0);
        }
        self.is_new = true;
        Ok(())
    }

    fn write(&mut self, lines: &str) -> io::Result<()> {
        if self.current.is_none() {
            self.rotate()?;
        }
        let Some(current) = &mut self.current else {
            return Err(io::ErrorKind::NotFound.into());
        };
        self.is_dirty = true;
        if let Err(error) = current.file.write_all(lines.as_bytes()) {
            // What is there of it must not stay: it would be written again.
            current.file.set_len(current.length)?;
            return Err(error);
        }
        current.length += lines.len() as u64;
        let last = lines.trim_end_matches('\n').rsplit('\n').next();
        self.last = last
            .and_then(|last| line::position(last.as_bytes()))
            .or(self.last);
        Ok(())
    }

    /// Gives the space of the oldest file back, if it is not the only one.
    ///
    /// # Errors
    /// When there is none to give, or it cannot be removed.
    pub fn give_way(&mut self) -> io::Result<()> {
        let numbers = numbers(&self.directory)?;
        match numbers[..] {
            [oldest, _, ..] => fs::remove_file(path(&self.directory, oldest)),
            _ => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

/// Makes a directory that only root reads, and what is above it.
///
/// # Errors
/// With the kernel's reason.
pub fn make_directory(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

/// Removes the oldest files until the others take `size` at most. The newest one stays in any case.
///
/// # Errors
/// When a file cannot be removed.
pub fn trim(directory: &Path, numbers: &[u32], size: u64) -> io::Result<()> {
    let mut total = 0;
    for (age, &number) in numbers.iter().rev().enumerate() {
        let path = path(directory, number);
        total += fs::metadata(&path)?.len();
        if age > 0 && (total > size || age as u64 >= FILES) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The numbers of the files that are there, oldest first.
///
/// # Errors
/// When the directory cannot be read.
pub fn numbers(directory: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        let number = name.strip_suffix(".log").map(str::parse::<u32>);
        // Another spelling of a number is somebody else's file.
        numbers.extend(
            number
                .and_then(Result::ok)
                .filter(|&n| file_name(n) == name),
        );
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The last line of ours in these files. Damaged ones are passed over.
///
/// # Errors
/// When a file cannot be read.
pub fn last_position(directory: &Path, numbers: &[u32]) -> io::Result<Option<Position>> {
    for &number in numbers.iter().rev() {
        let file = match File::open(path(directory, number)) {
            Ok(file) => file,
            // Trimmed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let (_, window) = read_window(&file, file.metadata()?.len())?;
        let complete = window.split_inclusive(|&byte| byte == b'\n');
        let mut lines = complete.rev().filter(|line| line.ends_with(b"\n"));
        if let Some(position) = lines.find_map(line::position) {
            return Ok(Some(position));
        }
    }
    Ok(None)
}

/// The end of a file, and where it begins.
fn read_window(file: &File, length: u64) -> io::Result<(u64, Vec<u8>)> {
    let at = length.saturating_sub(WINDOW);
    let mut window = Vec::new();
    let mut reader = file;
    reader.seek(SeekFrom::Start(at))?;
    reader.take(WINDOW).read_to_end(&mut window)?;
    Ok((at, window))
}

/// How many bytes of `lines` are whole lines that fit into `room`.
fn whole_lines(lines: &str, room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX).min(lines.len());
    lines.as_bytes()[..room]
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |end| end + 1)
}

fn path(directory: &Path, number: u32) -> PathBuf {
    directory.join(file_name(number))
}

fn file_name(number: u32) -> String {
    format!("{number:08}.log")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let id = std::process::id();
            let path = std::env::temp_dir().join(format!("coracle-log-files-{id}-{name}"));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }

        fn text(&self) -> String {
            let numbers = numbers(&self.0).unwrap().into_iter();
            numbers
                .map(|number| fs::read_to_string(path(&self.0, number)).unwrap())
                .collect()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn lines(numbers: std::ops::Range<u64>) -> String {
        numbers.fold(String::new(), |mut text, number| {
            writeln!(text, "1.{number} some time ago out text").unwrap();
            text
        })
    }

    const fn at(number: u64) -> Option<Position> {
        Some(Position { boot: 1, number })
    }

    #[test]
    fn files_with_odd_names_are_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["00000002.log", "1.log", "+0000003.log", "x.log", "00000004"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        assert_eq!(numbers(folder.path()).unwrap(), [2]);
        assert!(Files::open(folder.path(), 4096).is_ok());
    }

    #[test]
    fn lines_go_on_where_they_ended() {
        let scratch = Scratch::new("resume");
        let mut files = Files::open(&scratch.0, 1 << 20).unwrap();
        assert_eq!(files.last(), None);
        files.append(&lines(1..5)).unwrap();
        files.sync().unwrap();
        let mut files = Files::open(&scratch.0, 1 << 20).unwrap();
        assert_eq!(files.last(), at(4));
        files.append(&lines(5..9)).unwrap();
        assert_eq!(scratch.text(), lines(1..9));
    }

    #[test]
    fn a_torn_line_is_cut_off() {
        let scratch = Scratch::new("torn");
        let mut files = Files::open(&scratch.0, 1 << 20).unwrap();
        files.append(&lines(1..3)).unwrap();
        let torn = format!("{}1.3 some ti", scratch.text());
        fs::write(path(&scratch.0, 1), torn).unwrap();
        let mut files = Files::open(&scratch.0, 1 << 20).unwrap();
        assert_eq!(files.last(), at(2));
        files.append(&lines(3..4)).unwrap();
        assert_eq!(scratch.text(), lines(1..4));
    }

    #[test]
    fn the_files_stay_within_their_size_and_the_newest_lines_stay() {
        let scratch = Scratch::new("bound");
        let mut files = Files::open(&scratch.0, 16 * 1024).unwrap();
        for first in (1..10_000).step_by(7) {
            files.append(&lines(first..first + 7)).unwrap();
            let total = scratch.text().len();
            assert!(total <= 16 * 1024, "{total}");
        }
        let text = scratch.text();
        assert!(text.len() > 11 * 1024 && text.ends_with(&lines(9990..10_004)));
        assert_eq!(files.last(), at(10_003));
        let smaller = Files::open(&scratch.0, 8 * 1024).unwrap();
        assert!(scratch.text().len() <= 16 * 1024);
        assert_eq!(smaller.last(), at(10_003));
    }

    #[test]
    fn an_empty_newest_file_is_no_loss_of_the_place() {
        let scratch = Scratch::new("empty");
        let mut files = Files::open(&scratch.0, 1 << 20).unwrap();
        files.append(&lines(1..3)).unwrap();
        fs::write(path(&scratch.0, 2), "").unwrap();
        let files = Files::open(&scratch.0, 1 << 20).unwrap();
        assert_eq!(files.last(), at(2));
    }

    #[test]
    fn damage_is_left_alone_and_the_lines_go_on_behind_it() {
        let scratch = Scratch::new("damage");
        let mut files = Files::open(&scratch.0, 1 << 20).unwrap();
        files.append(&lines(1..3)).unwrap();
        fs::write(path(&scratch.0, 2), vec![0; 100_000]).unwrap();
        let mut files = Files::open(&scratch.0, 1 << 20).unwrap();
        assert_eq!(files.last(), at(2));
        files.append(&lines(3..5)).unwrap();
        assert!(scratch.text().ends_with(&lines(3..5)));
        assert_eq!(Files::open(&scratch.0, 1 << 20).unwrap().last(), at(4));
    }

    #[test]
    fn a_batch_larger_than_all_files_keeps_its_end() {
        let scratch = Scratch::new("batch");
        let mut files = Files::open(&scratch.0, 16 * 1024).unwrap();
        files.append(&lines(1..5000)).unwrap();
        assert!(scratch.text().len() <= 16 * 1024);
        assert!(scratch.text().ends_with(&lines(4990..5000)));
    }
}
