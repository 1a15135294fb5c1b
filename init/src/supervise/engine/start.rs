//! From waiting to ready: what a workload waits for, and what happens when that is there.

use std::time::Duration;

use config::boot::{BootCondition, Kind, Readiness};

use super::state::{Patience, Run, State, Why, Workload};
use super::{Engine, SLOT, START_LIMIT};
use crate::supervise::event::{Action, Id, Notice, ProbeKind, Standing, Trouble};

/// When it is told that a workload takes long to become ready.
const SLOW: Duration = Duration::from_secs(30);
/// A connection that comes as soon as somebody listens has waited before.
const HASTE: Duration = Duration::from_millis(250);
/// So many starts in a row by such a connection are nothing to wonder about.
pub(super) const HASTY_STARTS: u32 = 3;
/// When it is told that a workload waits for the machine.
const LONG: Duration = Duration::from_secs(10);

impl Engine {
    /// Brings all into agreement with what the last event changed: stops what lost something that it needs, starts what
    /// has all of it, and tells who waits in vain. In the order of dependencies, so that one pass is enough.
    pub(super) fn settle(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.settle_pods(now, actions);
        for id in 0..self.workloads.len() {
            self.check_needs(id, now, actions);
        }
        self.prepare_pods(now, actions);
        let holds_slot = |workload: &&Workload| workload.holds_slot(now);
        let mut starting = self.workloads.iter().filter(holds_slot).count();
        let mut held_back = false;
        for id in 0..self.workloads.len() {
            if !self.workloads[id].wants_to_start(now) {
                continue;
            }
            if !self.can_start(id) {
                self.workloads[id].state = State::Waiting;
                self.tell_blocked(id, actions);
                self.watch_condition(id, now);
            } else if self.workloads[id].has_sockets || starting < self.starts {
                self.leave_waiting(id, now, actions);
                starting += usize::from(self.workloads[id].holds_slot(now));
            } else {
                self.workloads[id].state = State::Waiting;
                held_back = true;
            }
        }
        let slots = self.workloads.iter().filter_map(Workload::slot_until);
        let next_slot = slots.filter(|&until| until > now).min();
        self.next_slot = next_slot.filter(|_| held_back);
        if !self.all_ready_told && self.workloads.iter().all(|workload| workload.was_ready) {
            self.all_ready_told = true;
            actions.push(Action::Tell(Notice::AllReady));
        }
    }

    /// All that it needs is there, but for its pod.
    pub(super) fn has_its_needs(&self, id: Id) -> bool {
        self.unmet_condition(id).is_none() && self.has_other_needs(id)
    }

    /// All the workloads that it needs are there.
    fn has_other_needs(&self, id: Id) -> bool {
        let was_ready = |&other: &Id| self.workloads[other].was_ready;
        let mut after = self.workloads[id].after.iter();
        after.all(was_ready) && self.missing_requirement(id).is_none()
    }

    fn unmet_condition(&self, id: Id) -> Option<BootCondition> {
        let mut conditions = self.workloads[id].conditions.iter().copied();
        conditions.find(|condition| !self.conditions_met.contains(condition))
    }

    fn can_start(&self, id: Id) -> bool {
        let pod = self.workloads[id].pod;
        self.has_its_needs(id) && pod.is_none_or(|pod| self.pods[pod].is_made())
    }

    fn missing_requirement(&self, id: Id) -> Option<Id> {
        let mut requires = self.workloads[id].requires.iter().copied();
        requires.find(|&other| !self.workloads[other].is_up())
    }

    /// Stops it if one that it requires is not up any more.
    fn check_needs(&mut self, id: Id, now: Duration, actions: &mut Vec<Action>) {
        let Some(missing) = self.missing_requirement(id) else {
            return;
        };
        let workload = &mut self.workloads[id];
        match workload.state {
            State::Idle { .. } => {
                workload.state = State::Waiting;
                actions.push(Action::Tell(Notice::NeedIsGone(id, missing)));
                actions.push(Action::Unwatch(id));
            }
            State::Running(_) => {
                actions.push(Action::Tell(Notice::NeedIsGone(id, missing)));
                self.stop(id, Why::NeedIsGone, now, actions);
            }
            _ => {}
        }
    }

    fn leave_waiting(&mut self, id: Id, now: Duration, actions: &mut Vec<Action>) {
        let workload = &mut self.workloads[id];
        workload.blocked_by = None;
        workload.tell_condition = Patience::Unused;
        if !workload.has_sockets {
            return self.start(id, now, actions);
        }
        workload.state = State::Idle { since: now };
        if !std::mem::replace(&mut workload.was_ready, true) {
            actions.push(Action::Tell(Notice::Listening(id)));
        }
        actions.push(Action::Watch(id));
    }

    fn start(&mut self, id: Id, now: Duration, actions: &mut Vec<Action>) {
        self.workloads[id].state = State::Starting {
            deadline: Some(now + START_LIMIT),
            slot_until: now + SLOT,
        };
        actions.push(Action::Start(id));
    }

    /// A workload that only waits for the machine has some patience.
    fn watch_condition(&mut self, id: Id, now: Duration) {
        let waits = self.unmet_condition(id).is_some() && self.has_other_needs(id);
        let patience = &mut self.workloads[id].tell_condition;
        match (waits, *patience) {
            (false, _) => *patience = Patience::Unused,
            (true, Patience::Unused) => *patience = Patience::Until(now + LONG),
            (true, Patience::Until(_) | Patience::Told) => {}
        }
    }

    /// Its patience is over.
    pub(super) fn tell_condition(&mut self, id: Id, actions: &mut Vec<Action>) {
        self.workloads[id].tell_condition = Patience::Told;
        if let Some(condition) = self.unmet_condition(id) {
            actions.push(Action::Tell(Notice::WaitsFor(id, condition)));
        }
    }

    /// Told once for each that it waits for in vain, also when that one itself waits in vain.
    fn tell_blocked(&mut self, id: Id, actions: &mut Vec<Action>) {
        let workload = &self.workloads[id];
        let needed = |other: &Id| !self.workloads[*other].was_ready;
        let missing = |other: &Id| !self.workloads[*other].is_up();
        let after = workload.after.iter().copied().filter(needed);
        let requires = workload.requires.iter().copied().filter(missing);
        let mut unmet = after.chain(requires);
        let found = unmet.find_map(|other| Some((other, self.hopeless(other)?)));
        let blocked_by = found.map(|(other, _)| other);
        if let Some((other, standing)) = found
            && workload.blocked_by != blocked_by
        {
            actions.push(Action::Tell(Notice::Blocked(id, other, standing)));
        }
        self.workloads[id].blocked_by = blocked_by;
    }

    /// Where it stands, if it will never be up again.
    fn hopeless(&self, id: Id) -> Option<Standing> {
        let workload = &self.workloads[id];
        match workload.state {
            State::Failed => Some(Standing::Failed),
            State::Down => Some(Standing::Down),
            State::Waiting => workload.blocked_by.map(|_| Standing::Waiting),
            _ => None,
        }
    }

    pub(super) fn on_connected(&mut self, id: Id, now: Duration, actions: &mut Vec<Action>) {
        let workload = &mut self.workloads[id];
        let State::Idle { since } = workload.state else {
            return;
        };
        if self.stop.is_some() {
            return;
        }
        if now.saturating_sub(since) < HASTE {
            workload.hasty_starts = workload.hasty_starts.saturating_add(1);
        } else if std::mem::take(&mut workload.hasty_starts) > HASTY_STARTS {
            workload.backoff.reset();
        }
        self.start(id, now, actions);
    }

    pub(super) fn on_started(&mut self, id: Id, now: Duration, actions: &mut Vec<Action>) {
        let stopping = self.stop.is_some();
        let workload = &mut self.workloads[id];
        if !matches!(workload.state, State::Starting { .. }) {
            return;
        }
        let waits = workload.kind == Kind::Service && workload.readiness != Readiness::Started;
        let probes = matches!(
            workload.readiness,
            Readiness::Port { .. } | Readiness::Health
        );
        let grace = workload.health.filter(|health| !health.grace.is_zero());
        let in_time = |limit: Duration| (now + limit, Trouble::NotReady);
        workload.state = State::Running(Run {
            since: now,
            ready_since: None,
            probing: probes && !stopping,
            next_probe: None,
            failures: 0,
            tell_slow: (waits && !stopping).then_some(now + SLOW),
            limit: grace
                .filter(|_| waits && !stopping)
                .map(|health| in_time(health.grace + health.every * health.retries)),
            is_ending: false,
        });
        actions.push(Action::Tell(Notice::Started(id)));
        match (stopping, workload.kind, probes, waits) {
            (true, ..) | (_, Kind::Job, ..) => {}
            (_, _, true, _) => actions.push(Action::Probe(id, ProbeKind::UntilReady)),
            (_, _, _, true) => {}
            _ => self.become_ready(id, now, actions),
        }
    }

    pub(super) fn become_ready(&mut self, id: Id, now: Duration, actions: &mut Vec<Action>) {
        let workload = &mut self.workloads[id];
        let State::Running(run) = &mut workload.state else {
            return;
        };
        run.ready_since = Some(now);
        run.tell_slow = None;
        run.failures = 0;
        run.next_probe = workload.health.map(|health| now + health.every);
        run.limit = workload
            .watchdog
            .map(|within| (now + within, Trouble::Watchdog));
        workload.was_ready = true;
        actions.push(Action::Tell(Notice::Ready(id)));
    }
}
