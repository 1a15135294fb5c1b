//! A process that does nothing but keep a user namespace in being.

use std::io;

use super::check;

/// The process; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Idle {
    pid: libc::pid_t,
}

impl Idle {
    /// As seen from this process.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        // SAFETY: takes integers; the process is our child and not waited for yet, so the id is still its.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        // SAFETY: a null pointer for the status is allowed.
        while unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) } < 0
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
}

/// Makes a user namespace without mappings, and a process in it that waits for its end.
pub(crate) fn idle_in_user_namespace() -> io::Result<Idle> {
    // SAFETY: all-zero bytes are a valid `clone_args`: every field is an integer.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = libc::CLONE_NEWUSER as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM the new process runs on its own copy of this memory, as after fork. It makes
    // system calls only, so locks that other threads might hold in the copy do not concern it.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of_val(&args)) })?;
    if pid != 0 {
        return Ok(Idle {
            pid: pid as libc::pid_t,
        });
    }
    // SAFETY: takes integers. Should the runtime die, so does this process.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    loop {
        // SAFETY: takes nothing, and returns when a signal was handled; every signal's action ends the process.
        unsafe { libc::pause() };
    }
}
