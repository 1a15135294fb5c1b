//! What the log process copies: lines of the rings and the kernel's messages, into the files of each stream.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, SeekFrom, seek};
use rustix::io::Errno;

use super::batch::{Stamp, batches};
use super::files::{self, Files};
use super::kernel;
use super::line::{self, Position};
use super::process::Arguments;
use super::ring::{Layout, Reader};
use super::{KERNEL, OWN, boots};

/// What is written at once.
const PIECE: usize = 64 * 1024;
/// Kernel messages that are copied in one turn.
const KERNEL_TURN: usize = 4096;
/// What is read of a ring at once: some batches of the greatest length.
const WINDOW: u64 = 256 * 1024;
/// All logs together take this part of the file system.
const PART: u64 = 4;

/// Where lines go.
#[derive(Debug)]
struct Target {
    directory: PathBuf,
    size: u64,
    boot: u64,
    /// The text of the line that begins a boot.
    mark: String,
}

/// One stream's files, opened with its first line.
#[derive(Debug)]
struct Stream {
    name: String,
    files: Option<Files>,
}

/// What copies, with everything that it holds open.
#[derive(Debug)]
pub(super) struct Copier {
    target: Target,
    reader: Reader,
    streams: Vec<Stream>,
    kernel: Option<Kernel>,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Kernel {
    device: OwnedFd,
    is_readable: bool,
    stream: Stream,
}

impl Copier {
    pub(super) fn open(arguments: &Arguments, memory: &File) -> io::Result<Self> {
        let directory = &arguments.directory;
        files::make_directory(directory)?;
        let size = bound(directory, arguments)?;
        let own = directory.join(OWN);
        let numbers = files::numbers(&own).unwrap_or_default();
        let floor = files::last_position(&own, &numbers)?.map_or(0, |last| last.boot);
        let boot = boots::enter(directory, &arguments.boot_id, &arguments.version, floor)?;
        let layout = Layout {
            rings: arguments.names.len(),
            capacity: arguments.capacity,
        };
        let stream = |name: &str| Stream {
            name: name.to_owned(),
            files: None,
        };
        Ok(Self {
            target: Target {
                directory: directory.clone(),
                size,
                boot,
                mark: format!("boot {} of {}", arguments.boot_id, arguments.version),
            },
            reader: Reader::new(memory.try_clone()?, layout),
            streams: arguments.names.iter().map(|name| stream(name)).collect(),
            kernel: open_kernel(&arguments.kernel).map(|device| Kernel {
                device,
                is_readable: true,
                stream: stream(KERNEL),
            }),
            bytes: vec![0; arguments.capacity.min(WINDOW) as usize],
        })
    }

    /// Copies everything that is there now. What fails keeps nothing else from being copied.
    pub(super) fn copy(&mut self) -> io::Result<()> {
        let mut result = Ok(());
        for ring in self.reader.filled()? {
            let copied = self.copy_ring(ring);
            if copied.is_err() {
                self.reader.rewind(ring);
            }
            result = result.and(copied);
        }
        if let Some(kernel) = &mut self.kernel {
            let copied = kernel.copy(&self.target);
            if copied.is_err() {
                // They are read again, from the oldest one on.
                kernel.is_readable &= seek(&kernel.device, SeekFrom::Start(0)).is_ok();
            }
            result = result.and(copied);
        }
        self.kernel.take_if(|kernel| !kernel.is_readable);
        result
    }

    fn copy_ring(&mut self, ring: usize) -> io::Result<()> {
        let stream = &mut self.streams[ring];
        loop {
            let length = self.reader.read(ring, &mut self.bytes)?;
            let mut writer = Writer::new(stream, &self.target)?;
            let mut end = 0;
            for (head, text, next) in batches(&self.bytes[..length]) {
                for (number, text) in (head.first..).zip(text.lines()) {
                    writer.line(number, head.stamp, head.origin.word(), text)?;
                }
                end = next;
            }
            writer.flush()?;
            if end == 0 {
                return Ok(());
            }
            self.reader.pass(ring, end as u64);
            self.reader.acknowledge(ring)?;
        }
    }

    fn all_files(&mut self) -> impl Iterator<Item = &mut Files> {
        let kernel = self.kernel.as_mut().map(|kernel| &mut kernel.stream);
        let streams = self.streams.iter_mut().chain(kernel);
        streams.filter_map(|stream| stream.files.as_mut())
    }

    pub(super) fn is_dirty(&self) -> bool {
        let kernel = self.kernel.as_ref().map(|kernel| &kernel.stream);
        let mut streams = self.streams.iter().chain(kernel);
        streams.any(|stream| stream.files.as_ref().is_some_and(Files::is_dirty))
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        let dirty = self.all_files().filter(|files| files.is_dirty());
        dirty.map(Files::sync).fold(Ok(()), Result::and)
    }

    /// Where the kernel's messages come from; `None`: they do not.
    pub(super) fn kernel_device(&self) -> Option<&OwnedFd> {
        self.kernel.as_ref().map(|kernel| &kernel.device)
    }
}

impl Kernel {
    fn copy(&mut self, target: &Target) -> io::Result<()> {
        let mut writer = Writer::new(&mut self.stream, target)?;
        let now = Stamp::now();
        let mut record = [0; 8192];
        for _ in 0..KERNEL_TURN {
            match rustix::io::read(&self.device, &mut record) {
                Ok(0) => break,
                Ok(size) => {
                    let Some(message) = kernel::parse(&record[..size]) else {
                        continue;
                    };
                    let age = now.boot.saturating_sub(message.at);
                    let age = i64::try_from(age.as_nanos()).unwrap_or(0);
                    let stamp = Stamp {
                        real: now.real.saturating_sub(age),
                        boot: message.at,
                    };
                    writer.line(message.number + 1, stamp, message.level, &message.text)?;
                }
                // EPIPE: messages were overwritten; the numbers will tell how many.
                Err(Errno::PIPE | Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    self.is_readable = false;
                    break;
                }
            }
        }
        writer.flush()
    }
}

/// Lines on their way into a stream's files.
struct Writer<'a> {
    stream: &'a mut Stream,
    target: &'a Target,
    /// The last line of this boot that is there or on its way; `None`: not even the mark.
    last: Option<u64>,
    out: String,
}

impl<'a> Writer<'a> {
    fn new(stream: &'a mut Stream, target: &'a Target) -> io::Result<Self> {
        if stream.files.is_none() {
            let directory = target.directory.join(&stream.name);
            stream.files = Some(Files::open(&directory, target.size)?);
        }
        let last = stream.files.as_ref().and_then(Files::last);
        Ok(Self {
            last: last
                .filter(|last| last.boot == target.boot)
                .map(|last| last.number),
            stream,
            target,
            out: String::new(),
        })
    }

    /// Adds a line unless it is there, and before it what has to be said: that the boot is another, that lines are
    /// missing.
    fn line(&mut self, number: u64, stamp: Stamp, word: &str, text: &str) -> io::Result<()> {
        if self.last.is_some_and(|last| number <= last) {
            return Ok(());
        }
        if self.last.is_none() {
            self.put(0, stamp, "boot", &self.target.mark);
        }
        let missing = number - 1 - self.last.unwrap_or(0);
        if missing > 0 {
            self.put(number - 1, stamp, "lost", &format!("{missing} lines lost"));
        }
        self.put(number, stamp, word, text);
        self.last = Some(number);
        if self.out.len() >= PIECE {
            self.flush()?;
        }
        Ok(())
    }

    fn put(&mut self, number: u64, stamp: Stamp, word: &str, text: &str) {
        let position = Position {
            boot: self.target.boot,
            number,
        };
        line::write(&mut self.out, position, stamp, word, text);
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(files) = &mut self.stream.files else {
            return Ok(());
        };
        let result = files.append(&self.out);
        self.out.clear();
        if result.as_ref().is_err_and(is_full) {
            // Older lines make way for newer ones: the next turn writes them.
            files.give_way()?;
        }
        result
    }
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StorageFull
}

/// Without the kernel's messages the log is poorer, and no more than that.
fn open_kernel(path: &str) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(
        Some(path).filter(|path| !path.is_empty())?,
        flags,
        Mode::empty(),
    )
    .ok()
}

/// What each stream may take, so that all of them, and those of workloads that are gone, take a part of the file
/// system only. Brings the files of those that are gone within it.
fn bound(directory: &Path, arguments: &Arguments) -> io::Result<u64> {
    let known = |name: &str| name == KERNEL || arguments.names.iter().any(|other| other == name);
    let mut gone = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.file_name().to_str().is_some_and(|n| !known(n)) {
            gone.push(entry.path());
        }
    }
    let space = rustix::fs::statvfs(directory)?;
    let streams = (arguments.names.len() + 1 + gone.len()) as u64;
    let share = space.f_blocks.saturating_mul(space.f_frsize) / PART / streams;
    let size = arguments.size.min(share);
    for directory in gone {
        files::trim(&directory, &files::numbers(&directory)?, size)?;
    }
    Ok(size)
}
