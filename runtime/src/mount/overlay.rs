//! The overlay of a root: read-only layers, and above them a tmpfs that takes the writes.
//!
//! A container with its own user namespace gets layers whose ids are mapped to that namespace's. Its process could
//! not mount such an overlay: mapping takes privilege over the layers' filesystem, and an overlay that a user
//! namespace mounts keeps no whiteouts' attributes on a tmpfs. So the runtime makes it, in a mount namespace of a
//! short-lived process, since overlayfs takes its layers by path and only from the mount namespace of the caller.
//! Refuses nothing: what can be a layer is the plan's to say.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, Uid, chownat, fstat, mkdirat, symlinkat};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{WaitId, WaitIdOptions, chdir, fchdir, waitid};

use crate::descriptor;
use crate::error::{Context, Error, Result, chain};
use crate::mount::rootfs::{Layers, open_directory};
use crate::mount::{attach, new_filesystem, open_bind};
use crate::sys::{self, Cloned};

/// Mounts the overlay on `target`; with a user namespace, the layers' ids are mapped to its.
///
/// Upper and work directory live in a tmpfs that the overlay then covers, so nobody else ever sees them.
///
/// The layers are named by short names beside them: mount options are limited to a page, and paths of layers are
/// long. It also makes characters with a meaning in mount options harmless.
pub(super) fn mount_on(
    target: &Path,
    layers: &Layers,
    namespace: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let parameters = [
        ("size".to_owned(), Some(layers.size().to_string())),
        ("mode".to_owned(), Some("755".to_owned())),
    ];
    let upper = new_filesystem("tmpfs", Some("tmpfs"), &parameters)?;
    let onto = open_directory(target)?;
    attach(upper.as_fd(), onto.as_fd()).at("mount upper layer on", target)?;
    for name in ["upper", "work"] {
        mkdirat(&upper, name, Mode::from_raw_mode(0o755))
            .at("make directory in upper layer", name)?;
    }
    for (number, layer) in layers.lower.iter().enumerate() {
        let name = number.to_string();
        match namespace {
            None => symlinkat(layer, &upper, name).at("make link to layer", layer)?,
            Some(namespace) => place_mapped(&upper, &name, layer, namespace)?,
        }
    }
    fchdir(&upper).at("enter upper layer on", target)?;
    let options = options(layers.lower.len());
    mount(
        "overlay",
        ".",
        "overlay",
        MountFlags::empty(),
        options.as_c_str(),
    )
    .at("mount overlay on", target)?;
    chdir("/").at("enter", "/")
}

fn options(count: usize) -> CString {
    let numbers: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    let text = format!("lowerdir={},upperdir=upper,workdir=work", numbers.join(":"));
    CString::new(text).expect("numbers and names hold no NUL")
}

/// Puts a layer at its name. The root directory of the top one gives its owner to the root of the container.
fn place_mapped(
    upper: &OwnedFd,
    name: &str,
    layer: &Path,
    namespace: BorrowedFd<'_>,
) -> Result<()> {
    let mapped = open_mapped(layer, namespace)?;
    mkdirat(upper, name, Mode::from_raw_mode(0o755)).at("make place for layer", layer)?;
    attach(mapped.as_fd(), open_place(upper, name)?.as_fd()).at("mount layer", layer)?;
    if name == "0" {
        let stat = fstat(&mapped).at("inspect layer", layer)?;
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        chownat(upper, "upper", Some(uid), Some(gid), flags)
            .at("change owner of upper layer for", layer)?;
    }
    Ok(())
}

fn open_place(upper: &OwnedFd, name: &str) -> Result<OwnedFd> {
    use rustix::fs::{OFlags, openat};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(upper, name, flags, Mode::empty()).at("open place of layer", name)
}

/// A layer as a detached mount whose ids are mapped to those of the user namespace.
pub(super) fn open_mapped(layer: &Path, namespace: BorrowedFd<'_>) -> Result<OwnedFd> {
    let opened = open_bind(layer, false)?;
    sys::mount_setattr(opened.as_fd(), false, 0, 0, libc::MS_PRIVATE)
        .at("set propagation of layer", layer)?;
    sys::mount_idmap(opened.as_fd(), false, namespace).at("map the ids of layer", layer)?;
    Ok(opened)
}

/// The overlay as a detached mount. What it is made of is seen nowhere.
pub(super) fn make_apart(
    target: &Path,
    layers: &Layers,
    namespace: BorrowedFd<'_>,
) -> Result<OwnedFd> {
    let (ours, mut theirs) = UnixStream::pair().during("make a socket pair")?;
    let new = libc::CLONE_NEWNS as u64;
    match sys::clone3(new, None).during("make a process to mount the root")? {
        Cloned::Child => {
            let sent = match mount_unseen(target, layers, namespace) {
                Ok(made) => descriptor::send(&theirs, made.as_fd(), b"root").is_ok(),
                Err(error) => theirs.write_all(chain(&error).as_bytes()).is_ok(),
            };
            sys::exit_now((!sent).into())
        }
        Cloned::Parent { pidfd, .. } => {
            drop(theirs);
            let mut words = [0; 4096];
            let heard = descriptor::receive(&ours, &mut words);
            waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
                .during("wait for the process that mounts the root")?;
            let (size, made) = heard.during("hear from the process that mounts the root")?;
            let reason = || match size {
                0 => "the process that mounts the root ended before it did".into(),
                _ => String::from_utf8_lossy(&words[..size]).into_owned(),
            };
            made.ok_or_else(|| Error::Child(reason()))
        }
    }
}

/// In a mount namespace of its own, of which nothing may come out.
fn mount_unseen(target: &Path, layers: &Layers, namespace: BorrowedFd<'_>) -> Result<OwnedFd> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).at("set propagation of", "/")?;
    mount_on(target, layers, Some(namespace))?;
    open_bind(target, false)
}
