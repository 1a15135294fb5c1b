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

/// What the child does at its next run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// What is done first, once in a boot.
    Begin,
    /// Files of old volumes are counted, once in a boot and after it.
    Adopt,
    /// A new seed is saved.
    Save,
}

/// The child, or when it is to run again.
#[derive(Debug)]
pub(super) struct StateKeeper {
    has_begun: bool,
    task: Task,
    backoff: Backoff,
    is_running: bool,
    next_run: Option<Duration>,
    output: Option<(OwnedFd, LineSplitter)>,
}

impl Default for StateKeeper {
    fn default() -> Self {
        Self {
            has_begun: false,
            task: Task::Begin,
            backoff: Backoff::new(AGAIN, SAVE_EVERY),
            is_running: false,
            next_run: None,
            output: None,
        }
    }
}

impl StateKeeper {
    /// Whether the end of the boot is what it waits for.
    pub(super) fn waits_for_boot(&self) -> bool {
        !self.is_running && (!self.has_begun || self.task == Task::Adopt)
    }

    pub(super) const fn next_deadline(&self) -> Option<Duration> {
        self.next_run
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.next_run.is_some_and(|deadline| deadline <= now)
    }

    /// It ended. One that was killed has not done all it was to do; what one that ended could not do is not tried again.
    pub(super) fn on_exit(&mut self, exit: Exit, now: Duration) {
        self.is_running = false;
        let pause = match exit {
            Exit::Status(_) => {
                self.backoff.reset();
                self.follow(now);
                return;
            }
            Exit::Signal(_) | Exit::Unknown => self.backoff.next_delay(),
        };
        self.next_run = Some(now + pause);
    }

    /// The task is done, or there is nothing to do.
    fn follow(&mut self, now: Duration) {
        (self.task, self.next_run) = match self.task {
            Task::Begin => (Task::Adopt, Some(now)),
            Task::Adopt | Task::Save => (Task::Save, Some(now + SAVE_EVERY)),
        };
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
        self.state_keeper.next_run = None;
        let Ok(Some(state)) = &self.state else { return };
        if state.read_only || self.state_keeper.is_running || self.stopping.is_some() {
            return;
        }
        let volumes = self.workloads.iter().flat_map(|w| &w.spec.volumes);
        let arguments = match self.state_keeper.task {
            Task::Begin => state.keeper_arguments(),
            // The end of the boot starts it.
            Task::Adopt if self.late_modules.is_some() => return,
            Task::Adopt => match state.adoption_arguments(volumes) {
                Some(arguments) => arguments,
                None => return self.state_keeper.follow(now()),
            },
            Task::Save => ["state", &state.mount_point, "save"]
                .map(str::to_owned)
                .to_vec(),
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
            assert_eq!(keeper.task, Task::Begin);
        }
        keeper.on_exit(Exit::Status(1), now);
        assert_eq!((keeper.task, keeper.is_due(now)), (Task::Adopt, true));
        keeper.on_exit(Exit::Signal(9), now);
        let due = now + Duration::from_secs(1);
        assert_eq!(
            (keeper.task, keeper.next_deadline()),
            (Task::Adopt, Some(due))
        );
        keeper.on_exit(Exit::Status(0), now);
        assert_eq!(keeper.task, Task::Save);
        assert_eq!(keeper.next_deadline(), Some(now + SAVE_EVERY));
    }
}
