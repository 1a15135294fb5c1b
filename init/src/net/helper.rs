//! One of the network's children: when it is started, and the pipe on which it tells.
//!
//! A child that dies is started again with a growing delay. What it did in the kernel stays until then.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::message::Message;
use super::pulse::SILENCE;
use crate::children;
use crate::lines::LineSplitter;
use crate::supervise::backoff::Backoff;
use crate::supervise::event::Exit;
use crate::sys;

/// What is read of a child in one turn, in bytes.
const READ_SIZE: usize = 4096;
/// One that ran so long begins again with the shortest delay.
const PROVEN: Duration = Duration::from_secs(60);

/// What ends when it is done takes no longer than this: to load modules from a slow disk, at most.
const WORK_TIME: Duration = Duration::from_secs(180);

/// What a child is for; its word on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Sets up the firewall and the workloads' side of the machine, and ends.
    Fabric,
    /// The machine's interfaces.
    Uplink,
    /// The workloads' name server.
    Resolver,
    /// The clock.
    Ntp,
    /// Makes room in the table of connections, and ends.
    Relief,
}

impl Task {
    /// The word behind `coracle-init`, by which it is told of, too.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fabric => "fabric",
            Self::Uplink => "uplink",
            Self::Resolver => "resolver",
            Self::Ntp => "ntp",
            Self::Relief => "relieve",
        }
    }

    /// It ends when it is done.
    #[must_use]
    pub const fn is_once(self) -> bool {
        matches!(self, Self::Fabric | Self::Relief)
    }

    /// It reads [`super::facts`].
    #[must_use]
    pub const fn wants_facts(self) -> bool {
        matches!(self, Self::Resolver | Self::Ntp)
    }

    /// It begins when [`Task::Fabric`] is done, which makes the addresses that it listens at.
    #[must_use]
    pub const fn follows_fabric(self) -> bool {
        matches!(self, Self::Resolver)
    }

    /// It begins when there is a need, again and again.
    #[must_use]
    pub const fn is_on_demand(self) -> bool {
        matches!(self, Self::Relief)
    }

    const fn is_at_once(self) -> bool {
        !self.is_late() && !self.follows_fabric() && !self.is_on_demand()
    }

    /// No workload waits for it: it begins when the boot is over.
    #[must_use]
    pub const fn is_late(self) -> bool {
        matches!(self, Self::Ntp)
    }
}

/// A child, or when there will be one.
#[derive(Debug)]
pub(super) struct Helper {
    pub(super) task: Task,
    pid: Option<i32>,
    pipe: Option<OwnedFd>,
    splitter: LineSplitter,
    backoff: Backoff,
    started_at: Duration,
    /// When it was heard of last, since it was started.
    heard_at: Duration,
    start_at: Option<Duration>,
}

impl Helper {
    /// Nothing runs yet.
    pub(super) fn new(task: Task) -> Self {
        Self {
            task,
            pid: None,
            pipe: None,
            splitter: LineSplitter::default(),
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(30)),
            started_at: Duration::ZERO,
            heard_at: Duration::ZERO,
            start_at: task.is_at_once().then_some(Duration::ZERO),
        }
    }

    /// When it is to be started; `None`: it runs, is done, or waits for something.
    pub(super) const fn start_at(&self) -> Option<Duration> {
        self.start_at
    }

    /// What it waited for is there: it is to be started, unless it was already.
    pub(super) fn begin(&mut self, now: Duration) {
        if self.pid.is_none() && self.start_at.is_none() {
            self.start_at = Some(now);
        }
    }

    /// Starts the child; returns its process id.
    pub(super) fn start(&mut self, now: Duration) -> io::Result<i32> {
        self.start_at = None;
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::fs::fcntl_setfl(&read, rustix::fs::OFlags::NONBLOCK)?;
        let mut command = children::command();
        let pid = children::spawn(command.arg(self.task.word()).stdout(write))?;
        self.pipe = Some(read);
        self.splitter = LineSplitter::default();
        self.pid = Some(pid);
        self.started_at = now;
        self.heard_at = now;
        Ok(pid)
    }

    /// When it counts as one that hangs unless it is heard of; `None`: it does not run.
    pub(super) fn silent_at(&self) -> Option<Duration> {
        let patience = if self.task.is_once() {
            WORK_TIME
        } else {
            SILENCE
        };
        self.pid.map(|_| self.heard_at + patience)
    }

    /// It was heard of.
    pub(super) const fn hear(&mut self, now: Duration) {
        self.heard_at = now;
    }

    pub(super) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// What it told; a line that is no message is left out.
    pub(super) fn read(&mut self) -> Vec<Message> {
        let Some(pipe) = &self.pipe else {
            return Vec::new();
        };
        let mut buffer = [0_u8; READ_SIZE];
        let size = match rustix::io::read(pipe, &mut buffer) {
            Ok(size) => size,
            Err(Errno::AGAIN | Errno::INTR) => return Vec::new(),
            Err(_) => 0,
        };
        let mut messages = Vec::new();
        let take = |line: &str| messages.extend(Message::parse(line));
        if size == 0 {
            self.splitter.finish(take);
            self.pipe = None;
        } else {
            self.splitter.push(&buffer[..size], take);
        }
        messages
    }

    /// The child ended; returns after how long it is started again, `None` if it is done.
    pub(super) fn on_exit(&mut self, exit: Exit, now: Duration) -> Option<Duration> {
        self.pid = None;
        self.start_at = None;
        if self.task.is_once() && exit == Exit::Status(0) {
            return None;
        }
        if !self.task.is_once() && now >= self.started_at + PROVEN {
            self.backoff.reset();
        }
        let delay = self.backoff.next_delay();
        self.start_at = Some(now + delay);
        Some(delay)
    }

    /// Tells it that the facts changed. One that has just begun does not listen yet, and would end by the signal: it
    /// reads them later anyway.
    pub(super) fn tell_facts(&self) {
        let listens = |pid: &i32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
            status.is_ok_and(|status| listens_to_hangups(&status))
        };
        if let Some(pid) = self.pid.filter(listens) {
            let _ = sys::kill(pid, libc::SIGHUP);
        }
    }

    /// Sends it a signal, if it runs.
    pub(super) fn signal(&self, signal: i32) {
        if let Some(pid) = self.pid {
            let _ = sys::kill(pid, signal);
        }
    }
}

/// Whether a process catches SIGHUP or keeps it for later, by its `/proc/PID/status` (proc_pid_status(5)).
fn listens_to_hangups(status: &str) -> bool {
    const HANGUP: u64 = 1 << (libc::SIGHUP - 1);
    let mut masks = status.lines().filter_map(|line| {
        let mask = line
            .strip_prefix("SigBlk:")
            .or_else(|| line.strip_prefix("SigCgt:"));
        u64::from_str_radix(mask?.trim(), 16).ok()
    });
    masks.any(|mask| mask & HANGUP != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_ends_is_started_again_later_and_later_until_it_has_proven_itself() {
        let mut helper = Helper::new(Task::Uplink);
        assert_eq!(helper.start_at(), Some(Duration::ZERO));
        helper.started_at = SECOND;
        assert_eq!(helper.on_exit(Exit::Status(0), 2 * SECOND), Some(SECOND));
        assert_eq!(helper.start_at(), Some(3 * SECOND));
        let delay = helper.on_exit(Exit::Signal(9), 4 * SECOND);
        assert_eq!(delay, Some(2 * SECOND));
        let delay = helper.on_exit(Exit::Signal(9), 100 * SECOND);
        assert_eq!(delay, Some(SECOND));
    }

    #[test]
    fn what_is_done_is_not_started_again_and_what_failed_is() {
        let mut helper = Helper::new(Task::Fabric);
        assert_eq!(helper.on_exit(Exit::Status(1), SECOND), Some(SECOND));
        helper.start_at = None;
        assert_eq!(helper.on_exit(Exit::Status(0), 100 * SECOND), None);
        assert_eq!(helper.start_at(), None);
    }

    #[test]
    fn only_who_runs_hangs_and_only_when_nothing_is_heard_of_it() {
        let mut helper = Helper::new(Task::Uplink);
        assert_eq!(helper.silent_at(), None);
        helper.pid = Some(i32::MAX);
        assert_eq!(helper.silent_at(), Some(SILENCE));
        helper.hear(5 * SECOND);
        assert_eq!(helper.silent_at(), Some(5 * SECOND + SILENCE));
        helper.on_exit(Exit::Signal(9), 6 * SECOND);
        assert_eq!(helper.silent_at(), None);
        let mut helper = Helper::new(Task::Fabric);
        helper.pid = Some(i32::MAX);
        assert_eq!(helper.silent_at(), Some(WORK_TIME));
    }

    #[test]
    fn only_who_listens_is_told_by_a_signal() {
        let status = |blocked, caught| {
            format!(
                "Name:\tx\nSigBlk:\t{blocked:016x}\nSigIgn:\t{:016x}\nSigCgt:\t{caught:016x}\n",
                1
            )
        };
        for (blocked, caught, listens) in [
            (0, 0, false),
            (1, 0, true),
            (0, 1, true),
            (2, 0x4000, false),
        ] {
            assert_eq!(listens_to_hangups(&status(blocked, caught)), listens);
        }
        assert!(!listens_to_hangups(""));
    }

    #[test]
    fn what_waits_begins_once() {
        let mut helper = Helper::new(Task::Ntp);
        assert_eq!(helper.start_at(), None);
        helper.begin(SECOND);
        assert_eq!(helper.start_at(), Some(SECOND));
        helper.start_at = None;
        helper.pid = Some(i32::MAX);
        helper.begin(2 * SECOND);
        assert_eq!(helper.start_at(), None);
    }
}
