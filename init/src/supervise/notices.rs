//! The engine's notices as the console's fixed words.

use std::time::Duration;

use config::boot::BootCondition;

use super::event::{Cause, Exit, Next, Notice, Standing, Trouble};

/// Names by id, as the file has them.
#[derive(Clone, Copy)]
#[allow(
    missing_debug_implementations,
    reason = "functions have nothing to show"
)]
pub struct Names<'a> {
    /// A workload's.
    pub workload: &'a dyn Fn(usize) -> &'a str,
    /// A pod's.
    pub pod: &'a dyn Fn(usize) -> &'a str,
}

/// The console line of a notice.
#[must_use]
pub fn describe(notice: &Notice, names: Names<'_>) -> String {
    let name = |id: &usize| (names.workload)(*id);
    let pod_name = |id: &usize| (names.pod)(*id);
    match notice {
        Notice::AllReady => "stage ready".to_owned(),
        Notice::PodNotMade(pod, reason, delay) => format!(
            "pod {} cannot be made: {reason}; trying again in {} s",
            pod_name(pod),
            seconds(*delay)
        ),
        Notice::PodLost(pod, reason) => format!(
            "pod {} is gone: {reason}; stopping its workloads to start them in a new one",
            pod_name(pod)
        ),
        Notice::PodFailed(pod, id) => format!(
            "pod {} goes with its workload {}, which failed: stopping the others",
            pod_name(pod),
            name(id)
        ),
        Notice::Started(id)
        | Notice::Ready(id)
        | Notice::Listening(id)
        | Notice::Slow(id, _)
        | Notice::Ended(id, ..)
        | Notice::CheckFailed(id, _)
        | Notice::Unhealthy(id, ..)
        | Notice::NeedIsGone(id, _)
        | Notice::Killing(id)
        | Notice::Unkillable(id)
        | Notice::WaitsFor(id, _)
        | Notice::Blocked(id, ..)
        | Notice::Stopped(id)
        | Notice::SocketsClosed(id) => {
            format!("workload {} {}", name(id), describe_workload(notice, &name))
        }
    }
}

/// What is said of a workload, behind its name.
fn describe_workload<'a>(notice: &Notice, name: &impl Fn(&usize) -> &'a str) -> String {
    match notice {
        Notice::Started(_) => "started".to_owned(),
        Notice::Ready(_) => "ready".to_owned(),
        Notice::Listening(_) => "listens: the first connection starts it".to_owned(),
        Notice::Slow(_, after) => {
            format!("is not ready after {} s; still trying", after.as_secs())
        }
        Notice::Ended(_, cause, next) => {
            format!("{}; {}", describe_cause(cause), describe_next(*next))
        }
        Notice::CheckFailed(_, count) => format!("failed a check ({count} in a row)"),
        Notice::Unhealthy(_, trouble, stops) => {
            let end = if *stops { ": stopping it" } else { "" };
            format!("is unhealthy ({}){end}", describe_trouble(*trouble))
        }
        Notice::NeedIsGone(_, other) => {
            format!("is stopped: {}, which it requires, is not up", name(other))
        }
        Notice::Killing(_) => "did not stop in time: killing it".to_owned(),
        Notice::Unkillable(_) => "does not even end by SIGKILL".to_owned(),
        Notice::WaitsFor(_, condition) => format!("waits for {}", describe_condition(*condition)),
        Notice::Blocked(_, other, standing) => {
            format!(
                "waits for {}, {}",
                name(other),
                describe_standing(*standing)
            )
        }
        Notice::Stopped(_) => "stopped".to_owned(),
        Notice::SocketsClosed(_) => "will not answer: its sockets are closed".to_owned(),
        Notice::AllReady | Notice::PodNotMade(..) | Notice::PodLost(..) | Notice::PodFailed(..) => {
            String::new()
        }
    }
}

const fn describe_trouble(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::Checks => "its checks fail",
        Trouble::NotReady => "not ready, and its grace is over",
        Trouble::Watchdog => "its watchdog is silent",
        Trouble::StillThere => "it said that it ends, and did not",
    }
}

const fn describe_condition(condition: BootCondition) -> &'static str {
    match condition {
        BootCondition::Firewall => "the firewall",
        BootCondition::Network => "the network",
    }
}

const fn describe_standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Failed => "which failed",
        Standing::Down => "which stays down",
        Standing::Waiting => "which waits in vain itself",
    }
}

fn describe_cause(cause: &Cause) -> String {
    match cause {
        Cause::Exited(Exit::Status(status)) => format!("exited with status {status}"),
        Cause::Exited(Exit::Signal(signal)) => format!("killed by signal {signal}"),
        Cause::Exited(Exit::Unknown) => "exited with an unknown status".to_owned(),
        Cause::StartFailed(reason) => format!("failed to start: {reason}"),
    }
}

fn describe_next(next: Next) -> String {
    match next {
        Next::Restart(delay) => format!("restarting in {} s", seconds(delay)),
        Next::Listen(delay) if delay >= Duration::from_secs(1) => format!(
            "it leaves connections waiting: the next one starts it in {} s",
            seconds(delay)
        ),
        Next::Listen(_) => "the next connection starts it".to_owned(),
        Next::Done => "done".to_owned(),
        Next::Down => "staying down".to_owned(),
        Next::Failed(None) => "failed for good".to_owned(),
        Next::Failed(Some(limit)) => format!(
            "failed for good: {} starts within {} s",
            limit.starts,
            seconds(Duration::from_millis(limit.within_ms))
        ),
    }
}

/// Seconds to the millisecond, with as many decimals as are needed.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::boot::StartLimit;

    #[test]
    fn notices_use_the_fixed_words() {
        let delay = Next::Restart(Duration::from_millis(100));
        let cases = [
            (Notice::Started(0), "workload web started"),
            (Notice::Ready(0), "workload web ready"),
            (Notice::AllReady, "stage ready"),
            (
                Notice::Ended(0, Cause::Exited(Exit::Status(3)), delay),
                "workload web exited with status 3; restarting in 0.1 s",
            ),
            (
                Notice::Ended(
                    0,
                    Cause::Exited(Exit::Signal(9)),
                    Next::Restart(Duration::from_secs(10)),
                ),
                "workload web killed by signal 9; restarting in 10 s",
            ),
            (
                Notice::Ended(
                    0,
                    Cause::StartFailed("no such file".to_owned()),
                    Next::Failed(None),
                ),
                "workload web failed to start: no such file; failed for good",
            ),
            (
                Notice::Ended(
                    0,
                    Cause::Exited(Exit::Status(1)),
                    Next::Failed(Some(StartLimit {
                        starts: 5,
                        within_ms: 600_000,
                    })),
                ),
                "workload web exited with status 1; failed for good: 5 starts within 600 s",
            ),
            (
                Notice::Ended(0, Cause::Exited(Exit::Status(0)), Next::Done),
                "workload web exited with status 0; done",
            ),
            (
                Notice::Blocked(0, 1, Standing::Failed),
                "workload web waits for web, which failed",
            ),
            (
                Notice::WaitsFor(0, BootCondition::Network),
                "workload web waits for the network",
            ),
            (
                Notice::Unhealthy(0, Trouble::Watchdog, true),
                "workload web is unhealthy (its watchdog is silent): stopping it",
            ),
            (
                Notice::PodFailed(0, 0),
                "pod app goes with its workload web, which failed: stopping the others",
            ),
        ];
        for (notice, text) in cases {
            let names = Names {
                workload: &|_| "web",
                pod: &|_| "app",
            };
            assert_eq!(describe(&notice, names), text);
        }
    }
}
