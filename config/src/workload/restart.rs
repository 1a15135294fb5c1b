//! Service or job, and when it is started again.

use std::time::Duration;

use toml::Spanned;

use crate::boot::{Kind, Restart, StartLimit};
use crate::diagnostic::{Diagnostic, suggest};
use crate::manifest::{self, Text};
use crate::mistakes::Mistakes;
use crate::value::{self, Parsed};

/// The first delay before a restart if the file does not say.
const DEFAULT_DELAY: Duration = Duration::from_millis(100);
/// The longest delay if the file does not say.
const DEFAULT_LONGEST_DELAY: Duration = Duration::from_secs(10);
/// The starts of a job if the file does not say.
const DEFAULT_JOB_LIMIT: StartLimit = StartLimit {
    starts: 5,
    within_ms: 600_000,
};
/// The most starts that a limit may count: init remembers the time of each.
const MOST_STARTS: i64 = 1000;

/// When a workload is started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartPolicy {
    /// After which exits.
    pub when: Restart,
    /// The first delay.
    pub delay: Duration,
    /// The longest delay, not below the first.
    pub delay_max: Duration,
    /// More starts than this, and it has failed for good.
    pub start_limit: Option<StartLimit>,
}

impl RestartPolicy {
    pub(super) fn new(from: &manifest::Workload, kind: Kind, mistakes: &mut Mistakes) -> Self {
        let (delay, delay_max) = delays(from, mistakes);
        let default_limit = (kind == Kind::Job).then_some(DEFAULT_JOB_LIMIT);
        let limit = from.start_limit.as_ref();
        Self {
            when: restart(from, kind, mistakes),
            delay,
            delay_max,
            start_limit: limit
                .and_then(|limit| start_limit(limit, mistakes))
                .or(default_limit),
        }
    }
}

/// `kind`; a service if the file does not say.
pub(super) fn kind(from: &manifest::Workload, mistakes: &mut Mistakes) -> Kind {
    let parse = |text: &Text| match text.get_ref().as_str() {
        "service" => Ok(Kind::Service),
        "job" => Ok(Kind::Job),
        other => Err(
            Diagnostic::at(text.span(), format!("`{other}` is no kind of workload"))
                .hint(suggest(other, ["service", "job"])),
        ),
    };
    mistakes
        .take_some(from.kind.as_ref(), parse)
        .unwrap_or(Kind::Service)
}

fn restart(from: &manifest::Workload, kind: Kind, mistakes: &mut Mistakes) -> Restart {
    let default = match kind {
        Kind::Service => Restart::Always,
        Kind::Job => Restart::OnFailure,
    };
    let Some(text) = &from.restart else {
        return default;
    };
    let restart = mistakes.take(policy(text)).unwrap_or(default);
    if kind == Kind::Job && restart == Restart::Always {
        mistakes.push(
            Diagnostic::at(
                text.span(),
                "a job that is restarted `always` is never done",
            )
            .hint("write restart = \"on-failure\", or remove kind = \"job\""),
        );
    }
    restart
}

fn policy(text: &Text) -> Parsed<Restart> {
    match text.get_ref().as_str() {
        "always" => Ok(Restart::Always),
        "on-failure" => Ok(Restart::OnFailure),
        "never" => Ok(Restart::Never),
        other => Err(
            Diagnostic::at(text.span(), format!("`{other}` is no restart policy"))
                .hint(suggest(other, ["always", "on-failure", "never"])),
        ),
    }
}

/// Whichever of the two the file does not give follows the other where the default would contradict it.
fn delays(from: &manifest::Workload, mistakes: &mut Mistakes) -> (Duration, Duration) {
    let first = mistakes.take_some(from.restart_delay.as_ref(), value::duration);
    let longest = mistakes.take_some(from.restart_delay_max.as_ref(), value::duration);
    match (first, longest, &from.restart_delay_max) {
        (Some(first), Some(longest), Some(text)) if first > longest => {
            mistakes.push(
                Diagnostic::at(
                    text.span(),
                    format!("`{}` is shorter than `restart_delay`", text.get_ref()),
                )
                .hint("the delay grows from restart_delay to restart_delay_max"),
            );
            (first, first)
        }
        (Some(first), Some(longest), _) => (first, longest),
        (Some(first), None, _) => (first, DEFAULT_LONGEST_DELAY.max(first)),
        (None, Some(longest), _) => (DEFAULT_DELAY.min(longest), longest),
        (None, None, _) => (DEFAULT_DELAY, DEFAULT_LONGEST_DELAY),
    }
}

fn start_limit(limit: &manifest::StartLimit, mistakes: &mut Mistakes) -> Option<StartLimit> {
    let within = mistakes.take(value::duration(&limit.within));
    let starts = mistakes.take(starts(&limit.starts));
    Some(StartLimit {
        starts: starts?,
        within_ms: u64::try_from(within?.as_millis()).unwrap_or(u64::MAX),
    })
}

fn starts(starts: &Spanned<i64>) -> Parsed<u32> {
    let count = *starts.get_ref();
    u32::try_from(count)
        .ok()
        .filter(|_| (1..=MOST_STARTS).contains(&count))
        .ok_or_else(|| {
            Diagnostic::at(starts.span(), format!("`{count}` starts are out of range"))
                .hint("from 1 to 1000, as in start_limit = { starts = 10, within = \"5m\" }")
        })
}
