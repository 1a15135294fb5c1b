//! Processes: copies of this one, children with descriptors, namespaces and users.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs `work` in a child process, for what may never come back; its value is the exit status. Returns the child's id.
///
/// The child is a copy that shares nothing with this process but its open files. By the bare system call: so it may be
/// called in a signal handler.
///
/// # Errors
/// When the kernel has no process to give.
pub fn fork(work: impl FnOnce() -> i32) -> io::Result<i32> {
    // SAFETY: clone(2) without flags but the signal of its end is fork(2): no memory is shared. PID 1 has one thread,
    // so no lock can be held by another one in the copy.
    let id = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    match id {
        0 => exit_at_once(work()),
        id if id > 0 => Ok(i32::try_from(id).expect("a process id fits an i32")),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends this process without running what its parent has to run at its own end.
pub fn exit_at_once(status: i32) -> ! {
    // SAFETY: _exit(2) takes any status and touches no memory.
    unsafe { libc::_exit(status) }
}

/// Waits for a child, at most for `limit`; its exit status (128 and more when a signal ended it), or `None` when it did
/// not end in time.
pub fn wait_for(child: i32, limit: Duration) -> Option<i32> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        let mut status = 0;
        // SAFETY: waitpid(2) writes one integer, which outlives the call.
        let id = unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) };
        if id == child {
            return Some(if libc::WIFEXITED(status) {
                libc::WEXITSTATUS(status)
            } else {
                128 + libc::WTERMSIG(status)
            });
        }
        let interrupted = id < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted;
        if id < 0 && !interrupted {
            return Some(255);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Starts `command` with these descriptors as its own from 3 on; returns its process id.
///
/// # Errors
/// When no process or no descriptor can be had, or the program cannot be executed.
pub fn spawn_with_descriptors(command: &mut Command, descriptors: &[OwnedFd]) -> io::Result<i32> {
    let process_id = |id: u32| i32::try_from(id).map_err(io::Error::other);
    if descriptors.is_empty() {
        return process_id(command.spawn()?.id());
    }
    let count = i32::try_from(descriptors.len()).map_err(io::Error::other)?;
    let end = 3 + count;
    // In the child each number from 3 on is overwritten. So the descriptors are copied to behind them, and all of the
    // numbers are taken meanwhile, that the pipe by which the library tells of a failed execve gets none of them.
    let mut copies = Vec::new();
    for descriptor in descriptors {
        copies.push(rustix::io::fcntl_dupfd_cloexec(descriptor, end)?);
    }
    let mut taken = Vec::new();
    loop {
        let next = rustix::io::fcntl_dupfd_cloexec(&copies[0], 3)?;
        if next.as_raw_fd() >= end {
            break;
        }
        taken.push(next);
    }
    let numbers: Vec<RawFd> = copies.iter().map(AsRawFd::as_raw_fd).collect();
    let install = move || {
        for (number, target) in numbers.iter().zip(3..) {
            // SAFETY: dup2(2) is async-signal-safe and takes two integers.
            if unsafe { libc::dup2(*number, target) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and execve the closure only calls dup2 and reads a vector that was made before; the error of
    // it holds a number and allocates nothing.
    unsafe { command.pre_exec(install) };
    process_id(command.spawn()?.id())
}

/// Makes new namespaces for this process (`CLONE_NEW*`).
///
/// # Errors
/// What the kernel answers.
pub fn unshare(namespaces: i32) -> io::Result<()> {
    // SAFETY: takes an integer; namespaces concern no memory of this process.
    match unsafe { libc::unshare(namespaces) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Becomes this user and group for good, with no other group and so no capability.
///
/// # Errors
/// When this process may not.
pub fn become_user(id: u32) -> io::Result<()> {
    // SAFETY: all take integers, the first one no groups at all; the process has one thread.
    let failed = unsafe {
        libc::setgroups(0, std::ptr::null()) != 0
            || libc::setresgid(id, id, id) != 0
            || libc::setresuid(id, id, id) != 0
    };
    if failed {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_arrive_from_three_on_in_their_order() {
        let pipes: Vec<_> = (0..3).map(|_| rustix::pipe::pipe().unwrap()).collect();
        let (read, write): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "for n in 3 4 5; do echo $n >&$n; done"]);
        let pid = spawn_with_descriptors(&mut command, &write).unwrap();
        drop(write);
        for (number, pipe) in read.into_iter().enumerate() {
            let mut text = String::new();
            io::Read::read_to_string(&mut std::fs::File::from(pipe), &mut text).unwrap();
            assert_eq!(text, format!("{}\n", number + 3));
        }
        let pid = rustix::process::Pid::from_raw(pid);
        rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap();
        let mut missing = Command::new("/no/such/program");
        let (read, _) = rustix::pipe::pipe().unwrap();
        assert!(spawn_with_descriptors(&mut missing, &[read]).is_err());
    }
}
