//! Every `unsafe` of init: stage markers, signal handlers, ioctls, raw signals.
//!
//! Each function here is safe to call; the reasons stand at the blocks. Everything else that init asks of
//! the kernel goes through rustix's safe calls. Nothing is decided in this module.
#![allow(unsafe_code, reason = "the one place for what no safe crate offers")]

pub mod clock;
pub mod netlink;
pub mod packet;
pub mod seccomp;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use rustix::pipe::PipeFlags;

/// A point of the boot that the instruction counter notes; the value is the marker's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Running in the initramfs.
    Initramfs,
    /// The verified root is mounted.
    Root,
    /// The root's own mounts are done.
    System,
    /// The state partition is mounted.
    State,
    /// An address is bound.
    Network,
    /// Every workload is ready.
    Ready,
    /// The machine is going down.
    Stopping,
    /// Everything is unmounted.
    PowerOff,
    /// One more workload is ready.
    WorkloadReady,
}

/// `nop dword ptr [rax + 0x0C0AC100 + N]`: touches no memory, changes no register, and is found by its
/// bytes (`0f 1f 80 imm32`) when an emulator translates it.
macro_rules! marker {
    ($offset:literal) => {
        // SAFETY: a `nop` with a memory operand computes no access; it has no effect at all.
        unsafe {
            std::arch::asm!(
                concat!("nop dword ptr [rax + ", $offset, "]"),
                options(nomem, nostack, preserves_flags)
            )
        }
    };
}

/// Executes the marker of `stage` once.
#[inline(never)]
pub fn mark(stage: Stage) {
    match stage {
        Stage::Initramfs => marker!("0x0C0AC101"),
        Stage::Root => marker!("0x0C0AC102"),
        Stage::System => marker!("0x0C0AC103"),
        Stage::State => marker!("0x0C0AC104"),
        Stage::Network => marker!("0x0C0AC105"),
        Stage::Ready => marker!("0x0C0AC106"),
        Stage::Stopping => marker!("0x0C0AC107"),
        Stage::PowerOff => marker!("0x0C0AC108"),
        Stage::WorkloadReady => marker!("0x0C0AC109"),
    }
}

/// The write end of the pipe that signal handlers write their number to; -1 before [`catch_signals`].
static SIGNAL_PIPE: AtomicI32 = AtomicI32::new(-1);

/// Writes the signal's number to the pipe, and keeps `errno` as it was.
extern "C" fn note_signal(signal: libc::c_int) {
    let fd = SIGNAL_PIPE.load(Ordering::Relaxed);
    let byte = signal as u8;
    // SAFETY: write(2) is async-signal-safe, the buffer is one byte on this stack, and errno's location is
    // valid for the whole thread.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(fd, (&raw const byte).cast(), 1);
        *libc::__errno_location() = errno;
    }
}

/// Turns `signals` into bytes on the returned pipe (non-blocking; one byte a signal, its number).
///
/// A pipe, not a signalfd: a signalfd needs the signals blocked, and a blocked mask is inherited by every
/// program that init executes. Handlers are not inherited.
///
/// # Errors
/// When no pipe can be made or a number is no catchable signal.
pub fn catch_signals(signals: &[i32]) -> io::Result<OwnedFd> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // The handler needs the descriptor as long as the process lives.
    SIGNAL_PIPE.store(write.into_raw_fd(), Ordering::Relaxed);
    for &signal in signals {
        install_handler(signal, note_signal, libc::SA_RESTART)?;
    }
    Ok(read)
}

/// Has `handler` called for the signals that a fault of this program raises (SIGSEGV, SIGBUS, SIGILL, SIGFPE,
/// SIGABRT), on a stack of its own, as this one may have overflown. A fault within it is left to the kernel.
///
/// # Errors
/// None that Linux has for these signals.
pub fn catch_fatal_signals(handler: extern "C" fn(libc::c_int)) -> io::Result<()> {
    /// The kernel's frame takes up to 11 KiB of it (x86-64 with all its extensions).
    const STACK: usize = 64 << 10;
    let stack = libc::stack_t {
        ss_sp: Box::leak(Box::<[u8]>::from(vec![0; STACK]))
            .as_mut_ptr()
            .cast(),
        ss_flags: 0,
        ss_size: STACK,
    };
    // SAFETY: the memory is as large as it says and is never given back.
    if unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let flags = libc::SA_ONSTACK | libc::SA_RESETHAND | libc::SA_NODEFER;
    let signals = [
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGILL,
        libc::SIGFPE,
        libc::SIGABRT,
    ];
    signals
        .into_iter()
        .try_for_each(|signal| install_handler(signal, handler, flags))
}

fn install_handler(
    signal: i32,
    handler: extern "C" fn(libc::c_int),
    flags: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the struct is plain data, zero is valid for each field, and the handler has the type that a sigaction
    // without SA_SIGINFO calls.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = flags;
        libc::sigaction(signal, &raw const action, std::ptr::null_mut())
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

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

/// Sets a watchdog device's time in seconds (`WDIOC_SETTIMEOUT`); returns the one that it took.
///
/// # Errors
/// `EINVAL` for a time that it does not have, `EOPNOTSUPP` when its time is fixed.
pub fn watchdog_timeout(device: BorrowedFd<'_>, seconds: u32) -> io::Result<u32> {
    const SET_TIMEOUT: libc::Ioctl = 0xc004_5706;
    let mut value = libc::c_int::try_from(seconds).unwrap_or(libc::c_int::MAX);
    // SAFETY: the kernel reads and writes one integer, which outlives the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), SET_TIMEOUT, &raw mut value) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(u32::try_from(value).unwrap_or(seconds))
    }
}

/// A watchdog device's name (`WDIOC_GETSUPPORT`).
///
/// # Errors
/// What the kernel answers.
pub fn watchdog_name(device: BorrowedFd<'_>) -> io::Result<String> {
    /// `struct watchdog_info` of linux/watchdog.h.
    #[repr(C)]
    struct Information {
        options: u32,
        firmware_version: u32,
        identity: [u8; 32],
    }
    const GET_SUPPORT: libc::Ioctl = 0x8028_5700;
    let mut information = Information {
        options: 0,
        firmware_version: 0,
        identity: [0; 32],
    };
    // SAFETY: the struct has the kernel's layout and outlives the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), GET_SUPPORT, &raw mut information) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let name = information.identity.split(|byte| *byte == 0).next();
    Ok(String::from_utf8_lossy(name.unwrap_or_default()).into_owned())
}

/// How many bytes a terminal's driver has not given to its port yet (`TIOCOUTQ`).
///
/// # Errors
/// `ENOTTY` for what is no terminal.
pub fn output_queue(terminal: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the kernel writes one integer, which outlives the call.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(usize::try_from(count).unwrap_or(0))
    }
}

/// Sends any signal by its number, real-time ones too. `pid` -1 reaches every process but this one.
///
/// # Errors
/// `ESRCH` when nothing is left to signal, `EINVAL` for a number that is no signal.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill(2) takes two integers and touches no memory of ours.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
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

/// One device-mapper ioctl: `request` is the full number, `buffer` a `struct dm_ioctl` with what follows it.
///
/// # Errors
/// What the kernel answers.
pub fn device_mapper_ioctl(
    control: BorrowedFd<'_>,
    request: u32,
    buffer: &mut [u8],
) -> io::Result<()> {
    assert!(
        buffer.len() >= crate::dm::HEADER_SIZE,
        "a dm_ioctl is never shorter than its header"
    );
    let size = u32::try_from(buffer.len()).expect("requests are a few kilobytes");
    buffer[12..16].copy_from_slice(&size.to_ne_bytes());
    // SAFETY: the kernel reads and writes at most `data_size` bytes (just set to the buffer's length) at the
    // pointer, which stays borrowed mutably for the call.
    let result = unsafe {
        libc::ioctl(
            control.as_raw_fd(),
            libc::Ioctl::from(request),
            buffer.as_mut_ptr(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// `struct blkpg_partition` of linux/blkpg.h.
#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    number: i32,
    names: [u8; 128],
}

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct BlkpgArgument {
    operation: i32,
    flags: i32,
    data_length: i32,
    data: *mut BlkpgPartition,
}

/// Tells the kernel of a partition that it did not find itself (`BLKPG_ADD_PARTITION`). Start and length in
/// bytes.
///
/// # Errors
/// `EBUSY` when it overlaps one that the kernel has.
pub fn add_partition(disk: BorrowedFd<'_>, number: u32, start: u64, length: u64) -> io::Result<()> {
    const ADD: i32 = 1;
    change_partition(disk, ADD, number, start, length)
}

/// Tells the kernel that a partition has another length now (`BLKPG_RESIZE_PARTITION`); it may be in use.
///
/// # Errors
/// `EINVAL` when it does not begin at `start`, `EBUSY` when it would overlap another.
pub fn resize_partition(
    disk: BorrowedFd<'_>,
    number: u32,
    start: u64,
    length: u64,
) -> io::Result<()> {
    const RESIZE: i32 = 3;
    change_partition(disk, RESIZE, number, start, length)
}

fn change_partition(
    disk: BorrowedFd<'_>,
    operation: i32,
    number: u32,
    start: u64,
    length: u64,
) -> io::Result<()> {
    const BLKPG: libc::Ioctl = 0x1269;
    let out_of_range = |_| io::Error::from_raw_os_error(libc::EINVAL);
    let mut partition = BlkpgPartition {
        start: i64::try_from(start).map_err(out_of_range)?,
        length: i64::try_from(length).map_err(out_of_range)?,
        number: i32::try_from(number).map_err(out_of_range)?,
        names: [0; 128],
    };
    let data_length = i32::try_from(size_of::<BlkpgPartition>()).map_err(out_of_range)?;
    let mut argument = BlkpgArgument {
        operation,
        flags: 0,
        data_length,
        data: &raw mut partition,
    };
    // SAFETY: both structs have the kernel's layout and outlive the call; the kernel reads `data_length` bytes
    // at `data`, which is the size of what it points to.
    checked(unsafe { libc::ioctl(disk.as_raw_fd(), BLKPG, &raw mut argument) })
}

/// What an ioctl says, as a result.
fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Grows the mounted ext4 file system that `directory` is on to so many of its blocks (`EXT4_IOC_RESIZE_FS`).
///
/// # Errors
/// What the kernel answers.
pub fn resize_filesystem(directory: BorrowedFd<'_>, blocks: u64) -> io::Result<()> {
    const EXT4_IOC_RESIZE_FS: libc::Ioctl = 0x4008_6610;
    // SAFETY: the kernel reads eight bytes at the pointer, which is of a value that outlives the call.
    checked(unsafe { libc::ioctl(directory.as_raw_fd(), EXT4_IOC_RESIZE_FS, &raw const blocks) })
}

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct ExtraAttributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    padding: [u8; 8],
}

/// New files of a directory are of its project.
const INHERITS_PROJECT: u32 = 0x200;

fn extra_attributes(file: BorrowedFd<'_>) -> io::Result<ExtraAttributes> {
    const FS_IOC_FSGETXATTR: libc::Ioctl = 0x801c_581f;
    let mut found = ExtraAttributes::default();
    // SAFETY: the struct has the kernel's layout, and the kernel writes only that.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSGETXATTR, &raw mut found) })?;
    Ok(found)
}

/// Whether a file is of this project, and what is made in a directory then, too.
///
/// # Errors
/// `ENOTTY` or `EOPNOTSUPP` when its file system has no projects.
pub fn is_of_project(file: BorrowedFd<'_>, project: u32, is_directory: bool) -> io::Result<bool> {
    let found = extra_attributes(file)?;
    let inherits = found.flags & INHERITS_PROJECT != 0;
    Ok(found.project == project && (inherits || !is_directory))
}

/// Gives a file to a project; what is made in a directory then is of it as well.
///
/// # Errors
/// `EOPNOTSUPP` when its file system has no projects.
pub fn set_project(file: BorrowedFd<'_>, project: u32, is_directory: bool) -> io::Result<()> {
    const FS_IOC_FSSETXATTR: libc::Ioctl = 0x401c_5820;
    let mut wanted = extra_attributes(file)?;
    wanted.project = project;
    if is_directory {
        wanted.flags |= INHERITS_PROJECT;
    }
    // SAFETY: the struct has the kernel's layout, and the kernel only reads it.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSSETXATTR, &raw const wanted) })
}

/// Sets the most bytes and files that a project may have on the mounted file system of `directory`; 0 is no limit.
/// Bytes are counted in KiB, rounded down.
///
/// # Errors
/// `ESRCH` when the file system counts no projects.
pub fn set_project_limits(
    directory: BorrowedFd<'_>,
    project: u32,
    bytes: u64,
    files: u64,
) -> io::Result<()> {
    /// `struct if_dqblk` of linux/quota.h.
    #[repr(C)]
    #[derive(Default)]
    struct Limits {
        hard_kib: u64,
        soft_kib: u64,
        bytes: u64,
        hard_files: u64,
        soft_files: u64,
        files: u64,
        bytes_time: u64,
        files_time: u64,
        valid: u32,
    }
    const QUOTACTL_FD: libc::c_long = 443;
    const SET_PROJECT_QUOTA: u32 = 0x80_0008 << 8 | 2;
    const LIMITS_ARE_VALID: u32 = 1 | 4;
    let mut limits = Limits {
        hard_kib: bytes / 1024,
        hard_files: files,
        valid: LIMITS_ARE_VALID,
        ..Limits::default()
    };
    // SAFETY: the struct has the kernel's layout and outlives the call, and the other arguments are numbers.
    let result = unsafe {
        libc::syscall(
            QUOTACTL_FD,
            directory.as_raw_fd(),
            SET_PROJECT_QUOTA,
            project,
            &raw mut limits,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Stirs bytes into the kernel's random pool and counts them as so many bits of entropy (`RNDADDENTROPY`).
///
/// # Errors
/// What the kernel answers; more than 512 bytes are cut off.
pub fn add_entropy(bytes: &[u8], bits: u32) -> io::Result<()> {
    /// `struct rand_pool_info` of linux/random.h.
    #[repr(C)]
    struct PoolInfo {
        bits: i32,
        length: i32,
        bytes: [u8; 512],
    }
    const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
    let length = bytes.len().min(512);
    let mut info = PoolInfo {
        bits: i32::try_from(bits).unwrap_or(i32::MAX),
        length: i32::try_from(length).expect("at most 512"),
        bytes: [0; 512],
    };
    info.bytes[..length].copy_from_slice(&bytes[..length]);
    let device = std::fs::File::options().write(true).open("/dev/urandom")?;
    // SAFETY: the struct has the kernel's layout; the kernel reads `length` bytes of its end, which it has.
    checked(unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY, &raw const info) })
}

/// Lets what was stirred in take effect at once (`RNDRESEEDCRNG`).
///
/// # Errors
/// `ENODATA` while the kernel has not enough entropy, when it is of no need.
pub fn reseed() -> io::Result<()> {
    const RNDRESEEDCRNG: libc::Ioctl = 0x5207;
    let device = std::fs::File::options().write(true).open("/dev/urandom")?;
    // SAFETY: this ioctl takes no argument.
    checked(unsafe { libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG) })
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

/// Lets this process's children, also those that are left to it, vanish when they end: nobody will wait for them.
pub fn let_children_vanish() {
    // SAFETY: SIG_IGN is no handler, so no code of ours is ever called.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
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

    /// One test, as a process has one set of handlers and one pipe.
    #[test]
    fn a_caught_signal_arrives_as_its_number_and_no_other_number_is_taken() {
        assert!(catch_signals(&[4711]).is_err());
        assert!(kill(1, 4711).is_err());
        let pipe = catch_signals(&[libc::SIGUSR2]).unwrap();
        kill(i32::try_from(std::process::id()).unwrap(), libc::SIGUSR2).unwrap();
        // The signal may be delivered to another thread of the test binary a moment later.
        let mut wanted = [rustix::event::PollFd::new(
            &pipe,
            rustix::event::PollFlags::IN,
        )];
        let deadline = rustix::time::Timespec {
            tv_sec: 30,
            tv_nsec: 0,
        };
        let ready = loop {
            // The signal may also interrupt the wait for itself.
            match rustix::event::poll(&mut wanted, Some(&deadline)) {
                Err(rustix::io::Errno::INTR) => {}
                ready => break ready,
            }
        };
        assert_eq!(ready, Ok(1));
        let mut byte = [0_u8; 1];
        rustix::io::read(&pipe, &mut byte).unwrap();
        assert_eq!(i32::from(byte[0]), libc::SIGUSR2);
    }
}
