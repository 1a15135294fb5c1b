//! Signals: caught ones become bytes on a pipe; raw numbers are sent.

use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::pipe::PipeFlags;

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

/// Lets this process's children, also those that are left to it, vanish when they end: nobody will wait for them.
pub fn let_children_vanish() {
    // SAFETY: SIG_IGN is no handler, so no code of ours is ever called.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

#[cfg(test)]
mod tests {
    use super::*;

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
