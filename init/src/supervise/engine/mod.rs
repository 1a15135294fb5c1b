//! The supervision engine: (state, event, now) → actions. No system call, no clock, no randomness but its seed's.
//!
//! # States of a workload
//! - **Waiting**: something that it needs is not there: one that it comes `after` has never been ready (a job: is not
//!   done), one that it `requires` is not up, a condition of the machine has never held, or its pod is not made.
//! - **Idle**: init listens on its sockets; the first connection starts it. For the others it is up.
//! - **Starting**: the runtime is setting the container up. It has [`START_LIMIT`] for that.
//! - **Running**: the command runs. A service is *ready* at once (`started`), when a probe passes (`port`, `health`), or
//!   when it says so (`notify`). From then on it is checked every interval, and its watchdog runs. A job just runs.
//! - **Stopping**: it got its stop signal; when its time is over, SIGKILL, again and again.
//! - **Cleaning**: its process is gone; the runtime removes what is left.
//! - **BackingOff**: it goes on when the delay is over.
//! - **Done**: a job that exited with status 0. **Down**: a service that ended well and is not restarted, or the machine
//!   stops. **Failed**: it ended ill and is not tried again. These three are for good; sockets are closed in them.
//!
//! # Transitions
//! - Waiting → Starting (with sockets: Idle): all that it comes after have been ready once, all that it requires are
//!   up, its conditions have held once, its pod is made, and not too many others are Starting. Idle → Starting:
//!   `Connected`. Idle → Waiting: one that it requires went down.
//! - Starting → Running: `Started`. Starting → Cleaning: `StartFailed`, a failure. Starting → Failed: `CannotStart`,
//!   whatever the restart policy.
//! - Running → Cleaning: `Exited`. Running → Stopping: it is *unhealthy* (so many failed checks in a row, not ready in its
//!   grace, no `WATCHDOG=1` in time, `STOPPING=1` but no exit) and the policy is not `never`; one that it requires went
//!   down; its pod is lost or failed; or the machine stops and all that come after it are down.
//! - Stopping → Cleaning: `Exited`. Cleaning → by the reason of the end:
//!   BackingOff when it is to be started again, Waiting when it was stopped for another's sake, or one of the last three.
//! - A failure counts. As many within the time of the start limit as it allows starts: Failed instead of BackingOff.
//! - BackingOff → as from Waiting, when the time comes.
//! - When the machine stops: Waiting, Idle, Cleaning and BackingOff → Down at once; Starting → Stopping as soon as it
//!   started; Stopping → Down on `Exited`, or when not even SIGKILL helps. When the machine's own time is over
//!   everything is killed, and [`KILL_LIMIT`] later all are Down, whatever they say. What the kernel removes with the
//!   machine is not cleaned any more.
//!
//! # Pods
//! A pod is *absent* until one of its workloads only waits for it, then *being made*, then *made*. It is *lost* when
//! `PodFailed` comes after it was made: its workloads are stopped and wait, it is removed and made again. When one of
//! its workloads is Failed the others are stopped for good. When all of them are in one of the last three states it is
//! removed and *gone*. One that cannot be made is tried again with growing delays.
//!
//! One with sockets that exits with status 0 again and again, each time with a connection that waits as soon as it listens,
//! has not taken that connection: its delays grow like those of a failed one.
//!
//! The delay before a restart doubles from the workload's first to its longest, each shortened by up to a fifth at
//! random, so that not all come back at once; it begins again after [`HEALTHY_SPELL`] of being ready. Events that do not
//! fit a workload's state are late echoes and are ignored.

mod checks;
mod end;
mod pods;
mod shutdown;
mod start;
mod state;

use std::time::Duration;

use config::boot::{BootCondition, BootPod, BootWorkload};

use super::event::{Action, Event, Id};
use pods::Pod;
use shutdown::Stop;
use state::{State, Workload};

/// How long the runtime may take to start a container, or to remove one; or a pod to be made.
pub const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a start may keep another one waiting.
pub const SLOT: Duration = Duration::from_secs(5);
/// After so long of being ready the restart delay begins again at its shortest.
pub const HEALTHY_SPELL: Duration = Duration::from_secs(10);
/// How long SIGKILL may take.
pub const KILL_LIMIT: Duration = Duration::from_secs(5);

/// What is the machine's, not a workload's.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Where the jitter begins; 0: there is none.
    pub seed: u64,
    /// How long all workloads together may take to stop.
    pub shutdown_limit: Duration,
    /// How many starts are under way at once, at least 1: more of them would all take longer, and some too long. One that
    /// takes longer than [`SLOT`] does not count any more, so that nobody waits long for what hangs.
    pub starts: usize,
}

/// All workloads of the machine.
#[derive(Debug)]
pub struct Engine {
    workloads: Vec<Workload>,
    pods: Vec<Pod>,
    shutdown_limit: Duration,
    starts: usize,
    /// When a start that takes long lets another one begin, if one only waits for that.
    next_slot: Option<Duration>,
    /// What has held once.
    conditions_met: Vec<BootCondition>,
    begun: bool,
    all_ready_told: bool,
    /// The machine stops.
    stop: Option<Stop>,
}

impl Engine {
    /// Nothing runs before [`Event::Begin`].
    #[must_use]
    pub fn new(workloads: &[BootWorkload], pods: &[BootPod], settings: Settings) -> Self {
        let workload = |(id, spec)| Workload::new(id, spec, workloads, pods, settings.seed);
        let pod = |(id, _)| Pod::new(id, settings.seed);
        Self {
            workloads: workloads.iter().enumerate().map(workload).collect(),
            pods: pods.iter().enumerate().map(pod).collect(),
            shutdown_limit: settings.shutdown_limit,
            starts: settings.starts,
            next_slot: None,
            conditions_met: Vec::new(),
            begun: false,
            all_ready_told: false,
            stop: None,
        }
    }

    /// When the engine wants an [`Event::Tick`], if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let workloads = self.workloads.iter().filter_map(Workload::deadline);
        let pods = self.pods.iter().filter(|_| self.stop.is_none());
        let pods = pods.filter_map(Pod::deadline);
        let stop = self.stop.and_then(Stop::deadline);
        let slot = self.next_slot.filter(|_| self.stop.is_none());
        workloads.chain(pods).chain(stop).chain(slot).min()
    }

    /// Takes one event at the time `now` and returns what is to be done, in this order.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        self.hear(event, now, &mut actions);
        for id in 0..self.workloads.len() {
            self.check_deadline(id, now, &mut actions);
        }
        if self.stop.is_some() {
            self.go_on_stopping(now, &mut actions);
        } else if self.begun {
            self.check_pod_deadlines(now, &mut actions);
            self.settle(now, &mut actions);
        }
        actions
    }

    fn hear(&mut self, event: Event, now: Duration, actions: &mut Vec<Action>) {
        match event {
            Event::Begin => self.begun = true,
            Event::Tick => {}
            Event::Connected(id) => self.on_connected(id, now, actions),
            Event::Started(id) => self.on_started(id, now, actions),
            Event::StartFailed(id, reason) => self.on_start_failed(id, reason, now, actions),
            Event::CannotStart(id, reason) => self.on_cannot_start(id, reason, actions),
            Event::Exited(id, exit) => self.on_exited(id, exit, now, actions),
            Event::Cleaned(id) => self.on_cleaned(id, actions),
            Event::Probed(id, result) => self.on_probed(id, &result, now, actions),
            Event::Notified(id, news) => self.on_notified(id, news, now, actions),
            // The kernel removes what is left of pods.
            Event::PodPrepared(_) | Event::PodFailed(..) | Event::PodRemoved(_)
                if self.stop.is_some() => {}
            Event::PodPrepared(pod) => self.on_pod_prepared(pod),
            Event::PodFailed(pod, reason) => self.on_pod_failed(pod, reason, now, actions),
            Event::PodRemoved(pod) => self.on_pod_removed(pod),
            Event::Condition { condition, holds } => self.on_condition(condition, holds),
            Event::Shutdown => self.begin_shutdown(now, actions),
            Event::Hurry => self.hurry(now),
        }
    }

    fn on_condition(&mut self, condition: BootCondition, holds: bool) {
        if holds && !self.conditions_met.contains(&condition) {
            self.conditions_met.push(condition);
        }
    }

    fn check_deadline(&mut self, id: Id, now: Duration, actions: &mut Vec<Action>) {
        let workload = &mut self.workloads[id];
        if workload.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        match &mut workload.state {
            State::Starting { deadline, .. } => {
                *deadline = None;
                actions.push(Action::AbortStart(id));
            }
            State::Cleaning { deadline, .. } => {
                *deadline = None;
                actions.push(Action::AbortClean(id));
            }
            State::Running(_) => self.check_run(id, now, actions),
            State::Stopping { .. } => self.kill(id, now, actions),
            State::Waiting => self.tell_condition(id, actions),
            // Settling, which follows, starts what has waited long enough.
            State::BackingOff { .. }
            | State::Idle { .. }
            | State::Done
            | State::Down
            | State::Failed => {}
        }
    }
}

#[cfg(test)]
mod tests;
