//! A file that appears whole or not at all.
//!
//! It is written without a name and gets one only when it is complete, so a build that fails, is interrupted or
//! is killed leaves the earlier file as it was and no litter. Where the file system has no nameless files, a
//! hidden name stands in and is removed on failure.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

/// What could not be done to the file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}", path.display())]
pub struct OutputError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A file on its way.
#[derive(Debug)]
pub struct Output {
    file: File,
    target: PathBuf,
    /// Its name so far, where it has one.
    hidden: Option<PathBuf>,
}

impl Output {
    /// Begins a file that will be `target`.
    ///
    /// # Errors
    /// The folder is missing or cannot be written, or `target` is there and no regular file: renaming would put
    /// the image in a device's place.
    pub fn create(target: &Path) -> Result<Self, OutputError> {
        let fail = |source: io::Error| OutputError {
            operation: "create",
            path: target.to_owned(),
            source,
        };
        match std::fs::metadata(target) {
            Ok(there) if there.is_dir() => return Err(fail(io::ErrorKind::IsADirectory.into())),
            Ok(there) if !there.is_file() => {
                return Err(fail(io::Error::other("it is there and no regular file")));
            }
            Err(_) if target.as_os_str().as_bytes().ends_with(b"/") => {
                return Err(fail(io::Error::other("that is a folder's name")));
            }
            _ => {}
        }
        remove_left(target);
        let (file, hidden) = match nameless(folder_of(target)) {
            Ok(file) => (file, None),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {
                let hidden = hidden_name(target);
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .open(&hidden)
                    .map_err(fail)?;
                (file, Some(hidden))
            }
            Err(errno) => return Err(fail(errno.into())),
        };
        Ok(Self {
            file,
            target: target.to_owned(),
            hidden,
        })
    }

    /// The file, to read and write.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the complete file its name, in place of an earlier one, once its bytes are on the disk. Returns the state of
    /// this very file, whoever may have given the name to another one meanwhile.
    ///
    /// # Errors
    /// The disk is full, or the folder is gone.
    pub fn commit(mut self) -> Result<Metadata, OutputError> {
        let fail = |operation, source: io::Error| OutputError {
            operation,
            path: self.target.clone(),
            source,
        };
        self.file.sync_data().map_err(|e| fail("write", e))?;
        if self.hidden.is_none() {
            let hidden = hidden_name(&self.target);
            // What an earlier build left, killed between the two calls below.
            let _ = std::fs::remove_file(&hidden);
            let from = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            rustix::fs::linkat(CWD, from.as_str(), CWD, &hidden, AtFlags::SYMLINK_FOLLOW)
                .map_err(|e| fail("name", e.into()))?;
            self.hidden = Some(hidden);
        }
        if let Some(hidden) = &self.hidden {
            std::fs::rename(hidden, &self.target).map_err(|e| fail("name", e))?;
            self.hidden = None;
        }
        self.file.metadata().map_err(|e| fail("read", e))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(hidden) = &self.hidden {
            let _ = std::fs::remove_file(hidden);
        }
    }
}

fn folder_of(target: &Path) -> &Path {
    match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Removes what builds of the same target left that were killed while they gave it its name.
fn remove_left(target: &Path) {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let begin = format!(".{name}.");
    let is_of_the_dead = |file: &str| {
        let process = file
            .strip_prefix(&begin)
            .and_then(|rest| rest.strip_suffix(".tmp"));
        process
            .filter(|process| !process.is_empty() && process.bytes().all(|b| b.is_ascii_digit()))
            .is_some_and(|process| !Path::new("/proc").join(process).exists())
    };
    for entry in std::fs::read_dir(folder_of(target))
        .into_iter()
        .flatten()
        .flatten()
    {
        if entry.file_name().to_str().is_some_and(is_of_the_dead) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn nameless(folder: &Path) -> rustix::io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::from_raw_mode(0o666)).map(File::from)
}

/// A name beside the target that no two builds at once share.
fn hidden_name(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    folder_of(target).join(format!(".{name}.{}.tmp", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(folder: &Path) -> Vec<String> {
        std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_dropped_file_leaves_the_earlier_one_and_no_litter() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.img");
        std::fs::write(&target, "earlier").unwrap();
        let output = Output::create(&target).unwrap();
        output.file().write_all(b"half").unwrap();
        drop(output);
        assert_eq!(std::fs::read(&target).unwrap(), b"earlier");
        assert_eq!(names(folder.path()), ["a.img"]);
    }

    #[test]
    fn a_committed_file_replaces_the_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.img");
        std::fs::write(&target, "earlier").unwrap();
        let output = Output::create(&target).unwrap();
        output.file().write_all(b"new").unwrap();
        output.commit().unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["a.img"]);
    }

    #[test]
    fn what_a_killed_build_left_is_removed_and_what_a_living_one_writes_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.img");
        let living = format!(".a.img.{}.tmp", std::process::id());
        // No process has a number as high as that.
        for name in [
            ".a.img.99999999.tmp",
            &living,
            ".a.img.tmp",
            ".b.img.99999999.tmp",
        ] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        drop(Output::create(&target).unwrap());
        let mut left = names(folder.path());
        left.sort();
        let mut kept = [living.as_str(), ".a.img.tmp", ".b.img.99999999.tmp"];
        kept.sort_unstable();
        assert_eq!(left, kept);
    }

    #[test]
    fn a_device_is_not_replaced() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("null");
        symlink("/dev/null", &link).unwrap();
        for target in [Path::new("/dev/null"), &link] {
            let error = Output::create(target).unwrap_err();
            assert!(error.source.to_string().contains("no regular file"));
        }
    }

    #[test]
    fn a_missing_folder_and_a_folder_as_target_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = Output::create(&folder.path().join("none/a.img")).unwrap_err();
        assert!(error.to_string().contains("none/a.img"), "{error}");
        assert!(Output::create(folder.path()).is_err());
        let error = Output::create(&folder.path().join("images/")).unwrap_err();
        assert!(error.source.to_string().contains("folder's name"));
    }
}
