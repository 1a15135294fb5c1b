//! The way back out of the verified root, when nothing runs any more: so that it is unmounted and its device is closed
//! before the power goes, as any other file system's.
//!
//! PID 1 returns to the initramfs that it came from. Its program lies there, unlinked and still mapped, and so nothing
//! of it holds the root. What else does (a process that not even SIGKILL ends) is told; as the root is never written,
//! there is nothing to lose in it.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};

use crate::ROOT_DEVICE_NAME;
use crate::dm::DeviceMapper;

/// The directories of the initramfs that the kernel's file systems return to.
const KERNEL_MOUNTS: [&CStr; 3] = [c"/dev", c"/proc", c"/sys"];
/// Where the root was mounted first.
const OLD_PLACE: &CStr = c"/sysroot";
/// How often an unmount is tried again: a process that was killed takes a moment to let go.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

static INITRAMFS: OnceLock<OwnedFd> = OnceLock::new();

/// Keeps the initramfs's root directory, before another root is entered.
pub fn remember(directory: OwnedFd) {
    let _ = INITRAMFS.set(directory);
}

/// Leaves the verified root, unmounts it and closes its device.
///
/// # Errors
/// In words, what still holds it; it can be left so.
pub fn close_root() -> Result<(), String> {
    let initramfs = INITRAMFS
        .get()
        .ok_or("there is no way back to the initramfs")?;
    leave(initramfs).map_err(|errno| format!("cannot leave it: {errno}"))?;
    unmount_patiently().map_err(|errno| format!("it is still in use: {errno}"))?;
    DeviceMapper::open()
        .and_then(|mapper| mapper.remove(ROOT_DEVICE_NAME))
        .map_err(|error| crate::describe(&error))
}

/// Takes the kernel's file systems along, and lets go of all others that are mounted in the root.
fn leave(initramfs: &OwnedFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::empty();
    for place in KERNEL_MOUNTS {
        let below = CStr::from_bytes_with_nul(&place.to_bytes_with_nul()[1..])
            .expect("the rest of a C string is one");
        move_mount(CWD, place, initramfs, below, flags)?;
    }
    for place in [c"/run", c"/tmp", c"/state"] {
        let _ = unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
    move_mount(CWD, c"/", initramfs, c"sysroot", flags)?;
    rustix::process::fchdir(initramfs)?;
    rustix::process::chroot(c".")
}

fn unmount_patiently() -> rustix::io::Result<()> {
    for _ in 1..ATTEMPTS {
        match unmount(OLD_PLACE, UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
    unmount(OLD_PLACE, UnmountFlags::NOFOLLOW)
}
