//! Volumes whose files were made by a version that counted none: a child gives each file and folder to the volume's
//! project, so that the count, and with it the size, is true.
//!
//! Workloads may use the volume all the while. A folder is given away after what is in it, since it takes no file of
//! another project from then on: nothing that comes later is missed, and the volume's own folder, the last one, says
//! that all is done. So a walk that was cut off goes on at the next one, past what is finished. No link is followed, and
//! only files and folders are opened; the others (links, pipes, sockets) have no project that could be set.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, DirEntry, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use crate::sys;

/// Folders in folders: each one takes a descriptor and some memory while its own are walked.
const DEPTH: usize = 128;
const OPEN: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// How a file belongs to a project.
pub(super) trait Projects {
    /// Whether it does; a folder also has to hand it on.
    fn has(&self, file: BorrowedFd<'_>, is_directory: bool) -> io::Result<bool>;
    /// Makes it so.
    fn take(&mut self, file: BorrowedFd<'_>, is_directory: bool) -> io::Result<()>;
}

/// The file system's project of this number.
pub(super) struct Project(pub(super) u32);

impl Projects for Project {
    fn has(&self, file: BorrowedFd<'_>, is_directory: bool) -> io::Result<bool> {
        sys::is_of_project(file, self.0, is_directory)
    }

    fn take(&mut self, file: BorrowedFd<'_>, is_directory: bool) -> io::Result<()> {
        sys::set_project(file, self.0, is_directory)
    }
}

/// What came of a walk.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Adopted {
    /// Files and folders that are counted now.
    pub(super) taken: u64,
    /// Those that are not: they lie too deep, or the kernel refuses.
    pub(super) left: u64,
}

/// Walks through a volume.
///
/// # Errors
/// When the volume itself cannot be read, or be given to the project: then it is none that is done.
pub(super) fn adopt(volume: &OwnedFd, projects: &mut impl Projects) -> io::Result<Adopted> {
    let mut walk = Walk {
        projects,
        adopted: Adopted::default(),
    };
    if !walk.projects.has(volume.as_fd(), true)? {
        walk.directory(volume, DEPTH)?;
    }
    Ok(walk.adopted)
}

struct Walk<'a, P> {
    projects: &'a mut P,
    adopted: Adopted,
}

impl<P: Projects> Walk<'_, P> {
    fn directory(&mut self, directory: &OwnedFd, depth: usize) -> io::Result<()> {
        self.entries(directory, depth)?;
        self.projects.take(directory.as_fd(), true)?;
        self.adopted.taken += 1;
        // What was made meanwhile: from now on the folder hands on its project.
        let left = self.adopted.left;
        self.entries(directory, depth)?;
        // What was left is left again, and is not counted twice.
        self.adopted.left = left;
        Ok(())
    }

    fn entries(&mut self, directory: &OwnedFd, depth: usize) -> io::Result<()> {
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let outcome = match kind(directory, &entry) {
                Ok(FileType::Directory) => self.entry(directory, name, true, depth),
                Ok(FileType::RegularFile) => self.entry(directory, name, false, depth),
                Ok(_) => Ok(()),
                Err(errno) => Err(errno.into()),
            };
            match outcome {
                Err(error) if !is_gone(&error) => self.adopted.left += 1,
                _ => {}
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        parent: &OwnedFd,
        name: &CStr,
        is_directory: bool,
        depth: usize,
    ) -> io::Result<()> {
        let kind = if is_directory {
            OFlags::DIRECTORY
        } else {
            OFlags::empty()
        };
        let file = openat(parent, name, OPEN | kind, Mode::empty())?;
        if self.projects.has(file.as_fd(), is_directory)? {
            return Ok(());
        }
        if is_directory {
            let depth = depth.checked_sub(1).ok_or(Errno::NAMETOOLONG)?;
            return self.directory(&file, depth);
        }
        self.projects.take(file.as_fd(), false)?;
        self.adopted.taken += 1;
        Ok(())
    }
}

fn kind(directory: &OwnedFd, entry: &DirEntry) -> rustix::io::Result<FileType> {
    match entry.file_type() {
        FileType::Unknown => {
            let found = statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(FileType::from_raw_mode(found.st_mode))
        }
        kind => Ok(kind),
    }
}

/// A workload removed it, or put something else in its place: the second look at the folder sees that.
fn is_gone(error: &io::Error) -> bool {
    let gone = [libc::ENOENT, libc::ENOTDIR, libc::ELOOP];
    error
        .raw_os_error()
        .is_some_and(|number| gone.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    /// Inodes that belong to the project; `made` is what a workload makes when the first folder is given away.
    #[derive(Default)]
    struct Fake {
        members: BTreeSet<u64>,
        refused: Option<u64>,
        made: Option<std::path::PathBuf>,
    }

    fn inode(file: BorrowedFd<'_>) -> u64 {
        rustix::fs::fstat(file).unwrap().st_ino
    }

    impl Projects for Fake {
        fn has(&self, file: BorrowedFd<'_>, _: bool) -> io::Result<bool> {
            Ok(self.members.contains(&inode(file)))
        }

        fn take(&mut self, file: BorrowedFd<'_>, is_directory: bool) -> io::Result<()> {
            if self.refused == Some(inode(file)) {
                return Err(Errno::PERM.into());
            }
            if let Some(path) = self.made.take_if(|_| is_directory) {
                fs::write(path, "").unwrap();
            }
            self.members.insert(inode(file));
            Ok(())
        }
    }

    fn open(path: &Path) -> OwnedFd {
        fs::File::open(path).unwrap().into()
    }

    fn has(fake: &Fake, path: &Path) -> bool {
        fake.members
            .contains(&fs::symlink_metadata(path).unwrap().ino())
    }

    fn volume() -> tempfile::TempDir {
        let volume = tempfile::tempdir().unwrap();
        fs::create_dir_all(volume.path().join("a/b")).unwrap();
        fs::write(volume.path().join("a/b/deep"), "").unwrap();
        fs::write(volume.path().join("file"), "").unwrap();
        volume
    }

    #[test]
    fn each_file_and_folder_is_taken_once() {
        let volume = volume();
        let mut fake = Fake::default();
        let adopted = adopt(&open(volume.path()), &mut fake).unwrap();
        assert_eq!(adopted, Adopted { taken: 5, left: 0 });
        let again = adopt(&open(volume.path()), &mut fake).unwrap();
        assert_eq!(again, Adopted::default());
    }

    #[test]
    fn no_link_is_followed_and_nothing_else_is_opened() {
        let (volume, elsewhere) = (volume(), volume());
        std::os::unix::fs::symlink(elsewhere.path(), volume.path().join("link")).unwrap();
        std::os::unix::fs::symlink(
            elsewhere.path().join("file"),
            volume.path().join("file link"),
        )
        .unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(volume.path().join("socket")).unwrap();
        let mut fake = Fake::default();
        let adopted = adopt(&open(volume.path()), &mut fake).unwrap();
        assert_eq!(adopted, Adopted { taken: 5, left: 0 });
        assert!(!has(&fake, elsewhere.path()) && !has(&fake, &elsewhere.path().join("file")));
    }

    #[test]
    fn what_is_made_meanwhile_is_taken_too() {
        let volume = volume();
        let made = volume.path().join("a/b/made");
        let mut fake = Fake {
            made: Some(made.clone()),
            ..Fake::default()
        };
        let adopted = adopt(&open(volume.path()), &mut fake).unwrap();
        assert!(has(&fake, &made) && adopted.taken == 6);
    }

    #[test]
    fn a_walk_that_was_cut_off_goes_on_past_what_is_finished() {
        let volume = volume();
        let mut fake = Fake::default();
        adopt(&open(&volume.path().join("a")), &mut fake).unwrap();
        let adopted = adopt(&open(volume.path()), &mut fake).unwrap();
        assert_eq!(adopted, Adopted { taken: 2, left: 0 });
    }

    #[test]
    fn what_is_refused_or_too_deep_is_told_once_and_keeps_nothing_else_from_being_taken() {
        let volume = volume();
        let deep: std::path::PathBuf = std::iter::repeat_n("d", DEPTH + 3).collect();
        fs::create_dir_all(volume.path().join(deep)).unwrap();
        let refused = fs::metadata(volume.path().join("file")).unwrap().ino();
        let mut fake = Fake {
            refused: Some(refused),
            ..Fake::default()
        };
        let adopted = adopt(&open(volume.path()), &mut fake).unwrap();
        let taken = 4 + u64::try_from(DEPTH).unwrap();
        assert_eq!(adopted, Adopted { taken, left: 2 });
        assert!(has(&fake, volume.path()));
    }
}
