//! How a run ends, and what comes after it.

use std::time::Duration;

use config::boot::{Kind, Restart};

use super::start::HASTY_STARTS;
use super::state::{State, Then, Why, is_success};
use super::{Engine, HEALTHY_SPELL, KILL_LIMIT, START_LIMIT};
use crate::supervise::event::{Action, Cause, Exit, Id, Next, Notice};

/// SIGKILL is sent again after [`KILL_LIMIT`] that doubles so often.
const MOST_DOUBLINGS: u32 = 6;

impl Engine {
    pub(super) fn on_start_failed(
        &mut self,
        id: Id,
        reason: String,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        if matches!(self.workloads[id].state, State::Starting { .. }) {
            self.end(id, Cause::StartFailed(reason), now, actions);
        }
    }

    pub(super) fn on_cannot_start(&mut self, id: Id, reason: String, actions: &mut Vec<Action>) {
        if !matches!(self.workloads[id].state, State::Starting { .. }) {
            return;
        }
        let cause = Cause::StartFailed(reason);
        actions.push(Action::Tell(Notice::Ended(id, cause, Next::Failed(None))));
        self.rest(id, State::Failed, actions);
    }

    pub(super) fn on_exited(
        &mut self,
        id: Id,
        exit: Exit,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        match self.workloads[id].state {
            State::Running(run) => {
                self.stop_checks(id, actions);
                let well_for = |since| now.saturating_sub(since) >= HEALTHY_SPELL;
                if run.ready_since.is_some_and(well_for) {
                    self.workloads[id].backoff.reset();
                }
                self.end(id, Cause::Exited(exit), now, actions);
            }
            State::Stopping { .. } if self.stop.is_some() => {
                actions.push(Action::Tell(Notice::Stopped(id)));
                self.rest(id, State::Down, actions);
            }
            // A failure, however it exited.
            State::Stopping {
                why: Why::Unhealthy,
                ..
            } => {
                let again = self.workloads[id].restart != Restart::Never;
                self.end_with(id, Cause::Exited(exit), again, now, actions);
            }
            State::Stopping { why, .. } => {
                actions.push(Action::Tell(Notice::Stopped(id)));
                let then = match why {
                    Why::NeedIsGone => Then::Wait,
                    _ => Then::Down,
                };
                self.clean(id, then, now, actions);
            }
            _ => {}
        }
    }

    fn end(&mut self, id: Id, cause: Cause, now: Duration, actions: &mut Vec<Action>) {
        let again = self.workloads[id].starts_again_after(&cause);
        self.end_with(id, cause, again, now, actions);
    }

    fn end_with(
        &mut self,
        id: Id,
        cause: Cause,
        again: bool,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let next = self.next_after(id, &cause, again, now);
        let notice = Notice::Ended(id, cause, next);
        actions.push(Action::Tell(notice));
        if self.stop.is_some() {
            let state = match next {
                Next::Done => State::Done,
                _ => State::Down,
            };
            return self.rest(id, state, actions);
        }
        let then = match next {
            // What the removal takes counts as waiting.
            Next::Restart(delay) | Next::Listen(delay) => Then::Restart(now + delay),
            Next::Done => Then::Done,
            Next::Down => Then::Down,
            Next::Failed(_) => Then::Failed,
        };
        if next == Next::Done {
            self.workloads[id].was_ready = true;
        }
        self.clean(id, then, now, actions);
    }

    fn next_after(&mut self, id: Id, cause: &Cause, again: bool, now: Duration) -> Next {
        let stopping = self.stop.is_some();
        let workload = &mut self.workloads[id];
        let success = is_success(cause);
        if workload.kind == Kind::Job
            && success
            && !matches!(workload.state, State::Stopping { .. })
        {
            return Next::Done;
        }
        if stopping {
            return Next::Down;
        }
        if workload.has_sockets && success && matches!(workload.state, State::Running(_)) {
            return Next::Listen(if workload.hasty_starts > HASTY_STARTS {
                workload.backoff.next_delay()
            } else {
                workload.backoff.first_delay()
            });
        }
        match (again, success) {
            (true, _) => match workload.failures.count(now) {
                Some(limit) => Next::Failed(Some(limit)),
                None => Next::Restart(workload.backoff.next_delay()),
            },
            (false, true) => Next::Down,
            (false, false) => Next::Failed(None),
        }
    }

    fn clean(&mut self, id: Id, then: Then, now: Duration, actions: &mut Vec<Action>) {
        self.workloads[id].state = State::Cleaning {
            deadline: Some(now + START_LIMIT),
            then,
        };
        actions.push(Action::Clean(id));
    }

    pub(super) fn on_cleaned(&mut self, id: Id, actions: &mut Vec<Action>) {
        let State::Cleaning { then, .. } = self.workloads[id].state else {
            return;
        };
        match then {
            Then::Restart(until) => self.workloads[id].state = State::BackingOff { until },
            Then::Wait => self.workloads[id].state = State::Waiting,
            Then::Done => self.rest(id, State::Done, actions),
            Then::Down => self.rest(id, State::Down, actions),
            Then::Failed => self.rest(id, State::Failed, actions),
        }
    }

    /// It never runs again in this boot: nobody would answer its sockets.
    pub(super) fn rest(&mut self, id: Id, state: State, actions: &mut Vec<Action>) {
        self.workloads[id].state = state;
        if self.workloads[id].has_sockets && self.stop.is_none() {
            actions.push(Action::CloseSockets(id));
            actions.push(Action::Tell(Notice::SocketsClosed(id)));
        }
    }

    pub(super) fn stop(&mut self, id: Id, why: Why, now: Duration, actions: &mut Vec<Action>) {
        self.stop_checks(id, actions);
        let workload = &mut self.workloads[id];
        workload.state = State::Stopping {
            why,
            deadline: now + workload.stop_timeout,
            kills: 0,
        };
        actions.push(Action::Signal(id, workload.stop_signal));
    }

    /// It did not stop in time. What survives SIGKILL is killed again, ever more rarely; a machine that stops does not
    /// wait for it.
    pub(super) fn kill(&mut self, id: Id, now: Duration, actions: &mut Vec<Action>) {
        let shutting_down = self.stop.is_some();
        let State::Stopping {
            deadline, kills, ..
        } = &mut self.workloads[id].state
        else {
            return;
        };
        match *kills {
            0 => actions.push(Action::Tell(Notice::Killing(id))),
            1 => actions.push(Action::Tell(Notice::Unkillable(id))),
            _ => {}
        }
        if *kills > 0 && shutting_down {
            return self.rest(id, State::Down, actions);
        }
        *deadline = now + KILL_LIMIT * 2_u32.pow((*kills).min(MOST_DOUBLINGS));
        *kills = kills.saturating_add(1);
        actions.push(Action::Kill(id));
    }
}
