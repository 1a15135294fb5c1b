//! Takes from this process what it does not need, before it reads a packet of anybody's.
//!
//! Afterwards it is nobody, with the capabilities that it names and no way to others, sees one folder as the whole file
//! system, starts no process, makes few system calls and sockets of IP only, and has a bound on its memory. What is open
//! stays open.

use std::io;
use std::path::Path;

use rustix::process::{Resource, Rlimit, chroot, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, set_capabilities, set_keep_capabilities, set_no_new_privs,
};

use crate::sys;
use crate::sys::seccomp;

/// The user that owns nothing.
const NOBODY: u32 = 65534;
/// What such a process may have of memory that is its own, in bytes: many times what it takes.
const MEMORY: u64 = 64 << 20;

/// What a loop around sockets calls, and the libraries below it; the kernel's clock is guarded by the capability for it.
const CALLS: [libc::c_long; 52] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_close,
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_ftruncate,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_mmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_accept4,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_exit_group,
];

/// Shuts this process in. `keep`: the capabilities that it goes on to have.
///
/// # Errors
/// The first thing that could not be taken away, with a name; the process is not to go on then.
pub fn confine(folder: &Path, keep: CapabilitySet) -> io::Result<()> {
    let named = |what: &'static str| {
        move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"))
    };
    chroot(folder)
        .and_then(|()| rustix::process::chdir("/"))
        .map_err(|errno| named("cannot leave the file system")(errno.into()))?;
    limit(Resource::Nproc, 0);
    limit(Resource::Core, 0);
    limit(Resource::Data, MEMORY);
    set_keep_capabilities(true)?;
    sys::become_user(NOBODY).map_err(named("cannot become nobody"))?;
    let sets = CapabilitySets {
        effective: keep,
        permitted: keep,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)
        .map_err(|errno| named("cannot drop capabilities")(errno.into()))?;
    set_no_new_privs(true).map_err(|errno| named("cannot renounce privileges")(errno.into()))?;
    seccomp::allow_only(&CALLS, &[libc::AF_INET, libc::AF_INET6])
        .map_err(named("cannot filter system calls"))
}

/// A second fence: that it cannot be put up is no reason to stop.
fn limit(resource: Resource, value: u64) {
    let limit = Rlimit {
        current: Some(value),
        maximum: Some(value),
    };
    let _ = setrlimit(resource, limit);
}
