//! The child that keeps the state: when it runs, and what it says.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::rand::{GetRandomFlags, getrandom};

use super::Machine;
use super::source::{Role, Source};
use crate::children;
use crate::console::now;
use crate::lines::LineSplitter;
use crate::supervise::backoff::Backoff;
use crate::supervise::event::Exit;

/// How soon it runs again when something killed it; the pause doubles to [`SAVE_EVERY`].
const AGAIN: Duration = Duration::from_secs(1);
/// How often a new random seed is saved.
const SAVE_EVERY: Duration = Duration::from_secs(60 * 60);

/// The child, or when it is to run again.
#[derive(Debug)]
pub(super) struct StateKeeper {
    has_begun: bool,
    /// What it does once in a boot is done, as well as it could be.
    has_finished: bool,
    backoff: Backoff,
    is_running: bool,
    next_save: Option<Duration>,
    output: Option<(OwnedFd, LineSplitter)>,
}

impl Default for StateKeeper {
    fn default() -> Self {
        Self {
            has_begun: false,
            has_finished: false,
            backoff: Backoff::new(AGAIN, SAVE_EVERY),
            is_running: false,
            next_save: None,
            output: None,
        }
    }
}

impl StateKeeper {
    pub(super) const fn has_begun(&self) -> bool {
        self.has_begun
    }

    pub(super) const fn next_deadline(&self) -> Option<Duration> {
        self.next_save
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.next_save.is_some_and(|deadline| deadline <= now)
    }

    /// It ended. One that was killed has not done all it was to do.
    pub(super) fn on_exit(&mut self, exit: Exit, now: Duration) {
        self.is_running = false;
        let pause = match exit {
            Exit::Status(_) => {
                self.has_finished = true;
                self.backoff.reset();
                SAVE_EVERY
            }
            Exit::Signal(_) | Exit::Unknown => self.backoff.next_delay(),
        };
        self.next_save = Some(now + pause);
    }
}

impl Machine {
    /// Whether the child runs beside the first start of the workloads, which may need what it does: room, or random
    /// numbers. Else it waits until they are ready.
    pub(super) fn state_is_urgent(&self) -> bool {
        let can_grow = matches!(&self.state, Ok(Some(state)) if state.can_grow);
        can_grow || getrandom(&mut [0_u8; 1], GetRandomFlags::NONBLOCK) == Err(Errno::AGAIN)
    }

    /// Starts it, if there is a state that it may write to, and it does not run.
    pub(super) fn start_state_keeper(&mut self) {
        self.state_keeper.next_save = None;
        let Ok(Some(state)) = &self.state else { return };
        if state.read_only || self.state_keeper.is_running || self.stopping.is_some() {
            return;
        }
        let arguments = if self.state_keeper.has_finished {
            vec![
                "state".to_owned(),
                state.mount_point.clone(),
                "save".to_owned(),
            ]
        } else {
            state.keeper_arguments()
        };
        if let Err(error) = self.spawn_state_keeper(&arguments) {
            self.console
                .say(format_args!("state: cannot start its keeper: {error}"));
            self.state_keeper.on_exit(Exit::Unknown, now());
        }
    }

    fn spawn_state_keeper(&mut self, arguments: &[String]) -> std::io::Result<()> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::fs::fcntl_setfl(&read, rustix::fs::OFlags::NONBLOCK)?;
        self.watch(Source::StateKeeper, &read)?;
        let mut command = children::command();
        let pid = children::spawn(command.args(arguments).stdout(write))?;
        self.children.insert(pid, Role::StateKeeper);
        self.state_keeper.has_begun = true;
        self.state_keeper.is_running = true;
        self.state_keeper.output = Some((read, LineSplitter::default()));
        Ok(())
    }

    pub(super) fn read_state_keeper(&mut self) {
        let Some((pipe, splitter)) = &mut self.state_keeper.output else {
            return;
        };
        let console = &mut self.console;
        let mut tell = |line: &str| console.say(format_args!("state: {line}"));
        let mut buffer = [0_u8; 4096];
        match rustix::io::read(&*pipe, &mut buffer) {
            Ok(size) if size > 0 => splitter.push(&buffer[..size], tell),
            Err(Errno::AGAIN | Errno::INTR) => {}
            _ => {
                splitter.finish(&mut tell);
                self.state_keeper.output = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_that_was_killed_runs_again_soon_and_one_that_ended_when_it_is_time() {
        let mut keeper = StateKeeper::default();
        let now = Duration::from_secs(100);
        for pause in [1, 2, 4] {
            keeper.on_exit(Exit::Signal(9), now);
            let due = now + Duration::from_secs(pause);
            assert_eq!(keeper.next_deadline(), Some(due));
            assert!(!keeper.has_finished);
        }
        keeper.on_exit(Exit::Status(1), now);
        assert!(keeper.has_finished);
        assert_eq!(keeper.next_deadline(), Some(now + SAVE_EVERY));
    }
}
