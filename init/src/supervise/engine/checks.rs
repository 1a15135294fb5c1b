//! How a running workload is watched: probes, what it says of itself, its watchdog.

use std::time::Duration;

use config::boot::{Readiness, Restart};

use super::Engine;
use super::state::{State, Why};
use crate::supervise::event::{Action, Id, News, Notice, ProbeKind, ProbeResult, Trouble};

/// Before a probe that was lost is started again.
const LOST_PROBE_DELAY: Duration = Duration::from_millis(250);

impl Engine {
    pub(super) fn on_probed(
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
        if !run.probing || self.stop.is_some() {
            return;
        }
        run.probing = false;
        match (result, run.ready_since) {
            (ProbeResult::Passed, None) => self.become_ready(id, now, actions),
            (ProbeResult::Passed, Some(_)) => {
                run.failures = 0;
                run.next_probe = workload.health.map(|health| now + health.every);
            }
            (ProbeResult::Failed, Some(_)) => self.count_failed_check(id, now, actions),
            (ProbeResult::Lost, _) | (ProbeResult::Failed, None) => {
                run.next_probe = Some(now + LOST_PROBE_DELAY);
            }
        }
    }

    fn count_failed_check(&mut self, id: Id, now: Duration, actions: &mut Vec<Action>) {
        let workload = &mut self.workloads[id];
        let (State::Running(run), Some(health)) = (&mut workload.state, workload.health) else {
            return;
        };
        run.next_probe = Some(now + health.every);
        if now.saturating_sub(run.since) < health.grace {
            return;
        }
        run.failures = run.failures.saturating_add(1);
        actions.push(Action::Tell(Notice::CheckFailed(id, run.failures)));
        if run.failures == health.retries {
            self.is_in_trouble(id, Trouble::Checks, now, actions);
        }
    }

    /// Stops it to start it again, unless it is not to be restarted: then that is only told.
    fn is_in_trouble(
        &mut self,
        id: Id,
        trouble: Trouble,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let is_restarted = self.workloads[id].restart != Restart::Never;
        let stops = is_restarted || trouble == Trouble::StillThere;
        actions.push(Action::Tell(Notice::Unhealthy(id, trouble, stops)));
        if stops {
            self.stop(id, Why::Unhealthy, now, actions);
        }
    }

    pub(super) fn on_notified(
        &mut self,
        id: Id,
        news: News,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let workload = &mut self.workloads[id];
        let State::Running(run) = &mut workload.state else {
            return;
        };
        if self.stop.is_some() || run.is_ending {
            return;
        }
        match news {
            News::Ready if workload.readiness == Readiness::Notify && run.ready_since.is_none() => {
                self.become_ready(id, now, actions);
            }
            News::Stopping => {
                let limit = (now + workload.stop_timeout, Trouble::StillThere);
                self.stop_checks(id, actions);
                if let State::Running(run) = &mut self.workloads[id].state {
                    run.is_ending = true;
                    run.limit = Some(limit);
                }
            }
            // Each word of it shows that it lives.
            News::Ready | News::Reloading | News::Watchdog => {
                if let Some((at, Trouble::Watchdog)) = &mut run.limit {
                    *at = now + workload.watchdog.unwrap_or_default();
                }
            }
        }
    }

    /// Nothing is asked of it, and nothing is expected, any more.
    pub(super) fn stop_checks(&mut self, id: Id, actions: &mut Vec<Action>) {
        if let State::Running(run) = &mut self.workloads[id].state {
            run.next_probe = None;
            run.tell_slow = None;
            run.limit = None;
            if std::mem::take(&mut run.probing) {
                actions.push(Action::StopProbe(id));
            }
        }
    }

    /// A time of a running workload has come.
    pub(super) fn check_run(&mut self, id: Id, now: Duration, actions: &mut Vec<Action>) {
        let State::Running(run) = &mut self.workloads[id].state else {
            return;
        };
        let is_over = |at: Duration| at <= now;
        if run.tell_slow.is_some_and(is_over) {
            run.tell_slow = None;
            let slow = Notice::Slow(id, now.saturating_sub(run.since));
            actions.push(Action::Tell(slow));
        }
        if let Some((at, trouble)) = run.limit
            && is_over(at)
        {
            run.limit = None;
            return self.is_in_trouble(id, trouble, now, actions);
        }
        if run.next_probe.is_some_and(is_over) {
            run.next_probe = None;
            run.probing = true;
            let kind = match run.ready_since {
                Some(_) => ProbeKind::Once,
                None => ProbeKind::UntilReady,
            };
            actions.push(Action::Probe(id, kind));
        }
    }
}
