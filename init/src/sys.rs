//! Every `unsafe` of init: stage markers, signal handlers, ioctls, raw signals.
//!
//! Each function here is safe to call; the reasons stand at the blocks. Everything else that init asks of
//! the kernel goes through rustix's safe calls. Nothing is decided in this module.
#![allow(unsafe_code, reason = "the one place for what no safe crate offers")]

pub mod clock;
mod device;
mod disk;
pub mod netlink;
pub mod packet;
mod process;
mod project;
pub mod seccomp;
mod signals;
mod stage;

use std::io;
use std::os::fd::{AsFd, AsRawFd};

pub use device::{add_entropy, output_queue, reseed, watchdog_name, watchdog_timeout};
pub use disk::{add_partition, device_mapper_ioctl, resize_filesystem, resize_partition};
pub use process::{become_user, exit_at_once, fork, spawn_with_descriptors, unshare, wait_for};
pub use project::{is_of_project, set_project, set_project_limits};
pub use signals::{catch_fatal_signals, catch_signals, kill, let_children_vanish};
pub use stage::{Stage, mark};

/// What an ioctl says, as a result.
fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Binds a socket to one network interface (`SO_BINDTODEVICE`).
///
/// # Errors
/// `ENODEV` when there is no such interface.
pub fn bind_to_device(socket: impl AsFd, device: &str) -> io::Result<()> {
    let length = libc::socklen_t::try_from(device.len())
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: the pointer and the length describe `device`, which outlives the call; the kernel only reads.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            device.as_ptr().cast(),
            length,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
