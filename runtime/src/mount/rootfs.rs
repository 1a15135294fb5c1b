//! The root of the container: assembled in the new mount namespace, hardened, then made `/`.
//!
//! Two kinds: a directory of the bundle, as the specification knows it, or an overlay over read-only layers that
//! the annotations `org.coracle.rootfs.*` ask for. Everything here runs in the container's own process. Refuses
//! to work by path inside the root: that is `tree`'s.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, mkdirat, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{chdir, fchdir, pivot_root};

use crate::error::{Context, Result};
use crate::mount;
use crate::mount::options::Attributes;
use crate::mount::tree::Tree;
use crate::sys;

/// Where the root comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `root.path` itself.
    Directory,
    /// An overlay, mounted on `root.path`.
    Overlay {
        /// Absolute directories, top first; at least one.
        lower: Vec<PathBuf>,
        /// Bytes of the tmpfs that takes the writes; without it the root is read-only.
        upper_size: Option<u64>,
    },
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
}

/// The upper layer of a read-only root holds nothing but mount points that the image lacks.
const MOUNT_POINTS_SIZE: u64 = 1024 * 1024;

const READ_ONLY: Attributes = Attributes {
    set: libc::MOUNT_ATTR_RDONLY,
    clear: 0,
};

/// Cuts the mount namespace off from the host's and mounts the root. Writable until sealed.
///
/// The destinations of `mounts` and `cwd` must be there: if a single read-only layer has them all, it serves as the
/// root without an overlay; else they are made in an upper layer.
pub(crate) fn prepare(root: &Root, mounts: &[&Path], cwd: &Path) -> Result<Tree> {
    let host = match root.propagation {
        Some((flag, _)) if flag == libc::MS_SHARED || flag == libc::MS_SLAVE => {
            MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC
        }
        _ => MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    };
    mount_change("/", host).at("set propagation of", "/")?;
    match &root.source {
        Source::Directory => bind_root(&root.path, &root.path, true),
        Source::Overlay { lower, upper_size } => match (lower.as_slice(), upper_size) {
            ([only], None) if has_all(only, mounts, cwd) => bind_root(only, &root.path, false),
            _ => mount_overlay(&root.path, lower, upper_size.unwrap_or(MOUNT_POINTS_SIZE)),
        },
    }
}

fn bind_root(source: &Path, target: &Path, recursive: bool) -> Result<Tree> {
    let bound = mount::open_bind(source, recursive)?;
    let onto = open_directory(target)?;
    mount::attach(bound.as_fd(), onto.as_fd()).at("mount root on", target)?;
    Ok(Tree::new(bound))
}

/// Whether each path exists in the layer or lies below a mount, which is writable or brings it.
fn has_all(layer: &Path, mounts: &[&Path], cwd: &Path) -> bool {
    let Ok(layer) = open_directory(layer) else {
        return false;
    };
    let tree = Tree::new(layer);
    let below_a_mount = |path: &Path| {
        mounts
            .iter()
            .any(|mount| *mount != path && path.starts_with(mount))
    };
    let mut needed = mounts.iter().copied().chain([cwd]);
    needed.all(|path| below_a_mount(path) || tree.find(path).is_ok())
}

/// Upper and work directory live in a tmpfs that the overlay then covers, so nobody else ever sees them.
///
/// The layers are named by short symlinks beside them: mount options are limited to a page, and paths of layers
/// are long. It also makes characters with a meaning in mount options harmless.
fn mount_overlay(target: &Path, lower: &[PathBuf], upper_size: u64) -> Result<Tree> {
    let parameters = [
        ("size".to_owned(), Some(upper_size.to_string())),
        ("mode".to_owned(), Some("755".to_owned())),
    ];
    let upper = mount::new_filesystem("tmpfs", Some("tmpfs"), &parameters)?;
    let onto = open_directory(target)?;
    mount::attach(upper.as_fd(), onto.as_fd()).at("mount upper layer on", target)?;
    for name in ["upper", "work"] {
        mkdirat(&upper, name, Mode::from_raw_mode(0o755))
            .at("make directory in upper layer", name)?;
    }
    for (number, layer) in lower.iter().enumerate() {
        symlinkat(layer, &upper, number.to_string()).at("make link to layer", layer)?;
    }
    let numbers: Vec<String> = (0..lower.len()).map(|number| number.to_string()).collect();
    let options = format!(
        "lowerdir={},upperdir=upper,workdir=work\0",
        numbers.join(":")
    );
    let options =
        std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).expect("ends with its only NUL");
    fchdir(&upper).at("enter upper layer on", target)?;
    rustix::mount::mount("overlay", ".", "overlay", MountFlags::empty(), options)
        .at("mount overlay on", target)?;
    chdir("/").at("enter", "/")?;
    open_directory(target).map(Tree::new)
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
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
    // The old root is stacked on the new one, and "." then names it for the unmount: no directory is needed for it.
    pivot_root(".", ".").at("pivot root to", &root.path)?;
    unmount(".", UnmountFlags::DETACH).during("unmount the host's root")?;
    chdir("/").at("enter", "/")?;
    if let Some((flag, recursive)) = root.propagation {
        sys::mount_setattr(tree.root(), recursive, 0, 0, flag).during("set rootfsPropagation")?;
    }
    Ok(())
}
