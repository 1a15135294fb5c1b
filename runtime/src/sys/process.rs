//! What a process is and does: descriptors, signals, execution.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::check;

/// Sets close-on-exec on all descriptors from `first` on.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: closes nothing now, so no owned descriptor is pulled from under anyone.
    check(unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    })
    .map(drop)
}

/// Executes a program in place of this process; returns only the reason why it did not.
pub(crate) fn execve(program: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with a null pointer, and their strings live through the call.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// The same with an open file, which may be close-on-exec.
pub(crate) fn execute_file(file: BorrowedFd<'_>, args: &[CString], env: &[CString]) -> io::Error {
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: the path is a C string, both arrays end with a null pointer, and their strings live through the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// As execve takes them: the strings' addresses and a null pointer.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    let addresses = strings.iter().map(|string| string.as_ptr());
    addresses.chain([std::ptr::null()]).collect()
}

/// Ends this process at once: no destructors, no buffers, nothing that belongs to the process it was copied from.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: does not return and touches no memory.
    unsafe { libc::_exit(status) }
}

/// Gives every signal its default action and unblocks all, as a new program expects to find them.
pub(crate) fn reset_signals() {
    // The C library's function refuses the two signals that it keeps for itself, and its way of spawning a program
    // leaves those ignored; so this asks the kernel. `struct sigaction` of the kernel's: handler, flags, restorer,
    // mask; all zero is the default action.
    let default = [0_u64; 4];
    let none = std::ptr::null_mut::<u64>();
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: the default action runs no code of ours, and the structure lives through the call. It fails for
        // SIGKILL and SIGSTOP, which have no other action.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                none,
                size_of::<u64>(),
            )
        };
    }
    unblock_signals();
}

/// A write to a pipe that nobody reads is an error then, and not the end.
pub(crate) fn ignore_broken_pipes() {
    // SAFETY: no code of ours runs for the signal.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

fn unblock_signals() {
    // SAFETY: all-zero bytes are a valid signal set; sigemptyset then initializes it; the last call only reads it.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Has a command begin with no signal blocked, whatever this process has blocked, and with no descriptors but the
/// standard ones, whatever was left open for this process.
pub(crate) fn spawn_clean(command: &mut Command) {
    let clean = || {
        unblock_signals();
        close_on_exec_from(3)
    };
    // SAFETY: between fork and execve it only changes the mask and the flags of descriptors, both by system calls that
    // are async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(clean) };
}

/// Blocks all signals and returns a descriptor from which they can be read instead.
pub(crate) fn signals_as_file() -> io::Result<OwnedFd> {
    // SAFETY: all-zero bytes are a valid signal set; sigfillset then initializes it.
    let all = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        all
    };
    block_as_file(&all)
}

/// The signals that ask a program to end.
pub(crate) const ENDING_SIGNALS: [i32; 4] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// The same for [`ENDING_SIGNALS`] alone: the descriptor is readable while one of them is pending.
pub(crate) fn ending_signals_as_file() -> io::Result<OwnedFd> {
    // SAFETY: all-zero bytes are a valid signal set, which the calls then change; the signals exist.
    let ending = unsafe {
        let mut ending: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut ending);
        for signal in ENDING_SIGNALS {
            libc::sigaddset(&raw mut ending, signal);
        }
        ending
    };
    block_as_file(&ending)
}

fn block_as_file(signals: &libc::sigset_t) -> io::Result<OwnedFd> {
    // SAFETY: the set is initialized, and the calls only read it.
    let descriptor = unsafe {
        libc::sigprocmask(libc::SIG_BLOCK, signals, std::ptr::null_mut());
        libc::signalfd(-1, signals, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    check(descriptor.into())?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Sends any signal, real-time ones too, to the process that `pidfd` stands for.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: integers, and a null pointer where the kernel accepts one.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            no_info,
            0,
        )
    })
    .map(drop)
}

/// Leaves the caller's session keyring for a new, empty one. A kernel without keyrings has none to leave.
pub(crate) fn join_new_session_keyring() -> io::Result<()> {
    let anonymous = std::ptr::null::<libc::c_char>();
    // SAFETY: the name may be null (keyctl(2)).
    let result = check(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING,
            anonymous,
        )
    });
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        other => other.map(drop),
    }
}

/// What [`set_scheduling`] sets (`sched_setattr(2)`). Times are in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the names and their meaning are the system call's"
)]
pub struct SchedulingAttributes {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// Gives this process a scheduling policy.
pub(crate) fn set_scheduling(attributes: &SchedulingAttributes) -> io::Result<()> {
    /// `struct sched_attr` in its first version.
    #[repr(C)]
    struct Raw {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let raw = Raw {
        size: size_of::<Raw>() as u32,
        policy: attributes.policy,
        flags: attributes.flags,
        nice: attributes.nice,
        priority: attributes.priority,
        runtime: attributes.runtime,
        deadline: attributes.deadline,
        period: attributes.period,
    };
    // SAFETY: the kernel reads as many bytes as `size` says, which live through the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const raw, 0) }).map(drop)
}

/// Gives this process an I/O priority, class and level in one number (`ioprio_set(2)`).
pub(crate) fn set_io_priority(priority: i32) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: takes integers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) }).map(drop)
}

/// Gives this process an execution domain (`personality(2)`).
pub(crate) fn set_personality(persona: u64) -> io::Result<()> {
    // SAFETY: takes an integer.
    check(unsafe { libc::personality(persona) }.into()).map(drop)
}

/// Gives this process a policy for the memory that it will be given (`set_mempolicy(2)`): a mode with its flags, and a
/// bit for each NUMA node.
pub(crate) fn set_memory_policy(mode: i32, nodes: &[u64]) -> io::Result<()> {
    // The kernel reads one bit less than it is told.
    let bits = size_of_val(nodes) * 8 + usize::from(!nodes.is_empty());
    let pointer = if nodes.is_empty() {
        std::ptr::null()
    } else {
        nodes.as_ptr()
    };
    // SAFETY: the kernel reads as many bits as it is told, less one, all of them in `nodes`, or nothing.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) }).map(drop)
}
