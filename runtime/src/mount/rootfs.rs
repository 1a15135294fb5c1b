//! The root of the container: assembled in the new mount namespace, hardened, then made `/`.
//!
//! Two kinds: a directory of the bundle, as the specification knows it, or an overlay over read-only layers that
//! the annotations `org.coracle.rootfs.*` ask for. Everything here runs in the container's own process. Refuses
//! to work by path inside the root: that is `tree`'s.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{chdir, fchdir};

use crate::error::{Context, Error, Result};
use crate::mount::departure;
use crate::mount::idmap::Mapping;
use crate::mount::options::Attributes;
use crate::mount::overlay;
use crate::mount::tree::Tree;
use crate::mount::{self, Mount};
use crate::sys;

/// Where the root comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `root.path` itself.
    Directory,
    /// An overlay, mounted on `root.path`.
    Overlay(Layers),
}

/// What an overlay is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    /// Absolute directories, top first; at least one.
    pub lower: Vec<PathBuf>,
    /// Bytes of the tmpfs that takes the writes; without it the root is read-only.
    pub upper_size: Option<u64>,
    /// Whose ids those of the layers become: the container's user namespace, if it has one.
    pub id_map: Option<Mapping>,
}

impl Layers {
    /// The layer that can serve as the root without an overlay: it is the only one, not to be written, and has all
    /// that the destinations of `mounts` and `cwd` need.
    pub(super) fn single(&self, mounts: &[Mount], cwd: &Path) -> Option<&Path> {
        match (self.lower.as_slice(), self.upper_size) {
            ([only], None) if has_all(only, mounts, cwd) => Some(only),
            _ => None,
        }
    }

    /// The upper layer of a read-only root holds nothing but mount points that the image lacks.
    pub(super) fn size(&self) -> u64 {
        self.upper_size.unwrap_or(MOUNT_POINTS_SIZE)
    }
}

/// The root as the plan wants it.
#[derive(Debug, Clone)]
pub struct Root {
    /// Absolute path of the directory that the root is mounted on.
    pub path: PathBuf,
    /// What is mounted there.
    pub source: Source,
    /// Whether the container sees it read-only.
    pub readonly: bool,
    /// `linux.rootfsPropagation`: `MS_*`, and whether recursive.
    pub propagation: Option<(u64, bool)>,
    /// Whether to leave the host's root with pivot_root, or to cover it.
    pub pivot: bool,
    /// Whether others live in the mount namespace: then their mounts stay as they are.
    pub joined: bool,
}

impl Root {
    /// A joined mount namespace has its own root, which is others' too: ours is mounted on its own path, and entered
    /// by chroot.
    pub(crate) fn stay_in_joined_namespace(&mut self) -> Result<()> {
        if let Source::Overlay(_) = self.source {
            let text = "org.coracle.rootfs.lower with a mount namespace to join";
            return Err(Error::Unsupported(text.into()));
        }
        (self.joined, self.pivot) = (true, false);
        Ok(())
    }
}

const MOUNT_POINTS_SIZE: u64 = 1024 * 1024;

const READ_ONLY: Attributes = Attributes {
    set: libc::MOUNT_ATTR_RDONLY,
    clear: 0,
};

/// Cuts the mount namespace off from the host's and mounts the root. Writable until sealed.
///
/// The destinations of `mounts` and `cwd` must be there: if a single read-only layer has them all, it serves as the
/// root without an overlay; else they are made in an upper layer.
///
/// `opened` is the root if the runtime has opened it (see [`mount::idmap::Sources`]). With `in_place` it is mounted on its own path, where
/// hooks look for it.
pub(crate) fn prepare(
    root: &Root,
    mounts: &[Mount],
    cwd: &Path,
    opened: Option<OwnedFd>,
    in_place: bool,
) -> Result<Tree> {
    if root.joined {
        return attach_beside_others(root, opened);
    }
    let onto = if in_place { &root.path } else { Path::new("/") };
    let host = host_propagation(root, mounts);
    if let Some(flag) = host {
        let flag = MountPropagationFlags::from_bits_retain(flag as u32);
        mount_change("/", flag | MountPropagationFlags::REC).at("set propagation of", "/")?;
    } else {
        make_mount_private(onto)?;
    }
    // Of the root's own mounts none may be shared with the host while it is assembled.
    let own = match (host, root.propagation) {
        (None, _) | (_, None) => libc::MS_PRIVATE,
        _ => libc::MS_SLAVE,
    };
    let attach_root = |bound| attach_root(bound, onto, (host != Some(own)).then_some(own));
    let tree = match (&root.source, opened) {
        (_, Some(opened)) => attach_root(opened)?,
        (Source::Directory, None) => attach_root(mount::open_bind(&root.path, true)?)?,
        (Source::Overlay(layers), None) => match layers.single(mounts, cwd) {
            Some(only) => attach_root(mount::open_bind(only, false)?)?,
            None => {
                overlay::mount_on(&root.path, layers, None)?;
                open_directory(&root.path).map(Tree::new)?
            }
        },
    };
    Ok(tree)
}

/// The mount that a path lies on: what is mounted there must not appear on the host.
fn make_mount_private(path: &Path) -> Result<()> {
    let path = fs::canonicalize(path).at("find", path)?;
    for above in path.ancestors() {
        match mount_change(above, MountPropagationFlags::PRIVATE) {
            // It is no mount point, so its mount begins further up.
            Err(Errno::INVAL) => {}
            other => return other.at("set propagation of", above),
        }
    }
    Err(Errno::INVAL).at("find the mount of", &path)
}

/// Where the namespace shares its mounts with another, that one sees the root, but not what is mounted in it later.
fn attach_beside_others(root: &Root, opened: Option<OwnedFd>) -> Result<Tree> {
    let bound = match opened {
        Some(opened) => opened,
        None => mount::open_bind(&root.path, true)?,
    };
    let tree = attach_root(bound, &root.path, None)?;
    sys::mount_setattr(tree.root(), true, 0, 0, libc::MS_PRIVATE)
        .during("set propagation of the root")?;
    Ok(tree)
}

/// The propagation of the host's mounts as the container's process sees them; `None` leaves it as it is.
///
/// Mounts of the container reach the host only if `linux.rootfsPropagation` says shared, and mounts of the host
/// reach the container only if that or a mount's option says so.
pub(crate) fn host_propagation(root: &Root, mounts: &[Mount]) -> Option<u64> {
    let of_root = root.propagation.map(|(flag, _)| flag);
    let mut of_mounts = mounts.iter().flat_map(|mount| &mount.options.propagation);
    let receives = |flag| matches!(flag, libc::MS_SHARED | libc::MS_SLAVE);
    match (&root.source, of_root) {
        // The overlay is mounted at a place of the host's.
        (Source::Directory, Some(libc::MS_SHARED)) => None,
        (_, Some(flag)) if receives(flag) => Some(libc::MS_SLAVE),
        _ if of_mounts.any(|&(flag, _)| receives(flag)) => Some(libc::MS_SLAVE),
        _ => Some(libc::MS_PRIVATE),
    }
}

/// On `/` it is stacked on the host's, where no other mount can have come between and no path is looked up.
fn attach_root(bound: OwnedFd, onto: &Path, propagation: Option<u64>) -> Result<Tree> {
    if let Some(flag) = propagation {
        sys::mount_setattr(bound.as_fd(), true, 0, 0, flag)
            .during("set propagation of the root")?;
    }
    let target = open_directory(onto)?;
    mount::attach(bound.as_fd(), target.as_fd()).at("mount root on", onto)?;
    Ok(Tree::new(bound))
}

/// Whether each path exists in the layer or lies below a mount, which is writable or brings it.
fn has_all(layer: &Path, mounts: &[Mount], cwd: &Path) -> bool {
    let Ok(layer) = open_directory(layer) else {
        return false;
    };
    let tree = Tree::new(layer);
    let destinations = || mounts.iter().map(|mount| mount.destination.as_path());
    let below_a_mount =
        |path: &Path| destinations().any(|mount| mount != path && path.starts_with(mount));
    let mut needed = destinations().chain([cwd]);
    needed.all(|path| below_a_mount(path) || tree.find(path).is_ok())
}

pub(super) fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).at("open directory", path)
}

/// Makes paths read-only, with the mounts below them. What does not exist needs no protection.
pub(crate) fn make_readonly(tree: &Tree, paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        let Some(found) = find_existing(tree, path)? else {
            continue;
        };
        let copy = mount::clone_mount(found.as_fd(), true).at("open read-only path", path)?;
        mount::set(copy.as_fd(), true, READ_ONLY).at("make read-only", path)?;
        mount::attach(copy.as_fd(), found.as_fd()).at("mount read-only path", path)?;
    }
    Ok(())
}

/// Hides paths: a directory behind an empty read-only one, anything else behind the null device.
pub(crate) fn mask(tree: &Tree, paths: &[PathBuf], null: Option<&OwnedFd>) -> Result<()> {
    // Kernels before 6.15 copy a mount only once it is attached, so the first empty directory serves as a cover
    // itself, and the copies are taken of it in its place.
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let Some(found) = find_existing(tree, path)? else {
            continue;
        };
        let stat = fstat(&found).at("inspect masked path", path)?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let original = if is_directory { empty.as_ref() } else { null };
        let cover = match original {
            Some(original) => {
                mount::clone_mount(original.as_fd(), false).at("make cover for", path)?
            }
            None if is_directory => new_empty_directory()?,
            None => return Err(Errno::NODEV).at("find /dev/null in the container to mask", path),
        };
        mount::attach(cover.as_fd(), found.as_fd()).at("mask", path)?;
        if is_directory {
            empty = Some(cover);
        }
    }
    Ok(())
}

fn new_empty_directory() -> Result<OwnedFd> {
    let parameters = [
        ("size".to_owned(), Some("4k".to_owned())),
        ("mode".to_owned(), Some("555".to_owned())),
    ];
    let directory = mount::new_filesystem("tmpfs", Some("tmpfs"), &parameters)?;
    mount::set(directory.as_fd(), false, READ_ONLY).during("make the cover read-only")?;
    Ok(directory)
}

fn find_existing(tree: &Tree, path: &Path) -> Result<Option<OwnedFd>> {
    match tree.find(path) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno).at("find", path),
    }
}

/// Makes the tree `/` of this process, drops the host's tree, and puts the final attributes on the root.
pub(crate) fn seal(tree: &Tree, root: &Root) -> Result<()> {
    if root.readonly {
        mount::set(tree.root(), false, READ_ONLY).at("make root read-only", &root.path)?;
    }
    fchdir(tree.root()).at("enter root", &root.path)?;
    if root.pivot {
        departure::leave_host(root)?;
    } else {
        departure::stay_on_host(tree, root)?;
    }
    chdir("/").at("enter", "/")?;
    if let Some((flag, recursive)) = root.propagation {
        sys::mount_setattr(tree.root(), recursive, 0, 0, flag).during("set rootfsPropagation")?;
    }
    Ok(())
}
