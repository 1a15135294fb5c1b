//! Pods: namespaces that several workloads share, and a lifetime in common.

use std::time::Duration;

use super::state::{State, Then, Why, jitter_seed};
use super::{Engine, START_LIMIT};
use crate::supervise::backoff::Backoff;
use crate::supervise::event::{Action, Id, Notice, PodId};

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It is made when one of its workloads only waits for it.
    Absent,
    Preparing {
        /// `None`: who makes it has been killed for taking too long.
        deadline: Option<Duration>,
    },
    Made,
    /// Its namespaces are gone, or about to be: its workloads are being stopped.
    Lost,
    /// What is left is removed; then it is gone for good, or absent.
    Removing {
        for_good: bool,
    },
    BackingOff {
        until: Duration,
    },
    Gone,
}

/// One pod.
#[derive(Debug)]
pub(super) struct Pod {
    state: Phase,
    backoff: Backoff,
    /// One of its workloads has failed, and the others go with it.
    failed: bool,
}

impl Pod {
    pub(super) const fn new(id: PodId, seed: u64) -> Self {
        Self {
            state: Phase::Absent,
            backoff: Backoff::new(FIRST_DELAY, LONGEST_DELAY).with_jitter(jitter_seed(seed, id)),
            failed: false,
        }
    }

    pub(super) const fn deadline(&self) -> Option<Duration> {
        match self.state {
            Phase::Preparing { deadline } => deadline,
            Phase::BackingOff { until } => Some(until),
            _ => None,
        }
    }

    pub(super) fn is_made(&self) -> bool {
        self.state == Phase::Made && !self.failed
    }
}

impl Engine {
    pub(super) fn on_pod_prepared(&mut self, id: PodId) {
        let pod = &mut self.pods[id];
        if matches!(pod.state, Phase::Preparing { .. }) {
            pod.state = Phase::Made;
            pod.backoff.reset();
        }
    }

    pub(super) fn on_pod_failed(
        &mut self,
        id: PodId,
        reason: String,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let pod = &mut self.pods[id];
        match pod.state {
            Phase::Preparing { .. } => {
                let delay = pod.backoff.next_delay();
                pod.state = Phase::BackingOff { until: now + delay };
                actions.push(Action::Tell(Notice::PodNotMade(id, reason, delay)));
            }
            Phase::Made => {
                pod.state = Phase::Lost;
                actions.push(Action::Tell(Notice::PodLost(id, reason)));
            }
            _ => {}
        }
    }

    pub(super) fn on_pod_removed(&mut self, id: PodId) {
        let pod = &mut self.pods[id];
        if let Phase::Removing { for_good } = pod.state {
            pod.state = if for_good { Phase::Gone } else { Phase::Absent };
        }
    }

    pub(super) fn check_pod_deadlines(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for (id, pod) in self.pods.iter_mut().enumerate() {
            if pod.deadline().is_none_or(|deadline| deadline > now) {
                continue;
            }
            if let Phase::Preparing { deadline } = &mut pod.state {
                *deadline = None;
                actions.push(Action::AbortPod(id));
            } else {
                pod.state = Phase::Absent;
            }
        }
    }

    /// Takes the others of a failed workload's pod down, stops those of a lost one, and removes what nobody is in.
    pub(super) fn settle_pods(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for pod in 0..self.pods.len() {
            self.note_failed_member(pod, actions);
            if self.pods[pod].failed {
                self.take_members_down(pod, now, actions);
            } else if self.pods[pod].state == Phase::Lost {
                self.stop_members(pod, now, actions);
            }
            self.remove_if_empty(pod, actions);
        }
    }

    fn note_failed_member(&mut self, pod: PodId, actions: &mut Vec<Action>) {
        let failed = |&id: &Id| self.workloads[id].state == State::Failed;
        let first = self.members(pod).find(failed);
        let Some(id) = first.filter(|_| !self.pods[pod].failed) else {
            return;
        };
        self.pods[pod].failed = true;
        if self.members(pod).any(|id| !self.workloads[id].is_at_rest()) {
            actions.push(Action::Tell(Notice::PodFailed(pod, id)));
        }
    }

    fn members(&self, pod: PodId) -> impl Iterator<Item = Id> + use<'_> {
        let is_member = move |id: &Id| self.workloads[*id].pod == Some(pod);
        (0..self.workloads.len()).filter(is_member)
    }

    /// For good.
    fn take_members_down(&mut self, pod: PodId, now: Duration, actions: &mut Vec<Action>) {
        for id in self.members(pod).collect::<Vec<_>>() {
            match &mut self.workloads[id].state {
                State::Waiting | State::BackingOff { .. } => self.rest(id, State::Down, actions),
                State::Idle { .. } => {
                    actions.push(Action::Unwatch(id));
                    self.rest(id, State::Down, actions);
                }
                State::Running(_) => self.stop(id, Why::ForGood, now, actions),
                State::Stopping { why, .. } => *why = Why::ForGood,
                State::Cleaning { then, .. } => {
                    if matches!(then, Then::Restart(_) | Then::Wait) {
                        *then = Then::Down;
                    }
                }
                State::Starting { .. } | State::Done | State::Down | State::Failed => {}
            }
        }
    }

    /// Until the pod is made again.
    fn stop_members(&mut self, pod: PodId, now: Duration, actions: &mut Vec<Action>) {
        for id in self.members(pod).collect::<Vec<_>>() {
            match self.workloads[id].state {
                State::Running(_) => self.stop(id, Why::NeedIsGone, now, actions),
                State::Idle { .. } => {
                    self.workloads[id].state = State::Waiting;
                    actions.push(Action::Unwatch(id));
                }
                _ => {}
            }
        }
    }

    fn remove_if_empty(&mut self, pod: PodId, actions: &mut Vec<Action>) {
        let for_good = self.members(pod).all(|id| self.workloads[id].is_at_rest());
        let is_empty = !self.members(pod).any(|id| self.workloads[id].is_active());
        let state = self.pods[pod].state;
        if (state == Phase::Made && for_good) || (state == Phase::Lost && is_empty) {
            self.pods[pod].state = Phase::Removing { for_good };
            actions.push(Action::RemovePod(pod));
        }
    }

    /// Makes each pod that only keeps a workload waiting.
    pub(super) fn prepare_pods(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for pod in 0..self.pods.len() {
            let wants = |id: Id| self.workloads[id].wants_to_start(now) && self.has_its_needs(id);
            if self.pods[pod].state == Phase::Absent
                && !self.pods[pod].failed
                && self.members(pod).any(wants)
            {
                self.pods[pod].state = Phase::Preparing {
                    deadline: Some(now + START_LIMIT),
                };
                actions.push(Action::PreparePod(pod));
            }
        }
    }
}
