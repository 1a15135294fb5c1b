//! What the engine knows of each workload.

use std::collections::VecDeque;
use std::time::Duration;

use config::boot::{BootCondition, BootPod, BootWorkload, Kind, Readiness, Restart, StartLimit};

use crate::supervise::backoff::Backoff;
use crate::supervise::event::{Cause, Exit, Id, PodId, Trouble};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Waiting,
    Idle {
        since: Duration,
    },
    Starting {
        /// `None`: the runtime has been killed for taking too long.
        deadline: Option<Duration>,
        /// Until when it counts among those that start at once.
        slot_until: Duration,
    },
    Running(Run),
    Stopping {
        why: Why,
        deadline: Duration,
        /// How often it has been killed.
        kills: u32,
    },
    Cleaning {
        /// `None`: the runtime has been killed for taking too long.
        deadline: Option<Duration>,
        then: Then,
    },
    BackingOff {
        until: Duration,
    },
    Done,
    Down,
    Failed,
}

/// Why a workload is being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It is to be started again.
    Unhealthy,
    /// It waits until what it needs is back.
    NeedIsGone,
    /// Its pod failed.
    ForGood,
    /// The machine stops.
    Shutdown,
}

/// What comes after the cleaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Another start, not before this time.
    Restart(Duration),
    Wait,
    Done,
    Down,
    Failed,
}

/// What is expected of a running workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) since: Duration,
    pub(super) ready_since: Option<Duration>,
    pub(super) probing: bool,
    pub(super) next_probe: Option<Duration>,
    /// Failed checks in a row.
    pub(super) failures: u32,
    pub(super) tell_slow: Option<Duration>,
    /// When it will be in trouble, unless something happens before.
    pub(super) limit: Option<(Duration, Trouble)>,
    /// It said that it is about to end: nothing is checked any more.
    pub(super) is_ending: bool,
}

/// A check that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) every: Duration,
    pub(super) retries: u32,
    pub(super) grace: Duration,
}

/// Failures are counted in this.
#[derive(Debug)]
pub(super) struct Failures {
    limit: Option<StartLimit>,
    times: VecDeque<Duration>,
}

#[derive(Debug)]
pub(super) struct Workload {
    pub(super) kind: Kind,
    pub(super) after: Vec<Id>,
    pub(super) requires: Vec<Id>,
    pub(super) conditions: Vec<BootCondition>,
    pub(super) pod: Option<PodId>,
    pub(super) has_sockets: bool,
    pub(super) readiness: Readiness,
    pub(super) health: Option<Health>,
    pub(super) watchdog: Option<Duration>,
    pub(super) restart: Restart,
    pub(super) stop_signal: i32,
    pub(super) stop_timeout: Duration,
    pub(super) state: State,
    /// It has been ready once in this boot; a job: it is done.
    pub(super) was_ready: bool,
    /// What it waits for in vain, once that is told.
    pub(super) blocked_by: Option<Id>,
    /// It waits for a condition alone: when that is told.
    pub(super) tell_condition: Patience,
    pub(super) backoff: Backoff,
    pub(super) failures: Failures,
    /// Runs in a row that began as soon as it listened: the one before has left its connection waiting.
    pub(super) hasty_starts: u32,
}

/// How long something may last before it is told, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// It is not so.
    Unused,
    Until(Duration),
    Told,
}

impl Failures {
    const fn new(limit: Option<StartLimit>) -> Self {
        Self {
            limit,
            times: VecDeque::new(),
        }
    }

    /// Counts one more; the limit, if it is reached now. No more times are kept than it allows starts.
    pub(super) fn count(&mut self, now: Duration) -> Option<StartLimit> {
        let limit = self.limit?;
        let within = Duration::from_millis(limit.within_ms);
        self.times.retain(|&time| now.saturating_sub(time) < within);
        self.times.push_back(now);
        let reached = self.times.len() >= usize::try_from(limit.starts).unwrap_or(usize::MAX);
        reached.then_some(limit)
    }
}

impl Workload {
    pub(super) fn new(
        id: Id,
        spec: &BootWorkload,
        all: &[BootWorkload],
        pods: &[BootPod],
        seed: u64,
    ) -> Self {
        // Only earlier workloads count: so no cycle, whatever the file says, can keep one from starting.
        let earlier = |names: &[String]| {
            let named = |&other: &Id| names.contains(&all[other].name);
            (0..id).filter(named).collect()
        };
        let pod = spec.pod.as_ref();
        let milliseconds = Duration::from_millis;
        Self {
            kind: spec.kind,
            after: earlier(&spec.after),
            requires: earlier(&spec.requires),
            conditions: spec.conditions.clone(),
            pod: pod.and_then(|pod| pods.iter().position(|other| other.name == *pod)),
            has_sockets: !spec.sockets.is_empty(),
            readiness: spec.readiness,
            health: spec.health.as_ref().map(|health| Health {
                every: milliseconds(health.every_ms.max(1)),
                retries: health.retries.max(1),
                grace: milliseconds(health.grace_ms),
            }),
            watchdog: spec.watchdog_ms.map(milliseconds),
            restart: spec.restart.when,
            stop_signal: spec.stop_signal,
            stop_timeout: milliseconds(spec.stop_timeout_ms),
            state: State::Waiting,
            was_ready: false,
            blocked_by: None,
            tell_condition: Patience::Unused,
            backoff: Backoff::new(
                milliseconds(spec.restart.delay_ms),
                milliseconds(spec.restart.delay_max_ms),
            )
            .with_jitter(jitter_seed(seed, id)),
            failures: Failures::new(spec.restart.start_limit),
            hasty_starts: 0,
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Waiting => match self.tell_condition {
                Patience::Until(at) => Some(at),
                Patience::Unused | Patience::Told => None,
            },
            State::Idle { .. } | State::Done | State::Down | State::Failed => None,
            State::Starting { deadline, .. } | State::Cleaning { deadline, .. } => deadline,
            State::Running(run) => {
                let limit = run.limit.map(|(at, _)| at);
                [run.next_probe, run.tell_slow, limit]
                    .into_iter()
                    .flatten()
                    .min()
            }
            State::Stopping { deadline, .. } => Some(deadline),
            State::BackingOff { until } => Some(until),
        }
    }

    /// Nothing but what it needs keeps it from starting.
    pub(super) fn wants_to_start(&self, now: Duration) -> bool {
        match self.state {
            State::Waiting => true,
            State::BackingOff { until } => until <= now,
            _ => false,
        }
    }

    /// Until when its start keeps others waiting.
    pub(super) fn slot_until(&self) -> Option<Duration> {
        match self.state {
            State::Starting { slot_until, .. } => Some(slot_until),
            _ => None,
        }
    }

    pub(super) fn holds_slot(&self, now: Duration) -> bool {
        self.slot_until().is_some_and(|until| until > now)
    }

    /// It will never run again in this boot.
    pub(super) const fn is_at_rest(&self) -> bool {
        matches!(self.state, State::Done | State::Down | State::Failed)
    }

    /// Some process of it, or the runtime's, is there.
    pub(super) const fn is_active(&self) -> bool {
        matches!(
            self.state,
            State::Starting { .. }
                | State::Running(_)
                | State::Stopping { .. }
                | State::Cleaning { .. }
        )
    }

    /// Those that require it may run. One with sockets is up as long as somebody will answer its connections: it may
    /// be started, or started again, meanwhile.
    pub(super) const fn is_up(&self) -> bool {
        match self.state {
            State::Done => true,
            State::Idle { .. } => true,
            State::Running(run) => run.ready_since.is_some() || self.has_sockets,
            State::Starting { .. } | State::BackingOff { .. } => self.has_sockets && self.was_ready,
            State::Stopping { why, .. } => self.has_sockets && matches!(why, Why::Unhealthy),
            State::Cleaning { then, .. } => self.has_sockets && matches!(then, Then::Restart(_)),
            State::Waiting | State::Down | State::Failed => false,
        }
    }

    pub(super) fn starts_again_after(&self, cause: &Cause) -> bool {
        match self.restart {
            Restart::Always => true,
            Restart::OnFailure => !is_success(cause),
            Restart::Never => false,
        }
    }
}

pub(super) fn is_success(cause: &Cause) -> bool {
    *cause == Cause::Exited(Exit::Status(0))
}

/// Another one for each workload or pod; 0 stays 0.
pub(super) const fn jitter_seed(seed: u64, id: usize) -> u64 {
    seed.wrapping_mul((id as u64).wrapping_mul(2).wrapping_add(1))
}
