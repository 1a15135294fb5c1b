//! Mounting by descriptor: make a detached mount, set its attributes, attach it to a resolved target.
//!
//! A mount is complete before it becomes visible, and no path is resolved twice.

mod copy_up;
mod departure;
pub mod devices;
mod filesystem;
pub mod idmap;
pub mod options;
mod overlay;
pub mod rootfs;
pub mod shared;
pub(crate) mod tree;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, fstat};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::error::{Context, Result};
use crate::mount::idmap::IdMap;
use crate::mount::options::{Attributes, Options};
use crate::mount::tree::{Missing, Tree};
use crate::sys;

pub(crate) use filesystem::new_filesystem;

/// One entry of `mounts`, resolved.
#[derive(Debug, Clone)]
pub struct Mount {
    /// In the container.
    pub destination: PathBuf,
    /// What is mounted there.
    pub source: Source,
    /// How.
    pub options: Options,
    /// How its ids are mapped.
    pub id_map: Option<IdMap>,
    /// What of the host to bind where the kernel refuses a new instance to a user namespace.
    pub substitute: Option<&'static str>,
}

impl Mount {
    /// A read-only `/dev` takes devices and mount points first, and is made read-only when they are there.
    fn is_sealed_late(&self) -> bool {
        let is_new = matches!(self.source, Source::Filesystem { .. });
        let readonly = self.options.attributes.set & libc::MOUNT_ATTR_RDONLY != 0;
        is_new && readonly && self.destination == Path::new("/dev")
    }
}

/// Makes read-only what had to be written to before.
pub(crate) fn seal(tree: &Tree, mounts: &[Mount]) -> Result<()> {
    let readonly = Attributes {
        set: libc::MOUNT_ATTR_RDONLY,
        clear: 0,
    };
    for mount in mounts.iter().filter(|mount| mount.is_sealed_late()) {
        let found = tree.find(&mount.destination);
        let found = found.at("find mount", &mount.destination)?;
        set(found.as_fd(), false, readonly).at("make read-only", &mount.destination)?;
    }
    Ok(())
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file or directory of the host.
    Bind(PathBuf),
    /// The container's own part of the cgroup tree.
    Cgroup,
    /// What is at the destination already: its options change.
    Existing,
    /// A new instance of a filesystem.
    Filesystem {
        /// As in /proc/filesystems.
        kind: String,
        /// What mountinfo shows as its source.
        name: Option<String>,
    },
}

/// Mounts one entry inside the tree.
///
/// `opened` is its source if the runtime has opened it (see [`idmap::Sources`]). `cgroup` is the container's cgroup
/// directory, where there is no cgroup namespace that hides the rest.
pub(crate) fn mount(
    tree: &Tree,
    mount: &Mount,
    opened: Option<OwnedFd>,
    cgroup: Option<&Path>,
) -> Result<()> {
    let (destination, options) = (&mount.destination, &mount.options);
    let detached = match opened {
        Some(opened) => opened,
        None => match (&mount.source, cgroup) {
            (Source::Existing, _) => return change(tree, mount),
            (Source::Bind(path), _) => open_bind(path, options.bind == Some(true))?,
            (Source::Cgroup, Some(path)) => open_bind(path, true)?,
            (Source::Cgroup, None) => {
                new_filesystem("cgroup2", Some("cgroup"), &options.parameters)?
            }
            (Source::Filesystem { kind, name }, _) => {
                filesystem::make(kind, name.as_deref(), mount)?
            }
        },
    };
    let target = find_target(tree, mount, detached.as_fd())?;
    if options.copy_up {
        copy_up::copy(target.as_fd(), detached.as_fd(), destination)?;
    }
    set_all(detached.as_fd(), mount)?;
    attach(detached.as_fd(), target.as_fd()).at("mount on", destination)?;
    propagate(detached.as_fd(), mount)
}

/// `remount`: new options for what is mounted at the destination.
fn change(tree: &Tree, mount: &Mount) -> Result<()> {
    let destination = &mount.destination;
    let found = tree.find(destination).at("find mount", destination)?;
    if mount.options.bind.is_none() {
        filesystem::reconfigure(found.as_fd(), mount)?;
    }
    set_all(found.as_fd(), mount)?;
    propagate(found.as_fd(), mount)
}

fn set_all(detached: BorrowedFd<'_>, mount: &Mount) -> Result<()> {
    let (destination, options) = (&mount.destination, &mount.options);
    let mut attributes = options.attributes;
    if mount.is_sealed_late() {
        attributes.set &= !libc::MOUNT_ATTR_RDONLY;
    }
    set(detached, false, attributes).at("set options of mount", destination)?;
    set(detached, true, options.recursive).at("set recursive options of mount", destination)
}

/// Only once it is attached, for propagation concerns the copies that others have of it.
fn propagate(attached: BorrowedFd<'_>, mount: &Mount) -> Result<()> {
    for &(propagation, recursive) in &mount.options.propagation {
        sys::mount_setattr(attached, recursive, 0, 0, propagation)
            .at("set propagation of mount", &mount.destination)?;
    }
    Ok(())
}

fn find_target(tree: &Tree, mount: &Mount, detached: BorrowedFd<'_>) -> Result<OwnedFd> {
    let destination = &mount.destination;
    let kernels = match &mount.source {
        Source::Filesystem { kind, .. } => matches!(kind.as_str(), "proc" | "sysfs"),
        Source::Bind(_) | Source::Cgroup | Source::Existing => false,
    };
    let stat = fstat(detached).at("inspect source of mount", destination)?;
    let missing = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Missing::Directory,
        _ => Missing::File,
    };
    if kernels || destination == Path::new("/dev") {
        // An image that has /proc as a symlink could make what the runtime masks there lie elsewhere, and masks
        // are made of the null device in /dev.
        return tree.ensure_without_symlinks(destination, missing);
    }
    tree.ensure(destination, missing)
}

/// A detached copy of the mount at `path`.
pub(crate) fn open_bind(path: &Path, recursive: bool) -> Result<OwnedFd> {
    open_tree(CWD, path, clone_flags(recursive)).at("open source of mount", path)
}

/// A detached copy of what an open descriptor shows.
pub(crate) fn clone_mount(of: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd, Errno> {
    open_tree(
        of,
        c"",
        clone_flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH,
    )
}

fn clone_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags | OpenTreeFlags::AT_RECURSIVE
    } else {
        flags
    }
}

/// Changes attributes of a mount, if there are any to change.
pub(crate) fn set(
    mount: BorrowedFd<'_>,
    recursive: bool,
    attributes: Attributes,
) -> std::io::Result<()> {
    if attributes.is_empty() {
        return Ok(());
    }
    sys::mount_setattr(mount, recursive, attributes.set, attributes.clear, 0)
}

/// Attaches a detached mount to an open target.
pub(crate) fn attach(detached: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(detached, c"", target, c"", flags)
}
