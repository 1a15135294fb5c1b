//! The engine's notices as the console's fixed words.

use std::time::Duration;

use super::event::{Cause, Exit, Next, Notice};

/// The console line of a notice; `name` gives a workload's name by its id.
pub fn describe<'a>(notice: &Notice, name: impl Fn(usize) -> &'a str) -> String {
    match notice {
        Notice::Started(id) => format!("workload {} started", name(*id)),
        Notice::Ready(id) => format!("workload {} ready", name(*id)),
        Notice::AllReady => "stage ready".to_owned(),
        Notice::Slow(id, after) => {
            format!(
                "workload {} is not ready after {} s; still trying",
                name(*id),
                after.as_secs()
            )
        }
        Notice::Ended(id, cause, next) => {
            format!(
                "workload {} {}; {}",
                name(*id),
                describe_cause(cause),
                describe_next(*next)
            )
        }
        Notice::CheckFailed(id, count) => {
            format!("workload {} failed a check ({count} in a row)", name(*id))
        }
        Notice::Unhealthy(id) => format!(
            "workload {} is unhealthy: stopping it to start it again",
            name(*id)
        ),
        Notice::Killing(id) => format!("workload {} did not stop in time: killing it", name(*id)),
        Notice::Unkillable(id) => format!("workload {} does not even end by SIGKILL", name(*id)),
        Notice::Blocked(id, before) => {
            format!(
                "workload {} does not start: {} ended without having been ready",
                name(*id),
                name(*before)
            )
        }
        Notice::Stopped(id) => format!("workload {} stopped", name(*id)),
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
        Next::Down => "staying down".to_owned(),
    }
}

/// Seconds with as many decimals as are needed.
fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

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
                Notice::Ended(0, Cause::StartFailed("no such file".to_owned()), Next::Down),
                "workload web failed to start: no such file; staying down",
            ),
        ];
        for (notice, text) in cases {
            assert_eq!(describe(&notice, |_| "web"), text);
        }
    }
}
