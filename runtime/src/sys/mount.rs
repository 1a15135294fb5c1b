//! Mounts.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

/// Changes attributes (`MOUNT_ATTR_*`) and propagation (`MS_*`) of the mount at the root of `mount`.
pub(crate) fn mount_setattr(
    mount: BorrowedFd<'_>,
    recursive: bool,
    set: u64,
    clear: u64,
    propagation: u64,
) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation,
        userns_fd: 0,
    };
    change(mount, recursive, &attributes)
}

/// Maps the ids of a detached mount as the user namespace does (`MOUNT_ATTR_IDMAP`).
pub(crate) fn mount_idmap(
    mount: BorrowedFd<'_>,
    recursive: bool,
    namespace: BorrowedFd<'_>,
) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: namespace.as_raw_fd() as u64,
    };
    change(mount, recursive, &attributes)
}

fn change(mount: BorrowedFd<'_>, recursive: bool, attributes: &libc::mount_attr) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string and the attributes live through the call; the size is theirs.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of_val(attributes),
        )
    })
    .map(drop)
}
