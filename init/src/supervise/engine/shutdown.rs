//! The machine stops: in the reverse order of dependencies, each workload in its own time, all of them in the machine's.

use std::time::Duration;

use super::state::{State, Why, Workload};
use super::{Engine, KILL_LIMIT};
use crate::supervise::event::{Action, Id, Notice};

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Each is asked to stop, until this time.
    Asking(Duration),
    /// All are killed; at this time they count as down.
    Killing(Duration),
    /// All are down, and that is told.
    Over,
}

impl Stop {
    pub(super) const fn deadline(self) -> Option<Duration> {
        match self {
            Self::Asking(deadline) | Self::Killing(deadline) => Some(deadline),
            Self::Over => None,
        }
    }
}

impl Engine {
    pub(super) fn begin_shutdown(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.stop.is_some() {
            return;
        }
        self.stop = Some(Stop::Asking(now + self.shutdown_limit));
        for id in 0..self.workloads.len() {
            self.stop_checks(id, actions);
            let workload = &mut self.workloads[id];
            // Whoever connects now is told at once that nobody will answer.
            if workload.has_sockets && !workload.is_at_rest() {
                actions.push(Action::CloseSockets(id));
            }
            if matches!(
                workload.state,
                State::Waiting
                    | State::Idle { .. }
                    | State::Cleaning { .. }
                    | State::BackingOff { .. }
            ) {
                workload.state = State::Down;
            }
        }
    }

    /// Somebody has no patience: the machine's time is over now.
    pub(super) fn hurry(&mut self, now: Duration) {
        if let Some(Stop::Asking(_)) = self.stop {
            self.stop = Some(Stop::Asking(now));
        }
    }

    pub(super) fn go_on_stopping(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.check_last_deadline(now, actions);
        self.stop_what_nobody_needs(now, actions);
        let all_rest = self.workloads.iter().all(Workload::is_at_rest);
        if all_rest && self.stop != Some(Stop::Over) {
            self.stop = Some(Stop::Over);
            actions.push(Action::AllStopped);
        }
    }

    /// Stops each running workload that none which is still there comes after; what came up too late is killed.
    fn stop_what_nobody_needs(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let is_over = matches!(self.stop, Some(Stop::Killing(_)));
        for id in (0..self.workloads.len()).rev() {
            let needs_it = |other: &Workload| {
                !other.is_at_rest() && (other.after.contains(&id) || other.requires.contains(&id))
            };
            if !matches!(self.workloads[id].state, State::Running(_)) {
                continue;
            }
            if is_over {
                self.kill_at_once(id, now, actions);
            } else if !self.workloads.iter().any(needs_it) {
                self.stop(id, Why::Shutdown, now, actions);
            }
        }
    }

    fn check_last_deadline(&mut self, now: Duration, actions: &mut Vec<Action>) {
        match self.stop {
            Some(Stop::Asking(deadline)) if deadline <= now => {
                self.stop = Some(Stop::Killing(now + KILL_LIMIT));
                for id in 0..self.workloads.len() {
                    self.kill_at_once(id, now, actions);
                }
            }
            Some(Stop::Killing(deadline)) if deadline <= now => {
                for id in 0..self.workloads.len() {
                    if !self.workloads[id].is_at_rest() {
                        actions.push(Action::Tell(Notice::Unkillable(id)));
                        self.workloads[id].state = State::Down;
                    }
                }
            }
            _ => {}
        }
    }

    /// The machine's time is over, whatever of its own the workload has left.
    fn kill_at_once(&mut self, id: Id, now: Duration, actions: &mut Vec<Action>) {
        let workload = &mut self.workloads[id];
        match &mut workload.state {
            State::Starting { deadline, .. } => {
                *deadline = None;
                actions.push(Action::AbortStart(id));
            }
            State::Stopping { kills: 1.., .. } => {}
            State::Running(_) | State::Stopping { .. } => {
                workload.state = State::Stopping {
                    why: Why::Shutdown,
                    deadline: now + KILL_LIMIT,
                    kills: 1,
                };
                actions.push(Action::Tell(Notice::Killing(id)));
                actions.push(Action::Kill(id));
            }
            _ => {}
        }
    }
}
