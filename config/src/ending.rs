//! How a machine ends when it cannot go on: the policy of `[failure]`, and the form in which it stands on the kernel's
//! command line, where init finds it before there is a root to read anything from.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::diagnostic::{Diagnostic, suggest};
use crate::manifest::{self, Text};
use crate::mistakes::Mistakes;
use crate::value::{self, Parsed};

/// The word of the kernel's command line that carries the policy.
pub const FAILURE_WORD: &str = "coracle.failure";
/// How long a machine may take to stop if the file does not say.
pub(crate) const DEFAULT_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a failed machine waits if the file does not say: long enough to read why, and that a machine which fails
/// at once each time is not a blur.
const DEFAULT_DELAY: Duration = Duration::from_secs(10);
/// A watchdog device counts whole seconds, and few count further than this.
const WATCHDOG_SECONDS: std::ops::RangeInclusive<u64> = 2..=600;

/// What a machine does that cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureAction {
    /// It starts again.
    Reboot,
    /// It switches itself off.
    PowerOff,
    /// It stands still, with the power on and its reason on the console.
    Halt,
}

/// `[failure]`: what a machine does that cannot start its workloads, or whose init or kernel panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailurePolicy {
    /// What it does.
    pub action: FailureAction,
    /// How long it waits before, with its reason on the console.
    pub delay: Duration,
}

impl Default for FailurePolicy {
    /// A machine that nobody watches tries again: what ailed it may have passed.
    fn default() -> Self {
        Self {
            action: FailureAction::Reboot,
            delay: DEFAULT_DELAY,
        }
    }
}

impl FailurePolicy {
    /// The policy of the file.
    pub(crate) fn new(from: &manifest::Failure, mistakes: &mut Mistakes) -> Self {
        let default = Self::default();
        Self {
            action: mistakes
                .take_some(from.action.as_ref(), action)
                .unwrap_or(default.action),
            delay: mistakes
                .take_some(from.delay.as_ref(), value::duration)
                .unwrap_or(default.delay),
        }
    }

    /// The kernel's own `panic=` in seconds. The kernel can only restart (a negative number: at once) or stand still
    /// (0), so a machine that would be switched off restarts.
    #[must_use]
    pub fn kernel_panic(&self) -> i64 {
        match (self.action, self.delay.as_millis()) {
            (FailureAction::Halt, _) => 0,
            (_, 0) => -1,
            (_, milliseconds) => i64::try_from(milliseconds.div_ceil(1000)).unwrap_or(i64::MAX),
        }
    }
}

/// `reboot,10s`.
impl fmt::Display for FailurePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.action {
            FailureAction::Reboot => "reboot",
            FailureAction::PowerOff => "poweroff",
            FailureAction::Halt => "halt",
        };
        let milliseconds = self.delay.as_millis();
        if milliseconds.is_multiple_of(1000) {
            write!(f, "{action},{}s", milliseconds / 1000)
        } else {
            write!(f, "{action},{milliseconds}ms")
        }
    }
}

/// Text that is no policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPolicy;

impl FromStr for FailurePolicy {
    type Err = NoPolicy;

    fn from_str(text: &str) -> Result<Self, NoPolicy> {
        let (action, delay) = text.split_once(',').ok_or(NoPolicy)?;
        let (number, factor) = match delay.strip_suffix("ms") {
            Some(number) => (number, 1),
            None => (delay.strip_suffix('s').ok_or(NoPolicy)?, 1000),
        };
        let milliseconds = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor));
        Ok(Self {
            action: named_action(action).ok_or(NoPolicy)?,
            delay: Duration::from_millis(milliseconds.ok_or(NoPolicy)?),
        })
    }
}

fn named_action(name: &str) -> Option<FailureAction> {
    match name {
        "reboot" => Some(FailureAction::Reboot),
        "poweroff" => Some(FailureAction::PowerOff),
        "halt" => Some(FailureAction::Halt),
        _ => None,
    }
}

fn action(text: &Text) -> Parsed<FailureAction> {
    let name = text.get_ref();
    named_action(name).ok_or_else(|| {
        Diagnostic::at(
            text.span(),
            format!("`{name}` is nothing that a machine can do"),
        )
        .hint(suggest(name, ["reboot", "poweroff", "halt"]))
    })
}

/// The time within which a watchdog device wants to be fed.
pub(crate) fn watchdog_timeout(text: &Text) -> Parsed<Duration> {
    let timeout = value::duration(text)?;
    if timeout.subsec_nanos() == 0 && WATCHDOG_SECONDS.contains(&timeout.as_secs()) {
        return Ok(timeout);
    }
    let message = format!("`{}` is no time for a watchdog", text.get_ref());
    Err(Diagnostic::at(text.span(), message)
        .hint("whole seconds from 2s to 600s, as in timeout = \"30s\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_comes_back_from_the_command_line_as_it_was() {
        for (text, panic) in [
            ("reboot,10s", 10),
            ("reboot,0s", -1),
            ("poweroff,1500ms", 2),
            ("halt,0s", 0),
        ] {
            let policy: FailurePolicy = text.parse().unwrap();
            assert_eq!(policy.to_string(), text);
            assert_eq!(policy.kernel_panic(), panic, "{text}");
        }
        assert_eq!(FailurePolicy::default().to_string(), "reboot,10s");
    }

    #[test]
    fn anything_else_is_no_policy() {
        let long = format!("reboot,{}s", u64::MAX);
        for text in [
            "",
            "reboot",
            "reboot,",
            "reboot,10",
            "explode,1s",
            "halt,-1s",
            &long,
        ] {
            assert_eq!(text.parse::<FailurePolicy>(), Err(NoPolicy), "{text}");
        }
    }
}
