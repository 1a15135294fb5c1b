//! Projects: what a file system counts blocks by, and the most of it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::checked;

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct ExtraAttributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    padding: [u8; 8],
}

/// New files of a directory are of its project.
const INHERITS_PROJECT: u32 = 0x200;

fn extra_attributes(file: BorrowedFd<'_>) -> io::Result<ExtraAttributes> {
    const FS_IOC_FSGETXATTR: libc::Ioctl = 0x801c_581f;
    let mut found = ExtraAttributes::default();
    // SAFETY: the struct has the kernel's layout, and the kernel writes only that.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSGETXATTR, &raw mut found) })?;
    Ok(found)
}

/// Whether a file is of this project, and what is made in a directory then, too.
///
/// # Errors
/// `ENOTTY` or `EOPNOTSUPP` when its file system has no projects.
pub fn is_of_project(file: BorrowedFd<'_>, project: u32, is_directory: bool) -> io::Result<bool> {
    let found = extra_attributes(file)?;
    let inherits = found.flags & INHERITS_PROJECT != 0;
    Ok(found.project == project && (inherits || !is_directory))
}

/// Gives a file to a project; what is made in a directory then is of it as well.
///
/// # Errors
/// `EOPNOTSUPP` when its file system has no projects.
pub fn set_project(file: BorrowedFd<'_>, project: u32, is_directory: bool) -> io::Result<()> {
    const FS_IOC_FSSETXATTR: libc::Ioctl = 0x401c_5820;
    let mut wanted = extra_attributes(file)?;
    wanted.project = project;
    if is_directory {
        wanted.flags |= INHERITS_PROJECT;
    }
    // SAFETY: the struct has the kernel's layout, and the kernel only reads it.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSSETXATTR, &raw const wanted) })
}

/// Sets the most bytes and files that a project may have on the mounted file system of `directory`; 0 is no limit.
/// Bytes are counted in KiB, rounded down.
///
/// # Errors
/// `ESRCH` when the file system counts no projects.
pub fn set_project_limits(
    directory: BorrowedFd<'_>,
    project: u32,
    bytes: u64,
    files: u64,
) -> io::Result<()> {
    /// `struct if_dqblk` of linux/quota.h.
    #[repr(C)]
    #[derive(Default)]
    struct Limits {
        hard_kib: u64,
        soft_kib: u64,
        bytes: u64,
        hard_files: u64,
        soft_files: u64,
        files: u64,
        bytes_time: u64,
        files_time: u64,
        valid: u32,
    }
    const QUOTACTL_FD: libc::c_long = 443;
    const SET_PROJECT_QUOTA: u32 = 0x80_0008 << 8 | 2;
    const LIMITS_ARE_VALID: u32 = 1 | 4;
    let mut limits = Limits {
        hard_kib: bytes / 1024,
        hard_files: files,
        valid: LIMITS_ARE_VALID,
        ..Limits::default()
    };
    // SAFETY: the struct has the kernel's layout and outlives the call, and the other arguments are numbers.
    let result = unsafe {
        libc::syscall(
            QUOTACTL_FD,
            directory.as_raw_fd(),
            SET_PROJECT_QUOTA,
            project,
            &raw mut limits,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
