//! What a container has mounted in a mount namespace that it joined: others live there, so it does not vanish with the
//! container, and is unmounted when that is deleted.
//!
//! Refuses to unmount anything but the very mount that was the container's root.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, statx};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{WaitId, WaitIdOptions, fchdir, waitid};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};
use crate::sys::{self, Cloned};

/// The root of a container in a joined mount namespace; remembered with its state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SharedMounts {
    /// As the document names it.
    namespace: PathBuf,
    /// By this it is known again.
    inode: u64,
    /// Where the root is mounted in it.
    root: PathBuf,
    /// By this too.
    mount: u64,
}

impl SharedMounts {
    /// `mount` is the [`mount_id`] of the root.
    pub(crate) fn new(namespace: &Path, root: &Path, mount: u64) -> Result<Self> {
        Ok(Self {
            namespace: namespace.to_owned(),
            inode: fs::metadata(namespace).at("inspect", namespace)?.ino(),
            root: root.to_owned(),
            mount,
        })
    }

    /// Unmounts the root with all below. A namespace that is gone has taken it along.
    pub(crate) fn detach(&self) -> Result<()> {
        let Ok(namespace) = File::open(&self.namespace) else {
            return Ok(());
        };
        if namespace.metadata().map_or(0, |metadata| metadata.ino()) != self.inode {
            return Ok(());
        }
        // In a process of its own, for one cannot go back to where one's root was.
        let cloned = sys::clone3(0, None).during("make a process to unmount the root")?;
        let Cloned::Parent { pidfd, .. } = cloned else {
            let left = self.detach_in(&namespace);
            sys::exit_now(left.is_err().into());
        };
        let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
            .during("wait for the process that unmounts the root")?;
        match status.and_then(|status| status.exit_status()) {
            Some(0) => Ok(()),
            _ => Err(rustix::io::Errno::BUSY).at("unmount in the joined namespace", &self.root),
        }
    }

    fn detach_in(&self, namespace: &File) -> Result<()> {
        move_into_thread_name_spaces(namespace.as_fd(), ThreadNameSpaceType::MOUNT)
            .during("join the mount namespace")?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(found) = openat(CWD, &self.root, flags, Mode::empty()) else {
            // Somebody else has done it.
            return Ok(());
        };
        if mount_id(found.as_fd())? != self.mount {
            return Ok(());
        }
        // Not by its path: whoever lives in the namespace could have changed what that names since.
        fchdir(&found).at("enter", &self.root)?;
        unmount(".", UnmountFlags::DETACH).at("unmount", &self.root)
    }
}

/// The number of the mount that an open descriptor lies on (`/proc/PID/mountinfo`).
pub(crate) fn mount_id(of: BorrowedFd<'_>) -> Result<u64> {
    let stat = statx(of, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID);
    Ok(stat.during("inspect the mount of the root")?.stx_mnt_id)
}
