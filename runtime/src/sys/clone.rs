//! New processes and namespaces.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

use super::check;

/// Which side of [`clone3`] one is on.
#[derive(Debug)]
pub(crate) enum Cloned {
    /// In the caller: the new process and a descriptor that stays valid for exactly that process.
    Parent {
        /// As seen from the caller's pid namespace.
        pid: Pid,
        /// Close-on-exec.
        pidfd: OwnedFd,
    },
    /// In the new process.
    Child,
}

/// `linux/sched.h`; libc's constant has too few bits.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Makes a new process, a copy of this one, with new namespaces (`CLONE_*` flags), and inside a cgroup of v2 if
/// there is one for it.
///
/// With `CLONE_PARENT` it becomes a sibling of this one, which gets its exit signal.
///
/// Refuses to be called from a process of several threads: the copy would hold their locks for ever.
pub(crate) fn clone3(flags: u64, cgroup: Option<&OwnedFd>) -> io::Result<Cloned> {
    // Changes nothing, and is an error in a process of several threads (unshare(2)).
    if unshare(libc::CLONE_THREAD).is_err() {
        return Err(io::Error::other("the runtime must be single-threaded here"));
    }
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero bytes are a valid `clone_args`: every field is an integer.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    if flags & libc::CLONE_PARENT as u64 == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: neither CLONE_VM nor a stack is given, so the new process runs on its own copy of this memory, as
    // after fork; this process has one thread (checked above), so no lock is held by anyone in the copy.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of_val(&args)) })?;
    match Pid::from_raw(pid as i32) {
        Some(pid) => {
            // SAFETY: the kernel stored a new descriptor there that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid, pidfd })
        }
        None => Ok(Cloned::Child),
    }
}

/// Makes new namespaces for this process (`CLONE_NEW*` flags; `CLONE_THREAD` only asks whether it has one thread).
pub(crate) fn unshare(namespaces: libc::c_int) -> io::Result<()> {
    // SAFETY: takes an integer; namespaces concern no memory of this process.
    check(unsafe { libc::unshare(namespaces) }.into()).map(drop)
}
