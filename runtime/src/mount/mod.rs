//! Mounting by descriptor: make a detached mount, set its attributes, attach it to a resolved target.
//!
//! A mount is complete before it becomes visible, and no path is resolved twice.

pub mod devices;
pub mod options;
pub mod rootfs;
pub(crate) mod tree;

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, fstat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::error::{Context, Error, Result};
use crate::mount::options::{Attributes, Options};
use crate::mount::tree::{Missing, Tree};
use crate::sys;

/// One entry of `mounts`, resolved.
#[derive(Debug, Clone)]
pub struct Mount {
    /// In the container.
    pub destination: PathBuf,
    /// What is mounted there.
    pub source: Source,
    /// How.
    pub options: Options,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file or directory of the host.
    Bind(PathBuf),
    /// The container's own part of the cgroup tree.
    Cgroup,
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
/// `cgroup` is the container's cgroup directory, where there is no cgroup namespace that hides the rest.
pub(crate) fn mount(tree: &Tree, mount: &Mount, cgroup: Option<&Path>) -> Result<()> {
    let detached = match (&mount.source, cgroup) {
        (Source::Bind(path), _) => open_bind(path, mount.options.bind == Some(true))?,
        (Source::Cgroup, Some(path)) => open_bind(path, true)?,
        (Source::Cgroup, None) => {
            new_filesystem("cgroup2", Some("cgroup"), &mount.options.parameters)?
        }
        (Source::Filesystem { kind, name }, _) => {
            new_filesystem(kind, name.as_deref(), &mount.options.parameters)?
        }
    };
    let target = find_target(tree, mount, detached.as_fd())?;
    let destination = &mount.destination;
    set(detached.as_fd(), false, mount.options.attributes)
        .at("set options of mount", destination)?;
    set(detached.as_fd(), true, mount.options.recursive).at("set options of mount", destination)?;
    attach(detached.as_fd(), target.as_fd()).at("mount on", destination)?;
    for &(propagation, recursive) in &mount.options.propagation {
        sys::mount_setattr(detached.as_fd(), recursive, 0, 0, propagation)
            .at("set propagation of mount", destination)?;
    }
    Ok(())
}

fn find_target(tree: &Tree, mount: &Mount, detached: BorrowedFd<'_>) -> Result<OwnedFd> {
    let destination = &mount.destination;
    let kernels = match &mount.source {
        Source::Filesystem { kind, .. } => matches!(kind.as_str(), "proc" | "sysfs"),
        Source::Bind(_) | Source::Cgroup => false,
    };
    if (kernels || destination == Path::new("/dev"))
        && tree.find_without_symlinks(destination).err() == Some(Errno::LOOP)
    {
        // An image that has /proc as a symlink could make what the runtime masks there lie elsewhere, and masks
        // are made of the null device in /dev.
        return Err(Errno::LOOP).at("refuse the symlink in the image at", destination);
    }
    let stat = fstat(detached).at("inspect source of mount", destination)?;
    let missing = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Missing::Directory,
        _ => Missing::File,
    };
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

/// A detached new filesystem. What the kernel says about bad parameters becomes part of the error.
pub(crate) fn new_filesystem(
    kind: &str,
    name: Option<&str>,
    parameters: &[(String, Option<String>)],
) -> Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)
        .during(format!("open filesystem type {kind:?}"))?;
    configure(&context, name, parameters).map_err(|(what, errno)| {
        let said = kernel_message(&context)
            .map(|text| format!(" ({text})"))
            .unwrap_or_default();
        Error::System {
            operation: format!("make filesystem {kind:?}: {what}{said}"),
            source: errno.into(),
        }
    })?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
    .during(format!("make a mount of filesystem {kind:?}"))
}

fn configure(
    context: &OwnedFd,
    name: Option<&str>,
    parameters: &[(String, Option<String>)],
) -> Result<(), (String, Errno)> {
    if let Some(name) = name {
        fsconfig_set_string(context, "source", name)
            .map_err(|errno| ("source".to_owned(), errno))?;
    }
    for (key, value) in parameters {
        match value {
            Some(value) => fsconfig_set_string(context, key.as_str(), value.as_str()),
            None => fsconfig_set_flag(context, key.as_str()),
        }
        .map_err(|errno| (format!("option {key:?}"), errno))?;
    }
    fsconfig_create(context).map_err(|errno| ("create".to_owned(), errno))
}

/// The context's log holds one message a read, as `e text`.
fn kernel_message(context: &OwnedFd) -> Option<String> {
    let mut file = std::fs::File::from(context.try_clone().ok()?);
    let mut buffer = [0; 512];
    let length = file.read(&mut buffer).ok()?;
    let text = String::from_utf8_lossy(&buffer[..length]);
    Some(text.trim().trim_start_matches("e ").to_owned()).filter(|text| !text.is_empty())
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
