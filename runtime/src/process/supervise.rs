//! What the runtime does in the foreground: passes signals on, relays a terminal, and takes the exit status.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

use super::terminal;
use crate::error::{Context, Result};
use crate::sys;

/// Waits for the end of the process that `pidfd` stands for, and returns its status for the shell: the command's,
/// or 128 and the number of the signal that killed it.
///
/// `signals` are passed on meanwhile ([`sys::signals_as_file`]); `master` is its terminal, where there is one to
/// relay.
pub(crate) fn supervise(
    pidfd: BorrowedFd<'_>,
    signals: OwnedFd,
    master: Option<OwnedFd>,
) -> Result<u8> {
    let mut signals = File::from(signals);
    let mut relay = master.map(Relay::new).transpose()?;
    loop {
        let watch_input = relay.as_ref().is_some_and(|relay| relay.input_is_open);
        let stdin = rustix::stdio::stdin();
        let mut watched = vec![
            PollFd::new(&pidfd, PollFlags::IN),
            PollFd::new(&signals, PollFlags::IN),
        ];
        if let Some(master) = relay.as_ref().and_then(|relay| relay.master.as_ref()) {
            watched.push(PollFd::new(master, PollFlags::IN));
            if watch_input {
                watched.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
            }
        }
        match poll(&mut watched, None) {
            Err(Errno::INTR) => continue,
            other => other.during("wait for the container process")?,
        };
        let ready: Vec<bool> = watched
            .iter()
            .map(|watched| !watched.revents().is_empty())
            .collect();
        while let Some(signal) = next_signal(&mut signals) {
            match (signal, &relay) {
                (libc::SIGCHLD, _) => {}
                (libc::SIGWINCH, Some(relay)) => relay.resize(),
                // It may just have ended.
                _ => drop(sys::pidfd_send_signal(pidfd, signal)),
            }
        }
        if let Some(relay) = &mut relay {
            relay.pass(
                ready.get(2) == Some(&true),
                watch_input && ready.get(3) == Some(&true),
            );
        }
        if ready[0] {
            if let Some(relay) = &mut relay {
                relay.drain();
            }
            let status = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED)
                .during("wait for the container process")?;
            return Ok(shell_status(status));
        }
    }
}

fn next_signal(signals: &mut File) -> Option<i32> {
    let mut information = [0u8; size_of::<libc::signalfd_siginfo>()];
    signals.read_exact(&mut information).ok()?;
    // `ssi_signo` comes first.
    let number: [u8; 4] = information[..4].try_into().expect("four bytes");
    i32::try_from(u32::from_ne_bytes(number)).ok()
}

fn shell_status(status: Option<WaitIdStatus>) -> u8 {
    let killed = |status: &WaitIdStatus| status.terminating_signal().map(|signal| 128 + signal);
    let code = status.and_then(|status| status.exit_status().or_else(|| killed(&status)));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255)
}

/// The caller's terminal, or plain streams, on one side and the container's terminal on the other.
struct Relay {
    /// `None` once the container has closed its side.
    master: Option<File>,
    input_is_open: bool,
    /// What the caller's terminal was like, to be restored.
    before: Option<Termios>,
}

impl Relay {
    fn new(master: OwnedFd) -> Result<Self> {
        let stdin = rustix::stdio::stdin();
        let mut relay = Self {
            master: Some(File::from(master)),
            input_is_open: true,
            before: None,
        };
        if isatty(stdin) {
            let before = tcgetattr(stdin).during("look at the terminal")?;
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(stdin, OptionalActions::Now, &raw).during("make the terminal raw")?;
            relay.before = Some(before);
            relay.resize();
        }
        Ok(relay)
    }

    /// Gives the container's terminal the size of the caller's. A failure is no reason to end.
    fn resize(&self) {
        if let (Some(master), Ok(size)) = (&self.master, tcgetwinsize(rustix::stdio::stdin())) {
            let _ = terminal::set_size(master.as_fd(), size.ws_row, size.ws_col);
        }
    }

    fn pass(&mut self, output: bool, input: bool) {
        if output {
            self.pass_output();
        }
        if input {
            self.pass_input();
        }
    }

    /// Returns whether there was any. The end is EIO: nobody has the other side open any more.
    fn pass_output(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let Some(master) = &mut self.master else {
            return false;
        };
        match master.read(&mut buffer) {
            Ok(length) if length > 0 => {
                let mut stdout = io::stdout().lock();
                // Nobody may be reading; the container is not to suffer for it.
                let _ = stdout
                    .write_all(&buffer[..length])
                    .and_then(|()| stdout.flush());
                true
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            _ => {
                self.master = None;
                false
            }
        }
    }

    fn pass_input(&mut self) {
        /// What ends the input on a terminal in its normal mode: the character of `VEOF`.
        const END: [u8; 1] = [4];
        let mut buffer = [0; 4096];
        let read = rustix::io::read(rustix::stdio::stdin(), &mut buffer[..]);
        let bytes = match read {
            Ok(length) if length > 0 => &buffer[..length],
            Err(Errno::INTR | Errno::AGAIN) => return,
            _ => {
                self.input_is_open = false;
                &END
            }
        };
        if let Some(master) = &mut self.master {
            let _ = master.write_all(bytes);
        }
    }

    /// The process has ended; what it wrote last may still be on its way.
    fn drain(&mut self) {
        loop {
            let Some(master) = &self.master else { return };
            let now = rustix::event::Timespec::default();
            let ready = poll(&mut [PollFd::new(master, PollFlags::IN)], Some(&now));
            if !matches!(ready, Ok(1..)) || !self.pass_output() {
                return;
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, before);
        }
    }
}
