//! `tmpcopyup`: a new tmpfs begins with what the image has at its place.
//!
//! Goes from descriptor to descriptor and follows no symlink, so nothing but the directory itself is copied. Stays on
//! its filesystem.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chmodat, chownat, fchmod, fchown, fstat,
    mkdirat, mknodat, openat, readlinkat, statat, symlinkat,
};
use rustix::io::Errno;

use crate::error::{Context, Result};

/// Copies the contents of the directory `from`, which lies at `path` in the container, into the empty one `to`; its
/// mode and owner too.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &Path) -> Result<()> {
    copy_tree(from, to).at("copy up into the tmpfs at", path)
}

fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> std::io::Result<()> {
    let open = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = openat(from, c".", open, Mode::empty())?;
    let device = fstat(&top)?.st_dev;
    let mut left = vec![(top, openat(to, c".", open, Mode::empty())?)];
    while let Some((from, to)) = left.pop() {
        for entry in Dir::read_from(&from)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if let Some(below) = copy_entry(&from, &to, &name.to_owned(), &stat)?
                && stat.st_dev == device
            {
                left.push(below);
            }
        }
        dress(&to, &fstat(&from)?)?;
    }
    Ok(())
}

/// Copies one entry. For a directory, returns it and its copy.
fn copy_entry(
    from: &OwnedFd,
    to: &OwnedFd,
    name: &CString,
    stat: &Stat,
) -> std::io::Result<Option<(OwnedFd, OwnedFd)>> {
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let look = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            mkdirat(to, name, Mode::RWXU)?;
            let open = look | OFlags::DIRECTORY;
            let source = openat(from, name, open, Mode::empty())?;
            return Ok(Some((source, openat(to, name, open, Mode::empty())?)));
        }
        FileType::RegularFile => {
            let mut source = File::from(openat(from, name, look, Mode::empty())?);
            let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mut copy = File::from(openat(to, name, create, Mode::RUSR)?);
            std::io::copy(&mut source, &mut copy)?;
            dress(copy.as_fd(), stat)?;
        }
        FileType::Symlink => {
            let target = readlinkat(from, name, Vec::new())?;
            symlinkat(target, to, name)?;
            own(to, name, stat)?;
        }
        FileType::Unknown => return Err(Errno::INVAL.into()),
        kind => {
            mknodat(to, name, kind, mode, stat.st_rdev)?;
            own(to, name, stat)?;
            chmodat(to, name, mode, AtFlags::empty())?;
        }
    }
    Ok(None)
}

fn own(directory: &OwnedFd, name: &CString, stat: &Stat) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    chownat(directory, name, Some(uid), Some(gid), flags)
}

/// The owner first: a change of it takes the set-id bits away.
fn dress(copy: impl AsFd, stat: &Stat) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchown(&copy, Some(uid), Some(gid))?;
    fchmod(&copy, Mode::from_raw_mode(stat.st_mode & 0o7777))
}
