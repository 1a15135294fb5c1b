//! The terminal of the process (`process.terminal`): made inside the container, held outside.
//!
//! The container's process opens `ptmx` of its own devpts and sends the master over a socket: to who listens on
//! `--console-socket`, else to the runtime, which relays. The slave is taken from the master (`TIOCGPTPEER`), not by
//! a path, so nothing in the image can stand in for it. Refuses a `ptmx` that is a symlink or not of a devpts.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, fchown, fcntl_getfl, fcntl_setfl, fstatfs, openat2};
use rustix::io::Errno;
use rustix::process::{Uid, ioctl_tiocsctty};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::descriptor;
use crate::error::{Context, Error, Result};
use crate::spec::ConsoleSize;

/// Of `linux/magic.h`.
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
const PTMX: &str = "/dev/pts/ptmx";

/// What the process will have instead of the caller's standard streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terminal {
    /// Rows and columns, if `process.consoleSize` gives them.
    pub size: Option<(u16, u16)>,
}

impl Terminal {
    /// `None` unless `process.terminal` asks for one: then `consoleSize` must be ignored (config.md, "Process").
    pub(crate) fn resolve(terminal: bool, size: Option<ConsoleSize>) -> Result<Option<Self>> {
        if !terminal {
            return Ok(None);
        }
        let number = |value: u64| {
            u16::try_from(value).map_err(|_| {
                Error::Config(format!("process.consoleSize: {value} is not below 65536"))
            })
        };
        let size = match size {
            Some(size) => Some((number(size.height)?, number(size.width)?)),
            None => None,
        };
        // Engines that know no size say zero.
        let size = size.filter(|size| *size != (0, 0));
        Ok(Some(Self { size }))
    }
}

/// Whether `--console-socket` fits the process. `detached` is also who creates without starting.
pub(crate) fn check(terminal: bool, console_socket: bool, detached: bool) -> Result<()> {
    match (terminal, console_socket) {
        (true, false) if detached => Err(Error::Container(
            "process.terminal: cannot allocate a tty when detached without --console-socket".into(),
        )),
        (false, true) => Err(Error::Container(
            "--console-socket: the process has no terminal (process.terminal)".into(),
        )),
        _ => Ok(()),
    }
}

/// The socket on which the master is sent, and where the runtime is to relay, its other end.
pub(crate) fn console(
    terminal: bool,
    console_socket: Option<&Path>,
) -> Result<(Option<UnixStream>, Option<UnixStream>)> {
    match (terminal, console_socket) {
        (false, _) => Ok((None, None)),
        (true, Some(path)) => {
            let stream = UnixStream::connect(path).at("connect to console socket", path)?;
            Ok((Some(stream), None))
        }
        (true, None) => {
            let (ours, theirs) = UnixStream::pair().during("make a socket pair")?;
            Ok((Some(theirs), Some(ours)))
        }
    }
}

/// Makes a terminal in the devpts of the tree `root`, sends the master away, and returns the slave.
pub(crate) fn open(
    root: BorrowedFd<'_>,
    terminal: Terminal,
    uid: u32,
    console: &UnixStream,
) -> Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = openat2(root, PTMX, flags, Mode::empty(), resolve).at("open", PTMX)?;
    if fstatfs(&master).at("inspect", PTMX)?.f_type != DEVPTS_SUPER_MAGIC {
        return Err(Errno::NODEV).at("take for the master of terminals", PTMX);
    }
    unlockpt(&master).during("unlock the terminal")?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags).during("open the terminal")?;
    if let Some((rows, columns)) = terminal.size {
        set_size(master.as_fd(), rows, columns).during("set process.consoleSize")?;
    }
    fchown(&slave, Some(Uid::from_raw(uid)), None).during("give the terminal to the user")?;
    descriptor::send(console, master.as_fd(), PTMX.as_bytes())
        .during("send the terminal over the console socket")?;
    Ok(slave)
}

/// Makes the terminal the controlling one of this session, and its standard streams.
pub(crate) fn take(slave: &OwnedFd) -> Result<()> {
    ioctl_tiocsctty(slave).during("control the terminal")?;
    dup2_stdin(slave)
        .and_then(|()| dup2_stdout(slave))
        .and_then(|()| dup2_stderr(slave))
        .during("take the terminal for standard streams")
}

pub(super) fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<(), Errno> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size)
}

/// Makes reading and writing the master return instead of waiting.
pub(super) fn do_not_wait(master: BorrowedFd<'_>) -> Result<(), Errno> {
    fcntl_setfl(master, fcntl_getfl(master)? | OFlags::NONBLOCK)
}

/// Receives the master that [`open`] sent; `None` if the process died before.
pub(crate) fn receive(socket: &UnixStream) -> Result<Option<OwnedFd>, Errno> {
    descriptor::receive(socket, &mut [0; 64]).map(|(_, master)| master)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn console_size_counts_for_a_terminal_only() {
        let size = |height, width| Some(ConsoleSize { height, width });
        for (terminal, size, expected) in [
            (false, size(1 << 40, 0), None),
            (true, None, Some(None)),
            (true, size(0, 0), Some(None)),
            (true, size(24, 80), Some(Some((24, 80)))),
        ] {
            let resolved = Terminal::resolve(terminal, size).expect("valid");
            assert_eq!(resolved.map(|terminal| terminal.size), expected);
        }
        assert!(Terminal::resolve(true, size(65_536, 80)).is_err());
    }

    #[test]
    fn console_socket_and_terminal_need_each_other() {
        for (terminal, socket, detached, good) in [
            (false, false, true, true),
            (false, false, false, true),
            (true, true, true, true),
            (true, true, false, true),
            (true, false, false, true),
            (true, false, true, false),
            (false, true, true, false),
            (false, true, false, false),
        ] {
            let checked = check(terminal, socket, detached);
            assert_eq!(checked.is_ok(), good, "{terminal} {socket} {detached}");
        }
    }
}
