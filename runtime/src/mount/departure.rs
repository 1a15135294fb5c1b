//! Leaving the host's mounts behind, once the container's root is complete: by pivot_root, or where that cannot be by
//! covering them.
//!
//! Refuses to unmount anything where the host shares its mounts with this namespace: they become slaves first.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{chroot, pivot_root};

use crate::error::{Context, Result};
use crate::mount::rootfs::{Root, Source, open_directory};
use crate::mount::{self, tree::Tree};
use crate::sys;

/// Whether an unmount of the host's mounts would happen on the host, too.
fn is_shared(root: &Root) -> bool {
    matches!(root.propagation, Some((libc::MS_SHARED, _)))
}

/// The old root is stacked on the new one, and "." then names it for the unmount: no directory is needed for it.
pub(super) fn leave_host(root: &Root) -> Result<()> {
    let old = is_shared(root).then(|| open_directory(Path::new("/")));
    let old = old.transpose()?;
    pivot_root(".", ".").at("pivot root to", &root.path)?;
    if let Some(old) = old {
        // Only now, for before the container's own mounts were among those below, which may be shared with the host.
        sys::mount_setattr(old.as_fd(), true, 0, 0, libc::MS_SLAVE)
            .during("set propagation of the host's root")?;
    }
    unmount(".", UnmountFlags::DETACH).during("unmount the host's root")
}

/// For a host whose root cannot be left (an initramfs): the new root covers it.
pub(super) fn stay_on_host(tree: &Tree, root: &Root) -> Result<()> {
    if matches!(root.source, Source::Overlay(_)) {
        let onto = open_directory(Path::new("/"))?;
        // Fails where the root lies on "/" already.
        match mount::attach(tree.root(), onto.as_fd()) {
            Ok(()) | Err(Errno::LOOP) => {}
            Err(errno) => return Err(errno).at("move root to", "/"),
        }
    }
    // Those of a joined namespace are somebody else's.
    if !root.joined {
        hide_kernel_filesystems(root);
    }
    chroot(".").at("change root to", &root.path)
}

/// What lies below the covered root is out of sight, but not out of the mount namespace: with a procfs or sysfs that has
/// nothing masked there, the kernel lets a user namespace of the container mount one of its own (`mnt_already_visible`).
fn hide_kernel_filesystems(root: &Root) {
    let Ok(table) = std::fs::read_to_string("/proc/self/mountinfo") else {
        return;
    };
    // Of the container's own mounts none is found by these paths, for the host's root is still that of this process.
    if is_shared(root) {
        for (path, _) in hosts_mounts(&table, &root.path) {
            // What fails is no mount that is found by this path, and then it is not unmounted by it either.
            let _ = mount_change(path.as_str(), MountPropagationFlags::DOWNSTREAM);
        }
    }
    let is_kernels = |(_, kind): &(String, &str)| matches!(*kind, "proc" | "sysfs");
    let mounts: Vec<_> = hosts_mounts(&table, &root.path).collect();
    // The last mounted first.
    for (path, _) in mounts.iter().rev().filter(|mount| is_kernels(mount)) {
        if is_shared(root) {
            // With what is covered below it.
            let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
            let _ = mount_change(path.as_str(), flags);
        }
        let hidden = unmount(path.as_str(), UnmountFlags::DETACH);
        if hidden == Err(Errno::PERM) || hidden == Err(Errno::INVAL) {
            // It may be locked by a user namespace, and then be covered. Nothing is there if this fails, too.
            let (path, flags) = (path.as_str(), MountFlags::RDONLY);
            let _ = rustix::mount::mount("tmpfs", path, "tmpfs", flags, c"size=4k");
        }
    }
}

/// Paths and types of the mounts outside the container's root (proc(5), `/proc/PID/mountinfo`), in the order in which
/// they were mounted.
fn hosts_mounts<'a>(table: &'a str, root: &Path) -> impl Iterator<Item = (String, &'a str)> {
    let place = |line: &'a str| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let kind = filesystem.split(' ').next()?;
        Some((unescape(mount.split(' ').nth(4)?), kind))
    };
    let places = table.lines().filter_map(place);
    places.filter(move |(path, _)| !Path::new(path).starts_with(root))
}

/// Spaces and the like are written as three octal digits.
fn unescape(path: &str) -> String {
    let escapes = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        // At last, for what it gives may look like one of the others.
        ("\\134", "\\"),
    ];
    let replace = |text: String, (from, to): (&str, &str)| text.replace(from, to);
    escapes.into_iter().fold(path.to_owned(), replace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_outside_the_root_are_found_by_their_paths() {
        let table = "\
22 1 0:5 / /proc rw,relatime shared:5 - proc proc rw
23 1 0:6 / /sys rw - sysfs sysfs rw
24 23 0:7 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
25 1 0:8 / /b/rootfs rw - ext4 /dev/vda rw
26 25 0:9 / /b/rootfs/proc rw - proc proc rw
27 1 0:9 / /a\\040b\\134040 rw - proc proc rw
";
        let mounts = hosts_mounts(table, Path::new("/b/rootfs"));
        let expected = [
            ("/proc", "proc"),
            ("/sys", "sysfs"),
            ("/sys/fs/cgroup", "cgroup2"),
            ("/a b\\040", "proc"),
        ];
        let expected = expected.map(|(path, kind)| (path.to_owned(), kind));
        assert_eq!(mounts.collect::<Vec<_>>(), expected);
    }
}
