//! The supervision engine: (state, event, now) → actions. No system call, no clock, no allocation that grows.
//!
//! # States of a workload
//! - **Waiting**: not started in this boot; some workload that it comes `after` has not been ready yet.
//! - **Starting**: the runtime is setting the container up. It has [`START_LIMIT`] for that.
//! - **Running**: the command runs. It is *ready* at once (readiness `started`), or when a probe passes. From
//!   then on, with a probe, it is checked every interval.
//! - **Stopping**: it got its stop signal; when its time is over, SIGKILL.
//! - **Cleaning**: its process is gone; the runtime removes what is left.
//! - **BackingOff**: it starts again when the delay is over.
//! - **Down**: it stays down: its restart policy says so, or the machine stops.
//!
//! # Transitions
//! - Waiting → Starting: all that it comes after have been ready at least once. A later failure of one of them
//!   does not stop it.
//! - Starting → Running: `Started`. Starting → Cleaning: `StartFailed`, counted as a failure. Starting → Down:
//!   `CannotStart`, whatever the restart policy.
//! - Running → Cleaning: `Exited`. Running → Stopping: [`FAILED_CHECKS`] checks in a row failed and the policy
//!   is not `never`, or the machine stops and all that come after it are down.
//! - Stopping → Cleaning: `Exited`.
//! - Cleaning → BackingOff or Down by the restart policy. BackingOff → Starting when the time comes.
//! - When the machine stops: Waiting, Cleaning and BackingOff → Down at once; Starting → Stopping as soon as it
//!   started; Stopping → Down on `Exited`, or when not even SIGKILL helps. What is removed by the kernel with
//!   the machine is not cleaned any more. `Hurry` ends all patience: what still starts is given up, and what runs
//!   gets SIGKILL at once, in whatever order.
//!
//! The delay before a restart doubles from 100 ms to 10 s, and begins again after [`HEALTHY_SPELL`] of being
//! ready. Events that do not fit a workload's state are late echoes and are ignored.

use std::time::Duration;

use config::boot::{BootWorkload, Readiness, Restart};

use super::backoff::Backoff;
use super::event::{Action, Cause, Event, Exit, Id, Next, Notice, ProbeKind, ProbeResult};

/// How long the runtime may take to start a container, or to remove one.
pub const START_LIMIT: Duration = Duration::from_secs(30);
/// So many failed checks in a row make a workload unhealthy.
pub const FAILED_CHECKS: u32 = 3;
/// After so long of being ready the restart delay begins again at its shortest.
pub const HEALTHY_SPELL: Duration = Duration::from_secs(10);
/// When it is told that a workload takes long to become ready.
const SLOW: Duration = Duration::from_secs(30);
/// How long SIGKILL may take.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// Before a probe that was lost is started again.
const LOST_PROBE_DELAY: Duration = Duration::from_millis(250);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Starting {
        deadline: Option<Duration>,
    },
    Running(Run),
    Stopping {
        deadline: Duration,
        killed: bool,
    },
    Cleaning {
        deadline: Option<Duration>,
        next: Next,
        ended: Duration,
    },
    BackingOff {
        until: Duration,
    },
    Down,
}

/// The checks of a running workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    ready_since: Option<Duration>,
    probing: bool,
    next_probe: Option<Duration>,
    tell_slow: Option<Duration>,
    failures: u32,
    since: Duration,
}

#[derive(Debug)]
struct Workload {
    after: Vec<Id>,
    has_probe: bool,
    interval: Duration,
    restart: Restart,
    stop_signal: i32,
    stop_timeout: Duration,
    state: State,
    was_ready: bool,
    backoff: Backoff,
}

/// All workloads of the machine.
#[derive(Debug)]
pub struct Engine {
    workloads: Vec<Workload>,
    shutting_down: bool,
    hurrying: bool,
    all_ready_told: bool,
    all_stopped: bool,
}

impl Workload {
    fn new(id: Id, spec: &BootWorkload, all: &[BootWorkload]) -> Self {
        // Only earlier workloads count: so no cycle, whatever the file says, can keep one from starting.
        let after = (0..id)
            .filter(|&earlier| spec.after.contains(&all[earlier].name))
            .collect();
        Self {
            after,
            has_probe: spec.readiness != Readiness::Started,
            interval: Duration::from_millis(spec.check_interval_ms),
            restart: spec.restart,
            stop_signal: spec.stop_signal,
            stop_timeout: Duration::from_millis(spec.stop_timeout_ms),
            state: State::Waiting,
            was_ready: false,
            backoff: Backoff::new(FIRST_DELAY, LONGEST_DELAY),
        }
    }

    fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Waiting | State::Down => None,
            State::Starting { deadline } | State::Cleaning { deadline, .. } => deadline,
            State::Running(run) => [run.next_probe, run.tell_slow].into_iter().flatten().min(),
            State::Stopping { deadline, .. } => Some(deadline),
            State::BackingOff { until } => Some(until),
        }
    }

    fn starts_again_after(&self, cause: &Cause) -> bool {
        match self.restart {
            Restart::Always => true,
            Restart::OnFailure => *cause != Cause::Exited(Exit::Status(0)),
            Restart::Never => false,
        }
    }
}

impl Engine {
    /// Nothing runs before [`Event::Begin`].
    #[must_use]
    pub fn new(specs: &[BootWorkload]) -> Self {
        let workloads = specs
            .iter()
            .enumerate()
            .map(|(id, spec)| Workload::new(id, spec, specs))
            .collect();
        Self {
            workloads,
            shutting_down: false,
            hurrying: false,
            all_ready_told: false,
            all_stopped: false,
        }
    }

    /// When the engine wants an [`Event::Tick`], if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.workloads.iter().filter_map(Workload::deadline).min()
    }

    /// Takes one event at the time `now` and returns what is to be done, in this order.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Begin => self.start_waiting(now, &mut actions),
            Event::Tick => {}
            Event::Started(id) => self.on_started(id, now, &mut actions),
            Event::StartFailed(id, reason) => self.on_start_failed(id, reason, now, &mut actions),
            Event::CannotStart(id, reason) => self.on_cannot_start(id, reason, &mut actions),
            Event::Exited(id, exit) => self.on_exited(id, exit, now, &mut actions),
            Event::Cleaned(id) => self.on_cleaned(id, &mut actions),
            Event::Probed(id, result) => self.on_probed(id, &result, now, &mut actions),
            Event::Shutdown => self.begin_shutdown(&mut actions),
            Event::Hurry => self.hurry(now, &mut actions),
        }
        for id in 0..self.workloads.len() {
            self.check_deadline(id, now, &mut actions);
        }
        if self.shutting_down {
            self.go_on_stopping(now, &mut actions);
        }
        actions
    }

    /// The workload's command runs and it answers.
    #[cfg(test)]
    fn is_ready(&self, id: Id) -> bool {
        matches!(
            self.workloads[id].state,
            State::Running(Run {
                ready_since: Some(_),
                ..
            })
        )
    }

    fn start_waiting(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.shutting_down {
            return;
        }
        for id in 0..self.workloads.len() {
            let workload = &self.workloads[id];
            let free = workload
                .after
                .iter()
                .all(|&before| self.workloads[before].was_ready);
            if workload.state == State::Waiting && free {
                self.start(id, now, actions);
            }
        }
        if !self.all_ready_told && self.workloads.iter().all(|workload| workload.was_ready) {
            self.all_ready_told = true;
            actions.push(Action::Tell(Notice::AllReady));
        }
    }

    fn start(&mut self, id: Id, now: Duration, actions: &mut Vec<Action>) {
        self.workloads[id].state = State::Starting {
            deadline: Some(now + START_LIMIT),
        };
        actions.push(Action::Start(id));
    }

    fn on_started(&mut self, id: Id, now: Duration, actions: &mut Vec<Action>) {
        let workload = &mut self.workloads[id];
        if !matches!(workload.state, State::Starting { .. }) {
            return;
        }
        let probing = workload.has_probe && !self.shutting_down;
        workload.state = State::Running(Run {
            ready_since: None,
            probing,
            next_probe: None,
            tell_slow: probing.then_some(now + SLOW),
            failures: 0,
            since: now,
        });
        actions.push(Action::Tell(Notice::Started(id)));
        if probing {
            actions.push(Action::Probe(id, ProbeKind::UntilReady));
        } else if !self.shutting_down {
            self.become_ready(id, now, actions);
        }
    }

    fn become_ready(&mut self, id: Id, now: Duration, actions: &mut Vec<Action>) {
        let workload = &mut self.workloads[id];
        let State::Running(run) = &mut workload.state else {
            return;
        };
        run.ready_since = Some(now);
        run.tell_slow = None;
        run.failures = 0;
        run.next_probe = next_check(workload.has_probe, workload.interval, now);
        workload.was_ready = true;
        actions.push(Action::Tell(Notice::Ready(id)));
        self.start_waiting(now, actions);
    }

    fn on_start_failed(
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

    fn on_cannot_start(&mut self, id: Id, reason: String, actions: &mut Vec<Action>) {
        let workload = &mut self.workloads[id];
        if matches!(workload.state, State::Starting { .. }) {
            workload.state = State::Down;
            actions.push(Action::Tell(Notice::Ended(
                id,
                Cause::StartFailed(reason),
                Next::Down,
            )));
            self.tell_blocked(id, actions);
        }
    }

    fn on_exited(&mut self, id: Id, exit: Exit, now: Duration, actions: &mut Vec<Action>) {
        match self.workloads[id].state {
            State::Running(run) => {
                self.stop_probe(id, actions);
                if run
                    .ready_since
                    .is_some_and(|since| now.saturating_sub(since) >= HEALTHY_SPELL)
                {
                    self.workloads[id].backoff.reset();
                }
                self.end(id, Cause::Exited(exit), now, actions);
            }
            State::Stopping { .. } if self.shutting_down => {
                self.workloads[id].state = State::Down;
                actions.push(Action::Tell(Notice::Stopped(id)));
            }
            // Stopped because it was unhealthy: a failure, however it exited.
            State::Stopping { .. } => self.end_with(id, Cause::Exited(exit), true, now, actions),
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
        let shutting_down = self.shutting_down;
        let workload = &mut self.workloads[id];
        let next = if again && !shutting_down {
            Next::Restart(workload.backoff.next_delay())
        } else {
            Next::Down
        };
        actions.push(Action::Tell(Notice::Ended(id, cause, next)));
        if shutting_down {
            workload.state = State::Down;
            return;
        }
        workload.state = State::Cleaning {
            deadline: Some(now + START_LIMIT),
            next,
            ended: now,
        };
        actions.push(Action::Clean(id));
        if next == Next::Down && !workload.was_ready {
            self.tell_blocked(id, actions);
        }
    }

    fn tell_blocked(&self, id: Id, actions: &mut Vec<Action>) {
        let blocked =
            |workload: &Workload| workload.state == State::Waiting && workload.after.contains(&id);
        let waiting = (0..self.workloads.len()).filter(|&other| blocked(&self.workloads[other]));
        actions.extend(waiting.map(|other| Action::Tell(Notice::Blocked(other, id))));
    }

    fn on_cleaned(&mut self, id: Id, _actions: &mut Vec<Action>) {
        let workload = &mut self.workloads[id];
        if let State::Cleaning { next, ended, .. } = workload.state {
            workload.state = match next {
                // What the removal took counts as waiting.
                Next::Restart(delay) => State::BackingOff {
                    until: ended + delay,
                },
                Next::Down => State::Down,
            };
        }
    }

    fn on_probed(
        &mut self,
        id: Id,
        result: &ProbeResult,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let workload = &mut self.workloads[id];
        let State::Running(run) = &mut workload.state else {
            return;
        };
        if !run.probing || self.shutting_down {
            return;
        }
        run.probing = false;
        match (result, run.ready_since) {
            (ProbeResult::Passed, None) => self.become_ready(id, now, actions),
            (ProbeResult::Passed, Some(_)) => {
                run.failures = 0;
                run.next_probe = next_check(true, workload.interval, now);
            }
            (ProbeResult::Failed, Some(_)) => self.count_failure(id, now, actions),
            (ProbeResult::Lost, _) | (ProbeResult::Failed, None) => {
                run.next_probe = Some(now + LOST_PROBE_DELAY)
            }
        }
    }

    fn count_failure(&mut self, id: Id, now: Duration, actions: &mut Vec<Action>) {
        let workload = &mut self.workloads[id];
        let State::Running(run) = &mut workload.state else {
            return;
        };
        run.failures += 1;
        run.next_probe = next_check(true, workload.interval, now);
        actions.push(Action::Tell(Notice::CheckFailed(id, run.failures)));
        if run.failures == FAILED_CHECKS && workload.restart != Restart::Never {
            actions.push(Action::Tell(Notice::Unhealthy(id)));
            self.stop(id, now, actions);
        }
    }

    fn stop_probe(&mut self, id: Id, actions: &mut Vec<Action>) {
        if let State::Running(run) = &mut self.workloads[id].state {
            run.next_probe = None;
            run.tell_slow = None;
            if std::mem::take(&mut run.probing) {
                actions.push(Action::StopProbe(id));
            }
        }
    }

    fn stop(&mut self, id: Id, now: Duration, actions: &mut Vec<Action>) {
        self.stop_probe(id, actions);
        let workload = &mut self.workloads[id];
        workload.state = State::Stopping {
            deadline: now + workload.stop_timeout,
            killed: false,
        };
        actions.push(Action::Signal(id, workload.stop_signal));
    }

    fn check_deadline(&mut self, id: Id, now: Duration, actions: &mut Vec<Action>) {
        if self.workloads[id]
            .deadline()
            .is_none_or(|deadline| deadline > now)
        {
            return;
        }
        match &mut self.workloads[id].state {
            State::Starting { deadline } => {
                *deadline = None;
                actions.push(Action::AbortStart(id));
            }
            State::Cleaning { deadline, .. } => {
                *deadline = None;
                actions.push(Action::AbortClean(id));
            }
            State::BackingOff { .. } => self.start(id, now, actions),
            State::Running(run) => check_run(id, run, now, actions),
            State::Stopping { .. } => self.kill(id, now, actions),
            State::Waiting | State::Down => {}
        }
    }

    fn kill(&mut self, id: Id, now: Duration, actions: &mut Vec<Action>) {
        let shutting_down = self.shutting_down;
        let State::Stopping { deadline, killed } = &mut self.workloads[id].state else {
            return;
        };
        let notice = if *killed {
            Notice::Unkillable(id)
        } else {
            Notice::Killing(id)
        };
        actions.push(Action::Tell(notice));
        if *killed && shutting_down {
            self.workloads[id].state = State::Down;
            return;
        }
        *deadline = now + KILL_LIMIT;
        *killed = true;
        actions.push(Action::Kill(id));
    }

    fn begin_shutdown(&mut self, actions: &mut Vec<Action>) {
        self.shutting_down = true;
        for id in 0..self.workloads.len() {
            self.stop_probe(id, actions);
            let state = &mut self.workloads[id].state;
            if matches!(
                state,
                State::Waiting | State::Cleaning { .. } | State::BackingOff { .. }
            ) {
                *state = State::Down;
            }
        }
    }

    fn hurry(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.hurrying = self.shutting_down;
        for id in 0..self.workloads.len() {
            match &mut self.workloads[id].state {
                State::Starting { deadline } if self.hurrying && deadline.is_some() => {
                    *deadline = None;
                    actions.push(Action::AbortStart(id));
                }
                State::Stopping { killed: false, .. } if self.hurrying => {
                    self.kill(id, now, actions);
                }
                _ => {}
            }
        }
    }

    /// Stops each running workload that none which is still up comes after; in a hurry all of them, by SIGKILL.
    fn go_on_stopping(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for id in (0..self.workloads.len()).rev() {
            let needs_it =
                |other: &Workload| other.state != State::Down && other.after.contains(&id);
            let needed = self.workloads.iter().any(needs_it);
            if !matches!(self.workloads[id].state, State::Running(_)) {
                continue;
            }
            if self.hurrying {
                self.workloads[id].state = State::Stopping {
                    deadline: now,
                    killed: false,
                };
                self.kill(id, now, actions);
            } else if !needed {
                self.stop(id, now, actions);
            }
        }
        if !self.all_stopped
            && self
                .workloads
                .iter()
                .all(|workload| workload.state == State::Down)
        {
            self.all_stopped = true;
            actions.push(Action::AllStopped);
        }
    }
}

/// The time of the next check; an interval of 0 means none.
fn next_check(has_probe: bool, interval: Duration, now: Duration) -> Option<Duration> {
    (has_probe && !interval.is_zero()).then(|| now + interval)
}

fn check_run(id: Id, run: &mut Run, now: Duration, actions: &mut Vec<Action>) {
    if run.tell_slow.is_some_and(|at| at <= now) {
        run.tell_slow = None;
        actions.push(Action::Tell(Notice::Slow(
            id,
            now.saturating_sub(run.since),
        )));
    }
    if run.next_probe.is_some_and(|at| at <= now) {
        run.next_probe = None;
        run.probing = true;
        let kind = if run.ready_since.is_some() {
            ProbeKind::Once
        } else {
            ProbeKind::UntilReady
        };
        actions.push(Action::Probe(id, kind));
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
