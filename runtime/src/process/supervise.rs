//! What the runtime does in the foreground: passes signals on, relays a terminal, and takes the exit status.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

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
        let (stdin, stdout) = (rustix::stdio::stdin(), rustix::stdio::stdout());
        let mut watched = vec![
            PollFd::new(&pidfd, PollFlags::IN),
            PollFd::new(&signals, PollFlags::IN),
        ];
        if let Some(relay) = &relay {
            let (of_master, of_stdin, of_stdout) = relay.interests();
            // Without events, poll would still tell of a hangup, again and again: so those are left out.
            if let Some(master) = relay.master.as_ref().filter(|_| !of_master.is_empty()) {
                watched.push(PollFd::new(master, of_master));
            }
            if !of_stdin.is_empty() {
                watched.push(PollFd::from_borrowed_fd(stdin, of_stdin));
            }
            if !of_stdout.is_empty() {
                watched.push(PollFd::from_borrowed_fd(stdout, of_stdout));
            }
        }
        match poll(&mut watched, None) {
            Err(Errno::INTR) => continue,
            other => other.during("wait for the container process")?,
        };
        let ended = !watched[0].revents().is_empty();
        let ready = |descriptor: BorrowedFd<'_>| {
            let same = |one: &&PollFd<'_>| one.as_fd().as_raw_fd() == descriptor.as_raw_fd();
            watched[2..].iter().find(same).map(PollFd::revents)
        };
        let master = relay.as_ref().and_then(|relay| relay.master.as_ref());
        let ready = Ready {
            master: master.and_then(|master| ready(master.as_fd())),
            stdin: ready(stdin),
            stdout: ready(stdout),
        };
        while let Some(signal) = next_signal(&mut signals) {
            match (signal, &relay) {
                (libc::SIGCHLD, _) => {}
                (libc::SIGWINCH, Some(relay)) => relay.resize(),
                // It may just have ended.
                _ => drop(sys::pidfd_send_signal(pidfd, signal)),
            }
        }
        if let Some(relay) = &mut relay {
            relay.pass(&ready);
        }
        if ended {
            if let Some(relay) = &mut relay {
                relay.drain(&mut signals);
            }
            let status = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED)
                .during("wait for the container process")?;
            return Ok(shell_status(status));
        }
    }
}

/// Takes the next signal from [`sys::signals_as_file`], if there is one.
pub(crate) fn next_signal(signals: &mut File) -> Option<i32> {
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

/// What poll told of the relay's descriptors.
struct Ready {
    master: Option<PollFlags>,
    stdin: Option<PollFlags>,
    stdout: Option<PollFlags>,
}

/// The caller's terminal, or plain streams, on one side and the container's terminal on the other.
///
/// No side waits for another: what one does not take yet is kept, and no more is read for it meanwhile.
struct Relay {
    /// Never blocks. `None` once the container has closed its side.
    master: Option<File>,
    input_is_open: bool,
    /// On its way to the container.
    input: Vec<u8>,
    /// On its way to the caller.
    output: Vec<u8>,
    /// What the caller's terminal was like, to be restored.
    before: Option<Termios>,
}

impl Relay {
    fn new(master: OwnedFd) -> Result<Self> {
        let stdin = rustix::stdio::stdin();
        terminal::do_not_wait(master.as_fd()).during("prepare the terminal")?;
        let mut relay = Self {
            master: Some(File::from(master)),
            input_is_open: true,
            input: Vec::new(),
            output: Vec::new(),
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

    /// What to wait for, of the master, the standard input and the standard output.
    fn interests(&self) -> (PollFlags, PollFlags, PollFlags) {
        let when = |condition, flag| match condition {
            true => flag,
            false => PollFlags::empty(),
        };
        let (no_input, no_output) = (self.input.is_empty(), self.output.is_empty());
        let read_on = self.master.is_some() && self.input_is_open && no_input;
        (
            when(no_output, PollFlags::IN) | when(!no_input, PollFlags::OUT),
            when(read_on, PollFlags::IN),
            when(!no_output, PollFlags::OUT),
        )
    }

    fn pass(&mut self, ready: &Ready) {
        if ready.stdout.is_some_and(|events| !events.is_empty()) {
            self.write_output();
        }
        if ready.stdin.is_some_and(|events| !events.is_empty()) {
            self.read_input();
        }
        let master = ready.master.unwrap_or(PollFlags::empty());
        if master.contains(PollFlags::OUT) {
            self.write_input();
        }
        if master.contains(PollFlags::HUP) {
            // Nobody is left to take it.
            self.input_is_open = false;
            self.input.clear();
        }
        // A hangup too is found out by reading.
        if !master.difference(PollFlags::OUT).is_empty() && self.output.is_empty() {
            self.read_output();
        }
    }

    /// Returns whether there was any. The end is EIO: nobody has the other side open any more.
    fn read_output(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let Some(master) = &mut self.master else {
            return false;
        };
        match master.read(&mut buffer) {
            Ok(length) if length > 0 => {
                self.output.extend_from_slice(&buffer[..length]);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            _ => {
                self.master = None;
                self.input.clear();
                false
            }
        }
    }

    /// As much as a pipe that is ready takes without waiting: the caller's standard output is not ours to change.
    fn write_output(&mut self) {
        let length = self.output.len().min(libc::PIPE_BUF);
        match rustix::io::write(rustix::stdio::stdout(), &self.output[..length]) {
            Ok(written) => drop(self.output.drain(..written)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            // Nobody may be reading; the container is not to suffer for it.
            Err(_) => self.output.clear(),
        }
    }

    fn read_input(&mut self) {
        /// What ends the input on a terminal in its normal mode: the character of `VEOF`.
        const END: u8 = 4;
        let mut buffer = [0; 4096];
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer[..]) {
            Ok(length) if length > 0 => self.input.extend_from_slice(&buffer[..length]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            _ => {
                self.input_is_open = false;
                self.input.push(END);
            }
        }
    }

    fn write_input(&mut self) {
        let Some(master) = &mut self.master else {
            return;
        };
        match master.write(&self.input) {
            Ok(written) => drop(self.input.drain(..written)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.input.clear(),
        }
    }

    /// The process has ended; what it wrote last may still be on its way. A caller who reads no more ends it by a signal.
    fn drain(&mut self, signals: &mut File) {
        while !self.output.is_empty() || self.read_output() {
            let stdout = rustix::stdio::stdout();
            let mut watched = [
                PollFd::from_borrowed_fd(stdout, PollFlags::OUT),
                PollFd::new(&*signals, PollFlags::IN),
            ];
            let waited = poll(&mut watched, None);
            if waited.is_ok() && !watched[0].revents().is_empty() {
                self.write_output();
            }
            while let Some(signal) = next_signal(signals) {
                if sys::ENDING_SIGNALS.contains(&signal) {
                    return;
                }
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
